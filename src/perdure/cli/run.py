"""`perdure run`: one execution to its end, by this process or by the worker that has the store."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import click
from rich.text import Text

import perdure
from perdure.cli.client import go
from perdure.cli.inputs import arguments
from perdure.cli.modules import AnyWorkflow, find_codec, find_workflow
from perdure.cli.options import Exit, Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import command_line, console, print_json, print_result, say
from perdure.cli.problems import Problem, exit_code_of, problem_of, tidy
from perdure.cli.starting import chosen, start_options
from perdure.cli.stopping import Stopped, Stopper
from perdure.cli.words import failure_line, without_pointers
from perdure.cli.worker import log_to_stderr
from perdure.store.reader import local_owner

Executions = perdure.Engine | perdure.Client
LOOK_S = 0.5
TAKE_OVER_S = 10.0  # a worker that is restarted comes back sooner


class Wanted:
    """What is to be run."""

    def __init__(self, target: str, given: str | None, execution_id: str | None, options: dict[str, Any]) -> None:
        self.target = target
        self.options = options
        self.workflow: AnyWorkflow = find_workflow(target)
        self.given = given
        self.id = secrets.token_hex(16) if execution_id is None else execution_id
        self.chosen = execution_id is not None
        # looked at before a store is made for it; an id that exists needs none
        self.call = arguments(self.workflow, given) if given is not None or not self.chosen else None
        self.started = False

    async def start(self, executions: Executions) -> perdure.Handle[Any]:
        """Start it, or get hold of it: an id that exists needs no input again. What was started is not replaced."""
        if self.started:
            return executions.handle(self.id)
        if self.chosen and self.given is None and not self.options.keys() & {"on_conflict", "reuse"}:
            handle: perdure.Handle[Any] = executions.handle(self.id)
            with contextlib.suppress(perdure.ExecutionNotFound):
                row = await handle.describe()
                if row.workflow != self.workflow.name:
                    why = f"and this start is of {self.workflow.name!r}"
                    raise perdure.ExecutionExists(execution=self.id, recorded=row.workflow, why=why)
                return handle
        args, kwargs = self.call or arguments(self.workflow, self.given)
        taken = kwargs.keys() & {"id", *self.options}
        if taken:
            raise Problem(f"{min(taken)!r} is an argument of {self.workflow.name!r}, and an option of starting it.")
        await executions.start(self.workflow, *args, id=self.id, **self.options, **kwargs)
        self.started = True
        return executions.handle(self.id)  # without the type: its result is printed as plain data


@click.command()
@click.argument("target", metavar="MODULE:WORKFLOW")
@click.option(
    "--input",
    "given",
    metavar="JSON",
    help="An array of positional arguments, an object of keyword arguments, or one plain value. "
    "`-` reads it from standard input, `@FILE` from a file.",
)
@click.option("--id", "execution_id", metavar="ID", help="Of the execution. Default: a random one.")
@start_options
@shared_options
def run(target: str, given: str | None, execution_id: str | None, **options: Any) -> int:
    """Run a workflow to its end and print its result as JSON.

    MODULE is an import path (the current directory is importable) or the path of a .py file. With --id, the same
    command goes on where it was after a crash or Ctrl-C, and prints the recorded result once there is one.

    \b
      perdure run agent.py:research --input '"durable execution"' --id report-1
      perdure run agent.py:research --input '{"topic": "sqlite", "depth": 3}'
      perdure run agent.py:report --id daily --reuse always --deadline 2h --attribute team=search

    Exit code 0: completed. 1: failed or cancelled. 5: stalled.
    """
    settings = current()
    try:
        wanted = Wanted(target, given, execution_id, chosen(options))
    except KeyboardInterrupt:
        say("Stopped before anything was started.")
        return Exit.INTERRUPTED
    log_to_stderr(but=wanted.id)  # its stall is told below
    try:
        result = go(_run(settings, wanted))
    except Stopped as stopped:
        _say_how_to_go_on(settings, wanted)
        return stopped.exit_code
    except perdure.PerdureError as error:
        return _ended_otherwise(settings, wanted, error)
    if settings.json:
        print_json({"id": wanted.id, "workflow": wanted.workflow.name, "status": "completed", "result": result})
    else:
        print_result(result)
    return Exit.OK


async def _run(settings: Settings, wanted: Wanted) -> Any:
    stopper = Stopper(
        lambda: say("Stopping: running steps may finish. Again to stop at once."),
        lambda: _say_how_to_go_on(settings, wanted),
    )
    while True:
        try:
            async with _engine(settings, wanted, stopper) as engine:
                return await _to_the_end(engine, settings, wanted, stopper)
        except perdure.StoreBusy:
            pass
        async with perdure.Client(settings.store, codec=find_codec(settings.codec)) as client:
            say(f"A worker runs on {settings.store_name}: it does the work.", "dim")
            work = asyncio.ensure_future(_to_the_end(client, settings, wanted, stopper))
            gone = asyncio.ensure_future(_owner_gone(client))
            await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if work.done():
                return work.result()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            say("That worker has ended: going on here.", "yellow")


@contextlib.asynccontextmanager
async def _engine(settings: Settings, wanted: Wanted, stopper: Stopper) -> AsyncIterator[perdure.Engine]:
    engine = perdure.Engine(settings.store, workflows=[wanted.workflow], codec=find_codec(settings.codec))
    await stopper.unless_stopped(engine.__aenter__())
    try:
        yield engine
    finally:
        await engine.__aexit__(None, None, None)


async def _to_the_end(executions: Executions, settings: Settings, wanted: Wanted, stopper: Stopper) -> Any:
    handle = await stopper.unless_stopped(wanted.start(executions))
    if not settings.json:
        say(f"Execution {wanted.id} of {wanted.workflow.name} on {tidy(settings.store_name)}", "dim")
    watching = asyncio.ensure_future(_watch(handle, settings))
    try:
        return await stopper.unless_stopped(handle.result())
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(handle: perdure.Handle[Any], settings: Settings) -> None:
    """On a terminal: how far it is, and what it waits for."""
    out = console(stderr=True)
    if settings.json or not out.is_terminal:
        return
    with out.status("") as status:
        while True:
            row = await handle.describe()
            waits = f" · waits for {row.waits_for}" if row.waits_for else ""
            status.update(Text(f"{row.position} events{waits}", "dim"))
            await asyncio.sleep(LOOK_S)


async def _owner_gone(client: perdure.Client) -> None:
    """Until no worker has run for a while."""
    looks = 0
    while looks * LOOK_S < TAKE_OVER_S:
        looks = looks + 1 if await asyncio.to_thread(local_owner, client.store) is None else 0
        await asyncio.sleep(LOOK_S)


def _say_how_to_go_on(settings: Settings, wanted: Wanted) -> None:
    again = command_line(settings, "run", wanted.target, "--id", wanted.id)
    if settings.json:
        print_json({"id": wanted.id, "workflow": wanted.workflow.name, "status": "stopped", "go_on": again})
    else:
        say(f"Stopped. What was recorded of {wanted.id} is kept. Go on with:\n  {again}")


def _ended_otherwise(settings: Settings, wanted: Wanted, error: perdure.PerdureError) -> int:
    code = exit_code_of(error)
    problem = _explained(settings, wanted, error)
    statuses = {"P0602": "failed", "P0603": "cancelled", "P0604": "terminated", "P0504": "stalled"}
    if not settings.json or error.code not in statuses:
        raise problem from None
    told = {"id": wanted.id, "workflow": wanted.workflow.name, "status": statuses[error.code]}
    print_json({**told, "code": error.code, "message": problem.message})
    return code


def _explained(settings: Settings, wanted: Wanted, error: perdure.PerdureError) -> Problem:
    match error:
        case perdure.ExecutionStalled():
            why = without_pointers(tidy(error.fields["problem"])).rstrip()
            again = command_line(settings, "run", wanted.target, "--id", wanted.id)
            hint = f"Fix the code, then:\n  {command_line(settings, 'resume', wanted.id)}\n  {again}"
            return problem_of(error, f"Execution {wanted.id!r} stalled:\n{why}", hint=hint)
        case perdure.ExecutionFailed():
            hint = f"The whole story: {command_line(settings, 'show', wanted.id)}"
            return problem_of(error, f"Execution {wanted.id!r} failed: {failure_line(error.failure)}", hint=hint)
        case perdure.ExecutionExists():
            hint = "Choose another --id, or say what to do about the one there is: --on-conflict, --reuse."
            return problem_of(error, error.what(), hint=hint)
        case _:
            return problem_of(error)
