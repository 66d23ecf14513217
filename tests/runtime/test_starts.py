"""How executions are started over a real store: later, until when, instead of another, and found by what."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.conftest import Lab, ShiftedClock, kinds, of_kind, status, until
from tests.runtime.noting import echo, note, seen

import perdure
from perdure import step, workflow
from perdure.core import events as ev
from perdure.store.protocol import Mail
from perdure.store.sqlite import SqliteStore
from perdure.workflow.values import encode_untyped

HOUR_MS = 3_600_000


@workflow
async def listens(value: str = "") -> Any:
    return await perdure.receive("go")


@workflow
async def cleans() -> str:
    try:
        await asyncio.sleep(100_000)
    finally:
        await note("cleaned")
    return "slept"


@workflow
async def lingers() -> None:
    while True:
        try:
            await asyncio.sleep(100_000)
        except asyncio.CancelledError:
            await note("not yet")


# --- later ---


async def test_a_start_that_is_put_off_is_durable_and_not_in_memory_until_it_is_due(lab: Lab) -> None:
    async with lab.engine(echo) as engine:
        handle = await engine.start(echo, "a", id="x", delay=timedelta(hours=1))
        row = await handle.describe()
        assert (row.status, row.position) == ("parked", 0)
        assert row.start_at is not None
        assert abs(row.start_at - datetime.now(UTC) - timedelta(hours=1)) < timedelta(seconds=10)
        assert engine._worker is not None
        assert engine._worker.drivers == {}
    async with lab.engine(echo, environment=ShiftedClock(HOUR_MS)) as engine:
        assert await engine.handle("x", echo).result(timeout=30) == "a"
        assert kinds(await engine.handle("x").journal())[:2] == ["ExecutionStarted", "ExecutionClaimed"]


async def test_a_start_that_is_put_off_begins_by_itself_in_the_engine_that_took_it(lab: Lab) -> None:
    async with lab.engine(echo) as engine, lab.client() as client:
        soon = datetime.now(UTC) + timedelta(seconds=0.3)
        handles = [await engine.start(echo, "a", start_at=soon), await client.start(echo, "b", delay=0.3)]
        assert seen == []
        assert [await handle.result(timeout=30) for handle in handles] == ["a", "b"]


async def test_a_moment_that_is_over_is_now(lab: Lab) -> None:
    async with lab.engine(echo) as engine:
        handle = await engine.start(echo, "a", start_at=datetime(2001, 1, 1, tzinfo=UTC))
        assert await handle.result(timeout=30) == "a"
        assert (await handle.describe()).start_at is None


async def test_messages_wait_for_what_has_not_begun(lab: Lab) -> None:
    async with lab.engine(listens) as engine:
        handle = await engine.start(listens, id="x", delay=3_600)
        await handle.signal("go", 7)
        assert (await handle.describe()).status == "parked"
    async with lab.engine(listens, environment=ShiftedClock(HOUR_MS)) as engine:
        assert await engine.handle("x").result(timeout=30) == 7


async def test_what_has_not_begun_is_cancelled_or_terminated_without_its_code(lab: Lab) -> None:
    async with lab.engine(echo) as engine:
        cancelled, terminated = [await engine.start(echo, name, id=name, delay=3_600) for name in ("c", "t")]
        await cancelled.signal("go", 1)
        await cancelled.cancel("not needed")
        await terminated.terminate("by hand")
        with pytest.raises(perdure.ExecutionCancelled, match="not needed"):
            await cancelled.result(timeout=30)
        with pytest.raises(perdure.ExecutionTerminated, match="by hand"):
            await terminated.result(timeout=30)
        assert kinds(await cancelled.journal()) == ["ExecutionStarted", "ExecutionCancelled"]
        assert kinds(await terminated.journal()) == ["ExecutionStarted", "ExecutionTerminated"]
        assert len(engine.store.dead_letters(cancelled.key, 10)) == 1
        assert seen == []


async def test_what_has_not_begun_and_was_to_pause_then_is_ended_at_once(lab: Lab) -> None:
    async with lab.engine(echo) as engine:
        cancelled, terminated = [await engine.start(echo, name, id=name, delay=3_600) for name in ("c", "t")]
        for handle in (cancelled, terminated):
            await handle.pause("not yet")
        await cancelled.cancel("not needed")
        await terminated.terminate("by hand")
        with pytest.raises(perdure.ExecutionCancelled, match="not needed"):
            await cancelled.result(timeout=30)
        with pytest.raises(perdure.ExecutionTerminated, match="by hand"):
            await terminated.result(timeout=30)
        assert seen == []


async def test_what_has_not_begun_is_terminated_behind_however_many_messages(lab: Lab) -> None:
    async with lab.engine(echo) as engine:
        handle = await engine.start(echo, "x", id="x", delay=3_600)
        value = encode_untyped("on", "a signal")
        signals = [ev.SignalReceived(f"m{n}", "go", value) for n in range(1_100)]
        engine.store.deposit([], [Mail(handle.key, each.message_id, each) for each in signals])
        await handle.terminate("by hand")
        with pytest.raises(perdure.ExecutionTerminated, match="by hand"):
            await handle.result(timeout=30)


async def test_an_update_to_what_has_not_begun_does_not_keep_it_from_being_ended(lab: Lab) -> None:
    async with lab.engine(echo) as engine:
        handle = await engine.start(echo, "x", id="x", delay=3_600)
        update = asyncio.create_task(handle.update("change"))
        await until(lambda: _has_letters(engine, handle, 2))
        await handle.cancel("not needed")
        with pytest.raises(perdure.ExecutionCancelled):
            await handle.result(timeout=30)
        with pytest.raises(perdure.ExecutionClosed, match="was not delivered"):
            await update


def _has_letters(engine: perdure.Engine, handle: perdure.Handle[Any], number: int) -> bool:
    return len(engine.store.inbox(handle.key, 10)) == number


# --- until when ---


async def test_at_its_deadline_it_is_cancelled_and_may_clean_up(lab: Lab) -> None:
    async with lab.engine(cleans) as engine:
        handle = await engine.start(cleans, deadline=0.1)
        with pytest.raises(perdure.ExecutionCancelled, match="its deadline passed"):
            await handle.result(timeout=30)
        assert seen == ["cleaned"]
        assert kinds(await handle.journal())[2:] == ["DeadlinePassed", "StepCompleted", "ExecutionCancelled"]


async def test_what_does_not_end_in_the_grace_after_its_deadline_is_terminated(lab: Lab) -> None:
    async with lab.engine(lingers) as engine:
        handle = await engine.start(lingers, deadline=0.05, grace=timedelta(seconds=0.1))
        with pytest.raises(perdure.ExecutionTerminated, match="did not end in the time that it was given"):
            await handle.result(timeout=30)
        assert seen == ["not yet"]


async def test_a_deadline_counts_downtime(lab: Lab) -> None:
    async with lab.engine(cleans) as engine:
        handle = await engine.start(cleans, id="x", deadline=timedelta(hours=1))
        row = await status(handle, "parked")
        assert row.wake_at_ms == int((await handle.describe()).deadline.timestamp() * 1000)
    async with lab.engine(cleans, environment=ShiftedClock(2 * HOUR_MS)) as engine:
        with pytest.raises(perdure.ExecutionCancelled):
            await engine.handle("x").result(timeout=30)
        assert seen == ["cleaned"]


async def test_what_begins_after_its_deadline_runs_no_step(lab: Lab) -> None:
    async with lab.client() as client:
        handle = await client.start(echo, "a", id="x", deadline=0.001)
    async with lab.engine(echo, environment=ShiftedClock(HOUR_MS)) as engine:
        handle = engine.handle("x", echo)
        with pytest.raises(perdure.ExecutionCancelled):
            await handle.result(timeout=30)
        assert kinds(await handle.journal()) == [
            "ExecutionStarted",
            "ExecutionClaimed",
            "DeadlinePassed",
            "ExecutionCancelled",
        ]
        assert seen == []


async def test_a_deadline_stands_among_the_timers_by_its_time(lab: Lab) -> None:
    @workflow(name="two_naps")
    async def two_naps() -> None:
        async def nap(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            said.append(name)

        said: list[str] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(nap("before", 1_000))
                group.create_task(nap("after", 9_000))
        finally:
            await note(list(said))

    async with lab.engine(two_naps) as engine:
        handle = await engine.start(two_naps, id="x", deadline=5_000)
        await status(handle, "parked")
    async with lab.engine(two_naps, environment=ShiftedClock(20_000_000)) as engine:
        with pytest.raises(perdure.ExecutionCancelled):
            await engine.handle("x").result(timeout=30)
        assert seen == [["before"]]
        names = kinds(await engine.handle("x").journal())
        assert names[2:4] == ["TimerFired", "DeadlinePassed"]


async def test_a_message_that_is_stored_comes_before_a_deadline_that_has_passed(lab: Lab) -> None:
    async with lab.engine(listens) as engine:
        await status(await engine.start(listens, id="x", deadline=timedelta(hours=1)), "parked")
    async with lab.client() as client:
        await client.handle("x").signal("go", "in time")
    async with lab.engine(listens, environment=ShiftedClock(2 * HOUR_MS)) as engine:
        assert await engine.handle("x").result(timeout=30) == "in time"


async def test_a_deadline_waits_for_the_end_of_a_pause(lab: Lab) -> None:
    async with lab.engine(cleans) as engine:
        handle = await engine.start(cleans, id="x", deadline=timedelta(hours=1))
        await handle.pause()
        await status(handle, "paused")
    async with lab.engine(cleans, environment=ShiftedClock(2 * HOUR_MS)) as engine:
        handle = engine.handle("x", cleans)
        assert (await handle.describe()).status == "paused"
        await handle.resume()
        with pytest.raises(perdure.ExecutionCancelled):
            await handle.result(timeout=30)


async def test_the_deadline_of_what_waits_to_begin_counts_from_its_beginning(lab: Lab) -> None:
    async with lab.client() as client:
        row = await (await client.start(echo, "a", delay=3_600, deadline=60)).describe()
        assert row.deadline - row.start_at == timedelta(seconds=60)


# --- while one is open ---


async def test_a_start_may_insist_on_being_the_only_one(lab: Lab) -> None:
    async with lab.engine(listens) as engine, lab.client() as client:
        first = await (await engine.start(listens, "a", id="x", on_conflict="fail")).describe()
        for where in (engine, client):
            with pytest.raises(perdure.ExecutionExists, match=r"it is (active|parked), and this start asks for a new"):
                await where.start(listens, "a", id="x", on_conflict="fail")
        assert (await (await client.start(listens, "a", id="x")).describe()).run == first.run


async def test_of_starts_in_two_processes_that_insist_one_wins(lab: Lab) -> None:
    """Beside a running engine, through its socket; and without one, through the file."""
    async with lab.engine(listens) as engine:
        assert sorted(await asyncio.to_thread(race, lab.path, "beside")) == ["exists"] * 3 + ["started"]
        assert [row.key.execution for row in await engine.list()] == ["beside"]
    assert sorted(await asyncio.to_thread(race, lab.path, "alone")) == ["exists"] * 3 + ["started"]


def race(path: Path, name: str) -> list[str]:
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        return [answer for answers in pool.starmap(insist, [(path, name, n) for n in range(2)]) for answer in answers]


def insist(path: Path, name: str, number: int) -> list[str]:
    async def main() -> list[str]:
        async with perdure.Client(path) as client:
            return [await begin(client, f"{number}/{n}") for n in range(2)]

    async def begin(client: perdure.Client, value: str) -> str:
        try:
            await client.start(listens, value, id=name, on_conflict="fail")
        except perdure.ExecutionExists:
            return "exists"
        return "started"

    return asyncio.run(main())


async def test_a_start_may_end_the_one_there_is_and_begin_in_its_place(lab: Lab) -> None:
    async with lab.engine(listens, echo) as engine:
        first = await engine.start(listens, "a", id="x")
        waiting = asyncio.create_task(first.result())
        await status(first, "parked")
        before = (await first.describe()).run
        second = await engine.start(echo, "b", id="x", on_conflict="terminate")
        assert await second.result(timeout=30) == "b"
        assert await asyncio.wait_for(waiting, 30) == "b", "an execution is known by its id"
        old = await first.journal(run=before)
        assert of_kind(old, ev.ExecutionTerminated)[0].reason == "another one was started in its place"
        assert [run.status for run in await first.runs()] == ["completed", "terminated"]


async def test_the_replacement_is_durable_without_a_worker(lab: Lab) -> None:
    async with lab.engine(listens) as engine:
        await status(await engine.start(listens, "a", id="x"), "parked")
    async with lab.client() as client:
        for _ in range(2):
            await client.start(echo, "b", id="x", on_conflict="terminate")
    async with lab.engine(listens, echo) as engine:
        assert await engine.handle("x", echo).result(timeout=30) == "b"
        assert len(await engine.handle("x").runs()) <= 3
    assert seen[-1] == "b"


@pytest.mark.parametrize("how", ["paused", "stalled", "delayed"])
async def test_whatever_state_it_is_in_it_makes_room(lab: Lab, how: str) -> None:
    @workflow(name="stuck")
    async def stuck() -> None:
        await asyncio.Event().wait()

    async with lab.engine(listens, echo, stuck) as engine:
        if how == "stalled":
            handle: Any = await engine.start(stuck, id="x")
            await status(handle, "stalled")
        elif how == "paused":
            handle = await engine.start(listens, "a", id="x")
            await handle.pause()
            await status(handle, "paused")
        else:
            handle = await engine.start(listens, "a", id="x", delay=3_600)
        second = await engine.start(echo, "b", id="x", on_conflict="terminate")
        assert await second.result(timeout=30) == "b"


async def test_what_is_written_while_its_row_is_read_is_not_missed(lab: Lab) -> None:
    """The row says that it waits; what makes it active is stored, and told, before that has been looked at."""
    async with lab.engine(listens, echo) as engine:
        await engine.start(listens, "a", id="x", delay=3_600)
        assert engine._worker is not None
        worker, (key, read) = engine._worker, (engine.handle("x").key, engine.store.row)
        asked, go_on = threading.Event(), threading.Event()

        def slow(wanted: Any) -> Any:
            found = read(wanted)
            if wanted == key and not asked.is_set():
                asked.set()
                go_on.wait(10)
            return found

        engine.store.row = slow  # type: ignore[method-assign]
        worker.arrivals.woken([key])
        await asyncio.to_thread(asked.wait, 10)
        async with lab.client() as client:
            await client.start(echo, "b", id="x", on_conflict="terminate")
        go_on.set()
        assert await engine.handle("x").result(timeout=30) == "b"


async def test_a_start_that_comes_just_when_the_one_in_its_place_ends_is_not_lost(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored while the last commit of that one is under way, which would empty the inbox."""
    about_to_end, stored, commit = threading.Event(), threading.Event(), SqliteStore.commit

    def slowly(store: Any, session: Any, batches: Any, advice: Any = ()) -> Any:
        if any(batch.closes for batch in batches) and not about_to_end.is_set():
            about_to_end.set()
            stored.wait(10)
        return commit(store, session, batches, advice)

    monkeypatch.setattr(SqliteStore, "commit", slowly)
    monkeypatch.setattr("perdure.runtime.client.local_owner", lambda _: None)  # it writes the file itself
    async with lab.engine(listens, echo) as engine, lab.client() as client:
        monkeypatch.setattr(engine._committer, "_alone", lambda: False)
        handle = await engine.start(listens, "a", id="x")
        await handle.signal("go", "on")
        await asyncio.to_thread(about_to_end.wait, 10)
        await client.start(echo, "b", id="x", on_conflict="terminate")
        stored.set()
        await until(lambda: seen == ["b"])
        assert await engine.handle("x").result(timeout=30) == "b"


