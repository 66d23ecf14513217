"""Children and their parents over a real store: who ends whom, who waits for whom, and how many there may be."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.runtime.conftest import Lab, status, until
from tests.runtime.noting import echo, note, seen

import perdure
from perdure import workflow
from perdure.store.sqlite import SqliteStore


@workflow
async def cleans() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await note("cleaned")


async def test_whoever_waits_for_a_cancelled_child_goes_on_when_it_has_cleaned_up(lab: Lab) -> None:
    @workflow(name="considerate")
    async def considerate() -> list[Any]:
        child = await perdure.start_child(cleans, id="child")
        try:
            async with asyncio.timeout(0.05):
                await child.result(on_cancel="wait")
        except TimeoutError:
            return [await note("after")]
        return []

    async with lab.engine(considerate, cleans) as engine:
        assert await (await engine.start(considerate)).result(timeout=30) == ["after"]
        assert seen == ["cleaned", "after"]
        with pytest.raises(perdure.ExecutionCancelled, match="stopped waiting"):
            await engine.handle("child").result(timeout=30)


async def test_an_unknown_way_to_stop_waiting_for_a_child_is_refused(lab: Lab) -> None:
    @workflow(name="asks_oddly")
    async def asks_oddly() -> None:
        child = await perdure.start_child(echo, "x")
        await child.result(on_cancel="ignore")  # type: ignore[arg-type]

    async with lab.engine(asks_oddly, echo) as engine:
        with pytest.raises(perdure.ExecutionFailed, match=r"Option on_cancel='ignore' is not valid"):
            await (await engine.start(asks_oddly)).result(timeout=30)


@pytest.mark.parametrize(
    ("policy", "ends", "cleaned"),
    [("terminate", "terminated", []), ("cancel", "cancelled", ["cleaned"]), ("abandon", "parked", [])],
)
@pytest.mark.parametrize("direct", [True, False])
async def test_the_policy_holds_when_the_worker_dies_as_the_parent_closes(
    lab: Lab, policy: Any, ends: str, cleaned: list[str], *, direct: bool
) -> None:
    """At once with the close, and where the request has only reached the outbox."""

    @workflow(name="leaves")
    async def leaves() -> str:
        await perdure.start_child(cleans, id="child", on_parent_close=policy)
        return await perdure.receive("leave")

    store = SqliteStore(lab.path, durability="process", direct=direct)
    async with lab.doomed(leaves, cleans, store=store) as engine:
        handle = await engine.start(leaves, id="p")

        async def both_wait() -> bool:
            return len(await engine.list(status=["parked"])) == 2

        await until(both_wait)
        await handle.signal("leave", "now")
        await handle.result(timeout=30)
    store.close()
    async with lab.engine(leaves, cleans) as engine:
        await until(lambda: not len(engine._worker.arrivals))  # type: ignore[union-attr]
        assert (await status(engine.handle("child"), ends)).parent
        assert seen == cleaned


async def test_many_children_of_one_parent_run_in_bounded_memory(lab: Lab) -> None:
    @workflow(name="crowd")
    async def crowd(n: int) -> int:
        return len(await asyncio.gather(*[echo(str(i)) for i in range(n)]))

    async with lab.engine(crowd, echo, max_active=50) as engine:
        handle = await engine.start(crowd, 400)
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, len(engine._worker.drivers))  # type: ignore[union-attr]
                await asyncio.sleep(0.002)

        watching = asyncio.create_task(watch())
        try:
            assert await handle.result(timeout=50) == 400
        finally:
            watching.cancel()
    assert 10 < most <= 52
    assert len(seen) == 400
