"""What all stores decide alike: which starts are the same, which letters wake whom, what is kept of them. Pure."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from perdure.core import events as ev
from perdure.core.ask_events import answered_by
from perdure.core.errors import CorruptJournal, JournalFromTheFuture
from perdure.store.protocol import OPEN_STATUSES, AskRow, Branch, Condition, Filter, Mail, Row, Start, Status, UpdateRow
from perdure.store.records import unseal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from perdure.core.identity import Key
    from perdure.store.records import Body

ANSWERS = (ev.StepCompleted, ev.StepFailed, ev.StepAttemptFailed, ev.StepOutcomeUnknown)
"""Events after which a step is no longer running."""
REJECTIONS = 1_000
"""Rejected updates of an execution that are remembered, for callers who ask again."""


class Receiver(NamedTuple):
    """What routing must know of an execution; `number` is the store's own name for its current run."""

    key: Key
    number: int
    run: str
    status: Status
    parent: str
    first_run: str  # of those up to this one; empty: this one
    position: int

    @property
    def waits_to_begin(self) -> bool:
        """Whether its start is put off."""
        return self.status == "parked" and not self.position


class Parcel(NamedTuple):
    """Mail on its way out of a run, or the start of a child when there is a `digest`."""

    sender: Key
    sender_run: str
    receiver: Key
    receiver_run: str
    message_id: str
    seq: int
    digest: bytes | None
    event: ev.AnyEvent


def asks(event: ev.AnyEvent, receiver: Receiver) -> bool:
    """Whether it must be found behind any number of other letters: a request to pause, resume or terminate.

    To begin in place of what has begun is one to terminate.
    """
    if isinstance(event, ev.ExecutionStarted):
        return event.run != receiver.run
    return isinstance(event, ev.PauseRequested | ev.ResumeRequested | ev.TerminateRequested)


def wakes(receiver: Receiver, event: ev.AnyEvent) -> bool:
    """Whether a letter makes its row active. To terminate, code that stalled is not needed."""
    is_other = isinstance(event, ev.ExecutionStarted) and event.run != receiver.run
    ends = is_other or isinstance(event, ev.TerminateRequested)
    if receiver.status == "stalled":
        return ends
    if receiver.waits_to_begin:
        return ends or isinstance(event, ev.CancelRequested)
    return receiver.status != "paused" or asks(event, receiver)


def begins_as(start: Start, position: int, now_ms: int) -> tuple[Status, int | None]:
    """Status and `wake_at_ms` of a new row."""
    begins_ms = start.event.start_at_ms
    return ("parked", begins_ms) if begins_ms > now_ms and not position else ("active", None)


def may_begin_again(start: Start, status: Status) -> bool:
    """Whether the id of an execution that has ended so may be used again."""
    if is_open(status):
        return False
    return start.reuse == "always" or (start.reuse == "if_failed" and status != "completed")


def parent_of(start: Start) -> str | None:
    """The execution that started it."""
    return None if start.event.parent is None else start.event.parent.execution


def child_of(start: Start) -> str:
    """Who started it, as the row tells: execution/run/seq. Empty if it is no child."""
    parent = start.event.parent
    return "" if parent is None else f"{parent.execution}/{parent.run}/{parent.seq}"


def is_open(status: Status) -> bool:
    """Whether an execution may still get events."""
    return status in OPEN_STATUSES


def worth_keeping(event: ev.AnyEvent) -> bool:
    """Whether a letter that can never be journaled still matters to a person.

    Requests to end what has ended, answers to a run that no longer asks, and updates, whose callers are told, are moot.
    """
    moot = ev.CommandEvent | ev.ExecutionStarted | ev.CancelRequested | ev.UpdateRequested
    return not isinstance(event, moot | ev.PauseRequested | ev.ResumeRequested | ev.TerminateRequested)


def letter_of(body: Body | list[Any]) -> ev.AnyEvent | None:
    """A letter as it is kept. None: it cannot be read, which must not stop a commit of others."""
    try:
        return unseal(body, "a letter")
    except (CorruptJournal, JournalFromTheFuture):
        return None


