"""What a journal tells of its run beside commands: how long it may take, what it can be found by, its size and code."""

from __future__ import annotations

from perdure.core import events as ev
from perdure.core.patches import Patches


class Facts:
    """A pure function of the events noted."""

    __slots__ = ("attributes", "deadline_ms", "grace_ms", "overdue", "patches", "size")

    def __init__(self) -> None:
        self.deadline_ms: int | None = None  # when it is cancelled; once it was, when it is terminated
        self.overdue = False
        self.grace_ms = 0
        self.attributes: dict[str, ev.Attribute] = {}
        self.patches = Patches()
        self.size = 0  # bytes of the values in it

    def note(self, event: ev.AnyEvent) -> None:
        """Take an event of the run into account."""
        match event:
            case ev.ExecutionStarted():
                self.deadline_ms, self.grace_ms = event.deadline_ms or None, event.grace_ms
                self.attributes |= event.attributes
            case ev.SignalReceived():
                self.size += len(event.value.data)
            case ev.PatchMarked():
                self.patches.written(event)
            case ev.DeadlinePassed():
                self.deadline_ms, self.overdue = event.ends_at_ms, True
            case ev.AttributesSet():
                self.attributes |= event.changed
                for name in event.removed:
                    self.attributes.pop(name, None)
            case _:
                pass
