"""Executions that were active at three unclean deaths without progress: they run alone, one after the other.

While one has its turn no step of another execution runs in this worker. If the process dies again, it is the cause.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from perdure.core.identity import Key
from perdure.runtime.committer import Committer
from perdure.runtime.loading import SURVIVED, Loaded, died_alone, noted_alone, read
from perdure.runtime.steps import StepRunner
from perdure.store.protocol import Row, Session, Store

log = logging.getLogger("perdure")

RECOVERIES_ALONE = 3
ALONE_AT_MOST_S = 60.0


class Home(Protocol):
    """What is asked of the worker."""

    session: Session
    steps: StepRunner
    committer: Committer
    stopping: bool


class Suspects:
    """The suspects of one worker: whose turn it is, and who waits. Belongs to the engine's thread."""

    def __init__(self, worker: Home, load: Callable[[Row], None]) -> None:
        self._worker = worker
        self._load = load  # bring it into memory
        self._waiting: OrderedDict[Key, Row] = OrderedDict()
        self._current: Row | None = None

    def has_turn(self, key: Key) -> bool:
        """Whether this one runs alone now."""
        return self._current is not None and self._current.key == key

    def add(self, row: Row) -> None:
        """Queue it, unless it has its turn. One that waits keeps its place: its row may be another by now."""
        if not self.has_turn(row.key):
            self._waiting[row.key] = row

    def next(self) -> None:
        """Give the next one its turn: until it made progress, waits, or a minute is over."""
        if self._current is not None or not self._waiting or self._worker.stopping:
            return
        _, row = self._waiting.popitem(last=False)
        self._current = row
        self._worker.steps.alone = row.key
        log.warning("execution %s was active at %d unclean deaths: it runs alone", row.key.execution, row.recoveries)
        asyncio.get_running_loop().call_later(ALONE_AT_MOST_S, self.passed, row.key)
        self._load(row)

    def read(self, store: Store, row: Row) -> Loaded:
        """Before it begins, the store knows that it runs alone: those that wait their turn die beside it, innocent."""
        loaded = read(store, row)
        if not died_alone(loaded):
            store.commit(self._worker.session, [], [noted_alone(row, row.recoveries)])
        return loaded

    def passed(self, key: Key) -> None:
        """If it had its turn, that is over."""
        if not self.has_turn(key):
            return
        assert self._current is not None
        row, self._current, self._worker.steps.alone = self._current, None, None
        if not self._worker.stopping:
            self._worker.committer.advise(noted_alone(row, SURVIVED))
        self._worker.steps.pump()
        self.next()
