"""Looking at a store that exists: nothing is created, nobody's ownership is touched."""

from __future__ import annotations

from collections.abc import Callable

import apsw

from perdure.store.open import local_owner, open_store, store_name
from perdure.store.protocol import Filter, Row, Status, Store

__all__ = [
    "ended_cleanly",
    "ids_like",
    "integrity",
    "local_owner",
    "open_existing",
    "runs_alone",
    "sqlite_version",
    "statuses",
    "store_name",
]


def open_existing(given: str | None) -> Store:
    """The store that is meant; see `store_name`.

    Raises:
        StoreMissing: there is none.
        InvalidOption, StoreError: as `open_store`.
    """
    return open_store(store_name(given), create=False)


def ended_cleanly(store: Store, session: int) -> bool | None:
    """Whether a worker's session ended with a goodbye; False: it died; None: it is open, or the store cannot tell."""
    ask = getattr(store, "ended_cleanly", None)
    return None if ask is None else ask(session)


def runs_alone(store: Store, row: Row) -> bool:
    """Whether no other execution's steps may run beside it now, because its worker died too often with it."""
    noted = [each for each in store.running(row.key) if each.seq == 0 and each.run == row.run]
    return row.status == "active" and any(each.attempt == row.recoveries for each in noted)


def statuses(store: Store, namespace: str) -> dict[Status, int]:
    """How many executions there are, by status; those without any are left out."""
    count: Callable[[str], dict[Status, int]] = store.statuses  # type: ignore[attr-defined]  # no engine needs it
    return count(namespace)


def ids_like(store: Store, namespace: str, prefix: str, limit: int) -> list[Row]:
    """Executions whose ids begin so, newest first."""
    return store.find(Filter(namespace, prefix=prefix), None, limit)


def sqlite_version() -> str:
    """Of the SQLite that stores are kept with."""
    return apsw.sqlite_lib_version()


def integrity(path: str) -> str:
    """What SQLite's own quick check says of a file: "ok", or what is wrong. Writes nothing."""
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return str(connection.pragma("quick_check"))
        finally:
            connection.close()
    except apsw.Error as error:
        return str(error)
