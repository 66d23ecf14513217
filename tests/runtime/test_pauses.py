"""Pausing and resuming over a real store: nothing begins in a pause, nothing that comes meanwhile is lost."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from tests.runtime.conftest import Lab, ShiftedClock, kinds, status, until
from tests.runtime.noting import note, seen

import perdure
from perdure import step, workflow
from perdure.core import events as ev
from perdure.core.events import Recorded
from perdure.runtime import asking
from perdure.store.sqlite import SqliteStore

gates: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def fresh() -> None:
    gates.clear()


def gate(name: str) -> asyncio.Event:
    return gates.setdefault(name, asyncio.Event())


@step
async def hold(name: str) -> str:
    seen.append(f"{name} begins")
    await gate(name).wait()
    return name


@step(concurrency=1)
async def narrow(name: str) -> str:
    seen.append(f"{name} begins")
    await gate(name).wait()
    return name


@workflow
async def steps() -> list[str]:
    return [await hold("a"), await note("b"), await note("c")]


@workflow
async def naps() -> list[str]:
    async def nap(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        said.append(name)
        await note(name)

    said: list[str] = []
    await asyncio.gather(nap("late", 3_000), nap("early", 1_000), nap("middle", 2_000))
    return said


@workflow
async def listens(n: int) -> list[Any]:
    return [await perdure.receive("go") for _ in range(n)]


def between(journal: list[Recorded], first: str, last: str) -> list[str]:
    names = kinds(journal)
    return names[names.index(first) + 1 : names.index(last)]


async def test_in_a_pause_running_steps_end_and_nothing_else_begins(lab: Lab) -> None:
    async with lab.engine(steps) as engine:
        handle = await engine.start(steps, id="x")
        await until(lambda: seen)
        await handle.pause("too dear")
        await until(lambda: _has(handle, "PauseRequested"))
        gate("a").set()
        row = await status(handle, "paused")
        assert row.waits_for == "resume (too dear)"
        assert row.wake_at_ms is None
        assert seen == ["a begins"]
        assert kinds(await handle.journal())[-2:] == ["PauseRequested", "StepCompleted"]
        await handle.resume()
        assert await handle.result(timeout=30) == ["a", "b", "c"]
        assert between(await handle.journal(), "PauseRequested", "ResumeRequested") == ["StepCompleted"]


async def _has(handle: perdure.Handle[Any], kind: str) -> bool:
    return kind in kinds(await handle.journal())


async def test_timers_that_come_due_in_a_pause_fire_at_its_end_in_order(lab: Lab) -> None:
    async with lab.engine(naps) as engine:
        handle = await engine.start(naps, id="x")
        await status(handle, "parked")
        await handle.pause()
        await status(handle, "paused")
    async with lab.engine(naps, environment=ShiftedClock(10_000_000)) as engine:
        handle = engine.handle("x", naps)
        await until(lambda: _nothing_to_do(engine))
        assert (await handle.describe()).status == "paused"
        assert seen == []
        await handle.resume()
        assert await handle.result(timeout=30) == ["early", "middle", "late"]


async def _nothing_to_do(engine: perdure.Engine) -> bool:
    assert engine._worker is not None
    return engine._worker.idle()


async def test_messages_of_a_pause_are_kept_and_read_afterwards_in_order(lab: Lab) -> None:
    async with lab.engine(listens) as engine:
        handle = await engine.start(listens, 1_203, id="x")
        await handle.signal("go", "before")
        await until(lambda: _has(handle, "SignalReceived"))
        await handle.pause()
        await status(handle, "paused")
        await asyncio.gather(*[handle.signal("go", i) for i in range(1_200)])  # more than one read of the inbox takes
        await handle.resume()
        await handle.signal("go", "after")
        await handle.signal("go", "after all")
        found = await handle.result(timeout=40)
        assert (found[0], found[-2:]) == ("before", ["after", "after all"])
        assert sorted(found[1:-2]) == list(range(1_200))


async def test_a_pause_survives_the_death_of_the_worker_and_steps_that_died_wait_for_its_end(lab: Lab) -> None:
    async with lab.doomed(steps) as engine:
        handle = await engine.start(steps, id="x")
        await until(lambda: seen)
        await handle.pause()
        await until(lambda: _has(handle, "PauseRequested"))
    gates.clear()
    async with lab.engine(steps) as engine:
        handle = engine.handle("x", steps)
        await status(handle, "paused")
        await until(lambda: _nothing_to_do(engine))
        assert seen == ["a begins"]
        gate("a").set()
        await handle.resume()
        assert await handle.result(timeout=30) == ["a", "b", "c"]
    assert seen == ["a begins", "a begins", "b", "c"]


async def test_steps_that_wait_for_their_place_do_not_begin_in_a_pause_and_begin_once_after_it(lab: Lab) -> None:
    @workflow(name="crowd")
    async def crowd() -> list[str]:
        return list(await asyncio.gather(*[narrow(name) for name in "abc"]))

    async with lab.engine(crowd) as engine:
        handle = await engine.start(crowd)
        await until(lambda: seen)
        await handle.pause()
        await until(lambda: _has(handle, "PauseRequested"))
        gate("a").set()
        await status(handle, "paused")
        assert seen == ["a begins"]
        await handle.resume()
        await until(lambda: len(seen) == 2)
        gate("b").set()
        gate("c").set()
        assert await handle.result(timeout=30) == ["a", "b", "c"]
    assert seen == ["a begins", "b begins", "c begins"]


async def ask_later(_key: str, name: str) -> perdure.Happened | perdure.StillUnknown:
    return perdure.Happened(name) if gate("told").is_set() else perdure.StillUnknown()


@step(once=True, concurrency=1, reconcile=ask_later)
async def pay(name: str) -> str:
    seen.append(name)
    await gate(name).wait()
    if name == "b":
        raise OSError("who knows")
    return name


async def test_a_step_that_lost_its_place_in_a_pause_does_not_come_back_to_it_when_nobody_knows_what_it_did(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While `reconcile` is asked, its old place among those that wait would have it run a second time."""
    monkeypatch.setattr(asking, "PAUSES", perdure.Retry(attempts=1_000, delay=0.01, factor=1, jitter=0))

    @workflow(name="pays")
    async def pays(name: str) -> str:
        return await pay(name)

    async def begun(name: str) -> perdure.Handle[Any]:
        handle = await engine.start(pays, name, id=name)
        await until(lambda: _has(handle, "StepIntended"))
        return handle

    async with lab.engine(pays) as engine:
        await begun("a")
        paused = await begun("b")
        await paused.pause()
        await until(lambda: _has(paused, "StepAttemptFailed"))
        other = await begun("c")
        await paused.resume()
        await until(lambda: _intended(paused, 2))
        for name in "abc":
            gate(name).set()
        assert await other.result(timeout=30) == "c"
        await until(lambda: len(seen) >= 3)
        gate("told").set()
        assert await paused.result(timeout=30) == "b"
    assert sorted(seen) == ["a", "b", "c"]


