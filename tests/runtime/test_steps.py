"""Steps over a real store: every option, attempts in the journal, threads, heartbeats, what a step knows of itself."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar

import pydantic
import pytest
from tests.runtime.conftest import Lab, kinds, of_kind, status, until

import perdure
from perdure import Retry, step, workflow
from perdure.core import events as ev
from perdure.core.commands import RunStep
from perdure.core.errors import OutsideWorkflow
from perdure.core.identity import DEFAULT_NAMESPACE, ExecutionId, Key, derived_id
from perdure.runtime.attempt import StepRun
from perdure.store.sqlite import SqliteStore
from perdure.workflow.context import current_attempt
from perdure.workflow.values import codec_for

QUICK = Retry(attempts=3, delay=0.01, jitter=0)


class World:
    """What the steps of one test see and do. Fresh for each test."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.gate = threading.Event()
        self.open = asyncio.Event()
        self.running = 0
        self.most = 0


world: World


@pytest.fixture(autouse=True)
def fresh_world() -> Any:
    global world  # noqa: PLW0603 - steps are module-level, as users write them
    world = World()
    yield world
    world.gate.set()


class Busy(Exception):
    def __init__(self, retry_after: Any) -> None:
        self.retry_after = retry_after


class Fatal(ValueError):
    pass


async def run(
    lab: Lab, body: Callable[[], Any], *, timeout: float = 10, **options: Any
) -> tuple[Any, list[ev.Recorded]]:
    """Run a workflow made of this body; result and journal."""
    definition = workflow(name="body")(body)
    async with lab.engine(definition, **options) as engine:
        handle = await engine.start(definition)
        result = await handle.result(timeout=timeout)
        return result, await handle.journal()


# --- retries ---


@step(retry=QUICK)
async def fails_twice() -> int:
    attempt = perdure.current_step().attempt
    world.calls.append(time.monotonic())
    if attempt < 3:
        raise OSError(f"attempt {attempt} failed")
    return attempt


async def test_a_failed_step_is_tried_again_and_each_failed_attempt_is_journaled_with_its_traceback(lab: Lab) -> None:
    async def body() -> int:
        return await fails_twice()

    result, journal = await run(lab, body)
    assert result == 3
    failed = of_kind(journal, ev.StepAttemptFailed)
    assert [event.attempt for event in failed] == [1, 2]
    assert [event.failure.message for event in failed] == ["attempt 1 failed", "attempt 2 failed"]
    assert all("fails_twice" in event.failure.traceback and "OSError" in event.failure.type for event in failed)
    assert of_kind(journal, ev.StepCompleted)[0].attempt == 3


@step(retry=Retry(attempts=4, delay=0.04, factor=2, maximum=0.1, jitter=0))
async def backs_off() -> None:
    world.calls.append(time.monotonic())
    raise OSError


async def test_pauses_grow_by_the_factor_up_to_the_maximum(lab: Lab) -> None:
    async def body() -> int:
        try:
            await backs_off()
        except perdure.StepFailed as error:
            return int(error.fields["attempts"])
        return 0

    result, journal = await run(lab, body)
    assert result == 4
    pauses = [b - a for a, b in zip(world.calls, world.calls[1:], strict=False)]
    assert [pause >= least for pause, least in zip(pauses, (0.038, 0.078, 0.098), strict=True)] == [True] * 3
    told = [e.spent_ms for e in of_kind(journal, ev.StepAttemptFailed)]
    assert told == sorted(told)
    assert told[-1] >= 220


@step(retry=Retry(attempts=9, delay=0.2, jitter=1))
async def jittery() -> None:
    if perdure.current_step().attempt == 1:
        raise OSError


async def test_jitter_shortens_a_pause_by_chance_but_alike_on_replay(lab: Lab) -> None:
    async def body() -> None:
        await asyncio.gather(*[jittery() for _ in range(8)])

    _, journal = await run(lab, body)
    pauses = {r.event.retry_at_ms - r.at_ms for r in journal if isinstance(r.event, ev.StepAttemptFailed)}
    assert len(pauses) > 3
    assert max(pauses) <= 200


@step(retry=Retry(attempts=5, delay=0.01, never=(Fatal,)))
async def never_for_fatal(error: str) -> None:
    world.calls.append(error)
    raise Fatal(error) if error == "fatal" else OSError(error)


