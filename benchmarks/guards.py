"""What guards cost: CPU per step with and without them, and a call of a guarded function outside workflows.

guards.py [--rounds 5] [--executions 200] [--steps 20]
Both sides take turns in one process and on one engine; medians of the rounds and their ratios are printed. At last,
since it cannot be removed: what an audit hook would cost that does nothing but look an event's name up.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

import perdure
from perdure import step, workflow
from perdure.workflow import guards

CALLS = 200_000
CALLS_INSIDE = 10_000
Figures = dict[str, float]

cpu_s = time.process_time  # the real one: workflows may not ask
install = guards.install


@step
async def trivial(number: int) -> int:
    return number


@workflow
async def chain(steps: int) -> None:
    for number in range(steps):
        await trivial(number)


@workflow
async def telling(calls: int) -> float:
    """Seconds per `time.time()` inside a workflow."""
    began = cpu_s()
    for _ in range(calls):
        time.time()
    return (cpu_s() - began) / calls


async def with_workflows(engine: perdure.Engine, executions: int, steps: int) -> Figures:
    began = cpu_s()
    handles = [await engine.start(chain, steps) for _ in range(executions)]
    await asyncio.gather(*[handle.result() for handle in handles])
    cpu = cpu_s() - began
    inside = await (await engine.start(telling, CALLS_INSIDE)).result()
    return {"a step": cpu / (executions * steps), "time.time() in a workflow": inside}


def per_call(call: Callable[[], object]) -> float:
    return min(timeit.repeat(call, number=CALLS, repeat=3)) / CALLS


def outside() -> Figures:
    """On a thread whose loop runs: as steps and users' code call."""
    return {"time.time()": per_call(time.time), "random.random()": per_call(random.random)}


def unrelated() -> Figures:
    """What has nothing to do with either."""
    return {"id()": per_call(lambda: id(time)), "sys._getframe()": per_call(sys._getframe)}


async def measure(rounds: int, executions: int, steps: int) -> dict[str, list[Figures]]:
    found: dict[str, list[Figures]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "perdure.db"
        async with perdure.Engine(file, workflows=[chain, telling], durability="process") as engine:
            await with_workflows(engine, executions, steps)  # warms up
            for turn in range(rounds):
                for side in ("without", "with") if turn % 2 else ("with", "without"):
                    guards.uninstall()
                    guards.install = install if side == "with" else lambda: None
                    guards.install()
                    found[side].append(outside() | await with_workflows(engine, executions, steps))
    return found


def look_up(event: str, _: object) -> None:
    if event in {"open", "socket.connect"}:
        assert event


def show(found: dict[str, list[Figures]]) -> None:
    first, *others = found
    for what in found[first][0]:
        medians = {side: statistics.median(one[what] for one in each) for side, each in found.items()}
        figures = [
            f"{side} {1e9 * medians[side]:10,.0f} ns ({medians[side] / medians[first]:.2f} x)" for side in others
        ]
        print(f"{what:26} {first} {1e9 * medians[first]:10,.0f} ns", *figures, sep="   ")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--executions", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    show(asyncio.run(measure(options.rounds, options.executions, options.steps)))
    without = [unrelated() for _ in range(options.rounds)]
    sys.addaudithook(look_up)
    show({"without hook": without, "with": [unrelated() for _ in range(options.rounds)]})


if __name__ == "__main__":
    main()
