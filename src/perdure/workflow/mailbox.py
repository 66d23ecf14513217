"""Signals that a run has received and its code has not taken yet, in order of arrival; and who waits for them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from perdure.core.events import SignalReceived

if TYPE_CHECKING:
    from perdure.workflow.loop import DeterministicLoop


class Mailbox:
    """The mailbox of one run. Belongs to its execution."""

    def __init__(self, loop: DeterministicLoop) -> None:
        self._loop = loop
        self._unread: dict[int, SignalReceived] = {}  # by arrival
        self._by_name: dict[str, deque[int]] = {}
        self._receivers: dict[str, deque[Any]] = {}
        self._arrivals = 0

    def put(self, event: SignalReceived) -> None:
        """A signal arrives; who has waited longest is woken."""
        self._arrivals += 1
        self._unread[self._arrivals] = event
        self._by_name.setdefault(event.name, deque()).append(self._arrivals)
        self._wake(event.name)

    def unread(self) -> list[SignalReceived]:
        """All that the code has not taken, in order of arrival."""
        return list(self._unread.values())

    def counts(self) -> dict[str, int]:
        """How many of each name are unread."""
        return {name: len(arrivals) for name, arrivals in self._by_name.items() if arrivals}

    def awaited(self) -> list[str]:
        """Names that somebody waits for."""
        return [name for name, waiters in self._receivers.items() if waiters]

    def take_all(self, name: str) -> list[SignalReceived]:
        """The unread ones of a name, for its handler."""
        return [self._unread.pop(arrival) for arrival in self._by_name.pop(name, ())]

    async def next(self, name: str) -> SignalReceived:
        """The next signal of this name. It leaves when this task resumes, so that cancelling loses nothing."""
        waiters = self._receivers.setdefault(name, deque())
        while not self._by_name.get(name):
            waiter = self._loop.create_future()
            waiters.append(waiter)
            try:
                await waiter
            except BaseException:
                if waiter in waiters:
                    waiters.remove(waiter)
                elif self._by_name.get(name) and not self._loop.closing:
                    self._wake(name)  # this task was chosen but gives up: the next one gets it
                raise
        return self._unread.pop(self._by_name[name].popleft())

    def _wake(self, name: str) -> None:
        waiters = self._receivers.get(name)
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def forget_receivers(self) -> None:
        """The run leaves memory."""
        self._receivers.clear()