@step(retry=Retry(attempts=5, delay=0.01, when=lambda error: "again" in str(error)))
async def when_again(error: str) -> None:
    world.calls.append(error)
    raise OSError(error)


def raises_itself(error: BaseException) -> bool:
    raise RuntimeError("the predicate is broken")


@step(retry=Retry(attempts=5, delay=0.01, when=raises_itself))
async def broken_policy() -> None:
    world.calls.append("broken")
    raise OSError("the real error")


@pytest.mark.parametrize(
    ("definition", "argument", "calls"),
    [(never_for_fatal, "fatal", 1), (never_for_fatal, "other", 5), (when_again, "no", 1), (when_again, "again", 5)],
)
async def test_errors_that_are_not_to_be_retried_end_the_step_at_once(
    lab: Lab, definition: perdure.Step[[str], None], argument: str, calls: int
) -> None:
    async def body() -> str:
        try:
            await definition(argument)
        except perdure.StepFailed as error:
            return error.failure.message
        return ""

    result, _ = await run(lab, body)
    assert result == argument
    assert len(world.calls) == calls


async def test_a_retry_policy_that_raises_gives_up_with_the_steps_own_error(lab: Lab) -> None:
    async def body() -> str:
        try:
            await broken_policy()
        except perdure.StepFailed as error:
            return error.failure.message
        return ""

    result, _ = await run(lab, body)
    assert (result, world.calls) == ("the real error", ["broken"])


@step(retry=Retry(attempts=2, delay=30))
async def asks_for_a_pause(kind: str) -> int:
    world.calls.append(time.monotonic())
    if perdure.current_step().attempt == 1:
        raise Busy(0.02 if kind == "seconds" else timedelta(milliseconds=20))
    return 1


@pytest.mark.parametrize("kind", ["seconds", "timedelta"])
async def test_an_exception_with_retry_after_sets_the_pause_itself(lab: Lab, kind: str) -> None:
    async def body() -> int:
        return await asks_for_a_pause(kind)

    result, _ = await run(lab, body)
    assert result == 1
    assert 0.018 <= world.calls[1] - world.calls[0] < 5


async def test_retries_and_their_count_survive_a_crash_in_the_pause(lab: Lab) -> None:
    @step(name="slow_retry", retry=Retry(attempts=3, delay=0.3, jitter=0))
    async def slow_retry() -> int:
        world.calls.append(perdure.current_step().attempt)
        if perdure.current_step().attempt < 3:
            raise OSError
        return perdure.current_step().attempt

    @workflow(name="retrying")
    async def retrying() -> int:
        return await slow_retry()

    for expected in ([1], [1, 2]):
        async with lab.doomed(retrying) as engine:
            await engine.start(retrying, id="r")
            await until(lambda: world.calls == expected)  # noqa: B023 - awaited at once
            handle = engine.handle("r")

            async def recorded() -> bool:
                return kinds(await handle.journal()).count("StepAttemptFailed") == len(expected)  # noqa: B023

            await until(recorded)
    async with lab.engine(retrying) as engine:
        assert await engine.handle("r", retrying).result(timeout=30) == 3
    assert world.calls == [1, 2, 3]


async def until_parked(engine: perdure.Engine, definition: Any) -> None:
    """Its first attempt has failed, and its row says when the next one is due."""
    handle = await engine.start(definition, id="r")
    await until(lambda: world.calls == [1])
    await status(handle, "parked")


@step(retry=Retry(attempts=9, delay=1.1, jitter=0))
async def fails_then_hangs() -> None:
    attempt = perdure.current_step().attempt
    world.calls.append(attempt)
    if attempt == 1:
        raise OSError
    await world.open.wait()


@workflow
async def retried_hang() -> None:
    await fails_then_hangs()


async def test_while_a_retried_attempt_runs_its_row_which_stays_due_is_not_looked_for_again_and_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans: list[Any] = []
    ready = SqliteStore.ready
    monkeypatch.setattr(SqliteStore, "ready", lambda *args: [scans.append(args), ready(*args)][1])
    async with lab.doomed(retried_hang) as engine:
        await until_parked(engine, retried_hang)
    async with lab.engine(retried_hang) as engine:
        await until(lambda: world.calls == [1, 2])
        scans.clear()
        await asyncio.sleep(0.3)
        world.open.set()
        await engine.handle("r").result(timeout=30)
    assert len(scans) <= 5


