"""A user's database: a ledger, transactions that write to it in all four ways, and what they did."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

import perdure

SYNC = ("connection", "session")
ASYNC = ("async connection", "async session")
KINDS = (*SYNC, *ASYNC)
INSERT = sa.text("INSERT INTO ledger (key, cents) VALUES (:key, :cents)")
SCHEMA = "CREATE TABLE ledger (id INTEGER PRIMARY KEY, key TEXT NOT NULL, cents INTEGER NOT NULL)"


def nothing(_given: Any, cents: int) -> int:
    """What a transaction's function does after its write, unless a test says otherwise."""
    return cents


class Bank:
    """One SQLite file, opened as an application would."""

    def __init__(self, path: Path, *, timeout: float = 5.0) -> None:
        self.path = path
        self.calls: list[int] = []  # of transactions' functions
        options = {"connect_args": {"timeout": timeout}}
        self.engine = sa.create_engine(f"sqlite:///{path}", **options)
        self.async_engine = create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=sa.NullPool, **options)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(SCHEMA)

    def bind(self, kind: str) -> Any:
        """What `perdure.transaction` gets."""
        return {
            "connection": self.engine,
            "session": sessionmaker(self.engine),
            "async connection": self.async_engine,
            "async session": async_sessionmaker(self.async_engine),
        }[kind]

    def sync_engine(self, kind: str) -> sa.Engine:
        """Whose events tell what happens."""
        return self.async_engine.sync_engine if kind in ASYNC else self.engine

    def deposit(self, kind: str, then: Callable[[Any, int], Any] = nothing, **options: Any) -> Any:
        """A transaction `deposit(cents) -> int`: it writes a line into the ledger, then does what the test wants.

        What `then` returns may be a coroutine, where the function is async.
        """
        decorate = perdure.transaction(self.bind(kind), name="deposit", **({"retry": None} | options))

        def line(cents: int) -> dict[str, Any]:
            self.calls.append(cents)
            return {"key": perdure.current_step().idempotency_key, "cents": cents}

        if kind in SYNC:

            @decorate
            def deposit(given: Any, cents: int) -> int:
                given.execute(INSERT, line(cents))
                return then(given, cents)  # type: ignore[no-any-return]

            return deposit

        @decorate
        async def deposit_async(given: Any, cents: int) -> int:
            await given.execute(INSERT, line(cents))
            value = then(given, cents)
            return await value if asyncio.iscoroutine(value) else value

        return deposit_async

    # --- what is in it ---

    def sql(self, query: str, *args: Any) -> list[tuple[Any, ...]]:
        """Rows, read or written past everything."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(query, args).fetchall()

    def ledger(self) -> list[int]:
        """What was deposited; every line under a key of its own."""
        rows = self.sql("SELECT key, cents FROM ledger ORDER BY id")
        assert len({key for key, _ in rows}) == len(rows), f"a key twice: {rows}"
        return [cents for _, cents in rows]

    def records(self) -> list[tuple[int, str]]:
        """Seq and state of all records."""
        return self.sql("SELECT seq, state FROM perdure_transactions ORDER BY execution, run, seq")  # type: ignore[return-value]

    def close(self) -> None:
        self.engine.dispose()


def copy_store(source: Path, target: Path) -> None:
    """A copy of a store that nobody has open."""
    for path in source.parent.glob(f"{source.name}*"):
        if path.is_file():
            shutil.copy(path, target.with_name(path.name.replace(source.name, target.name)))


def as_workflow(body: Any, name: str = "flow") -> Any:
    """A workflow `flow(cents) -> Any`."""

    @perdure.workflow(name=name)
    async def flow(cents: int) -> Any:
        return await body(cents)

    return flow
