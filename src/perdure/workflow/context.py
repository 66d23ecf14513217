"""What asyncio lacks: what workflow code calls as `perdure.<name>`, and what a step can ask of its attempt."""

from __future__ import annotations

import asyncio
import random as random_module
import uuid
from abc import ABC, abstractmethod
from asyncio import events as asyncio_events
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Generic, ParamSpec, TypeVar, get_args

import msgspec

from perdure.core.commands import SendMessage, StartChild
from perdure.core.errors import Evicted, InvalidOption, OutsideWorkflow
from perdure.core.identity import checked_id, derived_id, storable
from perdure.workflow.attributes import (
    AttributeValue,
    Moment,
    check_number,
    checked_name,
    decode_attributes,
    encode_attributes,
    moment,
)
from perdure.workflow.definitions import OnCancel, ParentClose
from perdure.workflow.execution import Execution
from perdure.workflow.handlers import Reader, signal_payload
from perdure.workflow.location import caller
from perdure.workflow.loop import DeterministicLoop
from perdure.workflow.runnable import Runnable, workflow_of
from perdure.workflow.values import codec_for, digest

P = ParamSpec("P")
R = TypeVar("R")


def current_execution(name: str) -> Execution:
    """The execution whose code calls `perdure.<name>`; while it may only look, what refuses all but that."""
    loop = asyncio_events._get_running_loop()
    if not isinstance(loop, DeterministicLoop):
        fix = "Call it in the workflow's own code; a step is outside, and gets what it needs as an argument."
        raise OutsideWorkflow(what=f"perdure.{name}", place="a workflow", fix=fix)
    host = loop.host
    if loop.closing and not isinstance(host, Execution):
        raise Evicted
    assert isinstance(host, Execution | Reader)
    return host  # type: ignore[return-value]


# --- inside a workflow ---------------------------------------------------------------------------------------------


def now() -> datetime:
    """The time, with time zone UTC: that of the journal's last event, so that it is the same on every replay.

    Raises:
        OutsideWorkflow: no workflow calls.

    Example:
        due = perdure.now() + timedelta(days=30)
    """
    return datetime.fromtimestamp(current_execution("now").now_ms / 1000, UTC)


def random() -> random_module.Random:
    """The run's random generator, seeded from its run id: the same numbers on every replay.

    Raises:
        OutsideWorkflow: no workflow calls.

    Example:
        reviewer = perdure.random().choice(reviewers)
    """
    return current_execution("random").random


def uuid4() -> uuid.UUID:
    """A random UUID of this run: the same on every replay. No secret: whoever knows the run's id can compute it.

    Raises:
        OutsideWorkflow: no workflow calls.

    Example:
        order_id = str(perdure.uuid4())
    """
    return uuid.UUID(int=current_execution("uuid4").entropy.getrandbits(128), version=4)


class Info(msgspec.Struct, frozen=True):
    """Facts about the running execution."""

    id: str
    run: str
    workflow: str
    parent: str | None = None
    """The execution that started it."""
    deadline: Moment | None = None
    """It is cancelled then."""
    attributes: dict[str, AttributeValue] = msgspec.field(default_factory=dict)
    """What it can be found by: as it was started with them and has set them since."""
    memo: dict[str, Any] = msgspec.field(default_factory=dict)


def info() -> Info:
    """Which execution this is, and what it was started with beside its arguments.

    Returns:
        `id`, `run`, `workflow` (its name), `parent` (the id of the execution that started it, or None), `deadline`,
        `attributes` and `memo`.

    Raises:
        OutsideWorkflow: no workflow calls.

    Example:
        folder = f"reports/{perdure.info().id}"
    """
    execution = current_execution("info")
    started = execution.started
    return Info(
        execution.id,
        execution.run,
        execution.workflow.name,
        started.parent.execution if started.parent is not None else None,
        moment(started.deadline_ms),
        decode_attributes(started.attributes if execution.attributes is None else execution.attributes),
        {name: codec_for(Any, f"memo {name!r}").decode(payload, name) for name, payload in started.memo.items()},
    )


