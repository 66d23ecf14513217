"""One piece of work on Perdure with SQLite, as its users would write it. Prints one line of JSON.

perdure_side.py FOLDER --executions N --steps M [--fan]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

import apsw

import perdure
from perdure import step, workflow

RESULT = "x" * 100


@step
async def trivial(_number: int) -> str:
    return RESULT


@workflow
async def chain(steps: int) -> int:
    for number in range(steps):
        await trivial(number)
    return steps


@workflow
async def fan(steps: int) -> int:
    return len(await asyncio.gather(*[trivial(number) for number in range(steps)]))


async def run_all(engine: perdure.Engine, work: Any, prefix: str, executions: int, steps: int) -> None:
    starts = [engine.start(work, steps, id=f"{prefix}-{n}") for n in range(executions)]
    handles = await asyncio.gather(*starts)
    results = await asyncio.gather(*[handle.result() for handle in handles])
    assert results == [steps] * executions


async def measured(file: Path, executions: int, steps: int, *, fans: bool = False) -> tuple[float, float]:
    work = fan if fans else chain
    async with perdure.Engine(str(file), workflows=[work]) as engine:
        await run_all(engine, work, "warm", 1, 0)
        wall, cpu = time.perf_counter(), time.process_time()
        await run_all(engine, work, "bench", executions, steps)
        return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--executions", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--fan", action="store_true", help="all steps of an execution at once")
    options = parser.parse_args()

    file = options.folder / "perdure.db"
    wall, cpu = asyncio.run(measured(file, options.executions, options.steps, fans=options.fan))
    connection = apsw.Connection(str(file))
    result = {
        "side": "perdure",
        "executions": options.executions,
        "steps": options.executions * options.steps,
        "seconds": wall,
        "cpu_seconds": cpu,
        "durability": f"SQLite {apsw.sqlite_lib_version()}, journal_mode={connection.pragma('journal_mode')}, "
        "synchronous=2",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
