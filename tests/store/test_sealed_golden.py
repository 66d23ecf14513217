"""What packed and encrypted values look like on disk: a store that every later Perdure must read.

`golden/sealed-0001.sqlite` holds a run in clear with packed values, and the same run encrypted. Until the first release
a change may rewrite it (`python tests/store/test_sealed_golden.py`); after it, it only gains company.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from base64 import b64decode
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import msgspec
import pytest

from perdure.core import events as ev
from perdure.core.identity import ExecutionId, Key, Namespace, shard_of
from perdure.encryption import KeyRing, Place
from perdure.store import sealer
from perdure.store.protocol import Batch, Mail, NewEvent, Park, Running, Start
from perdure.store.sealing import SealedStore
from perdure.store.sqlite import SqliteStore

GOLDEN = Path(__file__).parent / "golden" / "sealed-0001.sqlite"
K1, K2 = bytes(range(32)), bytes(range(32, 64))
RUN = "0123456789abcdef0123456789abcdef"
LONG = b"all work and no play " * 1_000
LARGE = Random(1).randbytes(17_000)
EVENTS: list[ev.AnyEvent] = [
    ev.ExecutionStarted("research", RUN, ev.Payload(b"\x81\xa1a\x01")),
    ev.ExecutionClaimed(),
    ev.StepCompleted(1, "short", bytes(16), "a.py:1", ev.Payload(b"\x01"), result=ev.Payload(b"\xa5short")),
    ev.StepCompleted(2, "long", bytes(16), "a.py:2", ev.Payload(b"\x01"), result=ev.Payload(LONG)),
    ev.StepCompleted(3, "large", bytes(16), "a.py:3", ev.Payload(b"\x01"), result=ev.Payload(LARGE)),
    ev.StepCompleted(4, "odd", bytes(16), "a.py:4", result=ev.Payload(b"x", "application/x;zlib")),
    ev.StepFailed(5, "fails", bytes(16), "a.py:5", failure=ev.FailureInfo("ValueError", "no", "Traceback")),
]
SIGNAL = ev.SignalReceived("m1", "go", ev.Payload(b"\x07"))


def key(name: str) -> Key:
    return Key(shard_of("default", name, 4), Namespace("default"), ExecutionId(name))


def story(bare: SqliteStore) -> None:
    session = bare.open_session("worker-1", ("default",), "fingerprint-1")
    for name, codec in (("clear", None), ("sealed", KeyRing({"k1": K1}, current="k1"))):
        store = SealedStore(bare, codec)
        start = Start(key(name), EVENTS[0], b"digest-of-a-start")  # type: ignore[arg-type]
        events = [NewEvent(event, 1_700_000_000_000 + n) for n, event in enumerate(EVENTS)]
        advice: Any = [
            Park(key(name), RUN, len(EVENTS), "stalled", waits_for="DecodeError", problem="bug"),
            Running(key(name), RUN, 6, "slow", 2, 1_700_000_000_000, ev.Payload(b"\x08")),
        ]
        with patch.object(sealer, "OFFLOAD_ABOVE", len(LARGE) - 1):  # a small file
            store.commit(session, [Batch(key(name), RUN, 0, events, create=start)])
        store.commit(session, [], advice)
        store.deposit([], [Mail(key(name), "m1", SIGNAL)])


@pytest.fixture
def golden(tmp_path: Path) -> Any:
    shutil.copy(GOLDEN, tmp_path / "store.db")
    store = SqliteStore(tmp_path / "store.db")
    yield store
    store.close()


@pytest.mark.parametrize("name", ["clear", "sealed"])
def test_what_was_packed_and_encrypted_is_read_for_ever(golden: SqliteStore, name: str) -> None:
    store = SealedStore(golden, KeyRing({"k1": K1, "k2": K2}, current="k2"))
    assert [each.event for each in store.load(key(name), RUN, 0, 100)] == EVENTS
    row = store.row(key(name))
    assert row is not None
    assert (row.start_digest, row.problem, row.waits_for) == (b"digest-of-a-start", "bug", "DecodeError")
    assert [each.progress for each in store.running(key(name))] == [ev.Payload(b"\x08")]
    assert [each.event for each in store.inbox(key(name), 9)] == [SIGNAL]


def test_what_is_written_now_looks_as_it_did(tmp_path: Path, golden: SqliteStore) -> None:
    """As far as it can be told: what is encrypted is another each time, its length and its place are not."""
    fresh = SqliteStore(tmp_path / "fresh.db", shards=4)
    story(fresh)
    for name in ("clear", "sealed"):
        for old, new in zip(*(each.load(key(name), RUN, 0, 100) for each in (golden, fresh)), strict=True):
            assert shown(new.event) == shown(old.event)
    blobs = (
        "SELECT shard, namespace, execution, hex(address), owned, length(data) FROM blob JOIN blob_data USING (blob)"
    )
    assert fresh._writer.execute(blobs).fetchall() == golden._writer.execute(blobs).fetchall()
    fresh.close()


def shown(event: ev.AnyEvent) -> Any:
    sealed = event.sealed
    bare = msgspec.structs.replace(event, sealed=None)
    return bare, sealed and (sealed.content_type, sealed.key_id, len(sealed.data))


def test_the_format_is_what_the_documentation_says(golden: SqliteStore) -> None:
    clear = [each.event for each in golden.load(key("clear"), RUN, 0, 100)]
    types = [event.result.content_type for event in clear if isinstance(event, ev.StepCompleted)]
    assert types == ["msgpack", "msgpack;zlib", "msgpack;blob", "application/x;zlib;raw"]
    sealed = golden.load(key("sealed"), RUN, 2, 1)[0].event
    assert isinstance(sealed, ev.StepCompleted)
    assert (sealed.name, sealed.seq, sealed.location, sealed.result) == (
        "short",
        1,
        "a.py:1",
        ev.Payload(b"", "sealed"),
    )
    assert sealed.sealed is not None
    assert (sealed.sealed.content_type, sealed.sealed.key_id, sealed.sealed.data[:1]) == ("event/0", "k1", b"\x01")
    row = golden.row(key("sealed"))
    assert row is not None
    assert row.start_digest.startswith(b"perdure:sealed:")
    assert row.problem.startswith("perdure:sealed:")
    kept = msgspec.msgpack.decode(b64decode(row.problem.removeprefix("perdure:sealed:")), type=ev.Payload)
    assert (kept.content_type, kept.key_id) == ("value", "k1")


def test_what_a_value_is_bound_to_is_fixed() -> None:
    place = Place(Key(7, Namespace("default"), ExecutionId("a")), RUN, "event 2 1")
    assert place.additional_data() == b"\x95\x07\xa7default\xa1a\xd9 " + RUN.encode() + b"\xa9event 2 1"


def write() -> None:
    """Make the golden file anew: only before the first release."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "store.db"
        store = SqliteStore(path, shards=4, clock=lambda: 1_700_000_000_000)
        story(store)
        store._writer.pragma("wal_checkpoint", "TRUNCATE")
        store.close()
        shutil.copy(path, GOLDEN)


if __name__ == "__main__":
    sys.exit(write())
