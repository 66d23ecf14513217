"""A store whose calls fail as a plan says: before anything was written, or after, when only the answer is lost.

`StoreError` from the port means that nothing happened; an answer lost after the write is therefore the death of the
process that asked, which the plan expresses by raising `Crash`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from perdure.core.errors import PerdureError
from perdure.core.events import Attribute, Recorded
from perdure.core.identity import Key
from perdure.store.protocol import (
    Advice,
    AskRow,
    Batch,
    Blob,
    Branch,
    Collected,
    Committed,
    Filter,
    Lease,
    Letter,
    Mail,
    Outcome,
    Receipt,
    Row,
    Running,
    RunRow,
    Session,
    Start,
    Store,
    UnresolvedRow,
    UpdateRow,
)

R = TypeVar("R")


class Plan(Protocol):
    """Decides the fate of each call."""

    def before(self, process: str, call: str) -> None:
        """May raise a `StoreError` or `Crash`: nothing is written."""
        ...

    def after(self, process: str, call: str) -> None:
        """May raise `Crash`: it is written, but nobody hears of it."""
        ...


class FaultyStore:
    """One process's way into the store."""

    def __init__(
        self,
        inner: Store,
        process: str,
        plan: Plan,
        committed: Callable[[Batch], None] = lambda _: None,
        branched: Callable[[Branch], None] = lambda _: None,
    ) -> None:
        self.inner = inner
        self.path = inner.path
        self.shards = inner.shards
        self.process = process
        self.plan = plan
        self.committed = committed
        self.branched = branched

    def _call(self, name: str, call: Callable[[], R]) -> R:
        self.plan.before(self.process, name)
        answer = call()
        self.plan.after(self.process, name)
        return answer

    def open_session(self, worker: str, lanes: Sequence[str], fingerprint: str) -> Session:
        """See `Store.open_session`."""
        return self._call("open_session", lambda: self.inner.open_session(worker, lanes, fingerprint))

    def renew(self, session: Session) -> Lease:
        """See `Store.renew`."""
        return self._call("renew", lambda: self.inner.renew(session))

    def close_session(self, session: Session) -> None:
        """See `Store.close_session`."""
        self._call("close_session", lambda: self.inner.close_session(session))

    def commit(self, session: Session, batches: Sequence[Batch], advice: Sequence[Advice] = ()) -> Committed:
        """See `Store.commit`. What was committed is told before the answer can be lost."""

        def write() -> Committed:
            done = self.inner.commit(session, batches, advice)
            for batch, outcome in zip(batches, done.outcomes, strict=True):
                if outcome is Outcome.COMMITTED:
                    self.committed(batch)
            return done

        return self._call("commit", write)

    def deposit(self, starts: Sequence[Start] = (), mail: Sequence[Mail] = ()) -> Sequence[Receipt | PerdureError]:
        """See `Store.deposit`."""
        return self._call("deposit", lambda: self.inner.deposit(starts, mail))

    def resume(self, key: Key, message_id: str = "") -> Receipt:
        """See `Store.resume`."""
        return self._call("resume", lambda: self.inner.resume(key, message_id))

    def branch(self, branch: Branch) -> Receipt:
        """See `Store.branch`. What was begun is told before the answer can be lost."""

        def write() -> Receipt:
            receipt = self.inner.branch(branch)
            if receipt.created:
                self.branched(branch)
            return receipt

        return self._call("branch", write)

    def runs(self, key: Key, before: int | None, limit: int) -> list[RunRow]:
        """See `Store.runs`."""
        return self._call("runs", lambda: self.inner.runs(key, before, limit))

    def deliver(self, session: Session, limit: int) -> list[Key]:
        """See `Store.deliver`."""
        return self._call("deliver", lambda: self.inner.deliver(session, limit))

    def load(self, key: Key, run: str, position: int, limit: int) -> list[Recorded]:
        """See `Store.load`."""
        return self._call("load", lambda: self.inner.load(key, run, position, limit))

    def inbox(self, key: Key, limit: int) -> list[Letter]:
        """See `Store.inbox`."""
        return self._call("inbox", lambda: self.inner.inbox(key, limit))

    def requests(self, key: Key, limit: int) -> list[Letter]:
        """See `Store.requests`."""
        return self._call("requests", lambda: self.inner.requests(key, limit))

    def ready(self, session: Session, now_ms: int, after: Key | None, limit: int) -> list[Row]:
        """See `Store.ready`."""
        return self._call("ready", lambda: self.inner.ready(session, now_ms, after, limit))

    def next_wake_ms(self, session: Session, after_ms: int) -> int | None:
        """See `Store.next_wake_ms`."""
        return self._call("next_wake_ms", lambda: self.inner.next_wake_ms(session, after_ms))

    def row(self, key: Key) -> Row | None:
        """See `Store.row`."""
        return self._call("row", lambda: self.inner.row(key))

    def find(self, wanted: Filter, after: tuple[int, str] | None, limit: int) -> list[Row]:
        """See `Store.find`."""
        return self._call("find", lambda: self.inner.find(wanted, after, limit))

    def running(self, key: Key) -> list[Running]:
        """See `Store.running`."""
        return self._call("running", lambda: self.inner.running(key))

    def attributes(self, key: Key) -> dict[str, Attribute]:
        """See `Store.attributes`."""
        return self._call("attributes", lambda: self.inner.attributes(key))

    def dead_letters(self, key: Key, limit: int) -> list[Letter]:
        """See `Store.dead_letters`."""
        return self._call("dead_letters", lambda: self.inner.dead_letters(key, limit))

    def update(self, key: Key, update_id: str) -> UpdateRow | None:
        """See `Store.update`."""
        return self._call("update", lambda: self.inner.update(key, update_id))

    def unresolved(
        self, namespace: str, execution: str, after: UnresolvedRow | None, limit: int
    ) -> list[UnresolvedRow]:
        """See `Store.unresolved`."""
        return self._call("unresolved", lambda: self.inner.unresolved(namespace, execution, after, limit))

    def asks(
        self, namespace: str, execution: str, to: str, now_ms: int, after: AskRow | None, limit: int
    ) -> list[AskRow]:
        """See `Store.asks`."""
        return self._call("asks", lambda: self.inner.asks(namespace, execution, to, now_ms, after, limit))

    def tail(self, shard: int, after: int, limit: int) -> list[tuple[int, Key, str, Recorded]]:
        """See `Store.tail`."""
        return self._call("tail", lambda: self.inner.tail(shard, after, limit))

    def put_blobs(self, blobs: Sequence[Blob]) -> None:
        """See `Store.put_blobs`."""
        self._call("put_blobs", lambda: self.inner.put_blobs(blobs))

    def blob(self, key: Key, address: bytes) -> bytes | None:
        """See `Store.blob`."""
        return self._call("blob", lambda: self.inner.blob(key, address))

    def collect_blobs(self, before_ms: int, limit: int) -> int:
        """See `Store.collect_blobs`."""
        return self._call("collect_blobs", lambda: self.inner.collect_blobs(before_ms, limit))

    def collect(
        self, namespace: str, before_ms: int, after: tuple[int, int] | None, limit: int, *, runs: bool = False
    ) -> Collected:
        """See `Store.collect`."""
        return self._call("collect", lambda: self.inner.collect(namespace, before_ms, after, limit, runs=runs))

    def collectable(
        self, namespace: str, before_ms: int, after: tuple[int, int] | None, limit: int, *, runs: bool = False
    ) -> Collected:
        """See `Store.collectable`."""
        return self._call("collectable", lambda: self.inner.collectable(namespace, before_ms, after, limit, runs=runs))

    def changes(self) -> int:
        """See `Store.changes`."""
        return self._call("changes", self.inner.changes)

    def now_ms(self) -> int:
        """See `Store.now_ms`."""
        return self.inner.now_ms()

    def close(self) -> None:
        """See `Store.close`."""
        self.inner.close()
