"""Retry policy: pure arithmetic from (attempt, error, noise) to the next delay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from perdure.core.errors import InvalidOption

Seconds = float | int | timedelta


def to_ms(value: Seconds, name: str) -> int:
    """A duration, in seconds or as timedelta, as whole milliseconds.

    Raises:
        InvalidOption: it is negative, not finite, or no duration at all.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidOption(option=name, value=repr(value), expected="seconds, or a timedelta")
    if not 0 <= seconds < 3.2e10:
        raise InvalidOption(option=name, value=repr(value), expected="a duration from 0 to 1,000 years")
    return round(seconds * 1000)


@dataclass(frozen=True)
class Retry:
    """How often, and after which pauses, a failed step is tried again.

    Args:
        attempts: tries in all, the first included; None means no limit.
        delay: pause before the second attempt, in seconds or as timedelta.
        factor: what each further pause is multiplied with.
        maximum: the longest pause.
        jitter: part of a pause that is random, 0 to 1; spreads executions that failed together.
        never: exception types that are not retried.
        when: asked for the other exceptions; False means give up.

    An exception with a number or timedelta in its attribute `retry_after` sets the pause itself.

    >>> Retry(attempts=3, delay=1, jitter=0).pause_ms(1, ValueError(), 0.5)
    1000
    >>> Retry(attempts=3, delay=1, jitter=0).pause_ms(3, ValueError(), 0.5) is None
    True
    """

    attempts: int | None = 3
    delay: Seconds = 0.5
    factor: float = 2.0
    maximum: Seconds = 60.0
    jitter: float = 0.2
    never: tuple[type[BaseException], ...] = ()
    when: Callable[[BaseException], bool] | None = None

    def __post_init__(self) -> None:
        if self.attempts is not None and (isinstance(self.attempts, bool) or self.attempts < 1):
            raise InvalidOption(option="attempts", value=repr(self.attempts), expected="1 or more, or None")
        if not self.factor >= 1:
            raise InvalidOption(option="factor", value=repr(self.factor), expected="1 or more")
        if not 0 <= self.jitter <= 1:
            raise InvalidOption(option="jitter", value=repr(self.jitter), expected="a number from 0 to 1")
        to_ms(self.delay, "delay")
        to_ms(self.maximum, "maximum")

    def pause_ms(self, attempt: int, error: BaseException, noise: float) -> int | None:
        """Milliseconds to wait after this failed attempt (from 1), or None to give up."""
        if self.attempts is not None and attempt >= self.attempts:
            return None
        if isinstance(error, self.never) or (self.when is not None and not self.when(error)):
            return None
        asked = getattr(error, "retry_after", None)
        if isinstance(asked, int | float | timedelta) and not isinstance(asked, bool):
            return to_ms(asked, "retry_after")
        longest = to_ms(self.maximum, "maximum")
        exponent = min(attempt - 1, 64)
        full = min(to_ms(self.delay, "delay") * self.factor**exponent, longest)
        return round(full * (1 - self.jitter + self.jitter * noise))


NO_RETRY = Retry(attempts=1)
