"""Events: durable facts, past tense. A class here *is* the persisted format: its name is the tag, its fields the keys.

Names and meanings are compatibility data, pinned by golden journals; a change needs a new `FORMAT` and an upcaster
(`core/format.py`). Types whose behaviour comes with later releases are defined here already, so that journals and
tools know them; the machine refuses them until then.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from perdure.core.ask_events import AskOutcome as AskOutcome
from perdure.core.ask_events import QuestionAsked as QuestionAsked
from perdure.core.ask_events import QuestionClosed as QuestionClosed
from perdure.core.events_base import ClosingEvent as ClosingEvent
from perdure.core.events_base import CommandEvent as CommandEvent
from perdure.core.events_base import Event as Event
from perdure.core.events_base import Parent as Parent
from perdure.core.events_base import Unfinished as Unfinished
from perdure.core.history_events import ContinuedAsNew as ContinuedAsNew
from perdure.core.history_events import EarlierChild as EarlierChild
from perdure.core.history_events import PatchMarked as PatchMarked
from perdure.core.history_events import RunForked as RunForked
from perdure.core.history_events import Snapshot as Snapshot
from perdure.core.payload import FailureInfo as FailureInfo
from perdure.core.payload import Payload as Payload
from perdure.core.payload import Usage as Usage
from perdure.core.run_events import Attribute as Attribute
from perdure.core.run_events import AttributesSet as AttributesSet
from perdure.core.run_events import DeadlinePassed as DeadlinePassed
from perdure.core.run_events import PauseRequested as PauseRequested
from perdure.core.run_events import ResumeRequested as ResumeRequested
from perdure.core.step_events import Outcome as Outcome
from perdure.core.step_events import Resolution as Resolution
from perdure.core.step_events import ResolveRequested as ResolveRequested
from perdure.core.step_events import StepAttemptFailed as StepAttemptFailed
from perdure.core.step_events import StepCompleted as StepCompleted
from perdure.core.step_events import StepEvent as StepEvent
from perdure.core.step_events import StepEvents as StepEvents
from perdure.core.step_events import StepFailed as StepFailed
from perdure.core.step_events import StepIntended as StepIntended
from perdure.core.step_events import StepOutcomeUnknown as StepOutcomeUnknown


class ExecutionStarted(Event, frozen=True):
    workflow: str
    run: str
    input: Payload
    lane: str = "default"
    parent: Parent | None = None
    on_parent_close: str = ""
    request_id: str = ""
    start_at_ms: int = 0  # it does not begin before
    deadline_ms: int = 0  # it is cancelled then, and terminated after `grace_ms` more; 0: never
    grace_ms: int = 0
    memo: dict[str, Payload] = msgspec.field(default_factory=dict)
    attributes: dict[str, Attribute] = msgspec.field(default_factory=dict)
    version: str = ""  # of the workflow, as its code said when the run began
    continued_from: str = ""  # the run before this one
    first_run: str = ""  # of those that followed each other up to this one; empty: this one
    children: tuple[EarlierChild, ...] = ()
    idle_runs: int = 0  # how many runs before it did nothing but continue as new, one after the other
    execution: str = ""  # in a copy: the execution that it was copied from


class ExecutionClaimed(Event, frozen=True):
    """The first owner's event: logical time starts here."""


class CancelRequested(Event, frozen=True):
    message_id: str
    reason: str = ""
    sender_run: str = ""  # of the execution that sent it, with the number of its message to this one, from 1
    number: int = 0


class TerminateRequested(Event, frozen=True):
    """Only ever a message: its receiver's owner closes the run with `ExecutionTerminated` instead of journaling it."""

    message_id: str
    reason: str = ""
    sender_run: str = ""
    number: int = 0


class SignalReceived(Event, frozen=True):
    message_id: str
    name: str
    value: Payload
    sender: str = ""
    sender_run: str = ""
    number: int = 0
    by: str = ""  # of an answer to a question: who gave it, as the sender says


class ExecutionCompleted(ClosingEvent, frozen=True):
    result: Payload
    lost_failures: tuple[FailureInfo, ...] = ()  # exceptions of background tasks that nobody awaited


class ExecutionFailed(ClosingEvent, frozen=True):
    failure: FailureInfo
    lost_failures: tuple[FailureInfo, ...] = ()


