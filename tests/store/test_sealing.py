"""What a store holds of values: packed when large, encrypted with a codec, readable in its own place only."""

from __future__ import annotations

import hashlib
import itertools
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.samples import FULL, SAMPLES
from tests.store.conftest import Lab

from perdure.core import events as ev
from perdure.core.errors import CorruptJournal, InvalidOption, KeyMissing, StoreError
from perdure.core.format import encode_event
from perdure.core.identity import ExecutionId, Key, Namespace
from perdure.core.payload import MAX_PAYLOAD_BYTES
from perdure.core.shape import HIDDEN, SECRETS, hidden_in, shape_of
from perdure.core.step_events import Resolution
from perdure.encryption import KeyRing, Place, generate_key
from perdure.store.packing import COMPRESS_ABOVE, OFFLOAD_ABOVE, pack, unpack
from perdure.store.protocol import Filter, Outcome, Park, Running, UpdateRow
from perdure.store.records import checksum
from perdure.store.sealing import SealedStore
from perdure.store.sqlite import SqliteStore

SECRET = b"swordfish-swordfish"
TEXT = SECRET.decode()
K1, K2 = bytes(range(32)), bytes(range(32, 64))
PLAIN = ev.Payload(b"\xb3" + SECRET)
FAILURE = ev.FailureInfo(f"{TEXT}Error", TEXT, TEXT, ev.FailureInfo("E", TEXT), (ev.FailureInfo("E", TEXT),), PLAIN)


def ring(*, current: str = "k1", **keys: bytes) -> KeyRing:
    return KeyRing(keys or {"k1": K1}, current=current)


class Sealed(Lab):
    """A laboratory over a file, whose codec can change while the file stays."""

    def __init__(self, path: Path, codec: Any) -> None:
        self.bare: Any = None

        def make(clock: Any) -> SealedStore:
            self.bare = SqliteStore(path, clock=clock)
            return SealedStore(self.bare, codec)

        super().__init__(make, lambda _, clock: make(clock))

    def use(self, codec: Any) -> None:
        self.store = SealedStore(self.bare, codec)

    def sql(self, statement: str, *bindings: Any) -> list[Any]:
        return self.bare._writer.execute(statement, bindings).fetchall()

    def files(self) -> bytes:
        folder = Path(self.bare.path).parent
        return b"".join(file.read_bytes() for file in folder.iterdir() if file.is_file())

    def one(self, name: str = "a") -> Any:
        return self.store.load(self.key(name), f"run-{name}", 2, 1)[0].event


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    made: list[Sealed] = []

    def make(codec: Any = None) -> Sealed:
        made.append(Sealed(tmp_path / "store.db", codec))
        return made[-1]

    yield make
    for each in made:
        each.store.close()


def completed(data: bytes, seq: int = 1, **fields: Any) -> ev.StepCompleted:
    return ev.StepCompleted(seq, "search", bytes(16), "research.py:12", result=ev.Payload(data), **fields)


# --- large values -----------------------------------------------------------------------------------------------------

SIZES = [0, 100, COMPRESS_ABOVE, COMPRESS_ABOVE + 1, OFFLOAD_ABOVE, OFFLOAD_ABOVE + 1, 3 * OFFLOAD_ABOVE]


