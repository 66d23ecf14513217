"""Handlers, queries, updates and published state over a real store, in both forms of workflows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from tests.runtime.conftest import Lab, kinds, status, until
from tests.runtime.noting import note, seen

import perdure
from perdure import workflow
from perdure.core.errors import (
    EncodeError,
)
from perdure.runtime.updates import request_of
from perdure.workflow.values import encode_untyped


@dataclass
class Line:
    text: str
    number: int = 1


@workflow
async def cart(limit: int) -> list[str]:
    """A function: handlers are local functions, state is in local variables."""
    items: list[str] = []
    closed = asyncio.Event()

    @perdure.on_query
    def total() -> int:
        return len(items)

    @perdure.on_query("item")
    def nth(n: int, fallback: str = "none") -> str:
        return items[n] if n < len(items) else fallback

    def has_room(item: str, times: int = 1) -> None:
        if len(items) + times > limit:
            raise ValueError(f"no room for {item}")

    @perdure.on_update(validator=has_room)
    async def add(item: str, times: int = 1) -> int:
        await note(item)
        items.extend([item] * times)
        return len(items)

    @perdure.on_update
    def close() -> str:
        closed.set()
        return "closed"

    @perdure.on_signal
    def drop(item: str) -> None:
        items.remove(item)

    await closed.wait()
    return items


@workflow
class Chat:
    """A class: handlers are methods, state is in `self`."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.topic = ""
        self.ended = False

    async def run(self, topic: str) -> int:
        self.topic = topic
        perdure.publish({"topic": topic, "lines": 0})
        async for word in perdure.messages("word", str):
            if word == "end":
                break
            await self.say(Line(word))
        return len(self.lines)

    def check(self, line: Line) -> None:
        if not line.text:
            raise ValueError("say something")

    @perdure.on_update(validator=check)
    async def say(self, line: Line) -> list[Line]:
        await note(line.text)
        self.lines.append(line)
        perdure.publish({"topic": self.topic, "lines": len(self.lines)})
        return self.lines

    @perdure.on_signal
    async def whisper(self, line: Line) -> None:
        await note(line.text)
        self.lines.append(line)

    @perdure.on_query
    def last(self) -> Line | None:
        return self.lines[-1] if self.lines else None


# --- the usual ---


async def test_a_function_with_handlers_is_asked_updated_and_signalled(lab: Lab) -> None:
    async with lab.engine(cart) as engine:
        handle = await engine.start(cart, 3, id="one")
        assert await handle.query("total", returns=int) == 0
        assert await handle.update("add", "apple", returns=int) == 1
        assert await handle.update("add", "pear", 2) == 3
        assert await handle.query("item", 2) == "pear"
        assert await handle.query("item", 9, "nothing") == "nothing"
        with pytest.raises(perdure.UpdateRejected, match="rejected: ValueError: no room for plum"):
            await handle.update("add", "plum")
        await handle.signal("drop", "pear")
        await until(lambda: _is(handle, "total", 2))
        assert await handle.update("add", "plum") == 3
        assert await handle.update("close") == "closed"
        assert await handle.result() == ["apple", "pear", "plum"]
    assert seen == ["apple", "pear", "plum"]


async def _is(handle: perdure.Handle[Any], name: str, value: Any) -> bool:
    return bool(await handle.query(name) == value)


async def test_a_class_is_a_workflow_and_its_types_are_known_to_its_callers(lab: Lab) -> None:
    async with lab.engine(Chat) as engine:
        handle = await engine.start(Chat, "durability", id="one")
        assert await handle.query("last") is None
        assert await handle.update("say", Line("hello")) == [Line("hello")]
        with pytest.raises(perdure.UpdateRejected, match="say something"):
            await handle.update("say", Line(""))
        with pytest.raises(EncodeError, match=r"\$.line"):
            await handle.update("say", "hello")
        with pytest.raises(EncodeError):
            await handle.signal("whisper", 7)
        await handle.signal("whisper", Line("psst", 2))
        await handle.signal("word", "loud")
        await handle.signal("word", "end")
        assert await handle.result() == 3
        assert await handle.query("last") == Line("loud")
        assert await handle.state() == {"topic": "durability", "lines": 3}
    assert sorted(seen) == ["hello", "loud", "psst"]


