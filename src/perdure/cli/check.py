"""`perdure check`: before a deploy, which executions would go on with the code on disk, which stall, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import click
from rich.text import Text

import perdure
from perdure import journal as jn
from perdure.cli.modules import AnyWorkflow, load_module, workflows_of
from perdure.cli.options import Exit, Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import console, print_json, say
from perdure.cli.problems import Problem, tidy
from perdure.cli.talk import client_of, go, rows_of
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
@shared_options
def check(modules: tuple[str, ...], closed: int) -> int:
    """Replay journals against the code on disk.

    Which executions would go on, and which would stall, and why: all unfinished executions of the MODULEs'
    workflows, and a sample of closed ones. Nothing is run and nothing is
    written; a worker may be running. Exit code 1 if any would stall.

    \b
      perdure check agent.py && deploy
    """
    workflows = {each.name: each for module in modules for each in workflows_of(load_module(module)).values()}
    if not workflows:
        raise Problem(f"{', '.join(modules)} defines no workflow.", hint="Put @perdure.workflow above an async def.")
    return go(_check(current(), workflows, closed))


async def _check(settings: Settings, workflows: dict[str, AnyWorkflow], closed: int) -> int:
    verdicts: list[Verdict] = []
    others: Counter[str] = Counter()
    async with client_of(settings) as client:
        async for row in _wanted(client, closed):
            workflow = workflows.get(row.workflow)
            if workflow is None:
                others[row.workflow] += row.status in jn.OPEN_STATUSES
                continue
            events = await client.handle(row.key.execution).journal()
            verdicts.append(Verdict(row, golden.disagreement(workflow, row.key.execution, events)))
    bad = [each for each in verdicts if each.problem is not None]
    if settings.json:
        for verdict in verdicts:
            print_json(_told(verdict))
    else:
        _print(verdicts, bad, others)
    return Exit.FAILED if bad else Exit.OK


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


def _told(verdict: Verdict) -> dict[str, object]:
    row, problem = verdict
    why = {"code": problem.code, "problem": tidy(str(problem))} if problem is not None else {}
    return {"id": row.key.execution, "workflow": row.workflow, "status": row.status, "goes_on": problem is None, **why}


def _print(verdicts: Sequence[Verdict], bad: Sequence[Verdict], others: Counter[str]) -> None:
    out = console()
    for row, problem in bad:
        would = "would stall" if row.status in jn.OPEN_STATUSES else "does not replay"
        head = Text.assemble((row.key.execution, "bold"), f" ({row.workflow}, {row.status}) ", (would, "bold red"))
        out.print(head)
        out.print(Text("    " + tidy(str(problem)).replace("\n", "\n    ")))
    unfinished = sum(each.row.status in jn.OPEN_STATUSES for each in verdicts)
    say(f"{unfinished} unfinished and {len(verdicts) - unfinished} closed executions replayed: {len(bad)} disagree.")
    for name, count in others.items():
        if count:
            say(f"{count} unfinished executions of {name!r} were not checked: no MODULE defines it.", "yellow")
