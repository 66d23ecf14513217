"""The store as a process sees it: everything in memory is plain, everything at rest is packed, and sealed with a codec.

A wrapper around any other store. Its work is done where stores are called: on the threads of committer and readers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from perdure.core.errors import KeyMissing, PerdureError
from perdure.core.payload import MAX_PAYLOAD_BYTES
from perdure.core.shape import PACKED, hidden_in, shape_of
from perdure.store.codec import Place
from perdure.store.packing import COMPRESS_ABOVE, PLAIN
from perdure.store.protocol import Batch, Blob, Committed, Mail, NewEvent, Park, Receipt, Start, Succession
from perdure.store.rules import fails, is_same
from perdure.store.sealer import MARK, Sealer, is_sealed_bytes, key_id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from perdure.core import events as ev
    from perdure.core.events import Recorded
    from perdure.core.identity import Key
    from perdure.store.codec import PayloadCodec
    from perdure.store.protocol import Advice, Branch, Filter, Letter, Row, Running, Session, Store, UpdateRow

T = TypeVar("T", Start, Mail)
A = TypeVar("A")

NO_KEY = KeyMissing.__name__
"""What a row waits for that stalled because a key is missing."""

_replace = msgspec.structs.replace


class Vault(NamedTuple):
    """Seals what a step keeps in another database, as the store seals its own; bound to that step."""

    sealer: Sealer
    key: Key
    run: str
    seq: int

    def seal(self, data: bytes, what: str) -> bytes:
        """Bytes to keep. Raises `KeyMissing`."""
        return self.sealer.seal_bytes(data, self._place(what))

    def open(self, data: bytes, what: str) -> bytes:
        """What `seal` was given. Raises `KeyMissing`, `CorruptJournal`."""
        return self.sealer.read_bytes(data, self._place(what))

    def seal_text(self, text: str, what: str) -> str:
        """Text for people. Raises `KeyMissing`."""
        return self.sealer.seal_text(text, self._place(what))

    def open_text(self, text: str, what: str) -> str:
        """What `seal_text` was given, or a text that says why not."""
        return self.sealer.open_text(text, self._place(what))

    def _place(self, what: str) -> Place:
        return Place(self.key, self.run, f"record {self.seq} {what}")


class SealedStore:
    """Seals what is written to `inner`, opens what is read from it. `private` tells whether values are encrypted.

    What a store has beyond the port (`owner`, `announce`) is reached through.
    """

    def __init__(self, inner: Store, codec: PayloadCodec | None = None) -> None:
        self.inner = inner
        self.path = inner.path
        self.shards = inner.shards
        self.private = codec is not None
        self._sealer = Sealer(codec, inner.blob)
        self.now_ms = inner.now_ms
        self.renew = inner.renew
        self.open_session = inner.open_session
        self.close_session = inner.close_session
        self.deliver = inner.deliver
        self.runs = inner.runs
        self.next_wake_ms = inner.next_wake_ms
        self.unresolved = inner.unresolved
        self.asks = inner.asks
        self.attributes = inner.attributes
        self.put_blobs = inner.put_blobs
        self.blob = inner.blob
        self.collect_blobs = inner.collect_blobs
        self.changes = inner.changes
        self.close = inner.close

    @classmethod
    def of(cls, store: Store) -> SealedStore:
        """The store itself, or one without a codec around it."""
        return store if isinstance(store, SealedStore) else cls(store)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def check(self, key: Key) -> None:
        """Raises `KeyMissing` if what this execution writes could not be encrypted here."""
        self._sealer.check(key)

    def vault(self, key: Key, run: str, seq: int) -> Vault:
        """For what a step keeps elsewhere."""
        return Vault(self._sealer, key, run, seq)

    # --- writing ---

    def commit(self, session: Session, batches: Sequence[Batch], advice: Sequence[Advice] = ()) -> Committed:
        """See `Store.commit`. A batch that cannot be encrypted is left out, and its outcome is the reason."""
        if advice:
            advice = [self._advice(each) for each in advice]
        if not self.private and not _have_work(batches):
            return self.inner.commit(session, batches, advice)
        blobs: list[Blob] = []
        sealed = [self._batch(batch, blobs) for batch in batches]
        good = [batch for batch in sealed if isinstance(batch, Batch)]
        if blobs:
            self.inner.put_blobs(blobs)
        done = self.inner.commit(session, good, advice)
        return Committed(_in_place(sealed, done.outcomes), done.woken) if len(good) < len(sealed) else done

    def _batch(self, batch: Batch, blobs: list[Blob]) -> Batch | PerdureError:
        own: list[Blob] = []
        others: list[Blob] = []
        try:
            sealed = _replace(
                batch,
                events=self._events(batch.events, Place(batch.key, batch.run, ""), batch.expected, own),
                mail=[self._mail(each, others) for each in batch.mail],
                starts=[self._start(each, others) for each in batch.starts],
                create=None if batch.create is None else self._with_digest(batch.create),
                successor=None if batch.successor is None else self._successor(batch.successor, others),
                updates=[self._update(each, batch.key) for each in batch.updates],
                buried=[self._buried(each, batch.key, own) for each in batch.buried],
                then=None if batch.then is None else self._succession(batch.key, batch.then, own),
                blobs=_addresses(own),
            )
        except KeyMissing as error:
            return error
        blobs += own + others
        return sealed

    def _succession(self, key: Key, then: Succession, blobs: list[Blob]) -> Succession:
        events = self._events(then.events, Place(key, then.run, ""), 0, blobs)
        return _replace(then, events=events, carried=[self._mail(each, blobs) for each in then.carried])

    def _events(self, events: Sequence[NewEvent], of: Place, expected: int, blobs: list[Blob]) -> list[NewEvent]:
        return [self._new(new, of, at, blobs) for at, new in enumerate(events, expected)]

    def _new(self, new: NewEvent, of: Place, position: int, blobs: list[Blob]) -> NewEvent:
        place = _event_place(of.key, of.run, position, new.event)
        return NewEvent(self._sealer.seal(new.event, place, blobs), new.at_ms, new.trace_parent, new.usage)

    def _mail(self, mail: Mail, blobs: list[Blob]) -> Mail:
        own: list[Blob] = []
        event = self._sealer.seal(mail.event, _letter_place(mail.receiver, mail.message_id), own)
        blobs += own
        start = None if mail.start is None else self._start(mail.start, blobs)
        return _replace(mail, event=event, blobs=_addresses(own), start=start)

    def _buried(self, signal: ev.SignalReceived, key: Key, blobs: list[Blob]) -> ev.SignalReceived:
        sealed: Any = self._sealer.seal(signal, _letter_place(key, signal.message_id), blobs)
        return sealed  # type: ignore[no-any-return]

    def _update(self, update: UpdateRow, key: Key) -> UpdateRow:
        if update.failure is None:
            return update
        return _replace(update, failure=self._sealer.seal_failure(update.failure, _update_place(key, update.update_id)))

    def _start(self, start: Start, blobs: list[Blob]) -> Start:
        own: list[Blob] = []
        event = self._sealer.seal(start.event, _letter_place(start.key, f"start:{start.event.run}"), own)
        blobs += own
        return _replace(self._with_digest(start), event=event, blobs=_addresses(own))

    def _successor(self, start: Start, blobs: list[Blob]) -> Start:
        """Where its key is missing as it came: it is the letter that waited, and goes where that was sealed for."""
        sealed = start.event.sealed
        if sealed is None:
            return self._start(start, blobs)
        shape: Any = shape_of(start.event, sealed)
        return _replace(self._with_digest(start), event=shape)

    def _with_digest(self, start: Start) -> Start:
        return _replace(start, digest=self._sealer.seal_bytes(start.digest, _row_place(start.key, "start digest")))

    def _advice(self, advice: Advice) -> Advice:
        if isinstance(advice, Park):
            return self._park(advice) if self.private else advice
        if advice.progress is None:
            return advice
        try:
            place = Place(advice.key, advice.run, f"progress {advice.seq}")
            return _replace(advice, progress=self._sealer.seal_value(advice.progress, place))
        except KeyMissing:
            return _replace(advice, progress=None)

    def _park(self, park: Park) -> Park:
        """Why it stalled may quote values; that a key is missing says itself, to everybody."""
        if park.waits_for == NO_KEY:
            return park
        sealer, key = self._sealer, park.key
        try:
            problem = sealer.seal_text(park.problem, _row_place(key, "problem"))
            if park.status == "stalled":  # it waits for what the name of an error says
                return _replace(park, problem=problem)
            return _replace(park, problem=problem, waits_for=sealer.seal_text(park.waits_for, _row_place(key, "wait")))
        except KeyMissing as error:
            return _replace(park, problem=str(error), waits_for=NO_KEY if park.status == "stalled" else "")

    def deposit(self, starts: Sequence[Start] = (), mail: Sequence[Mail] = ()) -> Sequence[Receipt | PerdureError]:
        """See `Store.deposit`. What cannot be encrypted, or may not be in clear, is answered by the reason."""
        blobs: list[Blob] = []
        new = [_or_error(self._start, each, blobs) for each in starts]
        posted = [_or_error(self._posted, each, blobs) for each in mail]
        if blobs:
            self.inner.put_blobs(blobs)
        good = [each for each in new if isinstance(each, Start)], [each for each in posted if isinstance(each, Mail)]
        receipts = _in_place([*new, *posted], self.inner.deposit(*good))
        answered = zip(receipts, [*starts, *(each.start for each in mail)], [*new, *posted], strict=True)
        return [self._receipt(receipt, start, sealed) for receipt, start, sealed in answered]

    def _posted(self, mail: Mail, blobs: list[Blob]) -> Mail:
        """Whoever has no codec must not write in clear what its receiver keeps encrypted."""
        if not self.private and hidden_in(mail.event):
            row = self.inner.row(mail.receiver)
            if row is not None and is_sealed_bytes(row.start_digest):
                what = f"A message to execution {mail.receiver.execution!r}"
                raise KeyMissing(what=what, key=key_id_of(row.start_digest))
        return self._mail(mail, blobs)

    def _receipt(
        self, receipt: Receipt | PerdureError, start: Start | None, sealed: Start | Mail | PerdureError
    ) -> Receipt | PerdureError:
        """With its row opened. Only here can it be told that an encrypted start is one that there is already."""
        if isinstance(receipt, PerdureError) or receipt.row is None:
            return receipt
        row = self._row(receipt.row)
        is_again = start is not None and not fails(start, row.status) and is_same(row, start)
        if receipt.status != "exists" or not is_again:
            return _replace(receipt, row=row)
        if not isinstance(sealed, Mail):
            return Receipt("accepted", row)
        [receipt] = self.inner.deposit([], [_replace(sealed, start=None)])  # to the receiver that there is
        return self._receipt(receipt, None, sealed)

    def resume(self, key: Key, message_id: str = "") -> Receipt:
        """See `Store.resume`."""
        receipt = self.inner.resume(key, message_id)
        return receipt if receipt.row is None else _replace(receipt, row=self._row(receipt.row))

    def branch(self, branch: Branch) -> Receipt:
        """See `Store.branch`. What was copied is sealed for where it stands now. Raises `KeyMissing`."""
        blobs: list[Blob] = []
        key, run, sealer = branch.key, branch.run, self._sealer
        events = [
            _replace(each, event=sealer.seal(each.event, _event_place(key, run, each.position, each.event), blobs))
            for each in branch.events
        ]
        carried = [self._mail(each, blobs) for each in branch.carried]
        digest = sealer.seal_bytes(branch.digest, _row_place(key, "start digest"))
        if blobs:
            self.inner.put_blobs(blobs)
        addresses = _addresses(blobs)
        receipt = self.inner.branch(_replace(branch, events=events, carried=carried, digest=digest, blobs=addresses))
        if receipt.row is None:
            return receipt
        row = self._row(receipt.row)
        is_again = receipt.status == "exists" and row.start_digest == branch.digest
        return _replace(receipt, status="accepted" if is_again else receipt.status, row=row)

    # --- reading ---

    def _row(self, row: Row) -> Row:
        if not (is_sealed_bytes(row.start_digest) or row.problem.startswith(MARK) or row.waits_for.startswith(MARK)):
            return row
        sealer, key = self._sealer, row.key
        return _replace(
            row,
            start_digest=sealer.open_bytes(row.start_digest, _row_place(key, "start digest")),
            problem=sealer.open_text(row.problem, _row_place(key, "problem")),
            waits_for=sealer.open_text(row.waits_for, _row_place(key, "wait")),
        )

    def row(self, key: Key) -> Row | None:
        """See `Store.row`."""
        row = self.inner.row(key)
        return None if row is None else self._row(row)

    def find(self, wanted: Filter, after: tuple[int, str] | None, limit: int) -> list[Row]:
        """See `Store.find`."""
        return [self._row(row) for row in self.inner.find(wanted, after, limit)]

    def ready(self, session: Session, now_ms: int, after: Key | None, limit: int) -> list[Row]:
        """See `Store.ready`."""
        return [self._row(row) for row in self.inner.ready(session, now_ms, after, limit)]

    def load(self, key: Key, run: str, position: int, limit: int) -> list[Recorded]:
        """See `Store.load`. Where a key is missing there are shapes, whose `sealed` is still there."""
        return [self._recorded(each, key, run) for each in self.inner.load(key, run, position, limit)]

    def _recorded(self, recorded: Recorded, key: Key, run: str) -> Recorded:
        event = recorded.event
        if not _may_need(event, MAX_PAYLOAD_BYTES):
            return recorded
        opened = self._sealer.open(event, _event_place(key, run, recorded.position, event))
        return _replace(recorded, event=opened)

    def _letter(self, letter: Letter, key: Key) -> Letter:
        if not _may_need(letter.event, MAX_PAYLOAD_BYTES):
            return letter
        return _replace(letter, event=self._sealer.open(letter.event, _letter_place(key, letter.message_id)))

    def inbox(self, key: Key, limit: int) -> list[Letter]:
        """See `Store.inbox`."""
        return [self._letter(each, key) for each in self.inner.inbox(key, limit)]

    def requests(self, key: Key, limit: int) -> list[Letter]:
        """See `Store.requests`."""
        return [self._letter(each, key) for each in self.inner.requests(key, limit)]

    def dead_letters(self, key: Key, limit: int) -> list[Letter]:
        """See `Store.dead_letters`."""
        return [self._letter(each, key) for each in self.inner.dead_letters(key, limit)]

    def running(self, key: Key) -> list[Running]:
        """See `Store.running`."""
        return [self._progress(each) for each in self.inner.running(key)]

    def _progress(self, running: Running) -> Running:
        if running.progress is None:
            return running
        place = Place(running.key, running.run, f"progress {running.seq}")
        return _replace(running, progress=self._sealer.open_value(running.progress, place))

    def update(self, key: Key, update_id: str) -> UpdateRow | None:
        """See `Store.update`."""
        found = self.inner.update(key, update_id)
        if found is None or found.failure is None:
            return found
        return _replace(found, failure=self._sealer.open_failure(found.failure, _update_place(key, update_id)))

    def tail(self, shard: int, after: int, limit: int) -> list[tuple[int, Key, str, Recorded]]:
        """See `Store.tail`."""
        found = self.inner.tail(shard, after, limit)
        return [(pos, key, run, self._recorded(recorded, key, run)) for pos, key, run, recorded in found]


def _or_error(seal: Callable[[T, list[Blob]], T], item: T, blobs: list[Blob]) -> T | PerdureError:
    try:
        return seal(item, blobs)
    except KeyMissing as error:
        return error


def _in_place(sealed: Sequence[object], answers: Sequence[A | PerdureError]) -> list[A | PerdureError]:
    """The answers for what could be sealed, and the reasons for what could not, in the order of the questions."""
    left = iter(answers)
    return [each if isinstance(each, PerdureError) else next(left) for each in sealed]


def _event_place(key: Key, run: str, position: int, event: ev.AnyEvent) -> Place:
    return Place(key, run, f"event {position} {getattr(event, 'seq', 0)}")


def _letter_place(key: Key, message_id: str) -> Place:
    return Place(key, "", f"letter {message_id}")


def _update_place(key: Key, update_id: str) -> Place:
    return Place(key, "", f"update {update_id}")


def _row_place(key: Key, what: str) -> Place:
    return Place(key, "", what)


def _addresses(blobs: Iterable[Blob]) -> tuple[bytes, ...]:
    return tuple(blob.address for blob in blobs)


def _have_work(batches: Iterable[Batch]) -> bool:
    """Whether anything must be packed, or may not be written: asked at every commit, and nearly always answered no."""
    for batch in batches:
        for new in batch.events:
            if _may_need(new.event, COMPRESS_ABOVE):
                return True
        if batch.then is not None or batch.successor is not None:
            return True
        if (batch.mail or batch.starts or batch.buried) and _sends_work(batch):
            return True
    return False


def _sends_work(batch: Batch) -> bool:
    sent = [*batch.buried, *(mail.event for mail in batch.mail), *(start.event for start in batch.starts)]
    return any(_may_need(event, COMPRESS_ABOVE) for event in sent)


def _may_need(event: ev.AnyEvent, size: int) -> bool:
    """Whether it has a payload above this size, or one that does not come as codecs make them, or is sealed."""
    if event.sealed is not None:
        return True
    for name in PACKED[type(event)]:
        payload = getattr(event, name)
        if payload is not None and (len(payload.data) > size or payload.content_type not in PLAIN):
            return True
    return False
