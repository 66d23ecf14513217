"""The codec of one annotation: values to payloads and back, exactly or not at all.

A value is written, read back and compared before its payload is given out; what would change is written in a richer
form, and refused if that does not carry it either. The bytes never choose a type: the annotation does.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import typing
from asyncio import CancelledError
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import msgspec

from perdure.core import payload as limits
from perdure.core.errors import (
    DecodeError,
    EncodeError,
    KeyMissing,
    PayloadTooLarge,
    SecretInClear,
    UndefinedName,
    UnsupportedType,
)
from perdure.core.payload import Payload
from perdure.workflow.values_check import Rules, check_same
from perdure.workflow.values_evolution import Evolution
from perdure.workflow.values_plain import InClear, NotPlain, canonical, pack, type_name, unpack, untag
from perdure.workflow.values_recursive import tied
from perdure.workflow.values_secret import read_secret, secrets_pass
from perdure.workflow.values_types import Adapter, NotSupported, native_traits

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MAX_PAYLOAD_BYTES = limits.MAX_PAYLOAD_BYTES  # read at each call
USERS_CODE = (Exception, SystemExit, CancelledError)  # what validators and serializers raise: they are no steps
DIGEST_BYTES = 16
MAX_PROVEN = 1024  # payloads by codec, 8 bytes each, that are known to be what they seem

_encode = msgspec.msgpack.Encoder().encode
_encode_sets_sorted = msgspec.msgpack.Encoder(order="deterministic").encode
_BINARY = (bytes, bytearray, memoryview)
_PLAIN = "plain data where nothing, or Any, is annotated; else annotate its class"
TOO_DEEP = "is nested too deeply, or contains itself"


class Codec(Generic[T]):
    """Encodes and decodes values of one annotation. Made by `codec_for`.

    `content_type` is the form that values usually get: "msgpack" where msgspec supports the whole type, else "json".

    Example:
        >>> codec = codec_for(list[int], "the result of step 'count'")
        >>> codec.decode(codec.encode([1, 2], "counts"), "counts")
        [1, 2]
    """

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation
        self.type_name = _PLAIN if annotation is Any else type_name(annotation)
        self._exact = annotation if annotation in _EXACT_OR_NONE else None
        self.never_differs = any(annotation is each for each in _NEVER_DIFFER)
        self._proven: set[int] = set()
        self._built = False

    def build(self) -> None:
        """Look at the type; again at first use if it names what is not defined yet.

        Raises:
            NotSupported: nobody can encode it.
            NameError: not yet.
        """
        self.annotation = tied(self.annotation)
        traits = native_traits(self.annotation)
        self._adapter: Adapter | None = None
        if traits is not None:
            self._traits = traits
            self._rules = Rules(lenient=True)
            self._evolution = Evolution({}, drops=traits.has_typed_dicts)
        else:
            adapter = self._adapter = Adapter(self.annotation)
            self._traits = adapter.traits
            # Where a value may fit several members of a union, a conversion may be the wrong one of them.
            self._rules = Rules(lenient=not adapter.is_ambiguous, enums=adapter.enums)
            self._evolution = Evolution(adapter.rivals, drops=self._traits.has_typed_dicts)
        self._usual_rules = self._rules._replace(lenient=self._rules.lenient and not self._traits.has_any)
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(
            Any if traits is None else self.annotation, ext_hook=untag, dec_hook=_secret_of
        )
        self._built = True

    @property
    def content_type(self) -> str:
        """Either "msgpack" or "json"."""
        self.ensure_built("a value")
        return "json" if self._adapter is not None else "msgpack"

    @property
    def exact_type(self) -> type | None:
        """The builtin type whose own values need no check, if the annotation is one."""
        return self._exact

    @property
    def bytes_tell(self) -> bool:
        """Whether equal values have equal payloads, so that a digest needs no other form."""
        return self._exact is not None or not (self._traits.has_maps or self._traits.has_any)

    @property
    def reader(self) -> Callable[[bytes], Any]:
        """The decoder of the usual form, msgspec's own: without our messages."""
        return self._decoder.decode

    def ensure_built(self, what: str) -> None:
        """Build, if that had to wait for a name.

        Raises:
            UnsupportedType: the name is still missing, or its type cannot be encoded.
        """
        if self._built:
            return
        try:
            self.build()
        except NameError as problem:
            raise UndefinedName(what=what, problem=str(problem)) from None
        except NotSupported as problem:
            raise UnsupportedType(what=what, type=f"{self.type_name} ({problem})") from problem

    def encode(self, value: T, what: str) -> Payload:
        """The payload of a value.

        Raises:
            EncodeError: with the path of the place that cannot be carried; nothing is ever left out or changed.
            PayloadTooLarge: above `MAX_PAYLOAD_BYTES`.
            UnsupportedType: the annotation named something that was defined later, and that cannot be encoded.
        """
        if type(value) is self._exact:
            try:
                data = _encode(value)
            except (UnicodeEncodeError, OverflowError):
                return self._encode_carefully(value, what)
            if len(data) > MAX_PAYLOAD_BYTES:
                self._too_large(data, what)
            return Payload(data)
        return self._encode_carefully(value, what)

    def _encode_carefully(self, value: T, what: str) -> Payload:
        self.ensure_built(what)
        try:
            payload = self._encode_checked(value)
        except MemoryError:
            raise
        except NotPlain as problem:
            kind = SecretInClear if isinstance(problem, InClear) else EncodeError
            raise kind(what=what, path=problem.path, reason=problem.reason, expected=self.type_name) from None
        except RecursionError:
            raise self._encode_error(what, "$", TOO_DEEP) from None
        except USERS_CODE as error:
            reason = f"fails with {type(error).__name__}: {error}"
            raise self._encode_error(what, "$", reason) from error
        if len(payload.data) > MAX_PAYLOAD_BYTES:
            self._too_large(payload.data, what)
        return payload

    def _encode_error(self, what: str, path: str, reason: str) -> EncodeError:
        return EncodeError(what=what, path=path, reason=reason, expected=self.type_name)

    def _too_large(self, data: bytes, what: str) -> NoReturn:
        raise PayloadTooLarge(what=what, size=len(data), limit=MAX_PAYLOAD_BYTES)

    def _encode_checked(self, value: T) -> Payload:
        payload = self.try_usual_form(value)
        if payload is None:
            decoded = self._read(Payload(pack(self._tree(value), tags=True)))
            check_same(value, decoded, self._rules)
            payload = Payload(pack(self._tree(decoded), tags=True))
        self._prove(payload)
        return payload

    def _tree(self, value: T) -> Any:
        return value if self._adapter is None else self._adapter.dump_python(value)

    def try_usual_form(self, value: T) -> Payload | None:
        """The usual payload if it brings back the very value; None if a richer form must be tried."""
        try:
            payload = self._usual_form(value)
            decoded = self._read(payload)
            # What was converted has other bytes: an int given for a float, a dict for a model without its defaults.
            again = self._usual_form(decoded)
            if again.data != payload.data or not self._equal(value, decoded, payload.data):
                check_same(value, decoded, self._usual_rules)
        except MemoryError:
            raise
        except USERS_CODE:  # the richer form finds it again, with its path
            return None
        self._prove(again)
        return again

    def _usual_form(self, value: T) -> Payload:
        if self._adapter is not None:
            if self._adapter.has_only_tagged:
                raise NotPlain("in JSON a set would have the order of its hashes, and bytes would be text")
            if self._adapter.has_secrets:
                raise NotPlain("a Secret in JSON would be readable")
            return Payload(self._adapter.dump_json(value), "json")
        return Payload(self._write(value))

    def _write(self, value: T) -> bytes:
        traits = self._traits
        if traits.has_left_out:  # a default of tomorrow must not stand for what was meant today
            return pack(value, tags=False)
        if not traits.has_sets:
            return _encode(value)
        if traits.has_maps or traits.has_any or traits.has_odd_sets:
            return pack(value, tags=False)
        return _encode_sets_sorted(value)

    def _equal(self, value: T, decoded: T, data: bytes) -> bool:
        """Whether `==` says that nothing changed; False also where it cannot tell, as for a time's zone."""
        traits = self._traits
        if not traits.equality_tells or (traits.has_any and _may_hold_times(data)):
            return False
        try:
            return type(value) is type(decoded) and (value == decoded) is True
        except Exception:  # noqa: BLE001 - a user's method, or a signalling NaN
            return False

    def decode(self, payload: Payload, what: str) -> T:
        """The value of a payload: of the annotated type, whatever form it was written in.

        Raises:
            DecodeError: it does not fit the type; the message has the path.
            KeyMissing: it is encrypted.
        """
        try:
            if not self._built:
                self.ensure_built(what)
            return self._read_as_recorded(payload)  # type: ignore[no-any-return]
        except MemoryError:
            raise
        except NotPlain as problem:
            if payload.key_id:
                raise KeyMissing(what=what, key=payload.key_id) from None
            reason = f"{problem.path} {problem.reason}"
        except RecursionError:
            reason = f"$ {TOO_DEEP}"
        except UnsupportedType:
            raise
        except USERS_CODE as error:
            reason = str(error) or type(error).__name__
        raise DecodeError(what=what, expected=self.type_name, reason=reason)

    def _read_as_recorded(self, payload: Payload) -> Any:
        """What was recorded, or an error: other code may have recorded it, under a type that read it otherwise."""
        if self._adapter is None or not self._adapter.has_aliases:
            value = self._read(payload)
            if not self.is_as_recorded(payload, value):
                self._check_evolved(payload, value)
            return value
        readings, problems = [], []
        for aliases in (False, True):  # what was recorded under an old name is found by its alias
            try:
                value = self._read(payload, aliases=aliases)
            except (NotPlain, ValueError) as problem:
                problems.append(problem)
                continue
            if self.is_as_recorded(payload, value):
                return value
            readings.append(value)
        for value in reversed(readings):
            try:
                self._check_evolved(payload, value)
            except NotPlain as problem:
                problems.append(problem)
            else:
                return value
        raise problems[-1 if readings else 0]

    def is_as_recorded(self, payload: Payload, value: Any) -> bool:
        """Whether this codec wrote the payload, or would write it again; scalars cannot be read as others."""
        if self.never_differs or _mark(payload) in self._proven:
            return True
        with contextlib.suppress(Exception), secrets_pass(when=True):
            if self._again(payload, value, tags=self._adapter is not None).data == payload.data or (
                self._adapter is None and self._again(payload, value, tags=True).data == payload.data
            ):
                self._prove(payload)
                return True
        return False

    def _again(self, payload: Payload, value: Any, *, tags: bool) -> Payload:
        """The value in the form that the payload has."""
        if payload.content_type == "json" and self._adapter is not None and not self._adapter.has_secrets:
            return Payload(self._adapter.dump_json(value), "json")
        return Payload(pack(self._tree(value), tags=True) if tags else self._write(value))

    def _check_evolved(self, payload: Payload, value: Any) -> None:
        with secrets_pass(when=True):
            self._evolution.check(_plain(payload), _plain(self._again(payload, value, tags=True)), value)
        self._prove(payload)

    def _prove(self, payload: Payload) -> None:
        """Remember what need not be looked at again: what was written here is soon read here."""
        if not self.never_differs:
            if len(self._proven) >= MAX_PROVEN:
                self._proven.clear()
            self._proven.add(_mark(payload))

    def _read(self, payload: Payload, *, aliases: bool = False) -> Any:
        if payload.content_type == "msgpack" and not payload.key_id:
            if self._adapter is None:
                try:
                    return self._decoder.decode(payload.data)
                except (msgspec.DecodeError, ValueError):
                    return self._convert(unpack(payload.data), str_keys=False)
            return self._adapter.validate_python(unpack(payload.data), aliases=aliases)
        if payload.content_type == "json" and not payload.key_id:
            if self._adapter is not None:
                return self._adapter.validate_json(payload.data, aliases=aliases)
            return self._convert(json.loads(payload.data), str_keys=True)
        raise NotPlain(_unreadable(payload))

    def _convert(self, tree: Any, *, str_keys: bool) -> Any:
        builtin = () if str_keys else _BINARY  # JSON has bytes as base64, MessagePack as they are
        try:
            return msgspec.convert(tree, self.annotation, builtin_types=builtin, str_keys=str_keys, dec_hook=_secret_of)
        except msgspec.ValidationError as error:
            raise _with_path(error) from error

    def of_plain(self, tree: Any) -> T:
        """What plain data means as a value of this type. Raises what msgspec or pydantic raise."""
        self.ensure_built("a value")
        made: T = self._convert(tree, str_keys=False) if self._adapter is None else self._adapter.validate_python(tree)
        return made

    def digest(self, payload: Payload) -> bytes:
        """16 bytes: equal for equal values, whatever the order of maps and the process's hash seed."""
        self.ensure_built("a value")
        if not self.bytes_tell:
            return digest(payload)
        return hashlib.blake2b(payload.data, digest_size=DIGEST_BYTES).digest()


