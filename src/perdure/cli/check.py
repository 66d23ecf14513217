"""`perdure check`: before a deploy, which executions would go on with the code on disk, which stall, and why."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from typing import NamedTuple

import click
from rich.text import Text

import perdure
from perdure import journal as jn
from perdure.cli.client import client_of, go, rows_of
from perdure.cli.modules import AnyWorkflow, load_module, workflows_of
from perdure.cli.options import Exit, Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import console, print_json, say
from perdure.cli.problems import Problem, tidy
from perdure.cli.progress import progress
from perdure.cli.words import counted
from perdure.store.reader import statuses
from perdure.testing import golden

CLOSED: tuple[jn.Status, ...] = ("completed", "failed", "cancelled", "terminated")
SAMPLE = 100


class Verdict(NamedTuple):
    """What became of one journal."""

    row: jn.Row
    problem: perdure.PerdureError | None


@click.command()
@click.argument("modules", metavar="MODULE...", nargs=-1, required=True)
@click.option(
    "--closed",
    type=click.IntRange(min=0),
    default=SAMPLE,
    show_default=True,
    metavar="N",
    help="Besides all unfinished executions, replay the newest N closed ones.",
)
@click.option(
    "--ignore", multiple=True, metavar="NAME", help="A workflow that other workers run, with code that is not here."
)
@shared_options
def check(modules: tuple[str, ...], closed: int, ignore: tuple[str, ...]) -> int:
    """Replay journals against the code on disk.

    Which executions would go on, and which would stall, and why: all unfinished
    executions, and a sample of closed ones. What no MODULE defines would stall, too.
    Nothing is run and nothing is written; a worker may be running. Exit code 1 if any
    would stall.

    \b
      perdure check agent.py && deploy
    """
    workflows = {each.name: each for module in modules for each in workflows_of(load_module(module)).values()}
    if not workflows:
        raise Problem(f"{', '.join(modules)} defines no workflow.", hint="Put @perdure.workflow above an async def.")
    return go(_check(current(), workflows, closed, ignore))


async def _check(settings: Settings, workflows: dict[str, AnyWorkflow], closed: int, ignore: Collection[str]) -> int:
    bad: list[Verdict] = []
    replayed: Counter[bool] = Counter()
    async with client_of(settings) as client:
        with progress(settings, "replaying", "executions", await _total(client, closed)) as bar:
            async for row in _wanted(client, closed):
                verdict = await _verdict(client, row, workflows, ignore)
                bar.advance()
                if verdict is None:
                    continue
                replayed[_is_open(row)] += 1
                if settings.json:
                    print_json(_as_json(verdict))
                if verdict.problem is not None:
                    bad.append(verdict)
    if not settings.json:
        _print(bad, unfinished=replayed[True], ended=replayed[False])
    return Exit.FAILED if bad else Exit.OK


async def _total(client: perdure.Client, closed: int) -> int:
    counts = await asyncio.to_thread(statuses, client.store, client.namespace)
    ended = sum(counts.get(status, 0) for status in CLOSED)
    return sum(counts.values()) - ended + min(ended, closed)


async def _verdict(
    client: perdure.Client, row: jn.Row, workflows: dict[str, AnyWorkflow], ignore: Collection[str]
) -> Verdict | None:
    """None: it is nobody's business here."""
    workflow = workflows.get(row.workflow)
    if workflow is None:
        if not _is_open(row) or row.workflow in ignore:
            return None
        known = ", ".join(sorted(workflows))
        return Verdict(row, perdure.errors.UnknownWorkflow(name=row.workflow, known=known))
    handle = client.handle(row.key.execution)
    events = await handle.journal()
    return Verdict(row, golden.disagreement(workflow, row.key.execution, events, private=handle.is_private))


def _is_open(row: jn.Row) -> bool:
    return row.status in jn.OPEN_STATUSES


async def _wanted(client: perdure.Client, closed: int) -> AsyncIterator[jn.Row]:
    async for page in rows_of(client, status=jn.OPEN_STATUSES):
        for row in page:
            yield row
    left = closed
    async for page in rows_of(client, status=CLOSED):
        for row in page[:left]:
            yield row
        left -= len(page)
        if left <= 0:
            return


def _as_json(verdict: Verdict) -> dict[str, object]:
    row, problem = verdict
    why = {"code": problem.code, "problem": tidy(str(problem))} if problem is not None else {}
    return {"id": row.key.execution, "workflow": row.workflow, "status": row.status, "goes_on": problem is None, **why}


def _print(bad: Sequence[Verdict], *, unfinished: int, ended: int) -> None:
    out = console()
    for row, problem in bad:
        would = "would stall" if _is_open(row) else "does not replay"
        head = Text.assemble((row.key.execution, "bold"), f" ({row.workflow}, {row.status}) ", (would, "bold red"))
        out.print(head)
        out.print(Text("    " + tidy(str(problem)).replace("\n", "\n    ")))
    count = counted(ended, "closed execution")
    say(f"{unfinished:,} unfinished and {count} replayed: {len(bad):,} disagree{'s' if len(bad) == 1 else ''}.")
