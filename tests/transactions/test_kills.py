"""Exactly once, shown on real processes: killed or frozen at every point between BEGIN and journal, in races."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.transactions import program
from tests.transactions.bank import copy_store
from tests.transactions.program import HOLDING, POINTS

import perdure
from perdure.core import events as ev

RESULT = ("result", 900, 100)
DONE = ([(900,), (100,)], [(100,)], [("completed",)])
FREE = tuple(point for point in POINTS if point not in HOLDING)

pytestmark = pytest.mark.slow
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([program.__name__, "aiosqlite", "perdure.transaction_records"])


class Worker:
    """A real process; what it tells comes through a pipe."""

    def __init__(
        self, folder: Path, kind: str, fault: str = "", sign: signal.Signals = signal.SIGKILL, store: str = "perdure.db"
    ) -> None:
        self.pipe, theirs = _processes.Pipe(duplex=False)
        self.process = _processes.Process(target=program.run, args=(folder, store, kind, fault, sign, theirs))
        self.process.start()
        theirs.close()
        self.told: list[Any] = []

    def hear(self, word: Any) -> None:
        """Wait until it has told this."""
        end = time.monotonic() + 30
        while word not in self.told:
            assert self.pipe.poll(end - time.monotonic()), f"no {word} after {self.told}"
            self.told.append(self.pipe.recv())

    def freeze(self, point: str) -> None:
        """Wait until it has stopped itself there."""
        self.hear(point)
        end = time.monotonic() + 30
        while "T" not in self._state():
            assert time.monotonic() < end, f"not frozen: {self._state()}"

    def _state(self) -> str:
        return subprocess.run(
            ["ps", "-o", "stat=", "-p", str(self.process.pid)], capture_output=True, text=True, check=False
        ).stdout

    def signal(self, sign: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, sign)

    def ended(self) -> int | None:
        """Its exit code."""
        self.process.join(30)
        return self.process.exitcode

    def finish(self) -> None:
        """Wait for its result and a clean end."""
        self.hear(RESULT)
        assert self.ended() == 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Starts workers, and leaves none behind."""
    with closing(sqlite3.connect(tmp_path / "bank.db")) as connection:
        connection.executescript(program.SCHEMA)
    workers: list[Worker] = []

    def make(kind: str, *args: Any, **options: Any) -> Worker:
        workers.append(Worker(tmp_path, kind, *args, **options))
        return workers[-1]

    yield make
    for worker in workers:
        worker.process.kill()
        worker.process.join(30)


def bank(folder: Path) -> tuple[Any, Any, Any]:
    """Accounts, transfers and records."""
    with closing(sqlite3.connect(folder / "bank.db")) as connection:
        tables = ("SELECT cents FROM account ORDER BY name", "SELECT cents FROM transfer")
        accounts, transfers = (connection.execute(query).fetchall() for query in tables)
        records = connection.execute("SELECT state FROM perdure_transactions").fetchall()
        return accounts, transfers, records


async def journaled(folder: Path, store: str = "perdure.db") -> list[str]:
    """The steps whose completion the journal holds."""
    async with perdure.Client(folder / store) as client:
        journal = await client.handle("one").journal()
    return [recorded.event.name for recorded in journal if isinstance(recorded.event, ev.StepCompleted)]


async def two_stores(folder: Path) -> None:
    """One execution that was accepted, in two copies of its store: both would run it, as the same run."""
    async with perdure.Client(folder / "perdure.db") as client:
        world = program.World(folder, "sync", "", signal.SIGKILL, lambda _: None)
        await client.start(program.application(world), 250, id="one")
    copy_store(folder / "perdure.db", folder / "copy.db")


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("point", POINTS)
async def test_killed_at_any_point_the_transfer_happens_once(tmp_path: Path, start: Any, kind: str, point: str) -> None:
    assert start(kind, point).ended() == -signal.SIGKILL
    if point == "journaled":
        assert await journaled(tmp_path) == ["limit", "transfer"]
    start(kind).finish()
    assert bank(tmp_path) == DONE
    assert await journaled(tmp_path) == ["limit", "transfer", "limit"]


async def test_killed_at_every_point_one_after_the_other_it_happens_once(tmp_path: Path, start: Any) -> None:
    for point in POINTS:
        start("async", point).ended()
        async with perdure.Client(tmp_path / "perdure.db") as client:
            if (await client.handle("one").describe()).status == "stalled":  # it died too often, says the engine
                await client.handle("one").resume()
    start("async").finish()
    assert bank(tmp_path) == DONE


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("point", ["claimed", "after write 2", "completed", "committing"])
async def test_a_worker_frozen_in_its_transaction_is_waited_for(
    tmp_path: Path, start: Any, kind: str, point: str
) -> None:
    """The second one blocks on the record; when the first one wakes and commits, it reads that."""
    await two_stores(tmp_path)
    frozen = start(kind, point, signal.SIGSTOP)
    frozen.freeze(point)
    other = start("sync", store="copy.db")
    other.hear("begun")
    frozen.signal(signal.SIGCONT)
    frozen.finish()
    other.finish()
    assert "before write 1" not in other.told, "its function did not run"
    assert bank(tmp_path) == DONE


@pytest.mark.parametrize("point", ["claimed", "after write 2", "completed", "committing"])
async def test_a_worker_killed_in_its_transaction_lets_the_one_that_waits_go_on(
    tmp_path: Path, start: Any, point: str
) -> None:
    await two_stores(tmp_path)
    frozen = start("async", point, signal.SIGSTOP)
    frozen.freeze(point)
    other = start("sync", store="copy.db")
    other.hear("begun")
    frozen.signal(signal.SIGKILL)
    other.finish()
    assert "after write 3" in other.told, "its function ran"
    assert bank(tmp_path) == DONE


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("point", FREE)
async def test_a_worker_frozen_outside_its_transaction_wakes_and_reads_what_another_one_did(
    tmp_path: Path, start: Any, kind: str, point: str
) -> None:
    await two_stores(tmp_path)
    frozen = start(kind, point, signal.SIGSTOP)
    frozen.freeze(point)
    start("async", store="copy.db").finish()
    assert bank(tmp_path) == DONE
    frozen.signal(signal.SIGCONT)
    frozen.finish()
    assert bank(tmp_path) == DONE
    assert await journaled(tmp_path) == await journaled(tmp_path, "copy.db")


async def test_two_workers_that_race_for_a_record_get_one_result(tmp_path: Path, start: Any) -> None:
    await two_stores(tmp_path)
    for number in range(5):
        copy_store(tmp_path / "copy.db", tmp_path / f"racer{number}.db")
    racers = [start(("sync", "async")[n % 2], store=f"racer{n}.db") for n in range(5)]
    for racer in racers:
        racer.finish()
    assert sum("after write 3" in racer.told for racer in racers) == 1
    assert bank(tmp_path) == DONE


@pytest.mark.parametrize("died_at", ["committed", "journaled", ""])
async def test_after_the_journal_went_back_to_an_older_copy_it_happens_once(
    tmp_path: Path, start: Any, died_at: str
) -> None:
    await two_stores(tmp_path)
    start("async", died_at).ended()
    assert bank(tmp_path) == DONE
    for path in tmp_path.glob("perdure.db*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    copy_store(tmp_path / "copy.db", tmp_path / "perdure.db")
    assert await journaled(tmp_path) == []
    start("sync").finish()
    assert bank(tmp_path) == DONE
