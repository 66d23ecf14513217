"""Explaining nondeterminism: what was recorded, what the code asks now, where, and the likely cause."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.core import events as ev
from perdure.core.commands import AnyCommand, CloseRun, RunStep, SendMessage, StartChild, StartTimer


def describe_event(event: ev.Event) -> str:
    """One line for a person: what the journal holds."""
    kind = type(event).__name__
    if isinstance(event, ev.CommandEvent):
        name = getattr(event, "name", None) or getattr(event, "workflow", None)
        at = getattr(event, "location", "")
        return f"{kind} #{event.seq}{f' of {name!r}' if name else ''}{f' at {at}' if at else ''}"
    return kind


def describe_command(command: AnyCommand) -> str:
    """One line for a person: what the code asks."""
    match command:
        case RunStep():
            what = f"step {command.name!r}"
        case StartTimer():
            what = "a timer"
        case StartChild():
            what = f"child {command.workflow!r}"
        case SendMessage():
            what = f"{command.kind} to {command.receiver!r}"
        case CloseRun():
            what = "the end of the workflow"
    return f"#{command.seq} {what}{f' at {command.location}' if command.location else ''}"


def disagreement(
    position: int, event: ev.Event, command: AnyCommand | None, waiting: Sequence[AnyCommand] = ()
) -> dict[str, object]:
    """The fields of a `NondeterminismError` for an event that the table or the names refuse."""
    if command is not None:
        now, where = describe_command(command), command.location
    elif not waiting:
        now, where = "nothing is waiting", ""
    else:
        now = "waiting for " + ", ".join(describe_command(each) for each in waiting[:5])
        where = next((each.location for each in waiting if each.location), "")
    return {
        "position": position,
        "recorded": describe_event(event),
        "now": now,
        "where": where or "the workflow's end",
        "cause": _likely_cause(event, command, waiting),
    }


def drifted(position: int, event: ev.StepEvent, command: RunStep) -> dict[str, object]:
    """The fields of a `NondeterminismError` for changed arguments under the same code."""
    return {
        "position": position,
        "recorded": f"{describe_event(event)}, input digest {event.digest.hex()[:12]}",
        "now": f"{describe_command(command)}, input digest {command.digest.hex()[:12]}",
        "where": command.location,
        "cause": (
            "the step's arguments depend on something outside the journal: a clock, randomness, a global, "
            "the order of a set; or a module that the code's fingerprint does not cover has changed"
        ),
    }


def _likely_cause(event: ev.Event, command: AnyCommand | None, waiting: Sequence[AnyCommand]) -> str:
    if isinstance(event, ev.CLOSING):
        return "the workflow ended here when it was recorded, and goes on or ends otherwise now"
    if command is None or isinstance(command, CloseRun):
        if not waiting or isinstance(command, CloseRun) or any(isinstance(each, CloseRun) for each in waiting):
            return "the workflow is shorter than its journal: a step, timer or child was removed, or an exit added"
        return "the code takes another branch: something was added before, removed, or decided outside the journal"
    recorded, now = getattr(event, "name", None), getattr(command, "name", None)
    if isinstance(event, ev.StepEvent) and isinstance(command, RunStep) and recorded != now:
        return f"a step was renamed, added, removed or reordered: {recorded!r} was recorded, {now!r} is asked now"
    return "a step, timer, child or message was added, removed or reordered before this point"
