"""Ordinary asyncio inside workflows: each construct, over many interleavings, replays as it happened."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.workflow.harness import (
    EPOCH_MS,
    double,
    drive,
    echo,
    explore,
    fails,
    log,
    outcomes,
    replays_alike,
    second_fails,
)

from perdure.core import events as ev
from perdure.workflow import context, messages
from perdure.workflow.definitions import workflow

NEWER = sys.version_info >= (3, 13)


# --- sleeping --------------------------------------------------------------------------------------------------------


def test_sleep_is_a_timer_and_sees_logical_time() -> None:
    """`asyncio.sleep` issues a timer; after it, loop time and `now` have advanced by at least as much."""

    @workflow
    async def sleeper() -> float:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        assert await asyncio.sleep(0.25, "slept") == "slept"
        log(context.now())
        await asyncio.sleep(0)
        await asyncio.sleep(-1)
        return loop.time() - begin

    for run in explore(sleeper):
        assert run.value >= 0.25
        assert [command[1] for command in run.issued] == ["timer", "close"]
        assert run.issued[0][2] == EPOCH_MS + 250


def test_timers_fire_in_order_of_deadline_then_number() -> None:
    """Concurrent sleeps end by (deadline, seq), also those that fire within one commit."""

    @workflow
    async def sleepers() -> list[int]:
        ended: list[int] = []

        async def one(number: int, seconds: float) -> None:
            await asyncio.sleep(seconds)
            ended.append(number)

        await asyncio.gather(one(1, 3), one(2, 1), one(3, 2), one(4, 1))
        return ended

    for run in explore(sleepers):
        assert run.value == [2, 4, 3, 1]


@pytest.mark.parametrize("seconds", [0.001, 0.0001, 0.1 + 0.2, 59.9995])
def test_a_sleep_is_rounded_up_to_whole_milliseconds(seconds: float) -> None:
    """A timer never fires early, and binary fractions do not make it a millisecond late."""

    @workflow
    async def sleeper(seconds: float) -> None:
        await asyncio.sleep(seconds)

    run = drive(sleeper, seconds)
    expected = {0.001: 1, 0.0001: 1, 0.1 + 0.2: 300, 59.9995: 60_000}[seconds]
    assert run.issued[0][2] == EPOCH_MS + expected


def test_steps_and_sleeps_interleave() -> None:
    """A chain of steps and sleeps in several tasks ends in many orders, each of which is kept."""

    @workflow
    async def mixed() -> list[Any]:
        async def one(number: int) -> int:
            value = await echo(number)
            log("first", number)
            await asyncio.sleep(number)
            value += await double(number)
            log("second", number)
            return value

        return list(await asyncio.gather(*(one(n) for n in range(1, 5))))

    runs = explore(mixed, seeds=50)
    assert outcomes(runs) == {"[3, 6, 9, 12]"}
    assert len({tuple(run.trace) for run in runs}) > 10


# --- gather, wait, as_completed -------------------------------------------------------------------------------------


def test_gather_gives_results_in_order_and_the_first_error() -> None:
    """`gather` raises the first failure; the others go on, as in asyncio."""

    @workflow
    async def gathering() -> str:
        async def bad() -> None:
            await fails("no")

        async def good(number: int) -> int:
            log("good", await echo(number))
            return number

        try:
            await asyncio.gather(good(1), bad(), good(2), asyncio.gather(good(3), good(4)))
        except Exception as error:  # noqa: BLE001 - its type is what is looked at
            log(type(error).__name__)
        await asyncio.sleep(100)
        return "done"

    runs = explore(gathering, seeds=40)
    assert outcomes(runs) == {"done"}
    assert all(("StepFailed",) in run.trace for run in runs)
    assert {run.trace.index(("StepFailed",)) for run in runs} == {0, 1, 2, 3, 4}


def test_gather_returns_exceptions_on_demand() -> None:
    """`return_exceptions=True` collects failures and cancellations in place."""

    @workflow
    async def gathering() -> list[str]:
        async def cancelled() -> None:
            raise asyncio.CancelledError

        found = await asyncio.gather(
            echo(1), fails("no"), asyncio.sleep(1, "slept"), cancelled(), return_exceptions=True
        )
        return [type(each).__name__ for each in found]

    assert outcomes(explore(gathering)) == {str(["int", "StepFailed", "str", "CancelledError"])}


def test_cancelling_a_gather_cancels_its_children() -> None:
    """All children of a cancelled gather end, and their commands are dropped."""

    @workflow
    async def gathering() -> str:
        async def one(number: int) -> None:
            try:
                await echo(number)
                log("done", number)
            finally:
                log("left", number)

        both = asyncio.gather(one(1), one(2), one(3))
        await asyncio.wait([both], timeout=1)
        log("cancelled", both.cancel())
        with contextlib.suppress(asyncio.CancelledError):
            await both
        await asyncio.sleep(5)
        return "end"

    runs = explore(gathering, seeds=40)
    assert outcomes(runs) == {"end"}
    assert {sum(entry[0] == "done" for entry in run.trace) for run in runs} == {0, 1, 2, 3}


@pytest.mark.parametrize("return_when", [asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION, asyncio.ALL_COMPLETED])
def test_wait_splits_tasks_in_the_order_given(return_when: str) -> None:
    """`asyncio.wait` returns ordered sets, for all three conditions, with and without a timeout."""

    @workflow
    async def waiting(return_when: str) -> None:
        async def one(number: int) -> int:
            if number == 3:
                await fails("three")
            return int(await echo(number))

        tasks = [asyncio.create_task(one(n), name=str(n)) for n in range(6)]
        pending: Any = tasks
        while pending:
            done, pending = await asyncio.wait(pending, return_when=return_when, timeout=2)
            log("done", [t.get_name() for t in done], "pending", [t.get_name() for t in pending])
            assert [t.get_name() for t in done] == sorted(t.get_name() for t in done)
        for task in tasks:
            if task.get_name() != "3":
                assert await task == int(task.get_name())

    runs = explore(waiting, return_when, seeds=30)
    assert all(run.outcome[0] == "completed" for run in runs)
    assert len({str(run.trace) for run in runs}) > 3


def test_wait_takes_plain_futures() -> None:
    """Futures that are no tasks, also bare `asyncio.Future()`, in a list."""

    @workflow
    async def waiting() -> list[str]:
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Any]] = [asyncio.Future() if n % 2 else loop.create_future() for n in range(6)]

        async def settle(number: int) -> None:
            value = await echo(number)
            match number:
                case 2:
                    futures[number].set_exception(ValueError("two"))
                case 4:
                    futures[number].cancel()
                case _:
                    futures[number].set_result(value)

        tasks = [asyncio.create_task(settle(n)) for n in range(6)]
        pending: Any = futures
        order = []
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            order += [str(futures.index(each)) for each in done]
        await asyncio.gather(*tasks)
        assert futures[4].cancelled()
        assert isinstance(futures[2].exception(), ValueError)
        return order

    runs = explore(waiting)
    assert all(sorted(run.value) == list("012345") for run in runs)
    assert len(outcomes(runs)) > 10


def test_what_wait_returns_is_a_whole_set() -> None:
    """The idiom `pending |= {new}`, and every other operation on sets, keeps order and content."""

    @workflow
    async def waiting() -> list[str]:
        made = [asyncio.create_task(asyncio.sleep(n + 1), name=str(n)) for n in range(3)]
        names = []
        done, pending = await asyncio.wait(made, return_when=asyncio.FIRST_COMPLETED)
        while pending:
            if len(names) < 3:
                pending |= {asyncio.create_task(asyncio.sleep(10), name=f"late-{len(names)}")}
            names += [t.get_name() for t in done]
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        names += [t.get_name() for t in done]
        return names

    for run in explore(waiting):
        assert sorted(run.value) == ["0", "1", "2", "late-0", "late-1", "late-2"]


def test_as_completed_yields_in_order_of_completion() -> None:
    """`for` gives awaitables; coroutines and tasks may be mixed; failures come where they happen."""

    @workflow
    async def completing() -> list[str]:
        coros = [echo(n) if n % 2 else asyncio.create_task(echo(n)) for n in range(5)]
        order = []
        for each in asyncio.as_completed([*coros, fails("no")]):
            try:
                order.append(str(await each))
            except Exception as error:  # noqa: BLE001 - its type is what is looked at
                order.append(type(error).__name__)
        return order

    runs = explore(completing, seeds=40)
    assert all(sorted(run.value) == sorted([*"01234", "StepFailed"]) for run in runs)
    assert len(outcomes(runs)) > 15


def test_as_completed_is_iterable_both_ways_on_every_python() -> None:
    """`async for` yields the very futures that were passed in, in order of completion."""

    @workflow
    async def completing() -> list[str]:
        tasks = [asyncio.create_task(echo(n), name=str(n)) for n in range(5)]
        order = []
        async for each in asyncio.as_completed(tasks):  # type: ignore[attr-defined]
            assert each in tasks
            assert await each == int(each.get_name())
            order.append(each.get_name())
        return order

    runs = explore(completing)
    assert all(sorted(run.value) == list("01234") for run in runs)
    assert len(outcomes(runs)) > 10


def test_as_completed_times_out() -> None:
    """After the timeout every further await raises; what was done before is still handed out."""

    @workflow
    async def completing() -> list[str]:
        order = []
        for each in asyncio.as_completed([asyncio.sleep(n, str(n)) for n in (1, 2, 3, 4)], timeout=2.5):
            try:
                order.append(await each)
            except TimeoutError:
                order.append("timeout")
        return order

    assert outcomes(explore(completing)) == {str(["1", "2", "timeout", "timeout"])}


def test_as_completed_loses_nothing_to_a_cancelled_consumer() -> None:
    """A consumer that is cancelled as its item arrives leaves the item to the next consumer, at once."""

    @workflow
    async def completing() -> list[Any]:
        source = asyncio.create_task(echo("value"))
        never = asyncio.create_task(messages.receive("never"))
        got: list[Any] = []
        awaitables = list(asyncio.as_completed([source, never]))

        async def consume(number: int) -> None:
            got.append([number, await awaitables[number]])

        consumers = [asyncio.create_task(consume(n)) for n in (0, 1)]
        await asyncio.sleep(0)
        source.add_done_callback(lambda _: consumers[0].cancel())
        await asyncio.wait(consumers, return_when=asyncio.ALL_COMPLETED)
        return got

    assert outcomes(explore(completing, seeds=5)) == {str([[1, "value"]])}


def test_as_completed_takes_5000_items_in_linear_time() -> None:
    """Twice as many items take about twice as many callbacks, not four times."""

    @workflow
    async def completing(count: int) -> int:
        total = 0
        for each in asyncio.as_completed([asyncio.ensure_future(echo(n)) for n in range(count)]):
            total += await each
        return total

    def handles(count: int) -> int:
        calls = 0

        def profile(frame: Any, event: str, arg: Any) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(profile)
        try:
            run = drive(completing, count, evict=0, batch=500, flaky=0, count_opens=False)
        finally:
            sys.setprofile(None)
        assert run.value == count * (count - 1) // 2
        return calls

    assert handles(1_000) < 2.2 * handles(500)
    run = drive(completing, 5_000, evict=0, batch=500, flaky=0, count_opens=False)
    assert run.value == 5_000 * 4_999 // 2


# --- timeouts --------------------------------------------------------------------------------------------------------


def test_wait_for_either_gives_the_value_or_times_out() -> None:
    """The winner of the race against the timer is the one that the journal names."""

    @workflow
    async def racing() -> list[str]:
        found = []
        for number in range(4):
            try:
                found.append(str(await asyncio.wait_for(echo(number), 1)))
            except TimeoutError:
                found.append("late")
        return found

    runs = explore(racing, seeds=40)
    assert len(outcomes(runs)) > 5


def test_timeout_and_timeout_at_cancel_what_is_inside() -> None:
    """`asyncio.timeout` turns its own cancellation into `TimeoutError`; nested ones expire independently."""

    @workflow
    async def racing() -> list[str]:
        loop = asyncio.get_running_loop()
        seen = []
        try:
            async with asyncio.timeout(10) as outer:
                try:
                    async with asyncio.timeout_at(loop.time() + 1) as inner:
                        seen.append(str(await echo("value")))
                        inner.reschedule(loop.time() + 5)
                        seen.append(str(await echo("second")))
                except TimeoutError:
                    seen.append(f"inner {inner.expired()} {outer.expired()}")
                seen.append(str(await echo("third")))
        except TimeoutError:
            seen.append(f"outer {outer.expired()}")
        return seen

    runs = explore(racing, seeds=60)
    assert len(outcomes(runs)) >= 4


def test_a_timeout_in_the_past_or_of_zero_expires_at_the_first_await() -> None:
    """Nothing is started for such a timer; code up to the first suspension still runs."""

    @workflow
    async def racing() -> list[str]:
        seen = []
        for seconds in (0, -5):
            try:
                async with asyncio.timeout(seconds):
                    seen.append("begun")
                    await echo("never")
            except TimeoutError:
                seen.append("expired")
        return seen

    for run in explore(racing, seeds=5):
        assert run.value == ["begun", "expired", "begun", "expired"]
        assert run.started == [run.issued[-1]]


def test_a_timeout_without_limit_starts_no_timer() -> None:
    """`timeout(None)` is no timeout."""

    @workflow
    async def unlimited() -> int:
        async with asyncio.timeout(None):
            return int(await asyncio.wait_for(echo(1), None))

    assert [command[1] for command in explore(unlimited, seeds=3)[0].issued] == ["step", "close"]


# --- task groups, shield ---------------------------------------------------------------------------------------------


def test_task_group_waits_for_all_and_cancels_siblings_of_a_failure() -> None:
    """The group's failures come out as an exception group, those that were cancelled end first."""

    @workflow
    async def grouped() -> list[str]:
        found = []
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(5):
                    group.create_task(second_fails(number), name=f"n{number}")
        except* ValueError as errors:
            found = [repr(error) for error in errors.exceptions]
        return found

    runs = explore(grouped, seeds=40)
    assert outcomes(runs) == {str(["ValueError('two')"])}
    assert len({tuple(run.trace) for run in runs}) > 20