async def test_whoever_was_about_to_be_asked_when_a_pause_began_is_asked_after_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PAUSES", perdure.Retry(attempts=100, delay=0.05, factor=1, jitter=0))
    written, commit = threading.Event(), SqliteStore.commit

    def slowly(store: Any, session: Any, batches: Any, advice: Any = ()) -> Any:
        if any(isinstance(new.event, ev.PauseRequested) for batch in batches for new in batch.events):
            written.wait(10)
        return commit(store, session, batches, advice)

    @workflow(name="pays")
    async def pays() -> str:
        return await pay("b")

    gate("b").set()
    monkeypatch.setattr(SqliteStore, "commit", slowly)
    async with lab.engine(pays) as engine:
        monkeypatch.setattr(engine._committer, "_alone", lambda: False)  # else nothing else happens while it is written
        handle = await engine.start(pays)
        await until(lambda: _has(handle, "StepIntended"))
        await handle.pause()
        driver = engine._running().drivers[handle.key]
        await until(lambda: driver.committing and driver._again)
        written.set()
        await status(handle, "active", "paused")
        await until(lambda: _has(handle, "PauseRequested"))
        gate("told").set()
        await handle.resume()
        assert await handle.result(timeout=30) == "b"


async def _intended(handle: perdure.Handle[Any], times: int) -> bool:
    return kinds(await handle.journal()).count("StepIntended") == times


async def test_an_attempt_that_fails_in_a_pause_is_tried_again_after_it(lab: Lab) -> None:
    @step(retry=perdure.Retry(attempts=2, delay=0.001))
    async def flaky() -> str:
        seen.append("try")
        await gate("flaky").wait()
        if len(seen) == 1:
            raise ConnectionError("not now")
        return "well"

    @workflow(name="tries")
    async def tries() -> str:
        return await flaky()

    async with lab.engine(tries) as engine:
        handle = await engine.start(tries)
        await until(lambda: seen)
        await handle.pause()
        await until(lambda: _has(handle, "PauseRequested"))
        gate("flaky").set()
        await status(handle, "paused")
        assert kinds(await handle.journal())[-1] == "StepAttemptFailed"
        assert seen == ["try"]
        await handle.resume()
        assert await handle.result(timeout=30) == "well"


async def test_what_is_paused_can_be_terminated_and_a_request_to_cancel_waits(lab: Lab) -> None:
    async with lab.engine(naps) as engine:
        gone, asked = await engine.start(naps, id="gone"), await engine.start(naps, id="asked")
        for handle in (gone, asked):
            await handle.pause()
            await status(handle, "paused")
        await gone.terminate("enough")
        with pytest.raises(perdure.ExecutionTerminated, match="enough"):
            await gone.result(timeout=30)
        await asked.cancel("not needed")
        assert (await asked.describe()).status == "paused"
        await asked.resume()
        with pytest.raises(perdure.ExecutionCancelled, match="not needed"):
            await asked.result(timeout=30)


