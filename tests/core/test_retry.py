"""The retry policy is arithmetic: its bounds, and what it refuses."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.core.errors import InvalidOption
from perdure.core.retry import NO_RETRY, Retry, to_ms

SECONDS = st.floats(0, 1e6) | st.integers(0, 10**6) | st.timedeltas(timedelta(0), timedelta(days=400))
POLICIES = st.builds(
    Retry,
    attempts=st.none() | st.integers(1, 10**9),
    delay=SECONDS,
    factor=st.floats(1, 1e300),
    maximum=SECONDS,
    jitter=st.floats(0, 1),
)
NOISE = st.floats(0, 1, exclude_max=True)


class Busy(Exception):
    def __init__(self, retry_after: Any) -> None:
        self.retry_after = retry_after


@given(POLICIES, st.integers(1, 10**9), NOISE)
def test_a_pause_lies_between_the_jitters_share_and_the_maximum(retry: Retry, attempt: int, noise: float) -> None:
    pause = retry.pause_ms(attempt, ValueError(), noise)
    if retry.attempts is not None and attempt >= retry.attempts:
        assert pause is None
    else:
        assert pause is not None
        assert isinstance(pause, int)
        assert 0 <= pause <= to_ms(retry.maximum, "maximum")
        without = retry.pause_ms(attempt, ValueError(), 1.0)
        assert without is not None
        assert pause <= without + 1
        assert pause >= math.floor(without * (1 - retry.jitter)) - 1


@given(POLICIES, st.integers(1, 200), NOISE)
def test_pauses_never_become_shorter(retry: Retry, attempt: int, noise: float) -> None:
    first, second = (retry.pause_ms(n, ValueError(), noise) for n in (attempt, attempt + 1))
    assert second is None or (first is not None and first <= second)


@given(POLICIES, st.integers(1, 10), NOISE)
def test_the_same_arguments_give_the_same_pause(retry: Retry, attempt: int, noise: float) -> None:
    assert retry.pause_ms(attempt, ValueError(), noise) == retry.pause_ms(attempt, ValueError(), noise)


def test_pauses_grow_by_the_factor_up_to_the_maximum() -> None:
    retry = Retry(attempts=None, delay=0.1, factor=3, maximum=2, jitter=0)
    assert [retry.pause_ms(n, ValueError(), 0) for n in range(1, 6)] == [100, 300, 900, 2_000, 2_000]


def test_without_delay_there_is_no_pause_however_large_the_factor() -> None:
    assert Retry(attempts=None, delay=0, factor=1e300).pause_ms(10**6, ValueError(), 0.5) == 0


def test_jitter_takes_its_share_of_the_pause() -> None:
    retry = Retry(delay=1, jitter=0.5)
    assert [retry.pause_ms(1, ValueError(), noise) for noise in (0.0, 0.5, 1.0)] == [500, 750, 1_000]


def test_exceptions_may_be_excluded_by_type_or_by_predicate() -> None:
    retry = Retry(never=(KeyError, OSError), when=lambda error: "again" in str(error))
    assert retry.pause_ms(1, KeyError("again"), 0) is None
    assert retry.pause_ms(1, ConnectionError("again"), 0) is None
    assert retry.pause_ms(1, ValueError("no"), 0) is None
    assert retry.pause_ms(1, ValueError("again"), 0) is not None


@pytest.mark.parametrize(("asked", "expected"), [(3, 3_000), (0.25, 250), (timedelta(minutes=2), 120_000), (0, 0)])
def test_an_exception_may_ask_for_its_pause(asked: Any, expected: int) -> None:
    """`retry_after` sets it, beyond the maximum and without jitter; but it does not allow more attempts."""
    retry = Retry(attempts=2, delay=1, maximum=1)
    assert retry.pause_ms(1, Busy(asked), 0) == expected
    assert retry.pause_ms(2, Busy(asked), 0) is None
    assert Retry(never=(Busy,)).pause_ms(1, Busy(asked), 0) is None


@pytest.mark.parametrize("asked", [None, -1, math.nan, math.inf, "soon", True, timedelta(days=-1), 10**12])
def test_nonsense_in_retry_after_is_ignored(asked: Any) -> None:
    """A server's bad header must not end the retries."""
    retry = Retry(delay=1, jitter=0)
    assert retry.pause_ms(1, Busy(asked), 0) == 1_000


def test_no_retry_gives_up_at_once() -> None:
    assert NO_RETRY.pause_ms(1, ValueError(), 0) is None


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"attempts": True},
        {"attempts": 2.5},
        {"attempts": "3"},
        {"factor": 0.5},
        {"factor": math.nan},
        {"factor": math.inf},
        {"factor": "2"},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"jitter": math.nan},
        {"jitter": "half"},
        {"delay": -1},
        {"delay": math.nan},
        {"delay": None},
        {"delay": timedelta(seconds=-1)},
        {"maximum": math.inf},
        {"maximum": True},
        {"never": ValueError},
        {"never": (ValueError, "KeyError")},
        {"never": [ValueError]},
        {"when": "always"},
    ],
    ids=str,
)
def test_bad_options_are_refused_when_they_are_given(options: dict[str, Any]) -> None:
    """Not when the first attempt fails, and with the option's name."""
    with pytest.raises(InvalidOption, match=f"Option {next(iter(options))}="):
        Retry(**options)


@given(st.floats(0, 3e10))
def test_durations_are_rounded_to_the_nearest_millisecond(seconds: float) -> None:
    assert abs(to_ms(seconds, "x") - seconds * 1000) <= 0.5 + seconds * 1e-9
