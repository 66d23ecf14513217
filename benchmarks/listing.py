"""How quickly executions are found among many: every kind of list, over a file that is made for it.

listing.py [--executions 1000000] [--folder .cache/bench]
Prints a line of JSON: for each list the median and the worst of its pages, in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw

import perdure
from perdure.core.identity import DEFAULT_SHARDS, shard_of
from perdure.store.sqlite import SqliteStore

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
STATUSES = ("completed",) * 88 + ("failed",) * 5 + ("parked",) * 6 + ("active",)
PAGES = 5


def make(file: Path, count: int) -> None:
    """A store of so many executions, a second apart: rows and two attributes each, no journals."""
    SqliteStore(file).close()
    db = apsw.Connection(str(file))
    db.pragma("synchronous", "OFF")
    with db:
        db.executemany(
            "INSERT INTO execution (number, shard, namespace, execution, run, lane, workflow, status, position, "
            "start_digest, created_at_ms, closed_at_ms, parent, parent_execution) "
            "VALUES (?, ?, 'default', ?, ?, 'default', ?, ?, 5, x'00', ?, ?, ?, ?)",
            rows(count),
        )
        db.executemany(
            "INSERT INTO attribute (number, name, item, kind, value, namespace, created_at_ms) "
            "VALUES (?, ?, 0, ?, ?, 'default', ?)",
            attributes(count),
        )
    db.close()


def rows(count: int) -> Iterator[tuple[Any, ...]]:
    for n in range(1, count + 1):
        name, at_ms = name_of(n), created_ms(n)
        status = "stalled" if n % 100_000 == 7 else STATUSES[n * 7 % 100]
        closed_ms = at_ms + 5 if status in ("completed", "failed") else None
        parent = name_of(n // 100 * 100) if n % 100 else ""
        workflow = f"workflow-{n % 10}"
        told = (f"run-{n}", workflow, status, at_ms, closed_ms, f"{parent}/run/1" if parent else "", parent or None)
        yield (n, shard_of("default", name, DEFAULT_SHARDS), name, *told)


def attributes(count: int) -> Iterator[tuple[Any, ...]]:
    for n in range(1, count + 1):
        yield n, "cents", "number", n * 37 % 100_000, created_ms(n)
        yield n, "user", "text", f"user-{n % 5_000}", created_ms(n)


def name_of(n: int) -> str:
    return f"order-{n % 1_000:03}-{n}"


def created_ms(n: int) -> int:
    return int(EPOCH.timestamp() * 1000) + n * 1_000


def lists(count: int) -> dict[str, dict[str, Any]]:
    middle = EPOCH + timedelta(seconds=count // 2)
    return {
        "all": {},
        "completed": {"status": ["completed"]},
        "open": {"status": ["active", "parked", "paused", "stalled"]},
        "stalled (few)": {"status": ["stalled"]},
        "active (1%)": {"status": ["active"]},
        "workflow": {"workflow": "workflow-3"},
        "workflow that failed": {"workflow": "workflow-3", "status": ["failed"]},
        "workflow that is stalled (none)": {"workflow": "workflow-3", "status": ["stalled"]},
        "children of one": {"parent": name_of(count // 2 // 100 * 100)},
        "one id's prefix": {"prefix": name_of(count // 2)},
        "prefix of 0.1%": {"prefix": "order-500"},
        "prefix of all": {"prefix": "order"},
        "started before the middle": {"started_before": middle},
        "user =": {"where": [("user", "=", "user-77")]},
        "user = and cents >": {"where": [("user", "=", "user-77"), ("cents", ">", 50_000)]},
        "cents > (half of all)": {"where": [("cents", ">", 50_000)]},
        "cents > (0.01%)": {"where": [("cents", ">", 99_990)]},
        "cents > (none)": {"where": [("cents", ">", 100_000)]},
        "user !=": {"where": [("user", "!=", "user-77")]},
    }


async def measure(file: Path, count: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with perdure.Client(str(file)) as client:
        for name, filters in lists(count).items():
            took_ms, cursor, rows = [], "", 0
            for _ in range(PAGES):
                began = time.perf_counter()
                page = await client.list(**filters, cursor=cursor, limit=100)
                took_ms.append((time.perf_counter() - began) * 1000)
                rows += len(page)
                cursor = page.next
            found[name] = {"median ms": round(statistics.median(took_ms), 2), "worst ms": round(max(took_ms), 2)}
            found[name]["rows"] = rows
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path(".cache/bench"))
    given = parser.parse_args()
    folder = given.folder / f"listing-{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        began = time.perf_counter()
        make(folder / "lists.db", given.executions)
        made_s = round(time.perf_counter() - began, 1)
        told = asyncio.run(measure(folder / "lists.db", given.executions))
        size_mb = round((folder / "lists.db").stat().st_size / 2**20)
        print(json.dumps({"executions": given.executions, "made in s": made_s, "file MB": size_mb, "lists": told}))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
