"""Executions whose workflow no engine knows: listed as stalled, and ended where somebody asks for that."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.runtime.conftest import Lab, kinds, status

import perdure
from perdure import step, workflow


@step
async def note() -> int:
    return 1


@workflow
async def here() -> str:
    return "here"


class Codes:
    """What an engine knows only if it is told: it learns the workflows of a module by itself."""

    def __init__(self) -> None:
        @workflow(name="gone")
        async def gone() -> Any:
            await note()
            return await perdure.receive("go")

        @workflow(name="parent")
        async def parent() -> str:
            child = await perdure.start_child(gone, id="kid")
            try:
                await child.result()
            except perdure.PerdureError as error:
                return f"heard: {error}"
            return "not"

        self.gone, self.parent = gone, parent


codes = Codes()


async def ended(lab: Lab, name: str = "x") -> list[str]:
    async with lab.client() as client:
        with pytest.raises(perdure.ExecutionTerminated, match="not needed"):
            await client.handle(name).result(timeout=30)
        assert len(await client.list(prefix=name, status=["terminated"])) == 1
        return kinds(await client.handle(name).journal())


async def test_one_that_stalled_for_want_of_its_code_is_terminated(lab: Lab) -> None:
    async with lab.engine(codes.gone) as engine:
        await status(await engine.start(codes.gone, id="x"), "parked")
        await engine.handle("x").signal("other")
    async with lab.engine(here) as engine, lab.client() as client:
        async with lab.client() as other:
            await other.handle("x").signal("wakes it")
        await client.resume(engine.handle("x").key)
        await status(engine.handle("x"), "stalled")
        assert (await engine.handle("x").describe()).waits_for == "UnknownWorkflow"
        await client.handle("x").terminate("not needed")
        assert (await ended(lab))[-1] == "ExecutionTerminated"


async def test_a_request_that_was_there_before_the_engine_is_heard(lab: Lab) -> None:
    async with lab.engine(codes.gone) as engine:
        await status(await engine.start(codes.gone, id="x"), "parked")
    async with lab.client() as client:
        await client.handle("x").terminate("not needed")
    async with lab.engine(here):
        assert await ended(lab) == ["ExecutionStarted", "ExecutionClaimed", "StepCompleted", "ExecutionTerminated"]


async def test_one_that_never_began_ends_with_a_journal_that_says_how_it_started(lab: Lab) -> None:
    async with lab.client() as client:
        await client.start(codes.gone, id="x")
        for _ in range(3):
            await client.handle("x").signal("go")
        await client.handle("x").terminate("not needed")
    async with lab.engine(here) as engine:
        assert await ended(lab) == ["ExecutionStarted", "ExecutionTerminated"]
        assert len(engine.store.dead_letters(engine.handle("x").key, 9)) == 3


async def test_another_one_begins_in_its_place(lab: Lab) -> None:
    async with lab.client() as client:
        await client.start(codes.gone, id="x")
    async with lab.engine(here) as engine:
        await status(engine.handle("x"), "stalled")
        handle = await engine.start(here, id="x", on_conflict="terminate")
        assert await handle.result(timeout=30) == "here"


async def test_its_parent_hears_of_it(lab: Lab) -> None:
    async with lab.engine(codes.parent, codes.gone) as engine:
        handle = await engine.start(codes.parent, id="p")
        await status(handle, "parked")
    async with lab.engine(here) as engine:
        await engine.handle("kid").terminate("not needed")
        await ended(lab, "kid")
    async with lab.engine(codes.parent, codes.gone) as engine:
        assert "not needed" in await engine.handle("p").result(timeout=30)


async def test_what_nobody_asks_to_end_waits_for_its_code(lab: Lab) -> None:
    async with lab.client() as client:
        await client.start(codes.gone, id="x")
    async with lab.engine(here) as engine:
        await status(engine.handle("x"), "stalled")
        assert engine._worker is not None
        assert engine._worker.drivers == {}
    async with lab.engine(here, codes.gone) as engine:
        await engine.handle("x").signal("go", 5)
        assert await engine.handle("x").result(timeout=30) == 5


async def test_what_stalled_and_is_asked_to_make_room_is_not_told_as_stalled(lab: Lab) -> None:
    """Whoever waits for the new one does not hear of the old one's stall."""
    async with lab.client() as client:
        await client.start(codes.gone, id="x")
        async with lab.engine(here) as engine:
            await status(engine.handle("x"), "stalled")
        handle = await client.start(here, id="x", on_conflict="terminate")
        asked = asyncio.create_task(handle.result(timeout=30))
        await asyncio.sleep(0.05)
        assert not asked.done()
        async with lab.engine(here):
            assert await asked == "here"
