"""A store in memory, for the simulator and for tests: the same promises as a file, for any number of workers.

Sessions hold leases that expire by an injected clock; shards are shared evenly, and move when leases are renewed.
Deterministic: nothing here depends on time but through that clock, on hashing or on threads.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from perdure.core.errors import CorruptJournal, OwnershipLost, StoreError
from perdure.core.identity import DEFAULT_SHARDS, Key
from perdure.store.clock import system_clock_ms
from perdure.store.memory_runs import MemoryRuns
from perdure.store.memory_tables import MemoryTables, Registration, World
from perdure.store.protocol import (
    AskRow,
    Collected,
    Filter,
    Lease,
    Letter,
    Row,
    Running,
    RunRow,
    Session,
    UnresolvedRow,
    UpdateRow,
)
from perdure.store.records import journal, letter, readable, recorded, unseal
from perdure.store.routing import RoutedStore, Router
from perdure.store.rules import matches, newest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perdure.core.events import Attribute, Recorded

NEVER_MS = 2**62


class MemoryStore(RoutedStore):
    """A store that is gone with its process. `connect` gives another connection to the same one.

    Args:
        shards: number of slices.
        direct: deliver mail in the sender's transaction where that keeps the order.
        lease_ms: how long a session owns its shards without `renew`; None: until it is closed.
        clock: milliseconds since 1970, UTC.
    """

    def __init__(
        self,
        *,
        shards: int = DEFAULT_SHARDS,
        direct: bool = True,
        lease_ms: int | None = 15_000,
        clock: Callable[[], int] = system_clock_ms,
    ) -> None:
        self.path = "memory"
        self.shards = shards
        self.now_ms = clock
        self._direct = direct
        self._lease_ms = lease_ms
        self._world = World(shards)
        self._shared = _Shared()
        self._own_writes = 0
        self._opened: set[int] = set()
        self._closed = False

    def connect(self) -> MemoryStore:
        """Another connection to the same store, as another process would have."""
        other = MemoryStore(shards=self.shards, direct=self._direct, lease_ms=self._lease_ms, clock=self.now_ms)
        other._world, other._shared = self._world, self._shared
        other._own_writes = self._shared.writes
        return other

    # --- transactions ---

    @contextmanager
    def _reading(self) -> Iterator[World]:
        with self._shared.lock:
            if self._closed:
                raise StoreError(path=self.path, detail="it is closed")
            yield self._world

    @contextmanager
    def _writing(self, session: Session | None = None) -> Iterator[MemoryRuns]:
        with self._reading() as world:
            if session is not None:
                self._check_fence(session)
            tables = MemoryRuns(world, 0 if session is None else session.session, self.now_ms)
            try:
                yield tables
            except BaseException:
                tables.rollback()
                raise
            self._shared.writes += 1
            self._own_writes += 1

    def _check_fence(self, session: Session) -> Registration:
        found = self._world.sessions.get(session.session)
        if found is None or found.epoch != session.epoch:
            raise OwnershipLost(path=self.path, detail=f"session {session.session} was taken over or closed")
        return found

    # --- sessions ---

    def _expires_ms(self) -> int:
        return NEVER_MS if self._lease_ms is None else self.now_ms() + self._lease_ms

    def open_session(self, worker: str, lanes: Sequence[str], fingerprint: str) -> Session:
        """See `Store.open_session`."""
        with self._writing() as tables:
            self._bury_the_dead(tables)
            number = len(self._world.sessions) + 1
            opened = Registration(number, 1, fingerprint, self._expires_ms())
            self._world.sessions[number] = opened
            self._opened.add(number)
            for shard in range(self.shards):
                self._world.owners.setdefault(shard, number)
            return Session(number, 1, worker, fingerprint, tuple(lanes))

    def _bury_the_dead(self, tables: MemoryTables) -> None:
        """Fence sessions whose lease has expired, and count their executions' recoveries."""
        now, world = self.now_ms(), self._world
        for each in world.sessions.values():
            if not each.open or each.expires_at_ms > now:
                continue
            each.open = False
            each.epoch += 1
            freed = self._free_shards(each.session)
            self._count_recoveries(tables, freed, now)

    def _count_recoveries(self, tables: MemoryTables, freed: set[int], now_ms: int) -> None:
        rows = [row for key, row in self._world.rows.items() if key.shard in freed]
        at_work = [row for row in rows if row.position and _may_run(row, now_ms)]
        for row in [each for each in at_work if tables.ran_alone(each)] or at_work:
            tables.change(row, recoveries=row.recoveries + 1)

    def _free_shards(self, session: int) -> set[int]:
        owners = self._world.owners
        freed = {shard for shard, owner in owners.items() if owner == session}
        for shard in freed:
            del owners[shard]
        return freed

    def renew(self, session: Session) -> Lease:
        """See `Store.renew`. Gives up what is another's fair share, and takes what is free and this one's."""
        with self._writing(session) as tables:
            world = self._world
            world.sessions[session.session].expires_at_ms = self._expires_ms()
            self._bury_the_dead(tables)
            live = [each.session for each in world.sessions.values() if each.open]
            for shard in range(self.shards):
                fair = live[shard % len(live)]
                if fair != session.session and world.owners.get(shard) == session.session:
                    del world.owners[shard]
                elif fair == session.session:
                    world.owners.setdefault(shard, fair)
            owned = frozenset(shard for shard, owner in world.owners.items() if owner == session.session)
        return Lease(owned, self._lease_ms)

    def close_session(self, session: Session) -> None:
        """See `Store.close_session`."""
        with self._writing():
            found = self._world.sessions.get(session.session)
            if found is None or found.epoch != session.epoch:
                return
            found.open = False
            found.epoch += 1
            self._free_shards(session.session)

    # --- writing ---

    def deliver(self, session: Session, limit: int) -> list[Key]:
        """See `Store.deliver`."""
        with self._writing(session) as tables:
            router = Router(tables, direct=True)
            left = limit
            for address in sorted(pair for pair, queue in self._world.outbox.items() if queue and tables.owns(pair[0])):
                while left and self._world.outbox[address]:
                    parcel, body = tables.dequeue(address)
                    router.hand_over(parcel._replace(event=unseal(body, f"message {parcel.message_id}")))
                    left -= 1
            return router.woken

    # --- blobs ---

    def blob(self, key: Key, address: bytes) -> bytes | None:
        """See `Store.blob`."""
        with self._reading() as world:
            found = world.blobs.get((key, address))
            return None if found is None else found.data

    def collect(
        self, namespace: str, before_ms: int, after: tuple[int, int] | None, limit: int, *, runs: bool = False
    ) -> Collected:
        """See `Store.collect`. Here `limit` counts executions, or runs."""
        with self._writing() as tables:
            sweep = self._sweep_runs if runs else self._sweep
            return sweep(tables, namespace, before_ms, after, limit, remove=True)

    def collectable(
        self, namespace: str, before_ms: int, after: tuple[int, int] | None, limit: int, *, runs: bool = False
    ) -> Collected:
        """See `Store.collectable`."""
        with self._reading() as world:
            tables = MemoryRuns(world, 0, self.now_ms)
            sweep = self._sweep_runs if runs else self._sweep
            return sweep(tables, namespace, before_ms, after, limit, remove=False)

    def _sweep_runs(
        self,
        tables: MemoryRuns,
        namespace: str,
        before_ms: int,
        after: tuple[int, int] | None,
        limit: int,
        *,
        remove: bool,
    ) -> Collected:
        page = tables.past_runs(namespace, before_ms, after, limit)
        place = tables.ending(page[-1][1]) if page else after
        free = [(key, run) for key, run in page if not tables.is_run_needed(key, run)]
        for key, run in free if remove else ():
            tables.remove_run(key, run)
        return Collected(0, sum(run.events for _, run in free), place, more=len(page) == limit, runs=len(free))

    def _sweep(
        self,
        tables: MemoryRuns,
        namespace: str,
        before_ms: int,
        after: tuple[int, int] | None,
        limit: int,
        *,
        remove: bool,
    ) -> Collected:
        page = tables.expired(namespace, before_ms, after, limit)
        place = tables.closing(page[-1]) if page else after
        free = [row for row in page if not tables.is_needed(row)]
        events = sum(tables.events_of(row) for row in free)
        for row in free if remove else ():
            tables.remove(row)
        if remove:
            tables.remove_strays(namespace, before_ms)
        return Collected(len(free), events, place, more=len(page) == limit)

    # --- reading ---

    def load(self, key: Key, run: str, position: int, limit: int) -> list[Recorded]:
        """See `Store.load`."""
        with self._reading() as world:
            found = [(row.n, row.events) for row in self._runs(key) if row.run == run]
            if not found:
                return []
            number, end = found[0]
            rows = world.journals[number][position : position + limit]
            if len(rows) < limit and position <= end != position + len(rows):
                raise CorruptJournal(detail=f"execution {key.execution!r} has {end} events by its row")
            return journal(rows, position, key, self._fingerprint)

    def _runs(self, key: Key) -> list[RunRow]:
        world, row = self._world, self._world.rows.get(key)
        if row is None:
            return []
        began_at_ms, origin = world.began.get(key, (row.created_at_ms, ""))
        current = (world.numbers[key], row.run, row.workflow, row.status, row.position, began_at_ms, row.closed_at_ms)
        return [RunRow(*current, origin), *reversed(world.past.get(key, ()))]

    def runs(self, key: Key, before: int | None, limit: int) -> list[RunRow]:
        """See `Store.runs`."""
        with self._reading():
            return [row for row in self._runs(key) if before is None or row.n < before][:limit]

    def _fingerprint(self, session: int) -> str:
        return "" if not session else self._world.sessions[session].fingerprint

    def inbox(self, key: Key, limit: int) -> list[Letter]:
        """See `Store.inbox`."""
        with self._reading() as world:
            waiting = world.inboxes[world.numbers[key]] if key in world.rows else []
            return [letter((each.arrival, each.message_id, *each.body)) for each in waiting[:limit]]

    def requests(self, key: Key, limit: int) -> list[Letter]:
        """See `Store.requests`."""
        with self._reading() as world:
            waiting = world.inboxes[world.numbers[key]] if key in world.rows else []
            found = [each for each in waiting if each.request][:limit]
            return readable((each.arrival, each.message_id, *each.body) for each in found)

    def ready(self, session: Session, now_ms: int, after: Key | None, limit: int) -> list[Row]:
        """See `Store.ready`."""

        def wanted(row: Row) -> bool:
            mine = world.owners.get(row.key.shard) == session.session and row.lane in session.lanes
            return mine and _may_run(row, now_ms)

        with self._reading() as world:
            found = [row for key, row in world.rows.items() if (after is None or key > after) and wanted(row)]
            return sorted(found, key=lambda row: row.key)[:limit]

    def next_wake_ms(self, session: Session, after_ms: int) -> int | None:
        """See `Store.next_wake_ms`."""
        with self._reading() as world:
            mine = [row for key, row in world.rows.items() if world.owners.get(key.shard) == session.session]
            wakes = [row.wake_at_ms for row in mine if row.status == "parked" and row.wake_at_ms is not None]
            return min((at_ms for at_ms in wakes if at_ms > after_ms), default=None)

    def row(self, key: Key) -> Row | None:
        """See `Store.row`."""
        with self._reading() as world:
            return world.rows.get(key)

    def find(self, wanted: Filter, after: tuple[int, str] | None, limit: int) -> list[Row]:
        """See `Store.find`."""
        with self._reading() as world:
            found = [
                row
                for key, row in world.rows.items()
                if (after is None or (row.created_at_ms, key.execution) < after)
                and matches(wanted, row, world.attributes.get(key, {}))
            ]
            return newest(found, limit)

    def running(self, key: Key) -> list[Running]:
        """See `Store.running`."""
        with self._reading() as world:
            steps = world.running[world.numbers[key]] if key in world.rows else {}
            return [msgspec.msgpack.decode(steps[seq], type=Running) for seq in sorted(steps)]

    def attributes(self, key: Key) -> dict[str, Attribute]:
        """See `Store.attributes`."""
        with self._reading() as world:
            return dict(sorted(world.attributes.get(key, {}).items()))

    def dead_letters(self, key: Key, limit: int) -> list[Letter]:
        """See `Store.dead_letters`."""
        with self._reading() as world:
            return [letter((each.arrival, each.message_id, *each.body)) for each in world.dead.get(key, [])[:limit]]

    def update(self, key: Key, update_id: str) -> UpdateRow | None:
        """See `Store.update`."""
        with self._reading() as world:
            return MemoryTables(world, 0, self.now_ms).update(key, update_id)

    def unresolved(
        self, namespace: str, execution: str, after: UnresolvedRow | None, limit: int
    ) -> list[UnresolvedRow]:
        """See `Store.unresolved`."""
        least = None if after is None else (after.key, after.run, after.seq)
        with self._reading() as world:
            names = sorted(name for name in world.unresolved if least is None or name > least)
            wanted = [name for name in names if name[0].namespace == namespace]
            return [world.unresolved[name] for name in wanted if execution in ("", name[0].execution)][:limit]

    def asks(
        self, namespace: str, execution: str, to: str, now_ms: int, after: AskRow | None, limit: int
    ) -> list[AskRow]:
        """See `Store.asks`."""
        least = None if after is None else (after.key, after.run, after.seq)
        with self._reading() as world:
            rows = [world.asks[name] for name in sorted(world.asks) if least is None or name > least]
        rows = [each for each in rows if not now_ms or each.is_open(now_ms)]
        return [each for each in rows if _is_of(each, namespace, execution, to, now_ms)][:limit]

    def tail(self, shard: int, after: int, limit: int) -> list[tuple[int, Key, str, Recorded]]:
        """See `Store.tail`."""
        with self._reading() as world:
            found = [(pos, each) for pos, each in enumerate(world.feeds[shard][after:], after + 1) if each is not None][
                :limit
            ]
            return [(pos, key, run, recorded(row, self._fingerprint(row[2]))) for pos, (key, run, row) in found]

    def changes(self) -> int:
        """See `Store.changes`."""
        with self._reading():
            return self._shared.writes - self._own_writes

    def close(self) -> None:
        """See `Store.close`. Sessions opened through this connection that are still open end as if they had died."""
        with self._shared.lock:
            self._closed = True
            for number in self._opened:
                self._world.sessions[number].expires_at_ms = self.now_ms()


def _may_run(row: Row, now_ms: int) -> bool:
    due = row.status == "parked" and row.wake_at_ms is not None and row.wake_at_ms <= now_ms
    return row.status == "active" or due


def _is_of(ask: AskRow, namespace: str, execution: str, to: str, now_ms: int) -> bool:
    if ask.key.namespace != namespace or execution not in ("", ask.key.execution):
        return False
    return to in ("", ask.asked_of(now_ms))


class _Shared:
    """What the connections of one store share besides the data."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.writes = 0
