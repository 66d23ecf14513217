"""The limit: bare apsw inserting the rows of journaled steps into the store's own table, and nothing else.

limit.py FOLDER --rows N --per-commit M        prints one line of JSON
"""

from __future__ import annotations

import argparse
import json
import os
import time
import zlib
from pathlib import Path

import apsw

EXECUTIONS = 500
SHARDS = 256
SCHEMA = Path(__file__).parents[1] / "src" / "perdure" / "store" / "sql" / "0001_initial.sql"
INSERT = """
INSERT INTO event (shard_pos, number, position, shard, format, at_ms, session, trace_parent, usage, checksum, body)
VALUES (?, ?, ?, ?, 0, ?, 1, '', NULL, ?, ?)
"""


def rows(count: int) -> list[tuple[object, ...]]:
    """Rows as concurrent executions append them: one each in turn; each body holds a result of 100 bytes."""
    body = os.urandom(250)
    return [
        (n, n % EXECUTIONS, n // EXECUTIONS, n % EXECUTIONS % SHARDS, 1_700_000_000_000 + n, zlib.crc32(body), body)
        for n in range(count)
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--per-commit", type=int, required=True)
    options = parser.parse_args()

    connection = apsw.Connection(str(options.folder / "limit.db"))
    mode = connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", 2)
    connection.execute(SCHEMA.read_text(encoding="utf-8"))
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
