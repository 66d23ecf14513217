"""The loop by itself, over a host that only counts: time, handles, what is lost, where things stand."""

from __future__ import annotations

import asyncio
import functools
import math
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workflow.harness import drive, echo, running_execution

from perdure.core.errors import NotDeterministic
from perdure.workflow import anyio_order, location, loop
from perdure.workflow.definitions import workflow
from perdure.workflow.loop import FAR_FUTURE_MS, DeterministicLoop, Timer

ROOT = Path(__file__).parents[2]


class Host:
    """Counts timers."""

    def __init__(self, now_ms: int = 0) -> None:
        self.now_ms = now_ms
        self.timers: dict[int, int] = {}
        self.cancelled: list[int] = []

    def start_timer(self, _: Timer, due_ms: int) -> int:
        self.timers[len(self.timers) + 1] = due_ms
        return len(self.timers)

    def cancel_command(self, seq: int) -> None:
        self.cancelled.append(seq)


@given(st.integers(1, 4_000_000_000_000), st.integers(1, 10**11))
def test_a_delay_in_whole_milliseconds_is_kept_to_the_millisecond(now_ms: int, delay_ms: int) -> None:
    """Through the floats of asyncio, relative or absolute, until the year 2096."""
    host = Host(now_ms)
    under_test = DeterministicLoop(host)
    under_test.call_later(delay_ms / 1000, print)
    under_test.call_at(under_test.time() + delay_ms / 1000, print)
    assert host.timers == {1: now_ms + delay_ms, 2: now_ms + delay_ms}


@given(st.floats(0.001, 1e9))
def test_a_timer_is_never_early_and_less_than_a_millisecond_late(seconds: float) -> None:
    host = Host()
    DeterministicLoop(host).call_later(seconds, print)
    assert seconds * 1000 - 0.001 <= host.timers[1] < seconds * 1000 + 1.001


def test_never_is_a_number_that_every_store_holds() -> None:
    host = Host(5)
    under_test = DeterministicLoop(host)
    under_test.call_later(math.inf, print)
    under_test.call_at(1e300, print)
    assert all(FAR_FUTURE_MS <= due < 2**62 for due in host.timers.values())


@pytest.mark.parametrize("when", [-math.inf, -1.0, 0.0, 4.0])
def test_the_past_is_now(when: float) -> None:
    host = Host(5_000)
    under_test = DeterministicLoop(host)
    called: list[str] = []
    under_test.call_at(when, called.append, "x")
    under_test.drain()
    assert called == ["x"]
    assert host.timers == {}


def test_a_time_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        DeterministicLoop(Host()).call_at(math.nan, print)


def test_cancelled_timers_and_handles_do_not_run() -> None:
    host = Host()
    under_test = DeterministicLoop(host)
    called: list[str] = []
    timer = under_test.call_later(1, called.append, "timer")
    fired = under_test.call_later(2, called.append, "fired too late")
    handle = under_test.call_soon(called.append, "handle")
    assert "append" in repr(handle)
    timer.cancel()
    handle.cancel()
    assert isinstance(fired, Timer)
    fired.cancel()
    under_test.fire(fired)
    under_test.drain()
    assert called == []
    assert host.cancelled == [1, 2]


def test_a_drain_runs_what_it_makes_ready_in_order() -> None:
    under_test = DeterministicLoop(Host())
    called: list[Any] = []

    def first() -> None:
        called.append((1, under_test.is_running()))
        under_test.call_soon(called.append, 3)
        under_test.call_at_next_event(called.append, "later")

    under_test.call_soon(first)
    under_test.call_soon(called.append, 2)
    under_test.drain()
    assert called == [(1, True), 2, 3]
    assert not under_test.is_running()
    under_test.drain()
    assert called[-1] == "later"


def test_a_drain_puts_back_the_loop_that_was_running() -> None:
    """The engine drains from a plain handle of its own loop."""

    async def engine() -> bool:
        outer = asyncio.get_running_loop()
        inner = DeterministicLoop(Host())
        seen: list[Any] = []
        inner.call_soon(lambda: seen.append(asyncio.get_running_loop()))
        inner.drain()
        return seen == [inner] and asyncio.get_running_loop() is outer

    assert asyncio.run(engine())


def test_what_callbacks_raise_is_kept_once() -> None:
    under_test = DeterministicLoop(Host())

    def bad() -> None:
        raise ValueError("bad")

    under_test.call_soon(bad)
    under_test.drain()
    under_test.default_exception_handler({"message": "no exception in it"})
    under_test.default_exception_handler({"exception": KeyError("told")})
    assert [repr(error) for error in under_test.lost_exceptions()] == ["ValueError('bad')", "KeyError('told')"]
    assert under_test.lost_exceptions() == []
    assert under_test.get_exception_handler() is None


