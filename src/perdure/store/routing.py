"""The rules of a commit that all stores share: what becomes of batches, mail, starts and letters at a close.

A store provides `Tables`, its primitives inside one open transaction; nothing here knows SQL, time or threads.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from perdure.core import events as ev
from perdure.store.protocol import (
    Advice,
    AskRow,
    Batch,
    Blob,
    Branch,
    Committed,
    Letter,
    Mail,
    Outcome,
    Park,
    Receipt,
    Row,
    Running,
    Session,
    Start,
    Succession,
    UnresolvedRow,
    UpdateRow,
)
from perdure.store.rules import (
    Parcel,
    Receiver,
    child_of,
    fails,
    is_open,
    is_same,
    is_stale,
    may_begin_again,
    open_asks,
    question_of,
    refusal,
    refuses,
    wakes,
    worth_keeping,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from perdure.core.identity import Key

log = logging.getLogger("perdure")


class Tables(Protocol):
    """A store's primitives inside one open transaction."""

    def find(self, key: Key) -> Receiver | None:
        """The execution with this id, open or closed."""
        ...

    def row(self, key: Key) -> Row | None:
        """Its row, as this transaction sees it."""
        ...

    def owns(self, key: Key) -> bool:
        """Whether this session may write the execution's journal."""
        ...

    def insert(self, start: Start, position: int) -> bool:
        """A new active row; False if its id is taken."""
        ...

    def begin_again(self, start: Start, position: int) -> None:
        """A new run of an execution that has closed, which begins as `insert` does: the closed one is past."""
        ...

    def has_run(self, key: Key, run: str) -> bool:
        """Whether this is, or was, a run of the execution."""
        ...

    def set_attributes(self, key: Key, run: str, attributes: Mapping[str, ev.Attribute]) -> None:
        """What an execution can be found by from now on."""
        ...

    def holds(self, batch: Batch) -> bool:
        """Whether the batch's run is current, open, owned, and `expected` events long."""
        ...

    def advance(self, batch: Batch) -> bool:
        """Move the row to the batch's end, active or closed; False unless `holds`."""
        ...

    def append(self, batch: Batch) -> None:
        """Append the batch's events."""
        ...

    def succeed(self, batch: Batch, then: Succession) -> None:
        """The run that the batch ended is a past one; the next has its inbox. See `Succession`."""
        ...

    def fork(self, branch: Branch) -> None:
        """A new execution with these events; its id is free."""
        ...

    def rewind(self, branch: Branch) -> None:
        """Another run in the place of the current one, which is a past one. See `Branch`."""
        ...

    def was_received(self, key: Key, message_id: str) -> bool:
        """Whether a past run of the execution received this message."""
        ...

    def waiting(self, key: Key, run: str, limit: int) -> list[str]:
        """Message ids of letters that wait for a run."""
        ...

    def replacements(self, key: Key, run: str) -> list[str]:
        """Message ids of starts that wait in a run's inbox, to begin in its place."""
        ...

    def take(self, key: Key, run: str, letters: Iterable[Letter]) -> None:
        """Remove letters from a run's inbox."""
        ...

    def clear(self, key: Key, run: str) -> None:
        """Empty the inbox of a run that has closed, burying what is worth keeping, and forget its running steps.

        Its updates that are not answered are closed: those in the inbox, and those accepted.
        """
        ...

    def put(self, receiver: Receiver, message_id: str, event: ev.AnyEvent) -> None:
        """Add a letter, unless one with this id waits already."""
        ...

    def wake(self, receiver: Receiver) -> None:
        """Make a parked, paused or stalled row active."""
        ...

    def unstall(self, key: Key) -> None:
        """Make a stalled row active, and forget its recoveries."""
        ...

    def bury(self, key: Key, message_id: str, event: ev.AnyEvent) -> None:
        """Keep a dead letter, once."""
        ...

    def update(self, key: Key, update_id: str) -> UpdateRow | None:
        """What has become of an update."""
        ...

    def put_update(self, key: Key, update: UpdateRow) -> None:
        """Keep what has become of an update, instead of what was known; of rejected ones the last `REJECTIONS`."""
        ...

    def put_unresolved(self, row: UnresolvedRow) -> None:
        """Keep it; of one that is there already, only what became of its answer."""
        ...

    def claim_unresolved(self, key: Key, answer: ev.ResolveRequested) -> bool:
        """Note that this answer is on its way; False if nothing waits for it, or another one is."""
        ...

    def end_unresolved(self, key: Key, run: str, seq: int) -> None:
        """It is resolved."""
        ...

    def put_ask(self, row: AskRow) -> None:
        """A question is open."""
        ...

    def claim_ask(self, key: Key, run: str, seq: int, message_id: str) -> bool:
        """Note that this answer is on its way; False if the question is not open, or has another one."""
        ...

    def reopen_ask(self, key: Key, run: str, seq: int) -> None:
        """Its answer was not one."""
        ...

    def end_asks(self, key: Key, run: str, seqs: Iterable[int] | None = None) -> None:
        """Questions that are open no longer; by default all of the run."""
        ...

    def publish(self, batch: Batch) -> None:
        """Remember where the state stands that the batch publishes."""
        ...

    def queued(self, parcel: Parcel) -> bool:
        """Whether the outbox holds an earlier parcel from this run to this receiver."""
        ...

    def queue(self, parcel: Parcel) -> None:
        """Add to the outbox."""
        ...

    def keep(self, key: Key, addresses: Sequence[bytes]) -> None:
        """An execution refers to these blobs from now on. Raises `StoreError` if one is missing."""
        ...

    def put_blob(self, blob: Blob) -> None:
        """Store a blob, or make one that is there fresh again."""
        ...

    def collect_blobs(self, before_ms: int, limit: int) -> int:
        """Delete blobs without an owner, the oldest first; how many there were."""
        ...

    def end_running(self, batch: Batch) -> None:
        """Forget the running steps that the batch's events end."""
        ...

    def note_running(self, running: Running) -> None:
        """Remember an open step, if its run is current and open."""
        ...

    def park(self, park: Park) -> None:
        """Apply the advice, if it still holds."""
        ...


