"""Definitions: `@step` and `@workflow` make plain, typed objects; nothing is registered anywhere by decorating."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from asyncio import events as asyncio_events
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Concatenate, Generic, Literal, NoReturn, ParamSpec, Protocol, TypeVar, get_args, overload

import msgspec

from perdure.core.errors import InvalidDefinition, InvalidOption, OutsideWorkflow
from perdure.core.events import FailureInfo, Payload
from perdure.core.retry import NO_RETRY, Retry, Seconds, to_ms
from perdure.workflow.calls import Call
from perdure.workflow.effects import OnUnknown, Reconcile, check_reconcile, check_together, effect_options
from perdure.workflow.failures import Raises
from perdure.workflow.handlers import Form, Kind, methods_of
from perdure.workflow.location import caller
from perdure.workflow.loop import DeterministicLoop, workflow_loop
from perdure.workflow.values import Arguments, Codec, codec_for, hints_of

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")

DEFAULT_RETRY = Retry()
MAX_NAME_BYTES = 200


class StepOptions(msgspec.Struct, frozen=True):
    """How a step is run. Durations are whole milliseconds; None means no limit."""

    retry: Retry = DEFAULT_RETRY
    timeout_ms: int | None = None
    total_timeout_ms: int | None = None
    heartbeat_timeout_ms: int | None = None
    concurrency: int | None = None
    once: bool = False
    not_happened: tuple[type[Exception], ...] = ()
    on_unknown: OnUnknown = "park"
    reconcile: Reconcile | None = None

    @property
    def is_limited(self) -> bool:
        """Whether an attempt has any limit in time."""
        return not (self.timeout_ms is None and self.total_timeout_ms is None and self.heartbeat_timeout_ms is None)


class _Unset:
    """The option was not given."""


UNSET = _Unset()


def _options(base: StepOptions, given: Mapping[str, Any]) -> StepOptions:
    """The options with changes: whatever is given, and not UNSET."""
    chosen = {name: value for name, value in given.items() if not isinstance(value, _Unset)}
    if not chosen:
        return base
    changes = effect_options(chosen)
    if "retry" in chosen:
        changes["retry"] = _retry(chosen["retry"])
    for name in ("timeout", "total_timeout", "heartbeat_timeout"):
        if name in chosen:
            changes[f"{name}_ms"] = None if chosen[name] is None else _positive_ms(chosen[name], name)
    if "concurrency" in chosen:
        changes["concurrency"] = _concurrency(chosen["concurrency"])
    options = msgspec.structs.replace(base, **changes)
    check_together(options, chosen)
    return options


def _concurrency(limit: int | None) -> int | None:
    is_number = isinstance(limit, int) and not isinstance(limit, bool)
    if limit is not None and (not is_number or limit < 1):
        raise InvalidOption(option="concurrency", value=repr(limit), expected="1 or more, or None")
    return limit


def _retry(value: Retry | int | None) -> Retry:
    if value is None:
        return NO_RETRY
    if isinstance(value, Retry):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Retry(attempts=value)
    raise InvalidOption(option="retry", value=repr(value), expected="perdure.Retry(...), a number of attempts, or None")


def _positive_ms(value: Seconds, name: str) -> int:
    milliseconds = to_ms(value, name)
    if milliseconds == 0:
        raise InvalidOption(option=name, value=repr(value), expected="at least one millisecond")
    return milliseconds


def derived_name(fn: Callable[..., Any], kind: str) -> str:
    """The name a definition has unless told: its qualified name without the module and without `<locals>`.

    Stable when a file is moved or run as a script; not when the function is renamed: then give `name=`.
    """
    target = _below_partials(fn)
    name = getattr(target, "__qualname__", None) or type(target).__qualname__
    return checked_name(name.replace("<locals>.", ""), kind)


def checked_name(name: str, kind: str) -> str:
    """The name itself, if it can stand in a journal and on a command line for ever."""
    bad = not isinstance(name, str) or not name or not name.isprintable() or len(name.encode()) > MAX_NAME_BYTES
    if bad or "<lambda>" in name:
        raise InvalidDefinition(
            name=repr(name),
            kind=kind,
            reason=f"its name must be printable text of 1 to {MAX_NAME_BYTES} bytes",
            fix=f"Name it: @{kind}(name='...').",
        )
    return name


def checked_version(version: str, workflow: str) -> str:
    """The version itself, if it can stand in a journal for ever."""
    if isinstance(version, str) and version.isprintable() and len(version.encode()) <= MAX_NAME_BYTES:
        return version
    raise InvalidDefinition(
        name=repr(workflow),
        kind="workflow",
        reason=f"its version must be printable text of at most {MAX_NAME_BYTES} bytes",
        fix='Write it as text: @workflow(version="2").',
    )


def _below_partials(fn: Any) -> Any:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn


def is_async(fn: Any) -> bool:
    """Whether calling it makes a coroutine; also of partials and of objects that can be called."""
    target = _below_partials(fn)
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(getattr(target, "__call__", None))  # noqa: B004 - asks about the method, not whether it exists


def _check_step(fn: Any) -> None:
    """Refuse what has no result to record."""
    called = _below_partials(fn)
    if isinstance(fn, Workflow | Step):
        reason, fix = _already(fn)
    elif isinstance(fn, str):
        reason, fix = "it is text", f"A name is given as @perdure.step(name={fn!r})."
    elif not callable(fn):
        reason, fix = "it cannot be called", "Decorate a function or a callable."
    elif inspect.isclass(called):
        reason, fix = "it is a class", "Decorate a function that makes one, and returns data."
    elif any(map(_is_generator, (called, getattr(called, "__call__", None)))):  # noqa: B004 - the method itself
        reason, fix = "it is a generator", "Return a list; `perdure.current_step().heartbeat(...)` tells how far it is."
    else:
        return
    name = repr(getattr(fn, "__qualname__", fn))
    raise InvalidDefinition(name=name, kind="step", reason=reason, fix=fix)


def _already(fn: Workflow[..., Any] | Step[..., Any]) -> tuple[str, str]:
    kind = "workflow" if isinstance(fn, Workflow) else "step"
    return f"it is a {kind} already", f"Keep @perdure.{kind} alone above the function."


def _is_generator(fn: Any) -> bool:
    return inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn)


class _HasResult:
    """A definition whose result has a codec, from the function's annotation."""

    fn: Callable[..., Any]
    name: str

    @functools.cached_property
    def result(self) -> Codec[Any]:
        """Built when decorated; later only where the annotation names something that its module defines below."""
        return codec_for(hints_of(self.fn).get("return", Any), f"the result of {self.name!r}")

    def _build_codecs(self) -> None:
        with contextlib.suppress(NameError):
            _ = self.result


