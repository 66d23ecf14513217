"""What a journal tells of its run beside commands: how long it may take, what it can be found by."""

from __future__ import annotations

from perdure.core import events as ev


class Facts:
    """A pure function of the events noted."""

    __slots__ = ("attributes", "deadline_ms", "grace_ms", "overdue")

    def __init__(self) -> None:
        self.deadline_ms: int | None = None  # when it is cancelled; once it was, when it is terminated
        self.overdue = False
        self.grace_ms = 0
        self.attributes: dict[str, ev.Attribute] = {}

    def note(self, event: ev.AnyEvent) -> None:
        """Take an event of the run into account."""
        match event:
            case ev.ExecutionStarted():
                self.deadline_ms, self.grace_ms = event.deadline_ms or None, event.grace_ms
                self.attributes |= event.attributes
            case ev.DeadlinePassed():
                self.deadline_ms, self.overdue = event.ends_at_ms, True
            case ev.AttributesSet():
                self.attributes |= event.changed
                for name in event.removed:
                    self.attributes.pop(name, None)
            case _:
                pass
