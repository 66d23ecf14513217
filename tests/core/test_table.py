"""The transition table, cell by cell: every (state, event type) is either in it, and does that, or is refused."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from tests.core.samples import COMMAND_EVENTS, EVENT_TYPES, FULL, PAYLOAD, RUN_EVENTS

from perdure.core import events as ev
from perdure.core.commands import (
    AnyCommand,
    AskQuestion,
    CloseQuestion,
    CloseRun,
    CompleteUpdate,
    Continuing,
    DropMessage,
    RunStep,
    SendMessage,
    StartChild,
    StartTimer,
    State,
)
from perdure.core.errors import CorruptJournal, NondeterminismError
from perdure.core.machine import Machine
from perdure.core.table import COMMANDS, RUN, Effect, RunState

# Event types that can concern a command, in the order in which its life goes; all others never do.
OF_COMMAND: dict[type, tuple[type, ...]] = {
    RunStep: (ev.StepIntended, ev.StepAttemptFailed, ev.StepCompleted, ev.StepFailed, ev.StepOutcomeUnknown),
    StartTimer: (ev.TimerFired,),
    StartChild: (ev.ChildInitiated, ev.ChildStartFailed, ev.ChildClosed),
    SendMessage: (ev.MessageSent, ev.MessageDelivered, ev.MessageFailed),
    CompleteUpdate: (ev.UpdateCompleted,),
    DropMessage: (ev.MessageDropped,),
    AskQuestion: (ev.QuestionAsked,),
    CloseQuestion: (ev.QuestionClosed,),
    CloseRun: (),
}

# Cells of those that are illegal, each with its reason.
ILLEGAL: dict[tuple[type, State, type], str] = {
    **{
        (RunStep, state, ev.StepIntended): "an attempt is intended once, and not before the last one's outcome is known"
        for state in (State.STARTED, State.UNKNOWN, State.LEFT, State.LEFT_UNKNOWN)
    },
    **{(RunStep, state, ev.StepOutcomeUnknown): "nothing was intended" for state in (State.OPEN, State.CANCELLED)},
    **{
        (RunStep, state, ev.StepOutcomeUnknown): "that is known already"
        for state in (State.UNKNOWN, State.LEFT_UNKNOWN)
    },
    (StartChild, State.OPEN, ev.ChildStartFailed): "it was not even initiated",
    (StartChild, State.OPEN, ev.ChildClosed): "it was not even initiated",
    (StartChild, State.CANCELLED, ev.ChildStartFailed): "dropped before it was initiated",
    (StartChild, State.CANCELLED, ev.ChildClosed): "dropped before it was initiated",
    (StartChild, State.STARTED, ev.ChildInitiated): "a child begins once",
    (SendMessage, State.OPEN, ev.MessageDelivered): "it was not sent",
    (SendMessage, State.OPEN, ev.MessageFailed): "it was not sent",
    (SendMessage, State.CANCELLED, ev.MessageDelivered): "dropped before it was sent",
    (SendMessage, State.CANCELLED, ev.MessageFailed): "dropped before it was sent",
    (SendMessage, State.STARTED, ev.MessageSent): "a message is sent once",
}
# States that no command of this kind is ever in: nothing may happen there.
NEVER_WAITED_FOR = (State.STARTED, State.CANCELLED)
WRITTEN_ONLY = (CompleteUpdate, DropMessage, AskQuestion, CloseQuestion, CloseRun)
ONLY_STEPS = (State.UNKNOWN, State.LEFT, State.LEFT_UNKNOWN)
UNREACHABLE = {
    (StartTimer, State.STARTED),
    *itertools.product((StartTimer, StartChild, SendMessage, *WRITTEN_ONLY), ONLY_STEPS),
    *((kind, state) for kind in WRITTEN_ONLY for state in NEVER_WAITED_FOR),
}
MAY_END_IN_A_PAUSE = {ev.StepAttemptFailed, ev.StepCompleted, ev.StepFailed, ev.StepOutcomeUnknown}
# Event types that no release journals yet, or ever: refused whatever the state.
NOT_YET = {
    ev.UpdateRequested,
    ev.TerminateRequested,
    ev.ResolveRequested,
}

SAMPLE = {type(event): event for event in FULL}


def command(kind: type) -> AnyCommand:
    """A command of this kind, that agrees with the sample events."""
    if kind is RunStep:
        return RunStep(name="search", input=PAYLOAD, digest=b"\x01\x02\xff", target=None, options=None)
    if kind is StartTimer:
        return StartTimer(due_ms=5)
    if kind is StartChild:
        return StartChild(
            workflow="child", execution="child-1", run="0e" * 16, input=PAYLOAD, on_parent_close="cancel", target=None
        )
    if kind is SendMessage:
        return SendMessage(kind="signal", receiver="x-2", name="go", value=PAYLOAD)
    if kind is CompleteUpdate:
        return CompleteUpdate(update_id="u-4", name="add", result=PAYLOAD)
    if kind is DropMessage:
        message = ev.SignalReceived(message_id="m-5", name="go", value=PAYLOAD)
        return DropMessage(message=message, failure=ev.FailureInfo("E", ""))
    if kind is AskQuestion:
        asked = SAMPLE[ev.QuestionAsked]
        assert isinstance(asked, ev.QuestionAsked)
        return AskQuestion(**{each: getattr(asked, each) for each in ASKS})
    if kind is CloseQuestion:
        return CloseQuestion(asked=11, outcome="answered")
    return CloseRun(result=PAYLOAD)


ASKS = ("question", "to", "schema", "about", "name", "digest", "expires_at_ms", "escalate_to", "escalate_at_ms")


def machine_with(kind: type, state: State) -> Machine:
    """A running machine whose first command is of this kind and in this state."""
    machine = Machine()
    machine.state = RunState.RUNNING
    seq = machine.issue(command(kind))
    if state is State.ANSWERED:
        del machine.open[seq]
    else:
        machine.open[seq].state = state
    if state in (State.LEFT, State.LEFT_UNKNOWN):
        machine.left[seq] = machine.open.pop(seq)  # type: ignore[assignment]
    return machine


def recorded(machine: Machine, event: ev.AnyEvent) -> ev.Recorded:
    return ev.Recorded(machine.position, 10, event)


CELLS = list(itertools.product(OF_COMMAND, State, COMMAND_EVENTS))


def name_of(value: object) -> str:
    return value.__name__ if isinstance(value, type) else getattr(value, "value", "")


@pytest.mark.parametrize(("kind", "state", "event_type"), CELLS, ids=name_of)
def test_every_cell_of_commands(kind: type, state: State, event_type: type) -> None:
    """In the table: the state and effect that it says. Not in the table: declared illegal here, and refused."""
    machine = machine_with(kind, state)
    event = msgspec.structs.replace(SAMPLE[event_type], seq=1)
    cell = COMMANDS.get((kind, state, event_type))
    if cell is not None:
        answer = machine.feed(recorded(machine, event))
        after, effect = cell
        assert answer.effect is effect
        assert answer.event is event
        known = {**machine.open, **machine.left}
        assert (1 in known) == (after is not State.ANSWERED)
        if after is not State.ANSWERED:
            assert known[1].state is after
        assert machine.position == 1
        return
    foreign = event_type not in OF_COMMAND[kind]
    declared = (kind, state, event_type) in ILLEGAL or (kind, state) in UNREACHABLE
    assert foreign or declared or state is State.ANSWERED, "a cell that is neither in the table nor declared illegal"
    with pytest.raises(CorruptJournal if state is State.ANSWERED else NondeterminismError):
        machine.feed(recorded(machine, event))
    assert machine.position == 0


@pytest.mark.parametrize(("state", "event_type"), list(itertools.product(RunState, EVENT_TYPES)), ids=name_of)
def test_every_cell_of_runs(state: RunState, event_type: type) -> None:
    """Events of commands belong to running runs only; the others go by the table, and everything else is damage."""
    machine = Machine()
    machine.state = RunState.RUNNING
    if issubclass(event_type, ev.ExecutionCompleted):
        machine.issue(CloseRun(result=PAYLOAD))
    elif issubclass(event_type, ev.ExecutionFailed):
        machine.issue(CloseRun(failure=ev.FailureInfo("E", "")))
    elif issubclass(event_type, ev.ExecutionCancelled):
        machine.issue(CloseRun(cancelled=True))
    elif issubclass(event_type, ev.ContinuedAsNew):
        machine.issue(CloseRun(continues=Continuing("w", "0d" * 16, PAYLOAD, None, None)))
    machine.state = state
    event = SAMPLE[event_type]
    after = RUN.get((state, event_type))
    if after is not None:
        answer = machine.feed(recorded(machine, event))
        assert (answer.effect, answer.command, answer.event) == (Effect.RUN, None, event)
        assert machine.state is after
        assert (machine.closed_by is event) == (after is RunState.CLOSED)
    elif event_type in RUN_EVENTS:
        with pytest.raises(CorruptJournal, match=f"{event_type.__name__} at event 0.*{state.value}"):
            machine.feed(recorded(machine, event))
    else:
        in_pause = state is RunState.PAUSED and event_type in MAY_END_IN_A_PAUSE
        wrong = NondeterminismError if state is RunState.RUNNING or in_pause else CorruptJournal
        with pytest.raises(wrong):
            machine.feed(recorded(machine, event))
    assert machine.position == (1 if after is not None else 0)


def test_the_declarations_and_the_table_do_not_overlap() -> None:
    """What is declared illegal is not in the table, and what is in the table can concern its command."""
    assert not ILLEGAL.keys() & COMMANDS.keys()
    assert not UNREACHABLE & {(kind, state) for kind, state, _ in COMMANDS}
    assert not NOT_YET & {event for _, event in RUN}
    for kind, _, event in COMMANDS:
        assert event in OF_COMMAND[kind]
    for kind, _, event in ILLEGAL:
        assert event in OF_COMMAND[kind]
    assert {event for _, event in RUN} | NOT_YET == set(RUN_EVENTS)


def test_nothing_follows_the_end() -> None:
    """A closed run has no row; an answered command has none."""
    assert not [cell for cell in RUN if cell[0] is RunState.CLOSED]
    assert not [cell for cell in COMMANDS if cell[1] is State.ANSWERED]
