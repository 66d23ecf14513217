"""The port to where journals live. SQLite and memory implement it now; one contract suite (tests/store/) holds for all.

Methods are synchronous and thread-safe per store object; each docstring gives atomicity and errors. Every method may
raise `StoreError` or a subclass, after which nothing of the call happened, unless the docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Literal, Protocol, TypeAlias

import msgspec

from perdure.core.errors import PerdureError
from perdure.core.events import (
    AnyEvent,
    Attribute,
    ExecutionStarted,
    FailureInfo,
    Payload,
    Recorded,
    SignalReceived,
    Usage,
)
from perdure.core.identity import Key

Status: TypeAlias = Literal["active", "parked", "paused", "stalled", "completed", "failed", "cancelled", "terminated"]
OPEN_STATUSES: tuple[Status, ...] = ("active", "parked", "paused", "stalled")


class Row(msgspec.Struct, frozen=True):
    """An execution as its row tells: a cache over the journal, except for `run`, `position` and `start_digest`."""

    key: Key
    run: str
    lane: str
    workflow: str
    status: Status
    position: int  # number of events in the run's journal
    start_digest: bytes  # of workflow and input: tells an idempotent start from a clash of ids
    created_at_ms: int
    closed_at_ms: int | None = None
    wake_at_ms: int | None = None  # parked: when its first timer or retry is due
    waits_for: str = ""  # parked: what a person should know it waits for
    recoveries: int = 0  # unclean deaths of its worker since it last made progress
    problem: str = ""  # stalled: why
    parent: str = ""
    state_position: int | None = None  # of the last `StatePublished` in its journal
    first_run: str = ""  # of the runs that followed each other up to this one

    @property
    def parent_id(self) -> str:
        """The execution that started it; empty if none did."""
        return self.parent.rsplit("/", 2)[0]


Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">="]


class Condition(msgspec.Struct, frozen=True):
    """What an attribute must be. Of a list, one item that fits is enough; "!=": it is set, and no item is that."""

    name: str
    operator: Operator
    kind: str
    value: bool | int | float | str


class Filter(msgspec.Struct, frozen=True):
    """Which executions are listed: those that meet every condition. What is empty is no condition."""

    namespace: str
    statuses: tuple[Status, ...] = ()
    workflow: str = ""
    prefix: str = ""  # of ids
    parent: str = ""
    from_ms: int | None = None  # created then or later
    until_ms: int | None = None  # created before
    where: tuple[Condition, ...] = ()


RunStatus: TypeAlias = Status | Literal["continued", "abandoned"]


class RunRow(msgspec.Struct, frozen=True):
    """A run of an execution, past or current. `abandoned`: it was open when the execution was rewound."""

    n: int  # grows from run to run of an execution
    run: str
    workflow: str
    status: RunStatus
    events: int
    began_at_ms: int
    ended_at_ms: int | None = None
    origin: str = ""  # execution/run/position that it was copied from; "" for the first one, and for continue-as-new


class Session(msgspec.Struct, frozen=True):
    """A worker's registration. (`session`, `epoch`) is its fence: a commit under an older epoch is refused."""

    session: int
    epoch: int
    worker: str
    fingerprint: str
    lanes: tuple[str, ...]


class Lease(msgspec.Struct, frozen=True):
    """What a session owns now. `ttl_ms` counts from the call, by the caller's monotonic clock; None: while it lives."""

    shards: frozenset[int]
    ttl_ms: int | None = None


OnConflict: TypeAlias = Literal["use", "fail", "terminate"]
Reuse: TypeAlias = Literal["never", "if_failed", "always"]


class Start(msgspec.Struct, frozen=True):
    """A new execution, or a new run of one that has closed, where `reuse` allows that.

    While one with its id is open, `on_conflict` tells what to do: "use" it if its workflow and input are the same,
    "fail", or "terminate" it and begin in its place. One that has closed counts as it did for "use", unless it may be
    reused: "if_failed" after anything but completion, or "always". Sent again, the same run never begins twice.
    """

    key: Key
    event: ExecutionStarted
    digest: bytes
    blobs: tuple[bytes, ...] = ()  # addresses of its blobs that the event refers to
    on_conflict: OnConflict = "use"
    reuse: Reuse = "never"

    @property
    def is_choosy(self) -> bool:
        """Whether another start with the same workflow and input is not as good: then it is known by its run."""
        return self.on_conflict != "use" or self.reuse != "never"


