"""`handle.stack()`: where the tasks of an execution stand, whoever asks, and whether it is in memory or not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.conftest import Lab, status, until

import perdure
from perdure import step, workflow
from perdure.core.errors import ExecutionNotFound, ExecutionStalled, NobodyAnswers, UnknownWorkflow
from perdure.workflow.standing import Stack, Waiting

HERE = Path(__file__).name


@step
async def hold(word: str) -> str:
    await asyncio.sleep(3_600)
    return word


@step(retry=perdure.Retry(attempts=5, delay=3_600))
async def unlucky() -> None:
    raise ConnectionError("no answer")


@workflow
async def waits_for_ever() -> None:
    await perdure.receive("never")


async def inner(word: str) -> str:
    return await hold(word)


@workflow
async def busy() -> None:
    held = asyncio.Event()

    async def held_up() -> None:
        await held.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(inner("x"), name="a step")
        group.create_task(unlucky(), name="retried")
        group.create_task(asyncio.sleep(3_600), name="timer")
        group.create_task(waits_for_ever(), name="child")
        group.create_task(perdure.receive("approval"), name="signal")
        group.create_task(held_up(), name="event")
        group.create_task(wait_together(), name="together")


async def wait_together() -> None:
    await asyncio.gather(asyncio.sleep(3_600), asyncio.sleep(7_200))


def line(word: str) -> str:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return f"{HERE}:{next(number for number, each in enumerate(lines, 1) if word in each)}"


def check(told: Stack) -> None:
    by_name = {each.task: each for each in told.waiting}
    assert told.more == 0
    assert by_name["main"].awaits == "the tasks of its asyncio.TaskGroup"
    assert by_name["main"].frames[0].function == "busy"
    a_step = by_name["a step"]
    assert [(frame.place, frame.function) for frame in a_step.frames] == [(line("return await hold(word)"), "inner")]
    assert (a_step.awaits, a_step.attempt) == ("step 'hold'", 1)
    assert by_name["retried"].awaits == "step 'unlucky', attempt 2"
    assert by_name["retried"].due_at_ms > 0
    assert (by_name["timer"].awaits, by_name["timer"].due_at_ms > 0) == ("a timer", True)
    assert by_name["child"].awaits.startswith("child '")
    assert (by_name["signal"].awaits, by_name["signal"].seq) == ("signal 'approval'", 0)
    assert by_name["event"].awaits == "an asyncio.Event"
    assert by_name["event"].frames[0].place == line("await held.wait()")
    assert by_name["together"].awaits == "2 of 2 awaited together"
    seqs = [each.seq for each in told.waiting if each.seq]
    assert len(set(seqs)) == len(seqs) == 6


async def tried(handle: perdure.Handle[Any]) -> Any:
    return [each for each in (await handle.stack()).waiting if each.task == "retried" and each.attempt == 2]


async def test_every_task_is_told_with_its_lines_and_what_it_awaits(lab: Lab) -> None:
    async with lab.engine(busy, waits_for_ever, shutdown_timeout=0) as engine, lab.client() as client:
        handle = await engine.start(busy, id="a")
        await until(lambda: tried(handle))
        check(await handle.stack())
        check(await client.handle("a").stack())  # over the local socket


async def test_what_was_evicted_or_parked_is_loaded_to_be_looked_at(lab: Lab) -> None:
    async with lab.engine(waits_for_ever, cache=0) as engine:
        handle = await engine.start(waits_for_ever, id="a")
        row = await status(handle, "parked")
        await until(lambda: handle.key not in engine._running().drivers)
        told = await handle.stack()
        assert told.waiting == [
            Waiting("main", told.waiting[0].frames, "signal 'never'"),
        ]
        assert told.waiting[0].frames[-1].place == line('perdure.receive("never")')
        assert (await handle.describe()).position == row.position


async def test_nobody_is_there_to_tell(lab: Lab) -> None:
    async with lab.engine(waits_for_ever) as engine:
        await status(await engine.start(waits_for_ever, id="a"), "parked")
        with pytest.raises(ExecutionNotFound):
            await engine.handle("nobody").stack()
        await engine.handle("a").terminate()
        await status(engine.handle("a"), "terminated")
        assert (await engine.handle("a").stack()).waiting == []
        await status(await engine.start(waits_for_ever, id="b"), "parked")
    async with lab.client() as client:
        with pytest.raises(NobodyAnswers):
            await client.handle("b").stack()
    other = workflow(name="other")(_other)
    async with perdure.Engine(lab.path, workflows=[]) as engine:
        with pytest.raises(UnknownWorkflow):
            await engine.handle("b").stack()
        await engine.start(other, id="c")


async def _other() -> None:
    return


async def test_what_stalled_has_no_stack_but_its_problem(lab: Lab) -> None:
    async with lab.engine(waits_for_ever) as engine:
        await status(await engine.start(waits_for_ever, id="a"), "parked")
        await engine.handle("a").signal("never")
        await engine.handle("a").result()
    changed = workflow(name="waits_for_ever")(_asks_more)
    async with lab.engine(changed) as engine:
        handle = engine.handle("a")
        await handle.rewind(at=3)
        await status(handle, "stalled")
        with pytest.raises(ExecutionStalled):
            await handle.stack()


async def _asks_more() -> None:
    await perdure.receive("never")
    open("/etc/passwd")  # noqa: ASYNC230, PTH123, SIM115 - refused