def begins_instead(run: str, body: Body | list[Any]) -> bool:
    """Whether a letter to this run asks to begin another one in its place."""
    event = letter_of(body)
    return isinstance(event, ev.ExecutionStarted) and event.run != run


class Settling(Protocol):
    """Of a store's primitives, those by which letters are settled that no run will journal."""

    def update(self, key: Key, update_id: str) -> UpdateRow | None: ...
    def put_update(self, key: Key, update: UpdateRow) -> None: ...
    def end_unresolved(self, key: Key, run: str, seq: int) -> None: ...
    def bury(self, key: Key, message_id: str, event: ev.AnyEvent) -> None: ...
    def has_run(self, key: Key, run: str) -> bool: ...


def close_letter(tables: Settling, key: Key, run: str, body: Body | list[Any]) -> bool:
    """Settle a letter that a run which has closed leaves in its inbox; whether it is to be buried."""
    event = letter_of(body)
    if isinstance(event, ev.UpdateRequested):
        tables.put_update(key, UpdateRow(event.update_id, run, "closed"))
    if isinstance(event, ev.ResolveRequested):
        tables.end_unresolved(key, event.run, event.seq)
    return event is None or worth_keeping(event)


def reopen_updates(tables: Settling, branch: Branch) -> None:
    """After a rewind that closed what the run before had accepted: who waits for an answer may still get it."""
    for update_id in still_asked(branch):
        found = tables.update(branch.key, update_id)
        if found is not None and found.status == "closed":
            tables.put_update(branch.key, UpdateRow(update_id, branch.run, "accepted"))


def stays(tables: Settling, key: Key, body: Body | list[Any]) -> bool:
    """Whether a letter that a run did not journal is for the next one, too; else it is settled.

    Answers are for the command that asked, whose number means another one there.
    """
    event = letter_of(body)
    if isinstance(event, ev.ResolveRequested):
        tables.end_unresolved(key, event.run, event.seq)
        tables.bury(key, event.message_id, event)
        return False
    if isinstance(event, ev.SignalReceived) and question_of(event) is not None:
        tables.bury(key, event.message_id, event)
        return False
    if isinstance(event, ev.ExecutionStarted):
        return not tables.has_run(key, event.run)  # it waits to begin in the place of whichever run there is
    return not isinstance(event, ev.CommandEvent)


def question_of(event: ev.AnyEvent | None) -> int | None:
    """The number of the question that a letter answers; None if it answers none."""
    return answered_by(event.name) if isinstance(event, ev.SignalReceived) else None


def open_asks(branch: Branch) -> list[AskRow]:
    """The questions among copied events that have no answer there."""
    rows: dict[int, AskRow] = {}
    answered: dict[int, AskRow] = {}
    for recorded in branch.events:
        event = recorded.event
        if isinstance(event, ev.QuestionAsked):
            whom = (event.to, event.escalate_to, event.escalate_at_ms)
            place = (branch.key, branch.run, event.seq, recorded.position)
            rows[event.seq] = AskRow(*place, *whom, recorded.at_ms, event.expires_at_ms)
        elif isinstance(event, ev.QuestionClosed):
            rows.pop(event.asked, None)
        elif (seq := question_of(event)) is not None and seq in rows:
            answered[seq] = rows.pop(seq)
        elif isinstance(event, ev.MessageDropped) and (seq := answered_by(event.name)) in answered:
            rows[seq] = answered.pop(seq)
    return [rows[seq] for seq in sorted(rows)]


def is_stale(receiver: Receiver | None, run: str, event: ev.AnyEvent) -> bool:
    """Whether it is for another run than the current one. What was sent to the first run is for those that follow it.

    But not answers: they are for the very command that asked.
    """
    if receiver is None or run in ("", receiver.run):
        return False
    return isinstance(event, ev.CommandEvent) or run != receiver.first_run


