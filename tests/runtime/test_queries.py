"""Queries over a real store: of executions in memory, evicted, closed, stalled, without code, and from elsewhere."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from tests.runtime.conftest import Lab, kinds, status, until

import perdure
from perdure import step, workflow
from perdure.core.errors import (
    DecodeError,
    ExecutionNotFound,
    ExecutionStalled,
    InvalidId,
    InvalidOption,
    NobodyAnswers,
    NondeterminismError,
    QueryFailed,
    ReadOnlyHandler,
    UnknownHandler,
    UnknownWorkflow,
    WaitTimeout,
    WrongArguments,
)
from perdure.runtime import queries

ran: list[Any] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    ran.clear()


@dataclass
class Report:
    done: int
    of: int = 10


@step
async def work(n: int) -> int:
    ran.append(n)
    return n


boxes: list[asyncio.Event] = []


@step
async def wait_for_box() -> None:
    ran.append("begun")
    await boxes[0].wait()


@workflow
async def job(steps: int) -> int:
    done = 0
    event = asyncio.Event()

    @perdure.on_query
    def progress(unit: int = 1) -> Report:
        return Report(done * unit)

    @perdure.on_query
    def fails() -> None:
        raise ValueError("this query fails")

    @perdure.on_query
    def careless() -> None:
        event.set()

    waiting = asyncio.create_task(event.wait())
    for i in range(steps):
        await work(i)
        done += 1
    if steps == 0:
        await wait_for_box()
    last = await perdure.receive("end")
    waiting.cancel()
    return done + last


def written(handle: perdure.Handle[Any]) -> Any:
    """All that a query must not touch."""
    store = handle._port.store
    return store.row(handle.key), store.load(handle.key, store.row(handle.key).run, 0, 1_000)  # type: ignore[union-attr]


async def parked(handle: perdure.Handle[Any]) -> None:
    await status(handle, "parked")


# --- where the execution is ---


async def test_an_execution_in_memory_answers_while_its_step_runs(lab: Lab) -> None:
    boxes.append(asyncio.Event())
    async with lab.engine(job) as engine:
        handle = await engine.start(job, 0, id="one")
        await until(lambda: ran == ["begun"])
        assert await handle.query("progress", returns=Report) == Report(0)
        assert await handle.query("progress") == {"done": 0, "of": 10}
        boxes.pop().set()
        await handle.signal("end", 5)
        assert await handle.result() == 5
    assert ran == ["begun"]


async def test_an_evicted_execution_is_replayed_to_be_read_and_stays_as_it_is(lab: Lab) -> None:
    async with lab.engine(job, cache=0) as engine:
        handle = await engine.start(job, 3, id="one")
        await parked(handle)
        await until(lambda: not engine._worker.drivers)  # type: ignore[union-attr]
        before = written(handle)
        for unit in (1, 2, 3):
            assert await handle.query("progress", unit, returns=Report) == Report(3 * unit)
        assert written(handle) == before
        assert not engine._worker.drivers  # type: ignore[union-attr]
        await handle.signal("end", 1)
        assert await handle.result() == 4
    assert ran == [0, 1, 2]


async def test_what_was_replayed_to_be_read_is_fed_with_what_came_since(lab: Lab) -> None:
    @workflow(name="grows")
    async def grows() -> None:
        got: list[int] = []

        @perdure.on_query
        def all_of_them() -> list[int]:
            return got

        async for n in perdure.messages("n", int):
            await work(n)
            got.append(n)

    async with lab.engine(grows, cache=0) as engine:
        handle = await engine.start(grows, id="one")
        feeds = 0
        for n in range(5):
            await handle.signal("n", n)
            await until(lambda: not engine._worker.drivers)  # type: ignore[union-attr]
            await parked(handle)
            assert await handle.query("all_of_them") == list(range(n + 1))
            [execution] = engine._queries._kept.values()
            feeds += 1
            assert execution.machine.position == len(await handle.journal())
        assert feeds == 5


async def test_a_closed_execution_answers_as_it_ended_however_that_was(lab: Lab) -> None:
    async with lab.engine(job) as engine:
        ended = await engine.start(job, 2, id="ended")
        cancelled, terminated = await engine.start(job, 1, id="cancelled"), await engine.start(job, 3, id="terminated")
        await asyncio.gather(*map(parked, (ended, cancelled, terminated)))
        await ended.signal("end", 0)
        await cancelled.cancel()
        await terminated.terminate()
        for handle in (ended, cancelled, terminated):
            await status(handle, "completed", "cancelled", "terminated")
    async with lab.engine(job) as engine:
        before = [written(engine.handle(name)) for name in ("ended", "cancelled", "terminated")]
        done = [(await engine.handle(name).query("progress"))["done"] for name in ("ended", "cancelled", "terminated")]
        assert done == [2, 1, 3]
        assert [written(engine.handle(name)) for name in ("ended", "cancelled", "terminated")] == before
    assert sorted(ran) == [0, 0, 0, 1, 1, 2]


async def test_a_stalled_execution_says_that_it_is(lab: Lab) -> None:
    @workflow(name="bad")
    async def bad() -> None:
        perdure.on_query("alive")(lambda: True)
        await perdure.receive("go")
        asyncio.get_running_loop().run_in_executor(None, print)

    async with lab.engine(bad) as engine:
        handle = await engine.start(bad, id="one")
        assert await handle.query("alive") is True
        await handle.signal("go")
        await status(handle, "stalled")
        with pytest.raises(ExecutionStalled, match="run_in_executor"):
            await handle.query("alive")


async def test_without_the_code_there_is_no_answer_and_without_an_engine_neither(lab: Lab) -> None:
    @workflow(name="other")
    async def other() -> None: ...

    other.fn.__module__ = "elsewhere"  # else the engine runs what stands beside it as well
    async with lab.engine(job) as engine:
        handle = await engine.start(job, 1, id="one")
        await parked(handle)
    async with lab.engine(other) as engine:
        with pytest.raises(UnknownWorkflow, match=r"No workflow is named 'job' here\. Known: other"):
            await engine.handle("one").query("progress")
    async with lab.client() as client:
        with pytest.raises(NobodyAnswers, match=r"No engine runs on .*lab\.db.*perdure state one"):
            await client.handle("one").query("progress")
        with pytest.raises(NobodyAnswers):
            await client.handle("none").query("progress")


async def test_code_that_does_not_agree_with_the_journal_does_not_answer(lab: Lab) -> None:
    def make(first: str) -> Any:
        @workflow(name="changing")
        async def changing() -> None:
            perdure.on_query("alive")(lambda: True)
            if first == "step":
                await work(1)

        return changing

    first = make("step")
    async with lab.engine(first) as engine:
        await (await engine.start(first, id="one")).result()
    async with lab.engine(make("nothing")) as engine:
        for _ in range(2):
            with pytest.raises(NondeterminismError):
                await engine.handle("one").query("alive")
        assert not engine._queries._kept


async def test_an_execution_that_nobody_has_begun_is_waited_for(lab: Lab) -> None:
    async with lab.client() as client:
        await client.start(job, 1, id="one")
    async with lab.engine(job) as engine:
        assert await engine.handle("one").query("progress", returns=Report) in (Report(0), Report(1))


async def test_a_query_that_is_asked_while_the_start_is_written_is_answered(lab: Lab) -> None:
    async with lab.engine(job) as engine:
        starting = asyncio.create_task(engine.start(job, 1, id="one"))
        await until(lambda: engine._worker.drivers)  # type: ignore[union-attr]
        assert (await engine.handle("one").query("progress"))["of"] == 10
        await starting


async def test_what_is_kept_to_be_read_is_bounded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MOST_KEPT", 3)
    async with lab.engine(job, cache=0) as engine:
        handles = [await engine.start(job, 1, id=f"x{n}") for n in range(8)]
        await asyncio.gather(*map(parked, handles))
        await until(lambda: not engine._worker.drivers)  # type: ignore[union-attr]
        for _ in range(2):
            found = await asyncio.gather(*[handle.query("progress") for handle in handles])
            assert [each["done"] for each in found] == [1] * 8
            assert len(engine._queries._kept) <= 3


# --- what goes wrong ---


async def test_wrong_questions_are_answered_with_what_is_wrong(lab: Lab) -> None:
    async with lab.engine(job) as engine:
        handle = await engine.start(job, 1, id="one")
        with pytest.raises(
            UnknownHandler, match="has no handler for query 'speed' now; it has: careless, fails, progress"
        ):
            await handle.query("speed")
        with pytest.raises(WrongArguments, match="Expected `int`, got `str`"):
            await handle.query("progress", "much")
        with pytest.raises(WrongArguments, match="2 were given by position"):
            await handle.query("progress", 1, 2)
        with pytest.raises(QueryFailed, match="ValueError: this query fails") as caught:
            await handle.query("fails")
        assert "test_queries.py" in caught.value.failure.traceback
        with pytest.raises(DecodeError, match="the answer to query 'progress' cannot be decoded as int"):
            await handle.query("progress", returns=int)
        with pytest.raises(ExecutionNotFound):
            await engine.handle("none").query("progress")
        with pytest.raises(InvalidId):
            await handle.query("")
        with pytest.raises(InvalidOption):
            await handle.query("progress", timeout=-1)
        await parked(handle)
        await handle.signal("end", 1)
        assert await handle.result() == 2


async def test_an_answer_that_takes_too_long_is_not_waited_for(lab: Lab) -> None:
    async with lab.engine(job, cache=0) as engine:
        handle = await engine.start(job, 1, id="one")
        await parked(handle)
        await until(lambda: not engine._worker.drivers)  # type: ignore[union-attr]
        with pytest.raises(WaitTimeout, match="no result after 0 s; it goes on"):
            await handle.query("progress", timeout=0)
        assert (await handle.query("progress", timeout=None))["done"] == 1


@pytest.mark.parametrize("cache", [0, 10])
async def test_a_query_that_does_more_than_look_leaves_no_trace_in_what_follows(lab: Lab, cache: int) -> None:
    """In memory or replayed: what it touched is thrown away, and the journal tells the state anew."""
    async with lab.engine(job, cache=cache) as engine:
        handle = await engine.start(job, 2, id="one")
        await parked(handle)
        for _ in range(3):
            with pytest.raises(ReadOnlyHandler, match="query 'careless' may only look, but it used asyncio's loop"):
                await handle.query("careless")
            assert (await handle.query("progress"))["done"] == 2
        await handle.signal("end", 1)
        assert await handle.result() == 3
        assert "StatePublished" not in kinds(await handle.journal())
    assert ran == [0, 1]


# --- from another process ---


async def test_clients_ask_the_engine_that_runs_and_hear_of_errors_as_if_it_were_theirs(lab: Lab) -> None:
    async with lab.engine(job) as engine, lab.client() as client:
        await engine.start(job, 1, id="one")
        handle = client.handle("one", job)
        await parked(handle)
        assert await handle.query("progress", 5, returns=Report) == Report(5)
        for name, error in [("speed", UnknownHandler), ("fails", QueryFailed), ("careless", ReadOnlyHandler)]:
            with pytest.raises(error) as told:
                await handle.query(name)
            with pytest.raises(error) as here:
                await engine.handle("one").query(name)
            assert str(told.value) == str(here.value)
        with pytest.raises(QueryFailed) as failed:
            await handle.query("fails")
        assert "test_queries.py" in failed.value.failure.traceback
        with pytest.raises(ExecutionNotFound, match="No execution has the id 'none'"):
            await client.handle("none").query("progress")
