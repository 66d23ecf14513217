"""What time brings to a run: the moment at which it may begin, its timers, its deadline."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.core import events as ev
from perdure.core.commands import StartTimer
from perdure.core.machine import Machine
from perdure.core.table import RunState
from perdure.runtime.closing import closing_mail, successor_of
from perdure.runtime.inbox import Chosen
from perdure.runtime.outgoing import Outgoing
from perdure.store.protocol import Batch, NewEvent, Start

TOO_LATE = "its deadline passed"
OVERDUE = "its deadline passed, and it did not end in the time that it was given after that"


# --- the beginning ---


def opening(
    machine: Machine, create: Start | None, letters: Sequence[ev.AnyEvent], at_ms: int
) -> Sequence[ev.AnyEvent]:
    """Letters, and at the beginning of a run the start and the claim before them.

    Whose deadline has passed by then is cancelled in the commit that begins it: no step of it ever runs.
    """
    if machine.state in (RunState.RUNNING, RunState.PAUSED):
        return letters
    starts = [] if create is None else [create.event]
    starts += [event for event in letters if isinstance(event, ev.ExecutionStarted)]
    rest = [event for event in letters if not isinstance(event, ev.ExecutionStarted)]
    late = [_passed(each.deadline_ms, each.grace_ms, at_ms) for each in starts if 0 < each.deadline_ms <= at_ms]
    return [*starts, ev.ExecutionClaimed(), *late, *rest]


def not_due(chosen: Chosen, at_ms: int) -> ev.ExecutionStarted | None:
    """The start among the letters, if it may not begin yet."""
    early = [event for event in chosen.starts() if event.start_at_ms > at_ms]
    return early[0] if early else None


def end_unbegun(
    outgoing: Outgoing, machine: Machine, chosen: Chosen, start: ev.ExecutionStarted, at_ms: int
) -> Batch | None:
    """The end of what was not to begin yet, if somebody asks for it: its code never runs."""
    last: ev.ExecutionTerminated | ev.ExecutionCancelled
    cancel = [event for event in chosen.events if isinstance(event, ev.CancelRequested)]
    if chosen.terminate is not None:
        last = ev.ExecutionTerminated(reason=chosen.terminate.reason)
    elif cancel:
        last = ev.ExecutionCancelled(reason=cancel[0].reason)
    else:
        return None
    return Batch(
        key=outgoing.key,
        run=outgoing.run,
        expected=0,
        events=[NewEvent(start, at_ms), NewEvent(last, at_ms)],
        taken=chosen.needed_at_the_end(),
        mail=closing_mail(outgoing, start.parent, machine, last),
        closes="cancelled" if isinstance(last, ev.ExecutionCancelled) else "terminated",
        successor=successor_of(outgoing, chosen),
    )


# --- timers and the deadline ---


def next_due_ms(machine: Machine) -> int | None:
    """When the first timer is due, or the deadline."""
    deadline_ms = machine.facts.deadline_ms
    if not machine.timers:
        return deadline_ms
    timer_ms = machine.next_deadline_ms()
    if deadline_ms is None or timer_ms is None:
        return timer_ms if deadline_ms is None else deadline_ms
    return min(timer_ms, deadline_ms)


def due_events(machine: Machine, at_ms: int) -> list[ev.AnyEvent]:
    """Timers that fire now, and the deadline among them, by the time at which each was due."""
    facts = machine.facts
    timers: list[ev.AnyEvent] = [ev.TimerFired(seq) for seq in machine.due_timers(at_ms)]
    if facts.deadline_ms is None or facts.overdue or facts.deadline_ms > at_ms:
        return timers
    earlier = sum(_due_ms(machine, event) < facts.deadline_ms for event in timers)
    return [*timers[:earlier], _passed(facts.deadline_ms, facts.grace_ms, at_ms), *timers[earlier:]]


def is_overdue(machine: Machine, at_ms: int) -> bool:
    """Whether its code was cancelled at its deadline, and has not ended in the time that it was given for that."""
    facts, runs = machine.facts, machine.state is RunState.RUNNING
    return runs and facts.overdue and facts.deadline_ms is not None and facts.deadline_ms <= at_ms


def overdue(chosen: Chosen) -> Chosen:
    """What was chosen, with a request to terminate beside it: its time is over."""
    if not chosen.letters and not chosen.moot:
        chosen = Chosen()  # not the one that stands for nothing chosen
    chosen.terminate = ev.TerminateRequested("", OVERDUE)
    return chosen


def _due_ms(machine: Machine, event: ev.AnyEvent) -> int:
    assert isinstance(event, ev.TimerFired)
    timer = machine.open[event.seq]
    assert isinstance(timer, StartTimer)
    return timer.due_ms


def _passed(deadline_ms: int, grace_ms: int, at_ms: int) -> ev.DeadlinePassed:
    return ev.DeadlinePassed(deadline_ms, at_ms + grace_ms, TOO_LATE)