class Mail(msgspec.Struct, frozen=True):
    """A message on its way: `event` is what the receiver's owner will journal.

    `receiver_run` is the run that it is for, or the first of those that led to that one; empty: whichever is current.
    For any other it is dropped as stale. An answer to a command is for that command's run alone.
    """

    receiver: Key
    message_id: str  # at most one letter with this id waits for a receiver
    event: AnyEvent
    receiver_run: str = ""
    sender: Key | None = None
    sender_run: str = ""
    seq: int = 0  # of the sender's command, which is told of delivery or failure; 0 means nobody is
    start: Start | None = None  # of a deposit: the receiver, begun first if there is none; both or neither
    blobs: tuple[bytes, ...] = ()  # addresses of the receiver's blobs that the event refers to


class Letter(msgspec.Struct, frozen=True):
    """Mail that has arrived, in order of arrival."""

    arrival: int
    message_id: str
    event: AnyEvent


class UpdateRow(msgspec.Struct, frozen=True):
    """What has become of an update. `closed`: the run ended before it was answered."""

    update_id: str
    run: str
    status: Literal["accepted", "completed", "rejected", "closed"]
    position: int = 0  # of `UpdateAccepted` or `UpdateCompleted` in the run's journal
    failure: FailureInfo | None = None  # of a rejected one, which is in no journal


class UnresolvedRow(msgspec.Struct, frozen=True):
    """A step that is declared once, has begun, and of which nobody knows what it did."""

    key: Key
    run: str
    seq: int
    attempt: int
    intent: int  # position of its `StepIntended`, which has its full input, in the run's journal
    unknown: int  # of its `StepOutcomeUnknown`
    since_ms: int
    message_id: str = ""  # of the answer that is on its way
    refused: bool = False  # the last answer was: its value is not of the step's type


class AskRow(msgspec.Struct, frozen=True):
    """A question to people that is open, or whose answer is on its way. Who is asked is in clear."""

    key: Key
    run: str
    seq: int
    position: int  # of its `QuestionAsked` in the run's journal
    to: str
    escalate_to: str
    escalate_at_ms: int  # 0: never
    asked_at_ms: int
    expires_at_ms: int  # 0: never
    message_id: str = ""  # of the answer that is on its way
    refused: bool = False  # the last answer was not of its type

    def is_open(self, now_ms: int) -> bool:
        """Whether an answer would be taken."""
        return not self.message_id and not 0 < self.expires_at_ms <= now_ms

    def asked_of(self, now_ms: int) -> str:
        """Who is asked now."""
        return self.escalate_to if 0 < self.escalate_at_ms <= now_ms else self.to


class Blob(msgspec.Struct, frozen=True):
    """A large value, kept apart from the event that refers to it: once in an execution, however often it is used."""

    key: Key
    address: bytes  # a hash of the data; keyed where values are encrypted
    data: bytes


class NewEvent(msgspec.Struct, frozen=True, gc=False):
    """An event to append, with the header that the store cannot know."""

    event: AnyEvent
    at_ms: int
    trace_parent: str = ""
    usage: Usage | None = None


class Succession(msgspec.Struct, frozen=True, gc=False):
    """The run that follows: begins with `events`, in the commit that ends the one before.

    The inbox is its, `carried` before what waits in it: messages that the ending run had journaled and not received.
    What was `received` is not put into an inbox of this execution again, nor does it stay in this one.
    """

    run: str
    workflow: str
    events: Sequence[NewEvent]
    carried: Sequence[Mail] = ()
    received: Sequence[str] = ()  # message ids, of the run that ends


class Branch(msgspec.Struct, frozen=True):
    """A run that begins with events copied from another: of a new execution, or in the place of `instead_of`.

    `events` end with `RunForked`. They keep their headers; positions count from 0.
    """

    key: Key
    run: str
    workflow: str
    lane: str
    origin: str  # execution/run/position
    events: Sequence[Recorded]
    digest: bytes = b""  # of a new execution: tells an idempotent fork from a clash of ids
    instead_of: str = ""  # the current run, which is over with this
    expected: int = 0  # its length
    carried: Sequence[Mail] = ()
    received: Sequence[str] = ()
    blobs: tuple[bytes, ...] = ()


