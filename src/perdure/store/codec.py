"""The port to encryption: what an engine, a client or a tool is given as `codec=`, and what a value is bound to.

`perdure.encryption.KeyRing` is the one that comes with Perdure; whoever keeps keys elsewhere writes another.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec

from perdure.core.identity import Key

_encode = msgspec.msgpack.Encoder().encode


class Place(NamedTuple):
    """Where a value stands, and the only place where it may be read again."""

    key: Key
    run: str  # empty for what belongs to no run yet: letters, blobs
    what: str  # "event 7", "letter m1", "progress 3", "problem", ...

    def __str__(self) -> str:
        """For people: the execution, and what in it."""
        return f"Execution {self.key.execution!r}, {self.what}"

    def additional_data(self) -> bytes:
        """The bytes that authenticated encryption binds a value to. Compatibility data."""
        return _encode((*self.key, self.run, self.what))


class PayloadCodec(Protocol):
    """Encrypts what is written to a store and decrypts what is read. Thread-safe: committer and readers share it.

    An error that is not named here counts as the world's (a key service that is down): it is tried again.
    """

    def encrypt(self, data: bytes, place: Place) -> tuple[str, bytes]:
        """The id of the key for this execution now, and the bytes to keep.

        Raises:
            KeyMissing: the key is not here.
        """
        ...

    def decrypt(self, key_id: str, data: bytes, place: Place) -> bytes:
        """What `encrypt` was given.

        Raises:
            KeyMissing: the key is not here.
            CorruptJournal: the bytes were changed, or belong to another place.
        """
        ...

    def address(self, data: bytes, place: Place) -> bytes:
        """32 bytes that are equal for equal data of one execution, and tell nothing to who lacks the key.

        Raises:
            KeyMissing: the key is not here.
        """
        ...
