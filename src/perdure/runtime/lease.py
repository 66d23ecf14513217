"""What a worker may assume to own, and for how long: the lease of its session, renewed by a heartbeat.

Between renewals only two thirds of the lease count, by the worker's own monotonic clock: whoever takes over afterwards
finds no step running here. A store without leases (one worker per file) owns until told otherwise.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from perdure.core.errors import OwnershipLost, StoreError
from perdure.store.protocol import Lease, Session, Store

log = logging.getLogger("perdure")

PAUSE_S = 1.0
NO_LEASE = Lease(frozenset())


class Holding:
    """The shards of the lease last told, while it may be trusted. Nothing until the first."""

    def __init__(self, monotonic_ms: Callable[[], int]) -> None:
        self.shards: frozenset[int] = frozenset()
        self.until_ms: int | None = None
        self.ttl_ms = 0  # how long others may own on; 0: only while they live
        self._monotonic_ms = monotonic_ms

    def renewed(self, lease: Lease, asked_ms: int) -> tuple[frozenset[int], frozenset[int]]:
        """Take note of a lease that was asked for at that time. Returns the shards lost and gained."""
        before, self.shards = self.shards, lease.shards
        self.ttl_ms = lease.ttl_ms or self.ttl_ms
        self.until_ms = None if lease.ttl_ms is None else asked_ms + lease.ttl_ms * 2 // 3
        return before - lease.shards, lease.shards - before

    def lapsed(self) -> bool:
        """Whether another worker may own all of it by now, or does: who owns nothing begins nothing."""
        return not self.shards or (self.until_ms is not None and self._monotonic_ms() >= self.until_ms)


class Heart:
    """Renews the lease, in a thread of its own: a step that blocks the engine's loop does not cost the ownership."""

    def __init__(
        self,
        store: Store,
        session: Session,
        *,
        monotonic_ms: Callable[[], int],
        renewed: Callable[[Lease, int], object],
        lost: Callable[[Exception], object],
        watch: Callable[[], object] = lambda: None,
    ) -> None:
        self._store = store
        self._session = session
        self._monotonic_ms = monotonic_ms
        self._renewed = renewed
        self._lost = lost
        self._watch = watch
        self._pause_s = PAUSE_S
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="perdure-heart", daemon=True)

    def start(self) -> None:
        """Begin, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the beat that is under way. Blocks."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def beat(self) -> float | None:
        """Renew once. Returns the seconds until the next beat, or None if the session is over."""
        asked_ms = self._monotonic_ms()
        try:
            lease = self._store.renew(self._session)
        except OwnershipLost as error:
            self._lost(error)
            return None
        except StoreError as error:
            log.warning("cannot renew the lease, trying again: %s", error)
            return self._pause_s
        self._renewed(lease, asked_ms)
        self._pause_s = PAUSE_S if lease.ttl_ms is None else lease.ttl_ms / 3000
        return self._pause_s

    def _run(self) -> None:
        pause_s: float | None = self._pause_s
        while pause_s is not None and not self._stop.wait(pause_s):
            pause_s = self.beat()
            self._watch()
