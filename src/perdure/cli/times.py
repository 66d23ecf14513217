"""Moments and durations, for people."""

from __future__ import annotations

import datetime as dt
import time


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
