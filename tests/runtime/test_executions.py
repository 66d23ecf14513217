"""Executions over a real store: starting, messages, children, cancelling, stalling, evicting, waking, restarting."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from tests.runtime.conftest import Lab, ShiftedClock, kinds, of_kind, status, until
from tests.runtime.noting import echo, note, seen

import perdure
from perdure import step, workflow
from perdure.core import events as ev
from perdure.core.errors import NotDeterministic, WaitTimeout
from perdure.runtime.suspects import Suspects
from perdure.store.memory import MemoryStore
from perdure.store.reader import runs_alone


@workflow
async def other(value: str) -> str:
    return value


@workflow
async def listens() -> Any:
    return await perdure.receive("go")


@workflow
async def sums(n: int) -> int:
    return sum([await perdure.receive("item", int) for _ in range(n)])


# --- start ---


async def test_starting_again_with_the_same_input_returns_the_execution_there_is(lab: Lab) -> None:
    async with lab.engine(echo) as engine:
        handles = await asyncio.gather(*[engine.start(echo, "a", id="one") for _ in range(10)])
        assert [await handle.result() for handle in handles] == ["a"] * 10
        assert await (await engine.start(echo, "a", id="one")).result() == "a"
        assert [row.key.execution for row in await engine.list()] == ["one"]
    async with lab.engine(echo) as engine:
        assert await (await engine.start(echo, "a", id="one")).result() == "a"
    assert seen == ["a"]


async def test_an_id_taken_by_other_input_or_another_workflow_is_refused(lab: Lab) -> None:
    async with lab.engine(echo, other) as engine:
        await engine.start(echo, "a", id="one")
        for call in (lambda: engine.start(echo, "b", id="one"), lambda: engine.start(other, "a", id="one")):
            with pytest.raises(perdure.ExecutionExists, match="'one' exists already: workflow 'echo'"):
                await call()
    async with lab.client() as client:
        with pytest.raises(perdure.ExecutionExists):
            await client.start(echo, "b", id="one")
        assert await (await client.start(echo, "a", id="one")).result() == "a"


async def test_waiting_for_a_result_while_the_same_start_comes_again_does_not_hang(lab: Lab) -> None:
    async with lab.engine(echo, listens) as engine:
        await (await engine.start(echo, "a", id="one")).result()
        for _ in range(20):
            again = asyncio.create_task(engine.start(echo, "a", id="one"))
            await asyncio.sleep(0)
            assert await engine.handle("one", echo).result(timeout=30) == "a"
            await again


async def test_an_execution_that_is_being_loaded_survives_a_second_start(lab: Lab) -> None:
    """As `perdure.run` after a crash: the engine finds it, and the same start comes at the same moment."""

    @step(name="waits")
    async def waits() -> int:
        seen.append("began")
        if len(seen) == 1:
            await asyncio.sleep(30)
        return 7

    @workflow(name="active")
    async def active() -> int:
        return await waits()

    async with lab.doomed(active) as engine:
        await engine.start(active, id="one")
        await until(lambda: seen)
    async with lab.engine(active) as engine:
        assert await (await engine.start(active, id="one")).result(timeout=30) == 7


async def test_a_second_start_does_not_lose_an_evicted_execution_that_a_signal_wakes(lab: Lab) -> None:
    async with lab.engine(sums, cache=0) as engine:
        for i in range(20):
            handle = await engine.start(sums, 1, id=f"s{i}")
            await until(lambda: not engine._worker.drivers)  # type: ignore[union-attr]
            await asyncio.gather(handle.signal("item", i), engine.start(sums, 1, id=f"s{i}"))
            assert await handle.result(timeout=30) == i


async def test_results_can_be_asked_again_with_and_without_the_workflow(lab: Lab) -> None:
    async with lab.engine(echo) as engine:
        handle = await engine.start(echo, "x", id="one")
        assert await handle.result() == "x"
        assert await handle.result() == "x"
        assert await engine.handle("one").result() == "x"
        assert repr(handle) == "<execution 'one'>"
        with pytest.raises(perdure.ExecutionNotFound, match="'none'"):
            await engine.handle("none").result()
        with pytest.raises(perdure.ExecutionNotFound):
            await engine.handle("none").describe()


async def test_waiting_for_a_result_can_time_out_and_the_execution_goes_on(lab: Lab) -> None:
    async with lab.engine(listens) as engine:
        handle = await engine.start(listens, id="one")
        with pytest.raises(WaitTimeout, match=r"no result after 0.05 s; it goes on"):
            await handle.result(timeout=0.05)
        await handle.signal("go", "now")
        assert await handle.result(timeout=timedelta(seconds=5)) == "now"


async def test_starts_wait_while_too_many_executions_are_active(lab: Lab) -> None:
    gate = asyncio.Event()

    @step(name="blocked")
    async def blocked() -> None:
        seen.append(1)
        await gate.wait()

    @workflow(name="busy")
    async def busy() -> None:
        await blocked()

    async with lab.engine(busy, max_active=3) as engine:
        starts = [asyncio.create_task(engine.start(busy, id=f"b{i}")) for i in range(8)]
        await until(lambda: len(seen) == 3)
        await asyncio.sleep(0.03)
        assert sum(task.done() for task in starts) == 3
        assert len(seen) == 3
        gate.set()
        for handle in await asyncio.gather(*starts):
            await handle.result(timeout=30)


async def test_a_start_that_does_not_take_the_place_it_waited_for_leaves_it_to_the_next(lab: Lab) -> None:
    """One that is put off is not in memory; one that was given up never will be."""
    gate = asyncio.Event()

    @step(name="blocked")
    async def blocked() -> None:
        seen.append(1)
        await gate.wait()

    @workflow(name="busy")
    async def busy() -> None:
        await blocked()

    async with lab.engine(busy, max_active=1) as engine:
        await engine.start(busy)
        await until(lambda: seen)
        starts = [asyncio.create_task(engine.start(busy, delay=3_600)) for _ in range(30)]
        starts += [asyncio.create_task(engine.start(busy)) for _ in range(2)]
        await until(lambda: _held(engine, 32))
        starts[-2].cancel()
        await until(lambda: _held(engine, 31))
        gate.set()
        async with asyncio.timeout(20):
            await asyncio.wait(starts)
        await starts[-1].result().result(timeout=30)


async def _held(engine: perdure.Engine, number: int) -> bool:
    return (await engine.figures()).held == number


async def test_a_parent_and_its_children_go_through_an_engine_with_room_for_one(lab: Lab) -> None:
    @workflow(name="family")
    async def family() -> list[str]:
        return await asyncio.gather(*[echo(str(i)) for i in range(4)])

    async with lab.engine(family, echo, max_active=1) as engine:
        assert await (await engine.start(family)).result(timeout=30) == ["0", "1", "2", "3"]


async def test_run_is_the_three_line_entry_and_goes_on_after_its_end(lab: Lab) -> None:
    def run() -> str:
        return perdure.run(echo, "hello", id="r", store=str(lab.path))

    assert await asyncio.to_thread(run) == "hello"
    assert await asyncio.to_thread(run) == "hello"
    assert seen == ["hello"]


# --- signals ---


async def test_a_signal_with_an_id_counts_once(lab: Lab) -> None:
    async with lab.engine(sums) as engine:
        handle = await engine.start(sums, 2)
        for _ in range(3):
            await handle.signal("item", 1, id="first")
        await handle.signal("item", 10, id="second")
        assert await handle.result(timeout=30) == 11


async def test_a_receive_with_a_timeout_gives_up_and_a_later_signal_stays_for_the_next(lab: Lab) -> None:
    @workflow(name="patient")
    async def patient() -> list[Any]:
        found: list[Any] = []
        try:
            found.append(await perdure.receive("go", int, timeout=timedelta(milliseconds=30)))
        except TimeoutError:
            found.append("late")
        return [*found, await perdure.receive("go", int)]

    async with lab.engine(patient) as engine:
        handle = await engine.start(patient)
        await asyncio.sleep(0.06)
        await handle.signal("go", 3)
        assert await handle.result(timeout=30) == ["late", 3]


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("driver", "loading"):
        monkeypatch.setattr(f"perdure.runtime.{module}.INBOX_PAGE", 3)


@pytest.mark.usefixtures("small_pages")
async def test_more_signals_than_one_read_of_the_inbox_takes_all_arrive_in_order(lab: Lab) -> None:
    @workflow(name="in_order")
    async def in_order() -> list[int]:
        return [await perdure.receive("item", int) for _ in range(10)]

    async with lab.engine(in_order) as engine:
        await engine.start(in_order, id="s")
        await status(engine.handle("s"), "parked")
    async with lab.client() as client:
        for i in range(10):
            await client.handle("s").signal("item", i)
    async with lab.engine(in_order) as engine:
        assert await engine.handle("s").result(timeout=30) == list(range(10))


@pytest.mark.usefixtures("small_pages")
async def test_a_timeout_that_is_due_waits_for_every_stored_signal_not_for_the_first_read_alone(lab: Lab) -> None:
    @workflow(name="patient")
    async def patient() -> list[Any]:
        try:
            return [await perdure.receive("go", int, timeout=timedelta(hours=1))]
        except TimeoutError:
            return ["late"]

    async with lab.engine(patient) as engine:
        await engine.start(patient, id="s")
        await status(engine.handle("s"), "parked")
    async with lab.client() as client:
        for _ in range(6):
            await client.handle("s").signal("other")
        await client.handle("s").signal("go", 7)
    async with lab.engine(patient, environment=ShiftedClock(2 * 3_600_000)) as engine:
        assert await engine.handle("s").result(timeout=30) == [7]


async def test_a_flood_of_signals_does_not_read_the_inbox_once_for_each(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab.engine(sums) as engine:
        handle = await engine.start(sums, 300)
        inbox = engine.store.inbox
        monkeypatch.setattr(engine.store, "inbox", lambda *args: (seen.append(args), inbox(*args))[1])
        await asyncio.gather(*[handle.signal("item", 1) for _ in range(300)])
        assert await handle.result(timeout=30) == 300
    assert len(seen) < 100


async def test_a_signal_to_a_closed_or_missing_execution_is_refused(lab: Lab) -> None:
    async with lab.engine(echo) as engine:
        handle = await engine.start(echo, "x", id="one")
        await handle.result()
        with pytest.raises(perdure.ExecutionClosed, match="completed"):
            await handle.signal("go")
        with pytest.raises(perdure.ExecutionNotFound):
            await engine.handle("none").signal("go")


async def test_a_signal_of_another_type_than_the_workflow_expects_is_dropped_kept_and_told(lab: Lab) -> None:
    async with lab.engine(sums) as engine:
        handle = await engine.start(sums, 2, id="one")
        for value in (1, {"not": "a number"}, 2):
            await handle.signal("item", value)
        assert await handle.result(timeout=30) == 3
        [dropped] = of_kind(await handle.journal(), ev.MessageDropped)
        assert dropped.failure.message == "signal 'item' cannot be decoded as int: $ Expected `int`, got `object`."
        [letter] = engine.store.dead_letters(handle.key, 9)
        assert letter.message_id == dropped.message_id


async def test_executions_signal_and_cancel_each_other_by_id(lab: Lab) -> None:
    @workflow(name="sender")
    async def sender() -> str:
        await perdure.external("receiver").signal("go", [1, "two"])
        await perdure.external("sleeper").cancel("enough")
        try:
            await perdure.external("nobody").signal("go")
        except perdure.MessageNotDelivered as error:
            return str(error)
        return ""

    async with lab.engine(sender, listens) as engine:
        receiver, sleeper = await engine.start(listens, id="receiver"), await engine.start(listens, id="sleeper")
        told = await (await engine.start(sender)).result(timeout=30)
        assert "no execution has this id" in told
        assert await receiver.result(timeout=30) == [1, "two"]
        with pytest.raises(perdure.ExecutionCancelled, match="enough"):
            await sleeper.result(timeout=30)


# --- children ---


@workflow
async def cleans() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await note("cleaned")


@pytest.mark.parametrize(
    ("policy", "ends", "cleaned"),
    [("terminate", "terminated", []), ("cancel", "cancelled", ["cleaned"]), ("abandon", "parked", [])],
)
async def test_what_happens_to_a_child_when_its_parent_closes_first(
    lab: Lab, policy: Any, ends: str, cleaned: list[str]
) -> None:
    @workflow(name="leaves")
    async def leaves() -> str:
        child = await perdure.start_child(cleans, id="child", on_parent_close=policy)
        return child.id

    async with lab.engine(leaves, cleans) as engine:
        assert await (await engine.start(leaves)).result(timeout=30) == "child"
        row = await status(engine.handle("child"), ends)
        assert row.parent
        assert seen == cleaned


async def test_a_child_whose_id_is_taken_is_not_started(lab: Lab) -> None:
    @workflow(name="clashes")
    async def clashes() -> str:
        try:
            child = await perdure.start_child(echo, "mine", id="taken")
            await child.result()
        except perdure.ChildNotStarted as error:
            return str(error)
        return ""

    async with lab.engine(clashes, echo) as engine:
        await (await engine.start(echo, "theirs", id="taken")).result()
        assert "taken by another execution" in await (await engine.start(clashes)).result(timeout=30)


async def test_how_a_child_ends_is_what_its_parent_sees(lab: Lab) -> None:
    @workflow(name="fails")
    async def fails() -> None:
        raise KeyError("gone")

    @workflow(name="sees")
    async def sees() -> list[str]:
        found = [await echo("ok")]
        cancelled, terminated = await perdure.start_child(cleans, id="c"), await perdure.start_child(cleans, id="t")
        await cancelled.cancel("not needed")
        await note("started")
        for call in (fails, cancelled.result, terminated.result):
            try:
                await call()
            except perdure.PerdureError as error:
                found.append(f"{type(error).__name__}: {error}")
        return found

    async with lab.engine(sees, fails, cleans) as engine:
        handle = await engine.start(sees)
        await until(lambda: "started" in seen)
        await engine.handle("t").terminate("by hand")
        ok, failed, cancelled, terminated = await handle.result(timeout=30)
    assert ok == "ok"
    assert "ExecutionFailed" in failed
    assert "gone" in failed
    assert "ExecutionCancelled" in cancelled
    assert "not needed" in cancelled
    assert "ExecutionTerminated" in terminated
    assert "by hand" in terminated


async def test_a_child_that_was_started_goes_on_after_a_crash_with_its_parent(lab: Lab) -> None:
    @workflow(name="parent")
    async def parent() -> Any:
        child = await perdure.start_child(listens, id="kid")
        await note("started")
        return await child.result()

    async with lab.doomed(parent, listens) as engine:
        await engine.start(parent, id="p")
        await until(lambda: seen)
    async with lab.engine(parent, listens) as engine:
        await engine.handle("kid").signal("go", 5)
        assert await engine.handle("p").result(timeout=30) == 5
    assert seen.count("started") <= 2


async def test_cancelling_the_await_of_a_child_cancels_the_child(lab: Lab) -> None:
    @workflow(name="loses_patience")
    async def loses_patience() -> str:
        try:
            async with asyncio.timeout(0.05):
                await cleans()
        except TimeoutError:
            return "late"  # at once: the child cleans up all the same
        return ""

    async with lab.engine(loses_patience, cleans) as engine:
        assert await (await engine.start(loses_patience, id="p")).result(timeout=30) == "late"
        await until(lambda: seen == ["cleaned"])
        [child] = [row for row in await engine.list() if row.parent]
        assert (await status(engine.handle(child.key.execution), "cancelled", "terminated")).status == "cancelled"


# --- cancelling and terminating ---


async def test_cancelling_runs_the_clean_up_with_its_steps_and_tells_the_reason(lab: Lab) -> None:
    async with lab.engine(cleans) as engine:
        handle = await engine.start(cleans)
        await status(handle, "parked")
        await handle.cancel("no longer wanted")
        with pytest.raises(perdure.ExecutionCancelled, match="no longer wanted"):
            await handle.result(timeout=30)
        assert seen == ["cleaned"]
        names = kinds(await handle.journal())
        assert names[-3:] == ["CancelRequested", "StepCompleted", "ExecutionCancelled"]


async def test_a_workflow_may_decline_to_be_cancelled(lab: Lab) -> None:
    @workflow(name="stubborn")
    async def stubborn() -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "no"
        return "slept"

    async with lab.engine(stubborn) as engine:
        handle = await engine.start(stubborn)
        await handle.cancel()
        assert await handle.result(timeout=30) == "no"


async def test_terminating_ends_it_without_asking_its_code(lab: Lab) -> None:
    async with lab.engine(cleans) as engine:
        handle = await engine.start(cleans)
        await handle.terminate("now")
        with pytest.raises(perdure.ExecutionTerminated, match="now"):
            await handle.result(timeout=30)
        assert seen == []


async def test_a_cancelled_step_hears_of_it(lab: Lab) -> None:
    @step(name="interrupted")
    async def interrupted() -> None:
        seen.append("begin")
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            seen.append("cancelled" if perdure.current_step().cancelled else "?")
            raise

    @workflow(name="runs")
    async def runs() -> None:
        await interrupted()

    async with lab.engine(runs) as engine:
        handle = await engine.start(runs)
        await until(lambda: seen)
        await handle.cancel("stop")
        with pytest.raises(perdure.ExecutionCancelled):
            await handle.result(timeout=30)
        await until(lambda: seen == ["begin", "cancelled"])


async def test_failures_of_background_tasks_are_kept_with_the_result(lab: Lab) -> None:
    @workflow(name="careless")
    async def careless() -> str:
        async def background() -> None:
            raise LookupError("nobody looks")

        task = asyncio.create_task(background())
        await note("x")
        assert task.done()
        return "fine"

    async with lab.engine(careless) as engine:
        handle = await engine.start(careless)
        assert await handle.result(timeout=30) == "fine"
        [lost] = of_kind(await handle.journal(), ev.ExecutionCompleted)[0].lost_failures
    assert lost.message == "nobody looks"
    assert "background" in lost.traceback


async def test_a_workflow_that_raises_is_failed_with_its_traceback(lab: Lab) -> None:
    @workflow(name="buggy")
    async def buggy() -> None:
        raise ZeroDivisionError("a plain bug")

    async with lab.engine(buggy) as engine:
        handle = await engine.start(buggy)
        with pytest.raises(perdure.ExecutionFailed, match="a plain bug") as caught:
            await handle.result(timeout=30)
        assert "buggy" in caught.value.failure.traceback
        assert (await handle.describe()).status == "failed"


# --- stalling ---


@workflow
async def waits_for_nothing() -> None:
    await asyncio.Event().wait()


async def test_a_stalled_execution_is_listed_explained_and_resumed_with_fixed_code(lab: Lab) -> None:
    @workflow(name="flow")
    async def first() -> str:
        return await note("a") + await perdure.receive("go", str)

    @workflow(name="flow")
    async def broken() -> str:
        return await note.with_options(retry=1)("b") + await other("z")

    @workflow(name="flow")
    async def fixed() -> str:
        return await note("a") + await perdure.receive("go", str) + "!"

    async with lab.engine(first) as engine:
        handle = await engine.start(first, id="s")
        await status(handle, "parked")
    async with lab.engine(broken) as engine:
        await engine.handle("s").signal("go", "x")
        with pytest.raises(perdure.ExecutionStalled, match="disagree"):
            await engine.handle("s").result(timeout=30)
        [row] = await engine.list(status=["stalled"])
        assert (row.key.execution, row.waits_for) == ("s", "NondeterminismError")
        assert "P0101" in row.problem
    async with lab.engine(fixed) as engine:
        await asyncio.sleep(0.02)
        assert (await engine.handle("s").describe()).status == "stalled"
        await engine.handle("s").resume()
        assert await engine.handle("s", fixed).result(timeout=30) == "ax!"
    assert seen == ["a"]


async def test_a_client_resumes_beside_an_engine_and_what_is_closed_cannot_be_resumed(lab: Lab) -> None:
    async with lab.engine(waits_for_nothing, echo) as engine, lab.client() as client:
        handle = await engine.start(waits_for_nothing, id="d")
        with pytest.raises(perdure.ExecutionStalled, match="nothing is open that could wake it"):
            await handle.result(timeout=30)
        before = (await handle.describe()).problem
        await client.handle("d").resume()
        row = await status(handle, "stalled")
        assert row.problem == before
        await handle.terminate("hopeless")
        with pytest.raises(perdure.ExecutionTerminated):
            await handle.result(timeout=30)
        with pytest.raises(perdure.ExecutionClosed):
            await client.handle("d").resume()
        with pytest.raises(perdure.ExecutionNotFound):
            await client.handle("none").resume()


async def test_a_child_or_message_given_other_values_by_the_same_code_stalls_and_says_which(lab: Lab) -> None:
    outside = ["monday"]

    @workflow(name="starts")
    async def starts() -> None:
        await perdure.start_child(echo, outside[0])
        await perdure.receive("go")

    @workflow(name="sends")
    async def sends() -> None:
        with suppress(perdure.MessageNotDelivered):
            await perdure.external("nobody").signal("day", outside[0])
        await perdure.receive("go")

    async with lab.engine(starts, sends, echo) as engine:
        for each in (starts, sends):
            await status(await engine.start(each, id=each.name), "parked")
    outside[0] = "tuesday"
    async with lab.engine(starts, sends, echo) as engine:
        for each in (starts, sends):
            await engine.handle(each.name).signal("go")
            with pytest.raises(perdure.ExecutionStalled, match="P0101") as caught:
                await engine.handle(each.name).result(timeout=30)
            assert "monday" in caught.value.fields["problem"]
            assert "tuesday" in caught.value.fields["problem"]
        outside[0] = "monday"
        for each in (starts, sends):
            await engine.handle(each.name).resume()
            assert await engine.handle(each.name).result(timeout=30) is None


async def opens_a_socket() -> None:
    await asyncio.open_connection("127.0.0.1", 9)


async def calls_a_thread() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(perdure.receive("never"))
        group.create_task(asyncio.to_thread(print))


async def waits_for_a_set() -> None:
    loop = asyncio.get_running_loop()
    await asyncio.wait({asyncio.Future(loop=loop), asyncio.Future(loop=loop)})


@pytest.mark.parametrize(
    ("forbidden", "code", "line"),
    [
        (opens_a_socket, "P0106", "test_executions.py:"),
        (calls_a_thread, "P0106", "run_in_executor"),
        (waits_for_a_set, "P0109", "test_executions.py:"),
    ],
)
async def test_what_the_loop_refuses_stalls_the_execution_and_the_mended_code_goes_on(
    lab: Lab, forbidden: Any, code: str, line: str
) -> None:
    mended = False

    @workflow(name="refused")
    async def refused() -> str:
        first = await note("before")
        if not mended:
            await forbidden()
        return first + await note("after")

    async with lab.engine(refused) as engine:
        handle = await engine.start(refused, id="r")
        with pytest.raises(perdure.ExecutionStalled, match=code) as caught:
            await handle.result(timeout=30)
        assert line in caught.value.fields["problem"]
        await handle.resume()
        await status(handle, "stalled")
        mended = True
        await handle.resume()
        assert await handle.result(timeout=30) == "beforeafter"

        mended = False
        await engine.start(refused, id="other")
        await status(engine.handle("other"), "stalled")
    mended = True
    async with lab.engine(refused) as engine:
        await engine.handle("other").resume()
        assert await engine.handle("other").result(timeout=30) == "beforeafter"
    assert seen == ["before", "after"] * 2


async def test_a_workflow_that_catches_the_refusal_decides_itself(lab: Lab) -> None:
    @workflow(name="catches")
    async def catches(*, then_raise: bool) -> str:
        try:
            await opens_a_socket()
        except NotDeterministic as error:
            if then_raise:
                raise RuntimeError("no network here") from error
        return await note("went on")

    async with lab.engine(catches) as engine:
        assert await (await engine.start(catches, then_raise=False)).result(timeout=30) == "went on"
        with pytest.raises(perdure.ExecutionFailed, match="no network here"):
            await (await engine.start(catches, then_raise=True)).result(timeout=30)


class Odd:
    def __init__(self, *, broken: bool) -> None:
        self.broken = broken

    def __repr__(self) -> str:
        if self.broken:
            raise RuntimeError("no repr")
        return "<Odd, and " + "long " * 1000 + ">"


@pytest.mark.parametrize(("broken", "shown"), [(False, "<Odd, and long"), (True, "whose repr raised RuntimeError")])
async def test_a_result_that_cannot_be_encoded_stalls_with_its_repr_and_never_runs_the_step_again_by_itself(
    lab: Lab, *, broken: bool, shown: str
) -> None:
    good = False

    @step(name="odd")
    async def odd() -> Any:
        seen.append("ran")
        return 5 if good else Odd(broken=broken)

    @workflow(name="uses")
    async def uses() -> Any:
        return await odd()

    async with lab.engine(uses) as engine:
        handle = await engine.start(uses, id="u")
        with pytest.raises(perdure.ExecutionStalled, match=shown):
            await handle.result(timeout=30)
        assert len((await status(handle, "stalled")).problem) < 5000
    async with lab.engine(uses) as engine:
        await asyncio.sleep(0.03)
        assert seen == ["ran"]
        good = True
        await engine.handle("u").resume()
        assert await engine.handle("u").result(timeout=30) == 5


async def test_what_other_steps_answered_is_written_before_an_execution_stalls(lab: Lab) -> None:
    good = False

    @step(name="odd")
    async def odd() -> Any:
        await asyncio.sleep(0.01)
        return 1 if good else Odd(broken=False)

    @workflow(name="both")
    async def both() -> list[Any]:
        return await asyncio.gather(note("once"), odd())

    async with lab.engine(both) as engine:
        handle = await engine.start(both)
        with pytest.raises(perdure.ExecutionStalled):
            await handle.result(timeout=30)
        good = True
        await handle.resume()
        assert await handle.result(timeout=30) == ["once", 1]
    assert seen == ["once"]


@step
async def deadly(who: str) -> str:
    seen.append(who)
    if "cured" not in seen:
        await asyncio.sleep(30)
    return who


@workflow
async def poison(who: str) -> str:
    return await deadly(who)


async def die_once(lab: Lab, ids: list[str], expected: int) -> list[str]:
    """A life of a worker that dies once so many steps have begun; whose."""
    seen.clear()
    async with lab.doomed(poison) as engine:
        for name in ids:
            await engine.start(poison, name, id=name)
        await until(lambda: len(seen) == expected)
        return list(seen)


async def told_alone(lab: Lab, ids: list[str]) -> list[str]:
    """Which of them the store says run alone; as a step none of them says so."""
    async with lab.client() as client:
        handles = [client.handle(name) for name in ids]
        assert {step.name for handle in handles for step in await handle.running()} <= {deadly.name}
        return [handle.id for handle in handles if runs_alone(client.store, await handle.describe())]


async def test_what_kills_its_worker_again_and_again_runs_alone_and_then_stalls_by_name(lab: Lab) -> None:
    """Others that were there at each death, but did not run when the one that runs alone died, are not to blame."""
    ids = ["a", "b", "c", "d"]
    for _ in range(3):
        assert sorted(await die_once(lab, ids, 4)) == ids
    [alone] = await die_once(lab, ids, 1)
    assert await told_alone(lab, ids) == [alone]
    seen.append("cured")
    async with lab.engine(poison) as engine:
        row = await status(engine.handle(alone), "stalled")
        assert "P0108" in row.problem
        assert "deadly" in row.problem
        assert row.recoveries == 4
        for name in set(ids) - {alone}:
            assert await engine.handle(name).result(timeout=30) == name
        assert await told_alone(lab, ids) == []
        await engine.handle(alone).resume()
        assert await engine.handle(alone).result(timeout=30) == alone


async def test_of_one_that_waits_to_run_alone_the_row_that_was_read_last_counts(lab: Lab) -> None:
    """It may have been rewound meanwhile."""
    async with lab.engine(echo) as engine:
        worker, loaded = engine._running(), list[Any]()
        for name in ("a", "b", "c"):
            await (await engine.start(echo, name, id=name)).result()
        rows = [await engine.handle(name).describe() for name in ("a", "b", "c")]
        suspects = Suspects(worker, loaded.append)
        for row in rows:
            suspects.add(row)
            suspects.next()
        suspects.add(later := msgspec.structs.replace(rows[1], run="later"))
        for row in rows:
            suspects.passed(row.key)
        assert loaded == [rows[0], later, rows[2]]


# --- memory, timers, restarts ---


async def test_many_sleepers_leave_memory_and_signals_wake_them(lab: Lab) -> None:
    @workflow(name="sleeper")
    async def sleeper(n: int) -> int:
        await note(n)
        value = await perdure.receive("wake", int)
        await asyncio.sleep(0.01)
        return n + value

    async with lab.engine(sleeper, cache=3) as engine:
        handles = [await engine.start(sleeper, i, id=f"s{i}") for i in range(40)]
        for handle in handles:
            await status(handle, "parked")
        await until(lambda: len(engine._worker.drivers) <= 3)  # type: ignore[union-attr]
        row = await handles[0].describe()
        assert row.waits_for == "signal wake"
        await asyncio.gather(*[handle.signal("wake", 100) for handle in handles])
        results = await asyncio.gather(*[handle.result(timeout=30) for handle in handles])
    assert results == [100 + i for i in range(40)]
    assert sorted(seen) == list(range(40))


async def test_evicted_sleepers_wake_when_their_timers_are_due(lab: Lab) -> None:
    @workflow(name="naps")
    async def naps(n: int) -> int:
        await asyncio.sleep(1.02 + n / 50)
        return n

    async with lab.engine(naps, cache=0) as engine:
        handles = [await engine.start(naps, i) for i in range(10)]
        await until(lambda: not engine._worker.drivers)  # type: ignore[union-attr]
        assert [await handle.result(timeout=30) for handle in handles] == list(range(10))


async def test_an_hours_timer_survives_the_engine_and_fires_in_the_next_one(lab: Lab) -> None:
    @workflow(name="hour")
    async def hour() -> int:
        before = perdure.now()
        await asyncio.sleep(3600)
        return round((perdure.now() - before).total_seconds())

    async with lab.engine(hour) as engine:
        handle = await engine.start(hour, id="h")
        row = await status(handle, "parked")
        assert row.waits_for == "timer"
    async with lab.engine(hour, environment=ShiftedClock(3_590_000)) as engine:
        with pytest.raises(WaitTimeout):
            await engine.handle("h").result(timeout=0.1)
    async with lab.engine(hour, environment=ShiftedClock(3_601_000)) as engine:
        assert 3600 <= await engine.handle("h", hour).result(timeout=30) <= 3610


async def test_a_signal_stored_on_day_two_beats_a_three_day_timeout_on_day_four(lab: Lab) -> None:
    @workflow(name="approval")
    async def approval() -> str:
        try:
            return await perdure.receive("decision", str, timeout=timedelta(days=3))
        except TimeoutError:
            return "too late"

    async with lab.engine(approval) as engine:
        await status(await engine.start(approval, id="a"), "parked")
    async with lab.client() as client:
        await client.handle("a").signal("decision", "yes")
    async with lab.engine(approval, environment=ShiftedClock(4 * 86_400_000)) as engine:
        assert await engine.handle("a", approval).result(timeout=30) == "yes"


async def test_executions_of_a_workflow_that_nobody_serves_stall_until_somebody_does(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    async with lab.client() as client:
        await client.start(other, "x", id="o")
    async with perdure.Engine(lab.path, workflows=[]) as engine:
        await status(engine.handle("o"), "stalled")
        assert "No workflow is named 'other' here" in (await engine.handle("o").describe()).problem
        assert "nobody here runs workflow 'other'" in caplog.text
    async with lab.engine(other) as engine:
        assert await engine.handle("o").result(timeout=30) == "x"


@workflow
async def says_and_goes(receiver: str) -> str:
    task = asyncio.create_task(perdure.external(receiver).signal("go", "said in leaving"))
    await asyncio.sleep(0)
    return f"gone without {task.get_name()}"


async def test_who_waits_for_what_another_worker_takes_over_hears_of_its_end() -> None:
    @workflow(name="shared")
    async def shared() -> str:
        return await perdure.receive("go", str)

    store = MemoryStore(shards=2, lease_ms=3_000)
    async with perdure.Engine(store, workflows=[shared]) as engine:
        handles = [await engine.start(shared, id=str(n)) for n in range(8)]
        waiting = [asyncio.create_task(handle.result()) for handle in handles]
        worker = engine._running()
        await until(lambda: len(worker.resting) == 8)
        async with perdure.Engine(store.connect(), workflows=[shared]) as other:
            await until(lambda: 0 < len(worker.drivers) < 8)
            for handle in handles:
                await other.handle(handle.id).signal("go", "done")
            async with asyncio.timeout(20):
                assert await asyncio.gather(*waiting) == ["done"] * 8


async def test_a_message_that_was_sent_just_before_the_end_is_not_lost(lab: Lab) -> None:
    async with lab.engine(listens, says_and_goes) as engine:
        waiting = await engine.start(listens, id="a")
        leaving = await engine.start(says_and_goes, "a")
        assert (await leaving.result(timeout=30)).startswith("gone")
        assert await waiting.result(timeout=30) == "said in leaving"
