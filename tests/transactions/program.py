"""A worker that dies or freezes at a point of its choosing between BEGIN and journal. Run in a process of its own.

The points are hooks on SQLAlchemy's events and around the store, in this program alone.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

import perdure
from perdure.core import events as ev
from perdure.store.sqlite import SqliteStore

CLAIMED = "INSERT INTO perdure_transactions"
COMPLETED = "UPDATE perdure_transactions"
TAKE = sa.text("UPDATE account SET cents = cents - :cents WHERE name = :name RETURNING cents")
GIVE = sa.text("UPDATE account SET cents = cents + :cents WHERE name = :name RETURNING cents")
NOTE = sa.text("INSERT INTO transfer (key, cents) VALUES (:key, :cents)")
SCHEMA = """
CREATE TABLE account (name TEXT PRIMARY KEY, cents INTEGER NOT NULL);
CREATE TABLE transfer (id INTEGER PRIMARY KEY, key TEXT NOT NULL, cents INTEGER NOT NULL);
INSERT INTO account VALUES ('alice', 1000), ('bob', 0);
"""

# In the order in which a transaction meets them. While one of HOLDING, it holds its record and the database's lock.
HOLDING = (
    *("claimed", "before write 1", "after write 1", "before write 2", "after write 2", "before write 3"),
    *("after write 3", "completing", "completed", "committing"),
)
POINTS = ("connected", "begun", "claiming", *HOLDING, "committed", "given back", "journaling", "journaled")


@dataclass
class Balance:
    alice: int
    bob: int


class World:
    """What one process opens, and the point at which it ends itself."""

    def __init__(self, folder: Path, kind: str, fault: str, sign: signal.Signals, tell: Callable[[str], None]) -> None:
        self._fault = fault
        self._sign = sign
        self._tell = tell
        self._ours = False  # the connection has claimed a record, the probe's aside
        self._writes = 0
        path = folder / "bank.db"
        if kind == "sync":
            self.engine = sa.create_engine(f"sqlite:///{path}")
            self.bind: Any = self.engine
        else:
            bind = create_async_engine(f"sqlite+aiosqlite:///{path}")
            self.engine = bind.sync_engine
            self.bind = async_sessionmaker(bind)
        self.is_sync = kind == "sync"
        self._hook()

    def reach(self, point: str) -> None:
        """Tell; and if it is the one, end or freeze here."""
        self._tell(point)
        if point == self._fault:
            self._fault = ""
            signal.pthread_kill(threading.get_ident(), self._sign)  # this thread itself: it takes no step more

    def _hook(self) -> None:
        engine, reach = self.engine, self.reach
        event.listen(engine, "checkout", lambda *_: reach("connected"))
        event.listen(engine, "begin", lambda _: reach("begun"))
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", self._after)
        event.listen(engine, "commit", lambda _: self._ours and reach("committing"))
        commit = engine.dialect.do_commit

        def do_commit(connection: Any) -> None:
            commit(connection)
            if self._ours:
                reach("committed")

        engine.dialect.do_commit = do_commit  # type: ignore[method-assign]
        event.listen(engine, "checkin", lambda *_: self._ours and reach("given back"))
        journal = SqliteStore.commit

        def commit_journal(store: Any, session: Any, batches: Any, *more: Any, **options: Any) -> Any:
            events = [new.event for batch in batches for new in batch.events]
            told = any(isinstance(each, ev.StepCompleted) and each.name == "transfer" for each in events)
            if told:
                reach("journaling")
            result = journal(store, session, batches, *more, **options)
            if told:
                reach("journaled")
            return result

        SqliteStore.commit = commit_journal  # type: ignore[method-assign]

    def _before(self, _c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(CLAIMED) and parameters[0]:
            self.reach("claiming")
        elif statement.startswith(COMPLETED):
            self.reach("completing")
        elif self._ours and "perdure_transactions" not in statement:
            self._writes += 1
            self.reach(f"before write {self._writes}")

    def _after(self, _c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(CLAIMED) and parameters[0]:
            self._ours = True
            self.reach("claimed")
        elif statement.startswith(COMPLETED):
            self.reach("completed")
        elif self._ours and "perdure_transactions" not in statement:
            self.reach(f"after write {self._writes}")


def application(world: World) -> perdure.Workflow[[int], Balance]:
    """One transfer, between two ordinary steps."""

    def key() -> str:
        return perdure.current_step().idempotency_key

    if world.is_sync:

        @perdure.transaction(world.bind, name="transfer")
        def transfer(connection: sa.Connection, source: str, target: str, cents: int) -> Balance:
            left = connection.execute(TAKE, {"cents": cents, "name": source}).scalar_one()
            got = connection.execute(GIVE, {"cents": cents, "name": target}).scalar_one()
            connection.execute(NOTE, {"key": key(), "cents": cents})
            return Balance(left, got)

    else:

        @perdure.transaction(world.bind, name="transfer")
        async def transfer(session: Any, source: str, target: str, cents: int) -> Balance:
            left = (await session.execute(TAKE, {"cents": cents, "name": source})).scalar_one()
            got = (await session.execute(GIVE, {"cents": cents, "name": target})).scalar_one()
            await session.execute(NOTE, {"key": key(), "cents": cents})
            return Balance(left, got)

    @perdure.step(name="limit")
    async def limit(cents: int) -> int:
        return min(cents, 100)

    @perdure.workflow(name="move")
    async def move(cents: int) -> Balance:
        allowed = await limit(cents)
        balance = await transfer("alice", "bob", allowed)
        assert await limit(balance.bob) == allowed
        return balance

    return move


def run(folder: Path, store: str, kind: str, fault: str, sign: signal.Signals, pipe: Pipe | None) -> None:
    """The process: finish execution "one" of the store, or die on the way. Tells its points and its result."""

    def tell(word: Any) -> None:
        if pipe is not None:
            pipe.send(word)

    async def work() -> None:
        async with perdure.Engine(folder / store, workflows=[move], wait=True, shutdown_timeout=1) as engine:
            handle = await engine.start(move, 250, id="one")
            balance = await handle.result()
            tell(("result", balance.alice, balance.bob))

    move = application(World(folder, kind, fault, sign, tell))
    asyncio.run(work())
