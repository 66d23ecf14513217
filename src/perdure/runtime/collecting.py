"""Deletes, now and then, large values that nothing refers to: of who died between storing and committing one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from perdure.runtime.environment import Environment
    from perdure.store.protocol import Store

log = logging.getLogger("perdure")

EVERY_MS = 10 * 60_000
GRACE_MS = 24 * 3_600_000  # whoever stores a value commits what refers to it long before, or stores it again
MOST = 50  # at once: they may be large


class Collector:
    """Of one worker. Each time one bounded transaction, off the loop; if it was full, another at the next tick."""

    def __init__(
        self, store: Store, ask: Callable[[Callable[[], Any], Callable[[Any], None]], None], environment: Environment
    ) -> None:
        self._store = store
        self._ask = ask  # `Worker.ask`
        self._environment = environment
        self._next_ms = environment.monotonic_ms() + EVERY_MS

    def tick(self) -> None:
        """Called twice a second or so."""
        now_ms = self._environment.monotonic_ms()
        if now_ms < self._next_ms:
            return
        self._next_ms = now_ms + EVERY_MS
        before_ms = self._environment.now_ms() - GRACE_MS
        self._ask(lambda: self._store.collect_blobs(before_ms, MOST), self._collected)

    def _collected(self, found: Any) -> None:
        if isinstance(found, Exception):
            log.warning("cannot delete what nothing refers to, trying again later: %s", found)
        elif found == MOST:
            self._next_ms = 0
