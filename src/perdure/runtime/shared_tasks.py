"""The tasks that attempts run in: one after another in the same task, as long as none of them has to wait.

An attempt that waits keeps the task to itself, so `asyncio.current_task()` is one and the same for all of it; the next
ones get tasks of their own. Every attempt has a context of its own, a copy of the one in which the engine was started.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from types import coroutine
from typing import Any

from perdure.runtime.attempt import StepRun

Work = Coroutine[Any, Any, None]

LONGEST_S = 0.01
"""After so long a task lets the loop do other things: attempts that never wait would go on as long as any come."""


class SharedTasks:
    """Belongs to the engine's thread."""

    def __init__(self, work: Callable[[StepRun], Work]) -> None:
        self.waiting: deque[StepRun] = deque()  # will begin in one of the next passes of the loop
        self.alive: set[asyncio.Task[None]] = set()
        self._work = work
        self._takers = 0  # tasks that take from those that wait, or will when the loop comes to them
        self._context = copy_context()
        self._loop = asyncio.get_running_loop()

    def begin(self, run: StepRun) -> None:
        """Have it run. Whoever was cancelled by then never begins."""
        self.waiting.append(run)
        if not self._takers:
            self._open()

    async def begun(self) -> None:
        """Wait until none waits for its beginning."""
        while self.waiting:  # noqa: ASYNC110 - it is the loop's next pass that is waited for
            await asyncio.sleep(0)

    def _open(self) -> None:
        self._takers += 1
        coro = self._take()
        self.alive.add(asyncio.Task(coro, loop=self._loop, name="perdure-steps", context=self._context.copy()))

    async def _take(self) -> None:
        task, waiting, time = asyncio.current_task(), self.waiting, self._loop.time
        assert task is not None
        takes, until = True, time() + LONGEST_S
        try:
            while waiting:
                run = waiting.popleft()
                if run.cancelled:
                    continue
                run.task = task
                context, work = self._context.copy(), self._work(run)
                try:
                    waits_for = context.run(work.send, None)
                except StopIteration:
                    if self._takers > 1 or time() >= until or _is_cancelled(task):
                        return  # others take what is left; a task that cancelled itself takes no more
                    continue
                takes = False
                task.set_name(run.name)
                self._hand_on(len(waiting))
                await rest(context, work, waits_for)
                return
        finally:
            self.alive.discard(task)
            if takes:
                self._hand_on(1)

    def _hand_on(self, most: int) -> None:
        """One that took does not any more. If one attempt has to wait, so may the others: each gets a task."""
        self._takers -= 1
        for _ in range(min(len(self.waiting), most) - self._takers):
            self._open()


def _is_cancelled(task: asyncio.Task[None]) -> bool:
    """Whether its next wait would be cancelled; before 3.13 also after an `uncancel`."""
    return bool(task.cancelling() or task._must_cancel)  # type: ignore[attr-defined]  # noqa: SLF001 - see above


@coroutine
def rest(context: Context, work: Work, waits_for: Any) -> Generator[Any, Any, None]:
    """Go on with what has begun, in its context: what `await work` does, for one that waits already."""
    while True:
        step: Callable[[Any], Any]
        try:
            step, given = work.send, (yield waits_for)
        except GeneratorExit:
            context.run(work.close)
            raise
        except BaseException as error:  # noqa: BLE001 - cancellation, and whatever it waited for raised
            step, given = work.throw, error
        try:
            waits_for = context.run(step, given)
        except StopIteration:
            return