class Step(_HasResult, Generic[P, R]):
    """A function that touches the world. Awaited inside a workflow its result is journaled; outside it just runs."""

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None,
        options: StepOptions,
        raises: Sequence[type[Exception]] = (),
        skip_self: bool = False,
    ) -> None:
        _check_step(fn)
        self.fn = fn
        self.name = derived_name(fn, "step") if name is None else checked_name(name, "step")
        self.options = options
        self.raises = Raises(raises, "step", self.name)
        self.is_async = is_async(fn)
        self._told_as = f"step {self.name}"  # by Python, where it was never awaited
        self.input_what = f"the input of step {self.name!r}"
        self.result_what = f"the result of step {self.name!r}"
        self.arguments = Arguments(fn, skip_self=skip_self)
        self._check_effects()
        self._build_codecs()
        functools.update_wrapper(self, fn, updated=())

    def _check_effects(self) -> None:
        if self.options.reconcile is not None:
            check_reconcile(self.options.reconcile, self.fn, self.arguments.signature, self.name)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """The coroutine to await: it issues the step, and returns its result as decoded from the journal."""
        loop = asyncio_events._get_running_loop()
        if isinstance(loop, DeterministicLoop):
            made = loop.host.run_step(self, args, kwargs, caller())  # type: ignore[attr-defined]
            made.__qualname__ = self._told_as
            return made  # type: ignore[no-any-return]
        return self._run_plainly(args, kwargs)

    # What runs an attempt asks these three; transactions answer otherwise.

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """What an attempt does: a coroutine if `is_async`, else to be called in a thread."""
        return self.fn(*args, **kwargs)

    def outcome(self, value: Any) -> Payload | FailureInfo:
        """What the journal keeps of what `call` returned.

        Raises:
            EncodeError, PayloadTooLarge: it cannot be recorded.
            PerdureError: nobody may say what came of it: the execution stalls.
        """
        return self.result.encode(value, self.result_what)

    settle: Callable[[FailureInfo], Any] | None = None
    """Makes a failure final before that is recorded; returns as `call` what came of the step after all."""

    async def _run_plainly(self, args: Any, kwargs: Any) -> Any:
        if self.is_async:
            return await self.fn(*args, **kwargs)
        return await asyncio.to_thread(self.fn, *args, **kwargs)

    def with_options(
        self,
        *,
        retry: Retry | int | _Unset | None = UNSET,
        timeout: Seconds | _Unset | None = UNSET,
        total_timeout: Seconds | _Unset | None = UNSET,
        heartbeat_timeout: Seconds | _Unset | None = UNSET,
        concurrency: int | _Unset | None = UNSET,
        once: bool | _Unset = UNSET,
        not_happened: Sequence[type[Exception]] | _Unset = UNSET,
        on_unknown: OnUnknown | _Unset = UNSET,
        reconcile: Reconcile | _Unset | None = UNSET,
    ) -> Step[P, R]:
        """The same step with other options for one call: `await search.with_options(timeout=5)(query)`.

        retry, timeout, total_timeout, heartbeat_timeout, concurrency, once, not_happened, on_unknown, reconcile: as
        `perdure.step` has them; what is not given stays as it is.
        """
        given = {
            "retry": retry,
            "timeout": timeout,
            "total_timeout": total_timeout,
            "heartbeat_timeout": heartbeat_timeout,
            "concurrency": concurrency,
            "once": once,
            "not_happened": not_happened,
            "on_unknown": on_unknown,
            "reconcile": reconcile,
        }
        copy: Step[P, R] = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.options = _options(self.options, given)
        copy._check_effects()
        return copy

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """This step with these arguments, for a question about it: see `perdure.ask`.

        Raises:
            WrongArguments, EncodeError: it could not be called with them.
        """
        return Call(self, args, kwargs)

    def replaced(self, fn: Callable[..., Any]) -> Step[P, R]:
        """A plain step of the same name, arguments and result that does something else: a test's stand-in."""
        copy: Step[P, R] = object.__new__(Step)
        copy.__dict__.update(self.__dict__)
        copy.fn, copy.is_async = fn, is_async(fn)
        return copy

    @overload
    def __get__(self, instance: None, owner: type) -> Step[P, R]: ...
    @overload
    def __get__(self: Step[Concatenate[S, Q], R], instance: S, owner: type) -> Step[Q, R]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        """On an instance: the step of the bound method. The instance is not part of the recorded input."""
        if instance is None:
            return self
        bound: Step[..., R] = object.__new__(type(self))
        bound.__dict__.update(self.__dict__)
        bound.fn = functools.partial(self.fn, instance)
        bound.arguments = self._method_arguments
        return bound

    @functools.cached_property
    def _method_arguments(self) -> Arguments:
        return Arguments(self.fn, skip_self=True)

    def __repr__(self) -> str:
        return f"<step {self.name!r}>"


