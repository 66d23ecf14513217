"""Explaining nondeterminism: what was recorded, what the code asks now, where, and the likely cause.

A person reads this at three in the morning: both sides are worded alike, so that the eye finds the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from perdure.core import events as ev
from perdure.core.commands import (
    AnyCommand,
    AskQuestion,
    CloseQuestion,
    CloseRun,
    CompleteUpdate,
    DropMessage,
    RunStep,
    SendMessage,
    StartChild,
    StartTimer,
)

Show = Callable[[ev.Payload], str]
Given: TypeAlias = ev.StepEvent | ev.ChildInitiated | ev.MessageSent | ev.QuestionAsked
"""Events that hold the digest of what was passed."""
Giving: TypeAlias = RunStep | StartChild | SendMessage | AskQuestion
"""The commands that they answer."""

MAX_SHOWN = 300
MAX_WAITING = 5

_KINDS = {
    RunStep: "step",
    StartTimer: "timer",
    StartChild: "child",
    SendMessage: "message",
    CompleteUpdate: "update's answer",
    DropMessage: "dropped message",
    AskQuestion: "question",
    CloseQuestion: "question's end",
    CloseRun: "end",
}


def describe_event(event: ev.Event) -> str:
    """One line for a person: what the journal holds."""
    match event:
        case ev.ExecutionFailed():
            what = f"the end of the workflow: {event.failure.type}: {event.failure.message}"
        case ev.ExecutionCompleted():
            what = "the end of the workflow: it returned"
        case ev.ContinuedAsNew():
            what = "the end of the run: it continued as new"
        case ev.ExecutionCancelled():
            what = "the end of the workflow: it was cancelled"
        case ev.CommandEvent():
            what = f"#{event.seq} {_subject(event)}{_at(getattr(event, 'location', ''))}"
        case _:
            return type(event).__name__
    return f"{what} ({type(event).__name__})"


def describe_command(command: AnyCommand) -> str:
    """One line for a person: what the code asks."""
    match command:
        case RunStep():
            what = f"step {command.name!r}"
        case StartTimer():
            what = "a timer"
        case StartChild():
            what = f"child {command.workflow!r}, id {command.execution!r}"
        case SendMessage():
            what = f"{_message(command.kind, command.name)} to {command.receiver!r}"
        case CompleteUpdate():
            what = f"the answer to update {command.name!r}"
        case DropMessage():
            what = f"dropping a message named {command.name!r}"
        case AskQuestion():
            what = f"question {command.question[:MAX_SHOWN]!r}"
        case CloseQuestion():
            what = f"the end of question #{command.asked}: {command.outcome}"
        case CloseRun():
            what = f"the end of the workflow: {_ending(command)}"
    return f"#{command.seq} {what}{_at(command.location)}"


def _subject(event: ev.CommandEvent) -> str:
    match event:
        case ev.StepEvent():
            return f"step {event.name!r}"
        case ev.TimerFired():
            return "a timer"
        case ev.ChildInitiated():
            return f"child {event.workflow!r}, id {event.execution!r}"
        case ev.ChildClosed() | ev.ChildStartFailed():
            return f"a child{_id_of(event)}"
        case ev.MessageSent():
            return f"{_message(event.kind, event.name)} to {event.receiver!r}"
        case ev.UpdateCompleted():
            return f"the answer to update {event.name!r}"
        case ev.MessageDropped():
            return f"dropping a message named {event.name!r}"
        case ev.QuestionAsked() | ev.QuestionClosed():
            return _asked(event)
        case _:
            return "a message" if isinstance(event, ev.MessageDelivered | ev.MessageFailed) else "a command"


def _id_of(event: ev.ChildClosed | ev.ChildStartFailed) -> str:
    return f", id {event.execution!r}" if isinstance(event, ev.ChildClosed) else ""


def _asked(event: ev.QuestionAsked | ev.QuestionClosed) -> str:
    if isinstance(event, ev.QuestionAsked):
        return f"question {event.question[:MAX_SHOWN]!r}"
    return f"the end of question #{event.asked}: {event.outcome}"


def _message(kind: str, name: str) -> str:
    return f"signal {name!r}" if kind == "signal" else "a cancel request"


def _ending(close: CloseRun) -> str:
    if close.continues is not None:
        return "it continues as new"
    if close.cancelled:
        return "it was cancelled"
    if close.failure is not None:
        return f"{close.failure.type}: {close.failure.message}"
    return "it returned"


def _at(location: str) -> str:
    return f" at {location}" if location else ""


def disagreement(
    position: int, event: ev.Event, command: AnyCommand | None, waiting: Sequence[AnyCommand] = ()
) -> dict[str, object]:
    """The fields of a `NondeterminismError` for an event that the table or the names refuse.

    `waiting` is everything that the code waits for now, `command` the one that stands at the event's number, if any.
    """
    if command is not None:
        now, where = describe_command(command), command.location
    elif not waiting:
        now, where = "nothing: the code waits for no step, timer or child", ""
    else:
        more = f" and {len(waiting) - MAX_WAITING} more" if len(waiting) > MAX_WAITING else ""
        now = "waiting for " + ", ".join(describe_command(each) for each in waiting[:MAX_WAITING]) + more
        where = next((each.location for each in waiting if each.location), "")
    return {
        "position": position,
        "recorded": describe_event(event),
        "now": now,
        "where": where or "the end of the workflow",
        "cause": _likely_cause(event, command, waiting),
    }


def drifted(position: int, event: Given, command: Giving, show: Show | None = None) -> dict[str, object]:
    """The fields of a `NondeterminismError` for other values under the same code."""
    recorded = now = ""
    before, after = _values(event, command)
    if show is not None and before is not None and after is not None:
        recorded, now = (f" with {show(each)[:MAX_SHOWN]}" for each in (before, after))
    return {
        "position": position,
        "recorded": f"{describe_event(event)}{recorded}, input digest {event.digest.hex()[:12]}",
        "now": f"{describe_command(command)}{now}, input digest {command.digest.hex()[:12]}",
        "where": command.location or "unknown",
        "cause": (
            "the arguments depend on something outside the journal: a clock, randomness, an environment variable, "
            "a global, the order of a set; or a module that the code's fingerprint does not cover has changed. "
            "Take such values from a step, or from perdure.now, perdure.random, perdure.uuid4"
        ),
    }


def _values(event: Given, command: Giving) -> tuple[ev.Payload | None, ev.Payload | None]:
    """What was passed when it was recorded, as far as that is kept, and what is passed now."""
    match event:
        case ev.StepEvent():
            before = event.preview
        case ev.ChildInitiated():
            before = event.input
        case ev.MessageSent():
            before = event.value
        case ev.QuestionAsked():
            before = event.about
    return before, _given(command)


def _given(command: Giving) -> ev.Payload | None:
    match command:
        case SendMessage():
            return command.value
        case AskQuestion():
            return command.about
        case _:
            return command.input


def _likely_cause(event: ev.Event, command: AnyCommand | None, waiting: Sequence[AnyCommand]) -> str:
    ending = command or next((each for each in waiting if isinstance(each, CloseRun)), None)
    if isinstance(event, ev.CLOSING):
        if isinstance(ending, CloseRun):
            return f"the workflow ends otherwise than it was recorded: {_ending(ending)}"
        return "the workflow is longer than its journal: something was added before its end, or an exit was removed"
    if isinstance(ending, CloseRun):
        if ending.failure is not None:
            return f"the code raises {ending.failure.type} where it went on when it was recorded"
        return "the workflow is shorter than its journal: a step, timer or child was removed, or an exit was added"
    if command is None:
        return "the code has not come as far: something was added before this point, or decided outside the journal"
    return _mismatch(event, command, waiting)


def _called(one: ev.Event | AnyCommand) -> str:
    """The step, signal or workflow that it names, if it names one."""
    return getattr(one, "name", "") or getattr(one, "workflow", "")


def _mismatch(event: ev.Event, command: AnyCommand, waiting: Sequence[AnyCommand]) -> str:
    """Both are there under one number, and differ."""
    recorded, now = _kind(event), _KINDS[type(command)]
    if recorded != now:
        return f"a {recorded} was removed before this point, or a {now} was added: what follows has other numbers"
    name, other = _called(event), _called(command)
    if not name or name == other:
        return f"this {now} was added, removed or reordered, or something before it"
    moved = next((each for each in waiting if _called(each) == name and type(each) is type(command)), None)
    if moved is not None:
        return f"the order has changed: {name!r} is asked now as #{moved.seq}{_at(moved.location)}"
    location = getattr(event, "location", "")
    if location and location == command.location:
        return f"{name!r} was renamed to {other!r}, or another is called at the same line; name={name!r} keeps the name"
    return f"{name!r} was removed or renamed, or {other!r} was added before it, or their order has changed"


def _kind(event: ev.Event) -> str:
    match event:
        case ev.StepEvent():
            return "step"
        case ev.TimerFired():
            return "timer"
        case ev.ChildInitiated() | ev.ChildStartFailed() | ev.ChildClosed():
            return "child"
        case ev.MessageSent() | ev.MessageDelivered() | ev.MessageFailed():
            return "message"
        case ev.UpdateCompleted():
            return "update's answer"
        case ev.MessageDropped():
            return "dropped message"
        case ev.QuestionAsked():
            return "question"
        case ev.QuestionClosed():
            return "question's end"
        case _:
            return type(event).__name__