async def test_a_retried_attempt_that_kills_its_worker_again_and_again_runs_alone_and_then_stalls_by_name(
    lab: Lab,
) -> None:
    async with lab.doomed(retried_hang) as engine:
        await until_parked(engine, retried_hang)
        await until(lambda: world.calls == [1, 2])
    for calls in (3, 4, 5):
        async with lab.doomed(retried_hang):
            await until(lambda: len(world.calls) == calls)  # noqa: B023 - awaited at once
    async with lab.engine(retried_hang) as engine:
        row = await status(engine.handle("r"), "stalled")
        assert "P0108" in row.problem
        assert "fails_then_hangs" in row.problem
    assert world.calls == [1, 2, 2, 2, 2]


# --- time limits ---


@step(timeout=0.05, retry=Retry(attempts=2, delay=0.01))
async def too_slow() -> None:
    world.calls.append("begin")
    try:
        await asyncio.sleep(30)
    finally:
        world.calls.append("end")


async def outcome(call: Any) -> list[Any]:
    try:
        return ["value", await call]
    except perdure.StepFailed as error:
        return [error.failure.type, error.failure.message, error.fields["attempts"]]


async def test_a_timeout_cuts_each_attempt_and_is_retried(lab: Lab) -> None:
    async def body() -> list[Any]:
        return await outcome(too_slow())

    (kind, message, attempts), _ = await run(lab, body)
    assert kind.endswith("StepTimeout")
    assert "timeout of 50 ms" in message
    assert attempts == 2
    assert world.calls == ["begin", "end", "begin", "end"]


@step(total_timeout=0.25, retry=Retry(attempts=None, delay=0.06, jitter=0, factor=1))
async def always_fails() -> None:
    world.calls.append(1)
    raise OSError("no")


@step(total_timeout=0.1, retry=Retry(attempts=None, delay=0.01))
async def hangs() -> None:
    world.calls.append(1)
    await asyncio.sleep(30)


async def test_a_total_timeout_bounds_all_attempts_and_pauses_together(lab: Lab) -> None:
    async def body() -> list[Any]:
        return [await outcome(always_fails()), await outcome(hangs())]

    (failing, hanging), _ = await run(lab, body)
    assert failing[:2] == ["OSError", "no"]
    assert 3 <= failing[2] <= 5
    assert "total_timeout of 100 ms" in hanging[1]
    assert hanging[2] == 1


@step(heartbeat_timeout=0.08, retry=Retry(attempts=3, delay=0.01))
async def falls_silent() -> list[Any]:
    attempt = perdure.current_step()
    world.calls.append(attempt.progress)
    if attempt.attempt == 3:
        return [attempt.progress, attempt.attempt]
    for beat in range(4):
        attempt.heartbeat({"done": attempt.attempt * 10 + beat})
        await asyncio.sleep(0.03)
    await asyncio.sleep(30)
    return []


async def test_silence_beyond_the_heartbeat_timeout_fails_the_attempt_and_the_next_reads_the_progress(lab: Lab) -> None:
    async def body() -> list[Any]:
        return await falls_silent()

    result, journal = await run(lab, body)
    assert result == [{"done": 23}, 3]
    assert world.calls == [None, {"done": 13}, {"done": 23}]
    assert ["heartbeat_timeout" in e.failure.message for e in of_kind(journal, ev.StepAttemptFailed)] == [True, True]


async def test_the_next_attempt_after_a_crash_reads_the_progress_that_was_told(lab: Lab) -> None:
    @step(name="progressing")
    async def progressing() -> Any:
        attempt = perdure.current_step()
        world.calls.append((attempt.progress, attempt.attempt, attempt.idempotency_key))
        if attempt.progress is None:
            attempt.heartbeat(["a", 7])
            attempt.heartbeat()  # without progress: only that it lives
            await asyncio.sleep(30)
        return attempt.progress

    @workflow(name="long")
    async def long() -> Any:
        return await progressing()

    async with lab.doomed(long) as engine:
        handle = await engine.start(long, id="p")
        [told] = await until(handle.running)
        assert (told.name, told.attempt, told.seq) == ("progressing", 1, 1)
    async with lab.engine(long) as engine:
        assert await engine.handle("p", long).result(timeout=30) == ["a", 7]
        assert await engine.handle("p").running() == []
    (_, first, key), (progress, second, same) = world.calls
    assert (first, second, progress) == (1, 1, ["a", 7])
    assert key == same


