"""`perdure ls` and `perdure show`: what there is, and what happened to one of it. Neither writes anything."""

from __future__ import annotations

from typing import Any, cast, get_args

import click
from rich.text import Text

import perdure
from perdure import journal as jn
from perdure.cli import shapes
from perdure.cli.client import PAGE, ROWS_COMPARED, client_of, go, known, rows_of, worker_runs
from perdure.cli.filters import filters_of
from perdure.cli.listing import Listing
from perdure.cli.options import Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import command_line, console, print_json, say, to_json
from perdure.cli.problems import cursor_of, nearest, tidy
from perdure.cli.timeline import timeline
from perdure.cli.timeline_view import View
from perdure.cli.times import now_ms
from perdure.store.reader import ended_cleanly, runs_alone

STATUSES: tuple[jn.Status, ...] = get_args(jn.Status)
GROUPS: dict[str, tuple[jn.Status, ...]] = {
    "open": jn.OPEN_STATUSES,
    "closed": tuple(status for status in STATUSES if status not in jn.OPEN_STATUSES),
}


@click.command()
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([*STATUSES, *GROUPS]),
    metavar="STATUS",
    help=f"Only these; may be given several times. One of {', '.join(STATUSES)}, or open, closed.",
)
@click.option("--workflow", default="", metavar="NAME", help="Only executions of this workflow.")
@click.option("--prefix", default="", metavar="TEXT", help="Only those whose id begins so.")
@click.option("--parent", default="", metavar="ID", help="Only those that this execution started.")
@click.option("--since", metavar="TIME", help="Only those started then or later: a moment, or so long ago.")
@click.option("--before", metavar="TIME", help="Only those started before then.")
@click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help="Only those whose attribute is that: 'team=search', 'cents>=1000', with =, !=, <, <=, > or >=. All must hold.",
)
@click.option("--cursor", default="", metavar="CURSOR", help="Go on where a list ended, which printed it.")
@click.option(
    "--limit", type=click.IntRange(1, PAGE), default=50, show_default=True, metavar="N", help="At most so many."
)
@shared_options
def ls(statuses: tuple[str, ...], limit: int, **given: Any) -> None:
    """List executions, newest first.

    \b
      perdure ls --status stalled
      perdure ls --since 1d --where 'team=search' --where 'cents>1000'
      perdure ls --json | jq -r .id
    """
    wanted = [one for status in statuses for one in GROUPS.get(status, (cast("jn.Status", status),))]
    go(_ls(current(), filters_of(list(dict.fromkeys(wanted)), given), given["cursor"], limit))


async def _ls(settings: Settings, filters: dict[str, Any], cursor: str, limit: int) -> None:
    async with client_of(settings) as client:
        with cursor_of("--cursor", cursor, "filters"):
            page = await client.list(**filters, cursor=cursor, limit=limit)
        workflow = filters.get("workflow", "")
        hint = await _other_workflow(client, workflow) if workflow and not page and not cursor else ""
    if settings.json:
        for row in page:
            print_json(shapes.of_row(row))
        if page.next:
            click.echo(to_json({"next": page.next}), err=True)
        return
    Listing(console(), page, now_ms()).draw()
    if not page:
        say(f"No such executions in {tidy(settings.store_name)}. {hint}".rstrip(), "dim")
    elif page.next:
        say(f"The newest {len(page):,}. There are more: --limit, or go on with --cursor {page.next}", "dim")


async def _other_workflow(client: perdure.Client, name: str) -> str:
    names: set[str] = set()
    looked = 0
    async for page in rows_of(client):
        names.update(row.workflow for row in page)
        looked += len(page)
        if looked >= ROWS_COMPARED:
            break
    return nearest(name, names) if name not in names else ""


@click.command()
@shared_options
def stalled() -> None:
    """List what stalled, with why, and how to go on."""
    go(_stalled(current()))


async def _stalled(settings: Settings) -> None:
    out, count = console(), 0
    async with client_of(settings) as client:
        async for page in rows_of(client, status=["stalled"]):
            count += len(page)
            for row in page:
                if settings.json:
                    print_json(shapes.of_row(row))
                    continue
                out.print(Text.assemble((row.key.execution, "bold"), f"  {row.workflow}, after {row.position} events"))
                out.print(Text("    " + tidy(row.problem).replace("\n", "\n    ")))
                out.print(Text(f"    {command_line(settings, 'resume', row.key.execution)}", "dim"))
    if not settings.json:
        say(f"{count:,} stalled." if count else "Nothing is stalled.", "dim")


@click.command()
@click.argument("execution_id", metavar="ID")
@click.option("--full", is_flag=True, help="Whole values and tracebacks, every attempt on a line of its own.")
@shared_options
def show(execution_id: str, *, full: bool) -> None:
    """Show what happened to execution ID: its state, and a timeline.

    A line stands where its event was recorded, with the time since the start, how long it took, where in the code it
    was called, and what went in and came out. Brackets join what ran at the same time.
    """
    go(_show(current(), execution_id, full=full))


async def _show(settings: Settings, execution_id: str, *, full: bool) -> None:
    async with client_of(settings) as client:
        row = await known(client, execution_id)
        handle: perdure.Handle[Any] = client.handle(execution_id)
        journal = await handle.journal()
        running = [each for each in await handle.running() if each.run == row.run]
        worker, alone = worker_runs(client), runs_alone(client.store, row)
        ends = {each: ended_cleanly(client.store, each) for each in {recorded.session for recorded in journal}}
    if settings.json:
        events = [shapes.of_recorded(recorded) for recorded in journal]
        now = {"worker_runs": worker, "runs_alone": alone, "running": shapes.of_running(running)}
        print_json({**shapes.of_description(row), **now, "journal": events})
        return
    clean = {session: end for session, end in ends.items() if end is not None}
    story = timeline(journal, running, alone=alone, clean=clean, unfold=full)
    View(console(), row, story, full=full, now_ms=now_ms(), worker=worker).draw()
