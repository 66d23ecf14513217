"""Commands: what workflow code intends, imperative. In memory only: a crash forgets them, replay reissues them.

`target` is the user's definition object, opaque here: the machine compares names, the runtime calls it.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from perdure.core.events import FailureInfo, Payload


class Command(msgspec.Struct):
    """Base of all commands; `seq` is given by the machine at issue, `location` is the user's `file:line`."""

    seq: int = 0
    location: str = ""


class RunStep(Command, kw_only=True):
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


class StartTimer(Command, kw_only=True):
    due_ms: int


class StartChild(Command, kw_only=True):
    workflow: str
    execution: str
    run: str
    input: Payload
    on_parent_close: Literal["terminate", "cancel", "abandon"]
    target: Any


class SendMessage(Command, kw_only=True):
    kind: Literal["signal", "cancel"]
    receiver: str
    name: str = ""
    value: Payload | None = None
    reason: str = ""


class CloseRun(Command, kw_only=True):
    """The workflow's coroutine ended: exactly one of result, failure, cancelled."""

    result: Payload | None = None
    failure: FailureInfo | None = None
    cancelled: bool = False
    reason: str = ""
    lost_failures: tuple[FailureInfo, ...] = ()


AnyCommand: TypeAlias = RunStep | StartTimer | StartChild | SendMessage | CloseRun
