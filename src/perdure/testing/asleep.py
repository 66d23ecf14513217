"""Steps under test that wait for nothing but time: seen by where they stand, and woken when virtual time has come.

Only what is certain counts: the attempt stands in `asyncio.sleep` itself. A step that waits for anything else runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from perdure.runtime.attempt import StepRun
from perdure.runtime.shared_tasks import rest
from perdure.workflow.context import current_attempt

ENTRIES = ("cr_await", "gi_yieldfrom", "ag_await")


class Sleepers:
    """The timers of attempts that sleep, with when they end by the virtual monotonic clock."""

    def __init__(self, monotonic_ms: Callable[[], int]) -> None:
        self._monotonic_ms = monotonic_ms
        self._loop = asyncio.get_running_loop()
        self._due: dict[asyncio.TimerHandle, int] = {}

    def look(self, runs: Sequence[StepRun]) -> set[StepRun]:
        """Which of them sleep."""
        asleep = {run for run in runs if run.begun and run.task is not None and _stands_in_sleep(run.task)}
        before, now_ms = self._due, self._monotonic_ms()
        self._due = {}
        for handle in getattr(self._loop, "_scheduled", ()) if asleep else ():
            if not handle.cancelled() and handle._context.get(current_attempt) in asleep:
                left_ms = round((handle.when() - self._loop.time()) * 1000)
                self._due[handle] = before.get(handle, now_ms + left_ms)
        timed = {handle._context.get(current_attempt) for handle in self._due}  # type: ignore[attr-defined]
        return asleep & timed

    def next_ms(self) -> int | None:
        """When the first of their timers rings."""
        return min(self._due.values(), default=None)

    def wake(self) -> None:
        """Time has jumped: ring what is due, in order."""
        now_ms = self._monotonic_ms()
        for handle, due_ms in sorted(self._due.items(), key=lambda each: each[1]):
            if due_ms <= now_ms and not handle.cancelled():
                callback, args, context = handle._callback, handle._args, handle._context  # type: ignore[attr-defined]
                self._loop.call_soon(callback, *args, context=context)
                handle.cancel()


def _stands_in_sleep(task: asyncio.Task[Any]) -> bool:
    awaited: Any = task.get_coro()
    while awaited is not None:
        if getattr(awaited, "cr_code", None) is asyncio.sleep.__code__:
            return True
        awaited = _next(awaited)
    return False


def _next(awaited: Any) -> Any:
    """What a coroutine awaits."""
    if getattr(awaited, "gi_code", None) is rest.__code__:  # it drives an attempt by hand
        return awaited.gi_frame.f_locals["work"] if awaited.gi_frame is not None else None
    return next((getattr(awaited, name) for name in ENTRIES if hasattr(awaited, name)), None)