def test_shield_keeps_the_inner_going() -> None:
    """Cancelling the outer await leaves the shielded step alone; its result can be had later."""

    @workflow
    async def shielded() -> list[Any]:
        inner = asyncio.ensure_future(echo("kept"))
        try:
            async with asyncio.timeout(1):
                return ["in time", await asyncio.shield(inner)]
        except TimeoutError:
            log(inner.cancelled(), inner.done())
            return ["later", await inner]

    assert outcomes(explore(shielded, seeds=40)) == {str(["in time", "kept"]), str(["later", "kept"])}


# --- synchronisation -------------------------------------------------------------------------------------------------


def test_event_wakes_all_its_waiters_in_order() -> None:
    @workflow
    async def events() -> list[int]:
        event = asyncio.Event()
        woken: list[int] = []

        async def waiter(number: int) -> None:
            await echo(number)
            await event.wait()
            woken.append(number)

        tasks = [asyncio.create_task(waiter(n)) for n in range(4)]
        await asyncio.sleep(1)
        event.set()
        await asyncio.gather(*tasks)
        return woken

    assert len(outcomes(explore(events, seeds=40))) > 5


def test_lock_is_fair_and_exclusive() -> None:
    @workflow
    async def locking() -> list[int]:
        lock = asyncio.Lock()
        order: list[int] = []
        inside = 0

        async def one(number: int) -> None:
            nonlocal inside
            await echo(number)
            async with lock:
                inside += 1
                assert inside == 1
                await asyncio.sleep(0.5)
                order.append(number)
                inside -= 1

        await asyncio.gather(*(one(n) for n in range(4)))
        return order

    assert len(outcomes(explore(locking, seeds=40))) > 5


