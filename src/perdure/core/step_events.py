"""Events of steps: attempts, answers, and what is known of those that must not be repeated. See `core/events.py`."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from perdure.core.events_base import CommandEvent, Event
from perdure.core.payload import FailureInfo, Payload

Outcome: TypeAlias = Literal["happened", "did_not_happen", "abandoned"]


class Resolution(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Who says how an attempt came out, where the attempt itself could not."""

    outcome: Outcome
    by: Literal["person", "reconcile"]
    message_id: str = ""
    note: str = ""


class ResolveRequested(Event, frozen=True):
    """Only ever a message: its receiver's owner journals the answer of the step, which is marked as `resolved`."""

    message_id: str
    run: str
    seq: int
    attempt: int
    outcome: Outcome
    value: Payload | None = None
    note: str = ""


class StepEvent(CommandEvent, frozen=True):
    """What every event of a step holds: enough to recognise it, and to show it to a person."""

    name: str
    digest: bytes = b""
    location: str = ""
    preview: Payload | None = None  # of the input, at most 2 KiB
    input_ref: str = ""  # content address of the full input, where that is kept


class StepIntended(StepEvent, frozen=True):
    """The intent of a step whose effect must not be repeated blindly, with its full input."""

    attempt: int = 1
    input: Payload | None = None


class StepAttemptFailed(StepEvent, frozen=True):
    attempt: int = 1
    started_at_ms: int = 0
    failure: FailureInfo | None = None
    retry_at_ms: int = 0
    spent_ms: int = 0  # of the overall timeout: attempts and back-offs so far, without downtime
    progress: Payload | None = None
    resolved: Resolution | None = None


class StepCompleted(StepEvent, frozen=True):
    result: Payload = Payload(b"\xc0")
    attempt: int = 1
    started_at_ms: int = 0
    resolved: Resolution | None = None
    replaced: bool = False  # by who forked or rewound: it is not what the step returned


class StepFailed(StepEvent, frozen=True):
    failure: FailureInfo = FailureInfo("", "")
    attempt: int = 1
    started_at_ms: int = 0
    resolved: Resolution | None = None


class StepOutcomeUnknown(StepEvent, frozen=True):
    """Nobody knows whether an intended attempt happened. A person's answer follows, if any."""

    attempt: int = 1
    reason: str = ""
    failure: FailureInfo | None = None  # what it raised, if it did
    started_at_ms: int = 0
    raises: bool = False  # the code is told, instead of waiting for the answer


StepEvents: TypeAlias = StepIntended | StepAttemptFailed | StepCompleted | StepFailed | StepOutcomeUnknown
