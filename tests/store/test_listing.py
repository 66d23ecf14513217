"""Lists: every store finds the same, in the same order, page by page, as reading everything would."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store.conftest import Lab

from perdure.core import events as ev
from perdure.store import sqlite, sqlite_listing
from perdure.store.protocol import Condition, Filter, Park, Row
from perdure.store.rules import matches, newest
from perdure.store.sqlite import SqliteStore
from perdure.store.sqlite_listing import statements

VALUES: list[Any] = [-1, 0, 0.5, 1, 2**53 + 1, 1e30, "", "a", "b", "\N{SNOWMAN}", True, False]
OPERATORS: Any = ["=", "!=", "<", "<=", ">", ">="]


def attribute(value: Any) -> ev.Attribute:
    match value:
        case bool():
            return ev.Attribute("bool", value)
        case tuple() | str():
            return ev.Attribute("text", value)
        case _:
            return ev.Attribute("number", value)


def fill(lab: Lab, seed: int, count: int = 60) -> list[str]:
    """Executions of several workflows, states and ages, some at the same moment, some with attributes; their ids."""
    chance, names = random.Random(seed), list[str]()
    for n in range(count):
        lab.clock.now_ms += chance.choice([0, 0, 1, 1_000])
        name = f"{chance.choice(['a', 'ab', 'b', 'B%_'])}-{n}"
        told: dict[str, Any] = {
            each: attribute(chance.choice([*VALUES, ("a", "b"), ("b", "\N{SNOWMAN}")]))
            for each in ("x", "y")
            if chance.random() < 0.6
        }
        parent = ev.Parent(chance.choice(["a-0", "a/b"]), "run-p", n) if chance.random() < 0.3 else None
        event = ev.ExecutionStarted(
            chance.choice(["one", "two"]), f"run-{name}", ev.Payload(b"\xc0"), attributes=told, parent=parent
        )
        start = lab.start(name)
        lab.store.deposit([type(start)(start.key, event, b"digest")])
        _lead_on(lab, chance, name, event)
        names.append(name)
    return names


def _lead_on(lab: Lab, chance: random.Random, name: str, event: ev.ExecutionStarted) -> None:
    ending: Any = chance.choice([None, "completed", "failed", "terminated", "parked", "stalled", "paused"])
    if ending is None:
        return
    letters = lab.store.inbox(lab.key(name), 10)
    lab.commit(lab.batch(name, event, ev.ExecutionClaimed(), taken=letters))
    if ending in ("parked", "stalled", "paused"):
        lab.commit(advice=[Park(lab.key(name), f"run-{name}", 2, ending)])
        return
    last: Any = {"completed": ev.ExecutionCompleted(ev.Payload(b"\xc0")), "terminated": ev.ExecutionTerminated("")}
    failed = ev.ExecutionFailed(ev.FailureInfo("E", "m"))
    lab.commit(lab.batch(name, last.get(ending, failed), closes=ending))


def pages(lab: Lab, wanted: Filter, size: int) -> list[Row]:
    found: list[Row] = []
    after: tuple[int, str] | None = None
    while page := lab.store.find(wanted, after, size):
        assert len(page) <= size
        found += page
        after = page[-1].created_at_ms, page[-1].key.execution
    return found


conditions = st.builds(
    lambda name, operator, value: Condition(name, operator, attribute(value).kind, value),
    st.sampled_from(["x", "y", "z"]),
    st.sampled_from(OPERATORS),
    st.sampled_from(VALUES),
)
queries = st.builds(
    Filter,
    namespace=st.just("default"),
    statuses=st.lists(
        st.sampled_from(["active", "parked", "paused", "stalled", "completed", "failed", "cancelled", "terminated"]),
        unique=True,
    ).map(tuple),
    workflow=st.sampled_from(["", "", "one", "three"]),
    prefix=st.sampled_from(["", "", "a", "ab-", "B%", "zz"]),
    parent=st.sampled_from(["", "", "a-0", "a/b", "a"]),
    from_ms=st.one_of(st.none(), st.integers(1_700_000_000_000, 1_700_000_020_000)),
    until_ms=st.one_of(st.none(), st.integers(1_700_000_000_000, 1_700_000_020_000)),
    where=st.lists(conditions, max_size=2).map(tuple),
)


def test_a_list_is_what_reading_everything_would_find(lab: Lab) -> None:
    rows = [lab.row(name) for name in fill(lab, 1)]
    told = {row.key: lab.store.attributes(row.key) for row in rows}
    assert {row.status for row in rows} >= {"active", "parked", "paused", "stalled", "completed", "failed"}

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(wanted=queries, size=st.integers(1, 30))
    def agree(wanted: Filter, size: int) -> None:
        expected = newest([row for row in rows if matches(wanted, row, told[row.key])], len(rows))
        assert [row.key.execution for row in pages(lab, wanted, size)] == [row.key.execution for row in expected]

    agree()


def test_a_prefix_of_many_is_found_as_one_of_few_is(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(lab, 5)
    few = pages(lab, Filter("default", prefix="a", statuses=("active", "completed")), 3)
    assert len(few) > 3
    monkeypatch.setattr(sqlite_listing, "CROWD", 3)
    monkeypatch.setattr(sqlite, "CROWD", 3)
    assert pages(lab, Filter("default", prefix="a", statuses=("active", "completed")), 3) == few


def test_what_comes_between_two_pages_moves_neither(lab: Lab) -> None:
    fill(lab, 2, 20)
    wanted = Filter("default")
    before = pages(lab, wanted, 100)
    first = lab.store.find(wanted, None, 5)
    fill(lab, 3, 10)
    rest = lab.store.find(wanted, (first[-1].created_at_ms, first[-1].key.execution), 1_000)
    ids = [row.key.execution for row in (*first, *rest)]
    assert ids == [row.key.execution for row in before]


def test_other_namespaces_are_not_seen(lab: Lab) -> None:
    fill(lab, 4, 5)
    for wanted in (Filter("elsewhere"), Filter("elsewhere", prefix="a"), Filter("elsewhere", statuses=("active",))):
        assert lab.store.find(wanted, None, 10) == []


QUICK = [
    Filter("default"),
    Filter("default", workflow="one"),
    Filter("default", parent="p"),
    Filter("default", prefix="a"),
    Filter("default", statuses=("stalled",)),
    Filter("default", statuses=("paused", "failed")),
    Filter("default", statuses=("completed",), workflow="one"),
    Filter("default", statuses=("active",)),
    Filter("default", statuses=("active", "parked", "paused", "stalled")),
    Filter("default", where=(Condition("x", "=", "text", "a"),)),
    Filter("default", where=(Condition("x", ">", "number", 1), Condition("x", "=", "number", 2))),
]


@pytest.mark.parametrize("wanted", QUICK, ids=str)
@pytest.mark.parametrize("after", [None, (5, "x")])
def test_no_list_reads_the_whole_table(tmp_path: Any, wanted: Filter, after: tuple[int, str] | None) -> None:
    store = SqliteStore(tmp_path / "lists.db")
    for statement, bindings in statements(wanted, after, 10):
        plan = [row[3] for row in store._reader.execute(f"EXPLAIN QUERY PLAN {statement}", bindings)]
        scans = [step for step in plan if step.startswith("SCAN") and not step.startswith(("SCAN shard", "SCAN json"))]
        assert all("execution_active" in step for step in scans), plan
        sorts = [step for step in plan if "TEMP B-TREE FOR ORDER BY" in step]
        assert not sorts or "shard" in " ".join(plan) or wanted.statuses == ("active",), plan
    store.close()