def test_condition_notifies_in_order() -> None:
    @workflow
    async def conditions() -> list[int]:
        condition = asyncio.Condition()
        stock = 0
        served: list[int] = []

        async def consumer(number: int) -> None:
            nonlocal stock
            await echo(number)
            async with condition:
                await condition.wait_for(lambda: stock > 0)
                stock -= 1
                served.append(number)

        tasks = [asyncio.create_task(consumer(n)) for n in range(4)]
        for batch in (1, 2, 1):
            await asyncio.sleep(1)
            async with condition:
                stock += batch
                condition.notify_all() if batch == 2 else condition.notify()
        while not all(task.done() for task in tasks):
            await asyncio.sleep(1)
            async with condition:
                condition.notify_all()
        return served

    runs = explore(conditions, seeds=40)
    assert all(sorted(run.value) == [0, 1, 2, 3] for run in runs)
    assert len(outcomes(runs)) > 5


@pytest.mark.parametrize("bounded", [False, True])
def test_semaphore_limits_how_many_are_inside(bounded: bool) -> None:  # noqa: FBT001 - a parameter of the test
    @workflow
    async def limited(bounded: bool) -> list[int]:  # noqa: FBT001 - a parameter of the test
        semaphore = asyncio.BoundedSemaphore(2) if bounded else asyncio.Semaphore(2)
        order: list[int] = []
        inside = 0

        async def one(number: int) -> None:
            nonlocal inside
            async with semaphore:
                inside += 1
                assert inside <= 2
                await echo(number)
                order.append(number)
                inside -= 1

        await asyncio.gather(*(one(n) for n in range(6)))
        return order

    runs = explore(limited, bounded)
    assert all(sorted(run.value) == list(range(6)) for run in runs)
    assert len(outcomes(runs)) > 5


