"""Plain data as MessagePack, with a closed set of extension codes for what MessagePack itself lacks.

The codes are compatibility data. They name plain data of the standard library only: bytes never choose a user's class.
Sets are written in the order of their encoded items, so that the bytes do not depend on the process's hash seed.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import json
import uuid
import zoneinfo
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.msgpack import Ext

from perdure.workflow.values_secret import Secret, do_secrets_pass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BIG_INT, TEXT, TUPLE, SET, FROZENSET = 1, 2, 3, 4, 5
DATETIME, DATE, TIME, TIMEDELTA, DECIMAL, UUID, BYTEARRAY, COMPLEX = 6, 7, 8, 9, 10, 11, 12, 13
SECRET = 14  # a Secret: what it holds, as plain data
JSON = 16  # the JSON text of a value whose type only pydantic knows

_SHOWN = 60

_encode = msgspec.msgpack.Encoder().encode
_encode_sorted = msgspec.msgpack.Encoder(order="deterministic").encode


class NotPlain(Exception):
    """A place in a value that cannot be carried: `reason` reads on after the path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.segments: list[str] = []

    @property
    def path(self) -> str:
        """Where, as `$.field[index]`."""
        return "$" + "".join(reversed(self.segments))


class InClear(NotPlain):
    """A Secret, where nothing encrypts."""


def pack(value: Any, *, tags: bool, ordered: bool = False) -> bytes:
    """The bytes of a value made of plain data and models; a model becomes a map of its fields.

    With `tags`, what MessagePack has no form for (a tuple, a set, a big integer, a lone surrogate, a zone ...) gets an
    extension code; without, it takes the form that the annotated type brings back. With `ordered`, maps are sorted.

    Raises:
        NotPlain: at the first place that has no form.
        RecursionError: the value is nested too deeply, or contains itself.

    >>> unpack(pack({"a": (1, 2**70)}, tags=True))
    {'a': (1, 1180591620717411303424)}
    """
    return _Packer(tags, ordered).pack(value)


