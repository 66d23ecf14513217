"""Handlers of signals, queries and updates: what each takes and gives, and how the messages of one run reach them.

Handlers of signals and updates run as tasks of the run, begun by the event that tells of the message: replay repeats
them. Queries and validators are called beside the journal, and may only look.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

import msgspec

from perdure.core import events as ev
from perdure.core.ask_events import ANSWER
from perdure.core.commands import CompleteUpdate
from perdure.core.errors import (
    DecodeError,
    DuplicateName,
    InvalidDefinition,
    InvalidOption,
    PerdureError,
    QueryFailed,
    ReadOnlyHandler,
    UnknownHandler,
    WrongArguments,
)
from perdure.workflow.location import refused_in, user_location
from perdure.workflow.values import Arguments, Codec, codec_for, encode_untyped, failure_info, hints_of, secrets_pass

if TYPE_CHECKING:
    from perdure.workflow.execution import Execution

Kind: TypeAlias = Literal["signal", "query", "update"]
MARK = "__perdure_handler__"
MOST_FORMS = 1_000


class Mark(msgspec.Struct, frozen=True):
    """What a decorator says of a function: that it handles messages of this name."""

    kind: Kind
    name: str
    validator: Callable[..., Any] | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


class Form(msgspec.Struct, frozen=True):
    """How a handler's arguments and result travel, and how it is called."""

    mark: Mark
    arguments: Arguments
    result: Codec[Any]
    parameters: int
    is_async: bool

    @property
    def what(self) -> str:
        """For messages about its arguments."""
        return f"the input of {self.mark}"


class Handler(msgspec.Struct, frozen=True):
    """One handler of one run: its form, and the function or bound method itself."""

    form: Form
    fn: Callable[..., Any]
    validator: Callable[..., Any] | None = None

    def arguments(self, payload: ev.Payload) -> tuple[Any, ...]:
        """What to call it with. Raises `WrongArguments`."""
        try:
            return self.accepted(payload)
        except DecodeError as error:
            signature = str(self.form.arguments.signature)
            raise WrongArguments(
                name=self.form.mark.name, signature=signature, reason=error.fields["reason"]
            ) from error

    def accepted(self, payload: ev.Payload) -> tuple[Any, ...]:
        """What to call it with, where the arguments were accepted before. Raises `DecodeError`."""
        args, kwargs = self.form.arguments.decode(payload, self.form.what)
        return (*args, *kwargs.values())


# --- definitions -----------------------------------------------------------------------------------------------------


def form_of(mark: Mark, fn: Callable[..., Any], *, is_method: bool = False) -> Form:
    """The form of a function as a handler.

    Raises:
        InvalidDefinition: it cannot be one.
        UnsupportedType: an annotation that nobody can encode.
    """
    is_async = inspect.iscoroutinefunction(fn)
    if is_async and mark.kind == "query":
        raise _invalid(mark, fn, "it is async", "A query only looks: write `def`, and read what the workflow keeps.")
    arguments = Arguments(fn, skip_self=is_method)
    parameters = list(arguments.signature.parameters.values())
    if any(each.kind not in _GIVEN_BY_POSITION for each in parameters):
        raise _invalid(mark, fn, "its arguments are not all positional", "Give it parameters without stars.")
    if mark.kind == "signal" and len(parameters) > 1:
        raise _invalid(mark, fn, "a signal has one value", "Take one parameter, say a dataclass, or none.")
    if mark.validator is not None:
        _check_validator(mark, mark.validator, len(parameters), is_method=is_method)
    result = codec_for(hints_of(fn).get("return", Any), f"the result of {mark}")
    return Form(mark, arguments, result, len(parameters), is_async)


_GIVEN_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _check_validator(mark: Mark, validator: Callable[..., Any], parameters: int, *, is_method: bool) -> None:
    if inspect.iscoroutinefunction(validator):
        raise _invalid(mark, validator, "its validator is async", "A validator only looks: write `def`.")
    try:
        inspect.signature(validator).bind(*range(parameters + is_method))
    except TypeError as error:
        fix = "Give the validator the handler's own parameters."
        raise _invalid(mark, validator, f"its validator does not take the same arguments: {error}", fix) from None


