"""`perdure gc`: removes executions that closed long ago, in small bites beside a running worker."""

from __future__ import annotations

import click

import perdure
from perdure.cli.options import Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import console, print_json, say
from perdure.cli.talk import client_of, go
from perdure.cli.times import SPAN, span_of


@click.command()
@click.option("--older-than", required=True, metavar="TIME", help=f"Closed longer ago than that: {SPAN}.")
@click.option("--dry-run", is_flag=True, help="Only count what would go.")
@shared_options
def gc(older_than: str, *, dry_run: bool) -> None:
    """Remove executions that closed long ago.

    With all that belongs to them: journals, past runs, large values, dead letters, attributes. What is open stays,
    and so does what somebody still waits for. A worker may be running. The file keeps its size: what is free in it is
    used again.

    \b
      perdure gc --older-than 90d --dry-run
    """
    age = span_of(older_than, "--older-than")
    go(_gc(current(), age.total_seconds(), dry_run=dry_run))


async def _gc(settings: Settings, older_than_s: float, *, dry_run: bool) -> None:
    out = console(stderr=True)
    async with client_of(settings) as client:
        if settings.json or not out.is_terminal:
            removed = await client.collect(older_than=older_than_s, dry_run=dry_run)
        else:
            with out.status("looking") as status:
                removed = await client.collect(
                    older_than=older_than_s, dry_run=dry_run, progress=lambda so_far: status.update(_text(so_far))
                )
    if settings.json:
        print_json({"executions": removed.executions, "events": removed.events, "dry_run": dry_run})
    else:
        say(f"{_text(removed)} {'would go' if dry_run else 'removed'}.")


def _text(removed: perdure.Removed) -> str:
    return f"{removed.executions:,} executions with {removed.events:,} events"