class _StepDecorator:
    """What `step(...)` with options returns: typed as a decorator."""

    def __init__(self, name: str | None, options: StepOptions, raises: Sequence[type[Exception]]) -> None:
        self.name = name
        self.options = options
        self.raises = raises

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]]) -> Step[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R]) -> Step[P, R]: ...
    def __call__(self, fn: Any) -> Any:
        return Step(fn, name=self.name, options=self.options, raises=self.raises)


@overload
def step(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: Retry | int | _Unset | None = UNSET,
    timeout: Seconds | None = None,
    total_timeout: Seconds | None = None,
    heartbeat_timeout: Seconds | None = None,
    concurrency: int | None = None,
    once: bool = False,
    not_happened: Sequence[type[Exception]] = (),
    on_unknown: OnUnknown = "park",
    reconcile: Reconcile | None = None,
    raises: Sequence[type[Exception]] = (),
) -> _StepDecorator: ...
def step(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    retry: Any = UNSET,
    timeout: Any = UNSET,
    total_timeout: Any = UNSET,
    heartbeat_timeout: Any = UNSET,
    concurrency: Any = UNSET,
    once: Any = UNSET,
    not_happened: Any = UNSET,
    on_unknown: Any = UNSET,
    reconcile: Any = UNSET,
    raises: Sequence[type[Exception]] = (),
) -> Any:
    """Make a step of a function (`async def` or `def`), a method or any callable.

    Args:
        fn: the function; a plain `def` runs in a thread.
        name: what the journal calls it; by default its qualified name.
        retry: a `Retry`, a number of attempts, or None for a single one; three attempts by default.
        timeout: of one attempt, in seconds or as timedelta.
        total_timeout: of all attempts and pauses together; downtime does not count.
        heartbeat_timeout: longest silence between `current_step().heartbeat()` calls.
        concurrency: how many attempts of it one worker runs at once.
        once: never run it a second time unless it surely did not happen: at most once, instead of at least once. What
            nobody knows the outcome of is listed by `engine.unresolved()` until it is settled.
        not_happened: with `once`, exceptions after which the effect surely did not happen: then it is tried again.
        on_unknown: with `once`, what the await does while nobody knows whether it happened: "park" waits until that
            is known, "raise" raises `UnknownOutcome`.
        reconcile: with `once`, a function that asks the world what came of an attempt, `async def` or `def`: it gets
            the idempotency key and the step's arguments and returns `Happened(value)`, `DidNotHappen()` or
            `StillUnknown()`. It may be called more than once.
        raises: exceptions that its await raises as themselves, with their fields: each class is declared itself, its
            subclasses are not with it. Any other becomes `StepFailed`.

    Raises:
        InvalidDefinition, InvalidOption, UnsupportedType: at import, naming what is wrong.

    Example:
        @step(retry=Retry(attempts=5), timeout=60)
        async def search(query: str) -> list[Page]: ...

        @step(once=True, not_happened=[httpx.ConnectError], timeout=30)
        async def charge(card: str, cents: int) -> Receipt: ...
    """
    given = {
        "retry": retry,
        "timeout": timeout,
        "total_timeout": total_timeout,
        "heartbeat_timeout": heartbeat_timeout,
        "concurrency": concurrency,
        "once": once,
        "not_happened": not_happened,
        "on_unknown": on_unknown,
        "reconcile": reconcile,
    }
    decorator = _StepDecorator(name, _options(StepOptions(), given), raises)
    return decorator if fn is None else decorator(fn)


