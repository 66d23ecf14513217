"""What `perdure ls` and `perdure gc` are asked for, as the filters of `Client.list`."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import Any

from perdure.cli.attributes import attribute_of
from perdure.cli.problems import Problem
from perdure.cli.times import is_span, moment_of, span_of

_CONDITION = re.compile(r"\s*([^\s=!<>]+)\s*(=|!=|<=|>=|<|>)\s*(.*?)\s*", re.DOTALL)


def filters_of(statuses: Sequence[str], given: dict[str, Any]) -> dict[str, Any]:
    """Those that were given. Raises `Problem`."""
    found: dict[str, Any] = {"status": statuses} if statuses else {}
    found |= {name: given[name] for name in ("workflow", "prefix", "parent") if given[name]}
    if given["since"]:
        found["started_from"] = moment_before(given["since"], "--since")
    if given["before"]:
        found["started_before"] = moment_before(given["before"], "--before")
    if given["where"]:
        found["where"] = [_condition(text) for text in given["where"]]
    return found


def moment_before(text: str, option: str) -> dt.datetime:
    """A moment, or so long ago. Raises `Problem`."""
    if not is_span(text):
        return moment_of(text, option)
    try:
        return dt.datetime.now(dt.UTC) - span_of(text, option)
    except OverflowError:
        raise Problem(f"{option} {text} is before there were calendars.") from None


def _condition(text: str) -> tuple[str, str, Any]:
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise Problem(f"--where wants NAME, an operator and a value, as 'cents>=1000', not {text!r}.")
    return found[1], found[2], attribute_of(found[3])