@pytest.mark.parametrize("kind", ["Queue", "LifoQueue", "PriorityQueue"])
def test_queue_connects_producers_and_consumers(kind: str) -> None:
    @workflow
    async def piped(kind: str) -> list[list[int]]:
        queue: asyncio.Queue[int] = getattr(asyncio, kind)(maxsize=2)
        got: list[list[int]] = []

        async def producer(number: int) -> None:
            for item in range(3):
                await queue.put(await echo(10 * number + item))

        async def consumer(number: int) -> None:
            while True:
                item = await queue.get()
                await echo(item)
                got.append([number, item])
                queue.task_done()

        consumers = [asyncio.create_task(consumer(n)) for n in range(2)]
        await asyncio.gather(*(producer(n) for n in range(3)))
        await queue.join()
        for task in consumers:
            task.cancel()
        await asyncio.gather(*consumers, return_exceptions=True)
        return got

    runs = explore(piped, kind)
    assert all(sorted(item for _, item in run.value) == [0, 1, 2, 10, 11, 12, 20, 21, 22] for run in runs)
    assert len(outcomes(runs)) > 10


@pytest.mark.skipif(not NEWER, reason="since Python 3.13")
def test_queue_shutdown_ends_its_waiters() -> None:
    @workflow
    async def piped() -> list[str]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        ended: list[str] = []

        async def consumer(number: int) -> None:
            try:
                while True:
                    log(number, await queue.get())
                    await echo(number)
            except asyncio.QueueShutDown:  # type: ignore[attr-defined]
                ended.append(str(number))

        tasks = [asyncio.create_task(consumer(n)) for n in range(3)]
        for item in range(4):
            queue.put_nowait(await echo(item))
        queue.shutdown()  # type: ignore[attr-defined]
        await asyncio.wait(tasks)
        return ended

    assert all(sorted(run.value) == ["0", "1", "2"] for run in explore(piped))


