"""The chat: on virtual time, over many runs, and with a worker that is killed again and again."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from tests.examples.test_small_examples import EXAMPLES, load, run

import perdure
from perdure.testing import TestEngine, steps_of

MESSAGES, KILLS = 45, 4


@pytest.fixture(scope="module")
def chat():
    return load("chat/chat.py")


async def test_a_long_chat_is_many_short_runs_that_forget_nothing(chat):
    async with TestEngine([chat.chat]) as engine:
        handle = await engine.start(chat.chat, "ada", id="c")
        replies = [await handle.update("say", f"message {n}") for n in range(1, MESSAGES + 1)]
        assert replies[0] == "1: you said message 1."
        assert replies[1:] == [
            f"{n}: you said message {n}. Before that: message {n - 1}." for n in range(2, MESSAGES + 1)
        ]
        talk = await handle.query("history")
        assert talk.answered == MESSAGES
        assert len(talk.turns) <= chat.TURNS_KEPT
        assert talk.summary.startswith("4")
        assert len(await handle.runs()) == 1 + MESSAGES // chat.TURNS_PER_RUN
        assert len(await handle.journal()) < 5 * chat.TURNS_PER_RUN


async def test_messages_that_come_at_once_are_answered_in_their_order_also_across_runs(chat):
    async with TestEngine([chat.chat]) as engine:
        handle = await engine.start(chat.chat, "ada", id="c")
        replies = await asyncio.gather(*[handle.update("say", str(n)) for n in range(1, 31)])
        assert [int(reply.partition(":")[0]) for reply in replies] == list(range(1, 31))


async def test_nothing_is_said_by_nobody_and_silence_ends_it(chat):
    async with TestEngine([chat.chat]) as engine:
        handle = await engine.start(chat.chat, "ada", id="c")
        with pytest.raises(perdure.UpdateRejected, match="say something"):
            await handle.update("say", " ")
        await handle.update("say", "hello")
        begin = engine.clock.now()
        assert await handle.result() == "ada: 1 messages, then silence"
        assert engine.clock.now() - begin == timedelta(days=30)
        assert [call.name for call in steps_of(await handle.journal())] == ["answer"]


@pytest.mark.slow
def test_it_goes_on_where_it_was_when_the_program_is_run_again(tmp_path):
    assert run("chat/chat.py", "hello", folder=tmp_path) == "1: you said hello.\n"
    assert run("chat/chat.py", "again", folder=tmp_path) == "2: you said again. Before that: hello.\n"


def worker(folder: Path) -> subprocess.Popen[str]:
    command = [Path(sys.executable).with_name("perdure"), "worker", EXAMPLES / "chat" / "chat.py", "--wait"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.slow
def test_every_message_is_answered_once_though_the_worker_is_killed_again_and_again(chat, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    moments = sorted(random.Random(7).sample(range(2, MESSAGES), KILLS))
    processes = [worker(tmp_path)]

    async def talk() -> list[str]:
        async with perdure.Client() as client:
            handle = await client.start(chat.chat, "ada", id="chat-ada")
            replies = []
            for n in range(1, MESSAGES + 1):
                asked = asyncio.create_task(handle.update("say", str(n), id=f"message-{n}"))
                if n in moments:  # while it is under way, or right before or after
                    await asyncio.sleep(random.Random(n).random() * 0.05)
                    processes[-1].send_signal(signal.SIGKILL)
                    processes[-1].wait()
                    processes.append(worker(tmp_path))
                replies.append(await asked)
            return replies

    try:
        replies = asyncio.run(asyncio.wait_for(talk(), 100))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert len(processes) == 1 + KILLS
    assert [int(reply.partition(":")[0]) for reply in replies] == list(range(1, MESSAGES + 1))
