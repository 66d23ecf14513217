"""The clock of a store that is given no other."""

from __future__ import annotations

import time


def system_clock_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000
