"""Removing past runs of executions that go on, in every store: what goes with one, what stays and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.store.conftest import NOTHING, Lab
from tests.store.test_collecting import file_lab, orphans, rows_by_table
from tests.store.test_runs import following, go_on

from perdure.core import events as ev
from perdure.store.protocol import Blob, Branch, Outcome, UnresolvedRow, UpdateRow

DAY_MS = 24 * 3_600_000


def remove(lab: Lab, limit: int = 1_000, *, older_ms: int = 0) -> tuple[int, int]:
    """Every past run that ended by then: how many, with how many events."""
    runs = events = 0
    after: Any = None
    for _ in range(10_000):
        found = lab.store.collect("default", lab.clock.now_ms + 1 - older_ms, after, limit, runs=True)
        assert found.executions == 0
        runs, events, after = runs + found.runs, events + found.events, found.after
        if not found.more:
            return runs, events
    raise AssertionError("it never ends")


def chain(lab: Lab, *runs: str, name: str = "a", **fields: Any) -> None:
    """An execution that has come to the last of these runs, a second for each."""
    lab.create(name)
    before = f"run-{name}"
    for run in runs:
        lab.clock.now_ms += 1_000
        assert go_on(lab, name, run=before, then=following(lab, run, **fields)).outcomes == [Outcome.COMMITTED]
        before = run


def runs_of(lab: Lab, name: str = "a") -> list[str]:
    return [each.run for each in lab.store.runs(lab.key(name), None, 100)]


def arrives(lab: Lab, message_id: str) -> bool:
    """Whether a message is put into the inbox."""
    event = ev.SignalReceived(message_id, "go", NOTHING)
    lab.store.deposit(mail=[lab.mail("a", event, message_id=message_id)])
    return message_id in [each.message_id for each in lab.store.inbox(lab.key("a"), 99)]


def test_past_runs_go_and_the_current_one_goes_on(lab: Lab) -> None:
    chain(lab, "second", "third")
    assert remove(lab) == (2, 6)
    assert runs_of(lab) == ["third"]
    key = lab.key("a")
    assert lab.store.load(key, "run-a", 0, 9) == lab.store.load(key, "second", 0, 9) == []
    assert len(lab.store.load(key, "third", 0, 9)) == 2
    assert [run for _, each, run, _ in lab.store.tail(key.shard, 0, 99) if each == key] == ["third", "third"]
    done = lab.commit(lab.batch("a", ev.ExecutionCompleted(NOTHING), run="third", closes="completed"))
    assert done.outcomes == [Outcome.COMMITTED]
    assert remove(lab) == (0, 0)
    assert lab.row("a").first_run == "run-a"


def test_only_those_that_ended_long_enough_ago_go(lab: Lab) -> None:
    chain(lab, "second", "third", "fourth")
    assert remove(lab, older_ms=1_500) == (1, 3)
    assert runs_of(lab) == ["fourth", "third", "second"]


def test_looking_counts_and_removes_nothing(lab: Lab) -> None:
    chain(lab, "second", "third")
    found = lab.store.collectable("default", lab.clock.now_ms + 1, None, 99, runs=True)
    assert (found.executions, found.runs, found.events, found.more) == (0, 2, 6, False)
    assert len(runs_of(lab)) == 3


def test_past_runs_of_closed_executions_and_of_earlier_ones_with_the_id_go_too(lab: Lab) -> None:
    chain(lab, "second")
    lab.commit(lab.batch("a", ev.ExecutionCompleted(NOTHING), run="second", closes="completed"))
    assert remove(lab) == (1, 3)
    again = lab.start("a", run="again")
    again = type(again)(again.key, again.event, b"other", reuse="always")
    assert lab.store.deposit([again])[0].created  # type: ignore[union-attr]
    assert remove(lab)[0] == 1
    assert runs_of(lab) == ["again"]


def test_a_start_of_the_first_run_is_recognised_though_that_is_gone(lab: Lab) -> None:
    """Sent again, it would take the place of what it began."""
    chain(lab, "second", "third")
    remove(lab)
    begin = lab.start("a")
    for choosy in (
        type(begin)(begin.key, begin.event, begin.digest),
        type(begin)(begin.key, begin.event, begin.digest, on_conflict="terminate"),
    ):
        [receipt] = lab.store.deposit([choosy])
        assert (receipt.status, receipt.created) == ("accepted", False)  # type: ignore[union-attr]
    assert lab.inbox("a") == []
    assert lab.row("a").run == "third"


def test_a_message_is_recognised_as_long_as_the_last_run_that_received_it_is_there(lab: Lab) -> None:
    chain(lab, "second", received=["m-old"])
    lab.clock.now_ms += DAY_MS
    go_on(lab, run="second", then=following(lab, "third", received=["m-new"]))
    assert remove(lab, older_ms=DAY_MS // 2) == (1, 3)
    assert arrives(lab, "m-old")
    assert not arrives(lab, "m-new")


def test_a_message_that_was_carried_on_is_recognised_as_long_as_it_is_carried(lab: Lab) -> None:
    lab.create("a")
    letter = lab.mail("a", ev.SignalReceived("m", "go", NOTHING), message_id="m")
    before = "run-a"
    for run in ("second", "third", "fourth"):
        lab.clock.now_ms += DAY_MS
        go_on(lab, run=before, then=following(lab, run, received=["m"], carried=[letter]))
        [waits] = lab.store.inbox(lab.key("a"), 9)
        batch = lab.batch("a", waits.event, run=run, taken=[waits])
        assert lab.commit(batch).outcomes == [Outcome.COMMITTED]
        before = run
    assert remove(lab, older_ms=DAY_MS // 2) == (2, 7)
    assert not arrives(lab, "m")


def test_answers_of_updates_go_with_their_run_and_open_ones_stay(lab: Lab) -> None:
    lab.create("a")
    key = lab.key("a")
    told = [UpdateRow("u1", "run-a", "completed", 2), UpdateRow("u2", "run-a", "accepted", 2)]
    lab.commit(lab.batch("a", ev.TimerFired(1), updates=told))
    go_on(lab)
    lab.commit(lab.batch("a", ev.TimerFired(1), run="second", updates=[UpdateRow("u3", "second", "completed", 2)]))
    remove(lab)
    assert lab.store.update(key, "u1") is None
    assert lab.store.update(key, "u2") == told[1]
    assert lab.store.update(key, "u3") is not None


def test_a_run_stays_that_tells_where_it_was_copied_from(lab: Lab) -> None:
    chain(lab, "second")
    copied = lab.store.load(lab.key("a"), "second", 0, 2)
    forked = ev.RunForked("rewound", "a", "a", "second")
    events = [*copied, ev.Recorded(2, lab.clock.now_ms, forked)]
    told = {"origin": "a/second/2", "instead_of": "second", "expected": 2}
    branch = Branch(lab.key("a"), "rewound", "research", "default", events=events, **told)  # type: ignore[arg-type]
    assert lab.store.branch(branch).status == "accepted"
    lab.positions["a"] = 3
    go_on(lab, run="rewound", then=following(lab, "last"))
    assert remove(lab) == (2, 5)
    assert [(each.run, each.origin) for each in lab.store.runs(lab.key("a"), None, 9)][1:] == [
        ("rewound", "a/second/2")
    ]
    assert len(lab.store.load(lab.key("a"), "rewound", 0, 9)) == 4


def test_a_run_stays_as_long_as_nobody_knows_what_a_step_of_it_did(lab: Lab) -> None:
    lab.create("a")
    waiting = UnresolvedRow(lab.key("a"), "run-a", 1, 1, 0, 1, lab.clock.now_ms)
    lab.commit(lab.batch("a", ev.TimerFired(1), unresolved=[waiting]))
    go_on(lab)
    assert remove(lab) == (0, 0)
    answer = ev.ResolveRequested("r", "run-a", 1, 1, "not_happened")
    lab.store.deposit(mail=[lab.mail("a", answer, message_id="r")])
    assert remove(lab) == (1, 4)


@pytest.mark.parametrize("kind", ["sqlite-outbox", "memory-outbox"])
def test_a_run_stays_as_long_as_its_messages_are_not_delivered(make_lab: Any, tmp_path: Path, kind: str) -> None:
    lab: Lab = make_lab(kind, tmp_path)
    lab.create("a", "b")
    go_on(lab, mail=[lab.mail("b", ev.SignalReceived("m", "go", NOTHING, "a", "run-a", 1), sender_run="run-a")])
    assert remove(lab) == (0, 0)
    lab.deliver()
    assert remove(lab) == (1, 3)
    lab.store.close()


def large(lab: Lab, *addresses: bytes) -> None:
    lab.store = getattr(lab.store, "inner", lab.store)  # what encrypts finds addresses by itself
    lab.store.put_blobs([Blob(lab.key("a"), address, address * 5_000) for address in addresses])


def there(lab: Lab, *addresses: bytes) -> list[bytes]:
    """Those of the large values that are left when all that nothing refers to has been deleted."""
    lab.store.collect_blobs(lab.clock.now_ms + 1, 99)
    return [address for address in addresses if lab.store.blob(lab.key("a"), address) is not None]


def test_large_values_go_that_no_run_refers_to_which_stays(lab: Lab) -> None:
    lab.create("a")
    large(lab, b"old", b"kept", b"handed on", b"new")
    lab.commit(lab.batch("a", ev.TimerFired(1), blobs=[b"old", b"kept"]))
    batch = lab.batch("a", ev.ContinuedAsNew("second", NOTHING), run="run-a", blobs=[b"handed on"])
    batch.then = following(lab, "second")
    assert lab.commit(batch).outcomes == [Outcome.COMMITTED]
    lab.positions["a"] = 2
    lab.commit(lab.batch("a", ev.TimerFired(1), run="second", blobs=[b"new", b"kept"]))
    all_of_them = (b"old", b"kept", b"handed on", b"new")
    assert there(lab, *all_of_them) == [*all_of_them]
    assert remove(lab)[0] == 1
    assert there(lab, *all_of_them) == [b"kept", b"handed on", b"new"]


def test_large_values_stay_as_long_as_a_letter_may_refer_to_them(lab: Lab) -> None:
    lab.create("a")
    large(lab, b"in a letter")
    event = ev.SignalReceived("m", "go", NOTHING)
    lab.store.deposit(mail=[lab.mail("a", event, message_id="m", blobs=[b"in a letter"])])
    go_on(lab)
    remove(lab)
    assert there(lab, b"in a letter")
    [waits] = lab.store.inbox(lab.key("a"), 9)
    lab.commit(lab.batch("a", waits.event, run="second", taken=[waits], blobs=[b"in a letter"]))
    go_on(lab, run="second", then=following(lab, "third"))
    remove(lab)
    assert not there(lab, b"in a letter")


def test_a_large_value_that_is_stored_again_meanwhile_is_there_for_the_commit(lab: Lab) -> None:
    lab.create("a")
    large(lab, b"again")
    lab.commit(lab.batch("a", ev.TimerFired(1), blobs=[b"again"]))
    go_on(lab)
    lab.clock.now_ms += 5
    large(lab, b"again")
    remove(lab)
    lab.store.collect_blobs(lab.clock.now_ms - 1, 99)
    done = lab.commit(lab.batch("a", ev.TimerFired(1), run="second", blobs=[b"again"]))
    assert done.outcomes == [Outcome.COMMITTED]
    assert there(lab, b"again")


def test_a_bite_is_bounded_and_whatever_it_leaves_is_whole(tmp_path: Path) -> None:
    lab = file_lab(tmp_path / "x.db")
    store: Any = lab.store
    before = [f"m{n}" for n in range(12)]
    chain(lab, *[f"r{n}" for n in range(20)], received=before)
    lab.commit(lab.batch("a", ev.TimerFired(1), run="r19", updates=[UpdateRow("u", "r19", "completed", 2)]))
    go_on(lab, run="r19", then=following(lab, "last"))
    after, runs, bites = None, 0, 0
    while True:
        rows = rows_by_table(store)
        found = store.collect("default", lab.clock.now_ms + 1, after, 5, runs=True)
        now = rows_by_table(store)
        assert orphans(store) == {}
        gone = {table: rows[table] - now.get(table, 0) for table in rows}
        assert max(gone.values()) <= 5, gone
        assert gone["event"] == found.events
        after, runs, bites = found.after, runs + found.runs, bites + 1
        if not found.more:
            break
    assert (runs, runs_of(lab)) == (21, ["last"])
    assert bites > 15
    assert rows_by_table(store) == {"event": 2, "execution": 1}
    lab.store.close()
