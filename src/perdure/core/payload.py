"""What events hold: encoded values of users, failures, usage. Persisted data, as the events themselves."""

from __future__ import annotations

import msgspec

MAX_PAYLOAD_BYTES = 64 * 1024 * 1024
"""What a value may take, encoded. A larger one is refused when it is encoded, and when a store's bytes claim to be."""


class Payload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An encoded user value: the envelope names the codec, and the key that encrypted it.

    In a store the content type goes on with what was done to the data, in that order: "msgpack;zlib;blob" is
    MessagePack, compressed, kept elsewhere (`store/packing.py`). Inside the process nothing of that is left.
    """

    data: bytes
    content_type: str = "msgpack"
    key_id: str = ""

    def __repr__(self) -> str:
        """Not the data: it may hold secrets, and events and questions are logged."""
        key = f", key {self.key_id!r}" if self.key_id else ""
        return f"Payload(<{len(self.data)} bytes of {self.content_type}{key}>)"


class FailureInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of an exception: its type's name, message and traceback as text, causes and group members.

    One that was declared (`raises=`) has the name that it was declared by, and its fields as `value`; where those could
    not be kept, `untyped` says why.
    """

    type: str
    message: str
    traceback: str = ""
    cause: FailureInfo | None = None
    members: tuple[FailureInfo, ...] = ()
    value: Payload | None = None
    declared: str = ""
    untyped: str = ""


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a step spent: kept in the event's header for the ledger of tokens and money."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0
