"""Names of things: keys, run ids, and the ids that are functions of (execution, run, seq).

Everything here is a pure function of its arguments, so that a replay, a retry and a restart derive the same ids.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple, NewType

Namespace = NewType("Namespace", str)
ExecutionId = NewType("ExecutionId", str)
RunId = NewType("RunId", str)  # 128 random bits, 32 hexadecimal digits
Lane = NewType("Lane", str)
Seq = NewType("Seq", int)  # number of a command within a run, in the order of issue, from 1
SessionId = NewType("SessionId", int)

DEFAULT_NAMESPACE = Namespace("default")
DEFAULT_LANE = Lane("default")
DEFAULT_SHARDS = 256
MAX_ID_BYTES = 200


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