def _invalid(mark: Mark, fn: Callable[..., Any], reason: str, fix: str) -> InvalidDefinition:
    name = getattr(fn, "__qualname__", repr(fn))
    return InvalidDefinition(name=name, kind=f"handler of {mark}", reason=reason, fix=fix)


_forms: OrderedDict[Any, Form] = OrderedDict()


def local_form(mark: Mark, fn: Callable[..., Any]) -> Form:
    """The form of a function that is defined anew in every run: looked up by its code, as making it takes a while."""
    try:
        defaults = tuple((type(each), each) for each in fn.__defaults__ or ())
        validator = None if mark.validator is None else mark.validator.__code__
        key = (mark.kind, mark.name, fn.__code__, validator, defaults, tuple(hints_of(fn).items()))
        known = _forms.get(key)
    except (AttributeError, TypeError, NameError):  # a callable object, an unhashable annotation, a name still missing
        return form_of(mark, fn)
    if known is None:
        made = form_of(mark, fn)
        # What is kept for other runs must not keep this one: its functions hold its variables.
        made.arguments.fn = forgotten
        known = _forms[key] = msgspec.structs.replace(made, mark=Mark(mark.kind, mark.name))
        if len(_forms) > MOST_FORMS:
            _forms.popitem(last=False)
    return known


def forgotten() -> None:
    """Stands for a function that is no longer needed."""


def methods_of(cls: type) -> dict[str, Form]:
    """The handlers that a class defines or inherits, by attribute.

    Raises:
        DuplicateName: two of a kind have the same name.
        InvalidDefinition, UnsupportedType: as `form_of`.
    """
    found: dict[str, Form] = {}
    named: dict[tuple[Kind, str], Any] = {}
    for attribute in dir(cls):
        method = inspect.getattr_static(cls, attribute)
        mark: Mark | None = getattr(method, MARK, None)
        if mark is None:
            continue
        other = named.setdefault((mark.kind, mark.name), method)
        if other is not method:
            places = {"first": _place(other), "second": _place(method)}
            raise DuplicateName(kind=f"{mark.kind} handler", name=mark.name, **places)
        found[attribute] = form_of(mark, method, is_method=True)
    return found


def _place(fn: Any) -> str:
    return f"{fn.__qualname__}, line {fn.__code__.co_firstlineno}"


# --- code that may only look -----------------------------------------------------------------------------------------


class Reader:
    """What stands in for an execution while a query or a validator runs: time and names, and refusal of all else."""

    def __init__(self, execution: Execution, handler: str) -> None:
        self.now_ms = execution.now_ms
        self.id = execution.id
        self.run = execution.run
        self.workflow = execution.workflow
        self.started = execution.started
        self.attributes = execution.attributes
        self.private = False
        self.handler = handler
        self.violation: ReadOnlyHandler | None = None

    def refuse(self, what: str) -> NoReturn:
        """Raise, and remember: the handler may catch it."""
        where = user_location()
        self.violation = ReadOnlyHandler(handler=self.handler, what=f"{what} ({where})" if where else what)
        raise self.violation

    def __getattr__(self, name: str) -> NoReturn:
        self.refuse(_WORDS.get(name, f"perdure.{name}"))


_WORDS = {
    "run_step": "a step",
    "run_child": "a child",
    "start_timer": "a timer",
    "cancel_command": "a cancellation",
    "entropy": "perdure.uuid4",
}


# --- of one run ------------------------------------------------------------------------------------------------------


