"""Laws of children: whose parent is over, or was rewound, has somebody who sees to its end, or has ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from perdure.core import events as ev
from perdure.testing.ledger import Broken, Journal

if TYPE_CHECKING:
    from perdure.store.protocol import Batch
    from perdure.testing.laws import Evidence

ENDED = (ev.ChildClosed, ev.ChildStartFailed)

Child: TypeAlias = tuple[str, str, str]
"""Its id, its run, and what its parent's end means for it: terminate or cancel."""


def children_are_seen_to(journal: Journal, batch: Batch) -> None:
    """An execution's last commit asks its children to end that depend on it, and were not asked to before.

    That of a run which continues as new hands them on.
    """
    if batch.closes is None and batch.then is None:
        return
    told = set(_handed_on(batch) if batch.then is not None else _asked(batch))
    for child in _dependent(journal):
        if child not in told:
            law = "a run that continues hands its children on" if batch.then is not None else "children are seen to"
            raise Broken(law, f"{journal.key.execution} ends, and leaves {child[0]}", journal.key)


def _asked(batch: Batch) -> Iterator[Child]:
    for mail in batch.mail:
        if isinstance(mail.event, ev.TerminateRequested | ev.CancelRequested):
            policy = "cancel" if isinstance(mail.event, ev.CancelRequested) else "terminate"
            yield mail.receiver.execution, mail.receiver_run, policy


def _handed_on(batch: Batch) -> Iterator[Child]:
    assert batch.then is not None
    started = batch.then.events[0].event
    assert isinstance(started, ev.ExecutionStarted)
    return ((each.execution, each.run, each.on_parent_close) for each in started.children)


def _dependent(journal: Journal) -> Iterator[Child]:
    """Those that this run, or one before it, began, has not seen end, and did not ask to; but for the abandoned."""
    events = [recorded.event for recorded in journal.events]
    started = events[0]
    assert isinstance(started, ev.ExecutionStarted)
    yield from ((each.execution, each.run, each.on_parent_close) for each in started.children)
    settled = {event.seq for event in events if isinstance(event, ENDED)}
    for event in events:
        if isinstance(event, ev.ChildInitiated) and event.seq not in settled and not _is_let_go(event, events):
            yield event.execution, event.run, event.on_parent_close


def _is_let_go(child: ev.ChildInitiated, events: Sequence[ev.AnyEvent]) -> bool:
    sent = (event for event in events if isinstance(event, ev.MessageSent) and event.kind == "cancel")
    return child.on_parent_close == "abandon" or any(event.receiver == child.execution for event in sent)


def no_child_goes_on_beside_a_successor(evidence: Evidence) -> None:
    """When a rewind puts a run in another's place, the children of that one which depend on it are over, for good.

    But not those that were on their way when it ended by itself, and asked them to end: `children_are_seen_to`.
    """
    journals = evidence.ledger.journals.values()
    left = {journal.run: journal for journal in journals if journal.left}
    for child in journals:
        parent = left.get(_parent_run_of(child))
        if parent is None:
            continue
        came_later = child.began > parent.left and (parent.over or child.copied)
        if not (came_later or 0 < (child.over or child.left) < parent.left):
            detail = f"{child.key.execution}, a child of run {parent.run[:6]} of {parent.key.execution}"
            raise Broken("no child goes on beside a successor", detail, parent.key)


def _parent_run_of(child: Journal) -> str:
    """The run that it depends on; empty if there is none."""
    started = child.events[0].event if child.events else None
    if not isinstance(started, ev.ExecutionStarted) or started.parent is None:
        return ""
    return "" if started.on_parent_close == "abandon" else started.parent.run