_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})
_EXACT_OR_NONE: tuple[Any, ...] = (str, int, float, bool, bytes)
_NEVER_DIFFER: tuple[Any, ...] = (str, int, bool, bytes, type(None), Any)  # an int may be read as another float


def _mark(payload: Payload) -> int:
    """What a payload is remembered by. Bytes keep their hash, so that asking twice costs nothing."""
    return hash(payload.data) ^ len(payload.content_type)


def _plain(payload: Payload) -> Any:
    return json.loads(payload.data) if payload.content_type == "json" else unpack(payload.data)


def _secret_of(kind: Any, value: Any) -> Any:
    """Msgspec's `dec_hook`: the only type that it does not know itself is Secret."""
    held = typing.get_args(kind)
    return read_secret(value, codec_for(held[0], "what a Secret holds").of_plain if held else _as_it_is)


def _as_it_is(value: Any) -> Any:
    return value


def _may_hold_times(data: bytes) -> bool:
    """Whether MessagePack's timestamp could be among these bytes (it may be a chance match)."""
    return b"\xd6\xff" in data or b"\xd7\xff" in data or b"\xc7\x0c\xff" in data


def _unreadable(payload: Payload) -> str:
    if payload.content_type == "text":
        return "is only a preview, cut for people to read"
    return f"has the unknown content type {payload.content_type!r}"


