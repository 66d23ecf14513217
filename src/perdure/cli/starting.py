"""The options with which `perdure run` starts: when, until when, instead of which other one, and found by what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from perdure.cli.attributes import attribute_of
from perdure.cli.inputs import plain_or_text
from perdure.cli.problems import Problem
from perdure.cli.times import MOMENT, SPAN, is_span, moment_of, span_of

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--start-at", metavar="TIME", help=f"Not before then: {MOMENT}."),
    click.option("--delay", metavar="TIME", help=f"Not before so much time has passed: {SPAN}."),
    click.option("--deadline", metavar="TIME", help="Cancelled then: a moment, or so long after its beginning."),
    click.option("--grace", metavar="TIME", help="How long after its deadline it is terminated. Default: 30s."),
    click.option("--memo", multiple=True, metavar="NAME=JSON", help="A value to show with it. As many as you like."),
    click.option(
        "--attribute",
        multiple=True,
        metavar="NAME=VALUE",
        help="What it can be found by: a number, true, false, a time, or text. As many as you like.",
    ),
    click.option(
        "--on-conflict",
        type=click.Choice(["use", "fail", "terminate"]),
        help="What to do about an open one with this id. Default: use it.",
    ),
    click.option(
        "--reuse",
        type=click.Choice(["never", "if-failed", "always"]),
        help="Whether to begin again after one with this id that has closed. Default: never.",
    ),
)


def start_options(command: Command) -> Command:
    """Give a command the options that `chosen` reads."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def chosen(given: dict[str, Any]) -> dict[str, Any]:
    """The options as `Client.start` takes them, without those that were not given. Raises `Problem`."""
    found: dict[str, Any] = {}
    for name in ("start_at", "delay", "deadline", "grace"):
        if given[name] is not None:
            found[name] = _READ[name](given[name], f"--{name.replace('_', '-')}")
    if "start_at" in found and "delay" in found:
        raise Problem("Say when to begin once: --start-at or --delay.")
    if given["memo"]:
        found["memo"] = _pairs(given["memo"], "--memo", plain_or_text)
    if given["attribute"]:
        found["attributes"] = _pairs(given["attribute"], "--attribute", attribute_of)
    if given["on_conflict"] is not None:
        found["on_conflict"] = given["on_conflict"]
    if given["reuse"] is not None:
        found["reuse"] = given["reuse"].replace("-", "_")
    return found


def _moment_or_span(text: str, option: str) -> Any:
    return span_of(text, option) if is_span(text) else moment_of(text, option)


_READ: dict[str, Callable[[str, str], Any]] = {
    "start_at": moment_of,
    "delay": span_of,
    "deadline": _moment_or_span,
    "grace": span_of,
}


def _pairs(given: tuple[str, ...], option: str, read: Callable[[str], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in given:
        name, sign, text = each.partition("=")
        if not sign:
            raise Problem(f"{option} wants NAME=VALUE, not {each!r}.")
        if name in found:
            raise Problem(f"{option} {name!r} is given twice.")
        found[name] = read(text)
    return found
