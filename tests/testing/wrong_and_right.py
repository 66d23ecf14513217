"""Six workflows that are deliberately wrong, and their corrected twins. The world is the working directory's files."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import perdure
from perdure import Engine, step, workflow


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
    connection.execute("CREATE TABLE IF NOT EXISTS done (key TEXT PRIMARY KEY)")
    connection.execute("INSERT OR IGNORE INTO account VALUES ('ada', 0)")
    connection.commit()
    return connection


@step
async def add_without(cents: int) -> None:
    with closing(bank()) as connection:
        [(balance,)] = connection.execute("SELECT cents FROM account").fetchall()
        connection.execute("UPDATE account SET cents = ?", (balance + cents,))
        connection.commit()


@step
async def add_within(cents: int) -> None:
    key = perdure.current_step().idempotency_key
    with closing(bank()) as connection, connection:
        if connection.execute("INSERT OR IGNORE INTO done VALUES (?)", (key,)).rowcount:
            connection.execute("UPDATE account SET cents = cents + ?", (cents,))


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


@workflow
async def hears() -> str:
    return await perdure.receive("word", str, timeout=1)


async def sends_once(engine: Engine) -> None:
    """Remembers outside that it was sent, before it was."""
    handle = await engine.start(hears, id="x")
    if not told(Path(), "sent"):
        tell("sent", "word")
        await handle.signal("word", "hello")
    assert await handle.result() == "hello"


async def sends_with_an_id(engine: Engine) -> None:
    handle = await engine.start(hears, id="x")
    if (await handle.describe()).status in {"active", "parked"}:
        with suppress(perdure.ExecutionClosed):  # it has heard it already
            await handle.signal("word", "hello", id="word-1")
    assert await handle.result() == "hello"


# --- an unsafe way to find out what happened --------------------------------------------------------------------------


@step
async def asked() -> bool:
    return bool(told(Path(), "orders"))


@step
async def order() -> None:
    tell("orders", "pizza")


@step
async def order_unless_ordered() -> None:
    if not told(Path(), "orders"):
        tell("orders", "pizza")


@workflow
async def reconciles_too_early() -> None:
    if not await asked():
        await order()


@workflow
async def reconciles_at_the_act() -> None:
    await order_unless_ordered()


async def wrong_order(engine: Engine) -> None:
    await (await engine.start(reconciles_too_early, id="x")).result()


async def right_order(engine: Engine) -> None:
    await (await engine.start(reconciles_at_the_act, id="x")).result()


def one_order(folder: Path) -> None:
    assert len(told(folder, "orders")) == 1


# --- a race that is decided outside the journal -----------------------------------------------------------------------


@step
async def claim(name: str) -> None:
    tell("winner", name)


@step
async def quick(name: str) -> str:
    return name


@workflow
async def races_outside() -> None:
    winner = "left" if not Path("flag").exists() else "right"
    Path("flag").mkdir(exist_ok=True)
    await nothing()
    await claim(winner)


@workflow
async def races_inside() -> None:
    tasks = [asyncio.create_task(quick(name)) for name in ("left", "right")]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await mail(min(task.result() for task in done))


async def wrong_race(engine: Engine) -> None:
    await (await engine.start(races_outside, id="x")).result()


async def right_race(engine: Engine) -> None:
    await (await engine.start(races_inside, id="x")).result()


def left_won(folder: Path) -> None:
    assert set(told(folder, "winner")) <= {"left"}
