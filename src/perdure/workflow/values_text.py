"""Payloads as text for people: one line, JSON-like, never an error, and never more work than the text is long."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.core.events import Payload
from perdure.workflow import values_plain as plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PREVIEW_BYTES = 2048
RENDER_CHARS = 1_000_000
REPR_CHARS = 2_000
MAX_DEPTH = 64
_MAX_DECIMAL_BYTES = 1000
_CUT = "…"
_SECRET_BYTE = bytes([plain.SECRET])


def preview(payload: Payload, limit: int = PREVIEW_BYTES) -> Payload | None:
    """The payload itself where it fits `limit` bytes, else the beginning of its rendering as content type "text".

    >>> preview(Payload(b"[" + b"1," * 20_000 + b"1]", "json")).content_type
    'text'
    """
    if len(payload.data) <= limit and (_SECRET_BYTE not in payload.data or not holds_secret(payload)):
        return payload
    if payload.key_id:
        return None  # nothing of what is encrypted may be shown
    room = limit - len(_CUT.encode())
    if room < 0:
        return None
    data = _text(payload, limit).encode("utf-8", "replace")
    if len(data) > limit or data.endswith(_CUT.encode()):
        data = data[:room].decode("utf-8", "ignore").removesuffix(_CUT).encode() + _CUT.encode()
    return Payload(data, "text")


def holds_secret(payload: Payload) -> bool:
    """Whether a Secret is among what it holds."""
    if _SECRET_BYTE not in payload.data or payload.content_type != "msgpack":
        return False
    try:
        msgspec.msgpack.decode(payload.data, ext_hook=_find_secret)
    except _Found:
        return True
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return False


class _Found(Exception):
    pass


def _find_secret(code: int, data: memoryview) -> None:
    if code == plain.SECRET:
        raise _Found
    if code in (plain.TUPLE, plain.SET, plain.FROZENSET):
        msgspec.msgpack.decode(data, ext_hook=_find_secret)


def render(payload: Payload) -> str:
    r"""One readable line, JSON-like. Never raises: what is damaged shows as far as it can be read.

    >>> render(Payload(b"\x81\xa1a\xc2"))
    '{"a": false}'
    """
    return _text(payload, RENDER_CHARS)


def short_repr(value: Any) -> str:
    """The `repr` of a value that cannot be recorded, at most 2,000 characters of it. Never raises.

    >>> short_repr({1, 2})
    '{1, 2}'
    """
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - a repr is the user's code
        text = f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"
    return text if len(text) <= REPR_CHARS else text[:REPR_CHARS] + _CUT


def _text(payload: Payload, limit: int) -> str:
    if payload.key_id:
        what = f"{len(payload.data)} bytes" if payload.data else "which is not here"
        return f"<encrypted with key {_one_line(payload.key_id)}, {what}>"
    if payload.content_type != "msgpack":
        text = payload.data[: 4 * limit].decode("utf-8", "replace")
        return _cut(_one_line(text), limit)
    pieces: list[str] = []
    size = 0
    try:
        for piece in _Reader(payload.data, limit).value(0):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                break
    except (IndexError, ValueError, OverflowError, struct.error, RecursionError):
        pieces.append(_CUT)
    return _cut("".join(pieces), limit)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + _CUT


def _one_line(text: str) -> str:
    """Control characters and lone surrogates as escapes: the line goes to a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_one_line(escaped)}"'


