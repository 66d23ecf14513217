"""Deletes what is over: executions that closed and runs that ended long ago, large values that nothing refers to.

Always in bites, each one short transaction, with a pause after it: commits of others get in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from perdure.core.errors import InvalidOption
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
    """What a removal came to, or would come to: executions, events of journals, past runs of executions that stay."""

    executions: int
    events: int
    runs: int = 0


class Retention(NamedTuple):
    """How long a worker keeps executions that have closed, or, with `runs`, past runs."""

    namespace: str
    keep_ms: int
    runs: bool


def retentions_of(namespace: str, retention: Seconds | None, run_retention: Seconds | None) -> list[Retention]:
    """An engine's options. Raises `InvalidOption`."""
    given = [("retention", retention, False), ("run_retention", run_retention, True)]
    return [Retention(namespace, to_ms(age, option), runs) for option, age, runs in given if age is not None]


async def remove(
    read: Callable[[Callable[[], Any]], Awaitable[Any]],
    store: Store,
    namespace: str,
    ages: Mapping[str, Seconds | None],
    environment: Environment,
    progress: Callable[[Removed], object] | None,
    *,
    dry: bool,
) -> Removed:
    """Bite after bite until nothing is left that is older than these options say. Raises `InvalidOption`."""
    given = {option: to_ms(age, option) for option, age in ages.items() if age is not None}
    if not given:
        raise InvalidOption(option=next(iter(ages)), value="None", expected="a time, for this or for runs_older_than")
    call, size = (store.collectable, PAGE) if dry else (store.collect, BITE)
    total = Removed(0, 0)
    for option, age_ms in given.items():
        before_ms, runs = environment.now_ms() - age_ms, option == "runs_older_than"
        after, more = None, True
        while more:
            began_ms = environment.monotonic_ms()
            found: Collected = await read(partial(call, namespace, before_ms, after, size, runs=runs))
            after, more = found.after, found.more
            gone = (found.executions, found.events, found.runs)
            total = Removed(*(before + now for before, now in zip(total, gone, strict=True)))
            if progress is not None:
                progress(total)
            if more:
                await asyncio.sleep((environment.monotonic_ms() - began_ms) / 1000 * PAUSE)
    return total


class Collector:
    """Deletes for one worker: one bounded transaction after the other, off the loop, while there is something to do."""

    def __init__(
        self,
        store: Store,
        in_background: Callable[[Callable[[], Any], Callable[[Any], None]], None],
        environment: Environment,
    ) -> None:
        self._store = store
        self._in_background = in_background  # `Worker.ask`
        self._environment = environment
        self._next_ms = environment.monotonic_ms() + EVERY_MS
        self._retentions: list[Retention] = []
        self._biting = False

    def keep(self, retentions: list[Retention]) -> None:
        """Remove what is older than they say, by one after the other."""
        self._retentions = retentions
        if retentions:
            self._next_ms = self._environment.monotonic_ms() + FIRST_MS

    def tick(self) -> None:
        """Called twice a second or so."""
        now_ms = self._environment.monotonic_ms()
        if now_ms < self._next_ms:
            return
        self._next_ms = now_ms + EVERY_MS
        before_ms = self._environment.now_ms() - GRACE_MS
        self._in_background(lambda: self._store.collect_blobs(before_ms, MOST), self._collected)
        if self._retentions and not self._biting:
            self._biting = True
            self._bite(self._retentions, None)

    def _collected(self, found: Any) -> None:
        if isinstance(found, Exception):
            log.warning("cannot delete what nothing refers to, trying again later: %s", found)
        elif found == MOST:
            self._next_ms = 0

    def _bite(self, retentions: list[Retention], after: tuple[int, int] | None) -> None:
        namespace, keep_ms, runs = retentions[0]
        before_ms, began_ms = self._environment.now_ms() - keep_ms, self._environment.monotonic_ms()

        def bitten(found: Any) -> None:
            if isinstance(found, Exception):
                log.warning("cannot remove what ended long ago, trying again later: %s", found)
            elif found.more or len(retentions) > 1:
                took_ms = self._environment.monotonic_ms() - began_ms
                pause_s = max(LEAST_PAUSE_S, PAUSE * took_ms / 1000)
                rest = (retentions, found.after) if found.more else (retentions[1:], None)
                asyncio.get_running_loop().call_later(pause_s, self._bite, *rest)
                return
            self._biting = False

        self._in_background(lambda: self._store.collect(namespace, before_ms, after, BITE, runs=runs), bitten)
