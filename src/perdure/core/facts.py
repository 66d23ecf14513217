"""What a journal tells of its run beside commands: how long it may take, what it can be found by, its size and code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.core import events as ev
from perdure.core.patches import Patches


class Facts:
    """A pure function of the events noted."""

    __slots__ = (
        "attributes",
        "deadline_ms",
        "done",
        "first_run",
        "grace_ms",
        "overdue",
        "parent",
        "patches",
        "published",
        "size",
        "started",
    )

    def __init__(self) -> None:
        self.deadline_ms: int | None = None  # when it is cancelled; once it was, when it is terminated
        self.overdue = False
        self.grace_ms = 0
        self.attributes: dict[str, ev.Attribute] = {}
        self.started: ev.ExecutionStarted | None = None
        self.parent: ev.Parent | None = None  # who is told how it ends
        self.first_run = ""  # of those that followed each other up to this one
        self.published: ev.StatePublished | None = None
        self.patches = Patches()
        self.size = 0  # bytes of the values in it
        self.done = 0  # events that brought something in, or told what came of a command

    def note(self, event: ev.AnyEvent) -> None:
        """Take an event of the run into account."""
        take = _TAKE.get(type(event))
        if take is not None:
            take(self, event)


def _start(facts: Facts, event: ev.ExecutionStarted) -> None:
    facts.deadline_ms, facts.grace_ms = event.deadline_ms or None, event.grace_ms
    facts.attributes |= event.attributes
    facts.started, facts.parent = event, event.parent
    facts.first_run = event.first_run or event.run


def _fork(facts: Facts, event: ev.RunForked) -> None:
    facts.deadline_ms, facts.overdue = None, False  # it was meant for what is over
    if event.execution != event.from_execution:
        facts.parent, facts.first_run = None, event.run  # a copy is nobody's child


def _receive(facts: Facts, event: ev.SignalReceived) -> None:
    facts.size += len(event.value.data)
    facts.done += 1


def _count(facts: Facts, _: ev.AnyEvent) -> None:
    facts.done += 1


def _publish(facts: Facts, event: ev.StatePublished) -> None:
    facts.published = event


def _mark(facts: Facts, event: ev.PatchMarked) -> None:
    facts.patches.written(event)


def _pass_deadline(facts: Facts, event: ev.DeadlinePassed) -> None:
    facts.deadline_ms, facts.overdue = event.ends_at_ms, True


def _set_attributes(facts: Facts, event: ev.AttributesSet) -> None:
    facts.attributes |= event.changed
    for name in event.removed:
        facts.attributes.pop(name, None)


_TAKE: dict[type, Callable[[Facts, Any], None]] = {
    ev.ExecutionStarted: _start,
    ev.RunForked: _fork,
    ev.SignalReceived: _receive,
    ev.UpdateAccepted: _count,
    ev.CancelRequested: _count,
    ev.PauseRequested: _count,
    ev.StatePublished: _publish,
    ev.PatchMarked: _mark,
    ev.DeadlinePassed: _pass_deadline,
    ev.AttributesSet: _set_attributes,
}
