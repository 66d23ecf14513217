"""anyio inside workflows: task groups, cancel scopes and their level cancellation, streams and locks replay alike."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskStatus
from tests.workflow.harness import (
    answers,
    cancels,
    drive,
    echo,
    explore,
    fails,
    fires,
    log,
    outcomes,
    second_fails,
    signals,
)

from perdure.core.errors import NotDeterministic
from perdure.workflow import messages
from perdure.workflow.definitions import workflow


def test_task_group_runs_children_and_collects_failures() -> None:
    """A child's failure cancels its siblings; all failures come out in one group."""

    @workflow
    async def grouped() -> list[str]:
        found: list[str] = []
        try:
            async with anyio.create_task_group() as group:
                for number in range(5):
                    group.start_soon(second_fails, number, name=f"n{number}")
        except* ValueError as errors:
            found += [repr(error) for error in errors.exceptions]
        return found

    runs = explore(grouped, seeds=40)
    assert outcomes(runs) == {str(["ValueError('two')"])}
    assert len({tuple(run.trace) for run in runs}) > 20


def test_start_waits_until_the_child_is_ready() -> None:
    @workflow
    async def started() -> list[Any]:
        async def server(number: int, *, task_status: TaskStatus[str]) -> None:
            value = await echo(f"port {number}")
            task_status.started(value)
            await anyio.sleep(number)
            log("served", number)

        async with anyio.create_task_group() as group:
            ports = [await group.start(server, n) for n in (2, 1)]
            log("ready", ports)
            group.start_soon(anyio.sleep, 5)
        return ports

    assert outcomes(explore(started)) == {str(["port 2", "port 1"])}


def test_move_on_after_and_fail_after_race_as_recorded() -> None:
    """The scope that the journal says expired is the one that expires again."""

    @workflow
    async def racing() -> list[Any]:
        seen: list[Any] = []
        with anyio.move_on_after(1) as scope:
            seen.append(await echo("first"))
        seen.append(scope.cancelled_caught)
        try:
            with anyio.fail_after(1):
                seen.append(await echo("second"))
        except TimeoutError:
            seen.append("failed")
        with anyio.move_on_at(anyio.current_time() + 1) as scope:
            scope.deadline += 5
            seen.append(await echo("third"))
        seen.append(scope.cancel_called)
        return seen

    runs = explore(racing, seeds=60)
    assert len(outcomes(runs)) >= 6


def test_a_shielded_scope_finishes_its_work() -> None:
    """Level cancellation stops at a shield; what is inside awaits its steps in peace."""

    @workflow
    async def shielded() -> list[Any]:
        seen: list[Any] = []

        async def worker(number: int) -> None:
            try:
                await anyio.sleep(10 + number)
                seen.append(["slept", number])
            finally:
                with anyio.CancelScope(shield=True):
                    seen.append(["cleaned", await echo(number)])
                    await anyio.sleep(1)
                    seen.append(["rested", number])

        with anyio.move_on_after(5) as scope:
            async with anyio.create_task_group() as group:
                for number in range(3):
                    group.start_soon(worker, number)
        return [*seen, scope.cancelled_caught]

    runs = explore(shielded)
    for run in runs:
        assert run.value[-1] is True
        assert sorted(each for each in run.value[:-1] if each[0] == "cleaned") == [["cleaned", n] for n in range(3)]
    assert len(outcomes(runs)) > 5


def test_cancellation_is_by_level() -> None:
    """In a cancelled scope each further await is cancelled again, until the scope is left."""

    @workflow
    async def level() -> list[Any]:
        seen: list[Any] = []
        with anyio.move_on_after(1) as scope:
            for number in range(3):
                try:
                    await echo(number)
                    seen.append(number)
                except anyio.get_cancelled_exc_class():
                    seen.append(f"cancelled {number}")
            seen.append(scope.cancel_called)
            await anyio.lowlevel.checkpoint()
            seen.append("never reached once cancelled")
        seen.append(await echo("after"))
        return seen

    runs = explore(level, seeds=40)
    for run in runs:
        if "cancelled 1" in run.value:
            assert run.value[-3:] == ["cancelled 2", True, "after"]
    assert len(outcomes(runs)) >= 3


