"""Messages as workflow code has them: `receive`, `messages`, handlers by decorator, `publish`."""

from __future__ import annotations

from asyncio import timeout as asyncio_timeout
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

from perdure.core.errors import DecodeError, InvalidDefinition, PayloadTooLarge
from perdure.core.retry import Seconds, to_ms
from perdure.workflow.context import current_execution
from perdure.workflow.definitions import checked_name
from perdure.workflow.handlers import MARK, Handler, Kind, Mark, local_form
from perdure.workflow.loop import workflow_loop
from perdure.workflow.values import codec_for, encode_untyped

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

MAX_STATE_BYTES = 1024 * 1024
"""What `publish` takes, encoded."""

# --- signals ---------------------------------------------------------------------------------------------------------


@overload
async def receive(name: str, /, *, timeout: Seconds | None = None) -> Any: ...
@overload
async def receive(name: str, type_: type[T], /, *, timeout: Seconds | None = None) -> T: ...
async def receive(name: str, type_: Any = Any, /, *, timeout: Seconds | None = None) -> Any:
    """Wait for the next signal of this name and return its value.

    A signal whose value does not decode as the type is dropped: it becomes a dead letter, `perdure show` says why, and
    this goes on waiting. One that older code took, and this code cannot decode any more, stalls the execution instead.

    Args:
        name: the signal's name.
        type_: what its value is decoded as.
        timeout: seconds or timedelta of logical time; None waits for ever, in no memory.

    Raises:
        TimeoutError: none came in time. One that was stored before the timeout counts, however late the worker runs.
        InvalidDefinition: a handler takes the signals of this name.

    Example:
        decision = await perdure.receive("approval", Decision, timeout=timedelta(days=3))
    """
    execution = current_execution("receive")
    if name in execution.handlers.by_kind["signal"]:
        fix = "Use one or the other for a name."
        raise InvalidDefinition(
            name="perdure.receive", kind=f"receiver of {name!r}", reason="it has a handler", fix=fix
        )
    what = f"signal {name!r}"
    codec = codec_for(type_, what)
    if timeout is not None:
        async with asyncio_timeout(to_ms(timeout, "timeout") / 1000):
            return await receive(name, type_)
    while True:
        event = await execution.mailbox.next(name)
        try:
            return execution.value_of(event, codec.decode, what)
        except DecodeError as error:
            execution.drop(event, error)


class Messages(Generic[T]):
    """The signals of one name, for `async for`. It never ends by itself."""

    def __init__(self, name: str, type_: type[T], timeout: Seconds | None) -> None:
        self.name = name
        self.type = type_
        self.timeout = timeout

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return await receive(self.name, self.type, timeout=self.timeout)


@overload
def messages(name: str, /, *, timeout: Seconds | None = None) -> Messages[Any]: ...
@overload
def messages(name: str, type_: type[T], /, *, timeout: Seconds | None = None) -> Messages[T]: ...
def messages(name: str, type_: Any = Any, /, *, timeout: Seconds | None = None) -> Messages[Any]:
    """The signals of this name, one after the other: `receive` as an asynchronous iterator.

    Args:
        name: the signals' name.
        type_: what their values are decoded as.
        timeout: how long to wait for each of them, in seconds or as timedelta; `TimeoutError` is raised then.

    Example:
        async for text in perdure.messages("say", str):
            ...
    """
    current_execution("messages")
    return Messages(name, type_, timeout)


# --- handlers --------------------------------------------------------------------------------------------------------


@overload
def on_signal(fn: F, /) -> F: ...
@overload
def on_signal(name: str, /) -> Callable[[F], F]: ...
def on_signal(fn_or_name: Any, /) -> Any:
    """Let a function handle the signals of a name: by default its own.

    Inside a workflow function it registers a local function, from now on; in the body of a workflow that is a class,
    it makes a method a handler. `def` or `async def`, with one parameter, which gets the value, or none. An `async def`
    runs beside the workflow. A signal that does not decode, or whose handler raises, is dropped: it becomes a dead
    letter, and `perdure show` says why.

    Raises:
        InvalidDefinition, UnsupportedType: this can be no handler.

    Example:
        @perdure.on_signal
        def rename(title: str) -> None:
            state.title = title
    """
    return _decorator("signal", fn_or_name, None)