@step
async def bad_progress() -> str:
    try:
        perdure.current_step().heartbeat(object())
    except perdure.PerdureError as error:
        return error.code
    return ""


async def test_progress_that_cannot_be_encoded_is_refused_where_it_is_told(lab: Lab) -> None:
    async def body() -> str:
        return await bad_progress()

    assert (await run(lab, body))[0] in ("P0201", "P0203")


# --- limits of concurrency ---


async def hold() -> None:
    world.running += 1
    world.most = max(world.most, world.running)
    await asyncio.sleep(0.01)
    world.running -= 1


@step(concurrency=2)
async def limited(x: int) -> int:
    await hold()
    return x


@step
async def unlimited(x: int) -> int:
    await hold()
    return x


async def test_a_steps_concurrency_bounds_its_attempts_over_all_executions(lab: Lab) -> None:
    async def body(base: int) -> list[int]:
        return await asyncio.gather(*[limited(base + i) for i in range(5)])

    definition = workflow(name="body")(body)
    async with lab.engine(definition) as engine:
        handles = [await engine.start(definition, 10 * i) for i in range(4)]
        for i, handle in enumerate(handles):
            assert await handle.result(timeout=30) == [10 * i + j for j in range(5)]
    assert world.most == 2


async def test_max_steps_bounds_all_attempts_of_an_engine(lab: Lab) -> None:
    async def body() -> list[int]:
        return await asyncio.gather(*[unlimited(i) for i in range(20)])

    result, _ = await run(lab, body, max_steps=3)
    assert result == list(range(20))
    assert world.most == 3


async def test_a_place_left_by_steps_that_nobody_awaits_any_more_goes_to_one_that_waits(lab: Lab) -> None:
    """A step that its own limit holds back must not keep a place from another step."""

    @step(name="a", concurrency=1)
    async def a() -> None:
        await world.open.wait()

    @step(name="b", concurrency=1)
    async def b() -> None:
        await world.open.wait()

    @step(name="c")
    async def c() -> str:
        return "done"

    async def body() -> str:
        first = [asyncio.create_task(each()) for each in (a, b)]
        held = [asyncio.create_task(each()) for each in (a, b)]
        last = asyncio.create_task(c())
        await perdure.receive("go")
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        await perdure.receive("go")
        await asyncio.gather(*first)
        return await last

    definition = workflow(name="body")(body)
    async with lab.engine(definition, max_steps=2) as engine:
        handle = await engine.start(definition)
        await until(lambda: len(engine._worker.steps) == 2)  # type: ignore[union-attr]
        await handle.signal("go")
        await handle.signal("go")
        await asyncio.sleep(0.05)
        world.open.set()
        assert await handle.result(timeout=30) == "done"


async def test_a_place_that_the_first_in_the_queue_may_not_take_goes_to_the_next(lab: Lab) -> None:
    @step(name="narrow", concurrency=1)
    async def narrow() -> None:
        await world.open.wait()

    @step(name="wide")
    async def wide() -> str:
        return "done"

    async def body(kind: str) -> str | None:
        return await (wide() if kind == "wide" else narrow())

    definition = workflow(name="body")(body)
    async with lab.engine(definition, max_steps=2) as engine:
        steps = engine._worker.steps  # type: ignore[union-attr]
        opened = asyncio.Event()

        @step(name="gated")
        async def gated() -> None:
            await opened.wait()

        @workflow(name="gate")
        async def gate() -> None:
            await gated()

        await engine.start(definition, "narrow")
        await engine.start(gate)
        await until(lambda: len(steps) == 2)
        await engine.start(definition, "narrow")
        await until(lambda: steps.waiting() == 1)
        last = await engine.start(definition, "wide")
        await until(lambda: steps.waiting() == 2)
        opened.set()
        assert await last.result(timeout=30) == "done"
        world.open.set()