class _Reader:
    """Reads MessagePack from the front, and stops when nobody asks for more."""

    def __init__(self, data: bytes, limit: int) -> None:
        self.data = data
        self.at = 0
        self.limit = limit

    def take(self, size: int) -> bytes:
        start, self.at = self.at, self.at + size
        if self.at > len(self.data):
            raise IndexError
        return self.data[start : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def value(self, depth: int) -> Iterator[str]:
        if depth > MAX_DEPTH:
            raise ValueError
        head = self.number(1)
        if head < 0x80 or head >= 0xE0:
            yield str(head if head < 0x80 else head - 256)
        elif head < 0x90:
            yield from self.map(head & 15, depth)
        elif head < 0xA0:
            yield from self.array(head & 15, depth)
        elif head < 0xC0:
            yield self.text(head & 31)
        else:
            yield from _HEADS[head - 0xC0](self, depth)

    def map(self, size: int, depth: int) -> Iterator[str]:
        yield "{"
        for index in range(size):
            yield ", " if index else ""
            yield from self.value(depth + 1)
            yield ": "
            yield from self.value(depth + 1)
        yield "}"

    def array(self, size: int, depth: int, brackets: str = "[]") -> Iterator[str]:
        yield brackets[0]
        for index in range(size):
            yield ", " if index else ""
            yield from self.value(depth + 1)
        yield brackets[1]

    def text(self, size: int) -> str:
        return _quoted(self.bounded(size).decode("utf-8", "replace"))

    def bounded(self, size: int) -> bytes:
        """Of a long string only what can be shown; the rest is skipped, or missing."""
        data = self.data[self.at : self.at + min(size, max(4 * self.limit + 4, 256))]
        self.at += size
        return data

    def binary(self, size: int) -> str:
        return f"<{size} bytes: {self.bounded(size)[:32].hex()}{_CUT if size > 32 else ''}>"

    def ext(self, size: int, depth: int) -> Iterator[str]:
        code = int.from_bytes(self.take(1), "big", signed=True)
        brackets = {plain.TUPLE: "()", plain.SET: "{}", plain.FROZENSET: "{}"}.get(code)
        data = self.bounded(size)
        if brackets is not None:
            inner = _Reader(data, self.limit)
            yield from inner.array(inner.array_size(), depth, brackets)
        elif code == plain.TEXT:
            yield _quoted(data.decode("utf-8", "surrogatepass"))
        elif code == plain.JSON:
            yield _one_line(data.decode("utf-8", "replace"))
        else:
            yield _scalar(code, data)

    def array_size(self) -> int:
        head = self.number(1)
        return head & 15 if head < 0xA0 else self.number(2 if head == 0xDC else 4)


def _scalar(code: int, data: bytes) -> str:
    if code == plain.BIG_INT and len(data) > _MAX_DECIMAL_BYTES:  # Python refuses to write these in decimal
        return hex(int.from_bytes(data, "big", signed=True))
    if code == plain.BYTEARRAY:
        return f"<{len(data)} bytes>"
    try:
        value: Any = msgspec.msgpack.decode(plain.ext(code, data), ext_hook=plain.untag)
    except Exception:  # noqa: BLE001 - damaged, or of a newer Perdure
        return f"<extension {code}, {len(data)} bytes>"
    return _one_line(str(value))


def _sized_text(width: int) -> Callable[[_Reader, int], Iterator[str]]:
    return lambda reader, _: iter((reader.text(reader.number(width)),))


def _sized_binary(width: int) -> Callable[[_Reader, int], Iterator[str]]:
    return lambda reader, _: iter((reader.binary(reader.number(width)),))


def _sized_ext(width: int) -> Callable[[_Reader, int], Iterator[str]]:
    return lambda reader, depth: reader.ext(reader.number(width), depth)


def _fixed_ext(size: int) -> Callable[[_Reader, int], Iterator[str]]:
    return lambda reader, depth: reader.ext(size, depth)


def _unpacked(form: str) -> Callable[[_Reader, int], Iterator[str]]:
    return lambda reader, _: iter((str(struct.unpack(form, reader.take(struct.calcsize(form)))[0]),))


def _word(text: str) -> Callable[[_Reader, int], Iterator[str]]:
    return lambda _, __: iter((text,))


_HEADS: list[Callable[[_Reader, int], Iterator[str]]] = [
    *(_word(text) for text in ("null", _CUT, "false", "true")),
    *(_sized_binary(width) for width in (1, 2, 4)),
    *(_sized_ext(width) for width in (1, 2, 4)),
    *(_unpacked(form) for form in (">f", ">d", ">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q")),
    *(_fixed_ext(size) for size in (1, 2, 4, 8, 16)),
    *(_sized_text(width) for width in (1, 2, 4)),
    lambda reader, depth: reader.array(reader.number(2), depth),
    lambda reader, depth: reader.array(reader.number(4), depth),
    lambda reader, depth: reader.map(reader.number(2), depth),
    lambda reader, depth: reader.map(reader.number(4), depth),
]
