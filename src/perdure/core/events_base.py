"""What events are made of: their base classes, and the structs in them. Part of the persisted format."""

from __future__ import annotations

import msgspec

from perdure.core.payload import Payload


class Parent(msgspec.Struct, frozen=True):
    """Who started a child: its answers go back to this command of this run."""

    execution: str
    run: str
    seq: int


class Event(
    msgspec.Struct, frozen=True, tag=True, omit_defaults=True, gc=False, forbid_unknown_fields=True, kw_only=True
):
    """Base of all events. Immutable data has no cycles: the garbage collector need not look at it.

    `sealed` is the whole event, encrypted: what stands beside it is its shape (`core/shape.py`). In a store only; in
    the process just where the key is missing.
    """

    sealed: Payload | None = None


class Unfinished(msgspec.Struct, frozen=True):
    """A handler that had begun and not ended when its run closed."""

    kind: str  # signal or update
    name: str
    message_id: str


class ClosingEvent(Event, frozen=True, kw_only=True):
    """The end of a run, and what of its messages came to none: no message is dropped in silence."""

    unfinished: tuple[Unfinished, ...] = ()
    unreceived: int = 0  # signals in this journal that the code never took: they are dead letters now


class CommandEvent(Event, frozen=True):
    """An event that answers, or tells something of, the command with this sequence number."""

    seq: int