def _with_path(error: Exception) -> NotPlain:
    """A message of msgspec's, taken apart: `Expected `int`, got `str` - at `$.a[0]``."""
    reason, _, place = str(error).partition(" - at ")
    key, _, path = place.rpartition("`$")
    problem = NotPlain(f"{reason} as a key" if key.startswith("`key`") else reason)
    problem.segments = [path.rstrip("`")]
    return problem


def digest(payload: Payload) -> bytes:
    """16 bytes over the canonical form of a payload: equal for equal values.

    >>> one = codec_for(dict[str, int], "it").encode({"a": 1, "b": 2}, "it")
    >>> two = codec_for(dict[str, int], "it").encode({"b": 2, "a": 1}, "it")
    >>> digest(one) == digest(two), one == two
    (True, False)
    """
    if payload.content_type == "msgpack":
        data = canonical(payload.data)
    elif payload.content_type == "json":
        data = json.dumps(json.loads(payload.data), sort_keys=True, separators=(",", ":")).encode()
    else:
        data = payload.data
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def encode_untyped(value: Any, what: str) -> Payload:
    """The payload of a value whose receiver has the annotation: a signal's, for one. Models become maps.

    Unlike `codec_for(Any)`, which must bring back what it was given, this takes models: the receiver names their type.

    Raises:
        EncodeError: the value is, or holds, what has no encoding.
        PayloadTooLarge: above `MAX_PAYLOAD_BYTES`.

    >>> payload = encode_untyped({"ok": True}, "signal 'approval'")
    >>> codec_for(dict[str, bool], "signal 'approval'").decode(payload, "signal 'approval'")
    {'ok': True}
    """
    try:
        return codec_for(Any, what).encode(value, what)
    except EncodeError as refused:
        try:
            if type(value) not in _CONTAINERS:
                return codec_for(type(value), what).encode(value, what)
            payload = Payload(pack(value, tags=True))
        except (NotPlain, UnsupportedType, RecursionError):
            raise refused from None
        if len(payload.data) > MAX_PAYLOAD_BYTES:
            raise PayloadTooLarge(what=what, size=len(payload.data), limit=MAX_PAYLOAD_BYTES) from None
        return payload


