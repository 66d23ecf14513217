"""Events of a run as a whole: pauses, its deadline, what it can be found by. See `core/events.py`."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from perdure.core.events_base import Event

AttributeKind: TypeAlias = Literal["text", "number", "bool", "time"]


class Attribute(msgspec.Struct, frozen=True, array_like=True):
    """What an execution can be found by: a value, or several texts. Times are microseconds since 1970, UTC."""

    kind: AttributeKind
    value: bool | int | float | str | tuple[str, ...]


class PauseRequested(Event, frozen=True):
    """From here on nothing begins and no timer fires; steps that run may end."""

    message_id: str
    reason: str = ""


class ResumeRequested(Event, frozen=True):
    message_id: str


class DeadlinePassed(Event, frozen=True):
    """The execution ran longer than it may: its code is cancelled, and has until `ends_at_ms` to clean up."""

    deadline_ms: int
    ends_at_ms: int
    reason: str = ""


class AttributesSet(Event, frozen=True):
    """What `perdure.set_attributes` changed. No command: calls may be added and removed without a disagreement."""

    changed: dict[str, Attribute] = msgspec.field(default_factory=dict)
    removed: tuple[str, ...] = ()
