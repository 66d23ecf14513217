"""Many thousands: signals to one receiver, copies of the same few messages, children of one parent.

Without replaying at every rest, which would be most of the work; the whole journal is replayed at the end.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.runtime.conftest import Lab

import perdure
from perdure import step, workflow
from perdure.runtime.worker import Worker
from perdure.testing import golden

MANY = 10_000
CHILDREN = 2_000
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _replays_at_the_end_only(always_replay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "observer", None)


@workflow
async def collects(n: int) -> list[int]:
    return [await perdure.receive("number", int) for _ in range(n)]


async def test_ten_thousand_signals_are_taken_once_and_in_order(lab: Lab) -> None:
    async with lab.engine(collects) as engine:
        handle = await engine.start(collects, MANY)
        for begin in range(0, MANY, 1_000):  # one after the other in what each group of the committer holds
            await asyncio.gather(*[handle.signal("number", n) for n in range(begin, begin + 1_000)])
        assert await handle.result(timeout=50) == list(range(MANY))
        assert golden.disagreement(collects, handle.id, await handle.journal()) is None


async def test_a_storm_of_copies_is_taken_as_the_few_that_they_are(lab: Lab) -> None:
    async with lab.engine(collects) as engine:
        handle = await engine.start(collects, 6)
        await asyncio.gather(*[handle.signal("number", n % 5, id=f"message-{n % 5}") for n in range(MANY)])
        await handle.signal("number", 5)
        assert sorted(await handle.result(timeout=50)) == [0, 1, 2, 3, 4, 5]
        taken = [each.event for each in await handle.journal() if type(each.event).__name__ == "SignalReceived"]
        assert len(taken) == 6


@step
async def number(n: int) -> int:
    return n


@workflow
async def child(n: int) -> int:
    return await number(n)


@workflow
async def parent(n: int) -> int:
    return sum(await asyncio.gather(*[child(i) for i in range(n)]))


async def test_thousands_of_children_answer_their_parent(lab: Lab) -> None:
    async with lab.engine(parent, child) as engine:
        handle = await engine.start(parent, CHILDREN)
        assert await handle.result(timeout=55) == sum(range(CHILDREN))
        assert golden.disagreement(parent, handle.id, await handle.journal()) is None
