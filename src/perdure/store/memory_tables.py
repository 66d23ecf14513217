"""`routing.Tables` over dictionaries, with an undo list for what a failed transaction has done.

Everything of users is kept encoded, by the same functions as in a file, so that no object is shared by accident.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from perdure.core.errors import StoreError
from perdure.core.identity import storable
from perdure.store.protocol import (
    AskRow,
    Batch,
    Blob,
    Letter,
    NewEvent,
    Park,
    Row,
    Running,
    RunRow,
    Start,
    UnresolvedRow,
    UpdateRow,
)
from perdure.store.records import Body, EventRow, header, seal
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
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from perdure.core import events as ev
    from perdure.core.identity import Key


class Posted(NamedTuple):
    """A letter as it is kept."""

    arrival: int
    message_id: str
    body: Body
    request: bool = False  # whether it `asks`


class Queued(NamedTuple):
    """A parcel as it is kept."""

    parcel: Parcel  # its event is in the body, and None here
    body: Body


class Registration(msgspec.Struct):
    """A session as the store knows it."""

    session: int
    epoch: int
    fingerprint: str
    expires_at_ms: int
    open: bool = True


class Kept(NamedTuple):
    """A blob as it is kept."""

    data: bytes
    put_at_ms: int
    owned: bool = False
    number: int | None = None  # of the run that was current when something last referred to it


class World:
    """All that is stored."""

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self.rows: dict[Key, Row] = {}
        self.numbers: dict[Key, int] = {}
        self.journals: dict[int, list[EventRow]] = {}
        self.feeds: dict[int, list[tuple[Key, str, EventRow] | None]] = {shard: [] for shard in range(shards)}
        self.inboxes: dict[int, list[Posted]] = {}
        self.outbox: dict[tuple[Key, str, Key], list[Queued]] = {}
        self.running: dict[int, dict[int, bytes]] = {}
        self.dead: dict[Key, list[Posted]] = {}
        self.strays: dict[tuple[Key, str], int] = {}  # dead letters that were sent to nobody: when
        self.updates: dict[Key, dict[str, bytes]] = {}  # in the order of their last change
        self.unresolved: dict[tuple[Key, str, int], UnresolvedRow] = {}
        self.asks: dict[tuple[Key, str, int], AskRow] = {}
        self.blobs: dict[tuple[Key, bytes], Kept] = {}
        self.sessions: dict[int, Registration] = {}
        self.owners: dict[int, int] = {}  # session by shard
        self.began: dict[Key, tuple[int, str]] = {}  # the current run, if it is not the first: when, origin
        self.past: dict[Key, list[RunRow]] = {}
        self.received: dict[tuple[Key, str], int] = {}  # with the number of the last run that received it
        self.attributes: dict[Key, dict[str, ev.Attribute]] = {}


class MemoryTables:
    """One transaction on the world for a session; 0 is for writers from outside."""

    def __init__(self, world: World, session: int, now_ms: Callable[[], int]) -> None:
        self._world = world
        self._session = session
        self._now_ms = now_ms
        self._undo: list[Callable[[], object]] = []

    def rollback(self) -> None:
        """Take everything back."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    # --- executions and their journals ---

    def find(self, key: Key) -> Receiver | None:
        row = self._world.rows.get(key)
        if row is None:
            return None
        return Receiver(key, self._world.numbers[key], row.run, row.status, row.parent, row.first_run, row.position)

    def row(self, key: Key) -> Row | None:
        return self._world.rows.get(key)

    def set_row(self, row: Row) -> None:
        """Replace a row."""
        world, key = self._world, row.key
        before = world.rows.get(key)
        world.rows[key] = row
        self._undo.append(lambda: world.rows.pop(key) if before is None else world.rows.update({key: before}))

    def change(self, row: Row, **fields: object) -> None:
        """Replace some fields of a row."""
        self.set_row(msgspec.structs.replace(row, **fields))

    def owns(self, key: Key) -> bool:
        return bool(self._session) and self._world.owners.get(key.shard) == self._session

    def insert(self, start: Start, position: int) -> bool:
        world, key = self._world, start.key
        if key in world.rows:
            return False
        world.numbers[key] = self._new_number()
        self._undo.append(lambda: world.numbers.pop(key))
        self._set_begun(start, position)
        return True

    def _set_begun(self, start: Start, position: int) -> None:
        event, now_ms = start.event, self._now_ms()
        status, wake_at_ms = begins_as(start, position, now_ms)
        made = (event.run, event.lane, event.workflow, status, position, bytes(start.digest), now_ms)
        self.set_row(Row(start.key, *made, wake_at_ms=wake_at_ms, parent=child_of(start)))
        self._set_attributes(start.key, event.attributes)

    def has_run(self, key: Key, run: str) -> bool:
        row = self._world.rows.get(key)
        return row is not None and (
            run in (row.run, row.first_run) or any(past.run == run for past in self._world.past.get(key, []))
        )

    def set_attributes(self, key: Key, run: str, attributes: Mapping[str, ev.Attribute]) -> None:  # noqa: ARG002 - the current one
        self._set_attributes(key, attributes)

    def _set_attributes(self, key: Key, attributes: Mapping[str, ev.Attribute]) -> None:
        world, before = self._world.attributes, self._world.attributes.get(key, {})
        world[key] = dict(attributes)
        self._undo.append(lambda: world.update({key: before}))

    def _new_number(self) -> int:
        """The short name of a new run."""
        world = self._world
        number = len(world.journals) + 1
        world.journals[number], world.inboxes[number], world.running[number] = [], [], {}
        return number

    def _current(self, key: Key, run: str) -> tuple[Row, int] | None:
        row = self._world.rows.get(key)
        return None if row is None or row.run != run else (row, self._world.numbers[key])

    def holds(self, batch: Batch) -> bool:
        row = self._world.rows.get(batch.key)
        return (
            row is not None
            and (row.run, row.position) == (batch.run, batch.expected)
            and is_open(row.status)
            and self.owns(batch.key)
        )

    def advance(self, batch: Batch) -> bool:
        if not self.holds(batch):
            return False
        closed_at_ms = batch.events[-1].at_ms if batch.closes is not None and batch.events else None
        self.change(
            self._world.rows[batch.key],
            position=batch.expected + len(batch.events),
            status=batch.closes or "active",
            closed_at_ms=closed_at_ms,
            wake_at_ms=None,
            waits_for="",
            recoveries=0,
            problem="",
        )
        return True

    def append(self, batch: Batch) -> None:
        self._append(batch.key, batch.run, batch.events, batch.expected)

    def _append(self, key: Key, run: str, events: Sequence[NewEvent], expected: int) -> None:
        for position, new in enumerate(events, expected):
            version, at_ms, trace, usage, check, body = header(new, position)
            self._log(key, run, (position, at_ms, self._session, trace, usage, version, check, body))

    def _log(self, key: Key, run: str, row: EventRow) -> None:
        journal, feed = self._world.journals[self._world.numbers[key]], self._world.feeds[key.shard]
        journal.append(row)
        feed.append((key, run, row))
        self._undo.extend((journal.pop, feed.pop))

    def park(self, park: Park) -> None:
        found = self._current(park.key, park.run)
        if found is None or found[0].position != park.position or not is_open(found[0].status):
            return
        row, number = found
        if park.status != "stalled" and (row.status == "stalled" or self._waits(number, park)):
            return
        texts = {"waits_for": storable(park.waits_for), "problem": storable(park.problem)}
        self.change(row, status=park.status, wake_at_ms=park.wake_at_ms, **texts)

    def _waits(self, number: int, park: Park) -> bool:
        letters = self._world.inboxes[number]
        return any(each.request for each in letters) if park.status == "paused" else bool(letters)

    def wake(self, receiver: Receiver) -> None:
        row = self._world.rows[receiver.key]
        if row.status in ("parked", "paused", "stalled"):
            self.change(row, status="active", wake_at_ms=None, waits_for="", problem="")

    def unstall(self, key: Key) -> None:
        row = self._world.rows.get(key)
        if row is not None and row.status == "stalled":
            self.change(row, status="active", recoveries=0, wake_at_ms=None, waits_for="", problem="")

    # --- letters ---

    def _set_inbox(self, number: int, letters: list[Posted]) -> None:
        inboxes, before = self._world.inboxes, self._world.inboxes[number]
        inboxes[number] = letters
        self._undo.append(lambda: inboxes.update({number: before}))

    def waiting(self, key: Key, run: str, limit: int) -> list[str]:
        found = self._current(key, run)
        return [] if found is None else [each.message_id for each in self._world.inboxes[found[1]][:limit]]

    def replacements(self, key: Key, run: str) -> list[str]:
        found = self._current(key, run)
        letters = [] if found is None else self._world.inboxes[found[1]]
        return [each.message_id for each in letters if each.request and begins_instead(run, each.body)]

    def take(self, key: Key, run: str, letters: Iterable[Letter]) -> None:
        found = self._current(key, run)
        assert found is not None
        taken = {each.message_id for each in letters}
        self._set_inbox(found[1], [each for each in self._world.inboxes[found[1]] if each.message_id not in taken])

    def clear(self, key: Key, run: str) -> None:
        found = self._current(key, run)
        assert found is not None
        for each in self._world.inboxes[found[1]]:
            if close_letter(self, key, run, each.body):
                self._bury(key, each.message_id, each.body)
        self.close_updates(key, run)
        self._set_inbox(found[1], [])
        self._set_running(found[1], {})

    def close_updates(self, key: Key, run: str) -> None:
        """Those that this run accepted get no answer any more."""
        for update in self._updates(key):
            if (update.run, update.status) == (run, "accepted"):
                self.put_update(key, msgspec.structs.replace(update, status="closed"))

    def put(self, receiver: Receiver, message_id: str, event: ev.AnyEvent) -> None:
        letters = self._world.inboxes[receiver.number]
        if any(each.message_id == message_id for each in letters):
            return
        arrival = letters[-1].arrival + 1 if letters else 1
        self._set_inbox(receiver.number, [*letters, Posted(arrival, message_id, seal(event), asks(event, receiver))])

    def bury(self, key: Key, message_id: str, event: ev.AnyEvent) -> None:
        self._bury(key, message_id, seal(event))

    def _bury(self, key: Key, message_id: str, body: Body) -> None:
        letters = self._world.dead.setdefault(key, [])
        if not any(each.message_id == message_id for each in letters):
            letters.append(Posted(len(letters) + 1, message_id, body))
            self._undo.append(letters.pop)
            if key not in self._world.rows:
                strays = self._world.strays
                strays[key, message_id] = self._now_ms()
                self._undo.append(lambda: strays.pop((key, message_id)))

    # --- updates and state ---

    def _updates(self, key: Key) -> list[UpdateRow]:
        return [msgspec.msgpack.decode(each, type=UpdateRow) for each in self._world.updates.get(key, {}).values()]

    def update(self, key: Key, update_id: str) -> UpdateRow | None:
        found = self._world.updates.get(key, {}).get(update_id)
        return None if found is None else msgspec.msgpack.decode(found, type=UpdateRow)

    def put_update(self, key: Key, update: UpdateRow) -> None:
        updates = self._world.updates
        before = updates.get(key, {})
        after = {name: body for name, body in before.items() if name != update.update_id}
        after[update.update_id] = msgspec.msgpack.encode(update)
        rejected = [each.update_id for each in self._updates(key) if each.status == "rejected"]
        for name in rejected[: -REJECTIONS + (update.status == "rejected")]:
            after.pop(name, None)
        updates[key] = after
        self._undo.append(lambda: updates.update({key: before}))

    def _set_unresolved(self, name: tuple[Key, str, int], row: UnresolvedRow | None) -> None:
        rows = self._world.unresolved
        before = rows.pop(name, None)
        if row is not None:
            rows[name] = row
        self._undo.append(lambda: rows.pop(name, None) if before is None else rows.update({name: before}))

    def put_unresolved(self, row: UnresolvedRow) -> None:
        name = (row.key, row.run, row.seq)
        known = self._world.unresolved.get(name, row)
        self._set_unresolved(name, msgspec.structs.replace(known, message_id=row.message_id, refused=row.refused))

    def claim_unresolved(self, key: Key, answer: ev.ResolveRequested) -> bool:
        name = (key, answer.run, answer.seq)
        known = self._world.unresolved.get(name)
        if known is None or known.attempt != answer.attempt or known.message_id not in ("", answer.message_id):
            return False
        self._set_unresolved(name, msgspec.structs.replace(known, message_id=answer.message_id, refused=False))
        return True

    def end_unresolved(self, key: Key, run: str, seq: int) -> None:
        self._set_unresolved((key, run, seq), None)

    def _set_ask(self, name: tuple[Key, str, int], row: AskRow | None) -> None:
        rows = self._world.asks
        before = rows.pop(name, None)
        if row is not None:
            rows[name] = row
        self._undo.append(lambda: rows.pop(name, None) if before is None else rows.update({name: before}))

    def put_ask(self, row: AskRow) -> None:
        self._set_ask((row.key, row.run, row.seq), row)

    def claim_ask(self, key: Key, run: str, seq: int, message_id: str) -> bool:
        known = self._world.asks.get((key, run, seq))
        if known is None or known.message_id not in ("", message_id):
            return False
        self._set_ask((key, run, seq), msgspec.structs.replace(known, message_id=message_id, refused=False))
        return True

    def reopen_ask(self, key: Key, run: str, seq: int) -> None:
        known = self._world.asks.get((key, run, seq))
        if known is not None:
            self._set_ask((key, run, seq), msgspec.structs.replace(known, message_id="", refused=True))

    def end_asks(self, key: Key, run: str, seqs: Iterable[int] | None = None) -> None:
        for name in [name for name in self._world.asks if name[:2] == (key, run)]:
            if seqs is None or name[2] in seqs:
                self._set_ask(name, None)

    def publish(self, batch: Batch) -> None:
        self.change(self._world.rows[batch.key], state_position=batch.state_at)

    # --- outbox ---

    def queued(self, parcel: Parcel) -> bool:
        return bool(self._world.outbox.get((parcel.sender, parcel.sender_run, parcel.receiver)))

    def queue(self, parcel: Parcel) -> None:
        letters = self._world.outbox.setdefault((parcel.sender, parcel.sender_run, parcel.receiver), [])
        letters.append(Queued(parcel._replace(event=None), seal(parcel.event)))  # type: ignore[arg-type]
        self._undo.append(letters.pop)

    def dequeue(self, address: tuple[Key, str, Key]) -> Queued:
        """Remove the first parcel of a pair."""
        letters = self._world.outbox[address]
        first = letters.pop(0)
        self._undo.append(lambda: letters.insert(0, first))
        return first

    # --- blobs ---

    def _set_blob(self, name: tuple[Key, bytes], kept: Kept | None) -> None:
        blobs, before = self._world.blobs, self._world.blobs.get(name)
        if kept is None:
            del blobs[name]
        else:
            blobs[name] = kept
        self._undo.append(lambda: blobs.pop(name) if before is None else blobs.update({name: before}))

    def put_blob(self, blob: Blob) -> None:
        """Store a blob, or make one that is there fresh again."""
        there = self._world.blobs.get((blob.key, blob.address))
        made = Kept(bytes(blob.data), 0) if there is None else there
        self._set_blob((blob.key, blob.address), made._replace(put_at_ms=self._now_ms()))

    def keep(self, key: Key, addresses: Iterable[bytes]) -> None:
        for address in addresses:
            found = self._world.blobs.get((key, address))
            if found is None:
                raise StoreError(path="memory", detail=f"a blob of execution {key.execution!r} is missing")
            number = self._world.numbers.get(key)
            self._set_blob((key, address), found._replace(owned=True, number=number))

    def collect_blobs(self, before_ms: int, limit: int) -> int:
        """Delete blobs without an owner, the oldest first; how many there were."""
        loose = [(blob.put_at_ms, name) for name, blob in self._world.blobs.items() if not blob.owned]
        old = sorted(each for each in loose if each[0] < before_ms)[:limit]
        for _, name in old:
            self._set_blob(name, None)
        return len(old)

    # --- running steps ---

    def _set_running(self, number: int, steps: dict[int, bytes]) -> None:
        running, before = self._world.running, self._world.running[number]
        running[number] = steps
        self._undo.append(lambda: running.update({number: before}))

    def ran_alone(self, row: Row) -> bool:
        """Whether the store was told, by a step 0, that this execution runs alone."""
        noted = self._world.running[self._world.numbers[row.key]].get(0)
        return noted is not None and msgspec.msgpack.decode(noted, type=Running).attempt > 0

    def end_running(self, batch: Batch) -> None:
        number = self._world.numbers[batch.key]
        steps = self._world.running[number]
        ended = {new.event.seq for new in batch.events if isinstance(new.event, ANSWERS)}
        if steps and not ended.isdisjoint(steps):
            self._set_running(number, {seq: step for seq, step in steps.items() if seq not in ended})

    def note_running(self, running: Running) -> None:
        found = self._current(running.key, running.run)
        if found is not None and is_open(found[0].status):
            steps = {seq: body for seq, body in self._world.running[found[1]].items() if seq != running.seq}
            told = {running.seq: msgspec.msgpack.encode(running)} if running.attempt else {}
            self._set_running(found[1], steps | told)