async def test_pausing_twice_is_one_pause_and_resuming_what_is_not_paused_changes_nothing(lab: Lab) -> None:
    async with lab.engine(listens) as engine:
        handle = await engine.start(listens, 1)
        await status(handle, "parked")
        await handle.resume()
        await handle.pause()
        await handle.pause()
        await status(handle, "paused")
        await handle.pause()
        await handle.resume()
        await handle.resume()
        await handle.signal("go", 1)
        assert await handle.result(timeout=30) == [1]
        assert [name for name in kinds(await handle.journal()) if "Requested" in name] == [
            "PauseRequested",
            "ResumeRequested",
        ]


async def test_what_an_old_reading_of_the_inbox_still_shows_is_not_taken_again(lab: Lab) -> None:
    """A pause that had no effect leaves no trace in the journal: only the worker knows that it is over."""
    async with lab.engine(listens) as engine:
        handle = await engine.start(listens, 1)
        await status(handle, "parked")
        await handle.pause()
        await status(handle, "paused")
        worker = engine._running()
        driver, run = worker.drivers[handle.key], worker.background.run
        late: list[Any] = []

        def reads(call: Any, done: Any) -> None:
            found = call()
            if not isinstance(found, list):
                run(lambda: found, done)
            elif len(found) < 2:
                asyncio.get_running_loop().call_later(0.005, reads, call, done)
            elif not late:  # both requests: they are taken now, but another reading has begun before that
                late.append(())
                done(found)
                worker.fetch_letters(driver)
            else:
                late.append((done, found))

        worker.background.run = reads  # type: ignore[method-assign]
        await handle.pause()
        await handle.resume()  # the other way round it would be paused in the end
        await until(lambda: len(late) == 2)
        worker.background.run = run  # type: ignore[method-assign]
        await status(handle, "active", "parked")
        done, found = late[1]
        done(found)
        await handle.signal("go", 1)
        assert await handle.result(timeout=30) == [1]


async def test_requests_that_waited_for_a_worker_are_heard_in_the_order_in_which_they_came(lab: Lab) -> None:
    async with lab.client() as client:
        handle = await client.start(listens, 1, id="x")
        for _ in range(3):
            await handle.pause()
            await handle.resume()
        await handle.signal("go", "on")
        await handle.pause("for good")
    async with lab.engine(listens) as engine:
        handle = engine.handle("x", listens)
        await status(handle, "paused", "completed")
        names = kinds(await handle.journal())
        assert names[2:8] == ["PauseRequested", "ResumeRequested"] * 3
        assert names[8:] in (["SignalReceived", "PauseRequested"], ["SignalReceived", "ExecutionCompleted"])


async def test_a_client_pauses_and_resumes_beside_a_running_engine(lab: Lab) -> None:
    async with lab.engine(listens) as engine, lab.client() as client:
        await engine.start(listens, 1, id="x")
        handle = client.handle("x", listens)
        await handle.pause("from outside")
        row = await status(handle, "paused")
        assert row.waits_for == "resume (from outside)"
        await handle.resume()
        await handle.signal("go", 5)
        assert await handle.result(timeout=timedelta(seconds=5)) == [5]
        for call in (handle.pause, handle.resume):
            with pytest.raises(perdure.ExecutionClosed):
                await call()
        with pytest.raises(perdure.ExecutionNotFound):
            await client.handle("nobody").pause()


async def test_a_child_that_is_paused_keeps_its_parent_waiting(lab: Lab) -> None:
    @workflow(name="parent")
    async def parent() -> Any:
        child = await perdure.start_child(listens, 1, id="child")
        return await child.result()

    async with lab.engine(parent, listens) as engine:
        handle = await engine.start(parent, id="parent")
        child = await until(lambda: _found(engine, "child"))
        await child.pause()
        await status(child, "paused")
        await child.signal("go", 1)
        await handle.pause()
        await status(handle, "paused")
        await child.resume()
        await status(child, "completed")
        assert (await handle.describe()).status == "paused"
        await handle.resume()
        assert await handle.result(timeout=30) == [1]


async def _found(engine: perdure.Engine, name: str) -> perdure.Handle[Any] | None:
    rows = [row for row in await engine.list() if row.key.execution == name]
    return engine.handle(name) if rows else None


async def test_pausing_what_is_stalled_leaves_it_stalled_and_one_resume_ends_both(lab: Lab) -> None:
    @workflow(name="reads")
    async def reads() -> int:
        await note("begun")
        number = await perdure.receive("n", int)
        open("nowhere")  # noqa: ASYNC230, PTH123, SIM115 - refused: it stalls
        return number

    async with lab.engine(reads) as engine:
        handle = await engine.start(reads, id="x")
        await status(handle, "parked")
        await handle.signal("n", 1)
        await status(handle, "stalled")
        await handle.pause()
        assert (await handle.describe()).status == "stalled"
        await handle.resume()
        await status(handle, "stalled")
        await handle.terminate()
        with pytest.raises(perdure.ExecutionTerminated):
            await handle.result(timeout=30)
