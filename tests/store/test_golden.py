"""What format 0 looks like on disk: bytes that every later Perdure must read.

`golden/events-0.json` holds the body of an event of each type, `golden/store-0001.sqlite` a store of schema 1. Until
the first release a change may rewrite them (`python tests/store/test_golden.py`); after it, they only gain company.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from perdure.core import events as ev
from perdure.core.errors import CorruptJournal, JournalFromTheFuture
from perdure.core.format import FORMAT, decode_event, encode_event
from perdure.core.identity import ExecutionId, Key, Namespace, shard_of
from perdure.store.protocol import Batch, Mail, NewEvent, Park, Running, Start
from perdure.store.queries import SQL, migrations
from perdure.store.sqlite import SqliteStore

GOLDEN = Path(__file__).parent / "golden"
DATA = ev.Payload(b"\x93\x01\x02\xa1x", "msgpack", "key-1")
FAILURE = ev.FailureInfo(
    "ValueError",
    "no such page: ü",
    "Traceback …",
    cause=ev.FailureInfo("KeyError", "'x'"),
    members=(ev.FailureInfo("OSError", "gone"),),
    value=DATA,
)
STEP = {"name": "search", "digest": b"\x00\x01\xff", "location": "research.py:12", "preview": DATA, "input_ref": "ref"}
SENT = {"sender_run": "run-0", "number": 7}

EVERY_EVENT: list[ev.AnyEvent] = [
    ev.ExecutionStarted("research", "run-1", DATA, "gpu", ev.Parent("p", "run-0", 3), "terminate", "request"),
    ev.ExecutionClaimed(),
    ev.CancelRequested("m1", "tired", **SENT),
    ev.TerminateRequested("m2", "enough", **SENT),
    ev.SignalReceived("m3", "approval", DATA, "boss", **SENT),
    ev.ExecutionCompleted(DATA, (FAILURE,)),
    ev.ExecutionFailed(FAILURE, (FAILURE,)),
    ev.ExecutionCancelled("tired"),
    ev.ExecutionTerminated("enough"),
    ev.ContinuedAsNew("run-2", DATA),
    ev.Snapshot(DATA),
    ev.StatePublished(DATA, 3),
    ev.UpdateAccepted("u4", "rename", DATA),
    ev.UpdateCompleted(5, "u4", "rename", DATA, FAILURE),
    ev.StepIntended(1, attempt=2, input=DATA, **STEP),
    ev.StepAttemptFailed(
        2, attempt=2, started_at_ms=5, failure=FAILURE, retry_at_ms=2**41, spent_ms=9, progress=DATA, **STEP
    ),
    ev.StepCompleted(3, result=DATA, attempt=2, started_at_ms=5, **STEP),
    ev.StepFailed(4, failure=FAILURE, attempt=2, started_at_ms=5, **STEP),
    ev.StepOutcomeUnknown(5, attempt=2, reason="it died", **STEP),
    ev.PatchMarked(6, "new-search"),
    ev.TimerFired(7),
    ev.ChildInitiated(8, "write", "child-1", "run-3", DATA, "research.py:13"),
    ev.ChildStartFailed(9, "taken"),
    ev.ChildClosed(10, "child-1", "failed", DATA, FAILURE, "why", **SENT),
    ev.MessageSent(11, "signal", "other", "go", DATA, "research.py:14"),
    ev.MessageDelivered(12),
    ev.MessageFailed(13, "closed"),
    ev.OperationScheduled(14, "endpoint", "service", "operation", "request", DATA),
    ev.OperationStarted(15, "token"),
    ev.OperationCompleted(16, DATA, FAILURE, "failed"),
    ev.UpdateRequested("u4", "rename", DATA),
    ev.MessageDropped(17, "m3", "approval", FAILURE),
    ev.ResolveRequested("m9", "run-1", 5, 2, "happened", DATA, "seen"),
    ev.PauseRequested("m6", "too dear"),
    ev.ResumeRequested("m7"),
    ev.DeadlinePassed(1_700_000_900_000, 1_700_000_930_000, "too late"),
    ev.AttributesSet({"customer": ev.Attribute("text", "acme"), "cents": ev.Attribute("number", 1250)}, ("stage",)),
    ev.ExecutionStarted(
        "research",
        "run-1",
        DATA,
        start_at_ms=1_700_000_000_000,
        deadline_ms=1_700_000_900_000,
        grace_ms=30_000,
        memo={"why": DATA},
        attributes={"tags": ev.Attribute("text", ("a", "b")), "paid": ev.Attribute("bool", True)},  # noqa: FBT003 - it
    ),
    ev.RunForked("run-2", "other", "all", "run-1", (3, 4)),
    ev.ContinuedAsNew("run-2", DATA, "write", (FAILURE,)),
    ev.ExecutionStarted(
        "research",
        "run-2",
        DATA,
        version="2",
        continued_from="run-1",
        first_run="run-0",
        children=(ev.EarlierChild("child-1", "run-3", "terminate"),),
        execution="all",
    ),
    ev.QuestionAsked(18, "Pay?", "finance", DATA, DATA, "pay", b"\x00\x01", 7, "boss", 5, "research.py:15"),
    ev.QuestionClosed(19, 18, "answered"),
]
SMALLEST = [
    ev.ExecutionStarted("w", "r", ev.Payload(b"")),
    ev.SignalReceived("m", "", ev.Payload(b"")),
    ev.StepCompleted(1, "s"),
    ev.ExecutionFailed(ev.FailureInfo("", "")),
    ev.ExecutionTerminated(unfinished=(ev.Unfinished("update", "rename", "u4"),), unreceived=2),
]
STORED = EVERY_EVENT[:32]  # in the golden store of schema 1; the others are younger


def name_of(index: int, event: ev.AnyEvent) -> str:
    return f"{index:02} {type(event).__name__}"


def bodies() -> dict[str, str]:
    return json.loads((GOLDEN / "events-0.json").read_text())


def test_every_type_of_event_has_its_golden_bytes():
    assert {type(each) for each in EVERY_EVENT} == set(flat(ev.AnyEvent))


def flat(union: object) -> list[type]:
    return [kind for member in get_args(union) for kind in (flat(member) or [member])]


@pytest.mark.parametrize(("index", "event"), list(enumerate(EVERY_EVENT + SMALLEST)))
def test_golden_bytes_decode_for_ever(index, event):
    assert decode_event(bytes.fromhex(bodies()[name_of(index, event)]), 0) == event


@pytest.mark.parametrize(("index", "event"), list(enumerate(EVERY_EVENT + SMALLEST)))
def test_events_are_written_as_the_golden_bytes(index, event):
    assert FORMAT == 0, "a new format has golden bytes of its own; keep those of format 0 for reading"
    assert encode_event(event).hex() == bodies()[name_of(index, event)]


def test_a_body_of_an_unknown_format_is_refused():
    body = encode_event(ev.ExecutionClaimed())
    with pytest.raises(JournalFromTheFuture):
        decode_event(body, FORMAT + 1)
    with pytest.raises((CorruptJournal, JournalFromTheFuture)):
        decode_event(body, -1)
    for wrong in (b"", b"\xc1", b"\x80", body[:-1], msgspec.msgpack.encode({"type": "Nonsense"})):
        with pytest.raises(CorruptJournal):
            decode_event(wrong, FORMAT)


# --- a whole store ---

RUN = "0123456789abcdef0123456789abcdef"


def key(name: str) -> Key:
    return Key(shard_of("default", name, 4), Namespace("default"), ExecutionId(name))


def story(store: SqliteStore) -> None:
    """Something in every table. `all` holds every event, though no real run could."""
    session = store.open_session("worker-1", ("default", "gpu"), "fingerprint-1")
    events = [
        NewEvent(each, 1_700_000_000_000 + n, f"trace-{n}" if n % 2 else "", ev.Usage(n, 2, 3) if n % 3 else None)
        for n, each in enumerate(STORED)
    ]
    batches = []
    for name in ("all", "parked", "stalled", "closed"):
        start = Start(key(name), ev.ExecutionStarted("research", RUN, DATA), b"digest")
        body = events if name == "all" else [NewEvent(start.event, 1)]
        batches.append(Batch(key(name), RUN, 0, body, create=start, closes="failed" if name == "closed" else None))
    store.commit(session, batches)
    advice = [
        Park(key("parked"), RUN, 1, wake_at_ms=1_800_000_000_000, waits_for="approval"),
        Park(key("stalled"), RUN, 1, "stalled", problem="bug"),
        Running(key("all"), RUN, 5, "search", 2, 1_700_000_000_000, DATA),
    ]
    store.commit(session, [], advice)
    sent = [Mail(key(name), f"to-{name}", STORED[4], seq=11) for name in ("all", "nobody")]
    store._direct = True
    store.commit(session, [Batch(key("all"), RUN, len(events), [], mail=sent)])
    store._direct = False
    child = Start(key("child"), ev.ExecutionStarted("write", "run-3", DATA, parent=ev.Parent("all", RUN, 8)), b"digest")
    store.commit(session, [Batch(key("all"), RUN, len(events), [], mail=sent[:1], starts=[child])])


def check(store: SqliteStore) -> None:
    """That the story can be read, and goes on."""
    loaded = store.load(key("all"), RUN, 0, 100)
    assert [each.event for each in loaded] == STORED
    assert [each.at_ms - 1_700_000_000_000 for each in loaded] == list(range(len(STORED)))
    assert {each.fingerprint for each in loaded} == {"fingerprint-1"}
    assert (loaded[1].trace_parent, loaded[1].usage, loaded[3].usage) == ("trace-1", ev.Usage(1, 2, 3), None)
    row = store.row(key("parked"))
    assert (row.status, row.wake_at_ms, row.waits_for) == ("parked", 1_800_000_000_000, "approval")
    assert (store.row(key("stalled")).problem, store.row(key("closed")).status) == ("bug", "failed")
    assert [each.progress for each in store.running(key("all"))] == [DATA]
    assert [each.event for each in store.dead_letters(key("nobody"), 9)] == [STORED[4]]
    assert [type(each.event).__name__ for each in store.inbox(key("all"), 9)] == [
        "SignalReceived",
        "MessageDelivered",
        "MessageFailed",
    ]
    assert [each[3] for each in store.tail(key("all").shard, 0, 1000) if each[1] == key("all")] == loaded
    session = store.open_session("worker-2", ("default",), "fingerprint-2")
    assert store.row(key("all")).recoveries == 1
    assert key("child") in store.deliver(session, 10)
    assert store.row(key("child")).parent == f"all/{RUN}/8"


def test_a_golden_store_is_read_and_goes_on_for_ever(tmp_path):
    shutil.copy(GOLDEN / "store-0001.sqlite", tmp_path / "store.db")
    store = SqliteStore(tmp_path / "store.db")
    assert store.shards == 4
    check(store)
    assert store._writer.pragma("integrity_check") == "ok"
    assert store._writer.pragma("user_version") == len(migrations())
    store.close()


def schema(store: SqliteStore) -> list[tuple[str, str | None]]:
    return sorted(store._writer.execute("SELECT name, sql FROM sqlite_schema").fetchall())


def test_a_new_store_has_the_schema_of_a_migrated_one(tmp_path):
    shutil.copy(GOLDEN / "store-0001.sqlite", tmp_path / "old.db")
    old, new = SqliteStore(tmp_path / "old.db"), SqliteStore(tmp_path / "new.db")
    assert schema(old) == schema(new)
    old.close()
    new.close()


def test_the_golden_store_tells_the_story_that_is_told_here(tmp_path):
    store = SqliteStore(tmp_path / "store.db", shards=4, direct=False)
    story(store)
    store.close()
    store = SqliteStore(tmp_path / "store.db")
    check(store)
    store.close()


def test_every_query_fits_the_schema(tmp_path):
    """But for parts of lists: `test_listing.py` plans those put together."""
    store = SqliteStore(tmp_path / "store.db")
    for name, query in SQL.items():
        is_part = name in ("begin", "begin_read", "commit", "rollback") or name.startswith("list_")
        if not is_part and not query.startswith("PRAGMA"):
            store._writer.cursor().execute(f"EXPLAIN {query}", bindings_for(query))
    store.close()


def bindings_for(query: str) -> tuple[None, ...]:
    numbered = [int(part.split(" ")[0].rstrip(",)")) for part in query.split("?")[1:] if part[:1].isdigit()]
    return (None,) * (max(numbered) if numbered else query.count("?"))


def write() -> None:
    """Make the golden files anew: only before the first release."""
    GOLDEN.mkdir(exist_ok=True)
    found = {name_of(n, each): encode_event(each).hex() for n, each in enumerate(EVERY_EVENT + SMALLEST)}
    (GOLDEN / "events-0.json").write_text(json.dumps(found, indent=1) + "\n")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "store.db"
        store = SqliteStore(path, shards=4, direct=False, clock=lambda: 1_700_000_000_000)
        story(store)
        store._writer.pragma("wal_checkpoint", "TRUNCATE")
        store.close()
        shutil.copy(path, GOLDEN / "store-0001.sqlite")


if __name__ == "__main__":
    sys.exit(write())
