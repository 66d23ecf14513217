"""The journal's format: its version, encoding, and the upcasters that read older ones for ever.

An event's body is a MessagePack map whose `type` is the event's class; unknown versions are refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from perdure.core.errors import CorruptJournal, JournalFromTheFuture
from perdure.core.events import AnyEvent, Event

FORMAT = 0
"""Version of event bodies written now. 0 until the first release; from then on, every change is a new number."""

UPCASTERS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""From version n to n + 1, on the decoded map. Never removed."""

encode_event: Callable[[Event], bytes] = msgspec.msgpack.Encoder().encode
"""The bytes of an event in the current format."""


@cache
def _decoder() -> msgspec.msgpack.Decoder[AnyEvent]:
    """Made when it is first needed: it takes as long as all of `core/` takes to import."""
    return msgspec.msgpack.Decoder(AnyEvent)


def decode_event(body: bytes, version: int) -> AnyEvent:
    """The event in these bytes, upcast from the format that they were written in.

    Raises:
        JournalFromTheFuture: a newer Perdure wrote it.
        CorruptJournal: the bytes are no event of that format.
    """
    if version > FORMAT:
        raise JournalFromTheFuture(found=version, known=FORMAT)
    try:
        event: AnyEvent
        if version == FORMAT:
            event = _decoder().decode(body)
        else:
            event = msgspec.convert(_upcast(msgspec.msgpack.decode(body), version), AnyEvent)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise CorruptJournal(detail=f"an event does not decode: {error}") from error
    return event


def _upcast(found: Any, version: int) -> dict[str, Any]:
    if version < 0 or not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__} of version {version} is no event")
    fields: dict[str, Any] = found
    for older in range(version, FORMAT):
        fields = UPCASTERS[older](fields)
    return fields
