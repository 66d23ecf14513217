"""`perdure gc`: removes executions that closed long ago, in small bites beside a running worker."""

from __future__ import annotations

import click

from perdure.cli.options import Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import print_json, say
from perdure.cli.progress import progress
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
    async with client_of(settings) as client:
        with progress(settings, "counting" if dry_run else "removing", "executions") as told:
            removed = await client.collect(
                older_than=older_than_s, dry_run=dry_run, progress=lambda so_far: told.reach(so_far.executions)
            )
    if settings.json:
        print_json({"executions": removed.executions, "events": removed.events, "dry_run": dry_run})
    else:
        what = f"{removed.executions:,} executions with {removed.events:,} events"
        say(f"{what} {'would go' if dry_run else 'removed'}.")
