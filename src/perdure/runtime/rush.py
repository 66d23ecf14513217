"""Full garbage collections wait while executions come into memory by the hundred: nothing that comes is garbage.

CPython collects its oldest generation whenever that has grown by a quarter (its `gc` documentation, `set_threshold`):
at a restart with thousands in flight again and again, to find nothing. The process is the user's: young garbage is
collected as ever, a rush lasts seconds at most, and thresholds that somebody else sets meanwhile stay.
"""

from __future__ import annotations

import asyncio
import gc

MANY = 200  # arrivals within a window are a rush
WINDOW_S = 3.0
LONGEST_S = 10.0  # then a full collection comes before the next rush
NEVER = 1_000_000_000


class Rush:
    """Of one engine. Belongs to its thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived = 0  # in this window
        self._window: asyncio.TimerHandle | None = None
        self._began_s = 0.0
        self._before: tuple[int, int, int] | None = None  # the thresholds as they were; None: they are not changed
        self._collected = -1  # full collections until the last rush that lasted too long

    def arrived(self) -> None:
        """An execution came into memory."""
        self._arrived += 1
        if self._window is None:
            self._window = self._loop.call_later(WINDOW_S, self._look)
        if self._arrived == MANY and self._before is None:
            self._begin()

    def end(self) -> None:
        """It is over, or the engine closes."""
        self._arrived = 0
        if self._window is not None:
            self._window.cancel()
            self._window = None
        before, self._before = self._before, None
        if before is not None and gc.get_threshold() == (*before[:2], NEVER):
            gc.set_threshold(*before)

    def _begin(self) -> None:
        before = gc.get_threshold()
        held = before[2] >= NEVER  # by another engine's rush
        if not held and _full_collections() > self._collected:
            gc.set_threshold(*before[:2], NEVER)
            self._before, self._began_s = before, self._loop.time()

    def _look(self) -> None:
        too_long = self._before is not None and self._loop.time() - self._began_s > LONGEST_S
        if too_long:
            self._collected = _full_collections()
        if too_long or self._arrived < MANY:
            self.end()
        else:
            self._arrived = 0
            self._window = self._loop.call_later(WINDOW_S, self._look)


def _full_collections() -> int:
    return int(gc.get_stats()[-1]["collections"])
