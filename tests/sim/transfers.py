"""Transactions in the simulated world: the real records, in a real SQLite database that lives as long as the world.

Every call of the database takes virtual time, and the process may die before it or after it. Each runs to its end in
one go: who meets a lock is told so at once, as by a database that does not wait, and tries again.

python -m tests.sim.transfers --seeds 1000 --start 0
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

import perdure
from perdure.core import events as ev
from perdure.journal import plain_value
from perdure.testing import shapes, simulation
from perdure.testing.kernel import Crash
from perdure.testing.ledger import Broken
from perdure.testing.shapes import Shape
from perdure.testing.simulation import Simulation, profile_of
from perdure.testing.world import World, WorldFailure
from perdure.transactions import Datasource
from perdure.workflow.context import current_step
from perdure.workflow.definitions import workflow

LAW = "a transaction happens exactly once"
LONGEST_CALL_S = 0.02
CRASH = 0.02  # before a call, and after it
names = itertools.count()

MOVES = sa.Table(
    "moves",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("execution", sa.String),
    sa.Column("run", sa.String),
    sa.Column("seq", sa.Integer),
    sa.Column("answer", sa.Integer),
)


class Accounts:
    """One world's database. Nothing of the users' own keys keeps a move from being there twice."""

    def __init__(self) -> None:
        url = f"sqlite:///file:transfers-{next(names)}?mode=memory&cache=shared&uri=true&timeout=0"
        self.engine = sa.create_engine(url, poolclass=NullPool)
        self._alive = self.engine.connect()  # as long as one is open, the database is there
        DB.records.TABLE.create(self._alive)
        MOVES.create(self._alive)
        self._alive.commit()

    def moves(self) -> list[Any]:
        """All that was committed."""
        with self.engine.connect() as connection:
            return list(connection.execute(sa.select(MOVES)))

    def close(self) -> None:
        self._alive.close()
        self.engine.dispose()


class Line:
    """A connection of one process. Closed by its death, which rolls back, as when the kernel closes its socket."""

    def __init__(self, accounts: Accounts, world: World, plan: Any) -> None:
        self._accounts = accounts
        self._world = world
        self._plan = plan

    async def __aenter__(self) -> Self:
        self.sync = self._accounts.engine.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sync.close()

    async def run_sync(self, call: Any, *args: Any) -> Any:
        await asyncio.sleep(self._world.rng.random() * LONGEST_CALL_S)
        self._may_die()
        found = call(self.sync, *args)
        self._may_die()
        return found

    async def execute(self, statement: Any) -> Any:
        return await self.run_sync(lambda connection: connection.execute(statement))

    def _may_die(self) -> None:
        if self._plan.on and self._world.rng.random() < CRASH:
            process: Any = asyncio.get_running_loop()
            process.kill()
            raise Crash


class SimulatedDatasource(Datasource[Any]):
    """What `@perdure.transaction` asks of a datasource, of the world in which the process lives."""

    def __init__(self) -> None:
        self.records = perdure.transactions._records()
        self.is_async = True
        self.bind = "the simulated database"
        self._maker = None
        self._prepared = True

    @property
    def gives(self) -> type:
        return Line

    @property
    def engine(self) -> Any:
        return self

    def connect(self) -> Line:
        process: Any = asyncio.get_running_loop()
        world: World = process.world
        return Line(world.accounts, world, world.plan)  # type: ignore[attr-defined]


DB = SimulatedDatasource()


async def move(line: Line, tag: str, fail: float) -> int:
    """A write, a while, and another answer each time it is really run."""
    process: Any = asyncio.get_running_loop()
    world: World = process.world
    attempt = current_step()
    world.ledger.note(process.kernel.now_ms, process.name, attempt.execution, f"transfer {tag} #{attempt.seq} begins")
    world.answers += 1
    answer = world.answers
    await line.execute(
        MOVES.insert().values(execution=attempt.execution, run=attempt.run, seq=attempt.seq, answer=answer)
    )
    await asyncio.sleep(world.rng.random() * 0.05)
    if world.rng.random() < fail:
        raise WorldFailure(f"refused: {answer}")
    return answer


@perdure.transaction(DB, retry=None)
async def transfer_at_most(line: Line, tag: str, fail: float) -> int:
    """One attempt in all."""
    return await move(line, tag, fail)


@perdure.transaction(DB, retry=perdure.Retry(attempts=6, delay=0.05, maximum=0.5), timeout=5)
async def transfer(line: Line, tag: str, fail: float) -> int:
    """Several, if it must be."""
    return await move(line, tag, fail)


@workflow
async def transfers(n: int) -> list[str]:
    """One after the other, then all at once, with failures."""
    said: list[str] = []

    async def one(step: Any, tag: str, fail: float) -> None:
        try:
            said.append(f"{tag}: {await step(tag, fail)}")
        except perdure.StepFailed as error:
            said.append(f"{tag}: {error.failure.message}")

    for i in range(n):
        await one(transfer, f"t{i}", 0.2)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for i in range(n):
            group.create_task(one(transfer_at_most, f"u{i}", 0.3))
    return said


def check(world: Any, ledger: Any) -> None:
    """Completed: one move, with this very answer. Failed: none. Never more than one, whatever the journal says."""
    found: dict[tuple[str, int], list[int]] = {}
    for move in world.accounts.moves():
        found.setdefault((move.run, move.seq), []).append(move.answer)
    twice = {place: answers for place, answers in found.items() if len(answers) > 1}
    if twice:
        raise Broken(LAW, f"more than once: {twice}")
    for journal in ledger.journals.values():
        for recorded in journal.events:
            event = recorded.event
            if isinstance(event, ev.StepCompleted | ev.StepFailed) and event.name in (
                transfer.name,
                transfer_at_most.name,
            ):
                moved = found.get((journal.run, event.seq), [])
                told = [plain_value(event.result)] if isinstance(event, ev.StepCompleted) else []
                if moved != told:
                    detail = f"#{event.seq} of {journal.key.execution} is recorded as {told}, the database has {moved}"
                    raise Broken(LAW, detail, journal.key)


def install() -> None:
    """Let simulations know the shape."""
    shapes.SHAPES["transfers"] = Shape(transfers, lambda rng: (rng.randint(1, 3),))
    for code in (simulation.WORKFLOWS, simulation.BEFORE):
        code[transfers.name] = transfers


def uninstall() -> None:
    """As it was: it is in no other simulation."""
    del shapes.SHAPES["transfers"], simulation.WORKFLOWS[transfers.name], simulation.BEFORE[transfers.name]


def simulate(seed: int) -> Simulation:
    """One seed. Raises `Broken`, as the simulation does."""
    world = Simulation(seed, profile_of(seed, "transfers"))
    world.world.accounts, world.world.plan = Accounts(), world.faults  # type: ignore[attr-defined]
    try:
        world.run()
        check(world.world, world.ledger)
    finally:
        world.world.accounts.close()  # type: ignore[attr-defined]
    return world


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--start", type=int, default=0)
    options = parser.parse_args()
    logging.disable()
    install()
    moves, failed = 0, []
    for seed in range(options.start, options.start + options.seeds):
        try:
            moves += sum(len(each.events) for each in simulate(seed).ledger.journals.values())
        except Exception as error:  # noqa: BLE001 - told at the end
            failed.append((seed, error))
            print(seed, type(error).__name__, error)
    print(f"{options.seeds} seeds, {moves} events; failed: {[seed for seed, _ in failed] or 'none'}")


if __name__ == "__main__":
    main()
