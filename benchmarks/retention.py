"""What removing closed executions costs: how long a bite holds the file, and what single steps beside it take.

retention.py [--closed 100000] [--seconds 10] [--folder .cache/bench]
Prints a line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import perdure
from perdure.runtime.collecting import BITE
from perdure.store.sqlite import SqliteStore

sys.path.insert(0, str(Path(__file__).parent))
from perdure_side import chain, run_all  # type: ignore[import-not-found]
from scale import seed  # type: ignore[import-not-found]


def bites(file: Path, count: int) -> list[float]:
    """Milliseconds of each, nothing else running: three events an execution."""
    store = SqliteStore(file)
    took, after = [], None
    for _ in range(count):
        began = time.perf_counter()
        after = store.collect("default", 2**60, after, BITE).after
        took.append((time.perf_counter() - began) * 1000)
    store.close()
    return took


async def steps(file: Path, name: str, seconds: float, *, remove: bool) -> tuple[list[float], float]:
    """Milliseconds from step to step of one execution after the other, and how many executions went in a second."""
    took: list[float] = []
    async with perdure.Engine(str(file), workflows=[chain]) as engine:
        await run_all(engine, chain, f"{name}-warm", 1, 0)
        work = asyncio.create_task(engine.collect(older_than=0)) if remove else None
        end, n, began = time.perf_counter() + seconds, 0, time.perf_counter()
        before = len_of(file)
        while time.perf_counter() < end:
            at = time.perf_counter()
            await run_all(engine, chain, f"{name}-{n}", 1, 10)
            took.append((time.perf_counter() - at) * 100)  # a tenth, in milliseconds
            n += 1
        gone = (before + n - len_of(file)) / (time.perf_counter() - began)
        if work is not None:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
    return took, gone


def len_of(file: Path) -> int:
    store = SqliteStore(file)
    count, after, more = 0, None, True
    while more:  # all have closed
        found = store.collectable("default", 2**60, after, 10_000)
        count, after, more = count + found.executions, found.after, found.more
    store.close()
    return count


def told(took: list[float]) -> dict[str, float]:
    return {
        "median ms": round(statistics.median(took), 2),
        "p99 ms": round(statistics.quantiles(took, n=100)[98], 2),
        "worst ms": round(max(took), 2),
    }


async def measure(file: Path, closed: int, seconds: float) -> dict[str, Any]:
    seed(file, closed)
    found: dict[str, Any] = {"closed": closed, "rows a bite": BITE, "a bite": told(bites(file, 100))}
    alone, _ = await steps(file, "alone", seconds, remove=False)
    beside, gone = await steps(file, "beside", seconds, remove=True)
    return found | {
        "a step, alone": told(alone),
        "a step beside it": told(beside),
        "executions gone a second": round(gone),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--closed", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--folder", type=Path, default=Path(".cache/bench"))
    given = parser.parse_args()
    folder = given.folder / f"retention-{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        print(json.dumps(asyncio.run(measure(folder / "old.db", given.closed, given.seconds))))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
