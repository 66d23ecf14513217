"""The group of commands, and `main`: what every command's end becomes, as message and exit code."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import re
import sys
from typing import Any

import click

import perdure
from perdure.cli.completion import completing
from perdure.cli.options import Exit, Settings, shared_options
from perdure.cli.problems import Problem, bug, nearest, problem_of

_COMMANDS = {
    "run": "perdure.cli.run:run",
    "worker": "perdure.cli.worker:worker",
    "ls": "perdure.cli.look:ls",
    "show": "perdure.cli.look:show",
    "journal": "perdure.cli.journals:journal",
    "top": "perdure.cli.top:top",
    "stalled": "perdure.cli.look:stalled",
    "unresolved": "perdure.cli.resolve:unresolved",
    "asks": "perdure.cli.questions:asks",
    "signal": "perdure.cli.control:signal",
    "update": "perdure.cli.replies:update",
    "query": "perdure.cli.replies:query",
    "state": "perdure.cli.replies:state",
    "cancel": "perdure.cli.control:cancel",
    "terminate": "perdure.cli.control:terminate",
    "pause": "perdure.cli.control:pause",
    "resume": "perdure.cli.control:resume",
    "fork": "perdure.cli.branching:fork",
    "rewind": "perdure.cli.branching:rewind",
    "diff": "perdure.cli.diff:diff",
    "stack": "perdure.cli.stack:stack",
    "resolve": "perdure.cli.resolve:resolve",
    "answer": "perdure.cli.questions:answer",
    "lint": "perdure.cli.lint:lint",
    "check": "perdure.cli.check:check",
    "export": "perdure.cli.journals:export_",
    "import": "perdure.cli.journals:import_",
    "gc": "perdure.cli.gc:gc",
    "doctor": "perdure.cli.doctor:doctor",
    "explain": "perdure.cli.explain:explain",
    "completion": "perdure.cli.completion:completion",
}


_WORDS = {"is not a valid integer range": "is no whole number", "is not a valid seconds": "is no number of seconds"}
_OUTPUT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}


class Commands(click.Group):
    """Commands, imported when they are used, in the order of a day's work; a slip of the finger gets the nearest."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - likewise
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return completing(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            hint = nearest(args[0], _COMMANDS) or "perdure --help lists them."
            raise Problem(f"There is no command {args[0]!r}.", hint=hint)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(perdure.__version__, prog_name="perdure")
@shared_options
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Durable execution for AI agents: run workflows, watch them, talk to them.

    \b
      perdure run agent.py:research --input '"durable execution"' --id report-1
      perdure show report-1

    Everything lives in one store. Commands work beside a running worker, and without one.
    """
    ctx.ensure_object(Settings)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit."""
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an odd character is no reason to fail
    sys.exit(invoke(args))


def _open_what_is_closed() -> None:
    """Nobody reads an output that is closed; no other file may get its number."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, io.TextIOWrapper(io.FileIO(number, "w"), "utf-8", write_through=True))


def invoke(args: list[str] | None = None) -> int:
    """The exit code of one command line."""
    settings = Settings()
    try:
        answer: Any = cli.main(args, prog_name="perdure", standalone_mode=False, obj=settings)
        sys.stdout.flush()
    except Problem as problem:
        return _report(problem, settings)
    except click.ClickException as error:
        return _report(_usage_problem(error), settings)
    except perdure.PerdureError as error:
        return _report(problem_of(error), settings)
    except click.Abort:
        return Exit.INTERRUPTED
    except SystemExit as ended:
        return _ended(ended)
    except BrokenPipeError:
        _drop_output()
        return Exit.OK
    except Exception as error:  # noqa: BLE001 - nothing else is expected
        return _report(_unwritten(error) or bug(error), settings)
    return answer if isinstance(answer, int) else Exit.OK


def _drop_output() -> None:
    """What is buffered must not complain at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unwritten(error: Exception) -> Problem | None:
    """The disk behind standard output is full, or broken; what is done to other files has problems of its own."""
    if not isinstance(error, OSError) or error.errno not in _OUTPUT_ERRORS or error.filename is not None:
        return None
    _drop_output()
    return Problem(f"The output cannot be written: {error.strerror}.")


def _ended(ended: SystemExit) -> int:
    """Click's own exit: for a reader that has enough, which is no error, it wraps stdout and says 1."""
    if "PacifyFlush" in type(sys.stdout).__name__:
        return Exit.OK
    return ended.code if isinstance(ended.code, int) else Exit.OK


def _usage_problem(error: click.ClickException) -> Problem:
    ctx = getattr(error, "ctx", None)
    hint = f"{ctx.get_usage()}\nMore: {ctx.command_path} --help" if ctx is not None else ""
    choice = re.match(r"'(.*)' is not one of", error.message)
    if choice is not None and isinstance(error, click.BadParameter) and error.param is not None:
        choices = getattr(error.param.type, "choices", ())
        hint = "\n".join(filter(None, [nearest(choice[1], map(str, choices)), hint]))
    message = error.format_message()
    for clicks, ours in _WORDS.items():
        message = message.replace(clicks, ours)
    return Problem(message, Exit.USAGE, hint=hint)


def _report(problem: Problem, settings: Settings) -> int:
    from perdure.cli.output import print_problem  # noqa: PLC0415 - it needs rich, which --help does not

    with contextlib.suppress(OSError):  # nobody reads it: the exit code tells
        print_problem(problem, as_json=settings.json)
    return int(problem.exit_code)
