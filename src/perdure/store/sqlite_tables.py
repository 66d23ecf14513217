"""`routing.Tables` over one SQLite connection, inside a transaction that its owner begins and ends.

Events of a transaction are gathered and inserted at once by `flush`. What is cached here (numbers of runs, the last
`shard_pos`) is true only while this session owns the file; `forget` drops it after a rollback.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import apsw

from perdure.core.errors import StoreError
from perdure.core.identity import storable
from perdure.store.queries import SQL, repeated
from perdure.store.records import attribute_rows, failure_bytes, header, progress_bytes, row_of, seal, update_of
from perdure.store.rules import (
    ANSWERS,
    REJECTIONS,
    Parcel,
    Receiver,
    asks,
    begins_as,
    begins_instead,
    child_of,
    close_letter,
    is_open,
    parent_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from perdure.core import events as ev
    from perdure.core.identity import Key
    from perdure.store.protocol import (
        AskRow,
        Batch,
        Blob,
        Letter,
        NewEvent,
        Park,
        Row,
        Running,
        Start,
        UnresolvedRow,
        UpdateRow,
    )

_CHUNKS = (128, 32, 8, 1)  # rows a statement; few sizes, so that their prepared statements are kept
_MOST_NUMBERS = 20_000
_PARK = {"parked": "park", "paused": "pause", "stalled": "stall"}
ALL = -1  # LIMIT without a limit


def _chunks(rows: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    """All rows, in slices of the sizes of `_CHUNKS`."""
    start = 0
    for size in _CHUNKS:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


class Overtaken(Exception):
    """Something did not match what was gathered or cached: the transaction is done again, batch by batch."""


class SqliteTables:
    """The tables of one file; not thread-safe: the store's write lock guards it."""

    def __init__(self, connection: apsw.Connection, now_ms: Callable[[], int]) -> None:
        self._connection = connection
        self._now_ms = now_ms
        self._execute = connection.cursor().execute
        self._executemany = connection.cursor().executemany
        self._numbers: dict[tuple[Key, str], int] = {}
        self._last_pos: int | None = None
        self._events: list[tuple[Any, ...]] = []
        self._advances: dict[int, tuple[int, int, int]] = {}
        self.gathering = True  # compare-and-append set-based; off when a batch did not match, to find out which
        self._outbox_used = True
        self._running_used = True
        self._updates_used = True
        self._received_used = True
        self.session = 0

    # --- one transaction ---

    def begin(self, session: int = 0) -> None:
        """Start a transaction for a session; 0 is for writers from outside, who append no events."""
        if self._connection.in_transaction:
            self.rollback()  # the last one's rollback failed
        self._execute(SQL["begin"])
        self.session = session
        if session and self._outbox_used:  # once empty, it stays so until this session fills it
            self._outbox_used = bool(self._one(SQL["outbox_used"]))
        if session and self._running_used:
            self._running_used = bool(self._one(SQL["running_used"]))
        if session and self._updates_used:
            self._updates_used = bool(self._one(SQL["updates_used"]))
        if session and self._received_used:
            self._received_used = bool(self._one(SQL["received_used"]))

    def flush(self) -> None:
        """Write what was gathered. Raises `Overtaken` if a batch's position did not match."""
        self._advance_gathered()
        events, self._events = self._events, []
        for chunk in _chunks(events):
            try:
                self._execute(repeated("append_event", len(chunk)), [*chain.from_iterable(chunk)])
            except apsw.ConstraintError:
                if not self.gathering:
                    raise
                raise Overtaken from None  # another process has written events: those of a fork, of a rewind

    def _advance_gathered(self) -> None:
        if not self._advances:
            return
        advances, self._advances = [*self._advances.values()], {}
        for chunk in _chunks(advances):
            if len(chunk) == 1:
                self._advance_one(chunk[0])
                continue
            bindings = [*chain.from_iterable(chunk)]
            self._execute(repeated("advance_many", len(chunk)), bindings)
            moved = self._connection.changes()
            if moved < len(chunk):
                self._execute(repeated("advance_idle_many", len(chunk)), bindings)
                moved += self._connection.changes()
            if moved != len(chunk):
                raise Overtaken

    def _advance_one(self, bindings: tuple[int, int, int]) -> None:
        for query in (SQL["advance"], SQL["advance_idle"]):
            self._execute(query, bindings)
            if self._connection.changes() == 1:
                return
        raise Overtaken

    def commit(self) -> None:
        """Make all of it durable."""
        self.flush()
        self._execute(SQL["commit"])

    def rollback(self) -> None:
        """Undo all of it, whatever state the transaction is in."""
        self.forget()
        if self._connection.in_transaction:
            self._execute(SQL["rollback"])

    def forget(self) -> None:
        """Drop what was cached and gathered."""
        self._events = []
        self._advances = {}
        self._numbers.clear()
        self._last_pos = None
        self._outbox_used = self._running_used = self._updates_used = self._received_used = True

    def _one(self, query: str, bindings: tuple[Any, ...] = ()) -> Any:
        row = self._execute(query, bindings).fetchone()
        return None if row is None else row[0]

    def _number(self, key: Key, run: str) -> int | None:
        """The short name of an execution's current run; None if it is not current."""
        number = self._numbers.get((key, run))
        if number is None:
            number = self._one(SQL["number"], (*key, run))
            if number is not None:
                if len(self._numbers) >= _MOST_NUMBERS:
                    self._numbers.clear()
                self._numbers[key, run] = number
        return number

    # --- executions and their journals ---

    def find(self, key: Key) -> Receiver | None:
        found: Any = self._execute(SQL["receiver"], key).fetchone()
        if found is None:
            return None
        if found[0] in self._advances and found[2] != "active":
            self._advance_gathered()  # its batch makes it active
            found = self._execute(SQL["receiver"], key).fetchone()
        return Receiver(key, *found)

    def row(self, key: Key) -> Row | None:
        found = self._execute(SQL["row"], key).fetchone()
        return None if found is None else row_of(found)

    def owns(self, key: Key) -> bool:  # noqa: ARG002 - one session owns all of the file
        return bool(self.session)

    def insert(self, start: Start, position: int) -> bool:
        self._execute(SQL["put_execution"], (*start.key, *self._columns(start, position)))
        if self._connection.changes() != 1:
            return False
        if start.event.attributes:
            self._put_attributes(self._connection.last_insert_rowid(), start.event.attributes)
        return True

    def _columns(self, start: Start, position: int) -> tuple[Any, ...]:
        event, now_ms = start.event, self._now_ms()
        begins = (*begins_as(start, position, now_ms), position)
        return (event.run, event.lane, event.workflow, *begins, start.digest, now_ms, child_of(start), parent_of(start))

    def has_run(self, key: Key, run: str) -> bool:
        return self._one(SQL["has_run"], (*key, run)) is not None

    def set_attributes(self, key: Key, run: str, attributes: Mapping[str, ev.Attribute]) -> None:
        number = self._number(key, run)
        assert number is not None
        self._execute(SQL["drop_attributes"], (number,))
        self._put_attributes(number, attributes)

    def _put_attributes(self, number: int, attributes: Mapping[str, ev.Attribute]) -> None:
        self._executemany(SQL["put_attribute"], [(number, *row) for row in attribute_rows(attributes)])

    def holds(self, batch: Batch) -> bool:
        self._advance_gathered()
        return self._one(SQL["at_position"], (self._number(batch.key, batch.run), batch.expected)) is not None

    def advance(self, batch: Batch) -> bool:
        number = self._number(batch.key, batch.run)
        if number is None:
            return False
        after = batch.expected + len(batch.events)
        if batch.closes is not None:
            self._advance_gathered()
            closed_at_ms = batch.events[-1].at_ms if batch.events else None
            self._execute(SQL["advance_closing"], (after, batch.closes, closed_at_ms, number, batch.expected))
            return self._connection.changes() == 1
        if number in self._advances:
            self._advance_gathered()  # a second batch of one execution builds on the first
        self._advances[number] = (after, number, batch.expected)
        if not self.gathering:
            try:
                self._advance_gathered()
            except Overtaken:
                return False
        return True

    def append(self, batch: Batch) -> None:
        number = self._number(batch.key, batch.run)
        assert number is not None
        self._append(number, batch.key.shard, batch.events, batch.expected)

    def _append(self, number: int, shard: int, events: Sequence[NewEvent], expected: int) -> None:
        session, pos = self.session, self._next_pos() - 1
        for position, new in enumerate(events, expected):
            pos += 1
            version, at_ms, trace, usage, check, body = header(new, position)
            self._events.append((pos, number, position, shard, version, at_ms, session, trace, usage, check, body))
        self._last_pos = pos

    def _next_pos(self) -> int:
        if self._last_pos is None:
            self._last_pos = self._one(SQL["last_shard_pos"])
        assert self._last_pos is not None
        return self._last_pos + 1

    def park(self, park: Park) -> None:
        self._advance_gathered()
        number = self._number(park.key, park.run)
        query = SQL[_PARK[park.status]]
        columns = (park.wake_at_ms, storable(park.waits_for), storable(park.problem))
        self._execute(query, (*columns, number, park.position))

    def wake(self, receiver: Receiver) -> None:
        self._execute(SQL["wake"], (receiver.number,))

    def unstall(self, key: Key) -> None:
        self._execute(SQL["resume"], key)

    # --- letters ---

    def waiting(self, key: Key, run: str, limit: int) -> list[str]:
        found = self._execute(SQL["waiting"], (self._number(key, run), limit))
        return [message_id for (message_id,) in found]

    def replacements(self, key: Key, run: str) -> list[str]:
        found: list[Any] = self._execute(SQL["waiting_requests"], (self._number(key, run),)).fetchall()
        return [message_id for message_id, *body in found if begins_instead(run, body)]

    def take(self, key: Key, run: str, letters: Iterable[Letter]) -> None:
        number = self._number(key, run)
        self._executemany(SQL["take_letter"], [(number, each.message_id) for each in letters])

    def clear(self, key: Key, run: str) -> None:
        number = self._number(key, run)
        left: list[Any] = self._execute(SQL["letters"], (number, ALL)).fetchall()
        for _, message_id, *body in left:
            if close_letter(self, key, run, body):
                self._execute(SQL["bury"], (*key, message_id, *body, None))
        if left:
            self._execute(SQL["empty_inbox"], (number,))
        if self._updates_used:
            self._execute(SQL["close_updates"], (*key, run))
        if self._running_used:
            self._execute(SQL["end_all_running"], (number,))

    def put(self, receiver: Receiver, message_id: str, event: ev.AnyEvent) -> None:
        self._execute(SQL["put_letter"], (receiver.number, message_id, *seal(event), asks(event, receiver)))

    def bury(self, key: Key, message_id: str, event: ev.AnyEvent) -> None:
        stray_at_ms = None if self.find(key) is not None else self._now_ms()
        self._execute(SQL["bury"], (*key, message_id, *seal(event), stray_at_ms))

    # --- updates and state ---

    def update(self, key: Key, update_id: str) -> UpdateRow | None:
        found: Any = self._execute(SQL["update"], (*key, update_id)).fetchone()
        return None if found is None else update_of(update_id, found)

    def put_update(self, key: Key, update: UpdateRow) -> None:
        self._updates_used = True
        position = update.position
        if update.status == "rejected":
            position = 1 + self._one(SQL["last_rejection"], key)
            self._execute(SQL["forget_rejections"], (*key, position - REJECTIONS))
        columns = (update.update_id, update.run, update.status, position, failure_bytes(update))
        self._execute(SQL["put_update"], (*key, *columns))

    def put_unresolved(self, row: UnresolvedRow) -> None:
        columns = (row.run, row.seq, row.attempt, row.intent, row.unknown, row.since_ms, row.message_id, row.refused)
        self._execute(SQL["put_unresolved"], (*row.key, *columns))

    def claim_unresolved(self, key: Key, answer: ev.ResolveRequested) -> bool:
        self._execute(SQL["claim_unresolved"], (answer.message_id, *key, answer.run, answer.seq, answer.attempt))
        return self._connection.changes() > 0

    def end_unresolved(self, key: Key, run: str, seq: int) -> None:
        self._execute(SQL["end_unresolved"], (*key, run, seq))

    def put_ask(self, row: AskRow) -> None:
        whom = (row.to, row.escalate_to, row.escalate_at_ms)
        times, answer = (row.asked_at_ms, row.expires_at_ms), (row.message_id, row.refused)
        self._execute(SQL["put_ask"], (*row.key, row.run, row.seq, row.position, *whom, *times, *answer))

    def claim_ask(self, key: Key, run: str, seq: int, message_id: str) -> bool:
        self._execute(SQL["claim_ask"], (message_id, *key, run, seq))
        return self._connection.changes() > 0

    def reopen_ask(self, key: Key, run: str, seq: int) -> None:
        self._execute(SQL["reopen_ask"], (*key, run, seq))

    def end_asks(self, key: Key, run: str, seqs: Iterable[int] | None = None) -> None:
        if seqs is None:
            self._execute(SQL["end_asks"], (*key, run))
        else:
            self._executemany(SQL["end_ask"], [(*key, run, seq) for seq in seqs])

    def publish(self, batch: Batch) -> None:
        self._execute(SQL["publish"], (batch.state_at, self._number(batch.key, batch.run)))

    # --- outbox ---

    def queued(self, parcel: Parcel) -> bool:
        if not self._outbox_used:
            return False
        return self._one(SQL["queued"], (*parcel.sender, parcel.sender_run, *parcel.receiver)) is not None

    def queue(self, parcel: Parcel) -> None:
        self._outbox_used = True
        sender, run, receiver, *columns, event = parcel
        self._execute(SQL["queue"], (*sender, run, *receiver, *columns, *seal(event)))

    # --- blobs ---

    def put_blob(self, blob: Blob) -> None:
        """Store a blob, or make one that is there fresh again."""
        number = self._one(SQL["put_blob"], (*blob.key, blob.address, self._now_ms()))
        self._execute(SQL["put_blob_data"], (number, blob.data))

    def keep(self, key: Key, addresses: Iterable[bytes]) -> None:
        for address in addresses:
            self._execute(SQL["keep_blob"], (*key, address))
            if not self._connection.changes():
                detail = f"a blob of execution {key.execution!r} is missing"
                raise StoreError(path=self._connection.filename, detail=detail)

    def collect_blobs(self, before_ms: int, limit: int) -> int:
        """Delete blobs without an owner, the oldest first; how many there were."""
        found = self._execute(SQL["loose_blobs"], (before_ms, limit)).fetchall()
        self._executemany(SQL["delete_blob_data"], found)
        self._executemany(SQL["delete_blob"], found)
        return len(found)

    # --- running steps ---

    def end_running(self, batch: Batch) -> None:
        if not self._running_used:
            return
        number = self._number(batch.key, batch.run)
        ended = [(number, new.event.seq) for new in batch.events if isinstance(new.event, ANSWERS)]
        if ended:
            self._executemany(SQL["end_running"], ended)

    def note_running(self, running: Running) -> None:
        found = self.find(running.key)
        if found is None or found.run != running.run or not is_open(found.status):
            return
        if not running.attempt:
            self._execute(SQL["end_running"], (found.number, running.seq))
            return
        self._running_used = True
        columns = (running.seq, running.name, running.attempt, running.started_at_ms, progress_bytes(running))
        self._execute(SQL["put_running"], (found.number, *columns))