async def test_a_start_behind_more_letters_than_one_reading_takes_is_not_lost_with_them(lab: Lab) -> None:
    async with lab.client() as client:
        handle = await client.start(listens, "a", id="x")
        value = encode_untyped("on", "a signal")
        signals = [ev.SignalReceived(f"m{n}", "go", value) for n in range(1_100)]
        client.store.deposit([], [Mail(handle.key, each.message_id, each) for each in signals])
        await client.start(echo, "b", id="x", on_conflict="terminate")
    async with lab.engine(listens, echo) as engine:
        await until(lambda: seen == ["b"])
        assert await engine.handle("x").result(timeout=30) == "b"
        assert [run.status for run in await engine.handle("x").runs()] == ["completed", "terminated"]


async def test_what_is_rewound_while_its_row_is_read_is_not_missed(lab: Lab) -> None:
    """The row is of the run that has ended: of the one that began meanwhile nobody hears again."""
    async with lab.engine(echo) as engine:
        handle = await engine.start(echo, "a", id="x")
        assert await handle.result() == "a"
        key, read, asked, go_on = handle.key, engine.store.row, threading.Event(), threading.Event()

        def slow(wanted: Any) -> Any:
            found = read(wanted)
            if not asked.is_set():
                asked.set()
                go_on.wait(10)
            return found

        engine.store.row = slow  # type: ignore[method-assign]
        engine._running().arrivals.woken([key])
        await asyncio.to_thread(asked.wait, 10)
        await handle.rewind(at=2)
        go_on.set()
        assert await handle.result(timeout=20) == "a"
        assert seen == ["a", "a"]


