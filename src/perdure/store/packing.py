"""Large payloads: compressed, and the largest kept apart as blobs. The content type says how to get them back.

"msgpack;zlib"       8 bytes: the size that it had; then a zlib stream
"msgpack;zlib;blob"  the address of a blob that holds what would have stood here
"x;zlib;raw"         nothing was done: the payload's own content type is "x;zlib"
"""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING, Final

from perdure.core.errors import CorruptJournal
from perdure.core.payload import MAX_PAYLOAD_BYTES, Payload
from perdure.store.protocol import Blob

if TYPE_CHECKING:
    from collections.abc import Callable

    from perdure.core.identity import Key

COMPRESS_ABOVE: Final = 16 * 1024
"""Bytes. Below, what it takes costs more than what it saves: docs/decisions/0007-values-at-rest.md has the figures."""
OFFLOAD_ABOVE: Final = 256 * 1024
ADDRESS_BYTES: Final = 32
PLAIN: Final = frozenset({"msgpack", "json", "text"})
"""Content types that are nobody's marker."""

_SIZE_BYTES = 8
_LEVEL = 1
_MARKS = frozenset({"zlib", "blob", "raw"})


def needs_packing(payload: Payload) -> bool:
    """Whether `pack` has anything to do."""
    return (len(payload.data) > COMPRESS_ABOVE and not payload.key_id) or is_marked(payload)


def is_marked(payload: Payload) -> bool:
    """Whether `unpack` has anything to do."""
    return payload.content_type not in PLAIN and _mark(payload) in _MARKS


def _mark(payload: Payload) -> str:
    return payload.content_type.rpartition(";")[2] if ";" in payload.content_type else ""


def _marked(payload: Payload, mark: str, data: bytes, key_id: str = "") -> Payload:
    return Payload(data, f"{payload.content_type};{mark}", key_id)


def _unmarked(payload: Payload, data: bytes, key_id: str = "") -> Payload:
    return Payload(data, payload.content_type.rpartition(";")[0], key_id)


def pack(payload: Payload) -> Payload:
    """Compressed, if that saves an eighth at least. What somebody else has encrypted stays as it is."""
    if is_marked(payload):
        payload = _marked(payload, "raw", payload.data, payload.key_id)
    size = len(payload.data)
    if size <= COMPRESS_ABOVE or payload.key_id:
        return payload
    data = zlib.compress(payload.data, _LEVEL)
    if len(data) > size - size // 8:
        return payload
    return _marked(payload, "zlib", size.to_bytes(_SIZE_BYTES, "big") + data)


def blob_of(payload: Payload, key: Key, address: bytes, data: bytes, key_id: str) -> tuple[Payload, Blob]:
    """The reference that takes the payload's place, and the blob: `data` is the payload's, as it is to be kept."""
    return _marked(payload, "blob", address, key_id), Blob(key, address, data)


def plain_address(data: bytes) -> bytes:
    """The address of a blob that is not encrypted: a hash of what it holds."""
    return hashlib.blake2b(data, digest_size=ADDRESS_BYTES).digest()


def unpack(payload: Payload, read_blob: Callable[[bytes, str], bytes]) -> Payload:
    """The payload as it was before `pack` and `blob_of`. `read_blob` takes an address and a key id.

    Raises:
        CorruptJournal: it does not unpack to what it says, or to more than a payload may hold.
    """
    if _mark(payload) == "blob":
        payload = _unmarked(payload, read_blob(payload.data, payload.key_id))
    if _mark(payload) == "zlib":
        payload = _unmarked(payload, _inflate(payload.data))
    if _mark(payload) == "raw":
        return _unmarked(payload, payload.data, payload.key_id)
    if is_marked(payload):
        raise CorruptJournal(detail=f"a value is packed in a way that nobody packs: {payload.content_type!r}")
    return payload


def _inflate(data: bytes) -> bytes:
    """Never more memory than the limit, whatever the stream would grow to."""
    size = int.from_bytes(data[:_SIZE_BYTES], "big")
    if size > MAX_PAYLOAD_BYTES:
        raise CorruptJournal(detail=f"a compressed value says it has {size} bytes; the limit is {MAX_PAYLOAD_BYTES}")
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data[_SIZE_BYTES:], size + 1)
    except zlib.error as error:
        raise CorruptJournal(detail=f"a compressed value does not decompress: {error}") from error
    if len(found) != size or not stream.eof or stream.unused_data:
        raise CorruptJournal(detail=f"a compressed value does not have the {size} bytes that it says")
    return found
