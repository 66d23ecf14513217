"""What closing a run means for others: the answer to its parent, and its children's policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import msgspec

from perdure.core import events as ev
from perdure.core.commands import CloseRun, StartChild, State
from perdure.core.identity import closed_message, derived_id
from perdure.core.machine import Machine
from perdure.runtime.effects import cut_off, rows_of
from perdure.runtime.inbox import Chosen
from perdure.runtime.left_behind import LeftBehind
from perdure.runtime.outgoing import Outgoing, start_digest
from perdure.store.protocol import Batch, Mail, NewEvent, Start, Status
from perdure.workflow.execution import Execution

PARENT_CLOSED = "its parent closed"
MOST_UNFINISHED = 1_000

Closing: TypeAlias = ev.ExecutionCompleted | ev.ExecutionFailed | ev.ExecutionCancelled | ev.ExecutionTerminated
Ending = TypeVar("Ending", bound=ev.ClosingEvent)


def closing_event(close: CloseRun) -> tuple[Closing, Status]:
    """The last event of a run whose code has ended, and its row's status."""
    if close.cancelled:
        return ev.ExecutionCancelled(reason=close.reason, lost_failures=close.lost_failures), "cancelled"
    if close.failure is not None:
        return ev.ExecutionFailed(failure=close.failure, lost_failures=close.lost_failures), "failed"
    assert close.result is not None
    return ev.ExecutionCompleted(result=close.result, lost_failures=close.lost_failures), "completed"


def told_at_the_end(last: Ending, execution: Execution, unread: Sequence[ev.SignalReceived]) -> Ending:
    """The last event with what came to none: handlers that are cut off, signals that nobody took."""
    at_work = execution.handlers.unfinished()
    if not at_work and not unread:
        return last
    if len(at_work) > MOST_UNFINISHED:
        more = ev.Unfinished("", f"{len(at_work) - MOST_UNFINISHED} more", "")
        at_work = [*at_work[:MOST_UNFINISHED], more]
    return msgspec.structs.replace(last, unfinished=tuple(at_work), unreceived=len(unread))


def last_batch(
    execution: Execution,
    outgoing: Outgoing,
    parent: ev.Parent | None,
    chosen: Chosen,
    close: CloseRun | None,
    opening: Sequence[ev.AnyEvent],
    at_ms: int,
) -> Batch:
    """The end of an execution: because its code has ended, or because somebody insists."""
    if chosen.terminate is not None:
        last: Closing = ev.ExecutionTerminated(reason=chosen.terminate.reason)
        status: Status = "terminated"
    else:
        assert close is not None
        last, status = closing_event(close)
    unread, machine = execution.mailbox.unread(), execution.machine
    last = told_at_the_end(last, execution, unread)
    return Batch(
        key=outgoing.key,
        run=outgoing.run,
        expected=machine.position,
        events=[NewEvent(event, at_ms) for event in (*opening, *outgoing.at_close(), last)],
        taken=chosen.needed_at_the_end(),
        mail=[*outgoing.mail, *closing_mail(outgoing, parent, machine, last)],
        starts=outgoing.starts,
        closes=status,
        successor=successor_of(outgoing, chosen),
        buried=[*outgoing.buried, *unread],
    )


def last_batch_without_code(
    execution: Execution,
    outgoing: Outgoing,
    parent: ev.Parent | None,
    chosen: Chosen,
    length: int,
    unfed: Sequence[ev.Recorded],
    now_ms: int,
    left: LeftBehind,
) -> Batch:
    """The end of an execution whose code cannot go on, or whose journal cannot be read: somebody insists.

    What the code wanted to send and has not is forgotten: nobody knows whether it would be right.
    """
    assert chosen.terminate is not None
    machine = execution.machine
    unread = [*execution.mailbox.unread(), *(each.event for each in unfed if isinstance(each.event, ev.SignalReceived))]
    ended = ev.ExecutionTerminated(reason=chosen.terminate.reason, not_known=left.not_known)
    last = told_at_the_end(ended, execution, unread)
    at_ms = max([now_ms, *(each.at_ms for each in unfed)])
    unknown = cut_off(machine, unfed)
    return Batch(
        key=outgoing.key,
        run=outgoing.run,
        expected=length,
        events=[NewEvent(event, at_ms) for event in (*(() if length else chosen.starts()), *unknown.values(), last)],
        taken=chosen.needed_at_the_end(),
        mail=_last_mail(outgoing, parent, last, left.children, left.sent),
        closes="terminated",
        successor=successor_of(outgoing, chosen),
        unresolved=rows_of(unknown, outgoing.key, outgoing.run, length, at_ms),
        buried=unread,
    )


