"""Six workflows that are deliberately wrong, and their corrected twins. The world is the working directory's files."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import sqlalchemy

import perdure
from perdure import DidNotHappen, Engine, Happened, Workflow, step, workflow


def tell(file: str, line: str) -> None:
    """An effect on the world."""
    with Path(file).open("a") as world:
        world.write(line + "\n")


def told(folder: Path, file: str) -> list[str]:
    path = folder / file
    return path.read_text().splitlines() if path.exists() else []


# --- a side effect outside a step -------------------------------------------------------------------------------------


@step
async def mail(to: str) -> None:
    key = perdure.current_step().idempotency_key
    if key not in told(Path(), "mails"):
        tell("mails", key)


@step
async def nothing() -> None:
    pass


@workflow
async def effect_outside() -> None:
    os.mkdir(f"mail-{len(os.listdir())}")  # noqa: PTH102, PTH208 - the guards would catch a file that is opened
    await nothing()


@workflow
async def effect_inside() -> None:
    await mail("ada")
    await nothing()


async def wrong_effect(engine: Engine) -> None:
    await (await engine.start(effect_outside, id="x")).result()


async def right_effect(engine: Engine) -> None:
    await (await engine.start(effect_inside, id="x")).result()


def one_mail(folder: Path) -> None:
    assert len([*told(folder, "mails"), *folder.glob("mail-*")]) == 1


# --- a retry that is not idempotent -----------------------------------------------------------------------------------


@step
async def charge_blindly(cents: int) -> None:
    tell("charges", f"{cents}")


@step
async def charge_by_key(cents: int) -> None:
    key = perdure.current_step().idempotency_key
    if not any(line.startswith(key) for line in told(Path(), "charges")):
        tell("charges", f"{key} {cents}")


@workflow
async def pays_blindly() -> None:
    await charge_blindly(100)


@workflow
async def pays_by_key() -> None:
    await charge_by_key(100)


async def wrong_charge(engine: Engine) -> None:
    await (await engine.start(pays_blindly, id="x")).result()


async def right_charge(engine: Engine) -> None:
    await (await engine.start(pays_by_key, id="x")).result()


def one_charge(folder: Path) -> None:
    assert len(told(folder, "charges")) == 1


# --- a read, a change and a write without a transaction ---------------------------------------------------------------


def bank() -> sqlite3.Connection:
    connection = sqlite3.connect("bank.db")
    connection.execute("CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, cents INTEGER)")
    connection.execute("INSERT OR IGNORE INTO account VALUES ('ada', 0)")
    connection.commit()
    return connection


@step
async def add_without(cents: int) -> None:
    with closing(bank()) as connection:
        [(balance,)] = connection.execute("SELECT cents FROM account").fetchall()
        connection.execute("UPDATE account SET cents = ?", (balance + cents,))
        connection.commit()


def connected() -> sqlite3.Connection:
    """To the file in the working directory of the process that connects, not of the one that imported this."""
    return sqlite3.connect("bank.db", check_same_thread=False)


@perdure.transaction(sqlalchemy.create_engine("sqlite:///bank.db", creator=connected))
def add_within(connection: sqlalchemy.Connection, cents: int) -> None:
    connection.execute(sqlalchemy.text("CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, cents INTEGER)"))
    connection.execute(sqlalchemy.text("INSERT OR IGNORE INTO account VALUES ('ada', 0)"))
    connection.execute(sqlalchemy.text("UPDATE account SET cents = cents + :cents"), {"cents": cents})


@workflow
async def deposits_without() -> None:
    await add_without(5)
    await add_without(7)


@workflow
async def deposits_within() -> None:
    await add_within(5)
    await add_within(7)


async def wrong_deposit(engine: Engine) -> None:
    await (await engine.start(deposits_without, id="x")).result()


async def right_deposit(engine: Engine) -> None:
    await (await engine.start(deposits_within, id="x")).result()


def twelve_cents(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "bank.db")) as connection:
        assert connection.execute("SELECT cents FROM account").fetchall() == [(12,)]


# --- a lost signal ----------------------------------------------------------------------------------------------------


engines: list[Engine] = []  # as a program has one at hand


@workflow
async def hears() -> str:
    return await perdure.receive("word", str)


@step
async def send_unless_sent() -> None:
    """Remembers outside that it was sent, before it was."""
    if not told(Path(), "sent"):
        tell("sent", "word")
        await engines[-1].handle("hearer").signal("word", "hello")


@workflow
async def signals_by_a_step() -> None:
    await send_unless_sent()


@workflow
async def signals_by_itself() -> None:
    await perdure.external("hearer").signal("word", "hello")


async def wrong_signal(engine: Engine) -> None:
    await _signalled(engine, signals_by_a_step)


async def right_signal(engine: Engine) -> None:
    await _signalled(engine, signals_by_itself)


async def _signalled(engine: Engine, sender: Workflow[[], None]) -> None:
    engines.append(engine)
    hearer = await engine.start(hears, id="hearer")
    await (await engine.start(sender, id="sender")).result()
    assert await hearer.result(timeout=30) == "hello"


# --- an unsafe way to find out what happened --------------------------------------------------------------------------


async def is_any_ordered(_key: str, what: str) -> Happened[None] | DidNotHappen:
    """Takes any order of the same for this one."""
    return Happened(None) if any(line.endswith(what) for line in told(Path(), "orders")) else DidNotHappen()


async def is_this_ordered(key: str, _what: str) -> Happened[None] | DidNotHappen:
    return Happened(None) if any(line.startswith(key) for line in told(Path(), "orders")) else DidNotHappen()


@step(once=True, reconcile=is_any_ordered)
async def order_loosely(what: str) -> None:
    tell("orders", f"{perdure.current_step().idempotency_key} {what}")


@step(once=True, reconcile=is_this_ordered)
async def order_by_key(what: str) -> None:
    tell("orders", f"{perdure.current_step().idempotency_key} {what}")


@workflow
async def reconciles_loosely() -> None:
    for _ in range(3):
        await order_loosely("pizza")


@workflow
async def reconciles_by_key() -> None:
    for _ in range(3):
        await order_by_key("pizza")


async def wrong_order(engine: Engine) -> None:
    await (await engine.start(reconciles_loosely, id="x")).result()


async def right_order(engine: Engine) -> None:
    await (await engine.start(reconciles_by_key, id="x")).result()


def three_orders(folder: Path) -> None:
    assert len(told(folder, "orders")) == 3


# --- a race that is decided outside the journal -----------------------------------------------------------------------


finished: list[str] = []  # in the order in which this process has seen them


@step
async def run_course(name: str, seconds: float) -> str:
    await asyncio.sleep(seconds)
    finished.append(name)
    return name


@step
async def crown(name: str) -> None:
    tell("winner", name)


async def race() -> set[asyncio.Task[str]]:
    tasks = [asyncio.create_task(run_course("left", 0.0)), asyncio.create_task(run_course("right", 0.2))]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return done


@workflow
async def races_outside() -> str:
    await race()
    winner = finished[0] if finished else "nobody"
    await crown(winner)
    return winner


@workflow
async def races_inside() -> str:
    winner = min(task.result() for task in await race())
    await crown(winner)
    return winner


async def wrong_race(engine: Engine) -> None:
    await (await engine.start(races_outside, id="x")).result()


async def right_race(engine: Engine) -> None:
    winner = await (await engine.start(races_inside, id="x")).result()
    assert set(told(Path(), "winner")) == {winner}


def one_of_them_won(folder: Path) -> None:
    assert set(told(folder, "winner")) in ({"left"}, {"right"})
