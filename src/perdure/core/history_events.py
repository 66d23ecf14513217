"""Events of an execution's history: how one run follows another, and changes of code. See `core/events.py`."""

from __future__ import annotations

from typing import Literal

import msgspec

from perdure.core.events_base import ClosingEvent, Event
from perdure.core.payload import FailureInfo, Payload


class EarlierChild(msgspec.Struct, frozen=True):
    """A child that an earlier run of the execution began and did not see end. Its fate is that of the execution."""

    execution: str
    run: str
    on_parent_close: Literal["terminate", "cancel"]


class ContinuedAsNew(ClosingEvent, frozen=True):
    """The end of a run, but not of its execution: the next run begins in the same commit."""

    run: str  # the next one
    input: Payload
    workflow: str = ""  # of the next one, if it is another
    lost_failures: tuple[FailureInfo, ...] = ()


class Snapshot(Event, frozen=True):
    """What the run before handed over with `perdure.snapshot`: before the code begins."""

    state: Payload


class RunForked(Event, frozen=True):
    """What stands before this event was copied from another run, and still counts as that one's; here this run begins.

    A rewind is a fork whose `execution` is the one that it was copied from.
    """

    run: str
    execution: str
    from_execution: str
    from_run: str
    replaced: tuple[int, ...] = ()  # commands whose recorded answers were replaced, by seq


class PatchMarked(Event, frozen=True):
    """`perdure.patched` said yes, where the next command gets the number `seq`. It is no command, and takes none."""

    seq: int
    name: str
