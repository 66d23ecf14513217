"""Virtual time where it is not a timer that is waited for: updates, questions, steps; and what can never come."""

from __future__ import annotations

import asyncio
import time

import pytest

import perdure
from perdure import Happened, Retry, StillUnknown, step, workflow
from perdure.core.errors import EngineMisused, NothingLeft, StepFailed
from perdure.encryption import KeyRing, generate_key
from perdure.testing import AlwaysReplay, ReplayDiffers, TestEngine

asked: list[str] = []


async def find_out(key: str, _number: int) -> perdure.Happened | perdure.StillUnknown:
    asked.append(key)
    return StillUnknown() if len(asked) < 4 else Happened(7)


@step(once=True, reconcile=find_out)
async def order(_number: int) -> int:
    raise ValueError


@step(once=True)
async def parks() -> int:
    raise ValueError


@step(timeout=20, retry=Retry(attempts=2, delay=1, jitter=0))
async def sleeps_too_long() -> int:
    await asyncio.sleep(100_000)
    return 1


@step
async def sleeps_an_hour() -> str:
    await asyncio.sleep(3_600)
    return "slept"


@step
async def gives_up_itself() -> str:
    try:
        async with asyncio.timeout(60):
            await asyncio.sleep(3_600)
    except TimeoutError:
        return "gave up"
    return "slept"


@step(timeout=3_600, retry=Retry(attempts=1))
async def waits_for_the_world() -> None:
    await asyncio.Event().wait()


@step
async def waits_without_limit() -> None:
    await asyncio.Event().wait()


@step(concurrency=1)
async def one_at_a_time() -> None:
    await asyncio.sleep(60)


@workflow
async def orders() -> int:
    return await order(1)


@workflow
async def orders_blindly() -> int:
    return await parks()


@workflow
async def adds() -> str:
    @perdure.on_update
    async def slowly(number: int) -> int:
        await asyncio.sleep(3_600)
        return number + 1

    return await perdure.receive("stop", str)


@workflow
async def too_long() -> str:
    try:
        await sleeps_too_long()
    except StepFailed as failed:
        return failed.failure.type.rpartition(".")[2]
    return "?"


@workflow
async def an_hour() -> str:
    return await sleeps_an_hour()


@workflow
async def a_minute() -> str:
    return await gives_up_itself()


@workflow
async def world() -> str:
    try:
        await waits_for_the_world()
    except StepFailed as failed:
        return failed.failure.type.rpartition(".")[2]
    return "?"


@workflow
async def endless() -> None:
    await waits_without_limit()


@workflow
async def in_turn() -> None:
    await asyncio.gather(one_at_a_time(), one_at_a_time(), one_at_a_time())


calls: list[str] = []


@workflow
async def forgets_itself() -> None:
    calls.append("again")
    await asyncio.sleep(len(calls))


async def test_questions_about_a_step_wait_in_virtual_time():
    asked.clear()
    async with TestEngine([orders]) as engine:
        begin = engine.clock.now()
        handle = await engine.start(orders)
        assert await handle.result() == 7
        assert len(asked) == 4
        assert (engine.clock.now() - begin).total_seconds() > 3


async def test_questions_about_a_step_do_not_hold_up_time_that_is_moved_by_hand():
    asked.clear()
    async with TestEngine([orders], skip_time=False) as engine:
        handle = await engine.start(orders)
        await engine.advance(3_600)
        assert await handle.result() == 7


async def test_time_passes_while_an_update_is_awaited():
    async with TestEngine([adds]) as engine:
        handle = await engine.start(adds)
        begin = engine.clock.now()
        assert await handle.update("slowly", 1) == 2
        assert (engine.clock.now() - begin).total_seconds() == 3_600
        await handle.terminate()


async def test_a_steps_limit_is_reached_in_virtual_time():
    async with TestEngine([too_long]) as engine:
        handle, begin, began_s = await engine.start(too_long), engine.clock.now(), time.monotonic()
        assert await handle.result() == "StepTimeout"
        assert 40 <= (engine.clock.now() - begin).total_seconds() <= 42
        assert time.monotonic() - began_s < 15


async def test_a_steps_limit_is_passed_by_hand():
    async with TestEngine([too_long], skip_time=False) as engine:
        handle = await engine.start(too_long)
        await engine.advance(60)
        assert await handle.result() == "StepTimeout"


async def test_a_step_that_sleeps_does_so_in_virtual_time():
    async with TestEngine([an_hour]) as engine:
        handle, begin = await engine.start(an_hour), engine.clock.now()
        assert await handle.result() == "slept"
        assert 3_590 <= (engine.clock.now() - begin).total_seconds() <= 3_600


