"""Letters whose bytes were changed: their execution stalls and says so, nothing is tried for ever; it can be ended."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.runtime.conftest import Lab, status

import perdure
from perdure import workflow


@workflow
async def listens() -> Any:
    return await perdure.receive("go")


def damage(path: Path, message_id: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE inbox SET body = x'c1' WHERE message_id = ?", (message_id,))
    assert connection.changes() == 1
    connection.close()


async def test_one_in_an_inbox_that_is_read_anew_stalls_its_execution(lab: Lab) -> None:
    async with lab.engine(listens) as engine:
        await status(await engine.start(listens, id="x"), "parked")
    async with lab.client() as client:
        await client.handle("x").signal("go", 1, id="m1")
        damage(lab.path, "m1")
    async with lab.engine(listens) as engine:
        row = await status(engine.handle("x"), "stalled")
        assert row.waits_for == "CorruptJournal"
        assert "m1" in row.problem


async def test_one_that_comes_to_an_execution_in_memory_stalls_it_once(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    async with lab.engine(listens) as engine:
        handle = await engine.start(listens, id="x")
        await handle.pause()
        await status(handle, "paused")
        await handle.signal("go", 1, id="m1")
        damage(lab.path, "m1")
        await handle.resume()
        await status(handle, "stalled")
        await asyncio.sleep(0.7)  # longer than the pause between two tries of what is tried again
        assert len([each for each in caplog.records if "stalled" in each.message]) == 1
        assert "trying again" not in caplog.text
        await handle.terminate("damaged")
        with pytest.raises(perdure.ExecutionTerminated, match="damaged"):
            await handle.result(timeout=30)


async def test_a_damaged_request_hides_none_behind_it(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    async with lab.engine(listens) as engine:
        await status(await engine.start(listens, id="x"), "parked")
    async with lab.client() as client:
        key = client.handle("x").key
        await client.handle("x").terminate("first")
        [letter] = client.store.inbox(key, 9)
        damage(lab.path, letter.message_id)
    async with lab.engine(listens) as engine:
        handle = engine.handle("x")
        await status(handle, "stalled")
        await handle.terminate("second")
        with pytest.raises(perdure.ExecutionTerminated, match="second"):
            await handle.result(timeout=30)
        assert "trying again" not in caplog.text
