"""The crash campaign's mixed workload: workflows, steps, and what each must come to, computed without them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from tests.crash.ledger import note, noted

import perdure
from perdure import Retry, step, workflow

FAST = Retry(attempts=8, delay=0.02, maximum=0.2, jitter=0.9)


def pause(longest: float = 0.03) -> float:
    return random.random() * longest


@step(retry=FAST)
async def double(x: int) -> int:
    with noted():
        await asyncio.sleep(pause())
        return 2 * x + 1


@step(retry=FAST)
def blocking(x: int) -> int:
    with noted():
        time.sleep(pause())
        return x + 7


@step(retry=FAST)
async def flaky(fails: int) -> int:
    with noted() as attempt:
        await asyncio.sleep(pause(0.01))
        if attempt.attempt <= fails:
            raise OSError("the network is down")
        return attempt.attempt


@step(retry=Retry(attempts=3, delay=0.03))
def hopeless(x: int) -> int:
    with noted():
        raise ValueError(f"no {x}")


@step(retry=FAST)
async def endless() -> int:
    with noted():
        await asyncio.sleep(600)
        return 0


@step(retry=FAST, heartbeat_timeout=30)
async def counting(total: int) -> int:
    attempt = perdure.current_step()
    done = attempt.progress or 0
    with noted(done):
        while done < total:
            await asyncio.sleep(0.04)
            done += 1
            attempt.heartbeat(done)
            note("told", done)
        return int(done)


@workflow
async def fan(n: int) -> int:
    parts = await asyncio.gather(*[double(n + i) for i in range(2 + n % 5)], *[blocking(n + i) for i in range(2)])
    return await double(sum(parts))


def fan_result(n: int) -> int:
    parts = [2 * (n + i) + 1 for i in range(2 + n % 5)] + [n + 7, n + 8]
    return 2 * sum(parts) + 1


@workflow
async def retries(n: int) -> list[int]:
    attempts = await asyncio.gather(flaky(n % 4), flaky(0), flaky(2))
    try:
        await hopeless(n)
    except perdure.StepFailed as error:
        attempts.append(-error.fields["attempts"])
    return attempts


@workflow
async def timers(n: int) -> list[str]:
    seen = []
    await asyncio.sleep(0.01 * (n % 10))
    try:
        async with asyncio.timeout(0.1):
            await endless()
    except TimeoutError:
        seen.append("late")
    if n % 5 == 0:
        await asyncio.sleep(1.5)  # long enough to be parked
    await double(n)
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0.2))
        group.create_task(asyncio.sleep(0.05))
        group.create_task(quick_then_sleep(n))
    return [*seen, "done"]


async def quick_then_sleep(n: int) -> None:
    await blocking(n)
    await asyncio.sleep(0.02)


@workflow
async def race(n: int) -> int:
    winner, loser = asyncio.create_task(double(n)), asyncio.create_task(endless())
    done, left = await asyncio.wait({winner, loser}, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return await double(done.pop().result())


@workflow
async def signals(n: int) -> list[int]:
    got = []
    for _ in range(signal_count(n)):
        got.append(await perdure.receive("item", int))
        if len(got) % 2:
            await double(got[-1])
    return got


def signal_count(n: int) -> int:
    return 3 + n % 6


@workflow
async def collect(n: int) -> list[int]:
    return [await perdure.receive("item", int) for _ in range(n)]


@workflow
async def approval(n: int) -> int:
    while True:
        try:
            return await perdure.receive("go", int, timeout=0.25) + await double(n)
        except TimeoutError:
            await double(0)


@workflow
async def cancelled(n: int) -> str:
    try:
        await asyncio.sleep(3600)
    finally:
        await double(n)
    return "never"


@workflow
async def heart(n: int) -> int:
    return await counting(10 + n % 8)


@workflow
async def chain(n: int) -> int:
    value = n % 100
    for _ in range(12):
        value = await double(value) % 1000
    return value


def chain_result(n: int) -> int:
    value = n % 100
    for _ in range(12):
        value = (2 * value + 1) % 1000
    return value


@workflow
async def leaf(n: int) -> int:
    await asyncio.sleep(0.03)
    return await double(n)


@workflow
async def broken(n: int) -> int:
    await double(n)
    raise RuntimeError(f"broken {n}")


@workflow
async def parent(n: int) -> list[Any]:
    found: list[Any] = list(await asyncio.gather(leaf(n), leaf(n + 1)))
    listener = await perdure.start_child(signals, 0, id=f"listener-{n}")
    for item in range(signal_count(0)):
        await listener.signal("item", item)
    found.append(await listener.result())
    try:
        await broken(n)
    except perdure.ExecutionFailed as error:
        found.append(error.failure.message)
    await perdure.start_child(leaf, n, id=f"orphan-{n}", on_parent_close="abandon")
    await perdure.start_child(cancelled, n, id=f"asked-{n}", on_parent_close="cancel")
    await perdure.start_child(cancelled, n, id=f"doomed-{n}", on_parent_close="terminate")
    stopped = await perdure.start_child(cancelled, n, id=f"stopped-{n}")
    await stopped.cancel("by its parent")
    try:
        await stopped.result()
    except perdure.ExecutionCancelled as error:
        found.append(error.fields["reason"])
    return found


class End(NamedTuple):
    """How an execution must end."""

    status: str
    value: Any = None


def completed(value: Any) -> End:
    return End("completed", value)


class Kind(NamedTuple):
    workflow: perdure.Workflow[[int], Any]
    end: Callable[[int], End]


KINDS: dict[str, Kind] = {
    "fan": Kind(fan, lambda n: completed(fan_result(n))),
    "retries": Kind(retries, lambda n: completed([n % 4 + 1, 1, 3, -3])),
    "timers": Kind(timers, lambda _: completed(["late", "done"])),
    "race": Kind(race, lambda n: completed(2 * (2 * n + 1) + 1)),
    "signals": Kind(signals, lambda n: completed(list(range(signal_count(n))))),
    "approval": Kind(approval, lambda n: completed(1000 + 2 * n + 1)),
    "cancelled": Kind(cancelled, lambda n: End("cancelled", f"reason {n}")),
    "heart": Kind(heart, lambda n: completed(10 + n % 8)),
    "chain": Kind(chain, lambda n: completed(chain_result(n))),
    "parent": Kind(
        parent,
        lambda n: completed([2 * n + 1, 2 * n + 3, list(range(signal_count(0))), f"broken {n}", "by its parent"]),
    ),
}
CHILDREN: dict[str, Kind] = {
    "listener": Kind(signals, lambda _: completed(list(range(signal_count(0))))),
    "orphan": Kind(leaf, lambda n: completed(2 * n + 1)),
    "asked": Kind(cancelled, lambda _: End("cancelled", "its parent closed")),
    "doomed": Kind(cancelled, lambda _: End("terminated", "its parent closed")),
    "stopped": Kind(cancelled, lambda _: End("cancelled", "by its parent")),
}
WORKER_KINDS = ("fan", "retries", "race", "chain", "heart")  # those that need nobody outside
WORKFLOWS = [
    *(fan, retries, timers, race, signals, collect, approval, cancelled, heart, chain),
    *(leaf, broken, parent),
]


def end_of(execution: str) -> End | None:
    """What must become of an execution, by its id `kind-n`; None for children whose id was derived."""
    name, _, number = execution.removeprefix("own-").rpartition("-")
    kind = KINDS.get(name) or CHILDREN.get(name)
    return None if kind is None else kind.end(int(number))