class Router:
    """Applies batches, mail and starts to the tables of one transaction, and collects whose rows became active."""

    def __init__(self, tables: Tables, *, direct: bool) -> None:
        self.tables = tables
        self.direct = direct
        self._woken: dict[Key, None] = {}

    @property
    def woken(self) -> list[Key]:
        """Active executions whose inbox got something, in the order of the first letter."""
        return list(self._woken)

    def commit(self, batches: Sequence[Batch], advice: Sequence[Advice]) -> Committed:
        """All of a commit but its fence. Advice on running steps comes first, as a batch may end them."""
        for each in advice:
            if isinstance(each, Running):
                self.tables.note_running(each)
        outcomes = [self._apply(batch) for batch in batches]
        for each in advice:
            if isinstance(each, Park):
                self.tables.park(each)
        return Committed(outcomes, self.woken)

    def _apply(self, batch: Batch) -> Outcome:
        tables = self.tables
        if self._overtakes(batch) or self._forgets_a_start(batch):
            return Outcome.MAIL if tables.holds(batch) else Outcome.CONFLICT
        if not self._matches(batch):
            return Outcome.CONFLICT
        tables.append(batch)
        tables.end_running(batch)
        if batch.blobs:
            tables.keep(batch.key, batch.blobs)
        if batch.taken:
            tables.take(batch.key, batch.run, batch.taken)
        self._index(batch)
        self._end(batch)
        for start in batch.starts:
            tables.keep(start.key, start.blobs)
            self.post(_parcel_of_start(batch, start))
        for mail in batch.mail:
            tables.keep(mail.receiver, mail.blobs)
            self.post(_parcel_of_mail(batch, mail))
        return Outcome.COMMITTED

    def _end(self, batch: Batch) -> None:
        """What the end of a run means for its inbox, if it has ended."""
        if batch.closes is not None:
            self.tables.clear(batch.key, batch.run)
            if batch.successor is not None:
                self.tables.begin_again(batch.successor, 0)
                self._put_start(batch.successor)
        elif batch.then is not None:
            self.tables.succeed(batch, batch.then)
            self._hand_on(batch.key, batch.then.run)

    def _hand_on(self, key: Key, run: str) -> None:
        """What waits in the inbox waits for the new run."""
        if self.tables.waiting(key, run, 1):
            self._woken[key] = None

    def _index(self, batch: Batch) -> None:
        """Write what others can read of the execution without its journal."""
        if batch.state_at is not None:
            self.tables.publish(batch)
        if batch.attributes is not None:
            self.tables.set_attributes(batch.key, batch.run, batch.attributes)
        for update in batch.updates:
            self.tables.put_update(batch.key, update)
        for signal in batch.buried:
            self.tables.bury(batch.key, signal.message_id, signal)
        for row in batch.unresolved:
            self.tables.put_unresolved(row)
        for seq in batch.resolved:
            self.tables.end_unresolved(batch.key, batch.run, seq)
        self._index_asks(batch)

    def _index_asks(self, batch: Batch) -> None:
        for ask in batch.asks:
            self.tables.put_ask(ask)
        for seq in batch.reopened_asks:
            self.tables.reopen_ask(batch.key, batch.run, seq)
        if batch.closes is not None or batch.then is not None:
            self.tables.end_asks(batch.key, batch.run)
        elif batch.closed_asks:
            self.tables.end_asks(batch.key, batch.run, batch.closed_asks)

    def _matches(self, batch: Batch) -> bool:
        """Create or move the row; False if it is not where the batch expects it."""
        if batch.create is not None and not self._create(batch, batch.create):
            return False
        moves = batch.create is None or batch.closes is not None
        return not moves or self.tables.advance(batch)

    def _create(self, batch: Batch, start: Start) -> bool:
        assert batch.expected == 0, "a new execution's journal is empty"
        assert (start.key, start.event.run) == (batch.key, batch.run), "a batch creates its own execution"
        position = len(batch.events) if batch.closes is None else 0  # a close advances it
        return self.tables.owns(batch.key) and self._insert(start, position)

    def _insert(self, start: Start, position: int) -> bool:
        """A new row, or a new run of one that has closed; False if its id is taken."""
        tables = self.tables
        if tables.insert(start, position):
            return True
        if start.reuse == "never":
            return False
        taken_by = tables.find(start.key)
        assert taken_by is not None
        if not may_begin_again(start, taken_by.status) or tables.has_run(start.key, start.event.run):
            return False
        tables.begin_again(start, position)
        return True

    def _overtakes(self, batch: Batch) -> bool:
        if not batch.inbox_seen:
            return False
        known = {letter.message_id for letter in (*batch.taken, *batch.left)}
        return any(each not in known for each in self.tables.waiting(batch.key, batch.run, len(known) + 1))

    def _forgets_a_start(self, batch: Batch) -> bool:
        """Whether it closes, and a start waits for its place that it does not know of: lost with the inbox."""
        if batch.closes is None:
            return False
        known = {letter.message_id for letter in batch.taken}
        return any(each not in known for each in self.tables.replacements(batch.key, batch.run))

    # --- mail ---

    def post(self, parcel: Parcel) -> None:
        """Deliver at once, or by way of the outbox, which nothing may overtake."""
        if self.direct and not self.tables.queued(parcel):
            self.hand_over(parcel)
        else:
            self.tables.queue(parcel)

    def hand_over(self, parcel: Parcel) -> None:
        """Deliver a parcel, or tell its sender why not."""
        if parcel.digest is not None:
            self._start_child(parcel)
            return
        receiver = self.tables.find(parcel.receiver)
        stale = is_stale(receiver, parcel.receiver_run, parcel.event)
        reason = "that run is over" if stale else refusal(receiver)
        if reason is None:
            assert receiver is not None
            self.put(receiver, parcel.message_id, parcel.event)
        elif stale:
            log.info("%s for an earlier run of %s: ignored", type(parcel.event).__name__, parcel.receiver.execution)
        elif worth_keeping(parcel.event):
            self.tables.bury(parcel.receiver, parcel.message_id, parcel.event)
        if parcel.seq:
            seq = parcel.seq
            self._answer(parcel, ev.MessageDelivered(seq) if reason is None else ev.MessageFailed(seq, reason))

    def _start_child(self, parcel: Parcel) -> None:
        start = Start(parcel.receiver, parcel.event, parcel.digest)  # type: ignore[arg-type]
        if self.start(start):
            return
        taken_by = self.tables.find(start.key)
        if parcel.seq and (taken_by is None or taken_by.parent != child_of(start)):
            reason = f"the id {start.key.execution!r} is taken by another execution"
            self._answer(parcel, ev.ChildStartFailed(parcel.seq, reason))

    def start(self, start: Start) -> bool:
        """A new execution with `ExecutionStarted` in its inbox; False if the id is taken."""
        if not self._insert(start, 0):
            return False
        self._put_start(start)
        return True

    def _put_start(self, start: Start) -> None:
        receiver = self.tables.find(start.key)
        assert receiver is not None
        self.put(receiver, f"start:{start.event.run}", start.event)

    def put(self, receiver: Receiver, message_id: str, event: ev.AnyEvent) -> None:
        """Into the inbox; the receiver wakes, if this is something that it may act on."""
        if self.tables.was_received(receiver.key, message_id):
            return
        self.tables.put(receiver, message_id, event)
        if not wakes(receiver, event):
            return
        if receiver.status != "active":
            self.tables.wake(receiver)
        self._woken[receiver.key] = None

    def _answer(self, parcel: Parcel, event: ev.CommandEvent) -> None:
        sender = self.tables.find(parcel.sender)
        if sender is not None and sender.run == parcel.sender_run and is_open(sender.status):
            name = f"{type(event).__name__}:{parcel.sender_run}:{event.seq}"
            self.put(sender, name, event)  # type: ignore[arg-type]

    # --- from outside ---

    def branch(self, branch: Branch) -> Receipt:
        """A fork or a rewind."""
        tables, key = self.tables, branch.key
        row = tables.row(key)
        if branch.instead_of:
            if row is None:
                return Receipt("missing")
            if (row.run, row.position) != (branch.instead_of, branch.expected):
                return Receipt("moved", row)
            tables.rewind(branch)
            tables.end_asks(key, branch.instead_of)
            self._ask_again(branch)
            self._hand_on(key, branch.run)
            return Receipt("accepted", tables.row(key), created=True)
        if row is not None:
            return Receipt("accepted" if row.start_digest == branch.digest else "exists", row)
        tables.fork(branch)
        self._ask_again(branch)
        return Receipt("accepted", tables.row(key), created=True)

    def _ask_again(self, branch: Branch) -> None:
        """Questions that are open at the cut are asked by the new run."""
        for row in open_asks(branch):
            self.tables.put_ask(row)

    def deposit_start(self, start: Start) -> Receipt:
        """A start by a client: idempotent by its run, and unless it says otherwise by workflow and input."""
        tables = self.tables
        created = self.start(start)
        row = tables.row(start.key)
        assert row is not None
        if not created and not (start.is_choosy and tables.has_run(start.key, start.event.run)):
            if is_open(row.status) and start.on_conflict == "terminate":
                self._put_start(start)  # its owner ends it, and begins this one
            else:
                same = not fails(start, row.status) and is_same(row, start)
                return Receipt("accepted" if same else "exists", row)
        tables.keep(start.key, start.blobs)
        return Receipt("accepted", tables.row(start.key), created)

    def resume(self, key: Key, message_id: str) -> Receipt:
        """See `Store.resume`. What is parked is neither stalled nor paused, nor is it asked to be."""
        self.tables.unstall(key)
        receiver = self.tables.find(key)
        if receiver is None:
            return Receipt("missing")
        if message_id and receiver.status in ("active", "paused"):
            self.put(receiver, message_id, ev.ResumeRequested(message_id))
        return Receipt("accepted" if is_open(receiver.status) else "closed", self.tables.row(key))

    def deposit_mail(self, mail: Mail) -> Receipt:
        """A message by a client, who is told at once if there is no open receiver: nothing is kept then."""
        begun = None if mail.start is None else self.deposit_start(mail.start)
        if begun is not None and begun.status != "accepted":
            return begun
        receiver = self.tables.find(mail.receiver)
        if receiver is None:
            return Receipt("missing")
        if isinstance(mail.event, ev.ResolveRequested):
            return self._deposit_answer(receiver, mail.event)
        if self._is_known(mail):
            return Receipt("accepted", self.tables.row(mail.receiver))
        if refuses(receiver, mail):
            return Receipt("closed", self.tables.row(mail.receiver))
        if self._is_not_asked(mail):
            return Receipt("moot", self.tables.row(mail.receiver))
        self.put(receiver, mail.message_id, mail.event)
        self.tables.keep(mail.receiver, mail.blobs)
        return Receipt("accepted", self.tables.row(mail.receiver), begun is not None and begun.created)

    def _is_known(self, mail: Mail) -> bool:
        """Whether it is an update that has been asked for before."""
        event = mail.event
        return isinstance(event, ev.UpdateRequested) and self.tables.update(mail.receiver, event.update_id) is not None

    def _is_not_asked(self, mail: Mail) -> bool:
        """Whether it answers a question that is not open, or has another answer already."""
        asked = question_of(mail.event)
        if asked is None:
            return False
        return not self.tables.claim_ask(mail.receiver, mail.receiver_run, asked, mail.message_id)

    def _deposit_answer(self, receiver: Receiver, answer: ev.ResolveRequested) -> Receipt:
        """A person's answer what came of a step. Of a run that is over it is kept, as nothing can be journaled."""
        tables, key = self.tables, receiver.key
        if not tables.claim_unresolved(key, answer):
            return Receipt("moot", tables.row(key))
        if answer.run == receiver.run and refusal(receiver) is None:
            self.put(receiver, answer.message_id, answer)
        else:
            tables.end_unresolved(key, answer.run, answer.seq)
            tables.bury(key, answer.message_id, answer)
        return Receipt("accepted", tables.row(key))


