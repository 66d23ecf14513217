"""Stand-ins for steps: what a test has them answer, instead of touching the world."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Replies:
    """A stand-in that answers in turn, and remembers what it was asked. See `replies`."""

    def __init__(self, answers: tuple[Any, ...]) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._answers = answers
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            self.calls.append((args, kwargs))
            number = len(self.calls)
        if number > len(self._answers):
            raise AssertionError(f"call {number} of a stand-in that has only {len(self._answers)} answers")
        answer = self._answers[number - 1]
        if isinstance(answer, BaseException):
            raise answer
        return answer


def replies(*answers: Any) -> Replies:
    """A stand-in for a step: one answer for each attempt, in order; exceptions are raised. `.calls` has the arguments.

    Example:
        >>> model = replies("a plan", TimeoutError("busy"), "a report")
        >>> model("plan!"), model.calls
        ('a plan', [(('plan!',), {})])
    """
    return Replies(answers)


def as_function(stand_in: Any) -> Callable[..., Any]:
    """A callable for it: a value answers every call."""
    return stand_in if callable(stand_in) else lambda *_args, **_kwargs: stand_in
