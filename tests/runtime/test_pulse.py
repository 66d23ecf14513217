"""A worker whose loop is held up says so, with the line, while it is: real engine, real heart."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import perdure
from perdure import step, workflow
from perdure.runtime import lease
from perdure.workflow.location import users_line

warned = threading.Event()


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the engine warns of. A heart beats every ten milliseconds, and the first warning ends what holds it up."""
    warned.clear()
    told: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())
            warned.set()

    ear = Ear(logging.WARNING)
    monkeypatch.setattr(lease, "PAUSE_S", 0.01)
    logging.getLogger("perdure").addHandler(ear)
    yield told
    logging.getLogger("perdure").removeHandler(ear)


@workflow
async def computes() -> str:
    while not warned.is_set():
        pass
    return "done"


@step
async def blocks() -> str:
    warned.wait()
    return "done"


@workflow
async def awaits() -> str:
    return await blocks()


@step
def waits() -> str:
    warned.wait(0.2)
    return "done"


@workflow
async def works() -> str:
    return await waits()


def test_a_workflow_that_computes_without_awaiting_is_named_with_its_line(tmp_path: Path, heard: list[str]) -> None:
    assert perdure.run(computes, store=tmp_path / "perdure.db") == "done"
    [told, *rest] = heard
    assert told.startswith(
        "nothing else of this worker goes on: a workflow computes without awaiting, at test_pulse.py:"
    )
    assert "in computes. Move that into a `def` step" in told
    assert set(rest) <= {"the worker goes on"}


def test_an_async_step_that_blocks_is_named_with_its_line(tmp_path: Path, heard: list[str]) -> None:
    assert perdure.run(awaits, store=tmp_path / "perdure.db") == "done"
    assert "a call blocks the event loop, at test_pulse.py:" in heard[0]
    assert "in blocks. Move that" in heard[0]


def test_who_started_the_loop_is_not_blamed_for_what_perdure_does_on_it() -> None:
    async def main() -> tuple[str, str]:
        here = frame = sys._getframe()
        while frame.f_code.co_name != "_run" and frame.f_back is not None:
            frame = frame.f_back
        return users_line(here), users_line(frame)

    mine, none = asyncio.run(main())
    assert mine.startswith("test_pulse.py:")
    assert none == ""


def test_a_step_in_a_thread_holds_nothing_up(tmp_path: Path, heard: list[str]) -> None:
    assert perdure.run(works, store=tmp_path / "perdure.db") == "done"
    assert heard == []