async def test_a_step_sleeps_on_when_time_is_moved_in_parts():
    async with TestEngine([an_hour], skip_time=False) as engine:
        handle = await engine.start(an_hour)
        for _ in range(3):
            await engine.advance(1_000)
            assert (await handle.describe()).status == "active"
        await engine.advance(600)
        assert await handle.result() == "slept"


async def test_what_limits_the_sleep_of_a_step_rings_first():
    async with TestEngine([a_minute]) as engine:
        handle, begin = await engine.start(a_minute), engine.clock.now()
        assert await handle.result() == "gave up"
        assert (engine.clock.now() - begin).total_seconds() <= 60


async def test_steps_that_wait_for_their_place_do_not_hold_up_those_that_sleep():
    async with TestEngine([in_turn]) as engine:
        begin = engine.clock.now()
        await (await engine.start(in_turn)).result()
        assert 175 <= (engine.clock.now() - begin).total_seconds() <= 180


async def test_a_step_that_hangs_is_taken_to_its_limit():
    async with TestEngine([world], patience=0.1) as engine:
        handle = await engine.start(world)
        assert await handle.result() == "StepTimeout"


async def test_a_step_that_hangs_and_has_no_limit_is_named_to_who_awaits_the_result():
    async with TestEngine([endless], patience=0.1) as engine:
        handle = await engine.start(endless)
        with pytest.raises(EngineMisused, match="waits_without_limit has been running"):
            await handle.result()


async def test_awaiting_a_signal_that_nobody_will_send_is_told_at_once():
    async with TestEngine([adds], patience=60) as engine:
        handle, began_s = await engine.start(adds, id="x"), time.monotonic()
        with pytest.raises(NothingLeft, match="execution 'x' waits for signal stop"):
            await handle.result()
        assert time.monotonic() - began_s < 20


async def test_awaiting_an_outcome_that_nobody_knows_is_told_at_once():
    async with TestEngine([orders_blindly], patience=60) as engine:
        handle = await engine.start(orders_blindly)
        with pytest.raises(NothingLeft, match="outcome of step 'parks'"):
            await handle.result()


async def test_one_who_sends_later_is_waited_for():
    async with TestEngine([adds]) as engine:
        handle = await engine.start(adds)

        async def sends() -> None:
            await asyncio.sleep(0.1)
            await handle.signal("stop", "enough")

        async with asyncio.TaskGroup() as group:
            result = group.create_task(handle.result())
            group.create_task(sends())
        assert result.result() == "enough"


async def test_awaits_in_tasks_of_their_own_are_told_at_once_too():
    async with TestEngine([adds], patience=60) as engine:
        handles = [await engine.start(adds) for _ in range(2)]
        found = await asyncio.gather(*[handle.result() for handle in handles], return_exceptions=True)
        assert [type(each) for each in found] == [NothingLeft, NothingLeft]


async def test_a_stand_in_with_a_typo_is_refused_with_the_name_that_is_meant():
    with pytest.raises(EngineMisused, match="'sleeps_an_hour' meant"):
        async with TestEngine([an_hour], steps={"sleep_an_hour": "x"}):
            pass


async def test_a_stand_in_that_no_step_can_mean_is_told_at_the_end():
    with pytest.raises(EngineMisused, match="'zzz123', but no step"):
        async with TestEngine([an_hour], steps={"zzz123": "x", "sleeps_an_hour": "y"}) as engine:
            assert await (await engine.start(an_hour)).result() == "y"


async def test_a_stand_in_of_a_step_that_is_not_called_is_fine():
    async with TestEngine([an_hour], steps={"parks": 1, order: 2}):
        pass


async def test_what_goes_wrong_in_the_test_is_told_rather_than_a_stand_in():
    with pytest.raises(ZeroDivisionError):
        async with TestEngine([an_hour], steps={"zzz123": "x"}):
            raise ZeroDivisionError


async def test_values_are_encrypted_with_a_codec():
    async with TestEngine(
        [an_hour], steps={"sleeps_an_hour": "secret"}, codec=KeyRing({"k": generate_key()}, current="k")
    ) as engine:
        handle = await engine.start(an_hour, id="x")
        assert await handle.result() == "secret"
        inner = engine.store.inner.load(handle.key, (await handle.runs())[0].run, 0, 100)
        assert b"secret" not in repr(inner).encode()


async def test_a_workflow_that_is_not_deterministic_is_found_by_replaying_it():
    with pytest.raises(ReplayDiffers, match="replay"):
        async with TestEngine([forgets_itself]) as engine:
            await (await engine.start(forgets_itself)).result()


async def test_replaying_can_be_left_out(always_replay: AlwaysReplay):
    async with TestEngine([forgets_itself], always_replay=False) as engine:
        await (await engine.start(forgets_itself)).result()
    assert always_replay.problems  # of these tests' own watch, which looked instead
    always_replay.problems.clear()
