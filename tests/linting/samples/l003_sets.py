"""Sets that decide the order of commands, or go into one in an order of their own."""

import asyncio
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Set

import perdure

TOPICS = {"tea", "coffee", "water"}
NUMBERS = {1, 2, 3}
ONE = {"alone"}


@perdure.step
async def search(query: str) -> str:
    return query


@perdure.step
async def combine(queries: list[str]) -> list[str]:
    return queries


async def helper(query: str) -> str:
    return await search(query)


@perdure.workflow
async def bad_loops(given: set[str], others: frozenset[str], more: AbstractSet[str], names: list[str]) -> None:
    for query in {"a", "b"}:  # L003
        await search(query)
    for query in set(names):  # L003
        await search(query)
    for query in given | others:  # L003
        await search(query)
    for query in more:  # L003
        await helper(query)
    for query in TOPICS:  # L003
        async with asyncio.timeout(1):
            pass
    known = {name.lower() for name in names}
    for query in known - given:  # L003
        await search(query)
    for number, query in enumerate(list(known)):  # L003
        await search(f"{number}{query}")
    seen = set()
    for name in names:
        seen.add(f"{name}!")
    for query in seen:  # L003
        await search(query)
    found = set()
    found.update(names)
    tasks = []
    for query in found:  # L003
        tasks.append(helper(query))
    await asyncio.gather(*tasks)
    other = dict.fromkeys(names)
    for query in other.keys() - given:  # L003
        await search(query)
    for query in given.union(names):  # L003
        tasks.append(asyncio.create_task(search(query)))
    ordered = [query for query in known if query]
    for query in ordered:  # L003
        await search(query)


@perdure.workflow
async def bad_expressions(given: set[str], names: list[str]) -> None:
    await asyncio.gather(*[search(query) for query in given])  # L003
    await asyncio.gather(*(helper(query) for query in set(names)))  # L003
    [await search(query) for query in given]  # L003
    await asyncio.gather(*map(search, given))  # L003
    await combine(list(given))  # L003
    await combine([query for query in given])  # L003
    await search(", ".join(given))  # L003
    await combine(queries=tuple(given))  # L003
    coroutines = {search(name) for name in names}
    await asyncio.gather(*coroutines)  # L003
    await asyncio.gather(*{search("a"), search("b")})  # L003
    await asyncio.gather(*set(helper(name) for name in names))  # L003
    await perdure.start_child(child, list(given))  # L003
    todo = set(names)
    while todo:
        await search(todo.pop())  # L003
    await search(next(iter(given)))  # L003


@perdure.workflow
async def child(names: list[str]) -> None:
    pass


@perdure.workflow
async def good(given: set[str], ids: set[int], names: list[str], counts: list[int]) -> object:
    for query in sorted(given):
        await search(query)
    for query in dict.fromkeys(names):
        await search(query)
    for number in ids | {1, 2} | set(range(5)) | set(counts) | {int(name) for name in names}:
        await search(str(number))
    for number in NUMBERS:
        await search(str(number))
    for query in ONE | {"alone"}:
        await search(query)
    for query in given:  # nothing is asked for
        names.append(query.upper())
    await combine(sorted(given))
    await combine([query for query in names if query in given])
    await search(f"{len(given)} {'x' in given} {max(given)}")
    tasks = {asyncio.create_task(search(name)) for name in names}
    done, pending = await asyncio.wait(tasks)
    for task in pending:
        await task
    await asyncio.gather(*tasks)
    winner, loser = (asyncio.ensure_future(search(name)) for name in names)
    await asyncio.gather(*{winner, loser}, *{search("alone")})
    gatherings = [asyncio.gather(search(name)) for name in names]
    await asyncio.wait(set(gatherings))
    background = set()
    for name in names:
        task = asyncio.create_task(search(name))
        background.add(task)
    for task in background:
        await task
    unknown = set()
    unknown.update(done)
    for task in unknown:
        await task
    annotated: set[asyncio.Task[str]] = set()
    for task in annotated:
        print(await task)
    again = set(names)
    again = sorted(again)
    for query in again:
        await search(query)
    chars = {name: 1 for name in names}
    for query in chars:
        await search(query)
    return {query for query in given}, given.pop if given else None


@perdure.workflow
async def allowed(given: set[str]) -> None:
    for query in given:  # perdure: allow L003
        await search(query)


@dataclass
class Plan:
    queries: set[str]
    pages: frozenset
    ids: set[int]
    names: list[str]


@dataclass
class Quoted:
    queries: "set[str]"
    more: Set[str]


class Agent:
    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.known = {"a", "b"}
        self.tasks: set[asyncio.Task[str]] = set()
        self.numbers = {1, 2}
        self.names = ["a"]

    async def bad(self) -> None:
        for query in self.seen | self.known:  # L003
            await search(query)
        for query in self.known:  # L003
            await search(query)

    async def good(self) -> None:
        for task in self.tasks:
            await search(str(task))
        for number in self.numbers:
            await search(str(number))
        for name in self.names:
            await search(name)


@perdure.workflow
async def attributes(plan: Plan, quoted: Quoted) -> None:
    for query in plan.queries:  # L003
        await search(query)
    for query in plan.pages:  # L003
        await search(query)
    for query in quoted.queries:  # L003
        await search(query)
    await asyncio.gather(*[search(query) for query in quoted.more])  # L003
    for number in plan.ids:
        await search(str(number))
    for name in plan.names:
        await search(name)
    agent = Agent()
    await agent.bad()
    await agent.good()
