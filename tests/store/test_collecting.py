"""Removing what closed long ago, in every store: what goes with it, what stays and why, and bites that are bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.store.conftest import LANES, Lab
from tests.store.test_runs import go_on

from perdure.core import events as ev
from perdure.core.identity import closed_message
from perdure.store.protocol import Blob, Filter, Mail, Outcome, UnresolvedRow, UpdateRow
from perdure.store.sqlite import SqliteStore

NOTHING = ev.Payload(b"\xc0")
ENOUGH = 1_000


def collect(lab: Lab, limit: int = ENOUGH) -> tuple[int, int]:
    """Everything that closed by now."""
    executions = events = 0
    after: Any = None
    for _ in range(10_000):
        found = lab.store.collect("default", lab.clock.now_ms + 1, after, limit)
        executions, events, after = executions + found.executions, events + found.events, found.after
        if not found.more:
            return executions, events
    raise AssertionError("it never ends")


def ids(lab: Lab) -> set[str]:
    return {row.key.execution for row in lab.store.find(Filter("default"), None, 1_000)}


def a_full_life(lab: Lab, name: str, *, second: str = "second") -> None:
    """Leaves something in every table that goes by an execution, and closes."""
    key = lab.key(name)
    start = lab.start(name, attributes={"team": ev.Attribute("text", ("a", "b"))})
    lab.commit(lab.batch(name, start.event, ev.ExecutionClaimed(), create=start))
    lab.store.put_blobs([Blob(key, b"kept", b"x" * 10_000), Blob(key, b"more", b"y")])
    told = UpdateRow("u1", f"run-{name}", "completed", 2)
    lab.commit(lab.batch(name, ev.StatePublished(NOTHING), blobs=[b"kept"], updates=[told], state_at=2))
    assert lab.send(name, lab.mail(name, seq=0), run=f"run-{name}") is not None
    done = go_on(lab, name, run=f"run-{name}", received=["m-old"])
    assert done.outcomes == [Outcome.COMMITTED]
    lab.store.deposit(mail=[lab.mail(name)])
    lab.commit(lab.batch(name, ev.ExecutionCompleted(NOTHING), run=second, closes="completed"))


def test_all_that_belongs_to_it_goes(lab: Lab) -> None:
    a_full_life(lab, "a")
    key = lab.key("a")
    assert lab.store.dead_letters(key, 9)
    lab.clock.now_ms += 1
    executions, _ = collect(lab)
    assert executions == 1
    assert lab.store.row(key) is None
    assert lab.store.runs(key, None, 9) == []
    assert lab.store.load(key, "run-a", 0, 9) == lab.store.load(key, "second", 0, 9) == []
    assert lab.store.dead_letters(key, 9) == []
    assert lab.store.attributes(key) == {}
    assert lab.store.update(key, "u1") is None
    assert lab.store.blob(key, b"kept") is None
    assert [each for _, each, _, _ in lab.store.tail(key.shard, 0, 99) if each == key] == []


def test_an_id_is_free_again_and_nothing_of_the_old_one_is_the_new_ones(lab: Lab) -> None:
    a_full_life(lab, "a")
    lab.clock.now_ms += 1
    collect(lab)
    lab.positions["a"] = 0
    lab.create("a")
    assert len(lab.store.runs(lab.key("a"), None, 9)) == 1
    again = lab.mail("a", ev.SignalReceived("m-old", "go", NOTHING), message_id="m-old")
    assert lab.store.deposit(mail=[again])[0].status == "accepted"
    assert [each.message_id for each in lab.store.inbox(lab.key("a"), 9)] == ["m-old"]
    assert lab.store.dead_letters(lab.key("a"), 9) == []


def test_what_is_open_or_closed_lately_stays(lab: Lab) -> None:
    lab.create("open", "closed", "late")
    lab.close("closed")
    before_ms = lab.clock.now_ms + 1
    lab.clock.now_ms += 10
    lab.close("late")
    found = lab.store.collect("default", before_ms, None, ENOUGH)
    assert (found.executions, ids(lab)) == (1, {"open", "late"})
    assert lab.store.collect("elsewhere", lab.clock.now_ms + 1, None, ENOUGH).executions == 0


def with_child(lab: Lab) -> Mail:
    """A parent, a child that has closed, and what the child tells it."""
    lab.create("parent")
    parent = ev.Parent("parent", "run-parent", 1)
    start = lab.start("child", parent=parent)
    lab.commit(lab.batch("child", start.event, ev.ExecutionClaimed(), create=start))
    event = ev.ChildClosed(1, "child", "completed", NOTHING, sender_run="run-child", number=1)
    return lab.mail(
        "parent",
        event,
        receiver_run="run-parent",
        message_id=closed_message("child", "run-child"),
        sender=lab.key("child"),
        sender_run="run-child",
    )


def test_a_child_stays_until_its_open_parent_has_journaled_how_it_closed(lab: Lab) -> None:
    mail = with_child(lab)
    lab.commit(lab.batch("child", ev.ExecutionCompleted(NOTHING), closes="completed", mail=[mail]))
    lab.clock.now_ms += 1
    assert collect(lab) == (0, 0), "on its way or in the inbox"
    lab.deliver()
    assert collect(lab) == (0, 0), "in the inbox"
    letters = lab.store.inbox(lab.key("parent"), 9)
    lab.commit(lab.batch("parent", letters[0].event, taken=letters))
    executions, _ = collect(lab)
    assert (executions, ids(lab)) == (1, {"parent"})


def test_a_child_does_not_wait_for_a_parent_that_has_closed(lab: Lab) -> None:
    mail = with_child(lab)
    lab.commit(lab.batch("child", ev.ExecutionCompleted(NOTHING), closes="completed", mail=[mail]))
    lab.deliver()
    lab.close("parent")
    lab.clock.now_ms += 1
    collect(lab)
    assert ids(lab) == set()


def test_what_nobody_knows_stays_until_it_is_resolved(lab: Lab) -> None:
    lab.create("a")
    waiting = UnresolvedRow(lab.key("a"), "run-a", 1, 1, 2, 3, 0)
    lab.commit(lab.batch("a", ev.ExecutionTerminated("by hand"), closes="terminated", unresolved=[waiting]))
    lab.clock.now_ms += 1
    assert collect(lab) == (0, 0)
    answer = ev.ResolveRequested("m1", "run-a", 1, 1, "abandoned")
    assert lab.store.deposit(mail=[lab.mail("a", answer, message_id="m1")])[0].status == "accepted"
    assert collect(lab)[0] == 1


def test_what_was_sent_to_nobody_goes_when_it_is_old(lab: Lab) -> None:
    lab.create("a")
    lab.send("a", lab.mail("nobody"))
    assert len(lab.store.dead_letters(lab.key("nobody"), 9)) == 1
    lab.store.collect("default", lab.clock.now_ms, None, ENOUGH)
    assert len(lab.store.dead_letters(lab.key("nobody"), 9)) == 1
    lab.clock.now_ms += 1
    collect(lab)
    assert lab.store.dead_letters(lab.key("nobody"), 9) == []
    assert ids(lab) == {"a"}


def test_looking_counts_and_removes_nothing(lab: Lab) -> None:
    for name in "abc":
        lab.create(name)
        lab.close(name)
    lab.clock.now_ms += 1
    first = lab.store.collectable("default", lab.clock.now_ms, None, 2)
    rest = lab.store.collectable("default", lab.clock.now_ms, first.after, 2)
    assert (first.executions, first.events, first.more) == (2, 6, True)
    assert (rest.executions, rest.events, rest.more) == (1, 3, False)
    assert ids(lab) == {"a", "b", "c"}


# --- in a file ---

KEPT = {"meta", "session", "fence", "shard", "sqlite_sequence"}


def rows_by_table(store: SqliteStore) -> dict[str, int]:
    """How many rows each table has that goes by executions."""
    names = [name for (name,) in store._reader.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    counts = {name: store._reader.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}  # noqa: S608 - its own
    return {name: count for name, count in counts.items() if count and name not in KEPT}


def orphans(store: SqliteStore) -> dict[str, int]:
    """Rows of executions that are not there: only what `forgotten` lists, and blobs that are to be deleted."""
    by_number = "number NOT IN (SELECT number FROM execution UNION SELECT number FROM past_run)"
    by_key = "(namespace, execution) NOT IN (SELECT namespace, execution FROM execution)"
    wrong = dict.fromkeys(("attribute", "inbox", "running"), by_number)
    wrong["event"] = f"{by_number} AND number NOT IN (SELECT number FROM forgotten)"  # noqa: S608 - its own
    wrong["forgotten"] = "number IN (SELECT number FROM execution UNION SELECT number FROM past_run)"
    wrong |= dict.fromkeys(("dead_letter", "updates", "unresolved", "received", "past_run", "ask"), by_key)
    wrong["dead_letter"] += " AND stray_at_ms IS NULL"
    wrong["blob"] = f"{by_key} AND owned = 1"
    wrong["blob_data"] = "blob NOT IN (SELECT blob FROM blob)"
    counts = {
        table: store._reader.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0]  # noqa: S608 - its own
        for table, where in wrong.items()
    }
    return {table: count for table, count in counts.items() if count}


def file_lab(path: Path) -> Lab:
    return Lab(lambda clock: SqliteStore(path, clock=clock), lambda _, clock: SqliteStore(path, clock=clock))


def test_nothing_is_left_in_any_table_but_the_newest_event(tmp_path: Path) -> None:
    lab = file_lab(tmp_path / "x.db")
    for name in ("a", "b", "c"):
        a_full_life(lab, name)
    full = rows_by_table(lab.store)  # type: ignore[arg-type]
    assert set(full) >= {"execution", "event", "past_run", "received", "dead_letter", "attribute", "updates", "blob"}
    lab.clock.now_ms += 1
    collect(lab)
    assert rows_by_table(lab.store) == {"event": 1, "forgotten": 1}  # type: ignore[arg-type]
    lab.create("d")
    collect(lab)
    left = rows_by_table(lab.store)  # type: ignore[arg-type]
    assert left == {"event": 2, "execution": 1}
    lab.store.close()


def test_a_bite_is_bounded_and_whatever_it_leaves_is_whole(tmp_path: Path) -> None:
    lab = file_lab(tmp_path / "x.db")
    store: Any = lab.store
    for name in ("a", "b"):
        a_full_life(lab, name)
        for n in range(30):
            event = ev.SignalReceived(f"late-{n}", "go", NOTHING)
            lab.create(f"{name}{n}")
            lab.commit(lab.batch(f"{name}{n}", ev.TimerFired(1), mail=[Mail(lab.key(name), f"late-{n}", event)]))
    assert len(store.dead_letters(lab.key("a"), 99)) >= 30
    lab.clock.now_ms += 1
    after, events, bites = None, 0, 0
    while True:
        before = rows_by_table(store)
        found = store.collect("default", lab.clock.now_ms, after, 5)
        now = rows_by_table(store)
        assert orphans(store) == {}
        gone = {table: before[table] - now.get(table, 0) for table in before}
        assert max(gone.values()) <= 5, gone
        assert gone["event"] == found.events
        after, events, bites = found.after, events + found.events, bites + 1
        if not found.more:
            break
    assert bites > 5
    assert store.row(lab.key("a")) is store.row(lab.key("b")) is None
    lab.store.close()


def test_events_keep_their_numbers_when_the_newest_ones_are_of_what_is_gone(tmp_path: Path) -> None:
    lab = file_lab(tmp_path / "x.db")
    store: Any = lab.store
    lab.create("a")
    lab.close("a")
    [(newest,)] = store._reader.execute("SELECT max(shard_pos) FROM event")
    lab.clock.now_ms += 1
    collect(lab)
    lab.die()
    lab.session = lab.store.open_session("worker", LANES, "code-2")
    lab.create("b")
    reader: Any = lab.store
    [(least,)] = reader._reader.execute(
        "SELECT min(shard_pos) FROM event JOIN execution USING (number) WHERE execution = 'b'"
    )
    assert least > newest
    lab.store.close()
