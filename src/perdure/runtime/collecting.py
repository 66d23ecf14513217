"""Deletes what is over: executions that closed long ago, and large values that nothing refers to.

Always in bites, each one short transaction, with a pause after it: commits of others get in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from perdure.core.retry import Seconds, to_ms
from perdure.runtime.environment import Environment
from perdure.store.protocol import Collected, Store

log = logging.getLogger("perdure")

FIRST_MS = 1_000
EVERY_MS = 10 * 60_000
GRACE_MS = 24 * 3_600_000  # whoever stores a value commits what refers to it long before, or stores it again
MOST = 50  # at once: they may be large
BITE = 1_000  # rows
PAGE = 1_000  # executions that are looked at
LEAST_PAUSE_S = 0.005
PAUSE = 2  # as long as a bite takes, and so many times that


class Removed(NamedTuple):
    """What a removal came to, or would come to: executions, and events of their journals."""

    executions: int
    events: int


class Retention(NamedTuple):
    """How long a worker keeps what has closed."""

    namespace: str
    keep_ms: int


def retention_of(namespace: str, retention: Seconds | None) -> Retention | None:
    """An engine's option. Raises `InvalidOption`."""
    return None if retention is None else Retention(namespace, to_ms(retention, "retention"))


async def remove_all(
    read: Callable[[Callable[[], Any]], Awaitable[Any]],
    bite: Callable[[tuple[int, int] | None], Collected],
    progress: Callable[[Removed], object] | None,
    monotonic_ms: Callable[[], int],
) -> Removed:
    """Bite after bite until nothing is left."""
    total, after, more = Removed(0, 0), None, True
    while more:
        began_ms = monotonic_ms()
        found: Collected = await read(lambda after=after: bite(after))  # type: ignore[misc]
        total = Removed(total.executions + found.executions, total.events + found.events)
        after, more = found.after, found.more
        if progress is not None:
            progress(total)
        if more:
            await asyncio.sleep((monotonic_ms() - began_ms) / 1000 * PAUSE)
    return total


class Collector:
    """Of one worker. One bounded transaction after the other, off the loop, as long as there is something to delete."""

    def __init__(
        self, store: Store, ask: Callable[[Callable[[], Any], Callable[[Any], None]], None], environment: Environment
    ) -> None:
        self._store = store
        self._ask = ask  # `Worker.ask`
        self._environment = environment
        self._next_ms = environment.monotonic_ms() + EVERY_MS
        self._retention: Retention | None = None
        self._biting = False

    def keep(self, retention: Retention | None) -> None:
        """Remove what closed longer ago than that; None: nothing."""
        self._retention = retention
        if retention is not None:
            self._next_ms = self._environment.monotonic_ms() + FIRST_MS

    def tick(self) -> None:
        """Called twice a second or so."""
        now_ms = self._environment.monotonic_ms()
        if now_ms < self._next_ms:
            return
        self._next_ms = now_ms + EVERY_MS
        before_ms = self._environment.now_ms() - GRACE_MS
        self._ask(lambda: self._store.collect_blobs(before_ms, MOST), self._collected)
        if self._retention is not None and not self._biting:
            self._biting = True
            self._bite(self._retention, None)

    def _collected(self, found: Any) -> None:
        if isinstance(found, Exception):
            log.warning("cannot delete what nothing refers to, trying again later: %s", found)
        elif found == MOST:
            self._next_ms = 0

    def _bite(self, retention: Retention, after: tuple[int, int] | None) -> None:
        before_ms, began_ms = self._environment.now_ms() - retention.keep_ms, self._environment.monotonic_ms()

        def bitten(found: Any) -> None:
            if isinstance(found, Exception):
                log.warning("cannot remove executions that closed long ago, trying again later: %s", found)
            elif found.more:
                took_ms = self._environment.monotonic_ms() - began_ms
                pause_s = max(LEAST_PAUSE_S, PAUSE * took_ms / 1000)
                asyncio.get_running_loop().call_later(pause_s, self._bite, retention, found.after)
                return
            self._biting = False

        self._ask(lambda: self._store.collect(retention.namespace, before_ms, after, BITE), bitten)
