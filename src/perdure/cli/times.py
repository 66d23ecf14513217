"""Moments and durations, for people, and as people type them."""

from __future__ import annotations

import datetime as dt
import re
import time

from perdure.cli.problems import Problem

MOMENT = "as ISO 8601 says it, 2027-01-31T09:00:00Z; without a zone, in local time"
SPAN = "seconds, or 90s, 15m, 12h, 30d"
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LONGEST_S = 1_000 * 366 * 86_400


def now_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def duration(milliseconds: int) -> str:
    """Two figures that matter: 12ms, 1.25s, 2m05s, 3h12m, 2d03h."""
    if milliseconds < 0:
        return f"-{duration(-milliseconds)}"
    if milliseconds < 1_000:
        return f"{milliseconds}ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.2f}s" if milliseconds < 9_995 else f"{milliseconds / 1000:.1f}s"
    minutes, seconds = divmod(milliseconds // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"


def clock(at_ms: int) -> str:
    """A moment in local time."""
    return dt.datetime.fromtimestamp(at_ms / 1000, tz=dt.UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def is_span(text: str) -> bool:
    """Whether it is meant as a length of time."""
    return _SPAN.fullmatch(text) is not None


def span_of(text: str, option: str) -> dt.timedelta:
    """A length of time. Raises `Problem`."""
    found = _SPAN.fullmatch(text)
    seconds = -1.0 if found is None else float(found[1]) * _UNITS[found[2]]
    if not 0 <= seconds <= _LONGEST_S:
        raise Problem(f"{option} wants a length of time ({SPAN}), not {text!r}.")
    return dt.timedelta(seconds=seconds)


def moment_of(text: str, option: str) -> dt.datetime:
    """A moment; without a zone, in local time. Raises `Problem`."""
    try:
        found = dt.datetime.fromisoformat(text)
        return found if found.tzinfo is not None else found.astimezone()
    except (ValueError, OverflowError):
        raise Problem(f"{option} wants a moment ({MOMENT}), not {text!r}.") from None
