"""Executions that are begun by one version of a class, and gone on with by others: run in processes of its own.

    python changing.py STORE FOLDER begin|broken|fixed

FOLDER holds `order.py`, which defines the class `Order`, and `rate.py`, which defines the failure `Rate`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

sys.path.insert(0, sys.argv[2])

from order import Order  # type: ignore[import-not-found]  # of the test's making
from rate import Rate  # type: ignore[import-not-found]  # likewise

import perdure
from perdure import step, workflow

PLAIN = {"item": "tea", "cents": 5}


@step
async def makes() -> Order:
    return Order("tea", 5)


@step(raises=[Rate], retry=perdure.Retry(attempts=1))
async def refuses() -> None:
    raise Rate(per_hour=3)


@step
async def uses(text: str) -> str:
    if text.startswith("slow"):
        await asyncio.sleep(600)
    return text


@workflow
async def a_result() -> str:
    order = await makes()
    await perdure.receive("go")
    return repr(order)


@workflow
async def a_failure() -> str:
    try:
        await refuses()
    except Rate as error:
        await perdure.receive("go")
        return repr(error)
    return "nothing was raised"


@workflow
async def child() -> Order:
    return Order("tea", 5)


@workflow
async def a_childs_result() -> str:
    order = await child()
    await perdure.receive("go")
    return repr(order)


@workflow
async def a_signal() -> str:
    order = await perdure.receive("order", Order)
    await uses("something")
    await perdure.receive("go")
    return repr(order)


@workflow
async def a_signal_of_late() -> str:
    """Nothing that it led to is recorded."""
    order = await perdure.receive("order", Order)
    await uses("slow" if os.environ.get("SLOW") else "quick")
    await perdure.receive("go")
    return repr(order)


@workflow
async def a_handled_signal() -> str:
    seen: list[Order] = []

    @perdure.on_signal
    def order(value: Order) -> None:
        seen.append(value)

    await perdure.receive("go")
    return repr(seen)


@workflow
async def an_update() -> str:
    seen: list[Order] = []

    @perdure.on_update
    async def order(value: Order) -> None:
        seen.append(value)
        await perdure.receive("go")

    await perdure.receive("end")
    return repr(seen)


@workflow
async def an_open_question() -> str:
    return repr(await perdure.ask("Which?", Order))


@workflow
async def an_answer() -> str:
    order = await perdure.ask("Which?", Order)
    await perdure.receive("go")
    return repr(order)


@workflow
async def a_snapshot() -> str:
    order = perdure.restored(Order)
    if order is None:
        perdure.snapshot(Order("tea", 5))
    await perdure.receive("go")
    return repr(order)


@workflow
async def an_input(order: Order | None = None) -> str:
    if order is None:
        perdure.continue_as_new(Order("tea", 5))
    await perdure.receive("go")
    return repr(order)


@workflow
async def a_dropped_signal() -> str:
    """What was dropped stays so: the class that comes last could take it."""
    text = ""
    while text != "end":
        text = await perdure.receive("order", str if os.environ.get("SLOW") else Any)
        text = await uses(text) if isinstance(text, str) else "taken"
    return text


ALL = (a_result, a_failure, a_childs_result, a_signal, a_signal_of_late, a_handled_signal, an_update)
ALL += (an_open_question, an_answer, a_snapshot, an_input, a_dropped_signal)
BEGUN = {
    "a_result": "StepCompleted",
    "a_failure": "StepFailed",
    "a_childs_result": "ChildClosed",
    "a_signal": "StepCompleted",
    "a_signal_of_late": "SignalReceived",
    "a_handled_signal": "SignalReceived",
    "an_update": "UpdateAccepted",
    "an_open_question": "QuestionAsked",
    "an_answer": "QuestionClosed",
    "a_snapshot": "Snapshot",
    "an_input": "ExecutionClaimed",
    "a_dropped_signal": "MessageDropped",
}


async def kinds(handle: perdure.Handle[Any]) -> list[str]:
    return [type(recorded.event).__name__ for recorded in await handle.journal()]


async def until(handle: perdure.Handle[Any], kind: str, *, runs: int = 1) -> None:
    while True:
        if len(await handle.runs()) == runs and kind in await kinds(handle):
            return
        await asyncio.sleep(0.01)


async def begin(engine: perdure.Engine) -> None:
    """Each as far as its name says."""
    asked = set()
    for each in ALL:
        handle = await engine.start(each, id=each.name)
        if "signal" in each.name:
            await handle.signal("order", PLAIN)
        if each is an_update:
            asked.add(asyncio.create_task(handle.update("order", PLAIN)))
        if each is an_answer:
            await until(handle, "QuestionAsked")
            await handle.answer(PLAIN)
        await until(handle, BEGUN[each.name], runs=2 if each in (an_input, a_snapshot) else 1)
    os.kill(os.getpid(), signal.SIGKILL)


async def go_on(engine: perdure.Engine, how: str) -> None:
    """Tell what became of each: its status, its problem, its events, its result."""
    for each in ALL:
        handle = engine.handle(each.name, each)
        row = await handle.describe()
        if how == "broken":
            await handle.signal("go")
            if each is an_open_question:
                await handle.answer(PLAIN)
            if each is a_dropped_signal:
                await handle.signal("order", "end")
        elif row.status == "stalled":
            await handle.resume()
        if how == "fixed" and each is an_update:
            await handle.signal("end")
        row = await handle.describe()
        while row.status not in ("stalled", "completed", "failed"):
            await asyncio.sleep(0.01)
            row = await handle.describe()
        told = {"name": each.name, "status": row.status, "problem": row.problem, "events": await kinds(handle)}
        told["result"] = await handle.result() if row.status == "completed" else None
        print(json.dumps(told), flush=True)


async def main(store: str, how: str) -> None:
    async with perdure.Engine(store, workflows=[*ALL, child], shutdown_timeout=0.1) as engine:
        await (begin(engine) if how == "begin" else go_on(engine, how))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[3]))
