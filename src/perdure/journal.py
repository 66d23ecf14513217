"""Reading journals: the events, rows and running steps that a handle returns, and their values as text or plain data.

For tools that look at executions without their code: command line, dashboards, exports.
"""

from __future__ import annotations

from typing import Any

from perdure.core.ask_events import answered_by
from perdure.core.events import (
    AnyEvent,
    Attribute,
    AttributesSet,
    CancelRequested,
    ChildClosed,
    ChildInitiated,
    ChildStartFailed,
    ClosingEvent,
    ContinuedAsNew,
    DeadlinePassed,
    EarlierChild,
    ExecutionCancelled,
    ExecutionClaimed,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    ExecutionTerminated,
    FailureInfo,
    MessageDelivered,
    MessageDropped,
    MessageFailed,
    MessageSent,
    Parent,
    PatchMarked,
    PauseRequested,
    Payload,
    QuestionAsked,
    QuestionClosed,
    Recorded,
    ResumeRequested,
    RunForked,
    SignalReceived,
    Snapshot,
    StatePublished,
    StepAttemptFailed,
    StepCompleted,
    StepEvent,
    StepEvents,
    StepFailed,
    StepIntended,
    StepOutcomeUnknown,
    TimerFired,
    Unfinished,
    UpdateAccepted,
    UpdateCompleted,
    Usage,
)
from perdure.runtime.description import Description, Origin
from perdure.runtime.differing import Pair
from perdure.store.protocol import OPEN_STATUSES, Row, Running, RunRow, Status
from perdure.workflow.standing import Waiting
from perdure.workflow.values import codec_for, render

__all__ = [
    "OPEN_STATUSES",
    "AnyEvent",
    "Attribute",
    "AttributesSet",
    "CancelRequested",
    "ChildClosed",
    "ChildInitiated",
    "ChildStartFailed",
    "ClosingEvent",
    "ContinuedAsNew",
    "DeadlinePassed",
    "Description",
    "EarlierChild",
    "ExecutionCancelled",
    "ExecutionClaimed",
    "ExecutionCompleted",
    "ExecutionFailed",
    "ExecutionStarted",
    "ExecutionTerminated",
    "FailureInfo",
    "MessageDelivered",
    "MessageDropped",
    "MessageFailed",
    "MessageSent",
    "Origin",
    "Pair",
    "Parent",
    "PatchMarked",
    "PauseRequested",
    "Payload",
    "QuestionAsked",
    "QuestionClosed",
    "Recorded",
    "ResumeRequested",
    "Row",
    "RunForked",
    "RunRow",
    "Running",
    "SignalReceived",
    "Snapshot",
    "StatePublished",
    "Status",
    "StepAttemptFailed",
    "StepCompleted",
    "StepEvent",
    "StepEvents",
    "StepFailed",
    "StepIntended",
    "StepOutcomeUnknown",
    "TimerFired",
    "Unfinished",
    "UpdateAccepted",
    "UpdateCompleted",
    "Usage",
    "Waiting",
    "answered_by",
    "plain_value",
    "render",
]


def plain_value(payload: Payload) -> Any:
    """The payload as plain data, without the type that wrote it: models are maps.

    Raises:
        DecodeError: it is encrypted, damaged, or only a preview that was cut.
    """
    return codec_for(Any, "a recorded value").decode(payload, "a recorded value")
