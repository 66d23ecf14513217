"""One timer for many: who is to be woken when, with a single handle on the loop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Hashable
from heapq import heapify, heappop, heappush
from typing import Any

LONGEST_SLEEP_MS = 60_000  # wall clocks jump: look again at least this often
MIN_PRUNED = 64


class Alarm:
    """Wakes `ring(who)` once the wall clock reaches what was asked for. Belongs to the engine's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now_ms: Callable[[], int], ring: Callable[[Any], None]) -> None:
        self._loop = loop
        self._now_ms = now_ms
        self._ring = ring
        self._due: dict[Hashable, int] = {}
        self._heap: list[tuple[int, int, Hashable]] = []
        self._tie = itertools.count()
        self._handle: asyncio.TimerHandle | None = None
        self._armed_ms: int | None = None

    def set(self, who: Hashable, due_ms: int | None) -> None:
        """Wake `who` at this time instead of any earlier request; None: not at all."""
        if due_ms is None:
            self._due.pop(who, None)
            return
        if self._due.get(who) == due_ms:
            return
        self._due[who] = due_ms
        heappush(self._heap, (due_ms, next(self._tie), who))
        if len(self._heap) > 2 * len(self._due) + MIN_PRUNED:  # mostly of those who are gone
            self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[0]]
            heapify(self._heap)
        if self._armed_ms is None or due_ms < self._armed_ms:
            self._arm()

    def due(self, who: Hashable) -> int | None:
        """When `who` will be woken."""
        return self._due.get(who)

    def next_ms(self) -> int | None:
        """When the next one will be woken."""
        return min(self._due.values(), default=None)

    def look(self) -> None:
        """Wake whoever is due: the clock may have jumped."""
        if self._handle is not None:
            self._handle.cancel()
        self._wake()

    def close(self) -> None:
        """Wake nobody any more."""
        self._due.clear()
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        heap = self._heap
        while heap and self._due.get(heap[0][2]) != heap[0][0]:
            heappop(heap)
        self._armed_ms = heap[0][0] if heap else None
        if self._armed_ms is not None:
            pause_ms = min(max(0, self._armed_ms - self._now_ms()), LONGEST_SLEEP_MS)
            self._handle = self._loop.call_later(pause_ms / 1000, self._wake)

    def _wake(self) -> None:
        self._handle = None
        now_ms = self._now_ms()
        heap = self._heap
        while heap and heap[0][0] <= now_ms:
            due_ms, _, who = heappop(heap)
            if self._due.get(who) == due_ms:
                del self._due[who]
                self._ring(who)
        self._arm()