def test_barrier_releases_parties_together() -> None:
    @workflow
    async def meeting() -> list[Any]:
        barrier = asyncio.Barrier(3)
        log_of: list[Any] = []

        async def party(number: int) -> None:
            for round_ in range(2):
                await echo(number)
                log_of.append(["at", round_, number])
                async with barrier as place:
                    log_of.append(["through", round_, place])

        await asyncio.gather(*(party(n) for n in range(3)))
        return log_of

    runs = explore(meeting)
    for run in runs:
        kinds = [(what, round_) for what, round_, _ in run.value]
        assert kinds.index(("through", 0)) == 3
    assert len(outcomes(runs)) > 5


def test_futures_carry_results_exceptions_and_cancellations() -> None:
    @workflow
    async def bare() -> list[str]:
        seen: list[str] = []
        futures: list[asyncio.Future[Any]] = [asyncio.Future() for _ in range(3)]
        for number, future in enumerate(futures):
            future.add_done_callback(lambda f, n=number: seen.append(f"called {n} {f.cancelled()}"))

        async def settle(number: int) -> None:
            await echo(number)
            match number:
                case 0:
                    futures[0].set_result("value")
                case 1:
                    futures[1].set_exception(ValueError("one"))
                case 2:
                    futures[2].cancel("because")

        tasks = [asyncio.create_task(settle(n)) for n in range(3)]
        for future in futures:
            try:
                seen.append(str(await future))
            except ValueError as error:
                seen.append(str(error))
            except asyncio.CancelledError:
                seen.append("cancelled")
        await asyncio.gather(*tasks)
        return seen

    runs = explore(bare, seeds=40)
    assert len(outcomes(runs)) > 3


