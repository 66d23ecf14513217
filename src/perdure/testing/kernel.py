"""A world of processes in one thread, on virtual time: when nothing is ready, the clock jumps to what comes next.

Each process is an asyncio loop of its own. The kernel runs their handles one at a time; it can kill a process (what it
had scheduled never runs) or freeze it (what it had scheduled runs late). Nothing here reads a clock or draws numbers.
"""

from __future__ import annotations

import asyncio
from asyncio import events as asyncio_events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from heapq import heappop, heappush
from typing import Any

MAX_HANDLES = 2_000_000
MAX_CLOSE_TRIES = 100


class Crash(BaseException):
    """The process dies here and now."""


class Unfinished(Exception):
    """Nothing is left to happen, or too much happened, before the condition held."""


_Base: Any = asyncio.AbstractEventLoop  # whose signatures leave no room for a smaller loop


class Process(_Base):  # type: ignore[misc]
    """One process: a loop whose handles the kernel runs."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.kernel = kernel
        self.name = name
        self.dead = False
        self.frozen = False
        self.thawed_us = -1
        self.held: list[asyncio.Handle] = []
        self.at_death: Callable[[], None] = lambda: None
        self._tasks: dict[asyncio.Task[Any], None] = {}

    # --- what asyncio asks of a loop ---

    def time(self) -> float:
        """Virtual time in seconds."""
        return self.kernel.now_us / 1_000_000

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:
        """After what is ready now."""
        handle = asyncio.Handle(callback, args, self, context)
        if not self.dead:
            self.kernel.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """After that many virtual seconds."""
        return self._at_us(self.kernel.now_us + max(0, round(delay * 1_000_000)), callback, args, context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """At that virtual time."""
        return self._at_us(round(when * 1_000_000), callback, args, context)

    def _at_us(
        self, when_us: int, callback: Callable[..., Any], args: tuple[Any, ...], context: Context | None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when_us / 1_000_000, callback, args, self, context)
        if not self.dead:
            self.kernel.at(when_us, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """The kernel skips it when it meets it."""

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this process."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        """A task of this process."""
        task = asyncio.Task(coro, loop=self, **options)
        self._tasks[task] = None
        task.add_done_callback(self._forget)
        return task

    def own(self, task: object) -> None:
        """A task that was made without asking its loop ends with it, too."""
        if isinstance(task, asyncio.Task):
            self._tasks[task] = None

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)

    def get_debug(self) -> bool:
        """Off."""
        return False

    def is_running(self) -> bool:
        """While one of its handles runs."""
        return asyncio_events._get_running_loop() is self

    def is_closed(self) -> bool:
        """Whether it was killed."""
        return self.dead

    def get_task_factory(self) -> None:
        """None: plain tasks."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A handle raised: a crash that was asked for, or a bug that somebody must hear of."""
        error = context.get("exception")
        if isinstance(error, Crash):
            self.kill()
        elif not self.dead and isinstance(error, Exception):
            self.kernel.fail(error)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """As `call_exception_handler`."""
        self.call_exception_handler(context)

    # --- fate ---

    def kill(self) -> None:
        """As by SIGKILL: nothing that it had scheduled happens any more."""
        if self.dead:
            return
        self.dead = True
        for handle in (*self.kernel.ready, *self.held):
            if handle._loop is self:  # type: ignore[attr-defined]  # noqa: SLF001 - a loop runs its handles
                self.own(getattr(handle._callback, "__self__", None))  # type: ignore[attr-defined]
        self.held.clear()
        self.at_death()
        for task in list(self._tasks):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coro = task.get_coro()
            if not task.done() and coro is not None:
                _close(coro)
        self._tasks.clear()

    def freeze(self) -> None:
        """As by SIGSTOP: what becomes ready waits."""
        self.frozen = True

    def thaw(self) -> None:
        """As by SIGCONT: what waited is ready."""
        self.frozen = False
        self.thawed_us = self.kernel.now_us
        if not self.dead:
            self.kernel.ready.extend(self.held)
        self.held.clear()


def _close(coro: Any) -> None:
    for _ in range(MAX_CLOSE_TRIES):  # each ends one `finally` block that awaits
        try:
            coro.close()
        except RuntimeError as error:
            if "ignored GeneratorExit" in str(error):
                continue
        except (Exception, Crash):  # noqa: BLE001, S110 - a dead process has nothing to say
            pass
        return


Process.__abstractmethods__ = frozenset()


class Kernel:
    """Time, and the handles of all processes in order."""

    def __init__(self) -> None:
        self.now_us = 0
        self.ready: deque[asyncio.Handle] = deque()
        self.handles = 0
        self.failure: Exception | None = None
        self._later: list[tuple[int, int, asyncio.Handle]] = []
        self._tie = 0

    @property
    def now_ms(self) -> int:
        """Virtual milliseconds since the beginning."""
        return self.now_us // 1000

    def fail(self, error: Exception) -> None:
        """Stop the world: the first failure is the one to look at."""
        if self.failure is None:
            self.failure = error

    def at(self, when_us: int, handle: asyncio.Handle) -> None:
        """Have it ready then."""
        self._tie += 1
        heappush(self._later, (when_us, self._tie, handle))

    def run(self, until: Callable[[], bool], deadline_ms: int) -> bool:
        """Run handles until the condition holds or that time has come. Returns whether it holds.

        Raises:
            Exception: the first one that a handle raised.
        """
        previous = asyncio_events._get_running_loop()
        try:
            while not until():
                if not self.ready and not self._jump(deadline_ms * 1000):
                    return until()
                self._run_ready()
            return True
        finally:
            asyncio_events._set_running_loop(previous)

    def _jump(self, deadline_us: int) -> bool:
        """To the next moment at which something is due."""
        later = self._later
        while later and later[0][2].cancelled():
            heappop(later)
        if not later or later[0][0] > deadline_us:
            self.now_us = max(self.now_us, deadline_us)
            return False
        self.now_us = max(self.now_us, later[0][0])
        while later and later[0][0] <= self.now_us:
            self.ready.append(heappop(later)[2])
        return True

    def _run_ready(self) -> None:
        ready, set_running = self.ready, asyncio_events._set_running_loop
        for _ in range(len(ready)):
            handle = ready.popleft()
            process: Process = handle._loop  # type: ignore[attr-defined]  # noqa: SLF001 - a loop runs its handles
            if process.dead or handle._cancelled:
                continue
            if process.frozen:
                process.held.append(handle)
                continue
            self.handles += 1
            set_running(process)
            handle._run()  # noqa: SLF001 - a loop runs its handles
            if self.failure is not None:
                raise self.failure
        if self.handles > MAX_HANDLES:
            raise Unfinished(f"{self.handles} handles ran: something goes round in circles")
