"""One event of each type with every field set, and one with only what is required: for tests of format and table."""

from __future__ import annotations

import typing
from typing import Any

import msgspec

from perdure.core import events as ev

PAYLOAD = ev.Payload(b"\x93\x01\xa1a\xc0", "msgpack", "key-1")
PLAIN = ev.Payload(b"\x07")
FAILURE = ev.FailureInfo(
    type="ValueError",
    message="no such page",
    traceback='  File "research.py", line 3',
    cause=ev.FailureInfo("KeyError", "'page'"),
    members=(ev.FailureInfo("OSError", "one", untyped="too large"), ev.FailureInfo("OSError", "two", value=PLAIN)),
    value=PAYLOAD,
    declared="NoSuchPage",
)
_STEP: dict[str, Any] = {
    "seq": 7,
    "name": "search",
    "digest": b"\x01\x02\xff",
    "location": "research.py:14",
    "preview": PLAIN,
    "input_ref": "blake2b:00ff",
}
RESOLVED = ev.Resolution("happened", "person", "m-9", "the bank says so")
_CHILD: dict[str, Any] = {"execution": "child-1", "status": "completed", "sender_run": "5e" * 16, "number": 3}
_CLOSING: dict[str, Any] = {"unfinished": (ev.Unfinished("update", "add", "u-4"),), "unreceived": 2}

ATTRIBUTES = {
    "customer": ev.Attribute("text", "acme"),
    "tags": ev.Attribute("text", ("a", "b")),
    "cents": ev.Attribute("number", 1_250),
    "share": ev.Attribute("number", 0.5),
    "paid": ev.Attribute("bool", True),  # noqa: FBT003 - the value
    "due": ev.Attribute("time", 1_700_000_000_000_001),
}

