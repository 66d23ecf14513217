"""Continue-as-new: one execution, run after run."""

from __future__ import annotations

import perdure
from perdure import Engine, step, workflow


@step
async def double(n: int) -> int:
    return 2 * n


@workflow
async def countdown(n: int, total: int = 0) -> int:
    total += await double(n)
    if n:
        perdure.continue_as_new(n - 1, total=total)
    return total


def kinds(journal):
    return [type(recorded.event).__name__ for recorded in journal]


async def test_it_goes_on_run_after_run_and_the_last_one_answers(tmp_path):
    async with Engine(tmp_path / "p.db", workflows=[countdown]) as engine:
        handle = await engine.start(countdown, 3, id="x")
        assert await handle.result() == 12
        runs = await handle.runs()
        assert [(run.status, run.events) for run in runs] == [
            ("completed", 4),
            ("continued", 4),
            ("continued", 4),
            ("continued", 4),
        ]
        assert kinds(await handle.journal(run=runs[-1].run)) == [
            "ExecutionStarted",
            "ExecutionClaimed",
            "StepCompleted",
            "ContinuedAsNew",
        ]
        started = (await handle.journal())[0].event
        assert started.continued_from == runs[1].run
        assert started.first_run == runs[-1].run
