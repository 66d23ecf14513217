"""What events hold: encoded values of users, failures, usage. Persisted data, as the events themselves."""

from __future__ import annotations

import msgspec


class Payload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An encoded user value: the envelope names the codec, and later the key that encrypted it."""

    data: bytes
    content_type: str = "msgpack"
    key_id: str = ""


class FailureInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of an exception: its type's name, message and traceback as text, causes and group members."""

    type: str
    message: str
    traceback: str = ""
    cause: FailureInfo | None = None
    members: tuple[FailureInfo, ...] = ()
    value: Payload | None = None


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a step spent: kept in the event's header for the ledger of tokens and money."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0
