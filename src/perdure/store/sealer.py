"""Seals what one execution writes, and opens what was read: events, progress, texts, digests. Knows no store's methods.

An encrypted event is its shape, and in `sealed` the whole event as bytes of its format. A value that stands alone is
a payload in the same way. Texts and digests, whose columns are text and bytes, begin with a mark.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any, Final

import msgspec

from perdure.core import events as ev
from perdure.core.errors import CorruptJournal, KeyMissing, PerdureError, StoreError
from perdure.core.format import FORMAT, decode_event, encode_event
from perdure.core.shape import HIDDEN, PACKED, hidden_in, shape_of, unreadable, unreadable_failure
from perdure.store.codec import Place
from perdure.store.packing import OFFLOAD_ABOVE, blob_of, is_marked, needs_packing, pack, plain_address, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from perdure.core.identity import Key
    from perdure.store.codec import PayloadCodec
    from perdure.store.protocol import Blob

MARK: Final = "perdure:sealed:"
_MARK_BYTES: Final = MARK.encode()
_EVENT, _VALUE = "event/", "value"
_encode = msgspec.msgpack.Encoder().encode
_payload_of: Callable[[bytes], ev.Payload] = msgspec.msgpack.Decoder(ev.Payload).decode

_failure_of: Callable[[bytes], ev.FailureInfo] = msgspec.msgpack.Decoder(ev.FailureInfo).decode


class Sealer:
    """Seals with a codec, or without: then large values are packed, and nothing is hidden."""

    def __init__(self, codec: PayloadCodec | None, read_blob: Callable[[Key, bytes], bytes | None]) -> None:
        self.codec = codec
        self._read_blob = read_blob

    # --- the codec, whose unexpected troubles are the world's ---

    def _encrypt(self, data: bytes, place: Place, content_type: str) -> ev.Payload:
        assert self.codec is not None
        try:
            key_id, sealed = self.codec.encrypt(data, place)
        except PerdureError:
            raise
        except Exception as error:
            raise _trouble(error) from error
        assert key_id, "a codec names the key that it used"
        return ev.Payload(sealed, content_type, key_id)

    def _decrypt(self, sealed: ev.Payload, place: Place) -> bytes:
        if self.codec is None:
            raise KeyMissing(what=str(place), key=sealed.key_id)
        try:
            return self.codec.decrypt(sealed.key_id, sealed.data, place)
        except PerdureError:
            raise
        except Exception as error:
            raise _trouble(error) from error

    def check(self, key: Key) -> None:
        """Raises `KeyMissing` if what this execution writes could not be encrypted."""
        if self.codec is not None:
            self._encrypt(b"", Place(key, "", "check"), _VALUE)

    # --- events ---

    def seal(self, event: ev.AnyEvent, place: Place, blobs: list[Blob]) -> ev.AnyEvent:
        """The event as it is to be written.

        Raises:
            KeyMissing: it cannot be encrypted, or it still is, as it was read where its key is missing.
        """
        if event.sealed is not None:
            raise KeyMissing(what=str(place), key=event.sealed.key_id)
        event = self._pack(event, place.key, blobs)
        if self.codec is None or not (hidden := hidden_in(event)):
            return event
        try:
            sealed = self._encrypt(encode_event(event), place, f"{_EVENT}{FORMAT}")
            return msgspec.structs.replace(event, **hidden, sealed=sealed)
        except KeyMissing:
            if (bare := _without_reason(event)) is None:
                raise
            return bare  # so that what nobody can read any more can be ended

    def open(self, event: ev.AnyEvent, place: Place) -> ev.AnyEvent:
        """The event as it was written; its shape with explanations where the key is missing.

        Raises:
            CorruptJournal: it does not decrypt here, or is not the event that its shape tells of.
        """
        if event.sealed is not None:
            try:
                data = self._decrypt(event.sealed, place)
            except KeyMissing:
                return unreadable(event, event.sealed.key_id)
            found = decode_event(data, _format_of(event.sealed))
            if type(found) is not type(event) or shape_of(found, event.sealed) != event:
                raise CorruptJournal(detail=f"{place}: what is encrypted is not what stands beside it")
            event = found
        return self._unpack(event, place.key)

    def _pack(self, event: ev.AnyEvent, key: Key, blobs: list[Blob]) -> ev.AnyEvent:
        packed = {}
        for name in PACKED[type(event)]:
            payload = getattr(event, name)
            if payload is not None and needs_packing(payload):
                packed[name] = self._offload(pack(payload), key, blobs)
        return msgspec.structs.replace(event, **packed) if packed else event

    def _unpack(self, event: ev.AnyEvent, key: Key) -> ev.AnyEvent:
        found = {}
        for name in PACKED[type(event)]:
            payload = getattr(event, name)
            if payload is not None and is_marked(payload):
                found[name] = unpack(payload, lambda address, key_id: self._blob(key, address, key_id))
        return msgspec.structs.replace(event, **found) if found else event

    # --- blobs ---

    def _offload(self, payload: ev.Payload, key: Key, blobs: list[Blob]) -> ev.Payload:
        data, key_id = payload.data, payload.key_id
        if len(data) <= OFFLOAD_ABOVE or key_id:
            return payload
        if self.codec is None:
            address = plain_address(data)
        else:
            address = self.codec.address(data, Place(key, "", "blob"))
            sealed = self._encrypt(data, _blob_place(key, address), _VALUE)
            data, key_id = sealed.data, sealed.key_id
        payload, blob = blob_of(payload, key, address, data, key_id)
        blobs.append(blob)
        return payload

    def _blob(self, key: Key, address: bytes, key_id: str) -> bytes:
        data = self._read_blob(key, address)
        if data is None:
            raise CorruptJournal(detail=f"execution {key.execution!r}: a large value is missing from the store")
        if key_id:
            return self._decrypt(ev.Payload(data, _VALUE, key_id), _blob_place(key, address))
        if plain_address(data) != address:
            raise CorruptJournal(detail=f"execution {key.execution!r}: some bytes of a large value were changed")
        return data

    # --- values that stand alone ---

    def seal_value(self, payload: ev.Payload, place: Place) -> ev.Payload:
        """A payload beside the journal: compressed, encrypted, never a blob."""
        packed = pack(payload) if needs_packing(payload) else payload
        return packed if self.codec is None else self._encrypt(_encode(packed), place, _VALUE)

    def open_value(self, payload: ev.Payload, place: Place) -> ev.Payload:
        """What `seal_value` was given; where it cannot be read, a payload that says so. It is advice only."""
        try:
            if payload.content_type == _VALUE and payload.key_id:
                payload = _payload_of(self._decrypt(payload, place))
            return unpack(payload, lambda _, __: b"")
        except (KeyMissing, CorruptJournal):
            return ev.Payload(b"", HIDDEN.content_type, payload.key_id or "?")

    def seal_failure(self, failure: ev.FailureInfo, place: Place) -> ev.FailureInfo:
        """A failure beside the journal."""
        if self.codec is None:
            return failure
        return ev.FailureInfo(HIDDEN.content_type, "", value=self._encrypt(_encode(failure), place, _VALUE))

    def open_failure(self, failure: ev.FailureInfo, place: Place) -> ev.FailureInfo:
        """What `seal_failure` was given; where it cannot be read, one that says so."""
        sealed = failure.value
        if failure.type != HIDDEN.content_type or sealed is None or not sealed.key_id:
            return failure
        try:
            return _failure_of(self._decrypt(sealed, place))
        except (KeyMissing, CorruptJournal):
            return unreadable_failure(sealed.key_id)

    def seal_bytes(self, data: bytes, place: Place) -> bytes:
        """A digest, encrypted: in clear it would tell who guesses the value."""
        return data if self.codec is None else _MARK_BYTES + _encode(self._encrypt(data, place, _VALUE))

    def read_bytes(self, data: bytes, place: Place) -> bytes:
        """What `seal_bytes` was given.

        Raises:
            KeyMissing, CorruptJournal: it cannot be read here.
        """
        if not is_sealed_bytes(data):
            return data
        try:
            sealed = _payload_of(data[len(_MARK_BYTES) :])
        except msgspec.DecodeError as error:
            raise CorruptJournal(detail=f"{place} does not decode: {error}") from error
        return self._decrypt(sealed, place)

    def open_bytes(self, data: bytes, place: Place) -> bytes:
        """What `seal_bytes` was given; the sealed bytes, which equal no digest, where they cannot be read."""
        try:
            return self.read_bytes(data, place)
        except (KeyMissing, CorruptJournal):
            return data

    def seal_text(self, text: str, place: Place) -> str:
        """Text for people in a column of the execution's row."""
        if not text or self.codec is None:
            return text
        sealed = self._encrypt(text.encode("utf-8", "backslashreplace"), place, _VALUE)
        return MARK + b64encode(_encode(sealed)).decode()

    def open_text(self, text: str, place: Place) -> str:
        """What `seal_text` was given; where it cannot be read, a text that says so."""
        if not text.startswith(MARK):
            return text
        try:
            sealed = _payload_of(b64decode(text[len(MARK) :]))
            return self._decrypt(sealed, place).decode()
        except KeyMissing as error:
            return f"encrypted with key {error.fields['key']!r}, which is not here"
        except (CorruptJournal, ValueError, msgspec.DecodeError):
            return "encrypted, and not readable here: it was changed, or belongs to another execution"


def _without_reason(event: ev.AnyEvent) -> ev.AnyEvent | None:
    """An event that had nothing to hide but a reason."""
    if not hasattr(event, "reason"):
        return None
    bare = msgspec.structs.replace(event, reason="")
    return None if hidden_in(bare) else bare


def is_sealed_bytes(data: bytes) -> bool:
    """Whether `seal_bytes` made them, with a codec."""
    return data.startswith(_MARK_BYTES)


def key_id_of(data: bytes) -> str:
    """The key that `seal_bytes` used."""
    return _payload_of(data[len(_MARK_BYTES) :]).key_id


def _format_of(sealed: ev.Payload) -> int:
    version = sealed.content_type.removeprefix(_EVENT)
    if not sealed.content_type.startswith(_EVENT) or not version.isdecimal():
        raise CorruptJournal(detail=f"a sealed event has the content type {sealed.content_type!r}")
    return int(version)


def _blob_place(key: Key, address: bytes) -> Place:
    return Place(key, "", f"blob {address.hex()}")


def _trouble(error: Exception) -> Any:
    """Without the error's own text, which may hold what was to be encrypted."""
    return StoreError(path="codec", detail=f"the codec raised {type(error).__name__}")
