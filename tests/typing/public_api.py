"""What a type checker must see of the public API. Never executed: `test_typing.py` has mypy read it, strictly."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

from sqlalchemy import Connection, create_engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

import perdure
from perdure import Retry, step, workflow
from perdure.testing import TestEngine, golden


@dataclass
class Page:
    url: str


@step
async def search(query: str, *, limit: int = 10) -> list[Page]:
    return [Page(query)][:limit]


@step
def parse(page: Page) -> int:
    return len(page.url)


@step(retry=Retry(attempts=5), timeout=60)
async def fetch(url: str) -> bytes:
    return url.encode()


@step(name="count", retry=3, concurrency=2)
def count(text: str) -> dict[str, int]:
    return {text: 1}


engine = create_engine("sqlite://")
async_engine = create_async_engine("sqlite+aiosqlite://")
bank = perdure.Datasource(async_sessionmaker(async_engine))


@perdure.transaction(bank, timeout=5)
async def transfer(session: AsyncSession, source: str, *, cents: int) -> Page:
    return Page(f"{source}{session.is_active}{cents}")


@perdure.transaction(engine)
def book(connection: Connection, cents: int) -> int:
    return cents + connection.closed


@perdure.transaction(sessionmaker(engine), retry=Retry(attempts=5), name="note")
def note(session: Session, text: str) -> str:
    return f"{session}{text}"


@perdure.transaction(async_engine)
async def move(connection: AsyncConnection, cents: int) -> int:
    return cents + connection.closed


@perdure.transaction(engine)  # type: ignore[arg-type]
def wants_a_session(session: Session) -> None: ...


@perdure.transaction(engine, once=True)  # type: ignore[call-overload,untyped-decorator]
def unknown_option(connection: Connection) -> None: ...


class Tools:
    @step
    async def ask(self, prompt: str) -> str:
        return prompt

    @step(timeout=timedelta(seconds=3))
    def measure(self, text: str, scale: float = 1.0) -> float:
        return len(text) * scale


@workflow
async def child(n: int) -> list[int]:
    return [n]


@workflow(name="main")
async def main(topic: str, *, depth: int = 1) -> Page:
    assert_type(await search(topic), list[Page])
    assert_type(await search(topic, limit=depth), list[Page])
    assert_type(await parse(Page(topic)), int)
    assert_type(await fetch(topic), bytes)
    assert_type(await count(topic), dict[str, int])
    wanted: Coroutine[Any, Any, list[Page]] = search(topic)
    await wanted

    assert_type(await fetch.with_options(timeout=5, retry=None)(topic), bytes)
    assert_type(await parse.with_options(heartbeat_timeout=timedelta(minutes=1))(Page(topic)), int)

    tools = Tools()
    assert_type(await tools.ask("hello"), str)
    assert_type(await tools.measure("hello", scale=2), float)
    assert_type(await tools.measure.with_options(retry=2)("hello"), float)

    assert_type(await transfer("a", cents=depth), Page)
    assert_type(await book(1), int)
    assert_type(await note.with_options(retry=None)("x"), str)
    assert_type(await move(1), int)

    assert_type(await child(1), list[int])
    started = await perdure.start_child(child, 1, id="c")
    assert_type(started, perdure.ChildHandle[list[int]])
    assert_type(await started.result(), list[int])

    assert_type(await perdure.receive("approval", Page, timeout=timedelta(days=3)), Page)
    assert_type(await perdure.receive("number", int), int)
    assert_type(await perdure.receive("anything"), Any)
    return Page(topic)


class Chat:
    async def run(self, user: str, *, turns: int = 1) -> list[str]:
        return [user] * turns


chat = workflow(Chat)
named_chat = workflow(name="chat", version="2")(Chat)


@workflow
class Cart:
    """Type checkers that pass over what class decorators return see the class, and know what it results in."""

    async def run(self, customer: str) -> int:
        return len(customer)

    @perdure.on_query
    def total(self) -> int:
        return 0


@workflow(name="basket")
class Basket:
    async def run(self) -> Page:
        return Page("x")


@workflow  # type: ignore[arg-type]
class NotAWorkflow:
    """It has no `run`."""


@workflow
async def shop() -> int:
    assert_type(await chat("ada", turns=2), list[str])
    await chat("ada", turns="2")  # type: ignore[arg-type]
    started = await perdure.start_child(Cart, "ada", id="c")
    assert_type(started, perdure.ChildHandle[int])
    return await started.result()


async def classes() -> None:
    async with perdure.Engine("x.db", workflows=[chat, Cart, Basket, shop]) as engine:
        assert_type(await engine.start(chat, "ada", turns=3), perdure.Handle[list[str]])
        assert_type(await engine.start(named_chat, "ada"), perdure.Handle[list[str]])
        assert_type(await engine.start(Cart, "ada", id="one"), perdure.Handle[int])
        assert_type(await engine.handle("one", Cart).result(), int)
        assert_type(await engine.signal_with_start(Basket, id="two", signal="go"), perdure.Handle[Page])
        assert_type(await (await engine.fork("one", workflow=Cart)).result(), int)
        await engine.start(NotAWorkflow)  # type: ignore[arg-type]
    async with TestEngine([Cart], steps={"search": []}) as testing:
        assert_type(await (await testing.start(Cart, "ada")).result(), int)
    golden.replay("cart.jsonl", Cart)
    assert_type(perdure.lint(Cart), list[perdure.Finding])
    assert_type(perdure.run(Basket), Page)


async def outside() -> None:
    async with perdure.Engine("x.db", workflows=[main, child]) as engine:
        handle = await engine.start(main, "topic", id="one", depth=2)
        assert_type(handle, perdure.Handle[Page])
        assert_type(await handle.result(), Page)
        assert_type(await (await engine.start(child, 3)).result(timeout=1), list[int])
        assert_type(await engine.handle("one", main).result(), Page)
        assert_type(await engine.handle("one").result(), Any)
    async with perdure.Client("x.db") as client:
        assert_type(await bank.forget(client, window=timedelta(days=60)), int)
        assert_type(await (await client.start(child, 3)).result(), list[int])


def three_lines() -> None:
    assert_type(perdure.run(main, "topic", id="one"), Page)
    assert_type(perdure.run(child, 1), list[int])


async def refused(tools: Tools) -> None:
    """Each line is an error; an ignore that is not needed is one, too."""
    await search(1)  # type: ignore[arg-type]
    await search()  # type: ignore[call-arg]
    await parse(Page("x"), 2)  # type: ignore[call-arg]
    await tools.ask(1)  # type: ignore[arg-type]
    await fetch.with_options(retries=3)("x")  # type: ignore[call-arg]
    await child("x")  # type: ignore[arg-type]
    await transfer(1, cents=1)  # type: ignore[arg-type]
    await book("x")  # type: ignore[arg-type]
    await bank.forget("perdure.db")  # type: ignore[arg-type]
