"""Removing closed executions of a real engine: what has gone and what goes on, through crashes, beside work."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.conftest import Lab, ShiftedClock, status, until
from tests.store.test_collecting import file_lab, orphans, rows_by_table
from tests.store.test_past_runs import chain

import perdure
from perdure import step, workflow
from perdure.store.protocol import Filter
from perdure.store.sqlite import SqliteStore

HOUR_MS = 3_600_000


@step
async def write(size: int) -> str:
    return secrets.token_hex(size // 2)


@workflow
class Life:
    """Everything that leaves rows behind."""

    @perdure.on_update
    async def add(self, value: int) -> int:
        return value + 1

    async def run(self, left: int) -> str:
        perdure.set_attributes(left=left, tags=["a", "b"])
        perdure.publish({"left": left})
        value = await write(800_000)  # too large for its event, compressed too
        await small(left)
        await perdure.receive("go")
        if left:
            perdure.continue_as_new(left - 1)
        return str(len(value))


@workflow
async def small(n: int) -> int:
    return n + len(await write(0))


@workflow
async def holds() -> Any:
    first = await perdure.start_child(small, 7, id="kid")
    await perdure.receive("go")
    return await first.result()


async def live(engine: perdure.Engine, name: str) -> None:
    handle = await engine.start(Life, 1, id=name)
    assert await handle.update("add", 1) == 2
    await handle.signal("go")
    await handle.signal("go")
    assert await handle.result(timeout=30) == "800000"


async def test_a_life_with_everything_leaves_nothing(lab: Lab) -> None:
    async with lab.engine(Life, small) as engine:
        await live(engine, "a")
        await live(engine, "b")
        store: Any = engine.store
        assert set(rows_by_table(store.inner)) >= {"past_run", "received", "attribute", "updates", "blob", "blob_data"}
        would = await engine.collect(older_than=0, dry_run=True)
        told: list[perdure.Removed] = []
        removed = await engine.collect(older_than=0, progress=told.append)
        assert removed.executions == would.executions == 6, "two lives and four children"
        assert told[-1] == removed
        assert rows_by_table(store.inner) == {"event": 1, "forgotten": 1}
        assert await engine.list() == []
        with pytest.raises(perdure.ExecutionNotFound):
            await engine.handle("a").describe()
        await live(engine, "a")
        assert orphans(store.inner) == {}


async def test_what_is_younger_stays_and_bad_ages_are_refused(lab: Lab) -> None:
    async with lab.engine(small) as engine:
        await (await engine.start(small, 1, id="a")).result()
        assert await engine.collect(older_than=timedelta(hours=1)) == (0, 0, 0)
        with pytest.raises(perdure.errors.InvalidOption, match="runs_older_than"):
            await engine.collect()
        for bad in (-1, float("nan"), "30d"):
            with pytest.raises(perdure.errors.InvalidOption):
                await engine.collect(older_than=bad)  # type: ignore[arg-type]
            with pytest.raises(perdure.errors.InvalidOption, match="runs_older_than"):
                await engine.collect(runs_older_than=bad)  # type: ignore[arg-type]
        with pytest.raises(perdure.errors.InvalidOption, match="run_retention"):
            perdure.Engine(lab.path, run_retention=-1)
        with pytest.raises(perdure.errors.InvalidOption):
            perdure.Engine(lab.path, retention=-1)
        assert len(await engine.list()) == 1


async def test_a_parent_goes_on_when_its_child_is_gone(lab: Lab) -> None:
    async with lab.doomed(holds, small) as engine:
        handle = await engine.start(holds, id="p")
        await until(lambda: _heard(handle))
        assert (await engine.collect(older_than=0)).executions == 1
    async with lab.engine(holds, small) as engine:
        await engine.handle("p").signal("go")
        assert await engine.handle("p").result(timeout=30) == 7


async def _heard(handle: perdure.Handle[Any]) -> bool:
    return "ChildClosed" in [type(recorded.event).__name__ for recorded in await handle.journal()]


async def test_an_engine_removes_by_itself_what_is_old(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.runtime.collecting.FIRST_MS", 0)
    async with lab.engine(small, holds) as engine:
        await (await engine.start(small, 1, id="old")).result()
        await status(await engine.start(holds, id="open"), "parked")
    later = ShiftedClock(2 * HOUR_MS)
    async with lab.engine(small, holds, retention=timedelta(hours=1), environment=later) as engine:
        await (await engine.start(small, 2, id="young")).result()
        await until(lambda: _ids_are(engine, {"open", "young"}))
        await engine.handle("open").signal("go")
        assert await engine.handle("open").result(timeout=30) == 7


async def _ids_are(engine: perdure.Engine, wanted: set[str]) -> bool:
    return {row.key.execution for row in await engine.list()} == wanted


# --- past runs ---


@workflow
async def counts(seen: int) -> int:
    """Goes on for ever, a run for each message; "stop" ends it."""
    perdure.publish(seen)
    word = await perdure.receive("word", str)
    await write(700_000)
    if word != "stop":
        perdure.continue_as_new(seen + 1)
    return seen


async def say(engine: perdure.Engine, *words: str, name: str = "c") -> None:
    """Each heard by a run of its own, with its text as its id."""
    handle = engine.handle(name)
    for word in words:
        before = (await handle.describe()).run
        await handle.signal("word", word, id=word)

        async def next_began(before: str = before) -> bool:
            return (await handle.describe()).run != before

        await until(next_began)


async def test_an_endless_chain_does_not_grow_for_ever(lab: Lab) -> None:
    async with lab.engine(counts) as engine:
        handle = await engine.start(counts, 0, id="c")
        await say(engine, "one", "two", "three")
        assert (await engine.collect(runs_older_than=timedelta(hours=1))).runs == 0
        would = await engine.collect(runs_older_than=0, dry_run=True)
        removed = await engine.collect(runs_older_than=0)
        assert removed == would == (0, removed.events, 3)
        assert [each.status for each in await handle.runs()] == ["parked"]
        store: Any = engine.store
        store.collect_blobs(2**62, 99)
        rows = rows_by_table(store.inner)
        assert {"past_run", "received", "blob", "forgotten"} & rows.keys() == set()
        assert rows["event"] == len(await handle.journal())
        await say(engine, "four")
        assert await handle.state() == 4
    async with lab.engine(counts) as engine:
        await engine.handle("c").signal("word", "stop")
        assert await engine.handle("c").result(timeout=30) == 4


async def test_duplicates_of_what_runs_received_that_are_kept_have_no_effect(lab: Lab) -> None:
    async with lab.engine(counts) as engine:
        await engine.start(counts, 0, id="c")
        await say(engine, "old")
    async with lab.engine(counts, environment=ShiftedClock(2 * HOUR_MS)) as engine:
        await say(engine, "new")
        assert (await engine.collect(runs_older_than=timedelta(hours=1))).runs == 1
        handle = engine.handle("c")
        for _ in range(2):
            await handle.signal("word", "new", id="new")
        await say(engine, "newer")
        assert await handle.state() == 3
        await say(engine, "old")
        assert await handle.state() == 4


async def test_whoever_names_a_removed_run_is_told_so(lab: Lab) -> None:
    async with lab.engine(counts) as engine:
        handle = await engine.start(counts, 0, id="c")
        first = (await handle.describe()).run
        await say(engine, "one")
        fork = await engine.fork("c", new_id="f", run=first, at=2)
        await status(fork, "parked")
        await engine.collect(runs_older_than=0)
        with pytest.raises(perdure.errors.RunNotFound, match="was removed"):
            await handle.journal(run=first)
        with pytest.raises(perdure.errors.NotForkable, match="was removed"):
            await engine.fork("c", new_id="g", run=first, at=2)
        with pytest.raises(perdure.errors.RunNotFound, match="was removed"):
            [pair async for pair in engine.diff("c", "f", left_run=first)]
        origin = (await fork.describe()).origin
        assert origin is not None
        assert (origin.execution, origin.run) == ("c", first)


async def test_where_a_rewound_execution_comes_from_is_told_though_its_runs_go(lab: Lab) -> None:
    async with lab.engine(counts) as engine:
        handle = await engine.start(counts, 0, id="c")
        await status(handle, "parked")
        await handle.rewind(at=2)
        await say(engine, "one", "two")
        origin = (await handle.describe()).origin
        assert (await engine.collect(runs_older_than=0)).runs == 2
        assert (await handle.describe()).origin == origin
        assert origin is not None


async def test_an_engine_removes_past_runs_by_itself(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.runtime.collecting.FIRST_MS", 0)
    async with lab.engine(counts, small) as engine:
        await (await engine.start(small, 1, id="closed")).result()
        await engine.start(counts, 0, id="c")
        await say(engine, "one", "two")
    options: Any = {"retention": timedelta(hours=1), "run_retention": timedelta(hours=1)}
    async with lab.engine(counts, small, environment=ShiftedClock(2 * HOUR_MS), **options) as engine:

        async def one_is_left() -> bool:
            return len(await engine.handle("c").runs()) == 1

        await until(one_is_left)
        await until(lambda: _ids_are(engine, {"c"}))


# --- crashes ---

REMOVER = """
import sys
from perdure.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
print("ready", flush=True)
after = None
while True:
    found = store.collect("default", 2**62, after, 10, runs="runs" in sys.argv)
    after = found.after
    if not found.more:
        break