ParentClose = Literal["terminate", "cancel", "abandon"]
OnCancel = Literal["leave", "cancel", "wait"]
UnfinishedHandlers = Literal["finish", "abandon"]


class Runs(Protocol[P, R_co]):
    """A class that is a workflow: made without arguments in every run, its state is the run's."""

    def run(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """What the run does."""
        ...


class Workflow(_HasResult, Generic[P, R]):
    """An `async def` that orchestrates. Awaited inside another workflow it runs as a child execution."""

    def __init__(
        self,
        given: Callable[P, Coroutine[Any, Any, R]] | type[Runs[P, R]],
        *,
        name: str | None = None,
        version: str = "",
        unfinished_handlers: UnfinishedHandlers = "finish",
        raises: Sequence[type[Exception]] = (),
    ) -> None:
        self.cls = given if isinstance(given, type) else None
        self.fn: Callable[..., Any] = given if self.cls is None else _run_of(self.cls)
        _check_workflow(self.fn)
        if unfinished_handlers not in get_args(UnfinishedHandlers):
            value, expected = repr(unfinished_handlers), "'finish' or 'abandon'"
            raise InvalidOption(option="unfinished_handlers", value=value, expected=expected)
        self.name = derived_name(given, "workflow") if name is None else checked_name(name, "workflow")
        self.version = checked_version(version, self.name)
        self.raises = Raises(raises, "workflow", self.name)
        self.unfinished_handlers = unfinished_handlers
        self.arguments = Arguments(self.fn, skip_self=self.cls is not None)
        self.methods = {} if self.cls is None else methods_of(self.cls)
        self._build_codecs()
        functools.update_wrapper(self, given, updated=())

    def form(self, kind: Kind, name: str) -> Form | None:
        """The handler that its class declares; None if it declares none, or is a function."""
        return next((form for form in self.methods.values() if (form.mark.kind, form.mark.name) == (kind, name)), None)

    def input(self, args: Any, kwargs: Any) -> Payload:
        """Arguments, encoded. Raises `WrongArguments`, `EncodeError`."""
        return self.arguments.encode(args, kwargs, f"the input of workflow {self.name!r}")[0]

    def continue_as_new(self, *args: P.args, **kwargs: P.kwargs) -> NoReturn:
        """As `perdure.continue_as_new`, with this workflow: the same, or another one that the execution goes on as."""
        loop = workflow_loop()
        if loop is None:
            fix = "Call it in the code of the workflow that is to go on so."
            raise OutsideWorkflow(what=f"{self.name}.continue_as_new", place="a workflow", fix=fix)
        raise loop.host.continue_as(self, self.input(args, kwargs))  # type: ignore[attr-defined]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Inside a workflow: run as a child and return its result."""
        loop = asyncio_events._get_running_loop()
        if not isinstance(loop, DeterministicLoop):
            raise OutsideWorkflow(
                what=f"Workflow {self.name!r}",
                place="a workflow",
                fix="Run it with perdure.run or engine.start; the plain function is its .fn.",
            )
        made = loop.host.run_child(self, args, kwargs, caller())  # type: ignore[attr-defined]
        made.__qualname__ = f"workflow {self.name}"
        return made  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"<workflow {self.name!r}>"


def _check_workflow(fn: Any) -> None:
    """Refuse what is no `async def`."""
    if isinstance(fn, Workflow | Step):
        reason, fix = _already(fn)
    elif isinstance(fn, str):
        reason, fix = "it is text", f"A name is given as @perdure.workflow(name={fn!r})."
    elif inspect.isasyncgenfunction(fn):
        reason, fix = "it is a generator", "Return a list; perdure.publish tells how far it is."
    elif not inspect.iscoroutinefunction(fn):
        reason, fix = "it is not an `async def`", "Write `async def`; what blocks or touches the world is for steps."
    else:
        return
    name = repr(getattr(fn, "__qualname__", fn))
    raise InvalidDefinition(name=name, kind="workflow", reason=reason, fix=fix)


def _run_of(cls: type) -> Callable[..., Any]:
    """The method that is the workflow. Raises `InvalidDefinition`."""
    run = inspect.getattr_static(cls, "run", None)
    reason = "" if inspect.iscoroutinefunction(run) else "it has no `async def run(self, ...)`"
    try:
        inspect.signature(cls).bind()
    except TypeError as error:
        reason = f"it cannot be made without arguments: {error}"
    except ValueError:  # no signature to look at: the first run will tell
        pass
    if reason:
        fix = "Give it `async def run(self, ...)`, which takes the workflow's input, and no arguments to be made with."
        raise InvalidDefinition(name=repr(cls.__qualname__), kind="workflow", reason=reason, fix=fix)
    return run  # type: ignore[no-any-return]


class _WorkflowDecorator:
    """What `workflow(...)` with options returns: typed as a decorator."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    @overload
    def __call__(self, given: type[Runs[P, R]], /) -> Workflow[P, R]: ...
    @overload
    def __call__(self, given: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
    def __call__(self, given: Any, /) -> Any:
        return Workflow(given, **self.options)


@overload
def workflow(given: type[Runs[P, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(given: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    version: str = "",
    unfinished_handlers: UnfinishedHandlers = "finish",
    raises: Sequence[type[Exception]] = (),
) -> _WorkflowDecorator: ...
def workflow(
    given: Any = None,
    /,
    *,
    name: str | None = None,
    version: str = "",
    unfinished_handlers: UnfinishedHandlers = "finish",
    raises: Sequence[type[Exception]] = (),
) -> Any:
    """Make a workflow of an `async def`, or of a class with `async def run(self, ...)`.

    It must be deterministic given its journal: what touches the world belongs into steps.

    Args:
        given: the function or class. A class is made without arguments in every run: `self` holds the run's state, and
            its methods may handle messages.
        name: what the store calls it; by default its qualified name.
        version: recorded when a run begins; its code reads it with `perdure.workflow_version()`.
        unfinished_handlers: what happens to handlers of signals and updates that are at work when the workflow returns:
            "finish" waits for them, "abandon" leaves them, and the closing event names them. When it raises or is
            cancelled, "finish" cancels them first, as a task group does.
        raises: exceptions that its callers get as themselves, with their fields: a parent, and who waits for the
            result. Any other becomes `ExecutionFailed`.

    Raises:
        InvalidDefinition, InvalidOption, UnsupportedType: at import, naming what is wrong.

    Example:
        @workflow
        async def research(topic: str) -> Report: ...

        @workflow
        class Chat:
            def __init__(self) -> None:
                self.lines: list[str] = []

            async def run(self, topic: str) -> int: ...

            @perdure.on_update
            async def say(self, line: str) -> str: ...
    """
    decorator = _WorkflowDecorator(name=name, version=version, unfinished_handlers=unfinished_handlers, raises=raises)
    return decorator if given is None else decorator(given)
