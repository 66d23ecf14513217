"""The limit: bare apsw inserting rows of the shape of a journaled step, and nothing else. Prints one line of JSON.

limit.py FOLDER --rows N --per-commit M
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import apsw

EXECUTIONS = 500
SHARDS = 256
SCHEMA = """
CREATE TABLE event (
    shard INTEGER NOT NULL, namespace TEXT NOT NULL, execution TEXT NOT NULL, run TEXT NOT NULL,
    position INTEGER NOT NULL, shard_pos INTEGER NOT NULL, at_ms INTEGER NOT NULL, session INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (shard, namespace, execution, run, position)
) WITHOUT ROWID;
CREATE UNIQUE INDEX event_by_shard_pos ON event (shard, shard_pos);
"""
INSERT = "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


def rows(count: int) -> list[tuple[object, ...]]:
    """Rows as concurrent executions would append them: one each in turn; each body holds a result of 100 bytes."""
    runs = [os.urandom(16).hex() for _ in range(EXECUTIONS)]
    body = os.urandom(250)
    keys = [(n % EXECUTIONS % SHARDS, "default", f"bench-{n % EXECUTIONS}", runs[n % EXECUTIONS]) for n in range(count)]
    return [(*key, n // EXECUTIONS, n, 1_700_000_000_000 + n, 1, body) for n, key in enumerate(keys)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--per-commit", type=int, required=True)
    options = parser.parse_args()

    connection = apsw.Connection(str(options.folder / "limit.db"))
    mode = connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", 2)
    connection.execute(SCHEMA)
    todo = rows(options.rows)
    wall, cpu = time.perf_counter(), time.process_time()
    for start in range(0, options.rows, options.per_commit):
        with connection:
            connection.executemany(INSERT, todo[start : start + options.per_commit])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    result = {
        "side": "limit",
        "steps": options.rows,
        "seconds": wall,
        "cpu_seconds": cpu,
        "durability": f"SQLite {apsw.sqlite_lib_version()}, journal_mode={mode}, "
        f"synchronous={connection.pragma('synchronous')}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
