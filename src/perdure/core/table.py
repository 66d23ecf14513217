"""The transition table. It *is* the machine's code; the diagram in docs/design.md and its tests are made from it.

A cell that is absent is illegal: for a command it means that code and journal disagree, for a run that the journal is
damaged. Rows of event types that no release writes yet stay absent, so that they are refused.
"""

from __future__ import annotations

from enum import Enum

from perdure.core import events as ev
from perdure.core.commands import (
    AskQuestion,
    CloseQuestion,
    CompleteUpdate,
    DropMessage,
    RunStep,
    SendMessage,
    StartChild,
    StartTimer,
    State,
)


class RunState(Enum):
    """The state of a run."""

    NEW = "new"
    PENDING = "pending"  # started, no worker has claimed it yet
    RUNNING = "running"
    PAUSED = "paused"  # nothing begins; steps that run may end
    CLOSED = "closed"

    __hash__ = object.__hash__  # looked up at every event: not by name, as an enumeration's is


class Effect(Enum):
    """What an event means to the code that waits."""

    RESOLVE = "resolve"  # the command's future gets its value or error
    BEGUN = "begun"  # its intent is durable; futures of the beginning resolve
    UNKNOWN = "unknown"  # nobody knows: the code is told, if the event says so
    NOTE = "note"  # the machine remembers; the code does not see it
    IGNORE = "ignore"  # a late answer to a cancelled command
    RUN = "run"  # concerns the run, not a command


_O, _S, _U, _C, _A = State.OPEN, State.STARTED, State.UNKNOWN, State.CANCELLED, State.ANSWERED
_L, _LU = State.LEFT, State.LEFT_UNKNOWN

COMMANDS: dict[tuple[type, State, type], tuple[State, Effect]] = {
    # steps
    (RunStep, _O, ev.StepAttemptFailed): (_O, Effect.NOTE),
    (RunStep, _O, ev.StepCompleted): (_A, Effect.RESOLVE),
    (RunStep, _O, ev.StepFailed): (_A, Effect.RESOLVE),
    (RunStep, _C, ev.StepAttemptFailed): (_C, Effect.IGNORE),
    (RunStep, _C, ev.StepCompleted): (_A, Effect.IGNORE),
    (RunStep, _C, ev.StepFailed): (_A, Effect.IGNORE),
    # steps that are declared `once`: begun by an intent, and never again before it is known what came of that
    (RunStep, _O, ev.StepIntended): (_S, Effect.NOTE),
    (RunStep, _S, ev.StepAttemptFailed): (_O, Effect.NOTE),
    (RunStep, _S, ev.StepCompleted): (_A, Effect.RESOLVE),
    (RunStep, _S, ev.StepFailed): (_A, Effect.RESOLVE),
    (RunStep, _S, ev.StepOutcomeUnknown): (_U, Effect.UNKNOWN),
    (RunStep, _U, ev.StepAttemptFailed): (_O, Effect.NOTE),
    (RunStep, _U, ev.StepCompleted): (_A, Effect.RESOLVE),
    (RunStep, _U, ev.StepFailed): (_A, Effect.RESOLVE),
    (RunStep, _C, ev.StepIntended): (_C, Effect.IGNORE),  # one commit brought both: it never began
    (RunStep, _L, ev.StepAttemptFailed): (_A, Effect.IGNORE),
    (RunStep, _L, ev.StepCompleted): (_A, Effect.IGNORE),
    (RunStep, _L, ev.StepFailed): (_A, Effect.IGNORE),
    (RunStep, _L, ev.StepOutcomeUnknown): (_LU, Effect.IGNORE),
    (RunStep, _LU, ev.StepAttemptFailed): (_A, Effect.IGNORE),
    (RunStep, _LU, ev.StepCompleted): (_A, Effect.IGNORE),
    (RunStep, _LU, ev.StepFailed): (_A, Effect.IGNORE),
    # timers
    (StartTimer, _O, ev.TimerFired): (_A, Effect.RESOLVE),
    (StartTimer, _C, ev.TimerFired): (_A, Effect.IGNORE),
    # children
    (StartChild, _O, ev.ChildInitiated): (_S, Effect.BEGUN),
    (StartChild, _S, ev.ChildStartFailed): (_A, Effect.RESOLVE),
    (StartChild, _S, ev.ChildClosed): (_A, Effect.RESOLVE),
    (StartChild, _C, ev.ChildInitiated): (_S, Effect.IGNORE),
    # messages to other executions
    (SendMessage, _O, ev.MessageSent): (_S, Effect.NOTE),
    (SendMessage, _S, ev.MessageDelivered): (_A, Effect.RESOLVE),
    (SendMessage, _S, ev.MessageFailed): (_A, Effect.RESOLVE),
    (SendMessage, _C, ev.MessageSent): (_S, Effect.IGNORE),
    # what becomes of messages to this one
    (CompleteUpdate, _O, ev.UpdateCompleted): (_A, Effect.NOTE),
    (DropMessage, _O, ev.MessageDropped): (_A, Effect.NOTE),
    # questions to people, whose answers are signals
    (AskQuestion, _O, ev.QuestionAsked): (_A, Effect.NOTE),
    (CloseQuestion, _O, ev.QuestionClosed): (_A, Effect.NOTE),
}

_NEW, _PENDING, _RUNNING = RunState.NEW, RunState.PENDING, RunState.RUNNING
_PAUSED, _CLOSED = RunState.PAUSED, RunState.CLOSED

RUN: dict[tuple[RunState, type], RunState] = {
    (_NEW, ev.ExecutionStarted): _PENDING,
    (_PENDING, ev.Snapshot): _PENDING,
    (_PENDING, ev.ExecutionClaimed): _RUNNING,
    (_PENDING, ev.ExecutionTerminated): _CLOSED,
    (_PENDING, ev.ExecutionCancelled): _CLOSED,  # before its code ever ran
    (_RUNNING, ev.SignalReceived): _RUNNING,
    (_RUNNING, ev.CancelRequested): _RUNNING,
    (_RUNNING, ev.UpdateAccepted): _RUNNING,
    (_RUNNING, ev.StatePublished): _RUNNING,
    (_RUNNING, ev.AttributesSet): _RUNNING,
    (_RUNNING, ev.DeadlinePassed): _RUNNING,
    (_RUNNING, ev.PatchMarked): _RUNNING,
    (_RUNNING, ev.RunForked): _RUNNING,
    (_RUNNING, ev.PauseRequested): _PAUSED,
    (_PAUSED, ev.StatePublished): _PAUSED,
    (_PAUSED, ev.AttributesSet): _PAUSED,
    (_PAUSED, ev.PatchMarked): _PAUSED,
    (_PAUSED, ev.RunForked): _PAUSED,
    (_PAUSED, ev.ResumeRequested): _RUNNING,
    (_PAUSED, ev.ExecutionTerminated): _CLOSED,
    (_RUNNING, ev.ExecutionCompleted): _CLOSED,
    (_RUNNING, ev.ExecutionFailed): _CLOSED,
    (_RUNNING, ev.ExecutionCancelled): _CLOSED,
    (_RUNNING, ev.ExecutionTerminated): _CLOSED,
    (_RUNNING, ev.ContinuedAsNew): _CLOSED,
}
