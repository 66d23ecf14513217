"""One piece of work on DBOS with SQLite, as its users would write it. Prints one line of JSON.

Run by benchmarks/bench.py with the Python of .venv-dbos:
run.py FOLDER --executions N --steps M [--fan] [--journal-mode wal]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import time
from pathlib import Path

from dbos import DBOS

RESULT = "x" * 100


@DBOS.step()
async def trivial(_number: int) -> str:
    return RESULT


@DBOS.workflow()
async def chain(steps: int) -> int:
    for number in range(steps):
        await trivial(number)
    return steps


@DBOS.workflow()
async def fan(steps: int) -> int:
    return len(await asyncio.gather(*[trivial(number) for number in range(steps)]))


async def run_all(executions: int, steps: int, *, fans: bool) -> None:
    work = fan if fans else chain
    handles = await asyncio.gather(*[DBOS.start_workflow_async(work, steps) for _ in range(executions)])
    results = await asyncio.gather(*[handle.get_result() for handle in handles])
    assert results == [steps] * executions


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--executions", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--fan", action="store_true", help="all steps of an execution at once")
    parser.add_argument("--journal-mode", default="delete", help="DBOS leaves SQLite's default, a rollback journal")
    options = parser.parse_args()

    file = options.folder / "dbos.sqlite"
    with sqlite3.connect(file) as connection:
        mode = connection.execute(f"PRAGMA journal_mode={options.journal_mode}").fetchone()[0]
        synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]  # DBOS leaves the default: 2, FULL
    connection.close()

    DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{file}", "log_level": "ERROR"})
    DBOS.launch()
    try:
        asyncio.run(run_all(1, 0, fans=options.fan))  # warm
        wall, cpu = time.perf_counter(), time.process_time()
        asyncio.run(run_all(options.executions, options.steps, fans=options.fan))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    finally:
        DBOS.destroy()
    recorded = sqlite3.connect(file).execute("SELECT count(*) FROM operation_outputs").fetchone()[0]
    assert recorded == options.executions * options.steps, recorded
    print(
        json.dumps(
            {
                "side": "dbos",
                "executions": options.executions,
                "steps": recorded,
                "seconds": wall,
                "cpu_seconds": cpu,
                "durability": f"SQLite {sqlite3.sqlite_version}, journal_mode={mode}, synchronous={synchronous}",
            },
        ),
    )


if __name__ == "__main__":
    main()
