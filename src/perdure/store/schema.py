"""Opening a file: connections with their settings, the check that it is ours, migration to the newest schema."""

from __future__ import annotations

import sys
from typing import Any, Final, Literal, TypeAlias

import apsw

from perdure.core.errors import SchemaFromTheFuture, StoreCorrupt, StoreNotOpened
from perdure.core.format import FORMAT
from perdure.store.queries import SQL, migrations

Durability: TypeAlias = Literal["full", "process"]
APPLICATION_ID: Final = 0x50455244  # "PERD"

_SETTINGS: Final = {
    "wal_autocheckpoint": "4000",  # hot pages are rewritten often: checkpoint them less often than written
    "journal_size_limit": "67108864",
    "cache_size": "-32000",
    "cell_size_check": "ON",
    "trusted_schema": "OFF",
    "temp_store": "MEMORY",
}


def connect(path: str, *, durability: Durability, busy_ms: int, create: bool, vfs: str | None) -> apsw.Connection:
    """A connection with all settings made; a file of another program is left as it was. Raises as `migrate`."""
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    connection = apsw.Connection(path, flags, vfs, 200)
    try:
        connection.set_busy_timeout(busy_ms)
        version(connection, path)
        _use_log(connection, path)
        for name, value in _SETTINGS.items():
            connection.pragma(name, value)
        connection.pragma("synchronous", "FULL" if durability == "full" else "NORMAL")
        if sys.platform == "darwin" and durability == "full":
            connection.pragma("fullfsync", "ON")
            connection.pragma("checkpoint_fullfsync", "ON")
    except BaseException:
        connection.close(True)  # noqa: FBT003 - apsw's own signature
        raise
    return connection


def _use_log(connection: apsw.Connection, path: str) -> None:
    if connection.pragma("journal_mode", "WAL") != "wal":
        detail = "SQLite's write-ahead log cannot be used there"
        raise StoreNotOpened(path=path, detail=detail, fix="Use a local disk.")


def migrate(connection: apsw.Connection, path: str, *, shards: int, store_id: str, created_at_ms: int) -> None:
    """Bring the file to the newest schema, in one transaction; an empty file becomes a store.

    Raises:
        StoreCorrupt: it is a database, but not ours.
        SchemaFromTheFuture: a newer Perdure wrote it.
        apsw.Error: it is no database, or cannot be written.
    """
    scripts = migrations()
    if version(connection, path) == len(scripts):
        return
    connection.execute(SQL["begin"])
    try:
        found = version(connection, path)  # another process may have been faster
        for script in scripts[found:]:
            connection.execute(script)
        if found == 0:
            meta = {"format": FORMAT, "shards": shards, "store_id": store_id, "created_at_ms": created_at_ms}
            connection.executemany(SQL["put_meta"], [(name, str(value)) for name, value in meta.items()])
            connection.executemany(SQL["put_shard"], [(shard,) for shard in range(shards)])
        connection.execute(SQL["commit"])
    finally:
        if connection.in_transaction:
            connection.execute(SQL["rollback"])


def version(connection: apsw.Connection, path: str) -> int:
    """The file's schema version; 0 if it is empty. Raises as `migrate`."""
    application, found = _number(connection, "application_id"), _number(connection, "user_version")
    if application != APPLICATION_ID:
        if application or found or _number(connection, "object_count"):
            raise StoreCorrupt(path=path, detail="it is an SQLite database of another program")
        return 0
    if found > len(migrations()):
        raise SchemaFromTheFuture(path=path, found=found, known=len(migrations()))
    return found


def read_meta(connection: apsw.Connection, path: str) -> dict[str, str]:
    """What was stored at creation."""
    rows: Any = connection.execute(SQL["meta"]).fetchall()
    meta: dict[str, str] = dict(rows)
    if not meta.get("shards", "").isdigit() or not meta.get("format", "").isdigit():
        raise StoreCorrupt(path=path, detail="its table `meta` is incomplete")
    return meta


def _number(connection: apsw.Connection, query: str) -> int:
    found: Any = connection.execute(SQL[query]).fetchone()
    return int(found[0])
