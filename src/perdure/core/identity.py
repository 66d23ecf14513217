"""Names of things: keys, run ids, and the ids that are functions of (execution, run, seq).

Everything here is a pure function of its arguments, so that a replay, a retry and a restart derive the same ids.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple, NewType

from perdure.core.errors import InvalidId

Namespace = NewType("Namespace", str)
ExecutionId = NewType("ExecutionId", str)
Lane = NewType("Lane", str)

DEFAULT_NAMESPACE = Namespace("default")
DEFAULT_LANE = Lane("default")
DEFAULT_SHARDS = 256
MAX_ID_BYTES = 200
MAX_SHOWN = 80


class Key(NamedTuple):
    """Where an execution lives: its shard first, as in every table's key."""

    shard: int
    namespace: Namespace
    execution: ExecutionId


def shard_of(namespace: str, execution: str, shards: int) -> int:
    """The shard of an execution id: blake2b modulo the store's fixed number of shards.

    >>> shard_of("default", "report-1", 256) == shard_of("default", "report-1", 256)
    True
    """
    digest = hashlib.blake2b(f"{namespace}\0{execution}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards


def derived_id(purpose: str, execution: str, run: str, seq: int, extra: str = "") -> str:
    """A stable 128-bit id, as 32 hexadecimal digits, for one purpose of one command of one run.

    Idempotency keys, child ids and message ids come from here: the same on every attempt and after every crash,
    another after a fork or continue-as-new, because the run is part of it.
    """
    text = f"{purpose}\0{execution}\0{run}\0{seq}\0{extra}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, person=b"perdure-id").hexdigest()


def noise(run: str, seq: int, attempt: int) -> float:
    """A reproducible number in [0, 1) for jitter: spread between executions, the same on replay."""
    digest = hashlib.blake2b(f"{run}\0{seq}\0{attempt}".encode(), digest_size=4, person=b"perdure-noise").digest()
    return int.from_bytes(digest, "big") / 2**32


def checked_id(value: str, kind: str = "execution id") -> str:
    """The id itself, if it may be stored and shown.

    Raises:
        InvalidId: it is empty, too long, or holds surrogates, control or other unprintable characters.
    """
    if isinstance(value, str) and value.isascii() and value.isprintable() and 0 < len(value) <= MAX_ID_BYTES:
        reason = "it begins or ends with a space" if value != value.strip() else ""
    else:
        reason = _why_not(value)
    if reason:
        shown = ascii(value)
        raise InvalidId(value=shown if len(shown) <= MAX_SHOWN else shown[:MAX_SHOWN] + "…", kind=kind, reason=reason)
    return value


def _why_not(value: object) -> str:
    if not isinstance(value, str) or not value:
        return "it is empty" if value == "" else f"it is {type(value).__name__}, not text"
    if any("\ud800" <= char <= "\udfff" for char in value):
        return "it holds a lone surrogate"
    if not value.isprintable():
        return "it holds characters that cannot be printed"
    if len(value.encode()) > MAX_ID_BYTES:
        return f"it is longer than {MAX_ID_BYTES} bytes"
    return "it begins or ends with a space" if value != value.strip() else ""


def storable(text: str) -> str:
    """The text as journals and databases can hold it: lone surrogates, which models emit, show as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def closed_message(execution: str, run: str) -> str:
    """The id of the message that tells a parent how its child closed."""
    return derived_id("closed", execution, run, 0)
