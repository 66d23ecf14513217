"""What is printed: results on stdout, everything said about them on stderr; colours only where a person looks.

JSON is one document a line, ASCII, with the shapes that docs/reference/cli.md lists.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import os
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from perdure.cli.options import Settings
from perdure.cli.problems import Problem

PIPE_WIDTH = 160
NARROWEST = 40


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """A reader that has enough is no failure: `main` knows."""
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """For people. In pipes: no colour, and as wide as COLUMNS says, else wide."""
    made = _Console(stderr=stderr, highlight=False, emoji=False, markup=False, soft_wrap=True)
    if not made.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        made.width = PIPE_WIDTH
    made.width = max(made.width, NARROWEST)
    return made


def say(text: str | Text, style: str = "") -> None:
    """A remark beside the result."""
    out = console(stderr=True)
    out.print(Text(text, style) if isinstance(text, str) else text)


def quoted(text: str) -> str:
    """An argument as a shell takes it."""
    import shlex  # noqa: PLC0415 - rarely needed

    return shlex.quote(text)


def command_line(settings: Settings, *words: str) -> str:
    """A perdure command to type next, on the same store."""
    store = ("--store", settings.store) if settings.store else ()
    return " ".join(["perdure", *(quoted(word) for word in (*words, *store))])


# --- JSON ---


def print_json(value: Any) -> None:
    """One document, on one line."""
    sys.stdout.write(to_json(value) + "\n")


def print_result(value: Any) -> None:
    """A result: one line in pipes, indented for people."""
    sys.stdout.write(to_json(value, indent=2 if sys.stdout.isatty() else None) + "\n")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON of plain data, whatever it holds."""
    return json.dumps(jsonable(value), indent=indent, allow_nan=False)


def jsonable(value: Any) -> Any:
    """Plain data as JSON has it: times as ISO 8601, bytes as base64, Decimal, UUID and infinities as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else _key(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((jsonable(item) for item in value), key=to_json)
    return _scalar(value)


def _scalar(value: Any) -> Any:
    match value:
        case float() if math.isfinite(value):
            return value
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode()
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat()
        case dt.timedelta():
            return value.total_seconds()
        case _:
            return str(value)


def _key(key: Any) -> str:
    plain = jsonable(key)
    return plain if isinstance(plain, str) else to_json(plain)


# --- problems ---


def print_problem(problem: Problem, *, as_json: bool) -> None:
    """The message, and what to do, on stderr."""
    if as_json:
        told = {"exit_code": int(problem.exit_code), "code": problem.code}
        sys.stderr.write(to_json({"error": {**told, "message": problem.message, "hint": problem.hint}}) + "\n")
        return
    say(Text.assemble(("Error: ", "bold red"), problem.message))
    if problem.hint:
        say(problem.hint, "yellow")