async def test_a_step_that_the_code_stopped_waiting_for_is_not_shown_as_open(lab: Lab) -> None:
    @step(name="beats")
    async def beats() -> None:
        perdure.current_step().heartbeat("here")
        await world.open.wait()

    async def body() -> None:
        task = asyncio.create_task(beats())
        await perdure.receive("enough")
        task.cancel()
        await perdure.receive("never")

    definition = workflow(name="body")(body)
    async with lab.engine(definition) as engine:
        handle = await engine.start(definition)
        await until(handle.running)
        await handle.signal("enough")

        async def none_is_open() -> bool:
            return not await handle.running()

        await until(none_is_open)


# --- def steps in threads ---


@step
def in_thread(x: int) -> list[Any]:
    return [x, threading.current_thread().name, perdure.current_step().seq]


async def test_a_def_step_runs_in_a_thread_and_knows_its_attempt(lab: Lab) -> None:
    async def body() -> list[Any]:
        return await in_thread(5)

    (x, thread, seq), _ = await run(lab, body)
    assert (x, seq) == (5, 1)
    assert thread == "perdure-step"


@step(timeout=0.05, retry=None)
def stuck() -> None:
    world.gate.wait(20)


async def test_threads_of_timed_out_steps_are_counted_replaced_and_bounded(lab: Lab) -> None:
    @step(name="works")
    def works(x: int) -> int:
        return x

    async def body() -> list[Any]:
        found = [(await outcome(stuck()))[0] for _ in range(2)]
        return [*found, await works(1), await works(2)]

    definition = workflow(name="body")(body)
    async with lab.engine(definition, step_threads=2) as engine:
        result = await (await engine.start(definition)).result(timeout=30)
        assert [kind.rpartition(".")[2] for kind in result[:2]] == ["StepTimeout"] * 2
        assert result[2:] == [1, 2]
        assert engine._threads.abandoned == 2
        world.gate.set()
        await until(lambda: engine._threads.abandoned == 0)


async def test_two_def_steps_at_once_get_two_threads_even_if_only_one_is_idle(lab: Lab) -> None:
    barrier = threading.Barrier(2, timeout=3)

    @step(name="meets", retry=None)
    def meets(other: str) -> int:
        if other:
            barrier.wait()
        return 1

    async def body() -> list[int]:
        await meets("")
        return await asyncio.gather(meets("b"), meets("a"))

    for _ in range(5):
        assert (await run(lab, body))[0] == [1, 1]


@step(retry=None)
def stops_when_told() -> None:
    attempt = perdure.current_step()
    try:
        while not world.gate.wait(0.005):
            attempt.heartbeat()
    except asyncio.CancelledError:
        world.calls.append("stopped")
        raise


async def test_a_heartbeat_tells_a_thread_that_its_step_was_cancelled(lab: Lab) -> None:
    async def body() -> str:
        try:
            async with asyncio.timeout(0.05):
                await stops_when_told()
        except TimeoutError:
            return "late"
        return ""

    assert (await run(lab, body))[0] == "late"
    await until(lambda: world.calls == ["stopped"])


@step(retry=None)
def stop_iteration() -> None:
    raise StopIteration("three")


@step(retry=None)
async def system_exit() -> None:
    raise SystemExit(3)


@step(retry=None)
def system_exit_in_thread() -> None:
    raise SystemExit(3)


@step(retry=None)
async def cancels_itself() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("definition", [stop_iteration, system_exit, system_exit_in_thread, cancels_itself])
async def test_whatever_a_step_raises_is_its_own_failure_and_not_the_engines_end(
    lab: Lab, definition: perdure.Step[[], None]
) -> None:
    async def body() -> str:
        try:
            await definition()
        except perdure.StepFailed as error:
            return error.failure.type
        return ""

    kind = (await run(lab, body))[0].rpartition(".")[2]
    assert kind in ("RuntimeError", "SystemExit", "CancelledError")


# --- shapes of steps ---


class Tools:
    """A user's class with steps as methods."""

    def __init__(self, base: int) -> None:
        self.base = base

    @step
    async def add(self, x: int) -> int:
        return self.base + x

    @step(name="tools.multiply")
    def multiply(self, x: int, *, by: int = 2) -> int:
        return self.base * x * by


class Callable_:  # noqa: N801 - the point is that it is called
    async def __call__(self, x: int) -> int:
        return x + 100


