"""The arguments of a function as one payload: a map by parameter name, defaults filled in.

Names, not positions: parameters may be reordered, and one that comes later with a default does not disturb inputs that
were recorded before. Each argument is encoded by its own codec, so a function may mix what msgspec and pydantic know.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import typing
from collections import ChainMap
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.msgpack import Ext

from perdure.core.errors import (
    DecodeError,
    EncodeError,
    InvalidDefinition,
    KeyMissing,
    PayloadTooLarge,
    UndefinedName,
    WrongArguments,
)
from perdure.core.events import Payload
from perdure.workflow import values_codec
from perdure.workflow.values_codec import DIGEST_BYTES, TOO_DEEP, Codec, codec_for, digest, encode_untyped
from perdure.workflow.values_plain import JSON, array_head, is_array, map_head

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_encode = msgspec.msgpack.Encoder().encode
_read_parts = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode
_read_values = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_read_ext = msgspec.msgpack.Decoder(Ext).decode
_values = msgspec.structs.astuple

_NO_DEFAULT = inspect.Parameter.empty
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_STARS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


class _Parameter(msgspec.Struct):
    """One parameter. `key` is its name in the map; what stands for `*args` and `**kwargs` keeps its stars."""

    key: str
    kind: Any
    default: Any
    codec: Codec[Any]
    leave_out: bool = False  # its default cannot be encoded (a sentinel): recorded by absence


class Arguments:
    """Encodes the arguments of calls to one function, and decodes them ready to call it.

    Raises:
        UnsupportedType: an annotation that nobody can encode; at once, unless it names something defined later.
        InvalidDefinition: the function has no signature.

    Example:
        >>> def search(query: str, limit: int = 10) -> None: ...
        >>> arguments = Arguments(search)
        >>> payload, _ = arguments.encode(("durable",), {}, "the input of 'search'")
        >>> arguments.decode(payload, "the input of 'search'")
        (('durable', 10), {})
    """

    def __init__(self, fn: Callable[..., Any], *, skip_self: bool = False) -> None:
        self.fn = fn
        self.name: str = getattr(function_of(fn), "__qualname__", None) or type(fn).__qualname__
        self.signature = _signature(fn, self.name, skip_self=skip_self)
        self._built = False
        self._count = -1  # of positional arguments that a plain call has; -1: no call is plain
        self._positional = -1  # how many parameters can be given by position, if none has stars; else -1
        self._exact_types: tuple[type | None, ...] | None = None
        with contextlib.suppress(NameError):  # then it is built at first use
            self._build()

    # --- looking at the function ----------------------------------------------------------------------------------

    def _build(self) -> None:
        hints = hints_of(self.fn)
        found = self.signature.parameters.values()
        self._parameters = [self._parameter(parameter, hints.get(parameter.name, Any)) for parameter in found]
        self._by_key = {parameter.key: parameter for parameter in self._parameters}
        self._needs_canonical = not all(parameter.codec.bytes_tell for parameter in self._parameters)
        self._defaults = [(parameter.key, parameter.default) for parameter in self._parameters]
        kinds = [parameter.kind for parameter in self._parameters]
        self._by_name = inspect.Parameter.POSITIONAL_ONLY not in kinds
        if not _STARS.keys() & kinds:
            self._positional = sum(kind in _POSITIONAL for kind in kinds)
        self._make_record()
        self._built = True

    def _make_record(self) -> None:
        """One Struct for all arguments, where msgspec knows them all: it then reads and writes them in one go."""
        self._record: Callable[..., Any] = _no_record
        if any(p.codec.content_type != "msgpack" or p.leave_out for p in self._parameters):
            return
        fields = [(f"a{index}", p.codec.annotation) for index, p in enumerate(self._parameters)]
        rename = {f"a{index}": p.key for index, p in enumerate(self._parameters)}
        record = msgspec.defstruct("Arguments", fields, rename=rename, forbid_unknown_fields=True)
        self._record = record
        self._record_codec: Codec[Any] = Codec(record)
        self._record_codec.build()
        self._read_record = self._record_codec.reader
        self._never_differs = all(p.codec.never_differs for p in self._parameters)
        if self._positional == len(self._parameters):
            self._count = len(self._parameters)
            exact = tuple(p.codec.exact_type for p in self._parameters)
            self._exact_types = None if None in exact else exact

    @property
    def _what(self) -> str:
        return f"the input of {self.name!r}"

    def _parameter(self, parameter: inspect.Parameter, annotation: Any) -> _Parameter:
        what = f"parameter {parameter.name!r} of {self.name!r}"
        unpacked = typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Unpack else None
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            annotation = tuple[annotation, ...] if unpacked is None else unpacked
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            annotation = dict[str, annotation] if unpacked is None else unpacked
        codec = codec_for(annotation, what)
        codec.ensure_built(what)
        made = _Parameter(_STARS.get(parameter.kind, "") + parameter.name, parameter.kind, parameter.default, codec)
        if made.default is not _NO_DEFAULT:
            try:
                codec.encode(made.default, what)
            except (EncodeError, PayloadTooLarge):
                made.leave_out = True
        return made

    def _ensure_built(self) -> None:
        if not self._built:
            try:
                self._build()
            except NameError as problem:
                raise UndefinedName(what=self._what, problem=str(problem)) from None

    # --- encoding -------------------------------------------------------------------------------------------------

    @staticmethod
    def encode_by_position(args: tuple[Any, ...], what: str) -> Payload:
        """The payload of arguments for a function that is not known here: a list of values, each as what it is.

        Raises:
            EncodeError: an argument is, or holds, what has no encoding.
            PayloadTooLarge: all of them together.
        """
        parts = [array_head(len(args))]
        for index, value in enumerate(args):
            payload = encode_untyped(value, f"argument {index + 1} of {what}")
            parts.append(payload.data if payload.content_type == "msgpack" else _encode(Ext(JSON, payload.data)))
        data = b"".join(parts)
        if len(data) > values_codec.MAX_PAYLOAD_BYTES:
            raise PayloadTooLarge(what=what, size=len(data), limit=values_codec.MAX_PAYLOAD_BYTES)
        return Payload(data)

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], what: str) -> tuple[Payload, bytes]:
        """The payload of one call's arguments, and its digest: equal for calls that mean the same.

        Raises:
            WrongArguments: the function does not take these.
            EncodeError: an argument cannot be carried; the path begins with its name.
            PayloadTooLarge: all of them together.
        """
        if kwargs or len(args) != self._count:
            self._ensure_built()
            args = self._bind(args, kwargs)
        elif tuple(map(type, args)) == self._exact_types:
            try:
                data = _encode(self._record(*args))
            except (UnicodeEncodeError, OverflowError):
                return self._finish(self._encode_parts(args, what), what)
            if len(data) <= values_codec.MAX_PAYLOAD_BYTES:
                return Payload(data), blake2b(data, digest_size=DIGEST_BYTES).digest()
        return self._finish(self._encode_checked(args, what), what)

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        if self._by_name and len(args) <= self._positional:  # inspect takes its time; but it has all the messages
            values = self._bind_simply(args, kwargs)
            if values is not None:
                return values
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise self._wrong(str(error)) from None
        bound.apply_defaults()
        for name in self.signature.parameters:
            if name not in bound.arguments:  # CPython 3.13 lets f(a, /, **more) be called as f(a=1)
                raise self._wrong(f"missing a required argument: {name!r}")
        return tuple(bound.arguments[name] for name in self.signature.parameters)

    def _bind_simply(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...] | None:
        left = self._defaults[len(args) :]
        values = [kwargs.get(name, default) for name, default in left]
        given = sum([name in kwargs for name, _ in left])
        if given < len(kwargs) or any(value is _NO_DEFAULT for value in values):
            return None
        return (*args, *values)

    def _wrong(self, reason: str) -> WrongArguments:
        return WrongArguments(name=self.name, signature=str(self.signature), reason=reason)

    def _encode_checked(self, values: tuple[Any, ...], what: str) -> bytes:
        if self._record is not _no_record:
            payload = self._record_codec.try_usual_form(self._record(*values))
            if payload is not None:
                return payload.data
        return self._encode_parts(values, what)

    def _encode_parts(self, values: tuple[Any, ...], what: str) -> bytes:
        parts: list[bytes] = []
        for parameter, value in zip(self._parameters, values, strict=True):
            if parameter.leave_out and value is parameter.default:
                continue
            try:
                payload = parameter.codec.encode(value, what)
            except EncodeError as error:
                path = f"$.{parameter.key}{error.fields['path'][1:]}"
                raise type(error)(**error.fields | {"path": path}) from error.__cause__
            parts.append(_encode(parameter.key))
            parts.append(payload.data if payload.content_type == "msgpack" else _encode(Ext(JSON, payload.data)))
        return map_head(len(parts) // 2) + b"".join(parts)

    def _finish(self, data: bytes, what: str) -> tuple[Payload, bytes]:
        limit = values_codec.MAX_PAYLOAD_BYTES
        if len(data) > limit:
            raise PayloadTooLarge(what=what, size=len(data), limit=limit)
        payload = Payload(data)
        if self._needs_canonical:
            try:
                return payload, digest(payload)
            except RecursionError:
                raise EncodeError(what=what, path="$", reason=TOO_DEEP, expected=f"arguments of {self.name}") from None
        return payload, blake2b(data, digest_size=DIGEST_BYTES).digest()

    def encode_one(self, value: Any, what: str) -> Payload:
        """The payload that `decode_one` reads: the first argument itself. Raises `EncodeError`, `PayloadTooLarge`."""
        self._ensure_built()
        return self._parameters[0].codec.encode(value, what)

    # --- decoding -------------------------------------------------------------------------------------------------

    def decode_one(self, payload: Payload, what: str) -> Any:
        """The value of a payload that is the first argument itself, not a map of them. Raises `DecodeError`."""
        self._ensure_built()
        return self._parameters[0].codec.decode(payload, what)

    def decode(self, payload: Payload, what: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments to call the function with: `fn(*args, **kwargs)`.

        A parameter that was not recorded takes its default; one that was recorded must still exist.

        Raises:
            DecodeError: what was recorded does not fit the function any more.
            KeyMissing: it is encrypted.
        """
        if not self._built:
            self._ensure_built()
        if self._record is not _no_record and payload.content_type == "msgpack" and not payload.key_id:
            try:
                record = self._read_record(payload.data)
            except Exception:  # noqa: BLE001 - argument by argument then: for the message, or a richer form
                return self._decode_parts(payload, what)
            if not (self._never_differs or self._record_codec.is_as_recorded(payload, record)):
                return self._decode_parts(payload, what)
            values = _values(record)
            if self._count >= 0:
                return values, {}
            return self._assemble({p.key: value for p, value in zip(self._parameters, values, strict=True)}, what)
        return self._decode_parts(payload, what)

    def _decode_parts(self, payload: Payload, what: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        recorded = self._recorded_parts(payload, what)
        for key in recorded:
            if key not in self._by_key:
                reason = f"argument {key!r} was recorded, but {self.name}{self.signature} does not take it"
                raise DecodeError(what=what, expected=f"arguments of {self.name!r}", reason=reason)
        return self._assemble({key: self._decode_part(key, part, what) for key, part in recorded.items()}, what)

    def _recorded_parts(self, payload: Payload, what: str) -> Mapping[str, msgspec.Raw]:
        """The encoded arguments by name; a JSON object does as well, as people and other languages write it."""
        if payload.key_id:
            raise KeyMissing(what=what, key=payload.key_id)
        try:
            if payload.content_type == "msgpack":
                return self._by_position(payload.data) if is_array(payload.data) else _read_parts(payload.data)
            if payload.content_type == "json":
                texts = msgspec.json.decode(payload.data, type=dict[str, msgspec.Raw])
                return {key: msgspec.Raw(_encode(Ext(JSON, bytes(text)))) for key, text in texts.items()}
            raise ValueError(f"their content type is {payload.content_type!r}")  # noqa: TRY301 - as the others
        except (msgspec.MsgspecError, ValueError) as error:
            raise DecodeError(what=what, expected=f"arguments of {self.name!r}", reason=str(error)) from error

    def _by_position(self, data: bytes) -> Mapping[str, msgspec.Raw]:
        """Encoded arguments that were given by position, by name."""
        parts, names = _read_values(data), [each.key for each in self._parameters if each.kind in _POSITIONAL]
        if len(parts) > len(names):
            raise ValueError(f"{len(parts)} were given by position, {self.name}{self.signature} takes {len(names)}")
        return dict(zip(names, parts, strict=False))

    def _decode_part(self, key: str, part: msgspec.Raw, what: str) -> Any:
        try:
            ext = _read_ext(part)
            inner = Payload(bytes(ext.data), "json") if ext.code == JSON else Payload(bytes(part))
        except msgspec.DecodeError:
            inner = Payload(bytes(part))
        try:
            return self._by_key[key].codec.decode(inner, what)
        except DecodeError as error:
            raise DecodeError(**error.fields | {"reason": f"argument {key!r}: {error.fields['reason']}"}) from error

    def _assemble(self, values: dict[str, Any], what: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for parameter in self._parameters:
            value = values.get(parameter.key, parameter.default)
            match parameter.kind:
                case inspect.Parameter.VAR_POSITIONAL:
                    args.extend(() if value is _NO_DEFAULT else value)
                case inspect.Parameter.VAR_KEYWORD:
                    kwargs.update({} if value is _NO_DEFAULT else value)
                case _ if value is _NO_DEFAULT:
                    reason = f"argument {parameter.key!r} is missing, and has no default"
                    raise DecodeError(what=what, expected=f"arguments of {self.name!r}", reason=reason)
                case inspect.Parameter.KEYWORD_ONLY:
                    kwargs[parameter.key] = value
                case _:
                    args.append(value)
        return tuple(args), kwargs


def _no_record(*_: Any) -> Any:
    raise AssertionError("this function's arguments have no common Struct")


def function_of(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function that annotations stand on: below partials, or the `__call__` of an object."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn if inspect.isroutine(fn) or inspect.isclass(fn) else type(fn).__call__


def hints_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """The resolved annotations of a function, `return` among them.

    Names are looked up in its module, then in the functions that are running around its definition.

    Raises:
        NameError: an annotation names something that is not defined yet.
    """
    target = function_of(fn)
    if "<locals>" not in getattr(target, "__qualname__", ""):
        return typing.get_type_hints(target, include_extras=True)
    # Without the module's names, get_type_hints would take ours for both.
    module = dict(getattr(inspect.unwrap(target), "__globals__", {}))
    return typing.get_type_hints(target, module, _enclosing_names(target), include_extras=True)


def _enclosing_names(target: Callable[..., Any]) -> dict[str, Any]:
    """What the functions around a definition have defined by now; they run while it is decorated."""
    return _names_around(target.__qualname__, getattr(inspect.unwrap(target), "__globals__", None))


def names_around(cls: type) -> dict[str, Any]:
    """What the functions around a class have defined by now."""
    return _names_around(cls.__qualname__, getattr(sys.modules.get(cls.__module__), "__dict__", None))


def _names_around(qualname: str, module: Any) -> dict[str, Any]:
    names: list[dict[str, Any]] = []
    frame = inspect.currentframe() if "<locals>" in qualname else None
    while frame is not None:
        if qualname.startswith(f"{frame.f_code.co_qualname}.") and frame.f_globals is module:
            names.append(dict(frame.f_locals))
        frame = frame.f_back
    return dict(ChainMap(*names))


def _signature(fn: Callable[..., Any], name: str, *, skip_self: bool) -> inspect.Signature:
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError) as error:
        raise InvalidDefinition(
            name=name, kind="function", reason=str(error), fix="Wrap it in a `def` with annotations."
        ) from error
    if not skip_self:
        return signature
    return signature.replace(parameters=list(signature.parameters.values())[1:])
