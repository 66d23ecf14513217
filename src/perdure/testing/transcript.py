"""A journal as a test reads it: one line an event, without ids and times that differ from run to run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from perdure.core import events as ev
from perdure.core.errors import DecodeError
from perdure.workflow.values import codec_for, render


class Call(NamedTuple):
    """One step of a journal: what it was asked, as plain data, and what it answered, if it did."""

    name: str
    arguments: Any  # by parameter; text where only a preview was kept
    result: Any = None
    error: str = ""
    attempts: int = 1


def steps_of(journal: Sequence[ev.Recorded]) -> list[Call]:
    """The steps that ended, in the order of their ends.

    Example:
        assert [call.name for call in steps_of(await handle.journal())] == ["ask_model", "search", "search"]
    """
    found = []
    for recorded in journal:
        event = recorded.event
        if isinstance(event, ev.StepCompleted):
            call = Call(event.name, _plain(event.preview), _plain(event.result), attempts=event.attempt)
            found.append(call)
        elif isinstance(event, ev.StepFailed):
            error = f"{event.failure.type}: {event.failure.message}"
            found.append(Call(event.name, _plain(event.preview), error=error, attempts=event.attempt))
    return found


def transcript(journal: Sequence[ev.Recorded]) -> str:
    """The whole journal as lines to compare with: names, values, and how much time passed.

    Example:
        assert transcript(await handle.journal()) == '''
        started remind {"to": "ada"}
        7 days later: timer
        step send_mail {"to": "ada"} -> "sent"
        completed "sent"
        '''.strip()
    """
    lines, before_ms = [], 0
    for recorded in journal:
        line = _line(recorded.event)
        if line:
            passed = recorded.at_ms - before_ms if before_ms else 0
            lines.append(f"{_duration(passed)} later: {line}" if passed else line)
        before_ms = recorded.at_ms
    return "\n".join(lines)


def _line(event: ev.AnyEvent) -> str:
    match event:
        case ev.ExecutionClaimed():
            return ""
        case ev.ExecutionStarted():
            return f"started {event.workflow} {render(event.input)}"
        case ev.StepEvent():
            return _step_line(event)
        case ev.TimerFired():
            return "timer"
        case ev.SignalReceived():
            return f"signal {event.name} {render(event.value)}"
        case ev.ChildInitiated():
            return f"child {event.workflow} {render(event.input)}"
        case ev.ExecutionFailed():
            return f"failed {event.failure.type}: {event.failure.message}"
        case _:
            return _any_line(event)


def _step_line(event: ev.StepEvent) -> str:
    shown = f"step {event.name} {render(event.preview) if event.preview is not None else ''}".rstrip()
    match event:
        case ev.StepCompleted():
            return f"{shown} -> {render(event.result)}"
        case ev.StepFailed():
            return f"{shown} failed: {event.failure.type}: {event.failure.message}"
        case ev.StepAttemptFailed():
            kind = event.failure.type if event.failure is not None else "?"
            return f"{shown} attempt {event.attempt} failed: {kind}"
        case _:
            return f"{shown} {_words(event)}"


def _any_line(event: ev.Event) -> str:
    """The event's name in words, with its payloads and its reason."""
    told = [str(getattr(event, field, "")) for field in ("workflow", "name", "status", "reason")]
    values = [getattr(event, field) for field in event.__struct_fields__]
    shown = [render(value) for value in values if isinstance(value, ev.Payload)]
    return " ".join(part for part in (_words(event), *told, *shown) if part)


def _words(event: ev.Event) -> str:
    name = type(event).__name__.removeprefix("Execution")
    return "".join(f" {char.lower()}" if char.isupper() else char for char in name).strip()


def _duration(ms: int) -> str:
    for unit, size in (("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1_000)):
        if ms >= size and ms % size == 0:
            count = ms // size
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return f"{ms} ms"


def _plain(payload: ev.Payload | None) -> Any:
    if payload is None:
        return None
    try:
        return codec_for(Any, "a recorded value").decode(payload, "a recorded value")
    except DecodeError:
        return render(payload)
