"""While executions come by the hundred, full garbage collections wait, for seconds; settings of others stay."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest
from tests.runtime.conftest import Lab, until
from tests.runtime.noting import seen

from perdure import step, workflow
from perdure.runtime import rush
from perdure.runtime.rush import MANY, NEVER, Rush

USERS = (701, 11, 12)


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*USERS)
    yield
    gc.set_threshold(*before)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rush, "WINDOW_S", 0.01)


@pytest.fixture
def shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long enough for hundreds of starts on a busy machine."""
    monkeypatch.setattr(rush, "WINDOW_S", 1.0)


def begun() -> Rush:
    found = Rush()
    for _ in range(MANY):
        found.arrived()
    return found


@workflow
async def nothing() -> int:
    return gc.get_threshold()[2]


@step
async def hold() -> None:
    seen.append(gc.get_threshold()[2])
    await asyncio.sleep(3600)


@workflow
async def holds() -> None:
    await hold()


async def test_hundreds_of_starts_are_a_rush_and_a_few_are_none(lab: Lab, shorter: None) -> None:
    async with lab.engine(nothing) as engine:
        few = await asyncio.gather(*[engine.start(nothing) for _ in range(MANY // 2)])
        assert {await each.result() for each in few} == {USERS[2]}
        many = await asyncio.gather(*[engine.start(nothing) for _ in range(2 * MANY)])
        assert NEVER in {await each.result() for each in many}
        await until(lambda: gc.get_threshold() == USERS)


async def test_a_restart_with_hundreds_in_flight_is_a_rush(lab: Lab, shorter: None) -> None:
    async with lab.doomed(holds) as engine:
        await asyncio.gather(*[engine.start(holds) for _ in range(2 * MANY)])
        await until(lambda: len(seen) == 2 * MANY)
    assert gc.get_threshold() == USERS
    seen.clear()
    async with lab.engine(holds, shutdown_timeout=0):
        await until(lambda: len(seen) == 2 * MANY)
        assert (seen[0], seen[-1]) == (USERS[2], NEVER)
        await until(lambda: gc.get_threshold() == USERS)


async def test_an_engine_that_closes_in_a_rush_leaves_the_thresholds_as_they_were(lab: Lab) -> None:
    async with lab.engine(nothing) as engine:
        await asyncio.gather(*[engine.start(nothing) for _ in range(MANY)])
        assert gc.get_threshold() == (*USERS[:2], NEVER)
    assert gc.get_threshold() == USERS


async def test_without_a_pause_it_ends_all_the_same_for_a_full_collection(
    short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rush, "LONGEST_S", 0.1)
    found, full = begun(), gc.get_stats()[2]["collections"]

    async def collected() -> bool:
        for _ in range(MANY):
            found.arrived()
        kept.append([[] for _ in range(10_000)])
        return gc.get_stats()[2]["collections"] > full

    kept: list[object] = []
    assert gc.get_threshold()[2] == NEVER
    await until(collected)
    found.end()


async def test_thresholds_that_somebody_sets_meanwhile_stay(short: None) -> None:
    found = begun()
    gc.set_threshold(900, 9, 9)
    found.end()
    assert gc.get_threshold() == (900, 9, 9)


async def test_of_two_engines_the_one_that_began_it_ends_it(short: None) -> None:
    one, other = begun(), begun()
    other.end()
    assert gc.get_threshold()[2] == NEVER
    one.end()
    assert gc.get_threshold() == USERS
