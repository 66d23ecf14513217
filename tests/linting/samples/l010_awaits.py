"""Coroutines that nobody awaits."""

import asyncio

import perdure


@perdure.step
async def search(query: str) -> str:
    return query


@perdure.step
def plain(query: str) -> str:
    return query


@perdure.workflow
async def child() -> None:
    pass


async def helper() -> None:
    await search("x")


class Tools:
    @perdure.step
    async def call(self, name: str) -> None:
        pass

    async def think(self) -> None:
        pass


@perdure.workflow
async def bad() -> None:
    search("a")  # L010
    plain("a")  # L010
    search.with_options(timeout=5)("a")  # L010
    child()  # L010
    helper()  # L010
    asyncio.sleep(1)  # L010
    perdure.receive("x", str)  # L010
    tools = Tools()
    tools.call("x")  # L010
    tools.think()  # L010

    async def nested() -> None:
        pass

    nested()  # L010


@perdure.workflow
async def good() -> None:
    await search("a")
    pending = search("b")
    await asyncio.gather(pending, plain("c"))
    task = asyncio.create_task(helper())
    task.cancel()
    asyncio.ensure_future(helper()).cancel()
    print("a"), Tools()
    await search.with_options(timeout=5)("a")
