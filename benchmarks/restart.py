"""What a restart costs: replaying one long journal, and going on with thousands of executions after `kill -9`.

restart.py [--steps 10000,100000] [--executions 1000,10000] [--folder .cache/bench]
Prints one line of JSON for each. (`restart.py worker STORE LEDGER N` is the process that is killed.)
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import perdure
from perdure import step, workflow

RESULT = "x" * 100
ROUNDS = 3
STEPS_PER_S = 1_000  # of all executions in flight: the worker is busy, and not with more than it can do
# Python keeps what it has compiled, as it does wherever a package is installed, whatever this shell says of that.
COMPILES = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@step
async def trivial(_number: int) -> str:
    return RESULT


@workflow
async def long_then_wait(steps: int) -> int:
    for number in range(steps):
        await trivial(number)
    await perdure.receive("go", int)
    return steps


async def replay(file: Path, steps: int) -> dict[str, Any]:
    """Seconds from a signal's arrival to the result, where the whole journal is replayed in between."""
    async with perdure.Engine(str(file), workflows=[long_then_wait], durability="process") as engine:
        handle = await engine.start(long_then_wait, steps, id="long")
        while (await handle.describe()).status != "parked":  # noqa: ASYNC110 (the row is all there is to look at)
            await asyncio.sleep(0.05)
    seconds = []
    for turn in range(ROUNDS):
        copy = file.with_name(f"copy-{turn}.db")
        shutil.copy(file, copy)
        async with perdure.Engine(str(copy), workflows=[long_then_wait]) as engine:
            handle = engine.handle("long", long_then_wait)
            start = time.perf_counter()
            await handle.signal("go", 1)
            assert await handle.result() == steps
            seconds.append(time.perf_counter() - start)
    return {"measure": "replay", "steps": steps, "seconds": sorted(seconds)}


@functools.cache
def opened(ledger: str) -> int:
    return os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@step
async def slow(ledger: str, seconds: float, execution: int, number: int) -> str:
    """Tells the ledger that it began, and takes its time."""
    os.write(opened(ledger), f"{execution} {number}\n".encode())
    await asyncio.sleep(seconds)
    return RESULT


@workflow
async def steady(folder: str, seconds: float, execution: int) -> None:
    for number in range(1_000_000):
        await slow(f"{folder}/ledger", seconds, execution, number)


async def work(file: Path, executions: int) -> None:
    """A worker. Only the first one has to start them."""
    is_first = not file.exists()
    async with perdure.Engine(str(file), workflows=[steady], max_steps=executions) as engine:
        if is_first:
            each_s = max(1.0, executions / STEPS_PER_S)
            starts = [engine.start(steady, str(file.parent), each_s, n, id=f"steady-{n}") for n in range(executions)]
            await asyncio.gather(*starts)
        await engine.run_forever()


def begun(file: Path) -> list[tuple[int, int]]:
    """(execution, number) of every step that the ledger saw beginning."""
    lines = (file.parent / "ledger").read_text().splitlines() if (file.parent / "ledger").exists() else []
    return [(int(execution), int(number)) for execution, number in map(str.split, lines)]


@contextmanager
def worker(file: Path, executions: int) -> Iterator[None]:
    """The worker's process; at the end it is killed."""
    process = subprocess.Popen([sys.executable, __file__, "worker", str(file), str(executions)], env=COMPILES)
    try:
        yield
        assert process.poll() is None, "the worker died by itself"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


async def recorded(file: Path, executions: int) -> dict[int, int]:
    """How many steps of each execution the journal holds."""
    async with perdure.Client(str(file)) as client:
        journals = [await client.handle(f"steady-{n}").journal() for n in range(executions)]
    return {n: sum(type(one.event).__name__ == "StepCompleted" for one in journals[n]) for n in range(executions)}


def recover(file: Path, executions: int) -> dict[str, Any]:
    """Seconds from the process's new start until every execution is in a step; recorded steps that ran again."""
    with worker(file, executions):
        while sum(number == 1 for _, number in begun(file)) < executions:  # each has done one step, and is in another
            time.sleep(0.1)
    (file.parent / "ledger").unlink()
    done = asyncio.run(recorded(file, executions))
    start = time.perf_counter()
    with worker(file, executions):
        while len({execution for execution, _ in begun(file)}) < executions:
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        time.sleep(2)
    repeated = sum(number < done[execution] for execution, number in begun(file))
    return {"measure": "kill -9", "executions": executions, "seconds": seconds, "recorded_steps_repeated": repeated}


def main() -> None:
    if sys.argv[1:2] == ["worker"]:
        asyncio.run(work(Path(sys.argv[2]), int(sys.argv[3])))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", default="10000,100000")
    parser.add_argument("--executions", default="1000,10000")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / ".cache" / "bench")
    options = parser.parse_args()
    for steps in map(int, options.steps.split(",")):
        print(json.dumps(asyncio.run(replay(emptied(options.folder) / "replay.db", steps))), flush=True)
    for executions in map(int, options.executions.split(",")):
        for _ in range(ROUNDS):
            print(json.dumps(recover(emptied(options.folder) / "recover.db", executions)), flush=True)


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
