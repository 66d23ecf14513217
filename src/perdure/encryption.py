"""Encryption of values at rest: AES-256-GCM with a ring of keys. Needs the extra `encryption` (cryptography).

Give the same ring to every engine, client and command of a store. docs/reference/values.md tells what is hidden and
what is not, docs/decisions/0008-encryption.md why it is done so.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from perdure.core.errors import CorruptJournal, CryptographyMissing, InvalidOption, KeyMissing
from perdure.core.identity import Key
from perdure.store.codec import PayloadCodec, Place

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["KeyRing", "PayloadCodec", "Place", "generate_key"]

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_SCHEME: Final = b"\x01"  # AES-256-GCM, a key per execution by HKDF-SHA-256, a random nonce
_MOST_DERIVED: Final = 4_096

Choose = Callable[[str, str], str]
"""From namespace and execution id to the id of the key that what it writes is encrypted with."""


def generate_key() -> bytes:
    """A new key: 32 random bytes.

    >>> len(generate_key())
    32
    """
    return os.urandom(KEY_BYTES)


class KeyRing:
    """Encrypts with one key of several, and reads with all of them.

    Args:
        keys: key ids with their 32 bytes. Ids are kept in clear beside every value. The mapping is asked at each use:
            a key that is deleted from it is gone at once, and it may be backed by a key service.
        current: the id of the key for all that is written from now on. Rotate by adding a key and naming it here;
            the old one stays as long as anything is to be read that it has written.
        choose: instead of `current`, the key id for a namespace and an execution id. With a key for each tenant or
            person, dropping one key makes their executions unreadable for good (crypto-shredding).

    Raises:
        InvalidOption: a key that has not 32 bytes, an id that is no text, no current key.
        CryptographyMissing: the extra `encryption` is not installed.

    Example:
        ring = KeyRing({"2025": old, "2026": new}, current="2026")
        async with perdure.Engine("perdure.db", workflows=[research], codec=ring) as engine: ...
    """

    def __init__(self, keys: Mapping[str, bytes], *, current: str | None = None, choose: Choose | None = None) -> None:
        try:
            from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - an extra, for who encrypts
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - likewise
        except ImportError as error:
            raise CryptographyMissing(detail=error) from None

        self._cipher: Callable[[bytes], AESGCM] = AESGCM
        self._invalid = InvalidTag
        self._keys = keys
        for key_id, key in self._keys.items():
            _check(key_id, key)
        if (current is None) == (choose is None):
            raise InvalidOption(option="current", value=repr(current), expected="a key id; or choose=, and not both")
        if current is not None and current not in self._keys:
            raise InvalidOption(option="current", value=repr(current), expected=f"one of {', '.join(self._keys)}")
        self._choose: Choose = choose or (lambda _namespace, _execution: str(current))
        self._derived: dict[tuple[str, Key], tuple[bytes, AESGCM, bytes]] = {}

    def __repr__(self) -> str:
        return f"<key ring of {', '.join(self._keys)}>"

    def __reduce__(self) -> Any:
        raise TypeError("a key ring is not pickled: make one where it is needed")

    # --- the codec's port ---

    def encrypt(self, data: bytes, place: Place) -> tuple[str, bytes]:
        """See `PayloadCodec.encrypt`."""
        key_id = self._current(place)
        cipher, _ = self._of(key_id, place)
        nonce = os.urandom(_NONCE_BYTES)
        return key_id, _SCHEME + nonce + cipher.encrypt(nonce, data, place.additional_data())

    def decrypt(self, key_id: str, data: bytes, place: Place) -> bytes:
        """See `PayloadCodec.decrypt`."""
        cipher, _ = self._of(key_id, place)
        if data[:1] != _SCHEME:
            raise CorruptJournal(detail=f"{place} is encrypted in a way that this Perdure does not know")
        nonce, sealed = data[1 : 1 + _NONCE_BYTES], data[1 + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, sealed, place.additional_data())
        except (self._invalid, ValueError) as error:
            detail = f"{place} does not decrypt with key {key_id!r}: it was changed, or belongs to another place"
            raise CorruptJournal(detail=detail) from error

    def address(self, data: bytes, place: Place) -> bytes:
        """See `PayloadCodec.address`."""
        _, secret = self._of(self._current(place), place)
        return hmac.digest(secret, data, "sha256")

    # --- keys ---

    def _current(self, place: Place) -> str:
        return self._choose(place.key.namespace, place.key.execution)

    def _of(self, key_id: str, place: Place) -> tuple[AESGCM, bytes]:
        """The cipher and the address key of one execution; derived anew when the ring has another key for the id."""
        key = self._keys.get(key_id)
        if key is None:
            raise KeyMissing(what=str(place), key=key_id)
        known = self._derived.get((key_id, place.key))
        if known is None or known[0] != key:
            _check(key_id, key)
            if len(self._derived) >= _MOST_DERIVED:
                self._derived.clear()
            known = key, self._cipher(self._derive(key, place, b"encrypt")), self._derive(key, place, b"address")
            self._derived[key_id, place.key] = known
        return known[1], known[2]

    @staticmethod
    def _derive(key: bytes, place: Place, purpose: bytes) -> bytes:
        """HKDF-SHA-256 (RFC 5869) of the key, without salt: one block, bound to execution and purpose."""
        info = b"perdure 1 " + purpose + b"\0" + Place(place.key, "", "").additional_data()
        secret = hmac.digest(bytes(hashlib.sha256().digest_size), key, "sha256")
        return hmac.digest(secret, info + b"\x01", "sha256")


def _check(key_id: object, key: object) -> None:
    if not isinstance(key_id, str) or not key_id or not key_id.isprintable():
        raise InvalidOption(option="keys", value=repr(key_id), expected="printable text as the id of each key")
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise InvalidOption(option="keys", value=f"{{{key_id!r}: …}}", expected="32 bytes for each key: generate_key()")