class ExecutionCancelled(ClosingEvent, frozen=True):
    reason: str = ""
    lost_failures: tuple[FailureInfo, ...] = ()


class ExecutionTerminated(ClosingEvent, frozen=True):
    reason: str = ""
    not_known: tuple[str, ...] = ()  # as parts of the journal cannot be read: what that means, in words; no values


class StatePublished(Event, frozen=True):
    """What `perdure.publish` was last given. No command: calls may be added and removed without a disagreement."""

    state: Payload
    number: int = 0  # of the call, from 1


class UpdateRequested(Event, frozen=True):
    """Only ever a message: its receiver's validator decides whether it is journaled, as `UpdateAccepted`."""

    update_id: str
    name: str
    input: Payload


class UpdateAccepted(Event, frozen=True):
    update_id: str
    name: str
    input: Payload


class UpdateCompleted(CommandEvent, frozen=True):
    update_id: str
    name: str
    result: Payload | None = None
    failure: FailureInfo | None = None


class MessageDropped(CommandEvent, frozen=True):
    """A signal that its receiver cannot decode, or whose handler raised: it becomes a dead letter."""

    message_id: str
    name: str
    failure: FailureInfo


class TimerFired(CommandEvent, frozen=True):
    pass


class ChildInitiated(CommandEvent, frozen=True):
    workflow: str
    execution: str
    run: str
    input: Payload
    location: str = ""
    digest: bytes = b""
    on_parent_close: str = ""  # empty: recorded before journals told it; the child's `ExecutionStarted` does


class ChildStartFailed(CommandEvent, frozen=True):
    reason: str


CloseStatus: TypeAlias = Literal["completed", "failed", "cancelled", "terminated"]


class ChildClosed(CommandEvent, frozen=True):
    execution: str
    status: CloseStatus
    result: Payload | None = None
    failure: FailureInfo | None = None
    reason: str = ""
    sender_run: str = ""
    number: int = 0


class MessageSent(CommandEvent, frozen=True):
    """A signal or a cancel request to another execution, on its way through the outbox."""

    kind: Literal["signal", "cancel"]
    receiver: str
    name: str = ""
    value: Payload | None = None
    reason: str = ""
    location: str = ""
    digest: bytes = b""


class MessageDelivered(CommandEvent, frozen=True):
    pass


class MessageFailed(CommandEvent, frozen=True):
    reason: str


class OperationScheduled(CommandEvent, frozen=True):
    endpoint: str
    service: str
    operation: str
    request_id: str
    input: Payload


class OperationStarted(CommandEvent, frozen=True):
    token: str


class OperationCompleted(CommandEvent, frozen=True):
    result: Payload | None = None
    failure: FailureInfo | None = None
    state: Literal["succeeded", "failed", "canceled"] = "succeeded"


AnyEvent: TypeAlias = (
    ExecutionStarted
    | ExecutionClaimed
    | CancelRequested
    | TerminateRequested
    | PauseRequested
    | ResumeRequested
    | DeadlinePassed
    | AttributesSet
    | ResolveRequested
    | SignalReceived
    | ExecutionCompleted
    | ExecutionFailed
    | ExecutionCancelled
    | ExecutionTerminated
    | ContinuedAsNew
    | Snapshot
    | RunForked
    | StatePublished
    | UpdateRequested
    | UpdateAccepted
    | UpdateCompleted
    | StepEvents
    | MessageDropped
    | QuestionAsked
    | QuestionClosed
    | PatchMarked
    | TimerFired
    | ChildInitiated
    | ChildStartFailed
    | ChildClosed
    | MessageSent
    | MessageDelivered
    | MessageFailed
    | OperationScheduled
    | OperationStarted
    | OperationCompleted
)


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """An event with its header, as the journal holds it. `at_ms` is logical time: milliseconds since 1970, UTC."""

    position: int
    at_ms: int
    event: AnyEvent
    session: int = 0  # the worker's session: names worker and code fingerprint
    fingerprint: str = ""  # of the code that recorded it
    trace_parent: str = ""
    usage: Usage | None = None


CLOSED_BY_CODE = (ExecutionCompleted, ExecutionFailed, ExecutionCancelled, ContinuedAsNew)
CLOSING = (*CLOSED_BY_CODE, ExecutionTerminated)