class Batch(msgspec.Struct, gc=False):
    """What one execution wants written: all of it or nothing, and only if its journal is `expected` events long.

    With `create`, the execution comes into being in the same transaction (`expected` is 0). `taken` letters leave the
    inbox. With `inbox_seen`, the batch is left out (`MAIL`) if the inbox holds any letter that is neither in `taken`
    nor in `left`: so timers never overtake messages that are already stored. `buried` signals, which are journaled,
    become dead letters. One that closes is left out too (`MAIL`), if a start waits in the inbox that is to begin in its
    place and is not in `taken`. `unresolved` are listed until they are among the `resolved` of a later batch. A batch
    leaves its row `active`, or closed with `closes`, or handed on to the next run with `then`.
    `blobs` are the addresses that its events refer to: they are kept from now on.
    """

    key: Key
    run: str
    expected: int
    events: Sequence[NewEvent]
    taken: Sequence[Letter] = ()
    inbox_seen: bool = False
    left: Sequence[Letter] = ()
    mail: Sequence[Mail] = ()
    starts: Sequence[Start] = ()
    create: Start | None = None
    closes: Status | None = None
    successor: Start | None = None  # what begins in its place when it closes, whatever it says of conflicts
    attributes: Mapping[str, Attribute] | None = None  # all that it can be found by from now on
    then: Succession | None = None
    state_at: int | None = None  # position of the last `StatePublished` among the events
    updates: Sequence[UpdateRow] = ()
    buried: Sequence[SignalReceived] = ()
    unresolved: Sequence[UnresolvedRow] = ()
    resolved: Sequence[int] = ()  # by seq
    asks: Sequence[AskRow] = ()
    closed_asks: Sequence[int] = ()  # by seq; all of the run's close with it
    reopened_asks: Sequence[int] = ()  # whose answer was not of their type
    blobs: Sequence[bytes] = ()


class Park(msgspec.Struct, frozen=True):
    """Advice about an idle execution, applied only if its journal still is `position` events long and it is open.

    It does not park (nor does it change anything) while a letter waits in the inbox, unless `status` is `stalled`, or
    `paused` and none of them is a request to pause, resume or terminate; nor does it hide a stall: what stalled stays
    so until a batch, a request to terminate, or `resume`; what is paused until a batch or one of those requests.
    """

    key: Key
    run: str
    position: int
    status: Literal["parked", "paused", "stalled"] = "parked"
    wake_at_ms: int | None = None
    waits_for: str = ""
    problem: str = ""


class Running(msgspec.Struct, frozen=True):
    """Advice about a step that has been open for a while, for people and for its next attempt's `progress`.

    With `attempt` 0 it is open no more, and no event says so: the code stopped waiting for it.
    With `seq` 0 it is no step: it tells that the execution runs alone after `attempt` unclean deaths of its worker, or,
    with a negative `attempt`, that this is over.
    """

    key: Key
    run: str
    seq: int
    name: str
    attempt: int
    started_at_ms: int
    progress: Payload | None = None


Advice: TypeAlias = Park | Running


class Outcome(Enum):
    """What became of one batch."""

    COMMITTED = "committed"
    CONFLICT = "conflict"  # position, run, existence or the shard's owner did not match: left out
    MAIL = "mail"  # the inbox held what it must know of: left out


class Committed(msgspec.Struct, frozen=True):
    """What became of a commit: an outcome per batch, and which active executions got letters by its mail and starts.

    An error in the place of an outcome says why the batch could not be written at all: it was left out.
    """

    outcomes: Sequence[Outcome | PerdureError]
    woken: Sequence[Key] = ()


class Receipt(msgspec.Struct, frozen=True):
    """What became of one deposit.

    `accepted`: stored (or stored before: deposits are idempotent by message id and by start). `missing`, `closed`:
    there is no open receiver, or the run is over; nothing is kept. `exists`: a start whose id is taken by another
    workflow or input; `row` is that one. `moot`: it answers what nobody asks, or what was answered already.
    `moved`: a rewind of a run that has gone on since. `refused`: by the engine, for the reason in `detail`; nothing is
    kept.
    """

    status: Literal["accepted", "missing", "closed", "exists", "moot", "moved", "refused"]
    row: Row | None = None
    created: bool = False
    detail: str = ""


class Collected(msgspec.Struct, frozen=True):
    """What a bite of a removal did. `after` is where the next one looks on, `more` whether there is any use in one."""

    executions: int
    events: int
    after: tuple[int, int] | None
    more: bool
    runs: int = 0  # past ones, of executions that stay


