"""A long chain of runs: what one run holds in memory is gone when the next one goes on."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter

from tests.runtime.conftest import Lab

import perdure
from perdure import step, workflow
from perdure.core.machine import Machine
from perdure.runtime.driver import Driver
from perdure.workflow.execution import Execution

RUNS, A_RUN = 150, 10
held: list[tuple[int, Counter[str], int]] = []


@step
async def trivial(number: int) -> str:
    return f"{number:01000}"


def alive() -> Counter[str]:
    gc.collect()
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, Driver | Execution | Machine))


@step
async def look(run: int) -> None:
    held.append((run, alive(), tracemalloc.get_traced_memory()[0]))


@workflow
async def link(run: int, done: int) -> int:
    for number in range(done, done + A_RUN):
        await trivial(number)
    if run % 50 == 0:
        await look(run)
    if run < RUNS:
        perdure.continue_as_new(run + 1, done + A_RUN)
    return done + A_RUN


async def test_a_chain_of_thousands_of_steps_holds_one_run_in_memory(lab: Lab) -> None:
    held.clear()
    others = alive()  # that tests before this one left
    tracemalloc.start()
    try:
        async with lab.engine(link) as engine:
            handle = await engine.start(link, 1, 0, id="chain")
            assert await handle.result(timeout=60) == RUNS * A_RUN
            assert [row.status for row in await handle.runs(limit=1_000)].count("continued") == RUNS - 1
    finally:
        tracemalloc.stop()
    assert [run for run, _, _ in held] == [50, 100, 150]
    for run, kinds, _ in held:
        assert max((kinds - others).values()) <= 2, f"run {run} holds {kinds}, of which {others} are others'"
    early, late = held[0][2], held[-1][2]
    assert late - early < 300_000, "a thousand results of 1,000 bytes each are not kept"
