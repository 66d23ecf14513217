"""Threads for plain `def` steps. One that outlives its timeout cannot be stopped: it is counted, replaced, bounded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context


class Work:
    """One call in a thread."""

    __slots__ = ("abandoned", "call", "context", "finished")

    def __init__(self, call: Callable[[], None], context: Context) -> None:
        self.call = call
        self.context = context
        self.abandoned = False
        self.finished = False


NEVER_RAN = Work(lambda: None, Context())
"""Stands for work that was abandoned before any thread took it."""


class ThreadPool:
    """At most `size` working threads, and at most as many again that were abandoned and have not ended yet."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._condition = threading.Condition()
        self._waiting: deque[Work] = deque()
        self._threads = 0
        self._idle = 0
        self._abandoned = 0
        self._closed = False

    @property
    def abandoned(self) -> int:
        """Threads that still run a step which timed out or was cancelled."""
        return self._abandoned

    def submit(self, call: Callable[[], None], context: Context) -> Work:
        """Run it in a thread as soon as one is free. `call` must not raise."""
        work = Work(call, context)
        with self._condition:
            self._waiting.append(work)
            if len(self._waiting) <= self._idle:  # an idle thread that was notified stays idle until it wakes
                self._condition.notify()
            else:
                self._grow()
        return work

    def abandon(self, work: Work) -> bool:
        """Nobody waits for this call any more: another thread may take its place. Whether it has begun, or ended."""
        with self._condition:
            if work.finished or work.abandoned:
                return True
            work.abandoned = True
            if work in self._waiting:
                self._waiting.remove(work)
                return False
            self._abandoned += 1
            if self._waiting:
                self._grow()
            return True

    def close(self) -> None:
        """Let idle threads end. Threads are daemons: a step that never returns does not hold the process."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def _grow(self) -> None:
        if self._threads - min(self._abandoned, self.size) < self.size:
            self._threads += 1
            threading.Thread(target=self._run, name="perdure-step", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._condition:
                if self._threads - min(self._abandoned, self.size) > self.size:
                    self._threads -= 1
                    return
                while not self._waiting:
                    if self._closed:
                        self._threads -= 1
                        return
                    self._idle += 1
                    self._condition.wait()
                    self._idle -= 1
                work = self._waiting.popleft()
            work.context.run(work.call)
            with self._condition:
                work.finished = True
                if work.abandoned:
                    self._abandoned -= 1
