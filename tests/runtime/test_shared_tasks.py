"""Attempts share tasks as long as none of them waits, and notice nothing of that."""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar
from typing import Any

import anyio
from tests.runtime.conftest import Lab

import perdure
from perdure import step, workflow
from perdure.runtime.shared_tasks import SharedTasks

MANY = 50
whose: ContextVar[str] = ContextVar("whose", default="nobody's")
arrived: list[asyncio.Event] = []


@step
async def leaves_a_mark(name: str, pause_s: float) -> list[str]:
    before = whose.get()
    whose.set(name)
    if pause_s:
        await asyncio.sleep(pause_s)
    return [before, whose.get()]


@workflow
async def marks() -> list[list[str]]:
    names = [(f"{n}", 0.001 * (n % 3)) for n in range(MANY)]
    return await asyncio.gather(*[leaves_a_mark(name, pause_s) for name, pause_s in names])


async def test_no_attempt_sees_what_another_set_in_its_context(lab: Lab) -> None:
    whose.set("the caller's")
    async with lab.engine(marks) as engine:
        whose.set("changed since")
        found = await (await engine.start(marks)).result(timeout=40)
    assert found == [["the caller's", f"{n}"] for n in range(MANY)]


@step
async def one_task(pause_s: float) -> bool:
    """Whether it is one task from beginning to end; what libraries keep by task relies on that."""
    task = asyncio.current_task()
    async with asyncio.timeout(5):
        with anyio.fail_after(5):
            await asyncio.sleep(pause_s)
            async with anyio.create_task_group() as group:
                group.start_soon(asyncio.sleep, 0)
    return task is asyncio.current_task() and task is not None and task.get_name() == one_task.name


@workflow
async def tasks() -> list[bool]:
    return await asyncio.gather(*[one_task(0.001 * (n % 2)) for n in range(MANY)])


async def test_an_attempt_has_one_task_from_beginning_to_end(lab: Lab) -> None:
    async with lab.engine(tasks) as engine:
        assert await (await engine.start(tasks)).result(timeout=40) == [True] * MANY


@step
async def cancels_itself(*, takes_back: bool) -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    if takes_back:
        task.uncancel()
    return "ended before it noticed"


@step(retry=perdure.Retry(attempts=1))
async def waits_a_little(n: int) -> int:
    await asyncio.sleep(0)
    return n


@workflow
async def neighbours() -> list[Any]:
    calls: list[Any] = []
    for n in range(MANY // 2):
        calls += [cancels_itself(takes_back=bool(n % 2)), waits_a_little(n)]
    return await asyncio.gather(*calls)


async def test_an_attempt_that_cancels_its_task_as_it_ends_cancels_no_other(lab: Lab) -> None:
    async with lab.engine(neighbours) as engine:
        found = await (await engine.start(neighbours)).result(timeout=40)
    assert found == [value for n in range(MANY // 2) for value in ("ended before it noticed", n)]


@step
async def meets_all() -> int:
    """Nobody goes on before all have begun."""
    arrived.append(asyncio.Event())
    if len(arrived) == MANY:
        for each in arrived:
            each.set()
    await arrived[-1].wait()
    return 1


@workflow
async def meeting() -> int:
    return sum(await asyncio.gather(*[meets_all() for _ in range(MANY)]))


async def test_attempts_that_wait_run_beside_each_other(lab: Lab) -> None:
    arrived.clear()
    async with lab.engine(meeting) as engine:
        assert await (await engine.start(meeting)).result(timeout=40) == MANY


@step(retry=perdure.Retry(attempts=1))
async def hears_of_it() -> str:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_exception, ConnectionError("the line broke"))
    try:
        await future
    except ConnectionError as error:
        return str(error)
    return "nothing was raised"


@workflow
async def hearing() -> str:
    return await hears_of_it()


async def test_what_an_attempt_waits_for_raises_in_it(lab: Lab) -> None:
    async with lab.engine(hearing) as engine:
        assert await (await engine.start(hearing)).result(timeout=40) == "the line broke"


class Run:
    """As much of a run as tasks look at."""

    def __init__(self, name: str) -> None:
        self.name, self.cancelled = name, False
        self.task: asyncio.Task[Any] | None = None


async def test_attempts_that_never_wait_share_a_task_and_those_that_do_have_their_own() -> None:
    begun: list[tuple[str, asyncio.Task[Any] | None]] = []
    gate = asyncio.Event()

    async def work(run: Any) -> None:
        begun.append((run.name, run.task))
        if run.name.startswith("slow"):
            await gate.wait()

    tasks = SharedTasks(work)
    runs = [Run(name) for name in ("quick 1", "quick 2", "cancelled", "slow 1", "slow 2", "quick 3")]
    runs[2].cancelled = True
    for run in runs:
        tasks.begin(run)  # type: ignore[arg-type]
    await tasks.begun()
    by_name = dict(begun)
    assert set(by_name) == {"quick 1", "quick 2", "slow 1", "slow 2", "quick 3"}
    assert by_name["quick 1"] is by_name["quick 2"] is by_name["slow 1"]
    assert by_name["slow 2"] is not by_name["slow 1"]
    assert {task for task in tasks.alive if not task.done()} >= {by_name["slow 1"], by_name["slow 2"]}
    gate.set()
    await asyncio.wait([task for task in by_name.values() if task is not None], timeout=5)
    assert not tasks.alive
    assert not tasks.waiting


async def test_when_an_attempt_breaks_its_task_the_ones_behind_it_begin_all_the_same() -> None:
    begun: list[str] = []

    async def work(run: Any) -> None:
        begun.append(run.name)
        if run.name == "broken":
            raise asyncio.CancelledError  # as its end has it: what is not the step's own failure passes

    tasks = SharedTasks(work)
    for name in ("broken", "behind"):
        tasks.begin(Run(name))  # type: ignore[arg-type]
    await tasks.begun()
    await asyncio.sleep(0)
    assert begun == ["broken", "behind"]
    assert not tasks.alive


async def test_attempts_that_never_wait_do_not_keep_the_loop_to_themselves() -> None:
    """Each brings the next one: as when more of them stand in line than may run at once."""
    loop, passes = asyncio.get_running_loop(), 0
    seen: list[int] = []

    def count() -> None:
        nonlocal passes
        passes += 1
        loop.call_soon(count)

    async def work(run: Any) -> None:
        seen.append(passes)
        until = time.monotonic() + 0.002
        while time.monotonic() < until:
            pass
        if len(seen) < MANY:
            tasks.begin(Run("next"))  # type: ignore[arg-type]
        if run.name == "waits":
            await asyncio.sleep(0)

    tasks = SharedTasks(work)
    count()
    for name in ("quick", "waits", "quick", "quick", "quick"):  # the one that waits has the others get tasks
        tasks.begin(Run(name))  # type: ignore[arg-type]
    await tasks.begun()
    assert max(seen.count(each) for each in set(seen)) <= 5 + 10  # that began with, and in 10 ms of 2 ms each