# --- cancellation ----------------------------------------------------------------------------------------------------


def test_cancellation_reaches_the_innermost_await_once() -> None:
    """A cancel request at any moment: `finally` blocks run, may await steps, and the run ends as cancelled."""

    @workflow
    async def cancellable() -> str:
        try:
            for number in range(4):
                log("step", await echo(number))
                await asyncio.sleep(1)
        except asyncio.CancelledError as error:
            log("cancelled", str(error))
            log("cleanup", await echo("cleanup"))
            raise
        return "completed"

    runs = explore(cancellable, seeds=60, cancel=True)
    ends = {run.outcome[0] for run in runs}
    assert ends in ({"cancelled", "completed"}, {"cancelled"})
    for run in runs:
        if run.outcome[0] == "cancelled":
            assert run.outcome == ("cancelled", "asked to")
            assert ("cancelled", "asked to") in run.trace or run.trace == []
            assert run.trace[-1] == ("cleanup", "cleanup") or run.trace == []


def test_a_workflow_may_decline_to_be_cancelled() -> None:
    """Code that catches the cancellation and returns completes; `uncancel` and `cancelling` count as in asyncio."""

    @workflow
    async def stubborn() -> int:
        task = asyncio.current_task()
        assert task is not None
        for _ in range(2):
            try:
                await asyncio.sleep(1_000)
                await echo(1)
            except asyncio.CancelledError:
                log("cancelling", task.cancelling())
                task.uncancel()
        return 7

    runs = explore(stubborn, cancel=True)
    assert {run.value for run in runs} == {7}
    assert any(run.trace == [("cancelling", 1)] for run in runs)


def test_cancelling_tasks_from_within() -> None:
    """Tasks cancel each other, before they start, while they wait, and after they are done."""

    @workflow
    async def cancelling() -> list[str]:
        seen: list[str] = []

        async def one(number: int) -> int:
            try:
                return int(await echo(number))
            except asyncio.CancelledError:
                seen.append(f"cancelled {number}")
                raise

        unstarted = asyncio.create_task(one(0))
        unstarted.cancel()
        tasks = [asyncio.create_task(one(n)) for n in range(1, 5)]
        first, *_ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        seen += [f"{task.cancel()}" for task in tasks]
        await asyncio.wait([unstarted, *tasks])
        seen.append(str([task.cancelled() for task in (unstarted, *tasks)]))
        assert first
        return seen

    runs = explore(cancelling, seeds=40)
    assert len(outcomes(runs)) >= 4
    assert all("cancelled 0" not in run.value for run in runs)


# --- contexts --------------------------------------------------------------------------------------------------------

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="unset")


def test_context_variables_belong_to_their_task() -> None:
    """Tasks copy their creator's context; steps, timers and callbacks keep it; the engine's does not leak in."""

    @workflow
    async def contextual() -> list[Any]:
        seen: list[Any] = [REQUEST.get()]
        REQUEST.set("main")

        async def one(number: int) -> None:
            seen.append([number, REQUEST.get()])
            REQUEST.set(f"task {number}")
            await echo(number)
            asyncio.get_running_loop().call_later(1, lambda: seen.append([number, "timer", REQUEST.get()]))
            await asyncio.sleep(2)
            seen.append([number, REQUEST.get()])

        own = contextvars.copy_context()
        own.run(REQUEST.set, "given")
        await asyncio.gather(*(one(n) for n in range(3)), asyncio.create_task(one(9), context=own))
        return [*seen, REQUEST.get(), own[REQUEST]]

    token = REQUEST.set("the engine's")
    try:
        runs = explore(contextual)
    finally:
        REQUEST.reset(token)
    for run in runs:
        assert run.value[0] == "unset"
        assert run.value[-2:] == ["main", "task 9"]
        assert [1, "timer", "task 1"] in run.value
        assert [9, "given"] in run.value


