"""The engine for tests: virtual time, stand-ins, and otherwise the real thing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

import perdure
from perdure import Retry, step, workflow
from perdure.core.errors import EngineMisused
from perdure.testing import TestEngine, replies

START = datetime(2030, 1, 1, tzinfo=UTC)


@step(retry=Retry(attempts=3, delay=30, jitter=0))
async def send_mail(to: str) -> str:
    raise AssertionError(f"a test must not send mail to {to}")


@step
def blocking(_number: int) -> int:
    raise AssertionError


@step
async def never() -> None:
    await asyncio.Event().wait()


@workflow
async def remind(to: str) -> str:
    await asyncio.sleep(timedelta(days=7).total_seconds())
    return await send_mail(to)


@workflow
async def approve() -> str:
    try:
        return await perdure.receive("approval", str, timeout=timedelta(days=3))
    except TimeoutError:
        return "timed out"


@workflow
async def counts() -> int:
    return await blocking(1) + await blocking(2)


@workflow
async def hangs() -> None:
    await never()


async def test_a_week_passes_while_its_end_is_awaited():
    async with TestEngine([remind], steps={"send_mail": "sent"}) as engine:
        handle = await engine.start(remind, "ada")
        assert await handle.result() == "sent"
        assert engine.clock.now() == START + timedelta(days=7)


async def test_retries_wait_in_virtual_time_and_stand_ins_answer_in_turn():
    mail = replies(TimeoutError("busy"), "sent")
    async with TestEngine([remind], steps={send_mail: mail}) as engine:
        handle = await engine.start(remind, "ada")
        assert await handle.result() == "sent"
        assert mail.calls == [(("ada",), {})] * 2
        assert engine.clock.now() == START + timedelta(days=7, seconds=30)


async def test_time_moves_by_hand_timer_by_timer():
    async with TestEngine([remind], steps={"send_mail": "sent"}, skip_time=False) as engine:
        handle = await engine.start(remind, "ada")
        await engine.advance(timedelta(days=6))
        assert (await handle.describe()).status in {"active", "parked"}
        await engine.advance(timedelta(days=1))
        assert (await handle.describe()).status == "completed"


async def test_a_signal_before_the_timeout_wins_and_without_one_time_runs_out():
    async with TestEngine([approve]) as engine:
        first = await engine.start(approve)
        await engine.advance(timedelta(days=2))
        await first.signal("approval", "yes")
        assert await first.result() == "yes"
        second = await engine.start(approve)
        assert await second.result() == "timed out"
        assert engine.clock.now() == START + timedelta(days=5)


async def test_plain_steps_have_stand_ins_too():
    async with TestEngine([counts], steps={"blocking": lambda number: 10 * number}) as engine:
        assert await (await engine.start(counts)).result() == 30


async def test_a_step_that_does_not_end_is_named():
    async with TestEngine([hangs], patience=0.05) as engine:
        await engine.start(hangs)
        with pytest.raises(EngineMisused, match="never has been running"):
            await engine.advance(1)


async def test_more_calls_than_answers_say_so():
    async with TestEngine([remind], steps={"send_mail": replies()}) as engine:
        handle = await engine.start(remind, "ada")
        with pytest.raises(perdure.ExecutionFailed, match="has only 0 answers"):
            await handle.result()