def codec_for(annotation: Any, what: str) -> Codec[Any]:
    """The codec of an annotation; the same object for the same annotation.

    A missing annotation means Any: plain data as it is. A type that names something not defined yet is looked at again
    at first use.

    What comes back is the same in type and content, with these exceptions, all equal to what was given: where nothing
    tells their class, a subclass of a builtin (OrderedDict, IntEnum) comes back as the builtin; a tzinfo that is
    neither a fixed offset nor a ZoneInfo as the offset it had; a pydantic model with all fields set, and with fresh
    private attributes. What is shared within a value is shared no more. docs/reference/values.md has them all.

    Raises:
        UnsupportedType: neither msgspec nor pydantic can encode it.

    >>> codec_for(dict[str, int], "the result of step 'count'").content_type
    'msgpack'
    """
    if annotation is inspect.Parameter.empty or annotation is object:
        annotation = Any
    elif annotation is None:
        annotation = type(None)
    try:
        try:
            return _cached(annotation, repr(annotation))
        except TypeError:  # an annotation that cannot be hashed
            return _made(annotation)
    except NotSupported as problem:
        whole = type_name(annotation)
        part = str(problem)
        raise UnsupportedType(what=what, type=whole if part == whole else f"{whole} ({part})") from problem.__cause__


@functools.lru_cache(maxsize=4096)
def _cached(annotation: Any, _text: str) -> Codec[Any]:
    """Equal unions may differ in their order, which pydantic heeds: hence the text."""
    return _made(annotation)


def _made(annotation: Any) -> Codec[Any]:
    codec: Codec[Any] = Codec(annotation)
    with contextlib.suppress(NameError):  # then it is built at first use
        codec.build()
    return codec
