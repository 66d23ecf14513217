"""What a type checker sees of the public API. Never executed: `make lint` checks it; an unused ignore is an error."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import assert_type

import perdure
from perdure import Handle, step, workflow


@dataclass
class Page:
    url: str


@step
async def search(query: str) -> list[Page]:
    return [Page(query)]


@step(retry=perdure.Retry(attempts=5), timeout=60)
async def ask_model(prompt: str) -> str:
    return prompt


@step
def read(path: str, *, size: int = 10) -> bytes:
    return path.encode()[:size]


class Tools:
    @step
    async def fetch(self, url: str) -> Page:
        return Page(url)


class CardDeclined(perdure.Failure):
    code: str
    cents: int = 0


@step(raises=[CardDeclined, ValueError])
async def charge(card: str) -> str:
    raise CardDeclined("no funds", code=card)


def failures() -> None:
    assert_type(CardDeclined("no", code="51", cents=5).code, str)
    CardDeclined("no")  # type: ignore[call-arg]
    CardDeclined("no", code=51)  # type: ignore[arg-type]
    step(raises=[CardDeclined("no", code="51")])  # type: ignore[list-item]


@workflow
async def research(topic: str, *, depth: int = 1) -> Page:
    assert_type(await search(topic), list[Page])
    assert_type(await ask_model(topic), str)
    assert_type(await read("x", size=depth), bytes)  # a `def` step is awaited too
    assert_type(await Tools().fetch("x"), Page)
    assert_type(await perdure.receive("approval", bool), bool)
    assert_type(await perdure.receive("approval", Page, timeout=timedelta(days=3)), Page)
    child = await perdure.start_child(research, topic, id="child")
    assert_type(await child.result(), Page)

    await search(1)  # type: ignore[arg-type]
    await read()  # type: ignore[call-arg]
    await Tools().fetch(1)  # type: ignore[arg-type]
    search(topic)  # type: ignore[unused-coroutine]
    return Page(topic)


@workflow  # type: ignore[arg-type]
def not_async(topic: str) -> str:
    return topic


async def caller(engine: perdure.Engine) -> None:
    handle = await engine.start(research, "topic", id="report-1")
    assert_type(handle, Handle[Page])
    assert_type(await handle.result(), Page)
    assert_type(await engine.handle("report-1", research).result(), Page)
    await search.fn("x")  # the plain function


def sync_caller() -> None:
    assert_type(perdure.run(research, "topic", id="report-1"), Page)