class Store(Protocol):
    """A place where journals live."""

    path: str
    shards: int

    def open_session(self, worker: str, lanes: Sequence[str], fingerprint: str) -> Session:
        """Register a worker and take over what no live session owns.

        Atomic. Sessions found dead are fenced first: their later commits raise `OwnershipLost`. Rows that were
        `active` under a session that died uncleanly, or parked and due by now (a retried attempt writes nothing when
        it begins), get one more `recoveries`: all of them, unless one was told to run alone (a `Running` of step 0
        with a positive `attempt`); then only that one, as the others stood still.

        Raises:
            StoreBusy: a live session owns the store and it cannot be shared.
        """
        ...

    def renew(self, session: Session) -> Lease:
        """Heartbeat: prolong the lease, hand over and take what is due. Raises `OwnershipLost` if fenced."""
        ...

    def close_session(self, session: Session) -> None:
        """End it cleanly: what it owned is free at once and no `recoveries` are counted. Idempotent."""
        ...

    def commit(self, session: Session, batches: Sequence[Batch], advice: Sequence[Advice] = ()) -> Committed:
        """Compare-and-append many executions' batches in one durable transaction: the only mutation of a run.

        Batches that do not match are left out, the others commit, in order: later ones may depend on earlier ones.
        Mail goes to the receivers' inboxes in the same transaction while the sender's outbox for that receiver is
        empty, else through the outbox; receivers wake (parked becomes active; for a request to terminate, stalled
        too). Mail without an open receiver bounces to its sender; signals are also kept as dead letters, unless they
        were for a run that is over. A start whose id is taken bounces as `ChildStartFailed`, unless it is this very
        child. Letters left in the inbox of an execution that closes become dead letters, unless they are moot: answers,
        and requests to end it. Its updates that are not answered, in the inbox or accepted, are `closed`. Each batch
        resets `recoveries` and drops `Running` rows of the steps that it answers.

        When it returns, all is durable. If it raises `StoreError`, nothing happened; only if the process dies before
        it has written anything else may the next one find a commit that failed: wholly, never in part.

        Raises:
            OwnershipLost: the session is fenced; nothing of the call happened.
        """
        ...

    def deposit(self, starts: Sequence[Start] = (), mail: Sequence[Mail] = ()) -> Sequence[Receipt | PerdureError]:
        """Starts and messages from outside, by anyone, without a fence. One durable transaction; receipts in order.

        An error in the place of a receipt says why that one could not be written at all; the others were.

        A start inserts the row, `active` with an empty journal (or `parked` until it is due), and puts
        `ExecutionStarted` into its inbox: the owner journals it. One that terminates an open execution goes into the
        inbox of that: its owner closes it and begins the new run in one commit. Mail with a `start` is refused as that
        is. An update that has an `UpdateRow` is accepted, and not put into the inbox again. A signal
        that answers a question is accepted once for the `AskRow` of its `receiver_run`. `ResolveRequested` is accepted
        once for each `UnresolvedRow`; if its run is over, it ends that row at once, and is kept as a dead letter.
        `resume` of a stalled execution is not mail; see `resume`.
        """
        ...

    def resume(self, key: Key, message_id: str = "") -> Receipt:
        """Make a stalled execution active again and reset its `recoveries`; with a message id, end its pause as well.

        For that, `ResumeRequested` goes into its inbox. Durable; idempotent by message id.
        """
        ...

    def branch(self, branch: Branch) -> Receipt:
        """A fork or a rewind, by anyone, without a fence. One durable transaction.

        A fork is a new execution, `active`: `accepted` too if that very fork exists already (same digest), `exists` if
        the id is taken otherwise. A rewind replaces the current run, open or closed, if it still is `instead_of` and
        `expected` events long, else `moved`. What that run's owner commits afterwards is a conflict. The inbox is the
        new run's, as with `Succession`.
        """
        ...

    def deliver(self, session: Session, limit: int) -> list[Key]:
        """Move up to `limit` outbox messages to their inboxes, each (sender run, receiver) in order. One transaction.

        Returns which active executions got letters.
        """
        ...

    def load(self, key: Key, run: str, position: int, limit: int) -> list[Recorded]:
        """Up to `limit` events of a run from `position` on, in order, from one snapshot.

        Raises:
            CorruptJournal: a row does not decode, was changed, or is missing.
            JournalFromTheFuture: a row was written in a newer format.
        """
        ...

    def inbox(self, key: Key, limit: int) -> list[Letter]:
        """Up to `limit` waiting letters, those that came first, in order of arrival. Read-only."""
        ...

    def requests(self, key: Key, limit: int) -> list[Letter]:
        """Those of the waiting letters that ask to pause, resume or terminate, and can be read. Read-only."""
        ...

    def ready(self, session: Session, now_ms: int, after: Key | None, limit: int) -> list[Row]:
        """Rows in owned shards and lanes, active or parked and due by `now_ms`, by key, after a key. Read-only."""
        ...

    def next_wake_ms(self, session: Session, after_ms: int) -> int | None:
        """The earliest `wake_at_ms` after that time of a parked row in owned shards. Read-only."""
        ...

    def row(self, key: Key) -> Row | None:
        """One execution's row. Read-only."""
        ...

    def runs(self, key: Key, before: int | None, limit: int) -> list[RunRow]:
        """A page of an execution's runs, the newest first, from below that `n` on. Read-only."""
        ...

    def find(self, wanted: Filter, after: tuple[int, str] | None, limit: int) -> list[Row]:
        """Rows, newest first: by `created_at_ms`, then id; from below that pair on. One snapshot. Read-only."""
        ...

    def running(self, key: Key) -> list[Running]:
        """What was last told of open steps, and of an execution that runs alone. Read-only."""
        ...

    def attributes(self, key: Key) -> dict[str, Attribute]:
        """What the execution can be found by. Read-only."""
        ...

    def dead_letters(self, key: Key, limit: int) -> list[Letter]:
        """What could not be delivered to this execution. Read-only."""
        ...

    def update(self, key: Key, update_id: str) -> UpdateRow | None:
        """What has become of an update; None if nothing yet. Of rejections, the last thousand are known. Read-only."""
        ...

    def unresolved(
        self, namespace: str, execution: str, after: UnresolvedRow | None, limit: int
    ) -> list[UnresolvedRow]:
        """A page of what nobody knows, by key, run and seq, after one; of all executions if empty. Read-only."""
        ...

    def asks(
        self, namespace: str, execution: str, to: str, now_ms: int, after: AskRow | None, limit: int
    ) -> list[AskRow]:
        """A page of open questions, by key, run and seq, after one; of all executions, or to anybody, if empty.

        Those that are open at `now_ms`, by whom they are asked then; with 0, also those that are answered or too late,
        and by whom they were asked first. Read-only.
        """
        ...

    def tail(self, shard: int, after: int, limit: int) -> list[tuple[int, Key, str, Recorded]]:
        """The shard's feed: (shard_pos, key, run, event) with `shard_pos` above `after`, in order. Read-only.

        `shard_pos` grows with every commit of the shard's owner: whoever has read to n never misses an event above n.
        """
        ...

    def put_blobs(self, blobs: Sequence[Blob]) -> None:
        """Store large values, by anyone, without a fence, before the commit or deposit that refers to them.

        One durable transaction. Idempotent: a blob that is there is fresh again. Nobody owns it until something that
        refers to it is written; what stays without an owner is collected.
        """
        ...

    def blob(self, key: Key, address: bytes) -> bytes | None:
        """The data of an execution's blob; None if there is none. Read-only."""
        ...

    def collect_blobs(self, before_ms: int, limit: int) -> int:
        """Delete up to `limit` blobs that nothing refers to and that were put before that time; how many there were.

        One durable transaction. Left by whoever died between putting and committing, or was refused.
        """
        ...

    def collect(
        self, namespace: str, before_ms: int, after: tuple[int, int] | None, limit: int, *, runs: bool = False
    ) -> Collected:
        """Remove executions that closed before that time, with all that belongs to them: one bite, by anyone.

        One durable transaction, of about `limit` rows; those that closed first go first, from behind that place on.
        An id is free when its row has gone; events and large values follow in this and later bites. One stays as long
        as its messages wait or a step is unresolved, or its parent is open and has not journaled how it closed.

        With `runs`, past runs that ended before then, of any execution: with events, answers of updates, ids of what no
        later run received, and, once no letter waits, large values that nothing refers to. One stays as long as its
        messages wait or a step is unresolved, and if it tells where it was copied from.
        """
        ...

    def collectable(
        self, namespace: str, before_ms: int, after: tuple[int, int] | None, limit: int, *, runs: bool = False
    ) -> Collected:
        """What `collect` would remove, of a page of `limit`. Read-only."""
        ...

    def changes(self) -> int:
        """A number that differs when another connection or process has written since it was last asked. Read-only."""
        ...

    def now_ms(self) -> int:
        """The database's clock: milliseconds since 1970, UTC."""
        ...

    def close(self) -> None:
        """Release everything. Idempotent."""
        ...