def successor_of(outgoing: Outgoing, chosen: Chosen) -> Start | None:
    """What begins in its place."""
    started = chosen.successor
    return None if started is None else Start(outgoing.key, started, start_digest(started))


def closing_mail(outgoing: Outgoing, parent: ev.Parent | None, machine: Machine, last: ev.AnyEvent) -> list[Mail]:
    """Messages that leave with the closing commit, after those in `outgoing`.

    A child that this run has asked to cancel is left to it: to terminate it now would cut off its clean-up.
    """
    started = machine.facts.started
    ended: list[StartChild | ev.EarlierChild] = [*left_children(machine, outgoing)]
    if started is not None:
        ended += started.children
    return _last_mail(outgoing, parent, last, ended, outgoing.all_sent())


def _last_mail(
    outgoing: Outgoing,
    parent: ev.Parent | None,
    last: ev.AnyEvent,
    ended: Iterable[StartChild | ev.EarlierChild],
    sent: Mapping[str, int] | None,
) -> list[Mail]:
    """The answer to the parent, and the ends of children, numbered behind what was `sent` if that is known."""
    run = outgoing.run

    def sender_of(receiver: str) -> tuple[str, int]:
        return ("", 0) if sent is None else (run, sent.get(receiver, 0) + 1)

    mail = [] if parent is None else [_answer(outgoing, parent, last, *sender_of(parent.execution))]
    return [*mail, *(_end_child(outgoing, child, *sender_of(child.execution)) for child in ended)]


def left_children(machine: Machine, outgoing: Outgoing) -> list[StartChild]:
    """Those that this run began, has not seen end, and did not ask to: their policy says what becomes of them."""
    asked = machine.asked_to_cancel | outgoing.asked_to_cancel()
    children = [each for each in machine.open.values() if isinstance(each, StartChild) and _begun(each)]
    return [each for each in children if each.on_parent_close != "abandon" and each.execution not in asked]


def _begun(child: StartChild) -> bool:
    """Whether it exists, or begins in this very commit."""
    return child.state is State.STARTED or (child.state is State.OPEN and child.taken)


def _answer(outgoing: Outgoing, parent: ev.Parent, last: ev.AnyEvent, sender_run: str, number: int) -> Mail:
    key, run = outgoing.key, outgoing.run
    common = {"seq": parent.seq, "execution": key.execution, "sender_run": sender_run, "number": number}
    match last:
        case ev.ExecutionCompleted():
            closed = ev.ChildClosed(status="completed", result=last.result, **common)  # type: ignore[arg-type]
        case ev.ExecutionFailed():
            closed = ev.ChildClosed(status="failed", failure=last.failure, **common)  # type: ignore[arg-type]
        case ev.ExecutionCancelled():
            closed = ev.ChildClosed(status="cancelled", reason=last.reason, **common)  # type: ignore[arg-type]
        case _:
            reason = getattr(last, "reason", "")
            closed = ev.ChildClosed(status="terminated", reason=reason, **common)  # type: ignore[arg-type]
    return Mail(
        receiver=outgoing.key_of(parent.execution),
        receiver_run=parent.run,
        message_id=closed_message(key.execution, run),
        event=closed,
        sender=key,
        sender_run=run,
    )


def _end_child(outgoing: Outgoing, child: StartChild | ev.EarlierChild, sender_run: str, number: int) -> Mail:
    key, run = outgoing.key, outgoing.run
    message_id = derived_id("parent closed", key.execution, run, 0, child.run)
    event: ev.AnyEvent
    if child.on_parent_close == "cancel":
        event = ev.CancelRequested(message_id, PARENT_CLOSED, sender_run, number)
    else:
        event = ev.TerminateRequested(message_id, PARENT_CLOSED)
    return Mail(
        receiver=outgoing.key_of(child.execution),
        receiver_run=child.run,
        message_id=message_id,
        event=event,
        sender=key,
        sender_run=run,
    )