def set_attributes(**attributes: AttributeValue | None) -> None:
    """Change what this execution can be found by (`engine.list`, `perdure ls --where`).

    They are journaled with whatever comes next, and not encrypted. `perdure.info().attributes` has them at once.

    Args:
        attributes: by names of a-z, 0-9 and _: text, numbers, bools, datetimes with time zone, lists of different
            texts. None removes one.

    Raises:
        InvalidOption: a name or value that cannot be one, or too many.

    Example:
        perdure.set_attributes(stage="review", cents=1_250)
    """
    execution = current_execution("set_attributes")
    known = execution.started.attributes if execution.attributes is None else execution.attributes
    changed = encode_attributes({name: value for name, value in attributes.items() if value is not None})
    removed = {checked_name(name) for name, value in attributes.items() if value is None}
    kept = {name: value for name, value in (known | changed).items() if name not in removed}
    check_number(len(kept))
    execution.attributes = kept


class ExternalHandle:
    """Another execution, by its `id`: what `perdure.external` returns."""

    def __init__(self, execution: Execution, execution_id: str) -> None:
        self.id = execution_id
        self._execution = execution

    async def signal(self, name: str, value: Any = None) -> None:
        """Send it a signal; returns when it has arrived in its inbox. Raises `MessageNotDelivered`: nobody takes it."""
        await _send_signal(self._execution, self.id, name, value, caller())

    async def cancel(self, reason: str = "") -> None:
        """Ask it to cancel; returns when the request has arrived. Raises `MessageNotDelivered`: nobody takes it."""
        await _send_cancel(self._execution, self.id, reason, caller())


class ChildHandle(ExternalHandle, Generic[R]):
    """A started child execution: what `perdure.start_child` returns. `id` is the child's."""

    def __init__(self, execution: Execution, command: StartChild, closed: asyncio.Future[Any]) -> None:
        super().__init__(execution, command.execution)
        self._command = command
        self._closed = closed

    async def result(self, *, on_cancel: OnCancel = "leave") -> R:
        """Wait for its end.

        Args:
            on_cancel: what cancelling this await means for the child. "leave": nothing. "cancel": it is asked to
                cancel, and this await ends at once. "wait": it is asked to cancel, and this await ends when the child
                has; cancelled once more, it ends at once. Awaiting a workflow itself is "cancel".

        Raises:
            ExecutionFailed, ExecutionCancelled, ExecutionTerminated: it did not complete.
            ChildNotStarted: its id was taken.

        Example:
            async with asyncio.timeout(3600):
                booking = await trip.result(on_cancel="wait")  # after an hour, its clean-up is waited for as well
        """
        if on_cancel not in get_args(OnCancel):
            raise InvalidOption(option="on_cancel", value=repr(on_cancel), expected="'leave', 'cancel' or 'wait'")
        return await self._execution.child_result(self._command, self._closed, on_cancel)  # type: ignore[no-any-return]


async def _send_cancel(execution: Execution, receiver: str, reason: str, location: str) -> None:
    await execution.send(SendMessage(kind="cancel", receiver=receiver, reason=storable(reason), location=location))


async def _send_signal(execution: Execution, receiver: str, name: str, value: Any, location: str) -> None:
    payload = signal_payload(checked_id(name, "signal name"), value)
    signal = SendMessage(
        kind="signal", receiver=receiver, name=name, value=payload, digest=digest(payload), location=location
    )
    await execution.send(signal)


def external(execution_id: str) -> ExternalHandle:
    """Another execution, to signal or cancel from inside a workflow, whether it exists or not.

    Args:
        execution_id: its id, in the same namespace.

    Raises:
        InvalidId: it cannot be one.
        OutsideWorkflow: no workflow calls; outside there is `client.handle`.

    Example:
        await perdure.external("report-1").signal("approval", Decision(approved=True))
    """
    return ExternalHandle(current_execution("external"), checked_id(execution_id))