@pytest.mark.parametrize("codec", [None, ring()], ids=["clear", "encrypted"])
@pytest.mark.parametrize("random", [False, True], ids=["compressible", "random"])
@pytest.mark.parametrize("size", SIZES)
def test_a_value_of_any_size_comes_back(make, size, random, codec):
    lab = make(codec)
    lab.create("a", "b")
    data = os.urandom(size) if random else (b"all work and no play " * (size // 21 + 1))[:size]
    signal = ev.SignalReceived("m", "go", ev.Payload(data))
    start = lab.start("c")
    start = type(start)(start.key, ev.ExecutionStarted("research", "run-c", ev.Payload(data)), b"digest")
    lab.commit(lab.batch("a", completed(data), mail=[lab.mail("b", signal)], starts=[start]))
    lab.store.deposit(mail=[lab.mail("a", signal)])
    assert lab.one().result.data == data
    assert lab.inbox("a") == lab.inbox("b") == [signal]
    assert lab.inbox("c") == [start.event]
    blobs = lab.sql("SELECT count(*) FROM blob WHERE owned")[0][0]
    assert blobs == (3 if random and size > OFFLOAD_ABOVE else 0)  # the same value twice in `a`: once
    [(largest,)] = lab.sql("SELECT max(length(body)) FROM event")
    assert largest < 1000 + (size if size <= (OFFLOAD_ABOVE if random else COMPRESS_ABOVE) else size // 4)


def test_one_value_is_stored_once_in_an_execution_and_again_in_another(make):
    lab = make()
    lab.create("a", "b")
    data = os.urandom(OFFLOAD_ABOVE + 1)
    for seq in range(5):
        lab.commit(lab.batch("a", completed(data, seq)), lab.batch("b", completed(data, seq)))
    assert lab.sql("SELECT execution, count(*), sum(owned) FROM blob GROUP BY execution") == [("a", 1, 1), ("b", 1, 1)]
    assert [each.result.data == data for each in lab.journal("a")[2:]] == [True] * 5


def test_encrypted_blobs_are_stored_once_too_and_their_addresses_tell_nothing(make):
    lab = make(ring())
    lab.create("a", "b")
    data = SECRET + os.urandom(OFFLOAD_ABOVE)
    for seq in range(3):
        lab.commit(lab.batch("a", completed(data, seq)), lab.batch("b", completed(data, seq)))
    found = lab.sql("SELECT execution, address FROM blob")
    assert len(found) == len({address for _, address in found}) == 2
    guesses = {hashlib.blake2b(data, digest_size=32).digest(), hashlib.sha256(data).digest()}
    assert not guesses & {address for _, address in found}
    assert SECRET not in lab.files()


def test_a_crash_between_blob_and_commit_leaves_what_is_collected(make):
    lab = make()
    lab.create("a")
    data = os.urandom(OFFLOAD_ABOVE + 1)
    lab.commit(lab.batch("a", completed(data), expected=99))
    lab.clock.now_ms += 1
    assert lab.store.collect_blobs(lab.clock.now_ms, 10) == 1
    lab.commit(lab.batch("a", completed(data)))
    lab.clock.now_ms += 1
    assert lab.store.collect_blobs(lab.clock.now_ms, 10) == 0
    assert lab.one().result.data == data


def test_a_large_signal_that_is_dropped_is_packed_too(make):
    lab = make()
    lab.create("a")
    signal = ev.SignalReceived("m1", "go", ev.Payload(b"x" * 10**6))
    lab.commit(lab.batch("a", buried=[signal]))
    assert lab.dead("a") == [signal]
    assert len(lab.files()) < 10**6


@pytest.mark.parametrize("codec", [None, ring()], ids=["clear", "encrypted"])
def test_a_blob_that_was_changed_or_is_missing_is_told(make, codec):
    lab = make(codec)
    lab.create("a")
    lab.commit(lab.batch("a", completed(os.urandom(OFFLOAD_ABOVE + 1))))
    lab.sql("UPDATE blob_data SET data = zeroblob(length(data))")
    with pytest.raises(CorruptJournal):
        lab.journal("a")
    lab.sql("DELETE FROM blob_data")
    with pytest.raises(CorruptJournal, match="missing"):
        lab.journal("a")


def test_without_a_codec_small_values_are_stored_as_they_are(make):
    lab = make()
    lab.create("a")
    event = completed(SECRET)
    lab.commit(lab.batch("a", event))
    assert lab.sql("SELECT body FROM event WHERE position = 2") == [(encode_event(event),)]


# --- bombs and other nonsense -----------------------------------------------------------------------------------------


def unpacked(data: bytes, content_type: str) -> ev.Payload:
    return unpack(ev.Payload(data, content_type), lambda _, __: pytest.fail("there is no blob"))


def bomb(size: int, says: int) -> bytes:
    stream = zlib.compressobj(9)
    zeros = bytes(2**20)
    parts = [stream.compress(zeros) for _ in range(size // 2**20)]
    return says.to_bytes(8, "big") + b"".join(parts) + stream.flush()


@pytest.mark.parametrize("says", [100, MAX_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES + 1, 2**63])
def test_a_decompression_bomb_is_refused_with_no_more_memory_than_it_says(says):
    import tracemalloc  # noqa: PLC0415

    data = bomb(256 * 2**20, says)
    assert len(data) < 300_000
    tracemalloc.start()
    try:
        with pytest.raises(CorruptJournal):
            unpacked(data, "msgpack;zlib")
        assert tracemalloc.get_traced_memory()[1] < 2.2 * min(says, MAX_PAYLOAD_BYTES) + 1_000_000
    finally:
        tracemalloc.stop()


ODD = [b"", b"\0" * 8, b"\0" * 7 + b"\x05" + zlib.compress(b"four"), b"\0" * 7 + b"\x03" + zlib.compress(b"four")]
ODD += [b"\0" * 7 + b"\x04" + zlib.compress(b"four") + b"more", b"\0" * 7 + b"\x04" + zlib.compress(b"four")[:-1]]


@pytest.mark.parametrize("data", ODD)
def test_what_does_not_decompress_to_the_size_that_it_says_is_refused(data):
    with pytest.raises(CorruptJournal):
        unpacked(data, "msgpack;zlib")


@pytest.mark.parametrize("content_type", ["msgpack;zlib;zlib", "msgpack;blob;zlib", "x;zlib" + ";zlib" * 1000])
def test_what_nobody_packs_is_refused(content_type):
    data = b"four"
    for _ in range(2):
        data = len(data).to_bytes(8, "big") + zlib.compress(data)
    with pytest.raises(CorruptJournal, match="nobody packs"):
        unpacked(data, content_type)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.binary(max_size=40), st.binary(min_size=1, max_size=9).map(lambda part: part * 5000)),
    st.lists(st.sampled_from(["msgpack", "json", "zlib", "blob", "raw", "", "geo+json", "charset=utf8"]), max_size=4),
    st.sampled_from(["", "", "theirs"]),
)
def test_any_payload_comes_back_whatever_its_content_type_says(data, parts, key_id):
    payload = ev.Payload(data, ";".join(parts), key_id)
    packed = pack(payload)
    assert unpack(packed, lambda _, __: pytest.fail("there is no blob")) == payload


# --- encryption -------------------------------------------------------------------------------------------------------


def with_secrets(event: ev.AnyEvent) -> ev.AnyEvent:
    """The event with something to find in every field that may hold values."""
    stand_ins = {ev.Payload: PLAIN, ev.FailureInfo: FAILURE, tuple: (FAILURE,), bytes: SECRET, str: TEXT}
    stand_ins[Resolution] = Resolution("happened", "person", "m9", TEXT)
    stand_ins[dict] = {"note": PLAIN}
    values = {name: stand_ins[type(getattr(event, name))] for name, _ in SECRETS[type(event)]}
    return type(event)(**{f: getattr(event, f) for f in event.__struct_fields__} | values)


@pytest.mark.parametrize("event", [with_secrets(event) for event in FULL], ids=lambda event: type(event).__name__)
def test_nothing_of_any_event_is_readable_in_the_files_but_its_shape(make, event):
    lab = make(ring())
    lab.create("a")
    lab.commit(lab.batch("a", event))
    lab.send("a", lab.mail("a", event, message_id="m"))
    assert lab.one() == event
    assert lab.inbox("a") == [event]
    assert SECRET not in lab.files()
    lab.use(None)
    shape = lab.one()
    assert TEXT not in repr(shape)
    if hidden_in(event):
        assert (type(shape), shape.sealed.key_id) == (type(event), "k1")
        assert "'k1'" in repr(shape)
    else:
        assert shape == event


@pytest.mark.parametrize("event", SAMPLES.values(), ids=SAMPLES)
def test_a_shape_tells_what_is_there_and_not_what_it_is(event):
    shape = shape_of(event)
    placeholders = [HIDDEN, ev.FailureInfo("", ""), None, (), b"", "", "sealed", {}]
    for name, _ in SECRETS[type(event)]:
        hidden = getattr(shape, name)
        told = list(hidden.values()) if isinstance(hidden, dict) else [getattr(hidden, "note", hidden)]
        assert all(each in placeholders for each in told)
        assert (getattr(shape, name) is None) == (getattr(event, name) is None)
    assert shape_of(shape) == shape


def test_rows_progress_and_digests_are_encrypted(make):
    lab = make(ring())
    lab.create("a", "b")
    parked = Park(lab.key("a"), "run-a", 2, wake_at_ms=5, waits_for=TEXT)
    stalled = Park(lab.key("b"), "run-b", 2, "stalled", waits_for="DecodeError", problem=f"\ud800 {TEXT}")
    running = Running(lab.key("a"), "run-a", 1, "search", 1, 5, PLAIN)
    lab.commit(advice=[parked, stalled, running])
    digest = b"digest-of-16-byte"
    lab.store.deposit([type(lab.start("c"))(lab.key("c"), lab.start("c").event, digest)])
    assert (lab.row("a").waits_for, lab.row("b").problem) == (TEXT, f"\\ud800 {TEXT}")
    assert (lab.row("b").waits_for, lab.row("c").start_digest) == ("DecodeError", digest)
    assert lab.store.running(lab.key("a")) == [running]
    assert not any(secret in lab.files() for secret in (SECRET, digest))
    lab.use(None)
    said = "encrypted with key 'k1', which is not here"
    assert (lab.row("a").waits_for, lab.row("b").problem, lab.row("b").waits_for) == (said, said, "DecodeError")
    [row] = [row for row in lab.store.find(Filter("default"), None, 10) if row.key.execution == "a"]
    assert row.waits_for == said
    [told] = lab.store.running(lab.key("a"))
    assert told.progress == ev.Payload(b"", "sealed", "k1")
    assert lab.row("c").start_digest != digest


def test_starting_again_is_the_same_start_with_any_key_and_a_clash_is_a_clash(make):
    lab = make(ring())
    start, other = lab.start("a", digest=b"d1"), lab.start("a", digest=b"d2")
    assert [each.status for each in lab.store.deposit([start, start, other])] == ["accepted", "accepted", "exists"]
    lab.use(ring(current="k2", k1=K1, k2=K2))
    receipts = lab.store.deposit([start, other])
    assert [(each.status, each.created, each.row.start_digest) for each in receipts] == [
        ("accepted", False, b"d1"),
        ("exists", False, b"d1"),
    ]
    assert [each.status for each in lab.store.deposit([lab.start("a", digest=b"d1", lane="x")])] == ["accepted"]


def test_a_message_that_begins_its_receiver_reaches_one_that_was_begun_before(make):
    lab = make(ring())
    start, other = lab.start("a", digest=b"d1"), lab.start("a", digest=b"d2")
    first, second = (lab.mail("a", ev.SignalReceived(m, "go", PLAIN), start=start) for m in ("m1", "m2"))
    assert [(each.status, each.created) for each in lab.store.deposit(mail=[first])] == [("accepted", True)]
    lab.use(ring(current="k2", k1=K1, k2=K2))
    assert [(each.status, each.created) for each in lab.store.deposit(mail=[second])] == [("accepted", False)]
    assert lab.inbox("a") == [start.event, first.event, second.event]
    [refused] = lab.store.deposit(mail=[lab.mail("a", ev.SignalReceived("m3", "go", PLAIN), start=other)])
    assert (refused.status, refused.row.start_digest, len(lab.inbox("a"))) == ("exists", b"d1", 3)
    assert SECRET not in lab.files()


def test_why_an_update_was_rejected_and_signals_that_were_dropped_are_encrypted(make):
    lab = make(ring())
    lab.create("a")
    rejected = UpdateRow("u1", "run-a", "rejected", failure=FAILURE)
    signal = ev.SignalReceived("m1", "go", ev.Payload(SECRET * 20_000))
    lab.commit(lab.batch("a", signal, updates=[rejected, UpdateRow("u2", "run-a", "accepted", 3)], buried=[signal]))
    assert (lab.store.update(lab.key("a"), "u1").failure, lab.store.update(lab.key("a"), "u2").failure) == (
        FAILURE,
        None,
    )
    assert lab.dead("a") == [signal]
    assert SECRET not in lab.files()
    lab.use(None)
    assert "'k1'" in lab.store.update(lab.key("a"), "u1").failure.message


def test_after_a_rotation_old_values_are_read_and_new_ones_have_the_new_key(make):
    lab = make(ring())
    lab.create("a")
    lab.commit(lab.batch("a", completed(SECRET, 1)))
    lab.use(ring(current="k2", k1=K1, k2=K2))
    lab.commit(lab.batch("a", completed(SECRET, 2)))
    assert [each.result.data for each in lab.journal("a")[2:]] == [SECRET, SECRET]
    lab.use(ring(current="k2", k2=K2))
    old, new = lab.journal("a")[2:]
    assert (old.sealed.key_id, old.seq, old.name, old.result.key_id) == ("k1", 1, "search", "k1")
    assert new == completed(SECRET, 2)


def test_dropping_a_key_makes_just_its_executions_unreadable_and_their_shape_stays(make):
    keys = {"of-a": generate_key(), "of-b": generate_key()}
    lab = make(KeyRing(keys, choose=lambda _namespace, execution: f"of-{execution}"))
    lab.create("a", "b")
    lab.commit(lab.batch("a", completed(SECRET)), lab.batch("b", completed(SECRET)))
    del keys["of-a"]
    assert lab.one("b") == completed(SECRET)
    shape = lab.one("a")
    assert (shape.name, shape.location, shape.result) == ("search", "research.py:12", ev.Payload(b"", "sealed", "of-a"))
    assert lab.row("a").position == 3
    keys["of-a"] = generate_key()
    with pytest.raises(CorruptJournal, match="does not decrypt with key 'of-a'"):
        lab.one("a")


def test_what_cannot_be_encrypted_is_left_out_with_the_reason_and_its_neighbours_commit(make):
    keys = {"of-a": K1, "of-b": K2}
    lab = make(KeyRing(keys, choose=lambda _namespace, execution: f"of-{execution}"))
    lab.create("a", "b")
    bad = lab.batch("a", mail=[lab.mail("no-key", ev.SignalReceived("m", "go", PLAIN))], expected=2)
    found = lab.commit(lab.batch("b", completed(SECRET)), bad, lab.batch("b", completed(SECRET)))
    assert isinstance(found.outcomes[1], KeyMissing)
    assert found.outcomes[1].fields["key"] == "of-no-key"
    assert [found.outcomes[0], found.outcomes[2]] == [Outcome.COMMITTED] * 2
    assert lab.row("a").position == 2
    wrong, right = lab.store.deposit(mail=[lab.mail("no-key"), lab.mail("a")])
    assert (type(wrong), right.status) == (KeyMissing, "accepted")


def test_without_its_key_an_execution_can_be_ended_and_marked_as_stalled(make):
    keys = {"k1": K1}
    lab = make(KeyRing(keys, current="k1"))
    lab.create("a", "b")
    del keys["k1"]
    stalled = Park(lab.key("b"), "run-b", 2, "stalled", waits_for="DecodeError", problem=TEXT)
    end = ev.ExecutionTerminated("because")
    done = lab.commit(lab.batch("a", end, closes="terminated"), advice=[stalled])
    assert done.outcomes == [Outcome.COMMITTED]
    assert lab.journal("a")[-1] == ev.ExecutionTerminated()
    assert lab.row("b").waits_for == "KeyMissing"
    assert "'k1'" in lab.row("b").problem


def test_what_was_read_without_its_key_is_not_written_again(make):
    lab = make(ring())
    lab.create("a")
    lab.store.deposit(mail=[lab.mail("a", ev.SignalReceived("m", "go", PLAIN))])
    lab.use(ring(current="k2", k2=K2))
    [letter] = lab.store.inbox(lab.key("a"), 1)
    [outcome] = lab.commit(lab.batch("a", letter.event, taken=[letter])).outcomes
    assert (type(outcome), outcome.fields["key"]) == (KeyMissing, "k1")
    lab.use(None)
    assert isinstance(lab.commit(lab.batch("a", letter.event, expected=2)).outcomes[0], KeyMissing)


def test_nobody_without_a_codec_writes_in_clear_to_an_encrypted_execution(make):
    lab = make(ring())
    lab.create("a")
    lab.use(None)
    refused, told = lab.store.deposit(mail=[lab.mail("a", ev.SignalReceived("m", "go", PLAIN)), lab.mail("nobody")])
    assert (type(refused), refused.fields["key"], told.status) == (KeyMissing, "k1", "missing")
    [ended] = lab.store.deposit(mail=[lab.mail("a", ev.TerminateRequested("m2"))])  # there is no value in it
    assert ended.status == "accepted"


def test_a_codec_can_be_given_to_a_store_that_has_values_in_clear(make):
    lab = make()
    lab.create("a")
    lab.commit(lab.batch("a", completed(b"old")))
    lab.use(ring())
    lab.commit(lab.batch("a", completed(SECRET, 2)))
    assert [each.result.data for each in lab.journal("a")[2:]] == [b"old", SECRET]
    assert SECRET not in lab.files()


class Broken:
    """A codec whose key service is down."""

    def encrypt(self, *told: Any) -> Any:
        raise TimeoutError(f"cannot encrypt {told!r}")

    decrypt = address = encrypt


def test_a_codec_in_trouble_is_the_worlds_fault_and_nothing_is_written(make):
    lab = make(ring())
    lab.create("a")
    lab.use(Broken())
    with pytest.raises(StoreError, match="TimeoutError") as caught:
        lab.commit(lab.batch("a", completed(SECRET)))
    assert TEXT not in str(caught.value)
    with pytest.raises(StoreError, match="TimeoutError"):
        lab.journal("a")
    lab.use(ring())
    assert lab.row("a").position == 2


# --- what is moved does not decrypt -----------------------------------------------------------------------------------


def moved(lab: Sealed, to: str, position: int, source: str, origin: int) -> None:
    """Put an event's body into another event's place, with a right checksum, as whoever can write the file may."""
    found = "SELECT number, at_ms, body FROM event JOIN execution USING (number)"
    found += " WHERE execution = ? AND event.position = ?"
    [(_, _, body)] = lab.sql(found, source, origin)
    [(number, at_ms, _)] = lab.sql(found, to, position)
    check = checksum(body, position, at_ms)
    lab.sql("UPDATE event SET body = ?, checksum = ? WHERE number = ? AND position = ?", body, check, number, position)


@pytest.mark.parametrize(("to", "position"), [("a", 3), ("b", 2), ("b", 3)])
def test_an_event_that_is_moved_does_not_decrypt(make, to, position):
    lab = make(ring())
    lab.create("a", "b")
    for name in "ab":
        lab.commit(lab.batch(name, completed(SECRET, 1), completed(b"other", 1)))
    moved(lab, to, position, "a", 2)
    with pytest.raises(CorruptJournal, match="does not decrypt"):
        lab.journal(to)
    moved(lab, "a", 2, "a", 2)
    assert to == "a" or lab.journal("a")[2] == completed(SECRET, 1)


def test_an_event_of_another_run_does_not_decrypt(make):
    lab = make(ring())
    lab.create("a")
    lab.commit(lab.batch("a", completed(SECRET)))
    lab.sql("UPDATE execution SET run = 'run-other'")
    with pytest.raises(CorruptJournal, match="does not decrypt"):
        lab.journal("a", "run-other")


@pytest.mark.parametrize("change", [{"namespace": "other"}, {"execution": "other"}, {"shard": 7}])
def test_an_execution_that_is_renamed_does_not_decrypt(make, change):
    lab = make(ring())
    lab.create("a")
    key = lab.key("a")._replace(**change)
    lab.sql("UPDATE execution SET shard = ?, namespace = ?, execution = ?", *key)
    with pytest.raises(CorruptJournal, match="does not decrypt"):
        lab.store.load(key, "run-a", 0, 10)


@pytest.mark.parametrize("field", ["name", "seq", "location", "attempt", "type"])
def test_a_shape_that_was_changed_is_told(make, field):
    lab = make(ring())
    lab.create("a")
    lab.commit(lab.batch("a", completed(SECRET)))
    [stored] = lab.bare.load(lab.key("a"), "run-a", 2, 1)
    event = stored.event
    if field == "type":
        event = ev.StepFailed(1, "search", location="research.py:12", sealed=event.sealed)
    else:
        other = {"name": "buy", "seq": 7, "location": "x.py:1", "attempt": 9}[field]
        event = type(event)(**{f: getattr(event, f) for f in event.__struct_fields__} | {field: other})
    body = encode_event(event)
    check = checksum(body, 2, stored.at_ms)
    lab.sql("UPDATE event SET body = ?, checksum = ? WHERE position = 2", body, check)
    with pytest.raises(CorruptJournal):
        lab.journal("a")


def test_letters_blobs_texts_and_progress_that_are_moved_do_not_decrypt(make):
    lab = make(ring())
    lab.create("a", "b")
    lab.store.deposit(mail=[lab.mail("a", ev.SignalReceived("m", "go", PLAIN))])
    lab.commit(advice=[Park(lab.key(n), f"run-{n}", 2, "stalled", waits_for="E", problem=f"{n} {TEXT}") for n in "ab"])
    lab.commit(advice=[Running(lab.key("a"), "run-a", 1, "search", 1, 5, PLAIN)])
    numbers = dict(lab.sql("SELECT execution, number FROM execution"))
    lab.sql("UPDATE inbox SET number = ?", numbers["b"])
    lab.sql("UPDATE running SET number = ?", numbers["b"])
    lab.sql("UPDATE execution SET problem = (SELECT problem FROM execution WHERE execution = 'a')")
    with pytest.raises(CorruptJournal, match="does not decrypt"):
        lab.inbox("b")
    assert (lab.row("a").problem, "not readable" in lab.row("b").problem) == (f"a {TEXT}", True)
    assert lab.store.running(lab.key("b"))[0].progress == ev.Payload(b"", "sealed", "k1")
    lab.sql("UPDATE inbox SET number = ?, message_id = 'other'", numbers["a"])
    with pytest.raises(CorruptJournal, match="does not decrypt"):
        lab.inbox("a")


def test_a_blob_of_another_execution_does_not_decrypt(make):
    lab = make(ring())
    lab.create("a", "b")
    lab.commit(lab.batch("a", completed(os.urandom(OFFLOAD_ABOVE + 1))))
    lab.commit(lab.batch("b", completed(os.urandom(OFFLOAD_ABOVE + 1))))
    lab.sql("UPDATE blob_data SET data = (SELECT data FROM blob_data WHERE blob = 1) WHERE blob = 2")
    assert lab.journal("a")
    with pytest.raises(CorruptJournal, match="does not decrypt"):
        lab.journal("b")


# --- the ring ---------------------------------------------------------------------------------------------------------

PLACE = Place(Key(3, Namespace("default"), ExecutionId("a")), "run", "event 1 1")
PLACES = [
    PLACE,
    PLACE._replace(run="other"),
    PLACE._replace(what="event 2 1"),
    PLACE._replace(key=PLACE.key._replace(shard=4)),
    PLACE._replace(key=PLACE.key._replace(namespace=Namespace("x"))),
    PLACE._replace(key=PLACE.key._replace(execution=ExecutionId("b"))),
    Place(Key(3, Namespace("defaulta"), ExecutionId("")), "run", "event 1 1"),
]


@pytest.mark.parametrize(("one", "two"), [pair for pair in itertools.product(PLACES, PLACES) if pair[0] != pair[1]])
def test_what_is_bound_to_one_place_is_refused_in_every_other(one, two):
    codec = ring()
    key_id, data = codec.encrypt(SECRET, one)
    assert codec.decrypt(key_id, data, one) == SECRET
    with pytest.raises(CorruptJournal):
        codec.decrypt(key_id, data, two)


@pytest.mark.parametrize("at", [0, 1, 12, 13, 20, -1])
def test_a_flipped_bit_is_refused(at):
    codec = ring()
    key_id, sealed = codec.encrypt(SECRET, PLACE)
    data = bytearray(sealed)
    data[at] ^= 1
    for wrong in (bytes(data), sealed[:at], b""):
        with pytest.raises(CorruptJournal):
            codec.decrypt(key_id, wrong, PLACE)


def test_keys_of_executions_are_derived_as_rfc_5869_says():
    info = b"perdure 1 encrypt\0" + Place(PLACE.key, "", "").additional_data()
    assert KeyRing._derive(K1, PLACE, b"encrypt") == HKDF(hashes.SHA256(), 32, None, info).derive(K1)


def test_the_same_value_never_looks_the_same_twice():
    codec = ring()
    assert len({codec.encrypt(SECRET, PLACE)[1] for _ in range(100)}) == 100


BAD = [
    ({}, {"current": "k1"}),
    ({"k1": K1}, {}),
    ({"k1": K1}, {"current": "k2"}),
    ({"k1": K1[:31]}, {"current": "k1"}),
    ({"k1": "x" * 32}, {"current": "k1"}),
    ({"": K1}, {"current": ""}),
    ({1: K1}, {"current": 1}),
    ({"k1": K1}, {"current": "k1", "choose": lambda *_: "k1"}),
]


@pytest.mark.parametrize(("keys", "options"), BAD, ids=range(len(BAD)))
def test_a_ring_that_cannot_work_is_refused_without_telling_its_keys(keys, options):
    with pytest.raises(InvalidOption) as caught:
        KeyRing(keys, **options)
    assert repr(K1[:31]) not in str(caught.value)
    assert repr(K1) not in repr(ring())


def test_a_ring_is_not_pickled():
    import pickle  # noqa: PLC0415 - to see that it does not work

    with pytest.raises(TypeError):
        pickle.dumps(ring())


def test_a_ring_forgets_what_it_derived_for_many_executions(monkeypatch):
    monkeypatch.setattr("perdure.encryption._MOST_DERIVED", 10)
    codec = ring()
    places = [PLACE._replace(key=PLACE.key._replace(execution=ExecutionId(str(n)))) for n in range(100)]
    sealed = [codec.encrypt(SECRET, place) for place in places]
    assert len(codec._derived) <= 10
    assert {codec.decrypt(*each, place) for each, place in zip(sealed, places, strict=True)} == {SECRET}
