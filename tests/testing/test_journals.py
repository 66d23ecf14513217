"""Journals in tests: as text, as steps, and as golden files that are replayed."""

from __future__ import annotations

import asyncio

import pytest

import perdure
from perdure import Retry, step, workflow
from perdure.core.errors import CorruptJournal, NondeterminismError
from perdure.testing import TestEngine, golden, replies, steps_of, transcript


@step(retry=Retry(attempts=2, delay=30, jitter=0))
async def send_mail(to: str) -> str:
    raise AssertionError(to)


@workflow
async def remind(to: str) -> str:
    await asyncio.sleep(7 * 86_400)
    return await send_mail(to)


@workflow(name="remind")
async def remind_twice(to: str) -> str:
    await send_mail(to)
    await asyncio.sleep(7 * 86_400)
    return await send_mail(to)


@workflow
async def approve() -> str:
    return await perdure.receive("approval", str)


async def test_a_journal_reads_as_text_and_as_steps():
    async with TestEngine([remind], steps={"send_mail": replies(TimeoutError("busy"), "sent")}) as engine:
        handle = await engine.start(remind, "ada")
        await handle.result()
        journal = await handle.journal()
    assert transcript(journal).splitlines() == [
        'started remind {"to": "ada"}',
        "7 days later: timer",
        'step send_mail {"to": "ada"} attempt 1 failed: TimeoutError',
        '30 seconds later: step send_mail {"to": "ada"} -> "sent"',
        'completed "sent"',
    ]
    [call] = steps_of(journal)
    assert (call.name, call.arguments, call.result, call.attempts) == ("send_mail", {"to": "ada"}, "sent", 2)


async def test_a_golden_journal_replays_and_tells_changed_code(tmp_path):
    file = tmp_path / "remind.jsonl"
    async with TestEngine([remind], steps={"send_mail": "sent"}) as engine:
        handle = await engine.start(remind, "ada")
        await handle.result()
        await golden.record(handle, file)
    golden.replay(file, remind)
    with pytest.raises(NondeterminismError, match="send_mail"):
        golden.replay(file, remind_twice)
    with pytest.raises(CorruptJournal, match="approve"):
        golden.replay(file, approve)


async def test_an_unfinished_golden_journal_replays(tmp_path):
    file = tmp_path / "approve.jsonl"
    async with TestEngine([approve]) as engine:
        handle = await engine.start(approve)
        await engine.advance(1)
        await golden.record(handle, file)
    golden.replay(file, approve)


@pytest.mark.parametrize("text", ["", "{}", "[1]\n", "no json", '{"kind": "perdure journal"}\n{"position": 0}'])
def test_what_is_no_golden_journal_is_refused(tmp_path, text):
    file = tmp_path / "x.jsonl"
    file.write_text(text)
    with pytest.raises(CorruptJournal):
        golden.replay(file, approve)