tools = Tools(1000)
called = step(name="called")(Callable_())
partial = step(name="partial")(functools.partial(lambda a, b: a + b, 5))


async def test_methods_callables_and_partials_are_steps(lab: Lab) -> None:
    async def body() -> list[int]:
        return [await tools.add(1), await tools.multiply(2, by=3), await called(1), await partial(6)]

    result, journal = await run(lab, body)
    assert result == [1001, 6000, 101, 11]
    names = [event.name for event in of_kind(journal, ev.StepCompleted)]
    assert names == ["Tools.add", "tools.multiply", "called", "partial"]


async def test_outside_a_workflow_a_step_just_runs() -> None:
    assert await tools.add(2) == 1002
    assert await tools.multiply(2) == 4000
    assert await called(1) == 101
    assert await fails_outside.with_options(retry=None)() == "no attempt"
    assert Tools.add.fn(tools, 3).close() is None


@step
async def fails_outside() -> str:
    try:
        perdure.current_step()
    except OutsideWorkflow:
        return "no attempt"
    return ""


async def test_options_of_one_call_do_not_change_the_step(lab: Lab) -> None:
    async def body() -> list[Any]:
        once = await outcome(fails_twice.with_options(retry=1)())
        return [once, await fails_twice(), await outcome(too_slow.with_options(timeout=0.03, retry=None)())]

    (once, all_, shorter), _ = await run(lab, body)
    assert once[2] == 1
    assert all_ == 3
    assert "30 ms" in shorter[1]


async def test_a_step_knows_its_execution_run_seq_name_and_attempt(lab: Lab) -> None:
    @step(name="facts")
    async def facts() -> list[Any]:
        me = perdure.current_step()
        assert not me.cancelled
        return [me.execution, me.run, me.seq, me.name, me.attempt, me.progress, me.idempotency_key]

    async def body() -> list[Any]:
        return [perdure.info().run, await facts(), await facts()]

    definition = workflow(name="body")(body)
    async with lab.engine(definition) as engine:
        run_id, first, second = await (await engine.start(definition, id="known")).result(timeout=30)
    assert first[:6] == ["known", run_id, 1, "facts", 1, None]
    assert second[2] == 2
    assert first[6] != second[6]
    assert len(first[6]) == 32


async def test_the_idempotency_key_is_the_same_on_every_attempt_and_after_every_crash(lab: Lab) -> None:
    @step(name="charge", retry=Retry(attempts=9, delay=0.01))
    async def charge() -> int:
        me = perdure.current_step()
        world.calls.append(me.idempotency_key)
        if len(world.calls) < 3:
            raise OSError
        if len(world.calls) < 5:
            await asyncio.sleep(30)
        return 1

    @workflow(name="paying")
    async def paying() -> int:
        return await charge()

    for seen in (3, 4):
        async with lab.doomed(paying) as engine:
            await engine.start(paying, id="pay")
            await until(lambda: len(world.calls) >= seen)  # noqa: B023 - awaited at once
    async with lab.engine(paying) as engine:
        assert await engine.handle("pay", paying).result(timeout=30) == 1
    assert len(world.calls) == 5
    assert len(set(world.calls)) == 1


async def test_arguments_that_a_step_changes_do_not_change_the_workflows(lab: Lab) -> None:
    @step(name="mutates")
    async def mutates(items: list[int]) -> list[int]:
        items.append(99)
        return items

    async def body() -> list[list[int]]:
        mine = [1]
        return [await mutates(mine), mine, await mutates(mine)]

    assert (await run(lab, body))[0] == [[1, 99], [1], [1, 99]]


# --- races between an attempt and what ends it ---


async def test_a_retry_that_a_timeout_overtakes_never_starts(lab: Lab) -> None:
    """The failed attempt and the timer that cancels the step are written in one batch."""

    @step(name="blocks_the_loop", retry=Retry(attempts=5, delay=0, jitter=0))
    async def blocks_the_loop() -> None:
        world.calls.append(perdure.current_step().attempt)
        time.sleep(0.08)  # noqa: ASYNC251 - the loop wakes with both: a failure, and a timer that is due
        raise OSError

    async def body() -> str:
        try:
            async with asyncio.timeout(0.05):
                await blocks_the_loop()
        except TimeoutError:
            await asyncio.sleep(0.05)
            return "late"
        return ""

    result, journal = await run(lab, body)
    assert result == "late"
    assert world.calls == [1]
    assert kinds(journal).count("StepAttemptFailed") <= 1


