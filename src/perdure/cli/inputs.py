"""JSON from the command line as typed arguments: read by the same codecs that read a journal."""

from __future__ import annotations

import errno
import inspect
import shlex
import sys
from pathlib import Path
from typing import Any, TextIO

import msgspec

import perdure
from perdure.cli.modules import AnyWorkflow
from perdure.cli.problems import Problem, nearest, tidy
from perdure.journal import Payload

MOST = 64 * 2**20  # characters: what a value may be by default, in bytes

Parsed = list[msgspec.Raw] | dict[str, msgspec.Raw]

_NO_JSON = (msgspec.DecodeError, UnicodeEncodeError, RecursionError)
_PYTHON = {"True": "true", "False": "false", "None": "null", "yes": "true", "no": "false"}

_STARS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def read_text(given: str) -> str:
    """The text itself, that of a file for `@FILE`, standard input's for `-`."""
    try:
        if given == "-":
            return _bounded(standard_input(), given)
        if given.startswith("@"):
            with Path(given[1:]).open(encoding="utf-8") as file:
                return _bounded(file, given)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Problem(f"{given} cannot be read: {reason}.") from None
    return given


def _bounded(file: TextIO, given: str) -> str:
    """Values of more than that are refused anyway."""
    text = file.read(MOST + 1)
    if len(text) > MOST:
        raise Problem(f"{given} is larger than {MOST // 2**20} MiB: no value may be.")
    return text


def standard_input() -> TextIO:
    """Standard input. Raises `OSError` where it is closed, instead of what Python says of None."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin


def parse(text: str, what: str) -> Any:
    """JSON as plain data.

    Raises:
        Problem: it is none; a bare word gets the hint that text needs quotes.
    """
    try:
        return msgspec.json.decode(text)
    except _NO_JSON as error:
        raise _no_json(text, what, error) from None


def plain_or_text(text: str) -> Any:
    """JSON as plain data; what is no JSON is text."""
    try:
        return msgspec.json.decode(text)
    except _NO_JSON:
        return text


def arguments(workflow: AnyWorkflow, given: str | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What to call the workflow with: arguments by position (an array), by name (an object), or the one (all else).

    Raises:
        Problem: it is no JSON, or does not fit the workflow's parameters or their types.
    """
    text = "[]" if given is None else read_text(given)
    parsed = _parsed(text)
    signature = workflow.arguments.signature
    usage = f"{workflow.name}{str(signature).replace(chr(39), '')}"
    args, kwargs = (parsed, {}) if isinstance(parsed, list) else ([], parsed)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise Problem(f"The input does not fit {usage}: {error}.", hint=_shape_hint(parsed, signature)) from None
    named = {_STARS.get(signature.parameters[name].kind, "") + name: value for name, value in bound.arguments.items()}
    payload = Payload(msgspec.json.encode(named), "json")
    try:
        return workflow.arguments.decode(payload, f"the input of {workflow.name!r}")
    except perdure.PerdureError as error:
        reason = error.fields.get("reason", str(error))
        raise Problem(f"The input does not fit {usage}: {tidy(str(reason))}.", code=error.code) from None


def _parsed(text: str) -> Parsed:
    first = text.lstrip()[:1]
    try:
        msgspec.json.decode(text)  # the parts below are not looked into
        if first == "[":
            return msgspec.json.decode(text, type=list[msgspec.Raw])
        if first == "{":
            return msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except _NO_JSON as error:
        raise _no_json(text, "--input", error) from None
    return [msgspec.Raw(text.encode())]


def _shape_hint(parsed: Parsed, signature: inspect.Signature) -> str:
    if isinstance(parsed, dict):
        odd = [name for name in parsed if name not in signature.parameters]
        meant = nearest(odd[0], signature.parameters) if odd else ""
        if meant:
            return f"It has no parameter {odd[0]!r}. {meant}"
        if not odd and parsed:
            return ""
        return "An object holds arguments by name. To pass it as the one argument, put it in an array: '[{...}]'."
    if not parsed:
        return "Give it with --input; see perdure run --help."
    if len(signature.parameters) == 1:
        return "An array holds positional arguments. To pass it as the one argument, put it in an array: '[[...]]'."
    return ""


def _no_json(text: str, what: str, error: Exception) -> Problem:
    bare = text.strip()
    hint = ""
    if not bare:
        return Problem(f"The value of {what} is empty, which is no JSON.")
    if isinstance(error, UnicodeEncodeError):
        return Problem(f"The value of {what} is no JSON: it is not UTF-8.")
    if isinstance(error, RecursionError):
        return Problem(f"The value of {what} is nested too deeply.")
    if bare in _PYTHON:
        hint = f"In JSON that is {_PYTHON[bare]}."
    elif bare[:1].isalpha():
        option = what + ("=" if " " in what else " ") if what.startswith("--") else ""
        hint = f"Text needs its quotes: {option}{shlex.quote(json_of(bare))}"
    elif "'" in bare:
        hint = 'JSON has double quotes: \'{"name": "value"}\''
    return Problem(f"The value of {what} is no JSON: {error}.", hint=hint)


def json_of(text: str) -> str:
    """Text as JSON."""
    return msgspec.json.encode(text).decode()