def refusal(receiver: Receiver | None) -> str | None:
    """Why a message cannot be delivered, or None."""
    if receiver is None:
        return "no execution has this id"
    if not is_open(receiver.status):
        return f"the execution is closed ({receiver.status})"
    return None


def is_of(row: Row, start: Start) -> bool:
    """Whether the execution was started as this workflow. What it has become since is its own affair."""
    return bool(row.first_run) or row.workflow == start.event.workflow


def is_same(row: Row, start: Start) -> bool:
    """Whether the execution was started as this one is. An encrypted digest tells nothing here."""
    return is_of(row, start) and row.start_digest == start.digest


def fails(start: Start, status: Status) -> bool:
    """Whether the start is refused because an execution with its id is open, be it the same."""
    return start.on_conflict == "fail" and is_open(status)


def refuses(receiver: Receiver, mail: Mail) -> bool:
    return is_stale(receiver, mail.receiver_run, mail.event) or refusal(receiver) is not None


def start_of(branch: Branch) -> Start:
    """What a fork's row is made of: it is nobody's child, whatever it is a copy of."""
    event = branch.events[0].event
    assert isinstance(event, ev.ExecutionStarted)
    begun = msgspec.structs.replace(event, run=branch.run, workflow=branch.workflow, lane=branch.lane, parent=None)
    return Start(branch.key, begun, branch.digest)


def still_asked(branch: Branch) -> list[str]:
    """Updates that the new run is to answer: accepted in what was copied, or carried to it."""
    events = [recorded.event for recorded in branch.events]
    asked = {event.update_id: None for event in events if isinstance(event, ev.UpdateAccepted)}
    for event in events:
        if isinstance(event, ev.UpdateCompleted):
            asked.pop(event.update_id, None)
    carried = [mail.event for mail in branch.carried]
    return [*asked, *(event.update_id for event in carried if isinstance(event, ev.UpdateRequested))]


def attributes_of(events: Iterable[ev.AnyEvent]) -> dict[str, ev.Attribute]:
    """What a journal says that its execution can be found by."""
    found: dict[str, ev.Attribute] = {}
    for event in events:
        if isinstance(event, ev.ExecutionStarted):
            found |= event.attributes
        elif isinstance(event, ev.AttributesSet):
            found = {name: each for name, each in (found | event.changed).items() if name not in event.removed}
    return found


def state_at(events: Sequence[ev.AnyEvent]) -> int | None:
    """Where the state stands that the last of these events publishes."""
    return max((n for n, event in enumerate(events) if isinstance(event, ev.StatePublished)), default=None)


def state_of(branch: Branch) -> int | None:
    """Where the state stands that was last published in what is copied."""
    return state_at([recorded.event for recorded in branch.events])


# --- lists ---

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def newest(rows: Iterable[Row], limit: int) -> list[Row]:
    """The first of them, in the order of lists."""
    return sorted(rows, key=lambda row: (row.created_at_ms, row.key.execution), reverse=True)[:limit]


def matches(wanted: Filter, row: Row, attributes: Mapping[str, ev.Attribute]) -> bool:
    """Whether it is one of those that are asked for."""
    checks = (
        row.key.namespace == wanted.namespace,
        not wanted.statuses or row.status in wanted.statuses,
        wanted.workflow in ("", row.workflow),
        row.key.execution.startswith(wanted.prefix),
        wanted.parent in ("", row.parent_id),
        wanted.from_ms is None or row.created_at_ms >= wanted.from_ms,
        wanted.until_ms is None or row.created_at_ms < wanted.until_ms,
    )
    return all(checks) and all(_holds(each, attributes.get(each.name)) for each in wanted.where)


def _holds(condition: Condition, attribute: ev.Attribute | None) -> bool:
    if attribute is None or attribute.kind != condition.kind:
        return False
    value, wanted = attribute.value, condition.value
    items = value if isinstance(value, tuple) else (value,)
    if condition.operator == "!=":
        return wanted not in items
    return any(_COMPARE[condition.operator](item, wanted) for item in items)
