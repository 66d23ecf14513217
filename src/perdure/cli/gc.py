"""`perdure gc`: removes executions that closed and runs that ended long ago, in small bites beside a running worker."""

from __future__ import annotations

import click

import perdure
from perdure.cli.client import client_of, go
from perdure.cli.options import Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import print_json, say
from perdure.cli.progress import progress
from perdure.cli.times import SPAN, span_of
from perdure.cli.words import counted


@click.command()
@click.option("--older-than", metavar="TIME", help=f"Executions that closed longer ago than that: {SPAN}.")
@click.option("--runs-older-than", metavar="TIME", help="Past runs that ended longer ago, of open executions too.")
@click.option("--dry-run", is_flag=True, help="Only count what would go.")
@shared_options
def gc(older_than: str | None, runs_older_than: str | None, *, dry_run: bool) -> None:
    """Remove what ended long ago: executions, past runs.

    An execution goes with all that belongs to it: journals, past runs, large values, dead letters, attributes. What is
    open stays, and so does what somebody still waits for; of past runs, also those that were copied from elsewhere. A
    worker may be running. The file keeps its size: what is free in it is used again.

    \b
      perdure gc --older-than 90d --dry-run
      perdure gc --runs-older-than 30d
    """
    given = {"--older-than": older_than, "--runs-older-than": runs_older_than}
    ages = {option: span_of(age, option).total_seconds() for option, age in given.items() if age is not None}
    if not ages:
        raise click.UsageError("Say what is to go: --older-than, --runs-older-than, or both.")
    go(_gc(current(), ages.get("--older-than"), ages.get("--runs-older-than"), dry_run=dry_run))


async def _gc(settings: Settings, older_s: float | None, runs_s: float | None, *, dry_run: bool) -> None:
    what = "executions" if older_s is not None else "runs"
    async with client_of(settings) as client:
        with progress(settings, "counting" if dry_run else "removing", what) as bar:

            def reach(so_far: perdure.Removed) -> None:
                bar.reach(so_far.executions + so_far.runs)

            removed = await client.collect(older_than=older_s, runs_older_than=runs_s, dry_run=dry_run, progress=reach)
    if settings.json:
        print_json({**removed._asdict(), "dry_run": dry_run})
    else:
        say(_told(removed, dry_run=dry_run))


def _told(removed: perdure.Removed, *, dry_run: bool) -> str:
    counts = ((removed.executions, "execution"), (removed.runs, "past run"))
    gone = [counted(count, noun) for count, noun in counts if count]
    if not gone:
        return "Nothing is that old."
    verb = "would go" if dry_run else "removed"
    return f"{' and '.join(gone)} with {counted(removed.events, 'event')} {verb}."
