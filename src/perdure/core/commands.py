"""Commands: what workflow code intends, imperative. In memory only: a crash forgets them, replay reissues them.

`target` is the user's definition object, opaque here: the machine compares names, the runtime calls it.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal, TypeAlias

import msgspec

from perdure.core import events as ev
from perdure.core.events import FailureInfo, Payload, SignalReceived


class State(Enum):
    """The state of a command."""

    OPEN = "open"  # issued, nothing journaled of it that ends it
    STARTED = "started"  # its intent is journaled: it has begun, or may have
    UNKNOWN = "unknown"  # begun, and nobody knows whether it happened
    LEFT = "left"  # begun, then the code stopped waiting; what it did to the world still matters
    LEFT_UNKNOWN = "left_unknown"  # likewise, and nobody knows whether it happened
    CANCELLED = "cancelled"  # the code stopped waiting before it was started
    ANSWERED = "answered"

    __hash__ = object.__hash__  # looked up at every event: not by name, as an enumeration's is


class Intent(msgspec.Struct, frozen=True, gc=False):
    """Where in the journal an attempt was intended, and when."""

    position: int
    at_ms: int
    input: Payload | None = None  # what that attempt was given, where the code passes something else by now


class Command(msgspec.Struct, gc=False):
    """Base of all commands; the machine keeps `seq`, `state` and `taken`, `location` is the user's `file:line`."""

    seq: int = 0
    location: str = ""
    state: State = State.OPEN
    taken: bool = False  # handed out to be started


class RunStep(Command, kw_only=True, gc=False):
    name: str
    input: Payload
    digest: bytes
    target: Any
    options: Any
    # what the journal already tells of earlier attempts
    attempt: int = 0
    retry_at_ms: int = 0
    spent_ms: int = 0
    progress: Payload | None = None
    intent: Intent | None = None  # of the attempt that began last, if the step is declared once
    shown: bytes = b""  # digest of the input that people agreed to, as the journal tells; empty: nobody was asked


class StartTimer(Command, kw_only=True, gc=False):
    due_ms: int


class StartChild(Command, kw_only=True, gc=False):
    workflow: str
    execution: str
    run: str
    input: Payload
    on_parent_close: Literal["terminate", "cancel", "abandon"]
    target: Any
    digest: bytes = b""
    derived: bool = False  # its id is a function of this run and `seq`: nobody chose it


class SendMessage(Command, kw_only=True, gc=False):
    kind: Literal["signal", "cancel"]
    receiver: str
    name: str = ""
    value: Payload | None = None
    reason: str = ""
    digest: bytes = b""


class CompleteUpdate(Command, kw_only=True, gc=False):
    """An update's handler ended: exactly one of result, failure."""

    update_id: str
    name: str
    result: Payload | None = None
    failure: FailureInfo | None = None


class DropMessage(Command, kw_only=True, gc=False):
    """A signal that the code cannot take, and why; `message` is what becomes a dead letter."""

    message: SignalReceived
    failure: FailureInfo

    @property
    def name(self) -> str:
        """Of the signal."""
        return self.message.name


class AskQuestion(Command, kw_only=True, gc=False):
    """A question to people; the answer comes as a signal."""

    question: str
    to: str
    schema: Payload | None
    about: Payload | None
    name: str
    digest: bytes
    expires_at_ms: int
    escalate_to: str
    escalate_at_ms: int
    shown: bytes = b""  # the digest that the journal tells


class CloseQuestion(Command, kw_only=True, gc=False):
    """The code waits for the answer no longer."""

    asked: int
    outcome: ev.AskOutcome


class Continuing(msgspec.Struct, frozen=True, gc=False):
    """How the next run begins, when a run continues as new."""

    workflow: str
    run: str
    input: Payload
    state: Payload | None
    target: Any


class CloseRun(Command, kw_only=True, gc=False):
    """The workflow's coroutine ended: exactly one of result, failure, cancelled, continues."""

    result: Payload | None = None
    failure: FailureInfo | None = None
    cancelled: bool = False
    continues: Continuing | None = None
    reason: str = ""
    lost_failures: tuple[FailureInfo, ...] = ()

    @property
    def ends_as(self) -> type[ev.ClosingEvent]:
        """The type of the run's last event."""
        if self.continues is not None:
            return ev.ContinuedAsNew
        if self.cancelled:
            return ev.ExecutionCancelled
        return ev.ExecutionFailed if self.failure is not None else ev.ExecutionCompleted


AnyCommand: TypeAlias = (
    RunStep
    | StartTimer
    | StartChild
    | SendMessage
    | CompleteUpdate
    | DropMessage
    | AskQuestion
    | CloseQuestion
    | CloseRun
)
