"""`perdure fork` and `rewind`: another way from an earlier event on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

import perdure
from perdure import journal as jn
from perdure.cli.client import client_of, go, known, worker_runs
from perdure.cli.control import say_sent
from perdure.cli.inputs import parse, read_text
from perdure.cli.modules import AnyWorkflow, load_module, workflows_of
from perdure.cli.options import EVENT, Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import command_line, say
from perdure.cli.problems import Problem, nearest, problem_of

Command = TypeVar("Command", bound=Callable[..., Any])


def _cut_options(command: Command) -> Command:
    at = click.option(
        "--at",
        type=EVENT,
        metavar="N",
        help="The first event that is left out, as `perdure journal` numbers them. Default: that after --replace.",
    )
    replace = click.option(
        "--replace",
        multiple=True,
        metavar="N=JSON",
        help="The step whose result event N holds has returned this; may be given several times.",
    )
    module = click.option(
        "--module",
        metavar="MODULE",
        help="The workflow's code, for the type of --replace; not needed while a worker runs.",
    )
    return at(replace(module(command)))


@click.command()
@click.argument("execution_id", metavar="ID")
@click.option("--new-id", metavar="ID", help="Of the fork. Default: a random one, which is printed.")
@click.option("--run", metavar="RUN", help="Of an earlier run, by its id. Default: the current one.")
@_cut_options
@shared_options
def fork(
    execution_id: str,
    *,
    new_id: str | None,
    run: str | None,
    at: int | None,
    replace: Sequence[str],
    module: str | None,
) -> None:
    """Begin a new execution with the first events of execution ID.

    What is copied is not done again. The execution itself goes on as if nothing had happened. JSON may be `-` or
    `@FILE`.

    \b
      perdure fork report-1 --new-id report-1b --replace 4='"another plan"'
      perdure diff report-1 report-1b
    """
    go(_fork(current(), execution_id, new_id, run, at, _replaced(replace), module))


async def _fork(
    settings: Settings,
    execution_id: str,
    new_id: str | None,
    run: str | None,
    at: int | None,
    replace: dict[int, Any],
    module: str | None,
) -> None:
    async with client_of(settings) as client:
        row = await known(client, execution_id)
        workflow = _workflow(row, module)
        try:
            handle: perdure.Handle[Any] = await client.fork(
                execution_id, new_id=new_id, at=at, replace=replace, run=run, workflow=workflow
            )
        except perdure.ExecutionExists as error:
            raise problem_of(error, error.what(), hint="Choose another --new-id.") from None
        origin = (await handle.describe()).origin
        place = origin.at if origin is not None else 0
        text = f"{handle.id} begins as {execution_id} before event {place}."
        facts = {"fork_of": execution_id, "at": place}
        say_sent(settings, handle.id, text, worker=worker_runs(client), **facts)
    if not settings.json:
        say(command_line(settings, "diff", execution_id, handle.id), "dim")


@click.command()
@click.argument("execution_id", metavar="ID")
@_cut_options
@shared_options
def rewind(execution_id: str, *, at: int | None, replace: Sequence[str], module: str | None) -> None:
    """Let execution ID go on from an earlier event, in a new run.

    What is recorded before that is not done again; the run that was is kept. Signals that came since are received
    again. JSON may be `-` or `@FILE`.

    \b
      perdure rewind report-1 --at 7
    """
    go(_rewind(current(), execution_id, at, _replaced(replace), module))


async def _rewind(
    settings: Settings, execution_id: str, at: int | None, replace: dict[int, Any], module: str | None
) -> None:
    if at is None and not replace:
        raise Problem("Say from where: --at N, or --replace N=JSON.", hint="perdure journal numbers the events.")
    async with client_of(settings) as client:
        row = await known(client, execution_id)
        workflow = _workflow(row, module)
        handle = client.handle(execution_id) if workflow is None else client.handle(execution_id, workflow)
        await handle.rewind(at=at, replace=replace)
        origin = (await handle.describe()).origin
        place = origin.at if origin is not None else 0
        text = f"{execution_id} goes on from before event {place}."
        say_sent(settings, execution_id, text, worker=worker_runs(client), at=place, was=row.run)


def _replaced(given: Sequence[str]) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for each in given:
        number, equals, text = each.partition("=")
        if not equals or not number.isdecimal():
            raise Problem(f"--replace {each!r} is not N=JSON.", hint="As in: --replace 4='\"another plan\"'")
        value = read_text(text)
        parse(value, f"--replace {number}")
        found[int(number)] = jn.Payload(value.encode(), "json")
    return found


def _workflow(row: jn.Row, module: str | None) -> AnyWorkflow | None:
    if module is None:
        return None
    found = {each.name: each for each in workflows_of(load_module(module)).values()}
    if row.workflow not in found:
        raise Problem(f"{module} has no workflow {row.workflow!r}.", hint=nearest(row.workflow, found))
    return found[row.workflow]
