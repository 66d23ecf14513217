"""A fork or a rewind whose process is killed around the moment it is written: it is there as a whole, or not at all."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.crash.judge import integrity
from tests.runtime.conftest import status

import perdure
from perdure.core.errors import ExecutionNotFound
from perdure.store.sqlite import SqliteStore
from perdure.store.sqlite_runs import SqliteRuns

ROOT = Path(__file__).parents[2]
POINTS = ("before", "within", "after")
LEDGER = "PERDURE_TEST_BRANCH_LEDGER"


@perdure.step
def note(word: str) -> str:
    with Path(os.environ[LEDGER]).open("a") as file:
        print(word, perdure.current_step().idempotency_key, file=file)
    return word


@perdure.workflow
async def three(first: str) -> list[str]:
    return [await note(first), await note("two"), await perdure.receive("last", str)]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str) -> None:
    """Kill this process there, when it forks or rewinds."""
    branch, copy = SqliteStore.branch, SqliteRuns._copy

    def branched(store: SqliteStore, what: object) -> object:
        if point == "before":
            die()
        branch(store, what)  # type: ignore[arg-type]
        return die()

    def copied(tables: SqliteRuns, *args: object) -> None:
        copy(tables, *args)  # type: ignore[arg-type]
        die()

    SqliteStore.branch = branched  # type: ignore[method-assign, assignment]
    if point == "within":
        SqliteRuns._copy = copied  # type: ignore[method-assign, assignment]


async def doom(store: str, what: str, point: str, by: str, at: int) -> None:
    """The process: fork or rewind, as an engine or as a client without one."""
    opened = perdure.Engine(store, workflows=[three]) if by == "engine" else perdure.Client(store)
    async with opened as door:
        arm(point)
        if what == "fork":
            await door.fork("a", new_id="b", at=at)
        else:
            await door.handle("a").rewind(at=at)


async def written(store: Path, what: str) -> bool:
    async with perdure.Client(store) as client:
        try:
            runs = await client.handle("b" if what == "fork" else "a").runs()
        except ExecutionNotFound:
            return False
        return bool(runs[0].origin)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["engine", "client"])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("what", ["fork", "rewind"])
async def test_killed_around_its_commit_it_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, point: str, by: str
) -> None:
    store, ledger = tmp_path / "crash.db", tmp_path / "ledger.txt"
    monkeypatch.setenv(LEDGER, str(ledger))
    async with perdure.Engine(store, workflows=[three]) as engine:
        handle = await engine.start(three, "one", id="a")
        await status(handle, "parked")
        await handle.signal("last", "three")
        await handle.result()
    call = f"doom({str(store)!r}, {what!r}, {point!r}, {by!r}, 3)"
    code = f"import asyncio; from tests.crash.test_branches import doom; asyncio.run({call})"
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert await written(store, what) is (point == "after")
    async with perdure.Engine(store, workflows=[three]) as engine:
        if point != "after":
            if what == "fork":
                await engine.fork("a", new_id="b", at=3)
            else:
                await engine.handle("a").rewind(at=3)
        handle = engine.handle("b" if what == "fork" else "a", three)
        if what == "fork":
            await handle.signal("last", "three")  # a rewind receives the first one again
        assert await handle.result(timeout=20) == ["one", "two", "three"]
    lines = [line.split() for line in ledger.read_text().splitlines()]
    assert [word for word, _ in lines] == ["one", "two", "two"]
    assert len({key for _, key in lines}) == 3
    assert integrity(store) == "ok"