print("done", flush=True)
"""


def remover(path: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", REMOVER, str(path), *words], stdout=subprocess.PIPE, text=True)


async def many(lab: Lab, count: int) -> None:
    async with lab.engine(Life, small, holds) as engine:
        await live(engine, "full")
        handles = [await engine.start(small, n, id=f"s{n}") for n in range(count)]
        await asyncio.gather(*(handle.result() for handle in handles))
        await status(await engine.start(holds, id="open"), "parked")


async def test_a_process_that_is_killed_while_it_removes_leaves_all_whole(lab: Lab, tmp_path: Path) -> None:
    """SIGKILL at several moments of one removal; after each the file is looked through."""
    await many(lab, 150)
    kills, done = 0, False
    while not done:
        process = remover(lab.path)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        before = _count(lab.path)
        _until_fewer(lab.path, before, process)
        process.send_signal(signal.SIGKILL)
        done = "done" in process.communicate()[0]
        kills += not done
        store = SqliteStore(lab.path)
        assert store._reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert orphans(store) == {}
        rows = store.find(Filter("default"), None, 1_000)
        for row in rows:
            assert len(store.load(row.key, row.run, 0, 1_000)) == row.position
        store.close()
    assert kills >= 3
    async with lab.engine(holds, small) as engine:
        await engine.handle("open").signal("go")
        assert await engine.handle("open").result(timeout=30) == 7


def test_a_process_that_is_killed_while_it_removes_past_runs_leaves_all_whole(tmp_path: Path) -> None:
    lab = file_lab(tmp_path / "x.db")
    chain(lab, *[f"r{n}" for n in range(80)], received=["m1", "m2"])
    path, kills, done = tmp_path / "x.db", 0, False
    while not done:
        process = remover(path, "runs")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        _until_fewer(path, _count(path), process)
        process.send_signal(signal.SIGKILL)
        kills, done = kills + 1, process.communicate()[0] == "done\n"
        assert orphans(lab.store) == {}  # type: ignore[arg-type]
        assert len(lab.store.load(lab.key("a"), "r79", 0, 9)) == 2
    assert kills > 2
    assert len(lab.store.runs(lab.key("a"), None, 9)) == 1
    lab.store.close()


def _count(path: Path) -> int:
    store = SqliteStore(path)
    try:
        return sum(rows_by_table(store).values())
    finally:
        store.close()


def _until_fewer(path: Path, before: int, process: subprocess.Popen[str]) -> None:
    """It has removed some more."""
    end = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < end and _count(path) > before - 60:
        time.sleep(0.001)


# --- beside work ---


async def test_work_goes_on_beside_a_removal_by_another_process(lab: Lab) -> None:
    await many(lab, 300)
    worst_s = 0.0
    async with lab.engine(small, holds) as engine:
        process = remover(lab.path)
        n = 0
        while process.poll() is None:
            began = time.monotonic()
            assert await (await engine.start(small, n, id=f"beside-{os.getpid()}-{n}")).result(timeout=30) == n
            worst_s, n = max(worst_s, time.monotonic() - began), n + 1
        assert process.communicate()[0] == "ready\ndone\n"
        assert n > 5
        assert worst_s < 4, "a bite holds the file for milliseconds; the bound is for busy machines"
        await engine.handle("open").signal("go")
        assert await engine.handle("open").result(timeout=30) == 7
