"""Stand-ins for steps: what a test has them answer, instead of touching the world."""

from __future__ import annotations

import difflib
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from perdure.core.errors import EngineMisused
from perdure.runtime.unresolved import find_step
from perdure.workflow.definitions import Step, Workflow


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


class StandIns:
    """Those of one engine, by name. A name that no step has is a mistake: the real step would run."""

    def __init__(self, given: Mapping[str | Step[..., Any], Any], workflows: Iterable[Workflow[..., Any]]) -> None:
        self._functions = {
            key if isinstance(key, str) else key.name: as_function(stand_in) for key, stand_in in given.items()
        }
        self._doubtful = {key for key in given if isinstance(key, str)}
        self._workflows = list(workflows)

    def instead_of(self, step: Any) -> Any:
        """What runs when that step is called."""
        fn = self._functions.get(step.name)
        if fn is None:
            return step
        self._doubtful.discard(step.name)
        return step.replaced(fn)

    def check(self) -> None:
        """Raises `EngineMisused` for a name that is nearly that of a step, and of none."""
        unknown = self._unknown()
        known = _names_of_steps() if unknown else set()
        for name in sorted(unknown - known):
            near = difflib.get_close_matches(name, known, 1)
            if near:
                raise EngineMisused(
                    what=f"No step is named {name!r}, so that its stand-in would never be called, but the real step",
                    fix=f"Is {near[0]!r} meant?",
                )

    def check_used(self) -> None:
        """Raises `EngineMisused` for names that no step has been called by."""
        unknown = self._unknown()
        never = sorted(unknown - _names_of_steps()) if unknown else []
        if never:
            names = ", ".join(map(repr, never))
            raise EngineMisused(
                what=f"Stand-ins were given for {names}, but no step has such a name, and none was called",
                fix="Give the step's own name, which is that of its function, or the step itself.",
            )

    def _unknown(self) -> set[str]:
        return {name for name in self._doubtful if not any(find_step(each, name) for each in self._workflows)}


def _names_of_steps() -> set[str]:
    """Of all steps that loaded modules have."""
    found = set()
    for module in list(sys.modules.values()):
        for value in list(getattr(module, "__dict__", {}).values()):
            if isinstance(value, Step):
                found.add(value.name)
            elif isinstance(value, type):
                found |= {each.name for each in vars(value).values() if isinstance(each, Step)}
    return found