class _Packer:
    def __init__(self, tags: bool, ordered: bool) -> None:  # noqa: FBT001 - private
        self.tags = tags
        self.ordered = ordered

    def pack(self, value: Any) -> bytes:
        kind = type(value)
        if kind is str:
            return self.text(value)
        if value is None or kind in _AS_IS:
            return _encode(value)
        if kind is int:
            return self.integer(value)
        handler = _HANDLERS.get(kind)
        if handler is not None:
            return handler(self, value)
        return self.other(value)

    def text(self, value: str) -> bytes:
        try:
            return _encode(value)
        except UnicodeEncodeError:
            if self.tags:
                return ext(TEXT, value.encode("utf-8", "surrogatepass"))
            raise NotPlain("holds a lone surrogate, which UTF-8 has no form for") from None

    def integer(self, value: int) -> bytes:
        if -(2**63) <= value < 2**64:
            return _encode(value)
        if self.tags:
            return ext(BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
        raise NotPlain("is an integer beyond 64 bits")

    def items(self, values: Iterable[Any], *, unordered: bool = False) -> bytes:
        packed: list[bytes] = []
        for index, item in enumerate(values):
            try:
                packed.append(self.pack(item))
            except NotPlain as problem:
                problem.segments.append(f"[{'...' if unordered else index}]")
                raise
        return array_head(len(packed)) + b"".join(sorted(packed) if unordered else packed)

    def map(self, value: dict[Any, Any]) -> bytes:
        pairs: list[tuple[bytes, bytes]] = []
        for key, item in value.items():
            try:
                pairs.append((self.pack(key), self.pack(item)))
            except NotPlain as problem:
                problem.segments.append(segment(key))
                raise
        if self.ordered:
            pairs.sort()
        return map_head(len(pairs)) + b"".join(part for pair in pairs for part in pair)

    def sequence(self, value: tuple[Any, ...]) -> bytes:
        return ext(TUPLE, self.items(value)) if self.tags else self.items(value)

    def set(self, value: set[Any] | frozenset[Any]) -> bytes:
        packed = self.items(value, unordered=True)
        if not self.tags:
            return packed
        return ext(SET if type(value) is set else FROZENSET, packed)

    def scalar(self, value: Any) -> bytes:
        if not self.tags:
            return _encode(value)
        code, form = _SCALARS[type(value)]
        return ext(code, form(value))

    def secret(self, value: Secret[Any]) -> bytes:
        if not do_secrets_pass():
            raise InClear("is a Secret, and nothing encrypts here")
        try:
            return ext(SECRET, _Packer(tags=True, ordered=self.ordered).pack(value.reveal()))
        except NotPlain:
            raise NotPlain("is a Secret that holds what has no encoding") from None

    def other(self, value: Any) -> bytes:
        if isinstance(value, enum.Enum):
            return self.pack(value.value)
        if isinstance(value, dict):
            return self.map(value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self.items(value)
        fields = model_fields(value)
        if fields is None:
            forgotten = " (was `await` forgotten?)" if isinstance(value, Awaitable) else ""
            raise NotPlain(f"is of type {type_name(type(value))}, for which there is no encoding{forgotten}")
        if isinstance(value, msgspec.Struct):
            return self.struct(value, fields)
        return self.map(fields)

    def struct(self, value: msgspec.Struct, fields: dict[str, Any]) -> bytes:
        """As msgspec writes it: with its tag, and as an array where it is declared so."""
        config = value.__struct_config__
        tag = {config.tag_field: config.tag} if config.tag_field else {}
        if config.array_like:
            return self.items([*tag.values(), *fields.values()])
        return self.map(tag | fields)


def model_fields(value: Any) -> dict[str, Any] | None:
    """The fields of a model of any kind, by the names that they are encoded under; None for what is no model."""
    kind: Any = type(value)
    names = field_names(kind)
    if names is None:
        return None
    fields = {encoded: getattr(value, name) for encoded, name in names.items()}
    if isinstance(value, msgspec.Struct):
        return {name: item for name, item in fields.items() if item is not msgspec.UNSET}
    return fields | (getattr(value, "__pydantic_extra__", None) or {})


@functools.lru_cache(maxsize=4096)
def field_names(kind: Any) -> dict[str, str] | None:
    """The fields of a class by the names that they are encoded under; None for what is no model."""
    if issubclass(kind, msgspec.Struct):
        return dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
    if dataclasses.is_dataclass(kind):
        return {field.name: field.name for field in dataclasses.fields(kind)}
    if hasattr(kind, "__attrs_attrs__"):
        return {attribute.name: attribute.name for attribute in kind.__attrs_attrs__}
    if hasattr(kind, "__pydantic_validator__"):
        return {name: name for name in kind.model_fields}
    return None


def unpack(data: bytes) -> Any:
    """The plain data in these bytes: builtins and the standard library's scalars, nothing else.

    Raises:
        msgspec.DecodeError, ValueError: these are not bytes of this format.
    """
    return msgspec.msgpack.decode(data, ext_hook=untag)


def untag(code: int, data: memoryview) -> Any:
    """The plain value of one extension, for msgspec's `ext_hook`."""
    reader = _READERS.get(code)
    if reader is None:
        raise ValueError(f"unknown extension code {code}")
    return reader(bytes(data))


def canonical(data: bytes) -> bytes:
    """The same data with its maps sorted: equal values have equal canonical bytes."""
    try:
        return _encode_sorted(msgspec.msgpack.decode(data, ext_hook=_refuse))
    except (TypeError, ValueError):  # extensions, or keys that are not text
        return pack(unpack(data), tags=True, ordered=True)


def type_name(kind: Any) -> str:
    """A type's name for messages: `module.Name`, without `builtins` and `typing`."""
    if not isinstance(kind, type) or hasattr(kind, "__origin__"):
        return str(kind).replace("typing.", "")
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _refuse(_code: int, _data: memoryview) -> Any:
    raise ValueError


def segment(key: Any) -> str:
    """One step of a path: `.name`, or `[key]` where that is no name."""
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{show(key)}]"


def show(value: Any) -> str:
    """A value in a message: its repr, cut, and never an error."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a user's method
        return type_name(type(value))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def ext(code: int, data: bytes) -> bytes:
    """The MessagePack of one extension."""
    return _encode(Ext(code, data))


def array_head(size: int) -> bytes:
    """The head of a MessagePack array of so many values."""
    if size < 16:
        return bytes((0x90 | size,))
    return b"\xdc" + size.to_bytes(2, "big") if size < 2**16 else b"\xdd" + size.to_bytes(4, "big")


def is_array(data: bytes) -> bool:
    """Whether this is a MessagePack array."""
    return data[:1] in _ARRAY_HEADS


_ARRAY_HEADS = frozenset({bytes((head,)) for head in (*range(0x90, 0xA0), 0xDC, 0xDD)})


def map_head(size: int) -> bytes:
    """The head of a MessagePack map of so many pairs."""
    if size < 16:
        return bytes((0x80 | size,))
    return b"\xde" + size.to_bytes(2, "big") if size < 2**16 else b"\xdf" + size.to_bytes(4, "big")


def _datetime_form(value: dt.datetime) -> bytes:
    zone = value.tzinfo.key if isinstance(value.tzinfo, zoneinfo.ZoneInfo) else None
    if zone:
        value = value.replace(tzinfo=None)
    return _encode((value.replace(fold=0).isoformat(), value.fold, zone))


def _read_datetime(data: bytes) -> dt.datetime:
    text, fold, zone = msgspec.msgpack.decode(data)
    value = dt.datetime.fromisoformat(text).replace(fold=fold)
    return value.replace(tzinfo=zoneinfo.ZoneInfo(zone)) if zone else value


def _time_form(value: dt.time) -> bytes:
    if isinstance(value.tzinfo, zoneinfo.ZoneInfo):
        raise NotPlain("is a time of day in a named zone: its offset depends on a date")
    return _encode((value.replace(fold=0).isoformat(), value.fold))


def _read_time(data: bytes) -> dt.time:
    text, fold = msgspec.msgpack.decode(data)
    return dt.time.fromisoformat(text).replace(fold=fold)


def _timedelta_form(value: dt.timedelta) -> bytes:
    return _encode((value.days, value.seconds, value.microseconds))


def _items(data: bytes) -> Any:
    return msgspec.msgpack.decode(data, type=tuple, ext_hook=untag)


_AS_IS = frozenset({bool, float, bytes})

_SCALARS: dict[type, tuple[int, Callable[[Any], bytes]]] = {
    dt.datetime: (DATETIME, _datetime_form),
    dt.date: (DATE, lambda value: value.isoformat().encode()),
    dt.time: (TIME, _time_form),
    dt.timedelta: (TIMEDELTA, _timedelta_form),
    decimal.Decimal: (DECIMAL, lambda value: str(value).encode()),
    uuid.UUID: (UUID, lambda value: value.bytes),
    bytearray: (BYTEARRAY, bytes),
    complex: (COMPLEX, lambda value: _encode((value.real, value.imag))),
}

_HANDLERS: dict[type, Callable[[_Packer, Any], bytes]] = {
    dict: _Packer.map,
    list: _Packer.items,
    tuple: _Packer.sequence,
    set: _Packer.set,
    frozenset: _Packer.set,
    **dict.fromkeys(_SCALARS, _Packer.scalar),
    Secret: _Packer.secret,
}

_READERS: dict[int, Callable[[bytes], Any]] = {
    BIG_INT: lambda data: int.from_bytes(data, "big", signed=True),
    TEXT: lambda data: data.decode("utf-8", "surrogatepass"),
    TUPLE: _items,
    SET: lambda data: set(_items(data)),
    FROZENSET: lambda data: frozenset(_items(data)),
    DATETIME: _read_datetime,
    DATE: lambda data: dt.date.fromisoformat(data.decode()),
    TIME: _read_time,
    TIMEDELTA: lambda data: dt.timedelta(*msgspec.msgpack.decode(data)),
    DECIMAL: lambda data: decimal.Decimal(data.decode()),
    UUID: lambda data: uuid.UUID(bytes=data),
    BYTEARRAY: bytearray,
    COMPLEX: lambda data: complex(*msgspec.msgpack.decode(data)),
    SECRET: lambda data: Secret(unpack(data)),
    JSON: json.loads,
}