def test_async_generators_and_context_managers() -> None:  # noqa: C901 - its parts belong together
    """`async for` over generators that await steps, early exits, `aclose`, `asend`, `athrow`, exit stacks."""

    @workflow
    async def generating() -> list[Any]:
        seen: list[Any] = []

        async def numbers(name: str) -> AsyncIterator[Any]:
            try:
                for number in range(4):
                    got = yield await echo([name, number])
                    if got is not None:
                        seen.append(["sent", got])
            except ValueError:
                seen.append(["thrown", name])
                yield await echo("after the throw")
            finally:
                seen.append(["closing", name, await echo(name)])

        @contextlib.asynccontextmanager
        async def managed(name: str) -> AsyncIterator[str]:
            seen.append(["enter", await echo(name)])
            try:
                yield name
            finally:
                seen.append(["exit", await echo(name)])

        async def consume(name: str) -> None:
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(managed(name))
                source = await stack.enter_async_context(contextlib.aclosing(numbers(name)))
                async for item in source:
                    seen.append(item)
                    if name == "b" and item[1] == 1:
                        break

        await asyncio.gather(consume("a"), consume("b"))
        source: Any = numbers("c")
        seen.append(await anext(source))
        seen.append(await source.asend("hello"))
        seen.append(await source.athrow(ValueError()))
        await source.aclose()
        return seen

    runs = explore(generating, seeds=15)
    for run in runs:
        assert ["sent", "hello"] in run.value
        assert run.value[-1] == ["closing", "c", "c"]
        assert ["b", 2] not in run.value
    assert len(outcomes(runs)) > 5


# --- what else workflow code asks of the loop ---------------------------------------------------------------------


def test_now_random_and_uuid_are_the_same_on_replay() -> None:
    """They come from the journal: its last event's time, and a generator seeded from the run id."""

    @workflow
    async def chancy() -> None:
        for _ in range(3):
            log(context.now(), context.random().random(), str(context.uuid4()), context.info())
            await asyncio.sleep(context.random().randint(1, 10))

    first, second = explore(chancy, seeds=2)
    assert first.trace[0][0].tzinfo is not None
    assert [entry[1:] for entry in first.trace] == [entry[1:] for entry in second.trace]


def test_receive_and_its_timeout_race_as_recorded() -> None:
    """Signals are kept until somebody receives them; each is received once, in order of arrival."""

    @workflow
    async def receiving() -> list[Any]:
        got: list[Any] = []

        async def one(number: int) -> None:
            for _ in range(2):
                try:
                    got.append([number, await messages.receive("item", int, timeout=timedelta(seconds=2))])
                except TimeoutError:
                    got.append([number, None])

        await asyncio.gather(*(one(n) for n in range(3)))
        return got

    runs = explore(receiving, seeds=60, signals=[("item", n) for n in range(6)])
    for run in runs:
        items = [item for _, item in run.value if item is not None]
        assert items == sorted(items)
        assert len(run.value) == 6
    assert len(outcomes(runs)) > 20


def test_attempts_that_failed_are_part_of_the_journal() -> None:
    """A flaky step's attempts are journaled; replay shows the next attempt's number to whoever runs it."""

    @workflow
    async def flaky() -> int:
        return int(await echo(3))

    runs = explore(flaky, flaky=0.6, seeds=40)
    assert {run.names().count("StepAttemptFailed") for run in runs} == {0, 1, 2}
    run = next(run for run in runs if run.names().count("StepAttemptFailed") == 2)
    completed = next(r.event for r in run.journal if isinstance(r.event, ev.StepCompleted))
    assert completed.attempt == 3


def test_two_live_runs_of_one_seed_are_the_same() -> None:
    """The harness itself is deterministic: what it finds can be found again."""

    @workflow
    async def mixed() -> list[Any]:
        return list(await asyncio.gather(*(echo(n) for n in range(5)), asyncio.sleep(1)))

    first, second = (drive(mixed, seed=5) for _ in range(2))
    assert first.journal == second.journal
    replays_alike(first)
