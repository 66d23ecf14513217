"""`perdure worker`: a process that runs executions until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import click

import perdure
from perdure.cli.client import go
from perdure.cli.modules import find_codec, load_module, workflows_of
from perdure.cli.options import SECONDS, Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import print_json, say
from perdure.cli.problems import Problem, problem_of, tidy
from perdure.cli.stopping import Stopped, Stopper
from perdure.cli.times import span_of


@click.command()
@click.argument("modules", metavar="MODULE...", nargs=-1, required=True)
@click.option("--wait", is_flag=True, help="If another worker runs on this store, wait until it ends.")
@click.option(
    "--shutdown-timeout",
    type=SECONDS,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long stopping waits for running steps before it cancels them; they run again later.",
)
@click.option(
    "--retention", metavar="TIME", help="Remove what closed longer ago than that: 30d, 12h. Default: keep everything."
)
@click.option("--run-retention", metavar="TIME", help="Remove past runs that ended longer ago. Default: keep them.")
@shared_options
def worker(
    modules: tuple[str, ...], *, wait: bool, shutdown_timeout: float, retention: str | None, run_retention: str | None
) -> None:
    """Run executions of the MODULEs' workflows until it is stopped.

    A MODULE is an import path (the current directory is importable) or the path of a .py file. The worker goes on with
    whatever an earlier one left, and runs what others start. SIGTERM and Ctrl-C stop it gracefully; a second one at
    once, which is safe too.

    \b
      perdure worker agent.py
    """
    workflows = [workflow for name in modules for workflow in workflows_of(load_module(name)).values()]
    if not workflows:
        raise Problem(f"{', '.join(modules)} defines no workflow.", hint="Put @perdure.workflow above an async def.")
    log_to_stderr()
    keep = None if retention is None else span_of(retention, "--retention")
    keep_runs = None if run_retention is None else span_of(run_retention, "--run-retention")
    options = {"wait": wait, "shutdown_timeout": shutdown_timeout, "retention": keep, "run_retention": keep_runs}
    go(_serve(current(), list(dict.fromkeys(workflows)), options))


async def _serve(settings: Settings, workflows: list[perdure.Workflow[..., Any]], options: dict[str, Any]) -> None:
    engine = perdure.Engine(settings.store, workflows=workflows, codec=find_codec(settings.codec), **options)
    stopper = Stopper(lambda: _tell(settings, "stopping", "Stopping: running steps may finish. Again to stop at once."))
    with contextlib.suppress(Stopped):
        async with _entered(engine, stopper, settings):
            names = sorted(engine.workflows)
            _tell(
                settings,
                "serving",
                f"Serving {', '.join(names)} on {settings.store_name}. Ctrl-C stops.",
                workflows=names,
                store=tidy(settings.store_name),
            )
            await stopper.unless_stopped(engine.run_forever())
    _tell(settings, "stopped", "Stopped. What was recorded is kept; the next worker goes on.")


@contextlib.asynccontextmanager
async def _entered(engine: perdure.Engine, stopper: Stopper, settings: Settings) -> AsyncIterator[None]:
    try:
        await stopper.unless_stopped(engine.__aenter__())
    except perdure.StoreBusy as error:
        raise busy(settings, error) from None
    try:
        yield
    finally:
        await engine.__aexit__(None, None, None)


def busy(settings: Settings, error: perdure.StoreBusy) -> Problem:
    """Another engine works there, and here is what can be done."""
    message = f"Another worker runs on {tidy(settings.store_name)} ({error.fields['owner']})."
    return problem_of(error, message, hint="Stop it, or take over when it ends: perdure worker --wait")


def log_to_stderr(but: str = "") -> None:
    """What the engine has to say, unless the user's code has set up logging; `but` an execution's stall."""
    log = logging.getLogger("perdure")
    if log.handlers or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(_Tidy("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    handler.addFilter(lambda record: not (but and but in str(record.args) and "stalled" in str(record.msg)))
    log.addHandler(handler)


class _Tidy(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return tidy(super().format(record))


def _tell(settings: Settings, event: str, text: str, **facts: object) -> None:
    if settings.json:
        print_json({"event": event, **facts})
        return
    say(text)
