"""Run in fresh interpreters with different hash seeds: prints one digest of everything that was journaled and seen."""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import Any

import anyio
from tests.workflow.harness import drive, echo, log, replays_alike

from perdure.core.format import encode_event
from perdure.workflow import context
from perdure.workflow.definitions import workflow


@workflow
async def sets_of_tasks() -> list[str]:
    """Iterates over sets of tasks, futures and gathers in every way."""
    names: list[str] = []
    tasks = {asyncio.create_task(echo(n), name=str(n)) for n in range(20)}
    names += [task.get_name() for task in tasks]
    while tasks:
        done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        names += [task.get_name() for task in done]
        log(len(tasks), *(task.get_name() for task in tasks))
    loop = asyncio.get_running_loop()
    futures = {loop.create_future(): n for n in range(20)}
    log(*(futures[future] for future in set(futures)))
    gathers = {asyncio.gather(echo(n), echo(-n)): n for n in range(10)}
    async for each in asyncio.as_completed(set(gathers)):  # type: ignore[attr-defined]
        log(gathers[each])
    log(*(task.get_name() for task in asyncio.all_tasks()))
    return names


@workflow
async def groups() -> list[Any]:
    """Cancels groups of both kinds half way."""
    seen: list[Any] = []

    async def one(number: int) -> None:
        try:
            await asyncio.sleep(number % 3)
            seen.append(await echo(number))
        except asyncio.CancelledError:
            seen.append(f"cancelled {number}")
            raise

    for kind in (asyncio.TaskGroup, anyio.create_task_group):
        try:
            async with kind() as group:
                start = group.create_task if kind is asyncio.TaskGroup else lambda coro: group.start_soon(lambda: coro)
                for number in range(12):
                    start(one(number))
                await asyncio.sleep(2)
                raise KeyError(str(kind))  # noqa: TRY301 - out of the group
        except* KeyError:
            seen.append("left")
    return seen


@workflow
async def chances() -> list[Any]:
    """Numbers from the run's generator, and a set of strings put in order."""
    random_ = context.random()
    words = {str(random_.random()) for _ in range(10)}
    return [*sorted(words), str(context.uuid4()), random_.choice(sorted(words)), await echo(sorted(words))]


def main() -> str:
    """The digest."""
    garbage = [object() for _ in range(random.SystemRandom().randrange(10_000))]  # other addresses on every run
    digest = hashlib.blake2b(digest_size=16)
    for case in (sets_of_tasks, groups, chances):
        for seed in range(3):
            run = drive(case, seed=seed)
            replays_alike(run)
            assert run.outcome[0] == "completed", run.outcome
            for recorded in run.journal:
                digest.update(encode_event(recorded.event))
            digest.update(repr(run.trace).encode())
    del garbage
    return digest.hexdigest()


if __name__ == "__main__":
    print(main())
