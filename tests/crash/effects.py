"""A process whose step is declared once, and that dies by SIGKILL at a chosen point: before, during, after the call.

Run again without a point it says what it found: `python -m tests.crash.effects STORE LEDGER MODE [POINT]`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import perdure
from perdure import DidNotHappen, Happened, step, workflow
from perdure.core import events as ev
from perdure.runtime.steps import StepRunner
from perdure.store.protocol import Batch
from perdure.store.sqlite import SqliteStore

POINTS = (
    "before the intent is journaled",
    "after the intent is journaled",
    "before the call",
    "in the call, before the effect",
    "in the call, after the effect",
    "after the call, before the journal",
    "after the journal",
)
MODES = ("park", "raise", "reconcile", "thread")
BEGUN = POINTS[1:6]  # where an intent stands in the journal, and nothing more
HAPPENED = POINTS[4:]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def reached(point: str) -> None:
    if point == POINT:
        die()


def act(what: str) -> str:
    reached("in the call, before the effect")
    with LEDGER.open("a") as ledger:
        ledger.write(f"{what}\n")
        ledger.flush()
        os.fsync(ledger.fileno())
    reached("in the call, after the effect")
    return f"did {what}"


def look(key: str, what: str) -> Happened[str] | DidNotHappen:
    """The dead process can do nothing any more, and the ledger is complete."""
    return Happened(f"found {what}") if what in LEDGER.read_text().split() else DidNotHappen()


@step(once=True)
async def pay(what: str) -> str:
    return act(what)


@step(once=True)
def pay_in_thread(what: str) -> str:
    return act(what)


@workflow
async def flow(mode: str) -> str:
    if mode == "reconcile":
        return await pay.with_options(reconcile=look)("x")
    if mode == "thread":
        return await pay_in_thread("x")
    try:
        return await pay.with_options(on_unknown="raise" if mode == "raise" else "park")("x")
    except perdure.UnknownOutcome as unknown:
        return f"unknown: {unknown.fields['reason']}"


def arm() -> None:
    """Die where the point is one of the engine's own."""
    commit, begin = SqliteStore.commit, StepRunner.begin

    def deadly(self: SqliteStore, session: Any, batches: Sequence[Batch], advice: Any = ()) -> Any:
        kinds = {type(new.event) for batch in batches for new in batch.events}
        if ev.StepIntended in kinds:
            reached("before the intent is journaled")
        if ev.StepCompleted in kinds:
            reached("after the call, before the journal")
        done = commit(self, session, batches, advice)
        if ev.StepIntended in kinds:
            reached("after the intent is journaled")
        if ev.StepCompleted in kinds:
            reached("after the journal")
        return done

    def last(self: StepRunner, driver: Any, command: Any) -> None:
        reached("before the call")
        begin(self, driver, command)

    SqliteStore.commit = deadly  # type: ignore[method-assign]
    StepRunner.begin = last  # type: ignore[method-assign]


async def main(store: str, mode: str) -> dict[str, Any]:
    async with perdure.Engine(store, workflows=[flow], wait=True) as engine:
        handle = await engine.start(flow, mode, id="x")
        ended = asyncio.create_task(handle.result())
        while not ended.done() and "outcome of step" not in (await handle.describe()).waits_for:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
        waiting = [[each.step, each.arguments, each.reason] for each in await engine.unresolved()]
        result = await ended if ended.done() else None
        ended.cancel()
        return {"result": result, "unresolved": waiting}


if __name__ == "__main__":
    LEDGER, POINT = Path(sys.argv[2]), sys.argv[4] if len(sys.argv) > 4 else ""
    arm()
    print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[3]))))