async def start_child(
    workflow: Runnable[P, R],
    *args: Any,
    id: str | None = None,
    on_parent_close: ParentClose = "terminate",
    **kwargs: Any,
) -> ChildHandle[R]:
    """Start a child execution; returns a handle once its start is durable.

    Args:
        workflow: the child's workflow; its arguments follow.
        id: the child's id; by default one derived from this run.
        on_parent_close: what happens to it when this run closes first: "terminate", "cancel" or "abandon". A child
            that this run has asked to cancel is left to its clean-up, whatever the policy.

    Raises:
        ChildNotStarted: another execution has the id.
        InvalidId, InvalidOption, WrongArguments, EncodeError: nothing was started.
        OutsideWorkflow: no workflow calls.

    Example:
        trip = await perdure.start_child(book_trip, "Lisbon", on_parent_close="cancel")
        booking = await trip.result()
    """
    execution = current_execution("start_child")
    if id is not None:
        checked_id(id)
    if on_parent_close not in get_args(ParentClose):
        raise InvalidOption(
            option="on_parent_close", value=repr(on_parent_close), expected="'terminate', 'cancel' or 'abandon'"
        )
    command, closed = await execution.start_child(
        workflow_of(workflow), args, kwargs, caller(), child_id=id, on_parent_close=on_parent_close
    )
    return ChildHandle(execution, command, closed)


# --- inside a step ---------------------------------------------------------------------------------------------------


class Attempt(ABC):
    """The running attempt of a step, as `perdure.current_step()` returns it.

    Example:
        step = perdure.current_step()
        for page in range(step.progress or 0, pages):  # goes on where the attempt before was
            await fetch(page)
            step.heartbeat(page + 1)
    """

    __slots__ = ("attempt", "cancelled", "execution", "name", "run", "seq")

    execution: str
    run: str
    seq: int
    name: str
    attempt: int
    """1 for the first."""
    cancelled: bool
    """Nobody waits for it any more, or its time is over."""

    @property
    def idempotency_key(self) -> str:
        """The same on every attempt and after every crash; another in another run. 32 hexadecimal digits."""
        return derived_id("step", self.execution, self.run, self.seq)

    @property
    @abstractmethod
    def progress(self) -> Any:
        """What the attempt before this one last told by `heartbeat`; None if nothing."""

    @abstractmethod
    def heartbeat(self, progress: Any = None) -> None:
        """Say that the step is alive, and how far it is: the next attempt reads it as `progress`. Any thread may call.

        Raises:
            asyncio.CancelledError: the step was cancelled or timed out; a step in a thread stops here.
            EncodeError: the progress cannot be encoded.
        """

    @abstractmethod
    def spent(self, *, input_tokens: int = 0, output_tokens: int = 0, cost_micros: int = 0) -> None:
        """Say what this attempt spent: kept with its event, whether it succeeds or fails. Amounts of calls are summed.

        `perdure top` shows the rates, `perdure journal` and `perdure show --json` each event's.

        Args:
            input_tokens: that a model read.
            output_tokens: that it wrote.
            cost_micros: money, in millionths.

        Raises:
            InvalidOption: an amount is no whole number, 0 or more.

        Example:
            perdure.current_step().spent(input_tokens=reply.usage.prompt_tokens)
        """


current_attempt: ContextVar[Attempt] = ContextVar("perdure_attempt")


def current_step() -> Attempt:
    """The attempt that is running: its execution, run, seq, attempt number, `idempotency_key`, `heartbeat`, `progress`.

    Raises:
        OutsideWorkflow: no workflow runs this step.

    Example:
        await payments.charge(amount, idempotency_key=perdure.current_step().idempotency_key)
    """
    try:
        return current_attempt.get()
    except LookupError:
        fix = "Run the step in a workflow; in tests, perdure.testing.TestEngine does."
        raise OutsideWorkflow(what="perdure.current_step", place="a step that a workflow runs", fix=fix) from None