def test_the_stack_shows_ten_tasks_and_how_many_more() -> None:
    @workflow
    async def crowded() -> str:
        tasks = [asyncio.create_task(asyncio.Event().wait(), name=f"waiter {n}") for n in range(12)]
        await asyncio.sleep(0)
        stack = running_execution().loop.stack()
        for task in tasks:
            task.cancel()
        return stack

    stack = drive(crowded).value
    assert "  main:" in stack
    assert "waiter 8" in stack
    assert "waiter 9" not in stack
    assert "and 3 more tasks" in stack


def test_places_are_the_users_or_nothing() -> None:
    """Only below the loop: whoever started the engine is no workflow code."""

    @workflow
    async def placing() -> list[str]:
        event_loop = asyncio.get_running_loop()
        nowhere: list[str] = []
        event_loop.call_soon(functools.partial(_append_place, nowhere))
        await asyncio.sleep(0)
        return [location.user_location(), *nowhere, location.waiting_location([])]

    here, helper, none = drive(placing).value
    assert here.startswith("test_loop.py:")
    assert helper.startswith("test_loop.py:")
    assert none == ""
    assert location.place("/somewhere/caf\udce9.py", 3) == "caf\\udce9.py:3"


def _append_place(found: list[str]) -> None:
    found.append(location.user_location())


def test_a_task_in_library_code_only_has_no_place() -> None:
    @workflow
    async def resting() -> str:
        task = asyncio.create_task(asyncio.sleep(1))
        await asyncio.sleep(0)
        return location.waiting_location([task])

    assert drive(resting).value == ""


def test_where_a_bare_task_of_a_library_is_refused_the_place_is_its_workflows() -> None:
    """The task runs no line of the user's: then it is the line at which the workflow waits."""

    @workflow
    async def connecting() -> str:
        try:
            await asyncio.create_task(asyncio.open_connection("127.0.0.1", 9))
        except NotDeterministic as error:
            return str(error.fields["where"])
        return "went through"

    assert drive(connecting).value.startswith("test_loop.py:")


def test_outside_workflows_anyio_is_as_it_was() -> None:
    """Scopes, their cancellation and threads, after the backend has been prepared."""
    anyio_order.install()

    async def main() -> list[Any]:
        seen: list[Any] = [await anyio.to_thread.run_sync(lambda: 7)]
        with anyio.CancelScope() as scope:
            seen.append(type(scope._child_scopes).__name__)
            scope.cancel()
            try:
                await anyio.sleep(1)
            except asyncio.CancelledError as error:
                seen.append("of a workflow" in str(error))
                raise
        return [*seen, scope.cancelled_caught]

    assert anyio.run(main) == [7, "set", False, True]


def test_without_anyio_nothing_of_it_is_loaded() -> None:
    """It is no dependency: only whoever imports it pays for it."""
    program = (
        "import sys\n"
        "from perdure.workflow import anyio_order\n"
        "anyio_order.install()\n"
        "assert 'anyio' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_cancelling_what_is_done_changes_nothing() -> None:
    @workflow
    async def late() -> list[Any]:
        host = running_execution()
        task = asyncio.create_task(echo(1))
        await asyncio.sleep(0)
        (future,) = host._futures.values()
        await task
        return [future.cancel(), future.cancelled(), hash(future) == hash(future)]

    assert drive(late).value == [False, False, True]


def test_the_loop_says_what_it_is() -> None:
    under_test = DeterministicLoop(Host())
    assert under_test.get_debug() is False
    assert under_test.get_task_factory() is None
    assert not under_test.is_closed()
    with pytest.raises(AttributeError):
        under_test.no_such_method  # noqa: B018 - only looked up
    assert sorted(loop.REFUSED) == loop.REFUSED


async def test_async_generators_outside_workflows_stay_the_other_loops() -> None:
    """Its hook for them is still called after a workflow has run on its thread; else it could not end them."""

    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    held: list[Any] = []

    @workflow
    async def iterates() -> int:
        held.append(numbers())
        return await anext(held[0])

    run = drive(iterates, evict=0)
    assert run.value == 1
    assert held[0].ag_frame is None, "the workflow's own has ended with it"
    mine = numbers()
    assert await anext(mine) == 1
    assert mine in asyncio.get_running_loop()._asyncgens  # type: ignore[attr-defined]
    await mine.aclose()
