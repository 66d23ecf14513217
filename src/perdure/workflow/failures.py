"""Failures that cross processes as themselves: `Failure`, and what a definition declares with `raises=[...]`.

The class of what was recorded is looked up among those that the step or workflow at hand declares, never by a name
that the bytes bring along: they only say which of the declared ones it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import textwrap
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import msgspec

from perdure.core.errors import (
    DecodeError,
    EncodeError,
    InvalidDefinition,
    InvalidOption,
    PayloadTooLarge,
    PerdureError,
    RemoteFailure,
    UndeclaredFailure,
    UnsupportedType,
)
from perdure.core.events import FailureInfo, Payload
from perdure.workflow.values import codec_for, failure_info
from perdure.workflow.values_arguments import names_around
from perdure.workflow.values_codec import Codec
from perdure.workflow.values_failure import GROUP, KEPT, Kept

F = TypeVar("F", bound=RemoteFailure)

_NO_FIELD = frozenset(dir(Exception))


@typing.dataclass_transform(kw_only_default=True, field_specifiers=(dataclasses.field,))
class _WithFields(Exception):
    """Makes annotations of subclasses fields, as in a dataclass."""

    def __init_subclass__(cls, *, kw_only: bool = True, name: str = "", **given: Any) -> None:
        super().__init_subclass__(**given)
        cls._declared_name = name or cls.__qualname__.replace("<locals>.", "")
        if "__init__" in vars(cls):
            fix = "Annotate its fields, `code: str`; what is derived from them belongs into __post_init__."
            _refuse(cls.__qualname__, "failure", "it has an __init__ of its own", fix)
        try:
            dataclasses.dataclass(eq=False, repr=False, kw_only=kw_only)(cls)
        except (TypeError, ValueError) as error:
            _refuse(cls.__qualname__, "failure", str(error), "Its fields are declared as those of a dataclass.")
        taken = [each.name for each in dataclasses.fields(cls) if each.name in _NO_FIELD]  # type: ignore[arg-type]
        if taken:
            reason = f"exceptions have something else called {taken[0]!r}"
            _refuse(cls.__qualname__, "failure", reason, "Give the field another name.")

    _declared_name: typing.ClassVar[str]


class Failure(_WithFields, kw_only=False):
    """A failure with fields, which crosses processes as itself where it is declared: `raises=[CardDeclined]`.

    Subclasses annotate their fields, given by keyword. They are values: encoded by annotation, encrypted where values
    are; a field that is added later needs a default. The journal knows the class by its qualified name without the
    module; one that is renamed keeps the old name with `class Declined(perdure.Failure, name="CardDeclined")`.

    Args:
        message: for people.

    Example:
        class CardDeclined(perdure.Failure):
            code: str
            retry_later: bool = False

        @step(raises=[CardDeclined])
        async def charge(card: str) -> Receipt:
            ...
            raise CardDeclined("insufficient funds", code="51")
    """

    message: str = ""

    def __str__(self) -> str:
        return self.message or ", ".join(self._shown())

    def __repr__(self) -> str:
        message = [repr(self.message)] if self.message else []
        return f"{type(self).__qualname__}({', '.join([*message, *self._shown()])})"

    def _shown(self) -> Iterator[str]:
        names = (field.name for field in dataclasses.fields(self) if field.name != "message")
        return (f"{name}={getattr(self, name, None)!r}" for name in names)

    def __reduce__(self) -> Any:
        return _made, (type(self), _fields_of(self))


def _made(cls: type[Failure], fields: dict[str, Any]) -> Failure:
    return cls(**fields)


def _fields_of(error: Failure) -> dict[str, Any]:
    return {field.name: getattr(error, field.name) for field in dataclasses.fields(error)}


def declared_name(cls: type) -> str:
    """What the journal calls a class: its qualified name, without the module and without `<locals>`."""
    return vars(cls).get("_declared_name") or cls.__qualname__.replace("<locals>.", "")


# --- forms: how one class is written and read ------------------------------------------------------------------------


class _Form(ABC):
    """Writes and reads the exceptions of one class."""

    def __init__(self, cls: type[Exception], hints: Callable[[], dict[str, Any]]) -> None:
        self.cls = cls
        self.name = declared_name(cls)
        self.what = f"failure {self.name!r}"
        self.hints = hints
        with contextlib.suppress(NameError):  # then at first use
            self.build()

    @abstractmethod
    def build(self) -> None:
        """Raises `UnsupportedType`, or NameError: what an annotation names is not defined yet."""

    @abstractmethod
    def write(self, error: Exception) -> Payload:
        """Raises what cannot be kept."""

    @abstractmethod
    def read(self, payload: Payload) -> Exception:
        """Raises what does not fit."""


class _FieldsForm(_Form):
    """Of a `Failure`: through a dataclass of its fields."""

    def build(self) -> None:
        _ = self.codec

    @functools.cached_property
    def codec(self) -> Codec[Any]:
        hints, fields = self.hints(), dataclasses.fields(self.cls)  # type: ignore[arg-type]
        made = [(each.name, hints[each.name], _default(each)) for each in fields]
        carrier = dataclasses.make_dataclass(self.cls.__name__, made, kw_only=True)
        return codec_for(carrier, self.what)

    def write(self, error: Exception) -> Payload:
        assert isinstance(error, Failure)
        carrier: Any = self.codec.annotation
        return self.codec.encode(carrier(**_fields_of(error)), self.what)

    def read(self, payload: Payload) -> Exception:
        return self.cls(**vars(self.codec.decode(payload, self.what)))


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory)
    return field if field.default is dataclasses.MISSING else dataclasses.field(default=field.default)


class _Held(msgspec.Struct, array_like=True):
    """What other exceptions hold: arguments, and attributes with or without an annotation of their class."""

    args: Payload
    annotated: dict[str, Payload]
    others: Payload


class _PlainForm(_Form):
    """Of any other exception: its arguments and attributes, restored without calling its `__init__`."""

    def build(self) -> None:
        _ = self.codecs

    @functools.cached_property
    def codecs(self) -> dict[str, Codec[Any]]:
        return {name: codec_for(hint, f"{self.what}, attribute {name!r}") for name, hint in self.hints().items()}

    def write(self, error: Exception) -> Payload:
        args = OSError.__reduce__(error)[1] if isinstance(error, OSError) else error.args
        state = {name: value for name, value in vars(error).items() if name not in ("__notes__", KEPT)}
        typed = {name: codec for name, codec in self.codecs.items() if name in state}
        annotated = {name: codec.encode(state.pop(name), self.what) for name, codec in typed.items()}
        plain = codec_for(Any, self.what)
        held = _Held(plain.encode(list(args), self.what), annotated, plain.encode(state, self.what))
        payload = Payload(msgspec.msgpack.encode(held))
        if str(self.read(payload)) != str(error):
            raise DecodeError(what=self.what, expected="the same exception", reason="what comes back has other words")
        return payload

    def read(self, payload: Payload) -> Exception:
        held = msgspec.msgpack.decode(payload.data, type=_Held)
        plain = codec_for(Any, self.what)
        args, state = plain.decode(held.args, self.what), plain.decode(held.others, self.what)
        gone = {name: given for name, given in held.annotated.items() if name not in self.codecs}
        state |= {name: plain.decode(given, self.what) for name, given in gone.items()}
        for name, codec in self.codecs.items():
            if name in held.annotated:
                state[name] = codec.decode(held.annotated[name], self.what)
            elif name in state:
                raise DecodeError(what=self.what, expected=codec.type_name, reason=f"{name!r} was not annotated then")
        error: Exception = self.cls.__new__(self.cls, *args)
        if type(error) is not self.cls:
            raise DecodeError(what=self.what, expected=self.name, reason=f"it comes back as {type(error).__name__}")
        vars(error).update(state)
        return error


# --- what a definition declares ---------------------------------------------------------------------------------------


class Raises:
    """The exceptions that a step or workflow declares: what is written of one, and the one that is read again.

    Raises:
        InvalidOption, InvalidDefinition, UnsupportedType: a declaration that cannot be kept, at decoration.
    """

    def __init__(self, given: Sequence[type[Exception]], kind: str, owner: str) -> None:
        if not isinstance(given, list | tuple | set | frozenset):
            raise InvalidOption(option="raises", value=repr(given), expected="a list of exception classes")
        self._owner = f"{kind} {owner!r}" if owner else ""
        self._forms: dict[type, _Form] = {}
        self._by_name: dict[str, _Form] = {}
        for cls in given:
            _check(cls, owner, kind)
            form = (_FieldsForm if issubclass(cls, Failure) else _PlainForm)(cls, _hints_of(cls))
            if self._by_name.setdefault(form.name, form).cls is not cls:
                reason = f"it declares two classes that the journal would both call {form.name!r}"
                fix = "Name one of them: class Other(perdure.Failure, name='...')."
                _refuse(owner, kind, reason, fix)
            self._forms.setdefault(cls, form)

    def keep(self, error: BaseException) -> Kept | None:
        """What is kept of it beside its words; None if it is not declared."""
        form = self._forms.get(type(error))
        if form is None and self._owner and isinstance(error, Failure):
            name = declared_name(type(error))
            return Kept(name, None, f"{self._owner} does not declare it: raises=[{type(error).__name__}]")
        if form is None:
            return None
        try:
            payload = form.write(error)  # type: ignore[arg-type]
            form.read(payload)
        except (EncodeError, DecodeError, PayloadTooLarge, UnsupportedType) as problem:
            return Kept(form.name, None, problem.text.format_map(problem.fields))
        except Exception as problem:  # noqa: BLE001 - its class may do anything
            return Kept(form.name, None, f"its fields cannot be kept: {type(problem).__name__}")
        return Kept(form.name, payload, "")

    def read(self, info: FailureInfo) -> Exception | None:
        """The declared exception, or group of such, that was recorded; None if it was not declared.

        Raises:
            DecodeError: it was, but not by what is declared now, or its fields do not fit.
        """
        if info.value is None or not info.declared:
            return None
        if info.declared == GROUP:
            return self._read_group(info, info.value)
        form, what = self._by_name.get(info.declared), f"failure {info.declared!r}"
        if form is None:
            reason = f"{self._owner} does not declare it any more"
            raise DecodeError(what=what, expected=info.type, reason=reason)
        try:
            error = form.read(info.value)
        except PerdureError:
            raise
        except Exception as problem:
            reason = f"making it fails with {type(problem).__name__}: {problem}"
            raise DecodeError(what=what, expected=info.type, reason=reason) from problem
        return self._remember(error, info)

    def _read_group(self, info: FailureInfo, message: Payload) -> Exception:
        text: str = codec_for(str, "a group").decode(message, "the message of an exception group")
        members = [self.read(member) or self._stand_in(member) for member in info.members]
        return self._remember(ExceptionGroup(text, members), info)

    def _remember(self, error: Exception, info: FailureInfo) -> Exception:
        vars(error)[KEPT] = info
        if info.cause is not None:
            error.__cause__ = self._read_or_stand_in(info.cause)
        return error

    def _read_or_stand_in(self, info: FailureInfo) -> Exception:
        try:
            return self.read(info) or self._stand_in(info)
        except PerdureError as problem:
            return self._stand_in(info, str(problem))

    def _stand_in(self, info: FailureInfo, why: str = "") -> Exception:
        return self.plain(UndeclaredFailure(failure=info), why)

    def plain(self, error: F, why: str = "") -> F:
        """The same error, with its causes, and why it is not what was declared, if it was."""
        why = why or error.failure.untyped
        if why:
            error.add_note(f"It is not raised as {error.failure.declared or error.failure.type}: {why}")
        if error.failure.cause is not None:
            error.__cause__ = self._read_or_stand_in(error.failure.cause)
        return error

    def as_declared(self, error: RemoteFailure) -> Exception:
        """What is raised in workflows: what was declared, else this error. Raises `DecodeError`: the run stalls."""
        return self.read(error.failure) or self.plain(error)

    def as_declared_outside(self, error: RemoteFailure) -> Exception:
        """What is raised to clients: what was declared, if it can be read, else this error, which says why."""
        try:
            raised = self.as_declared(error)
        except PerdureError as problem:
            raised = self.plain(error, str(problem))
        _tell_where(raised)
        return raised

    def info(self, error: BaseException) -> FailureInfo:
        """What the journal keeps of an exception: see `failure_info`."""
        return failure_info(error, keep=self.keep)


def _tell_where(error: BaseException | None) -> None:
    """In notes, of it, its causes and members: frames that were recorded are not those of this process."""
    if error is None:
        return
    info = error.failure if isinstance(error, RemoteFailure) else getattr(error, KEPT, None)
    members = getattr(error, "exceptions", ())
    where = _where(info, info.members if not members else ()) if info is not None else ""
    if where:
        error.add_note(where)
    _tell_where(error.__cause__)
    for member in members:
        _tell_where(member)


def _where(info: FailureInfo, members: tuple[FailureInfo, ...]) -> str:
    """The frames of a record, and what it holds: those of which no exception tells."""
    parts = [f"It was raised at:\n{info.traceback.rstrip()}"] if info.traceback else []
    for each in members:
        parts.append(f"It holds {each.type}: {each.message}" if each.type else each.message)
        inner = _where(each, each.members)
        if each.cause is not None:
            inner += f"\ncaused by {each.cause.type}: {each.cause.message}\n{_where(each.cause, each.cause.members)}"
        parts.append(textwrap.indent(inner.strip("\n"), "  "))
    return "\n".join(part for part in parts if part)


def _check(cls: Any, owner: str, kind: str) -> None:
    if not isinstance(cls, type) or not issubclass(cls, Exception):
        expected = "exception classes (no CancelledError, no KeyboardInterrupt)"
        raise InvalidOption(option="raises", value=repr(cls), expected=expected)
    name = cls.__qualname__
    for never, reason, fix in _NEVER:
        if issubclass(cls, never):
            _refuse(owner, kind, reason.format(name), fix)
    if cls is Exception:
        reason = "it declares Exception, but a class crosses only if it is declared itself"
        _refuse(owner, kind, reason, "Declare the classes that the caller wants to catch.")
    slots = list(_slots(cls))
    if slots:
        reason = f"the attribute {slots[0]!r} of {name} is not kept where it can be recorded"
        _refuse(owner, kind, reason, "Raise a perdure.Failure of your own instead, `from` it.")


_OWN = "Raise an exception of your own."
_NEVER: tuple[tuple[Any, str, str], ...] = (
    (BaseExceptionGroup, "it declares the group {}", "Declare what is in it: groups of that cross as they are."),
    (PerdureError, "it declares {}, which is Perdure's", _OWN),
    ((StopIteration, StopAsyncIteration), "it declares {}, which nothing can await", _OWN),
)
_BUILTIN = (BaseException, Exception, OSError)  # whose own ones are in their arguments


def _slots(cls: type) -> Iterator[str]:
    bases = () if issubclass(cls, Failure) else (base for base in cls.__mro__ if base not in _BUILTIN)
    for base in bases:
        yield from (name for name, held in vars(base).items() if isinstance(held, types.MemberDescriptorType))


def _hints_of(cls: type) -> Callable[[], dict[str, Any]]:
    around = names_around(cls)  # while the functions around it run

    def hints() -> dict[str, Any]:
        found = typing.get_type_hints(cls, localns=around, include_extras=True)
        return {name: hint for name, hint in found.items() if typing.get_origin(hint) is not typing.ClassVar}

    return hints


def _refuse(name: str, kind: str, reason: str, fix: str) -> NoReturn:
    raise InvalidDefinition(name=repr(name), kind=kind, reason=reason, fix=fix)


NOTHING_DECLARED = Raises((), "", "")
