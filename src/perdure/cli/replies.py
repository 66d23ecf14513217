"""`perdure update`, `query`, `state`: what needs an answer, from the workflow's code or without it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import click

import perdure
from perdure.cli.client import client_of, go, known, worker_runs
from perdure.cli.control import NOBODY
from perdure.cli.inputs import parse, read_text
from perdure.cli.options import SECONDS, Exit, Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import command_line, print_json, print_result, say, to_json
from perdure.cli.problems import Problem, exit_code_of
from perdure.journal import OPEN_STATUSES

_values = click.argument("values", metavar="[JSON]...", nargs=-1)


@click.command()
@click.argument("execution_id", metavar="ID")
@click.argument("name")
@_values
@click.option("--update-id", metavar="ID", help="Of this update: asked again with it, the answer is the same.")
@click.option(
    "--timeout",
    type=SECONDS,
    metavar="SECONDS",
    help="How long to wait for the answer; the update goes on. Default: as long as it takes.",
)
@shared_options
def update(execution_id: str, name: str, values: tuple[str, ...], update_id: str | None, timeout: float | None) -> None:
    """Send update NAME to execution ID, print the answer.

    Each JSON is an argument of the handler; `-` reads one from standard input, `@FILE` from a file. An update that is
    rejected ends with exit code 7, one whose handler fails with 1.

    \b
      perdure update cart-7 add '"apple"' 3
    """
    go(_update(current(), execution_id, name, _parsed(values), update_id or "", timeout))


async def _update(
    settings: Settings, execution_id: str, name: str, values: Sequence[Any], chosen: str, timeout: float | None
) -> None:
    async with client_of(settings) as client:
        row = await known(client, execution_id)
        chosen = chosen or client.new_id()
        if row.status in OPEN_STATUSES and not settings.json and not worker_runs(client):
            say(NOBODY, "yellow")
        try:
            result = await client.handle(execution_id).update(name, *values, id=chosen, timeout=timeout)
        except (perdure.errors.WaitTimeout, asyncio.CancelledError) as error:
            words = [to_json(value) for value in values]
            again = command_line(settings, "update", execution_id, name, *words, "--update-id", chosen)
            hint = f"It goes on; its answer can be asked for again:\n  {again}"
            code = exit_code_of(error) if isinstance(error, perdure.PerdureError) else Exit.INTERRUPTED
            raise Problem(f"Update {name!r} of {execution_id} has no answer yet.", code, hint=hint) from None
    if settings.json:
        print_json({"id": execution_id, "update": name, "update_id": chosen, "result": result})
    else:
        print_result(result)


@click.command()
@click.argument("execution_id", metavar="ID")
@click.argument("name")
@_values
@click.option(
    "--timeout",
    type=SECONDS,
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the answer.",
)
@shared_options
def query(execution_id: str, name: str, values: tuple[str, ...], timeout: float) -> None:
    """Ask execution ID query NAME, print the answer.

    Each JSON is an argument of the handler; `-` reads one from standard input, `@FILE` from a file. The workflow's code
    answers, so a worker must run; what it has published is readable without one: see perdure state.

    \b
      perdure query report-1 progress
    """
    go(_query(current(), execution_id, name, _parsed(values), timeout))


async def _query(settings: Settings, execution_id: str, name: str, values: Sequence[Any], timeout: float) -> None:
    async with client_of(settings) as client:
        await known(client, execution_id)
        answer = await client.handle(execution_id).query(name, *values, timeout=timeout)
    if settings.json:
        print_json({"id": execution_id, "query": name, "answer": answer})
    else:
        print_result(answer)


@click.command()
@click.argument("execution_id", metavar="ID")
@shared_options
def state(execution_id: str) -> None:
    """Print what execution ID last published.

    That is what perdure.publish was given: readable while it runs, when it has ended, and without its code.

    \b
      perdure state report-1
    """
    go(_state(current(), execution_id))


async def _state(settings: Settings, execution_id: str) -> None:
    async with client_of(settings) as client:
        row = await known(client, execution_id)
        published = await client.handle(execution_id).state()
    if settings.json:
        print_json({"id": execution_id, "published": row.state_position is not None, "state": published})
        return
    if row.state_position is None:
        say(f"{execution_id} has published nothing.", "dim")
    print_result(published)


def _parsed(values: Sequence[str]) -> list[Any]:
    return [parse(read_text(value), f"argument {number}") for number, value in enumerate(values, 1)]