class Handlers:
    """Which handlers a run has now, and which of them are at work. Belongs to its execution."""

    def __init__(self, execution: Execution) -> None:
        self.by_kind: dict[Kind, dict[str, Handler]] = {"signal": {}, "query": {}, "update": {}}
        self.at_work: dict[asyncio.Task[None], ev.Unfinished] = {}
        self._cut_off: list[ev.Unfinished] = []
        self.unanswered: dict[str, ev.UpdateAccepted] = {}  # by id
        self.ending = False  # the workflow's own coroutine has ended: no handler begins any more
        self._execution = execution

    def register(self, handler: Handler) -> None:
        """From now on; of signals, those that wait for a receiver come first."""
        mark = handler.form.mark
        execution = self._execution
        if mark.kind == "signal" and mark.name in execution.mailbox.awaited():
            raise _invalid(mark, handler.fn, "perdure.receive waits for it", "Use one or the other for a name.")
        self.by_kind[mark.kind][mark.name] = handler
        if mark.kind == "signal":
            for signal in execution.mailbox.take_all(mark.name):
                self._begin_signal(handler, signal)

    def register_methods(self, instance: Any, methods: dict[str, Form]) -> None:
        """The handlers of a workflow that is a class."""
        for attribute, form in methods.items():
            validator = form.mark.validator
            bound = None if validator is None else functools.partial(validator, instance)
            self.register(Handler(form, getattr(instance, attribute), bound))

    def names(self) -> list[str]:
        """What may come, for people."""
        return [f"{kind} {name}" for kind in ("signal", "update") for name in self.by_kind[kind]]

    @property
    def wait_for_messages(self) -> bool:
        """Whether a message that comes could still do something."""
        return not self.ending and bool(self.by_kind["signal"] or self.by_kind["update"])

    # --- messages ---

    def signal(self, event: ev.SignalReceived) -> bool:
        """Begin to handle it; False if it is to wait for a receiver."""
        handler = self.by_kind["signal"].get(event.name)
        if handler is None or self.ending:
            return False
        self._begin_signal(handler, event)
        return True

    def _begin_signal(self, handler: Handler, event: ev.SignalReceived) -> None:
        if handler.form.is_async:
            unfinished = ev.Unfinished("signal", event.name, event.message_id)
            self._begin(self._signal(handler, event), unfinished)
        else:
            self._execution.loop.call_soon(self._signal_at_once, handler, event, context=Context())

    def _begin(self, work: Any, unfinished: ev.Unfinished) -> None:
        task = self._execution.loop.create_task(work, name=f"{unfinished.kind} {unfinished.name}", context=Context())
        self.at_work[task] = unfinished
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        unfinished = self.at_work.pop(task)
        if self.ending and task.cancelled():
            self._cut_off.append(unfinished)

    def unfinished(self) -> list[ev.Unfinished]:
        """Those that the end of the run has cut off, or cuts off now."""
        return [*self._cut_off, *self.at_work.values()]

    def _signal_at_once(self, handler: Handler, event: ev.SignalReceived) -> None:
        try:
            handler.fn(*self._value(handler, event))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the handler's, whatever it is
            self._drop(event, error)

    async def _signal(self, handler: Handler, event: ev.SignalReceived) -> None:
        try:
            await handler.fn(*self._value(handler, event))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - likewise
            self._drop(event, error)

    def _value(self, handler: Handler, event: ev.SignalReceived) -> tuple[Any, ...]:
        form = handler.form
        if not form.parameters:
            return ()
        return (self._execution.value_of(event, form.arguments.decode_one, f"signal {event.name!r}"),)

    def _drop(self, event: ev.SignalReceived, error: Exception | SystemExit) -> None:
        refused = refused_in(error)
        if refused is None:
            self._execution.drop(event, error)
        else:
            self._execution.problem = refused

    def update(self, event: ev.UpdateAccepted) -> None:
        """Begin to handle it."""
        handler = self.by_kind["update"].get(event.name)
        if handler is None:
            self._execution.problem = self.unknown("update", event.name)
            return
        self.unanswered[event.update_id] = event
        self._begin(self._update(handler, event), ev.Unfinished("update", event.name, event.update_id))

    async def _update(self, handler: Handler, event: ev.UpdateAccepted) -> None:
        execution = self._execution
        try:
            args = handler.accepted(event.input)
        except DecodeError as error:
            execution.problem = error  # other code reads it now
            return
        try:
            value = handler.fn(*args)
            if handler.form.is_async:
                value = await value
            result = handler.form.result.encode(value, f"the result of update {event.name!r}")
        except asyncio.CancelledError as error:
            if self.ending:
                raise  # the close answers it
            self._complete(event, None, failure_info(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the handler's: the caller is told
            execution.problem = refused_in(error)
            if execution.problem is None:
                self._complete(event, None, failure_info(error))
        else:
            self._complete(event, result, None)

    def _complete(self, event: ev.UpdateAccepted, result: ev.Payload | None, failure: ev.FailureInfo | None) -> None:
        name = event.name
        del self.unanswered[event.update_id]
        self._execution.issue(CompleteUpdate(update_id=event.update_id, name=name, result=result, failure=failure))

    # --- beside the journal ---

    def judge(self, request: ev.UpdateRequested) -> ev.FailureInfo | None:
        """Why an update is not accepted, if so.

        Raises:
            ReadOnlyHandler: the validator did more than look.
        """
        handler = self.by_kind["update"].get(request.name)
        if handler is None:
            return failure_info(self.unknown("update", request.name))
        try:
            args = handler.arguments(request.input)
            if handler.validator is not None:
                self._look(f"The validator of {handler.form.mark}", handler.validator, args)
        except ReadOnlyHandler:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a validator raises is its reason
            return failure_info(error)
        return None

    def answer(self, name: str, payload: ev.Payload) -> ev.Payload:
        """What a query's handler returns.

        Raises:
            UnknownHandler, WrongArguments, QueryFailed, EncodeError: to the caller; the execution is as it was.
            ReadOnlyHandler: the handler did more than look: what is in memory is not what the journal led to.
        """
        handler = self.by_kind["query"].get(name)
        if handler is None:
            raise self.unknown("query", name)
        args = handler.arguments(payload)
        try:
            value = self._look(f"The handler of {handler.form.mark}", handler.fn, args)
        except ReadOnlyHandler:
            raise
        except (Exception, SystemExit) as error:
            raise QueryFailed(execution=self._execution.id, name=name, failure=failure_info(error)) from error
        with secrets_pass(when=True):  # it goes to who asked, and is recorded nowhere
            return handler.form.result.encode(value, f"the result of query {name!r}")

    def _look(self, who: str, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        reader = Reader(self._execution, who)
        try:
            return self._execution.loop.look(reader, lambda: fn(*args))
        finally:
            if reader.violation is not None:
                raise reader.violation

    def unknown(self, kind: Kind, name: str) -> PerdureError:
        """The error that there is no such handler."""
        known = ", ".join(sorted(self.by_kind[kind])) or "none"
        return UnknownHandler(execution=self._execution.id, kind=kind, name=name, known=known)

    # --- the end ---

    def end(self, failed: bool) -> None:  # noqa: FBT001 - the loop calls it
        """The workflow's own coroutine has ended; when it failed, its handlers are cancelled, as a task group's are."""
        self.ending = True
        if failed:
            for task in list(self.at_work):
                task.cancel("the workflow has ended")

    def forget(self) -> None:
        """The run leaves memory: what holds it goes. Which handlers were at work stays known."""
        self.__dict__.pop("_execution", None)  # a cycle, of which there would be many
        self.by_kind = {"signal": {}, "query": {}, "update": {}}

    async def finished(self) -> None:
        """Wait until no handler is at work but the one that asks."""
        me = asyncio.current_task()
        while others := [task for task in self.at_work if task is not me and not task.done()]:
            await asyncio.wait(others)


def signal_payload(name: str, value: Any, form: Form | None = None) -> ev.Payload:
    """A signal's value: by its handler's own form where it is known, else as what it is, for its receiver to decode."""
    what = f"signal {name!r}"
    if name.startswith(ANSWER):
        expected = f"another one: {ANSWER}... are answers, which `handle.answer` gives"
        raise InvalidOption(option="signal", value=repr(name), expected=expected)
    if form is None:
        return encode_untyped(value, what)
    if not form.parameters and value is not None:
        raise WrongArguments(name=name, signature=str(form.arguments.signature), reason="it takes no value")
    return form.arguments.encode_one(value, what) if form.parameters else encode_untyped(None, what)


def encode_values(args: tuple[Any, ...], form: Form | None, what: str) -> ev.Payload:
    """The arguments of a query or an update: by the handler's own form where it is known, else as what they are."""
    if form is not None:
        return form.arguments.encode(args, {}, what)[0]
    return Arguments.encode_by_position(args, what)