FULL: list[ev.AnyEvent] = [
    ev.ExecutionStarted(
        workflow="research",
        run="0a" * 16,
        input=PAYLOAD,
        lane="blue",
        parent=ev.Parent("parent-1", "0b" * 16, 2),
        on_parent_close="terminate",
        request_id="req-1",
        start_at_ms=1_700_000_000_000,
        deadline_ms=1_700_000_900_000,
        grace_ms=30_000,
        memo={"why": PAYLOAD},
        attributes=ATTRIBUTES,
        version="2",
        continued_from="0f" * 16,
        first_run="1a" * 16,
        children=(ev.EarlierChild("child-1", "1b" * 16, "cancel"),),
        idle_runs=3,
        execution="x-1",
    ),
    ev.ExecutionClaimed(),
    ev.CancelRequested(message_id="m-1", reason="enough", sender_run="0c" * 16, number=1),
    ev.TerminateRequested(message_id="m-2", reason="now", sender_run="0c" * 16, number=2),
    ev.PauseRequested(message_id="m-6", reason="too dear"),
    ev.ResumeRequested(message_id="m-7"),
    ev.DeadlinePassed(deadline_ms=1_700_000_900_000, ends_at_ms=1_700_000_930_000, reason="too late"),
    ev.AttributesSet(changed=ATTRIBUTES, removed=("stage",)),
    ev.ResolveRequested(
        message_id="m-9",
        run="0a" * 16,
        seq=7,
        attempt=2,
        outcome="happened",
        value=PAYLOAD,
        note="the bank says so",
    ),
    ev.SignalReceived(
        message_id="m-3", name="approval", value=PAYLOAD, sender="boss", sender_run="0c" * 16, number=3, by="ada"
    ),
    ev.ExecutionCompleted(result=PAYLOAD, lost_failures=(FAILURE,), **_CLOSING),
    ev.ExecutionFailed(failure=FAILURE, lost_failures=(FAILURE,), **_CLOSING),
    ev.ExecutionCancelled(reason="enough", lost_failures=(FAILURE,), **_CLOSING),
    ev.ExecutionTerminated(reason="now", not_known=("what stood at 3",), **_CLOSING),
    ev.ContinuedAsNew(run="0d" * 16, input=PAYLOAD, workflow="write", lost_failures=(FAILURE,), **_CLOSING),
    ev.RunForked(run="1c" * 16, execution="x-3", from_execution="x-1", from_run="0a" * 16, replaced=(7,)),
    ev.Snapshot(state=PAYLOAD),
    ev.StatePublished(state=PAYLOAD, number=5),
    ev.PatchMarked(seq=4, name="faster"),
    ev.UpdateRequested(update_id="u-4", name="add", input=PAYLOAD),
    ev.UpdateAccepted(update_id="u-4", name="add", input=PAYLOAD),
    ev.UpdateCompleted(seq=5, update_id="u-4", name="add", result=PAYLOAD, failure=FAILURE),
    ev.MessageDropped(seq=6, message_id="m-5", name="go", failure=FAILURE),
    ev.QuestionAsked(
        seq=11,
        question="Pay this?",
        to="finance",
        schema=PLAIN,
        about=PAYLOAD,
        name="pay",
        digest=b"\x08\x09\xff",
        expires_at_ms=1_700_000_900_000,
        escalate_to="boss",
        escalate_at_ms=1_700_000_800_000,
        location="research.py:40",
    ),
    ev.QuestionClosed(seq=12, asked=11, outcome="answered"),
    ev.StepIntended(**_STEP, attempt=2, input=PAYLOAD),
    ev.StepAttemptFailed(
        **_STEP,
        attempt=2,
        started_at_ms=1_700_000_000_000,
        failure=FAILURE,
        retry_at_ms=1_700_000_001_000,
        spent_ms=900,
        progress=PLAIN,
        resolved=RESOLVED,
    ),
    ev.StepCompleted(
        **_STEP, result=PAYLOAD, attempt=3, started_at_ms=1_700_000_000_000, resolved=RESOLVED, replaced=True
    ),
    ev.StepFailed(**_STEP, failure=FAILURE, attempt=3, started_at_ms=1_700_000_000_000, resolved=RESOLVED),
    ev.StepOutcomeUnknown(
        **_STEP,
        attempt=2,
        reason="the worker died",
        failure=FAILURE,
        started_at_ms=1_700_000_000_000,
        raises=True,
    ),
    ev.TimerFired(seq=8),
    ev.ChildInitiated(
        seq=9,
        workflow="child",
        execution="child-1",
        run="0e" * 16,
        input=PAYLOAD,
        location="research.py:20",
        digest=b"\x04\x05\xff",
        on_parent_close="cancel",
    ),
    ev.ChildStartFailed(seq=9, reason="the id is taken"),
    ev.ChildClosed(seq=9, **_CHILD, result=PAYLOAD, failure=FAILURE, reason="why"),
    ev.MessageSent(
        seq=10,
        kind="signal",
        receiver="x-2",
        name="go",
        value=PAYLOAD,
        reason="because",
        location="research.py:30",
        digest=b"\x06\x07\xff",
    ),
    ev.MessageDelivered(seq=10),
    ev.MessageFailed(seq=10, reason="closed"),
    ev.OperationScheduled(
        seq=11, endpoint="https://agents", service="research", operation="run", request_id="r-1", input=PAYLOAD
    ),
    ev.OperationStarted(seq=11, token="token-1"),  # noqa: S106 - no password
    ev.OperationCompleted(seq=11, result=PAYLOAD, failure=FAILURE, state="failed"),
]

EVENT_TYPES: tuple[type[ev.Event], ...] = typing.get_args(ev.AnyEvent)
COMMAND_EVENTS = tuple(kind for kind in EVENT_TYPES if issubclass(kind, ev.CommandEvent))
RUN_EVENTS = tuple(kind for kind in EVENT_TYPES if not issubclass(kind, ev.CommandEvent))


def bare(event: ev.AnyEvent) -> ev.AnyEvent:
    """The same event with everything left out that may be."""
    required = {field.name: getattr(event, field.name) for field in msgspec.structs.fields(event) if field.required}
    return type(event)(**required)


SAMPLES: dict[str, ev.AnyEvent] = {type(event).__name__: event for event in FULL}
SAMPLES |= {f"{name}, bare": bare(event) for name, event in list(SAMPLES.items())}