# --- what ends too soon, and what would end the process ---------------------------------------------------------------


@workflow
async def abrupt(how: str) -> str:
    """Its handlers begin something long, and it ends before them."""

    @perdure.on_update
    async def order() -> str:
        await note("order begun")
        await asyncio.sleep(3_600)
        return "ordered"

    @perdure.on_signal
    async def remind(_n: int) -> None:
        await note("reminder begun")
        await asyncio.sleep(3_600)

    await perdure.receive("end")
    if how == "fails":
        raise ValueError("over")
    return "done"


@pytest.mark.parametrize("how", ["fails", "cancelled"])
async def test_what_a_failing_end_cuts_off_is_named_in_the_journal_and_told_to_callers(lab: Lab, how: str) -> None:
    async with lab.engine(abrupt) as engine:
        handle = await engine.start(abrupt, how)
        await handle.signal("remind", 1)
        asked = asyncio.create_task(handle.update("order"))
        await until(lambda: len(seen) == 2)
        await (handle.signal("end") if how == "fails" else handle.cancel("enough"))
        with pytest.raises((perdure.ExecutionFailed, perdure.ExecutionCancelled)):
            await handle.result(timeout=30)
        with pytest.raises(perdure.ExecutionClosed, match="accepted; the end cut its handler off"):
            await asyncio.wait_for(asked, 30)
        last = (await handle.journal())[-1].event
        assert sorted((each.kind, each.name) for each in last.unfinished) == [("signal", "remind"), ("update", "order")]
        with pytest.raises(perdure.ExecutionClosed, match="Nothing was sent"):
            await handle.update("order")


@workflow
async def leaving() -> int:
    """Handlers that would end the process."""

    @perdure.on_query
    def look() -> int:
        raise SystemExit(3)

    def allowed() -> None:
        if not seen:
            raise SystemExit(4)

    @perdure.on_update(validator=allowed)
    async def change() -> int:
        raise SystemExit(5)

    @perdure.on_signal
    async def slow(_n: int) -> None:
        raise SystemExit(6)

    @perdure.on_signal
    def quick(_n: int) -> None:
        raise SystemExit(7)

    return await perdure.receive("end", int)


async def test_handlers_cannot_end_the_process(lab: Lab) -> None:
    async with lab.engine(leaving) as engine:
        handle = await engine.start(leaving)
        with pytest.raises(perdure.QueryFailed, match="SystemExit: 3"):
            await handle.query("look")
        with pytest.raises(perdure.UpdateRejected, match="SystemExit: 4"):
            await handle.update("change")
        seen.append("allowed")
        with pytest.raises(perdure.UpdateFailed, match="SystemExit: 5"):
            await asyncio.wait_for(handle.update("change"), 30)
        await handle.signal("slow", 1)
        await handle.signal("quick", 1)
        await handle.signal("end", 9)
        assert await handle.result(timeout=30) == 9
        dropped = [each.event.name for each in await handle.journal() if type(each.event).__name__ == "MessageDropped"]
        assert sorted(dropped) == ["quick", "slow"]


async def test_however_many_updates_wait_for_the_end_of_a_run_its_timers_fire(lab: Lab) -> None:
    """They wait as long as a handler is at work, and it may wait for a timer."""

    @workflow
    async def lingers() -> str:
        @perdure.on_update("slow")
        async def slow() -> None:
            await asyncio.sleep(0.5)

        await perdure.receive("end")
        return "ended"

    async with lab.engine(lingers) as engine:
        handle = await engine.start(lingers)
        await status(handle, "parked")
        slow = asyncio.create_task(handle.update("slow"))
        await until(lambda: _has(handle, "UpdateAccepted"))
        await handle.signal("end")
        await until(lambda: _has(handle, "SignalReceived"))
        nothing = encode_untyped([], "no arguments")
        updates = [request_of(handle.key, "slow", f"u{n}", nothing) for n in range(1_100)]
        engine.store.deposit([], updates)
        engine._running().arrivals.woken([handle.key])
        assert await handle.result(timeout=30) == "ended"
        await slow


async def _has(handle: perdure.Handle[Any], kind: str) -> bool:
    return kind in kinds(await handle.journal())