def _parcel_of_mail(batch: Batch, mail: Mail) -> Parcel:
    return Parcel(batch.key, batch.run, mail.receiver, mail.receiver_run, mail.message_id, mail.seq, None, mail.event)


def _parcel_of_start(batch: Batch, start: Start) -> Parcel:
    seq = 0 if start.event.parent is None else start.event.parent.seq
    return Parcel(batch.key, batch.run, start.key, "", f"start:{start.event.run}", seq, start.digest, start.event)


class RoutedStore(ABC):
    """What stores over tables have in common: calls that are one transaction, and follow the router's rules."""

    _direct: bool  # mail is delivered in the sender's transaction, where that keeps the order

    @abstractmethod
    def _writing(self, session: Session | None = None) -> AbstractContextManager[Tables]:
        """One durable transaction, with the session's fence checked in it."""

    def commit(self, session: Session, batches: Sequence[Batch], advice: Sequence[Advice] = ()) -> Committed:
        """See `Store.commit`. A batch for a shard that another session owns by now is a conflict."""
        with self._writing(session) as tables:
            return Router(tables, direct=self._direct).commit(batches, advice)

    def deposit(self, starts: Sequence[Start] = (), mail: Sequence[Mail] = ()) -> list[Receipt]:
        """See `Store.deposit`."""
        with self._writing() as tables:
            router = Router(tables, direct=True)
            receipts = [router.deposit_start(each) for each in starts]
            return receipts + [router.deposit_mail(each) for each in mail]

    def resume(self, key: Key, message_id: str = "") -> Receipt:
        """See `Store.resume`."""
        with self._writing() as tables:
            return Router(tables, direct=True).resume(key, message_id)

    def branch(self, branch: Branch) -> Receipt:
        """See `Store.branch`."""
        with self._writing() as tables:
            return Router(tables, direct=True).branch(branch)

    def put_blobs(self, blobs: Sequence[Blob]) -> None:
        """See `Store.put_blobs`."""
        with self._writing() as tables:
            for each in blobs:
                tables.put_blob(each)

    def collect_blobs(self, before_ms: int, limit: int) -> int:
        """See `Store.collect_blobs`."""
        with self._writing() as tables:
            return tables.collect_blobs(before_ms, limit)
