"""How one run hands over to the next: what the last commit of a run that continues as new holds, and who goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import msgspec

from perdure.core import events as ev
from perdure.core.ask_events import answered_by
from perdure.core.commands import CloseRun, Continuing
from perdure.core.errors import RunsInVain, TooManyChildren
from perdure.runtime.closing import left_children, told_at_the_end
from perdure.runtime.updates import request_of
from perdure.store.protocol import Batch, Mail, NewEvent, Succession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.core.identity import Key
    from perdure.runtime.outgoing import Outgoing
    from perdure.workflow.execution import Execution

MOST_CHILDREN = 1_000
"""Children that may outlive the runs that began them, and end with their execution."""
MOST_IDLE_RUNS = 100
"""Runs that may follow each other and do nothing else."""


def last_of_many(
    execution: Execution, outgoing: Outgoing, close: CloseRun, words: Sequence[ev.AnyEvent], at_ms: int
) -> Batch:
    """The end of a run, but not of its execution: letters stay where they are, for the next one.

    Raises:
        TooManyChildren: more children are left behind than anybody would want to end with it.
        RunsInVain: it does nothing, and so did many runs before.
    """
    how = close.continues
    assert how is not None
    last = ev.ContinuedAsNew(run=how.run, input=how.input, workflow=how.workflow, lost_failures=close.lost_failures)
    last = told_at_the_end(last, execution, ())
    return Batch(
        key=outgoing.key,
        run=outgoing.run,
        expected=execution.machine.position,
        events=[NewEvent(event, at_ms) for event in (*words, *outgoing.at_close(), last)],
        mail=outgoing.mail,
        starts=outgoing.starts,
        buried=outgoing.buried,
        then=_succession(execution, how, outgoing, at_ms),
    )


def _succession(execution: Execution, how: Continuing, outgoing: Outgoing, at_ms: int) -> Succession:
    """How the next run begins: with what was handed to it, and with what the execution is known by."""
    facts = execution.machine.facts
    assert facts.started is not None
    children = [*facts.started.children, *_left(execution, outgoing)]
    if len(children) > MOST_CHILDREN:
        raise TooManyChildren(number=len(children), most=MOST_CHILDREN)
    started = msgspec.structs.replace(
        facts.started,
        workflow=how.workflow,
        run=how.run,
        input=how.input,
        version=how.target.version,
        parent=facts.parent,
        continued_from=execution.run,
        first_run=facts.first_run,
        children=tuple(children),
        execution="",
        start_at_ms=0,
        deadline_ms=0 if facts.deadline_ms is None else facts.started.deadline_ms,
        idle_runs=_idle_runs(execution, outgoing, facts.started.idle_runs),
        attributes=facts.attributes if outgoing.attributes is None else outgoing.attributes,
    )
    opening: list[ev.AnyEvent] = [started]
    if how.state is not None:
        opening.append(ev.Snapshot(how.state))
    opening.append(ev.ExecutionClaimed())
    published = facts.published
    for event in outgoing.events:
        published = event if isinstance(event, ev.StatePublished) else published
    if published is not None:
        opening.append(ev.StatePublished(published.state))  # it stays readable until another one is published
    return Succession(
        run=how.run,
        workflow=how.workflow,
        events=[NewEvent(event, at_ms) for event in opening],
        carried=_carried(execution, outgoing.key),
        received=sorted(execution.machine.seen_messages),
    )


def _idle_runs(execution: Execution, outgoing: Outgoing, before: int) -> int:
    """How many runs, this one included, did nothing: a spin that no run's own limits see."""
    came_in = execution.machine.facts.done > len(execution.mailbox.unread())
    goes_out = any(isinstance(event, ev.CommandEvent) for event in outgoing.events)
    idle = 0 if came_in or goes_out else before + 1
    if idle > MOST_IDLE_RUNS:
        raise RunsInVain(runs=idle)
    return idle


def _left(execution: Execution, outgoing: Outgoing) -> list[ev.EarlierChild]:
    """Children of this run whose policy ends them with the execution."""
    return [
        ev.EarlierChild(child.execution, child.run, cast(Literal["terminate", "cancel"], child.on_parent_close))
        for child in left_children(execution.machine, outgoing)
    ]


def _carried(execution: Execution, key: Key) -> list[Mail]:
    """Messages that are journaled and came to nothing yet, as from outside: who sent them counted for this run."""
    unread = [each for each in execution.mailbox.unread() if answered_by(each.name) is None]  # those ask anew
    letters: list[ev.SignalReceived | ev.CancelRequested] = [*unread]
    if execution.unheard is not None:
        letters.append(execution.unheard)
    letters = [msgspec.structs.replace(each, sender_run="", number=0) for each in letters]
    updates = [request_of(key, u.name, u.update_id, u.input) for u in execution.handlers.unanswered.values()]
    return [*(Mail(key, each.message_id, each) for each in letters), *updates]
