"""The store of one machine: a SQLite file in WAL mode, through apsw, owned by one engine at a time.

One connection writes under a lock; another reads and never waits for a commit. Ownership is a lock on a side file
(`ownership.py`); the fence row in the file makes sure that whoever lost it records nothing any more.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import apsw
import msgspec

from perdure.core.errors import (
    CorruptJournal,
    InvalidOption,
    OwnershipLost,
    StoreError,
)
from perdure.core.identity import DEFAULT_SHARDS, ExecutionId, Key, Namespace
from perdure.store import faults, ownership, schema
from perdure.store.clock import system_clock_ms
from perdure.store.protocol import (
    Advice,
    AskRow,
    Batch,
    Collected,
    Committed,
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
from perdure.store.queries import SQL
from perdure.store.records import (
    ask_of,
    attributes_from,
    journal,
    letter,
    readable,
    recorded,
    row_of,
    running_of,
    unresolved_of,
    unseal,
    update_of,
)
from perdure.store.routing import RoutedStore, Router
from perdure.store.rules import Parcel, newest
from perdure.store.sqlite_collecting import RunSweep, Sweep
from perdure.store.sqlite_listing import CROWD, crowd, statements
from perdure.store.sqlite_runs import SqliteRuns
from perdure.store.sqlite_tables import Overtaken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perdure.core.events import Attribute, Recorded
    from perdure.store.ownership import Owner, Ownership
    from perdure.store.records import EventRow
    from perdure.store.schema import Durability

_BEFORE_ALL: Final = (-1, "", "")  # sorts before every key
_AFTER_ALL: Final = 2**63 - 1
_MOST_SHARDS: Final = 65_536
_CHECK_FILES_S: Final = 0.1  # between two looks at whether the files are still those that were opened


class SqliteStore(RoutedStore):
    """A store in one file; made and migrated when it is opened.

    Args:
        path: the file. Beside it: `-wal` and `-shm` of SQLite, and `-owner`, which tells who runs an engine on it.
        durability: "full": what is acknowledged survives a power cut. "process": only a crash of the process.
        create: make the file if it is missing.
        shards: number of slices, fixed when the file is made.
        direct: deliver mail in the sender's transaction where that keeps the order; False is for tests.
        busy_ms: how long another program's transaction on the file is waited for.
        allow_network: skip the check for network file systems.
        vfs: a registered apsw VFS, for fault injection.
        clock: milliseconds since 1970, UTC.

    Raises:
        StoreNotOpened, StoreMissing, StoreReadOnly, StoreLocked, StoreCorrupt, SchemaFromTheFuture, NetworkFileSystem.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "full",
        create: bool = True,
        shards: int = DEFAULT_SHARDS,
        direct: bool = True,
        busy_ms: int = 5_000,
        allow_network: bool = False,
        vfs: str | None = None,
        clock: Callable[[], int] = system_clock_ms,
    ) -> None:
        self.path = os.path.abspath(path)  # noqa: PTH100 - a string is wanted
        _check_options(str(path), durability, shards)
        faults.check_place(self.path, create=create)
        self._direct = direct
        self.now_ms = clock
        if not allow_network:
            faults.refuse_network(self.path)
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()
        self._closed = False
        self._ownership: Ownership | None = None
        self._fingerprints: dict[int, str] = {}
        try:
            self._writer = schema.connect(self.path, durability=durability, busy_ms=busy_ms, create=create, vfs=vfs)
            schema.migrate(
                self._writer, self.path, shards=shards, store_id=uuid.uuid4().hex, created_at_ms=self.now_ms()
            )
            self._reader = schema.connect(self.path, durability=durability, busy_ms=busy_ms, create=False, vfs=vfs)
            meta = schema.read_meta(self._reader, self.path)
        except apsw.Error as error:
            self._close_connections()
            raise faults.refused(error, self.path) from error
        except BaseException:
            self._close_connections()
            raise
        self.shards = int(meta["shards"])
        self._tables = SqliteRuns(self._writer, self.now_ms)
        self._file = faults.Identity(self.path)
        self._log = faults.Identity(f"{os.path.realpath(self.path)}-wal")  # SQLite puts it beside the file, not a link
        self._files_checked_at = 0.0
        self._data_version = self._ask_data_version()

    # --- transactions ---

    @contextmanager
    def _writing(self, session: Session | None = None) -> Iterator[SqliteRuns]:
        """One durable transaction, with the session's fence checked in it."""
        with self._write_lock, self._faults():
            tables = self._tables
            try:
                self._check_files()
                tables.begin(0 if session is None else session.session)
                if session is not None:
                    self._check_fence(self._writer, session)
                yield tables
                tables.commit()
            except BaseException:
                with suppress(apsw.Error):
                    tables.rollback()
                raise
            if self._ownership is None:
                tables.forget()

    @contextmanager
    def _reading(self) -> Iterator[apsw.Cursor]:
        """One snapshot."""
        with self._read_lock, self._faults():
            cursor = self._reader.cursor()
            cursor.execute(SQL["begin_read"])
            try:
                yield cursor
            finally:
                with suppress(apsw.Error):
                    cursor.close(True)  # noqa: FBT003 - apsw's own signature
                    self._reader.execute(SQL["rollback"])

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as error:
            if not self._closed:
                self._file.check()
            raise faults.translate(error, self.path) from error

    def _check_files(self) -> None:
        now = time.monotonic()
        if now - self._files_checked_at >= _CHECK_FILES_S:
            self._file.check()
            self._log.check()
            self._files_checked_at = now

    def _check_fence(self, connection: apsw.Connection, session: Session) -> None:
        if connection.execute(SQL["fence"], (session.session, session.epoch)).fetchone() is None:
            raise OwnershipLost(path=self.path, detail=f"session {session.session} was taken over or closed")

    # --- sessions ---

    def owner(self) -> Owner | None:
        """Who runs an engine on this file now; None if nobody does."""
        return ownership.owner_of(ownership.side_file(self.path))

    def announce(self, address: str) -> None:
        """Tell clients where this store's engine listens: they find it in `owner().address`."""
        if self._ownership is None:
            raise OwnershipLost(path=self.path, detail="no session is open")
        try:
            self._ownership.announce(address)
        except OSError as error:
            raise StoreError(path=self._ownership.path, detail=str(error)) from error

    def open_session(self, worker: str, lanes: Sequence[str], fingerprint: str) -> Session:
        """See `Store.open_session`."""
        held = ownership.acquire(ownership.side_file(self.path), store=self.path)
        try:
            self._ownership = held
            with self._writing() as tables:
                tables.forget()
                session = self._register(worker, lanes, fingerprint)
        except BaseException:
            self._ownership = None
            held.release()
            raise
        return session

    def _register(self, worker: str, lanes: Sequence[str], fingerprint: str) -> Session:
        execute, now = self._writer.execute, self.now_ms()
        for (dead,) in execute(SQL["dead_sessions"]).fetchall():
            execute(SQL["fence_off"], (dead,))
            execute(SQL["end_session"], (now, 0, dead))
            execute(SQL["count_recoveries"], (dead, now))
            execute(SQL["free_shards"], (dead,))
        lanes_json = msgspec.json.encode(list(lanes)).decode()
        execute(SQL["put_session"], (worker, fingerprint, lanes_json, now))
        number = self._writer.last_insert_rowid()
        execute(SQL["put_fence"], (number,))
        execute(SQL["own_shards"], (number,))
        return Session(number, 1, worker, fingerprint, tuple(lanes))

    def renew(self, session: Session) -> Lease:
        """See `Store.renew`. Nothing expires here: it makes sure that the files are still the ones that were opened."""
        held = self._ownership
        if held is None:
            raise OwnershipLost(path=self.path, detail="no session is open")
        self._file.check()
        self._log.check()
        try:
            held.identity.check()
        except StoreError as error:
            raise OwnershipLost(path=self.path, detail=f"its lock file {held.path} was deleted or replaced") from error
        with self._reading():
            self._check_fence(self._reader, session)
        return Lease(frozenset(range(self.shards)))

    def close_session(self, session: Session) -> None:
        """See `Store.close_session`."""
        held = self._ownership
        if held is None:
            return
        with self._writing() as tables:
            try:
                self._check_fence(self._writer, session)
            except OwnershipLost:
                return
            for query, bindings in (
                ("fence_off", (session.session,)),
                ("end_session", (self.now_ms(), 1, session.session)),
                ("free_shards", (session.session,)),
            ):
                self._writer.execute(SQL[query], bindings)
            tables.forget()
        self._ownership = None
        held.release()

    def ended_cleanly(self, session: int) -> bool | None:
        """Whether a session said goodbye; False: it was found dead; None: it is open, or unknown. For people."""
        found = self._all("session_ended", (session,))
        return bool(found[0][0]) if found else None

    # --- writing ---

    def commit(self, session: Session, batches: Sequence[Batch], advice: Sequence[Advice] = ()) -> Committed:
        """See `Store.commit`."""
        try:
            return super().commit(session, batches, advice)
        except Overtaken:  # a batch lost its race: again, one by one, to leave just that one out
            self._tables.gathering = False
            try:
                return super().commit(session, batches, advice)
            finally:
                self._tables.gathering = True

    def deliver(self, session: Session, limit: int) -> list[Key]:
        """See `Store.deliver`."""
        with self._writing(session) as tables:
            router = Router(tables, direct=True)
            rows: list[Any] = self._writer.execute(SQL["outbox"], (limit,)).fetchall()
            for row in rows:
                run, message_id, seq, digest, *body = row[8:]
                event = unseal(body, f"message {message_id}")
                router.hand_over(Parcel(_key(row), row[3], _key(row[4:]), run, message_id, seq, digest, event))
                self._writer.execute(SQL["dequeue"], row[:8])
            return router.woken

    def collect(
        self, namespace: str, before_ms: int, after: tuple[int, int] | None, limit: int, *, runs: bool = False
    ) -> Collected:
        """See `Store.collect`."""
        with self._writing():
            sweep = RunSweep if runs else Sweep
            return sweep(self._writer.execute, self.shards).bite(namespace, before_ms, after, limit)

    def collectable(
        self, namespace: str, before_ms: int, after: tuple[int, int] | None, limit: int, *, runs: bool = False
    ) -> Collected:
        """See `Store.collectable`."""
        with self._reading() as cursor:
            sweep = RunSweep if runs else Sweep
            return sweep(cursor.execute, self.shards).look(namespace, before_ms, after, limit)

    # --- reading ---

    def load(self, key: Key, run: str, position: int, limit: int) -> list[Recorded]:
        """See `Store.load`."""
        with self._reading() as cursor:
            found = cursor.execute(SQL["journal"], (*key, run)).fetchone()
            if found is None:
                return []
            number, end = found
            if not isinstance(end, int):
                raise CorruptJournal(detail=f"the row of execution {key.execution!r} says no number of events")
            rows: list[Any] = cursor.execute(SQL["load"], (number, position, limit)).fetchall()
            events = journal(rows, position, key, self._fingerprint)
        if len(rows) < limit and position <= end != position + len(rows):
            detail = f"execution {key.execution!r} has {end} events by its row, {position + len(rows)} in its journal"
            raise CorruptJournal(detail=detail)
        return events

    def _fingerprint(self, session: int) -> str:
        """Of the code behind a session; 0 is no worker's, but a fork's. The caller reads."""
        if not session:
            return ""
        known = self._fingerprints.get(session)
        if known is None:
            found: Any = self._reader.execute(SQL["fingerprint"], (session,)).fetchone()
            if found is None:
                raise CorruptJournal(detail=f"an event names session {session}, which does not exist")
            known = self._fingerprints[session] = found[0]
        return known

    def inbox(self, key: Key, limit: int) -> list[Letter]:
        """See `Store.inbox`."""
        return [letter(row) for row in self._all("inbox", (*key, limit))]

    def requests(self, key: Key, limit: int) -> list[Letter]:
        """See `Store.requests`."""
        return readable(self._all("requests", (*key, limit)))

    def ready(self, session: Session, now_ms: int, after: Key | None, limit: int) -> list[Row]:
        """See `Store.ready`."""
        start, lanes = after or _BEFORE_ALL, msgspec.json.encode(session.lanes).decode()
        with self._reading() as cursor:
            found: list[Any] = cursor.execute(SQL["active"], (*start, lanes, limit)).fetchall()
            found += cursor.execute(SQL["due"], (*start, lanes, now_ms, session.session, limit)).fetchall()
        return [row_of(columns) for columns in sorted(found)[:limit]]

    def next_wake_ms(self, session: Session, after_ms: int) -> int | None:
        """See `Store.next_wake_ms`."""
        [(found,)] = self._all("next_wake", (session.session, after_ms))
        return None if found is None else int(found)

    def row(self, key: Key) -> Row | None:
        """See `Store.row`."""
        found = self._all("row", key)
        return row_of(found[0]) if found else None

    def runs(self, key: Key, before: int | None, limit: int) -> list[RunRow]:
        """See `Store.runs`."""
        found = self._all("runs", (*key, _AFTER_ALL if before is None else before, limit))
        return [RunRow(*columns) for columns in found]

    def find(self, wanted: Filter, after: tuple[int, str] | None, limit: int) -> list[Row]:
        """See `Store.find`."""
        found: list[Any] = []
        with self._reading() as cursor:
            crowded = bool(wanted.prefix) and cursor.execute(*crowd(wanted)).fetchone() == (CROWD,)
            for statement, bindings in statements(wanted, after, limit, crowded=crowded):
                found += cursor.execute(statement, bindings).fetchall()
        return newest([row_of(columns) for columns in found], limit)

    def statuses(self, namespace: str) -> dict[str, int]:
        """How many executions there are, by status. For people: it reads an index of all of them."""
        return dict(self._all("open_statuses", (namespace,)) + self._all("closed_statuses", (namespace,)))

    def running(self, key: Key) -> list[Running]:
        """See `Store.running`."""
        return [running_of(key, columns) for columns in self._all("running", key)]

    def attributes(self, key: Key) -> dict[str, Attribute]:
        """See `Store.attributes`."""
        return attributes_from(self._all("attributes", key))

    def dead_letters(self, key: Key, limit: int) -> list[Letter]:
        """See `Store.dead_letters`."""
        return [letter(row) for row in self._all("dead_letters", (*key, limit))]

    def update(self, key: Key, update_id: str) -> UpdateRow | None:
        """See `Store.update`."""
        found = self._all("update", (*key, update_id))
        return update_of(update_id, found[0]) if found else None

    def unresolved(
        self, namespace: str, execution: str, after: UnresolvedRow | None, limit: int
    ) -> list[UnresolvedRow]:
        """See `Store.unresolved`."""
        least = (-1, "", "", "", 0) if after is None else (*after.key, after.run, after.seq)
        return [unresolved_of(row) for row in self._all("unresolved", (*least, namespace, execution, limit))]

    def asks(
        self, namespace: str, execution: str, to: str, now_ms: int, after: AskRow | None, limit: int
    ) -> list[AskRow]:
        """See `Store.asks`."""
        least = (-1, "", "", "", 0) if after is None else (*after.key, after.run, after.seq)
        query = "asks_of" if to else "asks"
        return [ask_of(row) for row in self._all(query, (*least, namespace, execution, to, now_ms, limit))]

    def blob(self, key: Key, address: bytes) -> bytes | None:
        """See `Store.blob`."""
        found = self._all("blob", (*key, address))
        return found[0][0] if found else None

    def tail(self, shard: int, after: int, limit: int) -> list[tuple[int, Key, str, Recorded]]:
        """See `Store.tail`. `shard_pos` counts all shards of the file, so that it has gaps within one."""
        with self._reading() as cursor:
            rows: list[Any] = cursor.execute(SQL["tail"], (after, shard, limit)).fetchall()
            return [(row[0], _key((shard, *row[1:])), row[3], self._recorded(row[4:])) for row in rows]

    def _recorded(self, row: EventRow) -> Recorded:
        return recorded(row, self._fingerprint(row[2]))

    def _all(self, query: str, bindings: tuple[Any, ...]) -> list[Any]:
        with self._read_lock, self._faults():
            return self._reader.execute(SQL[query], bindings).fetchall()

    def changes(self) -> int:
        """See `Store.changes`. While a commit runs, the answer is the last one known: the next call sees the rest."""
        if self._write_lock.acquire(blocking=False):
            try:
                with self._faults():
                    self._data_version = self._ask_data_version()
            finally:
                self._write_lock.release()
        return self._data_version

    def _ask_data_version(self) -> int:
        found: Any = self._writer.execute(SQL["data_version"]).fetchall()
        return int(found[0][0])

    # --- the end ---

    def close(self) -> None:
        """See `Store.close`. A session that is still open ends as if its process had died."""
        self._closed = True
        with self._write_lock, self._read_lock:
            self._close_connections()
            if self._ownership is not None:
                self._ownership.release()
                self._ownership = None

    def _close_connections(self) -> None:
        for name in ("_reader", "_writer"):
            connection: apsw.Connection | None = getattr(self, name, None)
            if connection is not None:
                with suppress(apsw.Error):
                    connection.close(True)  # noqa: FBT003 - apsw's own signature


def _key(columns: Sequence[Any]) -> Key:
    shard, namespace, execution = columns[:3]
    return Key(shard, Namespace(namespace), ExecutionId(execution))


def _check_options(path: str, durability: str, shards: int) -> None:
    if path in ("", ":memory:"):
        raise InvalidOption(option="store", value=repr(path), expected="a file's path")
    if durability not in ("full", "process"):
        raise InvalidOption(option="durability", value=repr(durability), expected='"full" or "process"')
    if not 1 <= shards <= _MOST_SHARDS:
        raise InvalidOption(option="shards", value=repr(shards), expected="1 to 65,536")