def test_sibling_scopes_are_cancelled_in_order() -> None:
    """A group's tasks each sit in a scope of their own: cancelling the group reaches them in the order of start."""

    @workflow
    async def siblings() -> list[int]:
        order: list[int] = []

        async def one(number: int) -> None:
            await echo(number)
            with anyio.CancelScope(), anyio.CancelScope():
                try:
                    await anyio.sleep(1_000)
                finally:
                    order.append(number)

        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(one, number)
            await anyio.sleep(500)
            group.cancel_scope.cancel()
        return order

    runs = explore(siblings, seeds=15, flaky=0)
    for run in runs:
        assert run.value == sorted(run.value)
    assert len(outcomes(runs)) > 10


def test_the_first_execution_of_a_process_already_has_ordered_scopes() -> None:
    """Anyio loads its backend when first used: it must be prepared before the first workflow uses it."""
    program = """
import anyio, sys
assert "anyio._backends._asyncio" not in sys.modules
from perdure.workflow.definitions import workflow
from tests.workflow.harness import drive
@workflow
async def first() -> str:
    with anyio.CancelScope() as scope:
        pass
    return type(scope._child_scopes).__name__
assert drive(first).value == "OrderedSet", drive(first).value
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=_root(), env=_env())


def _root() -> str:
    return __file__.rsplit("/tests/", 1)[0]


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{_root()}"}


def test_memory_object_streams_hand_over_in_order() -> None:
    @workflow
    async def streaming() -> list[Any]:
        send, receive = anyio.create_memory_object_stream[int](max_buffer_size=1)
        got: list[Any] = []

        async def producer(number: int, stream: Any) -> None:
            async with stream:
                for item in range(3):
                    await stream.send(await echo(10 * number + item))

        async def consumer(number: int, stream: Any) -> None:
            async with stream:
                async for item in stream:
                    got.append([number, item])
                    await echo(item)

        async with anyio.create_task_group() as group, send, receive:
            for number in range(2):
                group.start_soon(producer, number, send.clone())
                group.start_soon(consumer, number, receive.clone())
        return got

    runs = explore(streaming)
    assert all(sorted(item for _, item in run.value) == [0, 1, 2, 10, 11, 12] for run in runs)
    assert len(outcomes(runs)) > 10


def test_events_locks_semaphores_conditions_and_limiters() -> None:
    @workflow
    async def synchronised() -> list[Any]:
        event, lock, semaphore = anyio.Event(), anyio.Lock(), anyio.Semaphore(2)
        condition, limiter = anyio.Condition(), anyio.CapacityLimiter(2)
        seen: list[Any] = []

        async def one(number: int) -> None:
            await event.wait()
            async with semaphore:
                seen.append(["semaphore", await echo(number)])
            async with lock:
                seen.append(["lock", await echo(number)])
            async with limiter:
                seen.append(["limiter", await echo(number)])
            async with condition:
                seen.append(["condition", number])
                condition.notify_all()

        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(one, number)
            await anyio.sleep(1)
            event.set()
            async with condition:
                while sum(each[0] == "condition" for each in seen) < 4:
                    await condition.wait()
        return seen

    runs = explore(synchronised, seeds=15)
    assert all(len(run.value) == 16 for run in runs)
    assert len(outcomes(runs)) > 8


def test_messages_of_cancellations_hold_no_addresses() -> None:
    """A workflow may log or pass on what it was cancelled with; a reason that was given stays in it."""

    @workflow
    async def telling() -> list[str]:
        seen: list[str] = []

        async def one() -> None:
            try:
                await anyio.sleep_forever()
            except asyncio.CancelledError as error:
                seen.append(str(error))
                raise

        async with anyio.create_task_group() as group:
            group.start_soon(one)
            await anyio.sleep(1)
            group.cancel_scope.cancel("enough")
        return seen

    for run in explore(telling, seeds=3):
        assert run.value == ["Cancelled via cancel scope of a workflow; reason: enough"]


def test_outer_and_inner_scopes_expire_independently() -> None:
    @workflow
    async def nested() -> list[Any]:
        seen: list[Any] = []
        with anyio.move_on_after(3) as outer:
            with anyio.move_on_after(1) as inner:
                seen.append(await echo("inner"))
                await anyio.sleep_forever() if seen == ["inner"] else None
            seen.append(["inner", inner.cancelled_caught])
            seen.append(await echo("outer"))
        seen.append(["outer", outer.cancelled_caught])
        return seen

    runs = explore(nested, seeds=60)
    assert len(outcomes(runs)) >= 3


def test_a_cancel_request_goes_through_anyio_scopes() -> None:
    """The engine's cancellation is no scope's own: it is not swallowed by `move_on_after`, shields do not stop it."""

    @workflow
    async def cancellable() -> str:
        try:
            with anyio.move_on_after(1_000):
                async with anyio.create_task_group() as group:
                    group.start_soon(echo, 1)
                    await anyio.sleep(500)
        finally:
            with anyio.CancelScope(shield=True):
                log("cleaned", await echo("cleanup"))
        return "completed"

    runs = explore(cancellable, seeds=40, cancel=True)
    assert outcomes(runs) <= {"completed", "('cancelled', 'asked to')"}
    assert "('cancelled', 'asked to')" in outcomes(runs)


def test_a_task_that_outlives_its_cancelled_scope_does_not_make_the_loop_spin() -> None:
    """Anyio cancels again on every turn of the loop; while a cleanup waits for a step, no turns are burnt."""

    @workflow
    async def mixed() -> list[Any]:
        seen: list[Any] = []

        async def careful() -> None:
            try:
                await anyio.sleep(1_000)
            finally:
                seen.append(await echo("cleanup"))
                await asyncio.sleep(30)
                seen.append("cleaned")

        with anyio.move_on_after(1):
            async with asyncio.TaskGroup() as group:
                group.create_task(careful())
        seen.append("left")
        return seen

    runs = explore(mixed, seeds=20)
    assert outcomes(runs) == {str(["cleanup", "cleaned", "left"])}
    assert all(len(run.issued) < 20 for run in runs)


def test_code_that_ignores_level_cancellation_goes_on_event_by_event() -> None:
    """Swallowing every cancellation and issuing a new step each time neither hangs nor floods the journal."""

    @workflow
    async def stubborn() -> int:
        tries = 0
        with anyio.move_on_after(1):
            while True:
                try:
                    return int(await messages.receive("value", int))
                except anyio.get_cancelled_exc_class():
                    tries += 1
        return -1

    run = drive(stubborn, script=[[fires()], [signals("value", 7)]])
    assert run.value in {7, -1}


@pytest.mark.parametrize("what", ["to_thread", "open_process", "connect_tcp", "open_signal_receiver", "open_file"])
def test_the_worlds_parts_of_anyio_are_refused(what: str) -> None:
    """Threads, processes, sockets, signals: the error names the line and says where they belong."""

    @workflow
    async def touching(what: str) -> str:
        try:
            match what:
                case "to_thread":
                    await anyio.to_thread.run_sync(print, "never printed")
                case "open_process":
                    await anyio.open_process(["true"])
                case "connect_tcp":
                    await anyio.connect_tcp("127.0.0.1", 9)
                case "open_signal_receiver":
                    with anyio.open_signal_receiver(signal.SIGTERM):
                        pass
                case "open_file":
                    await anyio.open_file(__file__)
        except* NotDeterministic as errors:
            log(str(errors.exceptions[0]))
        return "it went through"

    run = drive(touching, what)
    ((message,),) = run.trace
    assert "Move this into a step" in message
    assert "test_anyio_replay.py:" in message


def test_scripted_cancel_of_a_group_with_a_step_completing_in_the_same_commit() -> None:
    """The completion that is journaled after the cancellation is ignored; the one before it counts."""

    @workflow
    async def grouped() -> list[str]:
        seen: list[str] = []

        async def one(number: int) -> None:
            try:
                await echo(number)
                seen.append(f"done {number}")
            except anyio.get_cancelled_exc_class():
                seen.append(f"cancelled {number}")
                raise

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(one, 1)
                group.start_soon(one, 2)
        finally:
            log(*seen)
        return seen

    run = drive(grouped, script=[[answers("echo"), cancels(), answers("echo")]], evict=0)
    assert run.trace == [("done 1", "cancelled 2")]
    assert run.outcome == ("cancelled", "asked to")


def test_failing_steps_inside_scopes() -> None:
    @workflow
    async def failing() -> list[str]:
        found: list[str] = []
        try:
            with anyio.fail_after(2):
                async with anyio.create_task_group() as group:
                    group.start_soon(fails, "no")
                    await anyio.sleep(1)
        except* Exception as errors:  # noqa: BLE001 - types are what is looked at
            found += [type(error).__name__ for error in errors.exceptions]
        return found

    assert outcomes(explore(failing, seeds=40)) == {str(["StepFailed"]), str(["TimeoutError"])}
