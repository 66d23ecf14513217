"""The laws: what must hold of journals, inboxes and the outside ledger after anything that can happen.

Each is a function that raises `Broken`. Those over one journal take it alone; those over the whole take the evidence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from perdure.core import events as ev
from perdure.core.errors import PerdureError
from perdure.core.format import encode_event
from perdure.core.identity import Key, derived_id
from perdure.runtime.closing import PARENT_CLOSED
from perdure.store.protocol import OPEN_STATUSES, Batch, Filter, Row, Store
from perdure.testing.ask_laws import (
    calls_ran_as_they_were_shown,
    questions_have_one_answer,
    was_answered_before,
    what_is_listed_is_open,
)
from perdure.testing.bank import Bank
from perdure.testing.child_laws import no_child_goes_on_beside_a_successor
from perdure.testing.client_laws import order_per_client
from perdure.testing.deploys import a_change_is_taken_wholly
from perdure.testing.effect_laws import (
    effects_are_told_truly,
    what_had_begun_does_not_vanish,
    what_nobody_knows_is_listed,
)
from perdure.testing.ledger import Broken, Journal, Ledger
from perdure.testing.replaying import FIXED_POINT, Replay, check_prefix, replay
from perdure.workflow.definitions import Workflow

ANSWERS = (
    ev.StepCompleted,
    ev.StepFailed,
    ev.TimerFired,
    ev.ChildClosed,
    ev.ChildStartFailed,
    ev.MessageDelivered,
    ev.MessageFailed,
)
ONCE = (ev.ChildInitiated, ev.MessageSent)
MESSAGES = (
    ev.SignalReceived,
    ev.CancelRequested,
    ev.ResumeRequested,
    ev.ChildClosed,
    ev.MessageDelivered,
    ev.MessageFailed,
    ev.ChildStartFailed,
)
RESULTS = (ev.StepCompleted, ev.StepFailed, ev.StepAttemptFailed)
ALL = 1_000_000

E = TypeVar("E", bound=ev.Event)


class Evidence(NamedTuple):
    """What the laws look at when a simulation has ended."""

    store: Store  # without faults
    ledger: Ledger
    workflows: Mapping[str, Workflow[..., Any]]
    fingerprint: str
    namespace: str
    bank: Bank | None  # None: effects are none of its business


# --- one batch ------------------------------------------------------------------------------------------------------


def order_within_a_commit(batch: Batch) -> None:
    """Messages, then results, then due timers, then what the execution does itself."""
    ranks = [_rank(new.event) for new in batch.events]
    if ranks != sorted(ranks):
        kinds = [type(new.event).__name__ for new in batch.events]
        raise Broken("order within a commit", f"{batch.key.execution}: {kinds}", batch.key)
    if any(rank == 3 for rank in ranks) and not batch.inbox_seen:
        raise Broken("a timer fires only where the inbox was read", batch.key.execution, batch.key)


def _rank(event: ev.AnyEvent) -> int:
    if isinstance(event, ev.ExecutionStarted | ev.ExecutionClaimed):
        return 0
    if isinstance(event, ev.PauseRequested):
        return 5
    if isinstance(event, MESSAGES):
        return 1
    if isinstance(event, (*RESULTS, ev.StepOutcomeUnknown)):
        return 2
    return 3 if isinstance(event, ev.TimerFired) else 4


# --- one journal ----------------------------------------------------------------------------------------------------


def well_formed(journal: Journal) -> None:
    """Positions without gaps, time that never goes back, a beginning, and nothing after the end."""
    now_ms = 0
    for position, recorded in enumerate(journal.events):
        if recorded.position != position:
            raise Broken(
                "positions have no gaps", f"{journal.key.execution}: {recorded.position} at {position}", journal.key
            )
        if recorded.at_ms < now_ms:
            raise Broken("logical time never goes back", f"{journal.key.execution} at {position}", journal.key)
        now_ms = recorded.at_ms
    kinds = [type(recorded.event) for recorded in journal.events]
    first = [kind for kind in kinds[:3] if kind is not ev.Snapshot]
    if first[:2] != [ev.ExecutionStarted, ev.ExecutionClaimed]:
        raise Broken("a run begins with its start and its claim", f"{journal.key.execution}: {kinds[:2]}", journal.key)
    if any(kind in ev.CLOSING for kind in kinds[:-1]):
        raise Broken("nothing follows the close", journal.key.execution, journal.key)


def one_answer_per_command(journal: Journal) -> None:
    """A command is answered at most once, begun at most once, and its attempts are numbered without gaps."""
    answered: set[int] = set()
    begun: set[int] = set()
    attempts: dict[int, int] = defaultdict(int)
    for recorded in journal.events:
        event = recorded.event
        if not isinstance(event, ev.CommandEvent):
            continue
        if event.seq in answered:
            raise Broken("one answer per command", f"{journal.key.execution} #{event.seq}: {event}", journal.key)
        if isinstance(event, ANSWERS):
            answered.add(event.seq)
        if isinstance(event, ONCE):
            if event.seq in begun:
                raise Broken("a command begins once", f"{journal.key.execution} #{event.seq}", journal.key)
            begun.add(event.seq)
        if isinstance(event, RESULTS):
            attempts[event.seq] += 1
            if event.attempt != attempts[event.seq]:
                raise Broken(
                    "attempts are counted", f"{journal.key.execution} #{event.seq}: {event.attempt}", journal.key
                )


def order_per_sender(journal: Journal) -> None:
    """Messages of one sending run arrive in the order of their numbers, none twice, none left out in between."""
    last: dict[str, int] = {}
    for recorded in journal.events:
        if isinstance(recorded.event, ev.RunForked):
            last.clear()
        sender = getattr(recorded.event, "sender_run", "")
        if not sender:
            continue
        number: int = recorded.event.number  # type: ignore[union-attr]
        if sender in last and number != last[sender] + 1:
            raise Broken("order per sender", f"{journal.key.execution}: {number} after {last[sender]}", journal.key)
        last[sender] = number


def each_message_once(journal: Journal) -> None:
    """No message stands twice in a journal."""
    seen: set[str] = set()
    for recorded in journal.events:
        name = getattr(recorded.event, "message_id", "")
        if name and name in seen:
            raise Broken("each message once", f"{journal.key.execution}: {name}", journal.key)
        seen.add(name)


def replays(journal: Journal, workflow: Workflow[..., Any], fingerprint: str, prefixes: Iterable[int]) -> Replay:
    """The whole journal and the given prefixes replay to the same commands and states; no timer fired early."""
    events, name = journal.events, journal.key.execution
    try:
        full = replay(workflow, name, events, fingerprint, take=journal.ends)
        full.execution.evict()
        for length in prefixes:
            check_prefix(workflow, name, events[:length], fingerprint, full)
    except PerdureError as error:
        raise Broken(FIXED_POINT, f"{name}: {error}", journal.key) from error
    except Broken as broken:
        broken.key = journal.key
        raise
    for recorded in events:
        event = recorded.event
        if isinstance(event, ev.TimerFired) and full.commands[event.seq][1] > recorded.at_ms:
            raise Broken("no timer fires early", f"{name} #{event.seq}", journal.key)
    return full


# --- the whole ------------------------------------------------------------------------------------------------------


def rows_of(evidence: Evidence) -> dict[str, Row]:
    """All executions by id."""
    return {row.key.execution: row for row in evidence.store.find(Filter(evidence.namespace), None, ALL)}


def the_store_holds_what_was_seen(evidence: Evidence) -> None:
    """The journals in the end are, byte for byte, what was committed piece by piece."""
    for journal in evidence.ledger.journals.values():
        loaded = evidence.store.load(journal.key, journal.run, 0, ALL)
        if [encode_event(recorded.event) for recorded in loaded] != journal.bodies or loaded != journal.events:
            raise Broken("the journal only grows", f"{journal.key.execution} has changed", journal.key)


def steps_began_from_the_journal(evidence: Evidence, replays_: Mapping[tuple[Key, str], Replay]) -> None:
    """No step began that the journal, as durable as it was at that moment, had not led to."""
    by_run = {run: (key, full) for (key, run), full in replays_.items()}
    for start in evidence.ledger.starts:
        if start.run not in by_run:
            continue
        key, full = by_run[start.run]
        point = full.points[start.length - 1] if start.length else None
        if point is None or start.seq >= point.next_seq:
            raise Broken(
                "durable first, visible second",
                f"{start.name} #{start.seq} of {start.execution} began in "
                f"{start.process} at {start.length} durable events",
                key,
            )


def no_step_begins_in_a_pause(evidence: Evidence) -> None:
    """Once a worker knows that an execution is paused: whoever wrote it knows when the commit is answered.

    One who had it before, and lost it when the database's clock jumped, does not know what another one has written.
    """
    by_run = {run: journal for (_, run), journal in evidence.ledger.journals.items()}
    for start in evidence.ledger.starts:
        journal = by_run[start.run]
        since = _paused_since(journal.events[: start.length])
        if since is None:
            continue
        is_just_written = start.length == since + 1 and start.process == journal.writers[since]
        was_its = start.process in journal.writers[:since] and start.process not in journal.writers[since:]
        if not (is_just_written or was_its):
            detail = f"{start.name} #{start.seq} of {start.execution} began in {start.process}"
            raise Broken("no step begins in a pause", detail, journal.key)


def _paused_since(events: Sequence[ev.Recorded]) -> int | None:
    """Position of the request that began the pause that these events end in."""
    for recorded in reversed(events):
        if isinstance(recorded.event, ev.ResumeRequested):
            return None
        if isinstance(recorded.event, ev.PauseRequested):
            return recorded.position
    return None


def nothing_acknowledged_is_lost(evidence: Evidence) -> None:
    """Each acknowledged message is in the journal, in the inbox, or a dead letter; each accepted start has a run."""
    rows = rows_of(evidence)
    for key in evidence.ledger.accepted_starts:
        row = rows.get(key.execution)
        if row is None:
            raise Broken("no acknowledged start is lost", key.execution, key)
    kept = {name: _kept(evidence, row) for name, row in rows.items()}
    for each in evidence.ledger.acknowledged:
        mail = each.mail
        if mail.message_id in kept[mail.receiver.execution] or was_answered_before(evidence, mail):
            continue
        if isinstance(mail.event, ev.SignalReceived) or rows[mail.receiver.execution].status in OPEN_STATUSES:
            raise Broken(
                "no acknowledged message is lost", f"{mail.message_id} to {mail.receiver.execution}", mail.receiver
            )


def _kept(evidence: Evidence, row: Row) -> set[str]:
    events = [recorded.event for recorded in chain_of(evidence, row)]
    found = {getattr(event, "message_id", "") for event in events}
    found |= {event.resolved.message_id for event in events if getattr(event, "resolved", None) is not None}  # type: ignore[union-attr]
    found |= {letter.message_id for letter in evidence.store.inbox(row.key, ALL)}
    return found | {letter.message_id for letter in evidence.store.dead_letters(row.key, ALL)}


def chain_of(evidence: Evidence, row: Row) -> list[ev.Recorded]:
    """The events of its current run and of those that it continued from, in order; not of what was rewound."""
    found: list[ev.Recorded] = []
    run = row.run
    while run and (journal := evidence.ledger.journals.get((row.key, run))) is not None and journal.events:
        found = [*journal.events, *found]
        run = getattr(journal.events[0].event, "continued_from", "")
    return found


def what_was_sent_has_a_fate(evidence: Evidence) -> None:
    """Each signal that an execution sent is with its receiver, a dead letter, or failed with its sender being told."""
    rows = rows_of(evidence)
    kept = {name: _kept(evidence, row) for name, row in rows.items()}
    for journal in evidence.ledger.journals.values():
        failed, told = _seqs(journal, ev.MessageFailed), _seqs(journal, ev.MessageDelivered)
        for sent in _events(journal, ev.MessageSent):
            if sent.kind != "signal" or sent.seq in failed:
                continue
            name = derived_id("message", journal.key.execution, journal.run, sent.seq)
            under_way = sent.receiver not in rows and sent.seq not in told
            if name not in kept.get(sent.receiver, ()) and not under_way:
                detail = f"#{sent.seq} of {journal.key.execution} to {sent.receiver}"
                raise Broken("no sent message is lost", detail, journal.key)


def _events(journal: Journal, kind: type[E]) -> list[E]:
    """Its own: not what was copied."""
    return [recorded.event for recorded in journal.events[journal.copied :] if isinstance(recorded.event, kind)]


def _seqs(journal: Journal, kind: type[ev.CommandEvent]) -> set[int]:
    return {event.seq for event in _events(journal, kind)}


def children_are_answered(evidence: Evidence) -> None:
    """Each initiated child exists or was refused; each open parent hears of each closed child."""
    rows = rows_of(evidence)
    for journal in evidence.ledger.journals.values():
        settled = _seqs(journal, ev.ChildStartFailed)
        answered = _seqs(journal, ev.ChildClosed)
        for child in _events(journal, ev.ChildInitiated):
            if child.seq in settled:
                continue
            row, detail = rows.get(child.execution), f"#{child.seq} of {journal.key.execution}"
            if row is None or child.run not in (row.run, row.first_run):
                raise Broken("an initiated child exists", detail, journal.key)
            if row.status not in OPEN_STATUSES and not (journal.closed or child.seq in answered):
                raise Broken("a parent hears of its child's end", detail, journal.key)


def children_asked_to_cancel_may_clean_up(evidence: Evidence) -> None:
    """The close of a parent does not terminate a child that it has asked to cancel."""
    ends: dict[str, ev.AnyEvent] = {}
    ends |= {key.execution: journal.events[-1].event for (key, _), journal in evidence.ledger.journals.items()}
    for journal in evidence.ledger.journals.values():
        asked = {sent.receiver for sent in _events(journal, ev.MessageSent) if sent.kind == "cancel"}
        for child in _events(journal, ev.ChildInitiated):
            if child.execution in asked and ends.get(child.execution) == ev.ExecutionTerminated(PARENT_CLOSED):
                raise Broken("who is asked to cancel may clean up", child.execution, journal.key)


def runs_follow_each_other(evidence: Evidence, replays_: Mapping[tuple[Key, str], Replay]) -> None:
    """What continues as new goes on, and gets the messages that were not received."""
    rows = rows_of(evidence)
    for (key, run), journal in evidence.ledger.journals.items():
        last = journal.events[-1].event if journal.events else None
        if not isinstance(last, ev.ContinuedAsNew):
            continue
        after = evidence.ledger.journals.get((key, last.run))
        started = None if after is None else after.events[0].event
        if after is None or not isinstance(started, ev.ExecutionStarted) or started.continued_from != run:
            raise Broken("what continues goes on", f"{key.execution}, run {run[:6]}", key)
        if rows[key.execution].run != last.run and not after.closed:
            raise Broken("what continues goes on", f"{key.execution}: {last.run[:6]} is neither open nor over", key)
        _unread_went_on(evidence, journal, after, replays_[key, run])


def _unread_went_on(evidence: Evidence, before: Journal, after: Journal, replayed: Replay) -> None:
    came = {event.message_id: event.name for event in _signals(before)}
    went = {event.message_id for event in _signals(after)}
    went |= {letter.message_id for letter in evidence.store.dead_letters(before.key, ALL)}
    if after.closed and not isinstance(after.events[-1].event, ev.CLOSING):
        return  # it was rewound: to its messages the law of acknowledged ones holds
    for name, count in replayed.points[-1].signals:
        if sum(came[each] == name for each in went & came.keys()) < count:
            detail = f"{count} of {name!r} were unread at the end of run {before.run[:6]} of {before.key.execution}"
            raise Broken("what was not received goes on", detail, before.key)


def _signals(journal: Journal) -> list[ev.SignalReceived]:
    return [recorded.event for recorded in journal.events if isinstance(recorded.event, ev.SignalReceived)]


def copies_are_true(evidence: Evidence) -> None:
    """A fork or a rewind begins with what the run holds that it names, up to the event that it names."""
    by_run = {run: journal for (_, run), journal in evidence.ledger.journals.items()}
    origins = {
        run.run: run.origin for row in rows_of(evidence).values() for run in evidence.store.runs(row.key, None, ALL)
    }
    for (key, run), journal in evidence.ledger.journals.items():
        if not journal.copied:
            continue
        mark = journal.events[journal.copied - 1].event
        assert isinstance(mark, ev.RunForked)
        told = f"{mark.from_execution}/{mark.from_run}/{journal.copied - 1}"
        source = by_run[mark.from_run].bodies[1 : journal.copied - 1]
        if origins.get(run) != told or mark.run != run or journal.bodies[1 : journal.copied - 1] != source:
            detail = f"{key.execution}, run {run[:6]}: {told}, the store says {origins.get(run)}"
            raise Broken("a copy is what it is a copy of", detail, key)


def everything_terminates(evidence: Evidence) -> None:
    """Nothing is open any more, nothing waits in an inbox."""
    for row in rows_of(evidence).values():
        if row.status in OPEN_STATUSES:
            detail = f"{row.key.execution} is {row.status} at {row.position} events ({row.workflow})"
            raise Broken("everything terminates", f"{detail} {row.waits_for} {row.problem}".strip(), row.key)
        if evidence.store.inbox(row.key, 1):
            raise Broken("a closed execution's inbox is empty", row.key.execution, row.key)


def check_journals(
    evidence: Evidence, prefixes: Mapping[tuple[Key, str], Sequence[int]]
) -> dict[tuple[Key, str], Replay]:
    """Every law over one journal, for all of them."""
    found = {}
    for name, journal in evidence.ledger.journals.items():
        if not journal.events:
            continue
        well_formed(journal)
        one_answer_per_command(journal)
        order_per_sender(journal)
        each_message_once(journal)
        questions_have_one_answer(journal)
        calls_ran_as_they_were_shown(journal)
        started = journal.events[0].event
        assert isinstance(started, ev.ExecutionStarted)
        workflow = evidence.workflows[started.workflow]
        found[name] = replays(journal, workflow, evidence.fingerprint, prefixes.get(name, ()))
    return found


def check_all(evidence: Evidence, prefixes: Mapping[tuple[Key, str], Sequence[int]]) -> None:
    """Every law."""
    everything_terminates(evidence)
    the_store_holds_what_was_seen(evidence)
    replayed = check_journals(evidence, prefixes)
    runs_follow_each_other(evidence, replayed)
    copies_are_true(evidence)
    steps_began_from_the_journal(evidence, replayed)
    no_step_begins_in_a_pause(evidence)
    nothing_acknowledged_is_lost(evidence)
    order_per_client(evidence, {name: chain_of(evidence, row) for name, row in rows_of(evidence).items()})
    what_was_sent_has_a_fate(evidence)
    children_are_answered(evidence)
    effects_are_told_truly(evidence)
    what_nobody_knows_is_listed(evidence)
    what_had_begun_does_not_vanish(replayed)
    children_asked_to_cancel_may_clean_up(evidence)
    no_child_goes_on_beside_a_successor(evidence)
    a_change_is_taken_wholly(evidence)
    what_is_listed_is_open(evidence)
