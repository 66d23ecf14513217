"""Real processes, really killed: the campaign's slice for every day, and clients that die."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash import workload
from tests.crash.judge import integrity
from tests.crash.ledger import VARIABLE

import perdure

ROOT = Path(__file__).parents[2]
SEED = str(random.randrange(10**6))  # a failure prints the line that repeats it


def spawn(module: str, *arguments: object, ledger: Path, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.crash.{module}", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {VARIABLE: str(ledger)},
        stdout=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def ready(store: Path, ledger: Path, **options: object) -> subprocess.Popen[str]:
    """A worker that has said that it runs."""
    process = spawn("worker", store, ledger=ledger, **options)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: subprocess.Popen[str]) -> list[str]:
    """What it had printed."""
    process.send_signal(signal.SIGKILL)
    printed, _ = process.communicate()
    return printed.split()


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "crash.db"


@pytest.mark.slow
def test_thirty_kills_lose_nothing_and_repeat_no_recorded_step() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.campaign", "--kills", "30", "--at-once", "15", "--seed", SEED],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def signalled_until(store: Path, ledger: Path, last: int, rng: random.Random) -> int:
    """Kill the client again and again until all is acknowledged; how often it was killed."""
    first = kills = 0
    end = time.monotonic() + 60
    while first < last:
        assert time.monotonic() < end, f"{first} of {last} acknowledged after {kills} kills"
        client = spawn("client", store, "collect-0", first, last, ledger=ledger)
        assert client.stdout is not None
        if line := client.stdout.readline():
            first = int(line) + 1
        time.sleep(rng.random() * 0.02)
        told = kill(client)
        kills += 1
        first = int(told[-1]) + 1 if told else first
    return kills


async def result_of(store: Path) -> list[int]:
    async with perdure.Engine(store, workflows=[workload.collect]) as engine:
        return await engine.handle("collect-0", workload.collect).result(timeout=20)


@pytest.mark.slow
@pytest.mark.parametrize("beside_an_engine", [False, True])
async def test_signals_of_a_client_that_is_killed_arrive_once_and_in_order(
    store: Path, ledger: Path, *, beside_an_engine: bool
) -> None:
    last = 40
    async with perdure.Client(store) as client:
        await client.start(workload.collect, last, id="collect-0")
    lives = Lives(store, ledger) if beside_an_engine else None
    try:
        kills = signalled_until(store, ledger, last, random.Random(5))
    finally:
        if lives is not None:
            lives.end()
    assert kills >= 2
    assert await result_of(store) == list(range(last))
    assert integrity(store) == "ok"


class Lives:
    """A worker that is killed and started again, in a thread, until told to end."""

    def __init__(self, store: Path, ledger: Path) -> None:
        self._store, self._ledger = store, ledger
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            worker = ready(self._store, self._ledger)
            self._stop.wait(0.3)
            kill(worker)

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def worker(store: Path, ledger: Path) -> Iterator[subprocess.Popen[str]]:
    process = ready(store, ledger)
    yield process
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


async def test_what_a_client_deposited_before_the_engine_was_killed_is_there_afterwards(
    store: Path, ledger: Path, worker: subprocess.Popen[str]
) -> None:
    async with perdure.Client(store) as client:
        handle = await client.start(workload.signals, 0, id="signals-0")
        await handle.signal("item", 0)
        kill(worker)
        await handle.signal("item", 1)
        await handle.signal("item", 2)
        again = ready(store, ledger)
        try:
            assert await handle.result(timeout=20) == [0, 1, 2]
        finally:
            kill(again)


async def test_a_frozen_engine_delays_a_client_but_loses_nothing(
    store: Path, ledger: Path, worker: subprocess.Popen[str]
) -> None:
    """It owns the store and listens, but does not answer; then it dies, and the client writes for itself."""
    async with perdure.Client(store) as client:
        handle = await client.start(workload.signals, 0, id="signals-0")
        worker.send_signal(signal.SIGSTOP)
        threading.Timer(0.3, worker.kill).start()
        for item in range(3):
            await handle.signal("item", item)
        again = ready(store, ledger)
        try:
            assert await handle.result(timeout=20) == [0, 1, 2]
        finally:
            kill(again)
