"""Generated workflows: a random small program as data, run by one workflow, deterministic from its input."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import perdure
from perdure.testing.shapes import leaf, once_only, work
from perdure.workflow.definitions import workflow

Program = list[Any]
LEAVES = ("step", "step", "step", "flaky", "sleep", "receive", "child", "note", "random", "poll")
NODES = ("seq", "all", "any", "first", "limit", "try", "spawn", "cancel", "shield", "group", "branch")


def generate(rng: random.Random, depth: int = 3) -> Program:
    """A program of bounded size."""
    if depth == 0 or rng.random() < 0.2:
        return [rng.choice(LEAVES), rng.randint(1, 99)]
    kind = rng.choice(NODES)
    width = rng.randint(1, 3) if kind in ("seq", "all", "any", "first", "group", "branch") else 1
    return [kind, rng.randint(1, 99), *[generate(rng, depth - 1) for _ in range(width)]]


@workflow
async def program(code: list[Any]) -> str:
    """Runs a generated program; what it returns tells the path it took."""
    machine = Machine()
    await machine.run(code)
    for task in machine.spawned:
        task.cancel()
    return f"{machine.value}:{','.join(machine.said[-20:])}"


class Machine:
    """The interpreter's state: a value that steps change, and what happened."""

    def __init__(self) -> None:
        self.value = 0
        self.said: list[str] = []
        self.spawned: list[asyncio.Task[None]] = []

    def say(self, what: str) -> None:
        """Part of the result: other orders would show."""
        self.said.append(what)

    async def run(self, code: Program) -> None:
        """Run one node."""
        kind, number, *children = code
        await getattr(self, f"_{kind}")(number, children)

    # --- leaves ---

    async def _step(self, number: int, _: list[Program]) -> None:
        self.value = await work(f"{number}-{self.value}", number, 0.1)

    async def _flaky(self, number: int, _: list[Program]) -> None:
        self.value = await once_only(f"{number}-{self.value}", number, 0.3)

    async def _sleep(self, number: int, _: list[Program]) -> None:
        await asyncio.sleep(number / 100)

    async def _receive(self, number: int, _: list[Program]) -> None:
        self.say(f"got{await perdure.receive('note', timeout=number / 50)}")

    async def _child(self, number: int, _: list[Program]) -> None:
        self.value += await leaf(number)

    async def _note(self, number: int, _: list[Program]) -> None:
        await perdure.external(perdure.info().id).signal("note", number)

    async def _random(self, number: int, _: list[Program]) -> None:
        self.value = perdure.random().randint(0, number)
        await asyncio.sleep(0)

    async def _poll(self, number: int, _: list[Program]) -> None:
        self.say(f"at{perdure.now().timestamp():.3f}-{number}")

    # --- nodes ---

    async def _seq(self, _: int, children: list[Program]) -> None:
        for child in children:
            await self.run(child)

    async def _all(self, _: int, children: list[Program]) -> None:
        found = await asyncio.gather(*[self.run(child) for child in children], return_exceptions=True)
        self.say("".join("x" if each is not None else "." for each in found))

    async def _any(self, _: int, children: list[Program]) -> None:
        for done in asyncio.as_completed([self.run(child) for child in children]):
            try:
                await done
            except (perdure.PerdureError, TimeoutError) as error:
                self.say(type(error).__name__)

    async def _first(self, number: int, children: list[Program]) -> None:
        tasks = {asyncio.create_task(self.run(child)) for child in children}
        done, pending = await asyncio.wait(tasks, timeout=number / 50, return_when=asyncio.FIRST_COMPLETED)
        self.say(f"{len(done)}of{len(tasks)}")
        for task in pending:
            task.cancel()
        for task in done:
            if task.exception() is not None:
                self.say("bad")

    async def _limit(self, number: int, children: list[Program]) -> None:
        try:
            async with asyncio.timeout(number / 50):
                await self.run(children[0])
        except TimeoutError:
            self.say("late")

    async def _try(self, number: int, children: list[Program]) -> None:
        try:
            await self.run(children[0])
        except (perdure.PerdureError, TimeoutError, ExceptionGroup) as error:
            self.say(type(error).__name__)
            await work(f"mend{number}", 10)
        finally:
            self.say("t")

    async def _spawn(self, _: int, children: list[Program]) -> None:
        self.spawned.append(asyncio.create_task(self.run(children[0])))

    async def _cancel(self, number: int, children: list[Program]) -> None:
        task = asyncio.create_task(self.run(children[0]))
        await asyncio.wait([task], timeout=number / 200)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            self.say("cut")

    async def _shield(self, number: int, children: list[Program]) -> None:
        inner = asyncio.create_task(self.run(children[0]))
        try:
            await asyncio.wait_for(asyncio.shield(inner), number / 100)
        except TimeoutError:
            self.say("slow")
            await inner

    async def _group(self, _: int, children: list[Program]) -> None:
        async with asyncio.TaskGroup() as group:
            for child in children:
                group.create_task(self.run(child))

    async def _branch(self, _: int, children: list[Program]) -> None:
        await self.run(children[self.value % len(children)])
