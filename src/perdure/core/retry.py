"""Retry policy: pure arithmetic from (attempt, error, noise) to the next delay."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from perdure.core.errors import InvalidOption

Seconds = float | int | timedelta

MAX_SECONDS = 3.2e10
MAX_EXPONENT = 64
MAX_GROWTH = 1e300


def to_ms(value: Seconds, name: str) -> int:
    """A duration, in seconds or as timedelta, as whole milliseconds.

    Raises:
        InvalidOption: it is negative, not finite, or no duration at all.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidOption(option=name, value=repr(value), expected="seconds, or a timedelta")
    if not 0 <= seconds < MAX_SECONDS:
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
        if self.attempts is not None and (not _is_number(self.attempts, int) or self.attempts < 1):
            raise InvalidOption(option="attempts", value=repr(self.attempts), expected="1 or more, or None")
        if not _is_number(self.factor) or not 1 <= self.factor < math.inf:
            raise InvalidOption(option="factor", value=repr(self.factor), expected="a number, 1 or more")
        if not _is_number(self.jitter) or not 0 <= self.jitter <= 1:
            raise InvalidOption(option="jitter", value=repr(self.jitter), expected="a number from 0 to 1")
        self._check_choices()
        to_ms(self.delay, "delay")
        to_ms(self.maximum, "maximum")

    def _check_choices(self) -> None:
        if not isinstance(self.never, tuple) or not all(map(_is_exception, self.never)):
            raise InvalidOption(option="never", value=repr(self.never), expected="a tuple of exception classes")
        if self.when is not None and not callable(self.when):
            raise InvalidOption(option="when", value=repr(self.when), expected="a function of the exception, or None")

    def pause_ms(self, attempt: int, error: BaseException, noise: float) -> int | None:
        """Milliseconds to wait after this failed attempt (from 1), or None to give up."""
        if self.attempts is not None and attempt >= self.attempts:
            return None
        if isinstance(error, self.never) or (self.when is not None and not self.when(error)):
            return None
        asked_ms = _asked_ms(error)
        if asked_ms is not None:
            return asked_ms
        longest = to_ms(self.maximum, "maximum")
        full = min(to_ms(self.delay, "delay") * self._growth(attempt), longest)
        return round(full * (1 - self.jitter + self.jitter * noise))

    def _growth(self, attempt: int) -> float:
        try:
            return self.factor ** min(attempt - 1, MAX_EXPONENT)
        except OverflowError:
            return MAX_GROWTH


def _asked_ms(error: BaseException) -> int | None:
    """What the exception's `retry_after` asks for; None for nothing, and for nonsense."""
    asked = getattr(error, "retry_after", None)
    if asked is None:
        return None
    try:
        return to_ms(asked, "retry_after")
    except InvalidOption:
        return None


def _is_number(value: object, kind: Any = int | float) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_exception(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


NO_RETRY = Retry(attempts=1)