async def test_a_start_that_is_being_written_while_the_one_with_its_id_is_rewound_returns(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, rewound, commit = threading.Event(), threading.Event(), SqliteStore.commit

    def slowly(store: Any, session: Any, batches: Any, advice: Any = ()) -> Any:
        if any(batch.create is not None for batch in batches) and seen:
            writing.set()
            rewound.wait(10)
        return commit(store, session, batches, advice)

    monkeypatch.setattr(SqliteStore, "commit", slowly)
    async with lab.engine(echo) as engine:
        monkeypatch.setattr(engine._committer, "_alone", lambda: False)
        handle = await engine.start(echo, "a", id="x")
        assert await handle.result() == "a"
        again = asyncio.create_task(engine.start(echo, "a", id="x"))
        await asyncio.to_thread(writing.wait, 10)
        await handle.rewind(at=2)
        rewound.set()
        async with asyncio.timeout(10):
            assert await (await again).result() == "a"
        assert seen == ["a", "a"]


async def test_children_of_what_is_replaced_follow_their_policies(lab: Lab) -> None:
    @workflow(name="parent")
    async def parent() -> None:
        await perdure.start_child(cleans, id="kid", on_parent_close="cancel")
        await perdure.receive("never")

    async with lab.engine(parent, cleans, echo) as engine:
        await engine.start(parent, id="x")
        await until(lambda: _exists(engine, "kid"))
        await engine.start(echo, "b", id="x", on_conflict="terminate")
        assert (await status(engine.handle("kid"), "cancelled")).waits_for == ""
        assert "cleaned" in seen


async def _exists(engine: perdure.Engine, name: str) -> bool:
    return name in [row.key.execution for row in await engine.list()]


# --- after one has closed ---


async def test_an_id_is_used_again_where_that_is_asked_for(lab: Lab) -> None:
    async with lab.engine(echo) as engine, lab.client() as client:
        assert await (await engine.start(echo, "a", id="x")).result() == "a"
        with pytest.raises(perdure.ExecutionExists):
            await engine.start(echo, "b", id="x")
        with pytest.raises(perdure.ExecutionExists):
            await engine.start(echo, "b", id="x", reuse="if_failed")
        assert await (await engine.start(echo, "a", id="x", reuse="if_failed")).result() == "a"
        assert seen == ["a"]
        assert await (await engine.start(echo, "b", id="x", reuse="always")).result() == "b"
        assert await (await client.start(echo, "b", id="x", reuse="always")).result() == "b"
        runs = await engine.handle("x").runs()
        assert [run.status for run in runs] == ["completed"] * 3
        assert len({run.run for run in runs}) == 3
    assert seen == ["a", "b", "b"]


async def test_what_failed_is_tried_again_under_its_id_with_new_keys(lab: Lab) -> None:
    @step(retry=None)
    async def charge() -> None:
        seen.append(perdure.current_step().idempotency_key)
        if len(seen) < 3:
            raise ConnectionError("no answer")

    @workflow(name="pays")
    async def pays() -> str:
        await charge()
        return "paid"

    async with lab.engine(pays) as engine:
        for _ in range(2):
            with pytest.raises(perdure.ExecutionFailed):
                await (await engine.start(pays, id="x", reuse="if_failed")).result()
        assert await (await engine.start(pays, id="x", reuse="if_failed")).result() == "paid"
        assert await (await engine.start(pays, id="x", reuse="if_failed")).result() == "paid"
    assert len(seen) == len(set(seen)) == 3


async def test_a_new_run_survives_a_crash_and_the_old_one_stays_readable(lab: Lab) -> None:
    async with lab.engine(echo) as engine:
        await (await engine.start(echo, "a", id="x")).result()
        old = (await engine.handle("x").describe()).run
    async with lab.doomed(echo, listens) as engine:
        await engine.start(listens, id="x", reuse="always")
        await status(engine.handle("x"), "parked")
    async with lab.engine(echo, listens) as engine:
        handle = engine.handle("x")
        await handle.signal("go", 5)
        assert await handle.result(timeout=30) == 5
        assert kinds(await handle.journal(run=old))[-1] == "ExecutionCompleted"


# --- memo and attributes ---

DUE = datetime(2026, 7, 1, 12, 30, 0, 123_456, tzinfo=UTC)
FOUND_BY: dict[str, Any] = {
    "customer": "acme",
    "cents": 1_250,
    "share": 0.5,
    "paid": False,
    "due": DUE,
    "tags": ["urgent", "eu"],
}


async def test_memo_and_attributes_are_shown_from_outside_and_inside(lab: Lab) -> None:
    @workflow(name="looks")
    async def looks() -> list[Any]:
        info = perdure.info()
        await perdure.receive("go")
        return [info.memo, sorted(info.attributes), info.attributes["tags"], info.deadline is not None, info.parent]

    async with lab.engine(looks) as engine:
        handle = await engine.start(looks, memo={"why": {"a": [1, None]}}, attributes=FOUND_BY, deadline=60)
        row = await status(handle, "parked")
        assert row.memo == {"why": {"a": [1, None]}}
        assert row.attributes == FOUND_BY
        assert {name: type(value) for name, value in row.attributes.items()} == {
            name: type(value) for name, value in FOUND_BY.items()
        }
        await handle.signal("go")
        assert await handle.result() == [{"why": {"a": [1, None]}}, sorted(FOUND_BY), ["urgent", "eu"], True, None]
        assert (await handle.describe()).attributes == FOUND_BY


async def test_a_workflow_changes_what_it_is_found_by(lab: Lab) -> None:
    @workflow(name="moves")
    async def moves() -> list[Any]:
        perdure.set_attributes(stage="begun", cents=1)
        first = dict(perdure.info().attributes)
        await perdure.receive("go")
        for cents in range(100):
            perdure.set_attributes(cents=cents)
        perdure.set_attributes(stage=None, due=DUE)
        await perdure.receive("go")
        perdure.set_attributes(stage="done")
        return [first, perdure.info().attributes]

    async with lab.doomed(moves) as engine:
        handle = await engine.start(moves, id="x", attributes={"customer": "acme"})
        assert (await status(handle, "parked")).attributes == {"customer": "acme", "stage": "begun", "cents": 1}
        await handle.signal("go")
        await until(lambda: _journaled(handle, ev.AttributesSet, 2))
    async with lab.engine(moves) as engine:
        handle = engine.handle("x", moves)
        assert (await status(handle, "parked")).attributes == {"customer": "acme", "cents": 99, "due": DUE}
        await handle.signal("go")
        first, last = await handle.result(timeout=30)
        assert first == {"customer": "acme", "stage": "begun", "cents": 1}
        assert last == (await handle.describe()).attributes | {"due": last["due"]}
        assert (await handle.describe()).attributes["stage"] == "done"
        changes = of_kind(await handle.journal(), ev.AttributesSet)
        assert len(changes) == 3, "what was set between two events is written once"
        assert changes[1].removed == ("stage",)


async def _journaled(handle: perdure.Handle[Any], kind: type, number: int) -> bool:
    return len(of_kind(await handle.journal(), kind)) == number


async def test_setting_what_is_set_already_writes_nothing(lab: Lab) -> None:
    @workflow(name="repeats")
    async def repeats() -> None:
        for _ in range(3):
            perdure.set_attributes(stage="same")
            await note("x")

    async with lab.engine(repeats) as engine:
        handle = await engine.start(repeats, attributes={"stage": "same"})
        await handle.result()
        assert of_kind(await handle.journal(), ev.AttributesSet) == []


async def test_code_that_sets_other_attributes_now_is_no_disagreement(lab: Lab) -> None:
    def made(stage: str | None) -> perdure.Workflow[[], None]:
        @workflow(name="changes")
        async def changes() -> None:
            if stage is not None:
                perdure.set_attributes(stage=stage)
            await perdure.receive("go")
            await perdure.receive("go")

        return changes

    old = made("old")
    async with lab.engine(old) as engine:
        handle = await engine.start(old, id="x")
        assert (await status(handle, "parked")).attributes == {"stage": "old"}
    async with lab.engine(made("new")) as engine:
        handle = engine.handle("x")
        await handle.signal("go")
        await until(lambda: _attributes(handle, {"stage": "new"}))
    async with lab.engine(made(None)) as engine:
        handle = engine.handle("x")
        await handle.signal("go")
        await handle.result(timeout=30)


async def _attributes(handle: perdure.Handle[Any], wanted: dict[str, Any]) -> bool:
    return (await handle.describe()).attributes == wanted


async def test_attributes_go_with_a_run_that_continues_as_new(lab: Lab) -> None:
    @workflow(name="goes_on")
    async def goes_on(n: int) -> dict[str, Any]:
        if n:
            perdure.set_attributes(n=n)
            await perdure.continue_as_new(n - 1)
        return {**perdure.info().attributes, **perdure.info().memo}

    async with lab.engine(goes_on) as engine:
        handle = await engine.start(goes_on, 2, attributes={"customer": "acme"}, memo={"why": 1})
        assert await handle.result(timeout=30) == {"customer": "acme", "n": 1, "why": 1}
        assert (await handle.describe()).attributes == {"customer": "acme", "n": 1}


# --- what cannot be ---


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on_conflict": "wait"}, r"Option on_conflict='wait' is not valid. Expected 'use', 'fail' or 'terminate'"),
        ({"reuse": "sometimes"}, r"Option reuse='sometimes' is not valid. Expected 'never', 'if_failed' or 'always'"),
        ({"delay": -1}, "Option delay=-1 is not valid"),
        ({"delay": 1, "start_at": DUE}, "either start_at or delay"),
        ({"start_at": datetime(2026, 1, 1)}, "a datetime with time zone"),  # noqa: DTZ001 - that is the mistake
        ({"start_at": 5}, "a datetime with time zone"),
        ({"deadline": "soon"}, "Option deadline='soon' is not valid"),
        ({"grace": 5}, "a deadline beside it"),
        ({"memo": {"Why": 1}}, "Option memo='Why' is not valid. Expected names of a-z"),
        ({"memo": {"why": "x" * 20_000}}, r"Option memo=\(20,\d+ bytes\) is not valid. Expected at most 16,384 bytes"),
        ({"attributes": {"cent s": 1}}, "Expected names of a-z, 0-9 and _"),
        ({"attributes": {"1st": 1}}, "not beginning with a digit"),
        ({"attributes": {"x" * 65: 1}}, "up to 64 long"),
        ({"attributes": {5: 1}}, "Option attributes=5 is not valid"),
        ({"attributes": [1]}, "a mapping of names to values"),
        ({"attributes": {"n": 2**63}}, r"Option attributes\['n'\]=9223372036854775808 is not valid"),
        ({"attributes": {"n": float("nan")}}, "a finite number"),
        ({"attributes": {"n": None}}, "text of at most 1,000 bytes"),
        ({"attributes": {"n": "x" * 1_001}}, "text of at most 1,000 bytes"),
        ({"attributes": {"n": "\ud800"}}, "text of at most 1,000 bytes"),
        ({"attributes": {"n": datetime(2026, 1, 1)}}, "a datetime with time zone"),  # noqa: DTZ001 - that is the mistake
        ({"attributes": {"n": []}}, "a list of 1 to 100 different texts"),
        ({"attributes": {"n": ["a", "a"]}}, "a list of 1 to 100 different texts"),
        ({"attributes": {"n": ["a", 1]}}, "a list of 1 to 100 different texts"),
        ({"attributes": {f"n{i}": i for i in range(51)}}, r"\(51 of them\) is not valid. Expected at most 50"),
    ],
)
async def test_an_option_that_means_nothing_is_refused_and_nothing_is_started(
    lab: Lab, options: dict[Any, Any], said: str
) -> None:
    async with lab.client() as client:
        with pytest.raises(perdure.PerdureError, match=said):
            await client.start(echo, "a", id="x", **options)
        assert await client.list() == []


async def test_an_option_with_the_name_of_an_argument_is_refused_and_a_position_is_no_option(lab: Lab) -> None:
    @workflow(name="plans")
    async def plans(deadline: str, memo: str = "") -> str:
        return f"{deadline} {memo}"

    async with lab.engine(plans) as engine:
        with pytest.raises(perdure.PerdureError, match="arguments of 'plans' with the name of an option"):
            await engine.start(plans, deadline=5)
        handle = await engine.start(plans, "friday", "why")
        assert await handle.result() == "friday why"


async def test_a_workflow_that_sets_what_cannot_be_fails_and_says_so(lab: Lab) -> None:
    @workflow(name="errs")
    async def errs(attributes: dict[str, Any]) -> None:
        perdure.set_attributes(**attributes)

    async with lab.engine(errs) as engine:
        for attributes in ({"Stage": 1}, {"n": {}}, {f"n{i}": i for i in range(51)}):
            with pytest.raises(perdure.ExecutionFailed, match="is not valid"):
                await (await engine.start(errs, attributes)).result()


def test_attributes_are_of_workflows() -> None:
    with pytest.raises(perdure.PerdureError, match=r"perdure\.set_attributes was called outside a workflow"):
        perdure.set_attributes(stage="x")