@overload
def on_query(fn: F, /) -> F: ...
@overload
def on_query(name: str, /) -> Callable[[F], F]: ...
def on_query(fn_or_name: Any, /) -> Any:
    """Let a function answer the queries of a name: by default its own.

    As `on_signal`, but a `def` that only looks at the workflow's state and returns something; nothing of it is
    recorded. What it changes in spite of that is lost; `perdure lint` tells of what it sees (L011).

    Raises:
        InvalidDefinition, UnsupportedType: this can be no handler.

    Example:
        @perdure.on_query
        def progress() -> float:
            return done / total
    """
    return _decorator("query", fn_or_name, None)


@overload
def on_update(fn: F, /) -> F: ...
@overload
def on_update(name: str = "", /, *, validator: Callable[..., None] | None = None) -> Callable[[F], F]: ...
def on_update(fn_or_name: Any = "", /, *, validator: Callable[..., None] | None = None) -> Any:
    """Let a function handle the updates of a name, by default its own: messages whose senders get its result.

    As `on_signal`, with any number of parameters; what it returns or raises goes to the sender.

    Args:
        fn_or_name: the function, or the name.
        validator: takes the same arguments, only looks, and raises to reject the update: then it leaves no trace.

    Raises:
        InvalidDefinition, UnsupportedType: this can be no handler.

    Example:
        def check(item: str) -> None:
            if item in sold_out:
                raise ValueError(f"{item} is sold out")

        @perdure.on_update(validator=check)
        async def add(item: str) -> int:
            items.append(item)
            return len(items)
    """
    return _decorator("update", fn_or_name, validator)


def _decorator(kind: Kind, fn_or_name: Any, validator: Callable[..., None] | None) -> Any:
    if callable(fn_or_name):
        return _handle(kind, "", None, fn_or_name)

    def decorate(fn: Any) -> Any:
        return _handle(kind, fn_or_name, validator, fn)

    return decorate


def _handle(kind: Kind, name: str, validator: Callable[..., None] | None, fn: Any) -> Any:
    what = f"on_{kind}"
    if not hasattr(fn, "__name__") or not callable(fn):
        fix = f"Put @perdure.{what} above a `def`, below other decorators."
        raise InvalidDefinition(name=repr(fn), kind=f"{kind} handler", reason="it is no function", fix=fix)
    mark = Mark(kind, checked_name(name or fn.__name__, what), validator)
    if workflow_loop() is not None:
        current_execution(what).handlers.register(Handler(local_form(mark, fn), fn, validator))
    else:
        setattr(fn, MARK, mark)
    return fn


async def all_handlers_finished() -> None:
    """Wait until no handler of a signal or an update is at work any more, except the one that asks.

    A workflow that returns waits for its handlers anyway, unless it says `unfinished_handlers="abandon"`; this is for
    waiting earlier, before what they must not see.

    Raises:
        OutsideWorkflow: no workflow calls.

    Example:
        await perdure.all_handlers_finished()
        await close_the_account(items)
    """
    await current_execution("all_handlers_finished").handlers.finished()


# --- state -----------------------------------------------------------------------------------------------------------


def publish(state: Any) -> None:
    """Make a state readable from outside, at any time and without code: `handle.state()`, `perdure state ID`.

    The last one counts, also after the end. It is journaled with the next thing that is; of several in a row only the
    last. It is no step: calls may be added to a workflow and removed from it while executions run.

    Args:
        state: data; models are kept as maps. At most 1 MiB encoded.

    Raises:
        EncodeError, PayloadTooLarge: it cannot be kept.

    Example:
        perdure.publish({"done": 3, "of": 10})
    """
    execution = current_execution("publish")
    what = "the published state"
    payload = encode_untyped(state, what)
    if len(payload.data) > MAX_STATE_BYTES:
        raise PayloadTooLarge(what=what, size=len(payload.data), limit=MAX_STATE_BYTES)
    execution.publish(payload)
