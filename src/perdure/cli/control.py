"""`perdure signal`, `cancel`, `terminate`, `pause`, `resume`: each sends one message and says what comes of it."""

from __future__ import annotations

from typing import Any

import click

from perdure.cli.client import client_of, go, known, worker_runs
from perdure.cli.inputs import parse, read_text
from perdure.cli.options import Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import command_line, print_json, say
from perdure.cli.problems import nearest

NOBODY = "No worker runs on this store: it is kept until one does."


@click.command()
@click.argument("execution_id", metavar="ID")
@click.argument("name")
@click.argument("value", metavar="[JSON]", required=False)
@click.option(
    "--message-id", metavar="ID", help="Of this message: sent again with the same id, it has no further effect."
)
@shared_options
def signal(execution_id: str, name: str, value: str | None, message_id: str | None) -> None:
    """Send signal NAME to execution ID.

    JSON is the value that perdure.receive(NAME) returns there; without it, null. `-` reads it from standard input,
    `@FILE` from a file.

    \b
      perdure signal report-1 approval '{"approved": true}'
    """
    data = None if value is None else parse(read_text(value), "the signal")
    go(_signal(current(), execution_id, name, data, message_id))


async def _signal(settings: Settings, execution_id: str, name: str, data: Any, message_id: str | None) -> None:
    async with client_of(settings) as client:
        row = await known(client, execution_id)
        await client.handle(execution_id).signal(name, data, id=message_id)
        say_sent(
            settings, execution_id, f"Sent signal {name} to {execution_id}.", worker=worker_runs(client), signal=name
        )
    waited = [each.removeprefix("signal ") for each in row.waits_for.split(", ") if each.startswith("signal ")]
    if not settings.json and waited and name not in waited and (hint := nearest(name, waited)):
        say(
            f"{execution_id} waits for signal {', '.join(waited)}; {name} is kept until it is received. {hint}",
            "yellow",
        )


@click.command()
@click.argument("execution_id", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="Kept in the journal, and shown.")
@shared_options
def cancel(execution_id: str, reason: str) -> None:
    """Ask execution ID to cancel.

    Its code gets asyncio.CancelledError where it waits, and may clean up with further steps first.
    """
    go(_cancel(current(), execution_id, reason))


async def _cancel(settings: Settings, execution_id: str, reason: str) -> None:
    async with client_of(settings) as client:
        await known(client, execution_id)
        await client.handle(execution_id).cancel(reason)
        say_sent(settings, execution_id, f"Asked {execution_id} to cancel.", worker=worker_runs(client), cancel=reason)


@click.command()
@click.argument("execution_id", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="Kept in the journal, and shown.")
@shared_options
def terminate(execution_id: str, reason: str) -> None:
    """End execution ID without asking its code.

    Nothing of it runs any more, no clean-up either: to let it clean up, cancel it. It works on what is paused, stalled
    or not begun as well.
    """
    go(_terminate(current(), execution_id, reason))


async def _terminate(settings: Settings, execution_id: str, reason: str) -> None:
    async with client_of(settings) as client:
        await known(client, execution_id)
        await client.handle(execution_id).terminate(reason)
        text = f"Asked to terminate {execution_id}."
        say_sent(settings, execution_id, text, worker=worker_runs(client), terminate=reason)


@click.command()
@click.argument("execution_id", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="Kept in the journal, and shown.")
@shared_options
def pause(execution_id: str, reason: str) -> None:
    """Pause execution ID until it is resumed.

    Nothing of it begins any more, and its timers wait. Steps that run may end; messages are kept. A request to
    terminate is heard.
    """
    go(_pause(current(), execution_id, reason))


async def _pause(settings: Settings, execution_id: str, reason: str) -> None:
    async with client_of(settings) as client:
        await known(client, execution_id)
        await client.handle(execution_id).pause(reason)
        say_sent(settings, execution_id, f"Asked {execution_id} to pause.", worker=worker_runs(client), pause=reason)


@click.command()
@click.argument("execution_id", metavar="ID")
@shared_options
def resume(execution_id: str) -> None:
    """Let a paused or stalled execution ID go on.

    What stalled needs its code fixed first; a worker that is running still has the old one in memory: restart it.
    """
    go(_resume(current(), execution_id))


async def _resume(settings: Settings, execution_id: str) -> None:
    async with client_of(settings) as client:
        row = await known(client, execution_id)
        await client.handle(execution_id).resume()
        waits = row.status in {"stalled", "paused"}
        goes_on, not_waiting = (
            f"{execution_id} is resumed.",
            f"{execution_id} is {row.status}, neither paused nor stalled: it is left as it is.",
        )
        running = worker_runs(client)
        say_sent(settings, execution_id, goes_on if waits else not_waiting, worker=running, was=row.status)
        if row.status == "stalled" and running and not settings.json:
            say(
                f"If it stalls again, restart the worker with the fixed code. See {_show(settings, execution_id)}",
                "dim",
            )


def say_sent(settings: Settings, execution_id: str, text: str, *, worker: bool, **facts: Any) -> None:
    """Say what was sent, and whether anybody is there to take it."""
    if settings.json:
        print_json({"id": execution_id, **facts, "worker_runs": worker})
        return
    say(text)
    if not worker:
        say(NOBODY, "yellow")


def _show(settings: Settings, execution_id: str) -> str:
    return command_line(settings, "show", execution_id)
