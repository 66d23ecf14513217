"""Virtual time for tests: it stands still while code runs, and moves only when somebody moves it."""

from __future__ import annotations

from datetime import UTC, datetime

from perdure.runtime.environment import SystemEnvironment

DEFAULT_START = datetime(2030, 1, 1, tzinfo=UTC)


class VirtualClock(SystemEnvironment):
    """The environment of an engine under test.

    The monotonic clock, by which steps are limited, goes on really, as steps really run; and it jumps with the other.
    """

    def __init__(self, start_at: datetime = DEFAULT_START) -> None:
        self._start_ms = self._now_ms = int(start_at.timestamp() * 1000)

    def now_ms(self) -> int:
        """Virtual milliseconds since 1970, UTC."""
        return self._now_ms

    def monotonic_ms(self) -> int:
        """The real one, and all that was jumped over."""
        return super().monotonic_ms() + self._now_ms - self._start_ms

    def now(self) -> datetime:
        """Virtual time as a datetime."""
        return datetime.fromtimestamp(self._now_ms / 1000, UTC)

    def move_to_ms(self, now_ms: int) -> None:
        """Forward to that time; never back."""
        self._now_ms = max(self._now_ms, now_ms)