async def test_a_retry_that_a_timeout_cancels_in_its_pause_never_starts(lab: Lab) -> None:
    @step(name="fails", retry=Retry(attempts=5, delay=0.1, jitter=0))
    async def fails() -> None:
        world.calls.append(perdure.current_step().attempt)
        raise OSError

    async def body() -> str:
        try:
            async with asyncio.timeout(0.05):
                await fails()
        except TimeoutError:
            await asyncio.sleep(0.15)
            return "late"
        return ""

    assert (await run(lab, body))[0] == "late"
    assert world.calls == [1]


async def test_an_attempt_that_takes_long_to_die_does_not_disturb_the_next(lab: Lab) -> None:
    """The execution stalls while an attempt runs; resumed, the same step runs again beside the dying attempt."""

    @step(name="dies_slowly")
    async def dies_slowly() -> str:
        world.calls.append("begin")
        if len(world.calls) > 1:
            await world.open.wait()
            return "second"
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.1)
            world.open.set()
        return "first"

    broken = True

    @workflow(name="fragile")
    async def fragile() -> str:
        task = asyncio.create_task(dies_slowly())
        await perdure.receive("go")
        if broken:
            asyncio.get_running_loop().run_in_executor(None, print)
        return await task

    async with lab.engine(fragile) as engine:
        handle = await engine.start(fragile, id="f")
        await until(lambda: world.calls == ["begin"])
        await handle.signal("go", "text")
        with pytest.raises(perdure.ExecutionStalled):
            await handle.result(timeout=30)
        broken = False
        await handle.resume()
        assert await handle.result(timeout=30) == "second"


class Nobody:
    """The driver of an attempt that no engine runs."""

    key = Key(0, DEFAULT_NAMESPACE, ExecutionId("x-1"))
    run = "r"
    dead = False
    attempts: ClassVar[dict[int, StepRun | None]] = {}

    def step_done(self, seq: int, event: Any) -> None: ...
    def step_lapsed(self) -> None: ...
    def step_unreadable(self, seq: int, error: Any) -> None: ...


def test_an_attempt_tells_its_facts_and_takes_heartbeats() -> None:
    told = codec_for(Any, "progress").encode({"page": 4}, "progress")
    command = RunStep(seq=3, name="search", input=told, digest=b"", target=None, options=None, attempt=1, progress=told)
    clock = iter([10, 20, 30])
    attempt = StepRun(Nobody(), command, 5, lambda: next(clock))
    token = current_attempt.set(attempt)
    try:
        found = perdure.current_step()
        assert (found.execution, found.run, found.seq, found.name) == ("x-1", "r", 3, "search")
        assert (found.attempt, found.progress) == (2, {"page": 4})
        assert found.idempotency_key == derived_id("step", "x-1", "r", 3)
        found.heartbeat({"page": 5})
        found.heartbeat()
        assert attempt.last_beat_ms == 30
        assert attempt.latest == codec_for(Any, "progress").encode({"page": 5}, "progress")
        attempt.cancelled = True
        with pytest.raises(asyncio.CancelledError):
            found.heartbeat()
    finally:
        current_attempt.reset(token)


given_up: list[str] = []


class GivesUp(pydantic.BaseModel):
    """A validator of it calls what must not be called there."""

    how: str

    @pydantic.model_validator(mode="after")
    def check(self) -> GivesUp:
        if given_up:
            raise SystemExit(3) if self.how == "exit" else asyncio.CancelledError
        return self


@step
async def gives_up(how: str) -> GivesUp:
    made = GivesUp(how=how)
    given_up.append(how)
    return made


@workflow
async def wants_it(how: str) -> None:
    await gives_up(how)


@pytest.mark.parametrize("how", ["exit", "cancel"])
async def test_a_result_whose_own_code_gives_up_is_no_reason_to_run_the_step_again(lab: Lab, how: str) -> None:
    given_up.clear()
    async with lab.engine(wants_it) as engine:
        row = await status(await engine.start(wants_it, how), "stalled", "failed")
        assert (row.status, row.waits_for) == ("stalled", "UnencodableResult")
    assert given_up == [how]
