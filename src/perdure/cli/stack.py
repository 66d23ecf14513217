"""`perdure stack`: where the tasks of an execution stand now."""

from __future__ import annotations

from collections.abc import Iterator

import click
from rich.text import Text

from perdure import journal as jn
from perdure.cli import shapes
from perdure.cli.client import client_of, go, known
from perdure.cli.options import Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import console, print_json, say
from perdure.cli.times import duration, now_ms


@click.command()
@click.argument("execution_id", metavar="ID")
@shared_options
def stack(execution_id: str) -> None:
    """Show where the tasks of execution ID stand.

    Of each its lines of code, and what the innermost of them awaits. A worker must run: it has the code.
    """
    go(_stack(current(), execution_id))


async def _stack(settings: Settings, execution_id: str) -> None:
    async with client_of(settings) as client:
        row = await known(client, execution_id)
        found = await client.handle(execution_id).stack()
    if settings.json:
        print_json({"id": execution_id, "status": row.status, **shapes.of_struct(found)})
        return
    out = console()
    for each in found.waiting:
        for line in _lines(each):
            out.print(line)
    if found.more:
        say(f"{found.more:,} more tasks.", "dim")
    if not found.waiting:
        say(f"{execution_id} is {row.status}: nothing of it waits.", "dim")


def _lines(each: jn.Waiting) -> Iterator[Text]:
    number = f" #{each.seq}" if each.seq else ""
    left_ms = each.due_at_ms - now_ms()
    due = f", due in {duration(left_ms)}" if each.due_at_ms and left_ms > 0 else ", due" if each.due_at_ms else ""
    yield Text.assemble((each.task, "bold"), "  awaits ", (f"{each.awaits or 'something'}{number}{due}", "yellow"))
    for frame in each.frames:
        yield Text.assemble(f"    {frame.place}", (f" in {frame.function}", "dim"))
