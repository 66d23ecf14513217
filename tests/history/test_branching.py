"""Forks and rewinds: what is copied is not done again, what was open begins anew, and where it came from is told."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from tests.runtime.conftest import Lab, ShiftedClock, kinds, of_kind, status, until

import perdure
from perdure import step, workflow
from perdure.core import events as ev
from perdure.core.errors import (
    DecodeError,
    EncodeError,
    ExecutionExists,
    ExecutionNotFound,
    InvalidId,
    InvalidOption,
    KeyMissing,
    MovedOn,
    NotForkable,
)
from perdure.core.identity import derived_id
from perdure.runtime import arrivals
from perdure.runtime.branching import BranchRequest
from perdure.runtime.committer import ThreadCommitter

RAN: list[tuple[str, str]] = []
"""Names of the steps that ran, with their keys."""


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    RAN.clear()


def note(name: str) -> None:
    RAN.append((name, perdure.current_step().idempotency_key))


def ran() -> list[str]:
    return [name for name, _ in RAN]


@step
async def plan(topic: str) -> str:
    note("plan")
    return f"plan for {topic}"


@step
async def write(outline: str) -> str:
    note("write")
    return f"text of {outline}"


@step
async def publish(text: str) -> int:
    note("publish")
    return len(text)


@workflow
async def report(topic: str) -> str:
    outline = await plan(topic)
    text = await write(outline)
    await publish(text)
    return text


# Started, Claimed, plan, write, publish, Completed
PLAN, WRITE, PUBLISH, END = 2, 3, 4, 5


async def done(engine: perdure.Engine, name: str = "a") -> perdure.Handle[str]:
    handle = await engine.start(report, "x", id=name)
    await handle.result()
    return handle


# --- forks ---


async def test_a_fork_goes_on_from_there_and_does_nothing_of_the_copied_part_again(lab: Lab) -> None:
    async with lab.engine(report) as engine:
        original = await done(engine)
        before = await original.journal()
        fork = await engine.fork("a", new_id="b", at=WRITE)
        assert await fork.result() == "text of plan for x"
        assert ran() == ["plan", "write", "publish", "write", "publish"]
        assert await original.journal() == before
        journal = await fork.journal()
    names = ["ExecutionStarted", "ExecutionClaimed", "StepCompleted", "RunForked", "StepCompleted", "StepCompleted"]
    assert kinds(journal) == [*names, "ExecutionCompleted"]
    assert journal[PLAN] == before[PLAN]


async def test_what_is_copied_keeps_its_run_and_what_follows_has_keys_of_its_own(lab: Lab) -> None:
    async with lab.engine(report) as engine:
        original = await done(engine)
        fork = await engine.fork("a", new_id="b", at=WRITE)
        await fork.result()
        old, new = (await original.describe()).run, (await fork.describe()).run
        started = (await fork.journal())[0].event
    assert (started.run, started.execution) == (old, "a")
    assert old != new
    keys = dict(RAN[3:])
    assert keys == {name: derived_id("step", "b", new, seq) for name, seq in [("write", 2), ("publish", 3)]}
    assert len({key for _, key in RAN}) == len(RAN)


async def test_a_recorded_result_may_be_replaced_and_the_journal_says_so(lab: Lab) -> None:
    async with lab.engine(report) as engine:
        await done(engine)
        fork = await engine.fork("a", new_id="b", replace={PLAN: "another plan"})
        assert await fork.result() == "text of another plan"
        assert ran() == ["plan", "write", "publish", "write", "publish"]
        journal = await fork.journal()
    assert journal[PLAN].event.replaced
    assert not journal[WRITE + 1].event.replaced
    [forked] = of_kind(journal, ev.RunForked)
    assert forked.replaced == (1,)


async def test_a_failure_may_be_replaced_by_a_result(lab: Lab) -> None:
    @step(retry=perdure.Retry(attempts=2, delay=0.001))
    async def broken(word: str) -> str:
        note("broken")
        raise ConnectionError(word)

    @workflow
    async def tries() -> str:
        return await broken("no line") + await write("it")

    async with lab.engine(tries) as engine:
        handle = await engine.start(tries, id="a")
        with pytest.raises(perdure.ExecutionFailed):
            await handle.result()
        failed = kinds(await handle.journal()).index("StepFailed")
        await handle.rewind(replace={failed: "a line, and "})
        assert await handle.result() == "a line, and text of it"
        event = (await handle.journal())[failed].event
        assert (type(event), event.attempt, event.replaced) == (ev.StepCompleted, 2, True)
    assert ran() == ["broken", "broken", "write"]


async def test_where_it_comes_from_is_told_and_kept_over_further_runs(lab: Lab) -> None:
    @workflow
    async def twice(n: int) -> int:
        await plan(str(n))
        if n:
            perdure.continue_as_new(n - 1)
        return n

    async with lab.engine(twice) as engine:
        await (await engine.start(twice, 0, id="a")).result()
        again = await engine.start(twice, 2, id="c")
        await again.result()
        first = (await again.runs())[-1].run
        fork = await engine.fork("c", new_id="b", at=2, run=first)
        assert await fork.result() == 0
        assert (await engine.handle("a").describe()).origin is None
        told = (await fork.describe()).origin
        runs = await fork.runs()
    assert (told.execution, told.run, told.at) == ("c", first, 2)
    assert [(run.status, bool(run.origin)) for run in runs] == [
        ("completed", False),
        ("continued", False),
        ("continued", True),
    ]


async def test_a_fork_of_a_fork_still_knows_whose_the_first_events_are(lab: Lab) -> None:
    async with lab.engine(report) as engine:
        await done(engine)
        b = await engine.fork("a", new_id="b", replace={PLAN: "second"})
        await b.result()
        c = await engine.fork("b", new_id="c", at=WRITE + 2)
        assert await c.result() == "text of second"
        d = await engine.fork("b", new_id="d", at=PLAN + 1)  # before the first fork's own mark
        assert await d.result() == "text of second"
        journal = await d.journal()
        assert journal[PLAN].event.replaced
        assert journal[0].event.execution == "a"
    assert ran() == ["plan", *["write", "publish"] * 2, "publish", "write", "publish"]


async def test_asking_for_the_same_fork_again_returns_the_one_there_is(lab: Lab) -> None:
    async with lab.engine(report) as engine:
        await done(engine)
        fork = await engine.fork("a", new_id="b", at=WRITE)
        run = (await fork.describe()).run
        again = await engine.fork("a", new_id="b", at=WRITE)
        assert (await again.describe()).run == run
        for other in ({"at": PUBLISH}, {"replace": {PLAN: "other"}}):
            with pytest.raises(ExecutionExists, match="not this fork"):
                await engine.fork("a", new_id="b", **other)
        with pytest.raises(ExecutionExists):
            await engine.start(report, "x", id="b")


async def test_without_a_new_id_it_gets_one_and_without_at_all_that_is_recorded(lab: Lab) -> None:
    async with lab.engine(report) as engine:
        await done(engine)
        fork = await engine.fork("a")
        assert await fork.result() == "text of plan for x"
        assert kinds(await fork.journal())[-2:] == ["RunForked", "ExecutionCompleted"]
        assert fork.id != "a"
    assert ran() == ["plan", "write", "publish"]


@workflow
async def asks(topic: str) -> str:
    outline = await plan(topic)
    answer = await perdure.receive("answer", str)
    return await write(f"{outline} {answer}")


async def test_an_open_execution_goes_on_as_if_nothing_had_happened(lab: Lab) -> None:
    async with lab.engine(asks) as engine:
        original = await engine.start(asks, "x", id="a")
        await status(original, "parked")
        await original.signal("unheard", 1)
        await until(lambda: has(original, ev.SignalReceived))
        fork = await engine.fork("a", new_id="b", at=3)
        await fork.signal("answer", "no")
        assert await fork.result() == "text of plan for x no"
        await original.signal("answer", "yes")
        assert await original.result() == "text of plan for x yes"
        assert of_kind(await fork.journal(), ev.SignalReceived)[0].name == "answer"  # not what waited elsewhere


async def has(handle: perdure.Handle[Any], kind: type, number: int = 1) -> bool:
    return len(of_kind(await handle.journal(), kind)) >= number


async def test_messages_that_were_received_before_the_cut_are_in_the_copy(lab: Lab) -> None:
    async with lab.engine(asks) as engine:
        original = await engine.start(asks, "x", id="a")
        await original.signal("answer", "early", id="m-1")
        await original.result()
        position = kinds(await original.journal()).index("SignalReceived")
        fork = await engine.fork("a", new_id="b", at=position + 1)
        await fork.signal("answer", "early", id="m-1")  # the same message: it is known
        assert (await fork.result()).endswith("early")
        assert len(of_kind(await fork.journal(), ev.SignalReceived)) == 1


async def test_a_fork_is_nobodys_child_and_its_end_tells_nobody(lab: Lab) -> None:
    @workflow
    async def parent() -> str:
        return await report("x")

    async with lab.engine(parent, report) as engine:
        handle = await engine.start(parent, id="p")
        await handle.result()
        child = of_kind(await handle.journal(), ev.ChildInitiated)[0].execution
        fork = await engine.fork(child, new_id="b", at=WRITE)
        await fork.result()
        assert (await fork.describe()).parent == ""
        assert len(of_kind(await handle.journal(), ev.ChildClosed)) == 1


async def test_timers_that_came_due_meanwhile_fire_at_once_and_others_in_time(lab: Lab) -> None:
    @workflow
    async def waits() -> str:
        asyncio.create_task(asyncio.sleep(86_400))  # noqa: RUF006 - a timer that stays open
        await asyncio.sleep(3_600)
        return await plan("late")

    async with lab.engine(waits) as engine:
        original = await engine.start(waits, id="a")
        await status(original, "parked")
    async with lab.engine(waits, environment=ShiftedClock(2 * 3_600_000)) as engine:
        await engine.handle("a").result()
        fork = await engine.fork("a", new_id="b", at=2)
        assert await fork.result() == "plan for late"
        assert kinds(await fork.journal())[2:] == ["RunForked", "TimerFired", "StepCompleted", "ExecutionCompleted"]


async def test_a_deadline_is_not_copied(lab: Lab) -> None:
    async with lab.engine(asks) as engine:
        original = await engine.start(asks, "x", id="a", deadline=0.2, grace=1)
        with pytest.raises(perdure.ExecutionCancelled):
            await original.result()
        fork = await engine.fork("a", new_id="b", at=3)
        await fork.signal("answer", "late")
        assert await fork.result() == "text of plan for x late"


async def test_it_draws_other_random_numbers_behind_the_cut(lab: Lab) -> None:
    @workflow
    async def draws() -> list[float]:
        first = perdure.random().random()
        await plan("x")
        await write("x")
        return [first, perdure.random().random(), float(perdure.uuid4().int)]

    async with lab.engine(draws) as engine:
        old = await (await engine.start(draws, id="a")).result()
        new = await (await engine.fork("a", at=3)).result()
    assert old[0] == new[0]
    assert not {*old[1:]} & {*new[1:]}


async def test_attributes_and_state_are_those_at_the_cut(lab: Lab) -> None:
    @workflow
    async def tells() -> None:
        perdure.set_attributes(stage="one")
        perdure.publish("first")
        await plan("x")
        perdure.set_attributes(stage="two")
        perdure.publish("second")
        await perdure.receive("go")

    async with lab.engine(tells) as engine:
        original = await engine.start(tells, id="a")
        await status(original, "parked")
        at = kinds(await original.journal()).index("StepCompleted")
        fork = await engine.fork("a", new_id="b", at=at)
        await original.pause()
        assert await fork.state() in ("first", "second")
        await status(fork, "parked")
        assert (await fork.describe()).attributes == {"stage": "two"}  # it went the same way again
        assert await fork.state() == "second"


async def test_a_pause_that_holds_at_the_cut_holds_in_the_copy(lab: Lab) -> None:
    async with lab.engine(asks) as engine:
        original = await engine.start(asks, "x", id="a")
        await status(original, "parked")
        await original.pause("wait")
        await status(original, "paused")
        fork = await engine.fork("a", new_id="b")
        await status(fork, "paused")
        await fork.signal("answer", "yes")
        await fork.resume()
        assert (await fork.result()).endswith("yes")
        assert (await original.describe()).status == "paused"


# --- rewinds ---


async def test_a_rewind_goes_on_from_there_in_a_new_run_of_the_same_execution(lab: Lab) -> None:
    async with lab.engine(report) as engine:
        handle = await done(engine)
        old = (await handle.describe()).run
        await handle.rewind(at=WRITE)
        assert await handle.result() == "text of plan for x"
        runs = await handle.runs()
        assert [(run.status, run.origin) for run in runs] == [("completed", f"a/{old}/{WRITE}"), ("completed", "")]
        told = (await handle.describe()).origin
        assert (told.execution, told.run, told.at) == ("a", old, WRITE)
        assert kinds(await handle.journal(run=old))[-1] == "ExecutionCompleted"
    assert ran() == ["plan", "write", "publish", "write", "publish"]
    assert len({key for _, key in RAN}) == len(RAN)


async def test_a_rewind_may_replace_a_result(lab: Lab) -> None:
    async with lab.engine(report) as engine:
        handle = await done(engine)
        await handle.rewind(replace={WRITE: "better"})
        assert await handle.result() == "better"
    assert ran() == ["plan", "write", "publish", "publish"]


async def test_who_waits_for_the_result_gets_that_of_the_new_run(lab: Lab) -> None:
    async with lab.engine(asks) as engine:
        handle = await engine.start(asks, "x", id="a")
        waiting = asyncio.create_task(handle.result())
        await status(handle, "parked")
        await handle.rewind(replace={PLAN: "second"})
        await handle.signal("answer", "yes")
        assert await waiting == "text of second yes"
        assert [run.status for run in await handle.runs()] == ["completed", "abandoned"]


async def test_signals_that_came_behind_the_cut_are_received_again_in_their_order(lab: Lab) -> None:
    @workflow
    async def collects() -> list[str]:
        await plan("x")
        got = [await perdure.receive("item", str) for _ in range(3)]
        await write("x")
        await perdure.receive("end")
        return got

    async with lab.engine(collects) as engine:
        handle = await engine.start(collects, id="a")
        for item in ("one", "two", "three"):
            await handle.signal("item", item, id=f"m-{item}")
        await until(lambda: "write" in ran())
        await handle.pause()
        await status(handle, "paused")
        await handle.signal("item", "four")  # it waits in the inbox
        first = kinds(await handle.journal()).index("SignalReceived")
        await handle.rewind(at=first)
        await handle.signal("item", "one", id="m-one")  # sent once more: it is known
        await handle.signal("end")
        assert await handle.result() == ["one", "two", "three"]
        received = [event.value for event in of_kind(await handle.journal(), ev.SignalReceived) if event.name == "item"]
        assert len(received) == 4


@perdure.workflow
class Cart:
    def __init__(self) -> None:
        self.items: list[str] = []

    @perdure.on_update
    async def add(self, item: str) -> int:
        self.items.append(await plan(item))
        await asyncio.sleep(0 if item != "slow" else 3_600)
        return len(self.items)

    async def run(self) -> list[str]:
        await perdure.receive("end")
        return self.items


async def test_an_update_that_was_not_answered_is_answered_by_the_new_run(lab: Lab) -> None:
    async with lab.engine(Cart) as engine:
        handle = await engine.start(Cart, id="a")
        asked = asyncio.create_task(handle.update("add", "slow", id="u-1", returns=int))
        await until(lambda: has(handle, ev.StepCompleted))
        for kind, behind in (("UpdateAccepted", 0), ("UpdateAccepted", 1), ("StepCompleted", 1)):
            await handle.rewind(at=kinds(await handle.journal()).index(kind) + behind)
            await until(lambda: has(handle, ev.StepCompleted))
            assert not asked.done()
        await handle.terminate()
        with pytest.raises(perdure.ExecutionClosed):
            await asked
    assert ran() == ["plan"] * 3


async def test_an_update_that_was_answered_is_over_and_not_asked_again(lab: Lab) -> None:
    async with lab.engine(Cart) as engine:
        handle = await engine.start(Cart, id="a")
        assert await handle.update("add", "apple", id="u-1", returns=int) == 1
        await handle.rewind(at=2)
        assert await handle.update("add", "pear", id="u-2", returns=int) == 1
        assert await handle.update("add", "apple", id="u-1", returns=int) == 1  # what it was told then
        await handle.signal("end")
        assert await handle.result() == ["plan for pear"]


async def test_an_update_that_was_open_at_the_cut_is_finished_in_a_fork_and_nobody_is_told(lab: Lab) -> None:
    async with lab.engine(Cart) as engine:
        handle = await engine.start(Cart, id="a")
        await handle.update("add", "apple", id="u-1", returns=int)
        accepted = kinds(await handle.journal()).index("UpdateAccepted")
        fork = await engine.fork("a", new_id="b", at=accepted + 1)
        await fork.signal("end")
        assert await fork.result() == ["plan for apple"]
        assert await handle.update("add", "apple", id="u-1", returns=int) == 1


async def test_cancelling_it_behind_the_cut_is_forgotten(lab: Lab) -> None:
    async with lab.engine(asks) as engine:
        handle = await engine.start(asks, "x", id="a")
        await status(handle, "parked")
        await handle.cancel("no more")
        with pytest.raises(perdure.ExecutionCancelled):
            await handle.result()
        await handle.rewind(at=3)
        await handle.signal("answer", "yes")
        assert (await handle.result()).endswith("yes")


async def test_a_stalled_execution_can_be_rewound(lab: Lab) -> None:
    async with lab.engine(report) as engine:
        handle = await done(engine)
    changed = workflow(name="report")(_other_way)
    async with lab.engine(changed) as engine:
        handle = engine.handle("a")
        await handle.rewind(at=PUBLISH)
        await status(handle, "stalled")
        await handle.rewind(at=WRITE)
        assert await handle.result() == "other plan for x"


async def _other_way(topic: str) -> str:
    return "other " + await plan(topic)


async def test_a_child_that_is_rewound_answers_its_parent_once(lab: Lab) -> None:
    @workflow
    async def parent() -> str:
        child = await perdure.start_child(asks, "x", id="child")
        answer = await child.result()
        await perdure.receive("end")
        return answer

    async with lab.engine(parent, asks) as engine:
        handle, child = await engine.start(parent, id="p"), engine.handle("child")
        await until(lambda: has(handle, ev.ChildInitiated))
        await status(child, "parked")
        await child.rewind(at=2)
        await child.signal("answer", "one")
        await until(lambda: has(handle, ev.ChildClosed))
        await child.rewind(at=2)
        await child.signal("answer", "two")
        await child.result()
        await handle.signal("end")
        assert await handle.result() == "text of plan for x one"
        assert len(of_kind(await handle.journal(), ev.ChildClosed)) == 1


async def test_running_steps_of_the_run_that_is_over_are_cut_off(lab: Lab) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    @step
    async def slow() -> str:
        note("slow")
        if not began.is_set():
            began.set()
            try:
                await asyncio.sleep(3_600)
            finally:
                ended.set()
        return "done"

    @workflow
    async def waits() -> str:
        return await slow()

    async with lab.engine(waits) as engine:
        handle = await engine.start(waits, id="a")
        await began.wait()
        await handle.rewind(at=2)
        assert await handle.result() == "done"
        assert ended.is_set()
    assert len({key for _, key in RAN}) == 2


# --- from another process, and without an engine ---


async def test_a_client_hands_it_to_the_engine_that_runs(lab: Lab) -> None:
    async with lab.engine(report, asks) as engine, lab.client() as client:
        await done(engine)
        fork = await client.fork("a", new_id="b", replace={PLAN: "by a client"})  # the engine knows the type
        assert await fork.result() == "text of by a client"
        await client.handle("a").rewind(at=PUBLISH)
        assert await client.handle("a", report).result() == "text of plan for x"
        waits = await engine.start(asks, "x", id="w")
        await status(waits, "parked")
        await client.handle("w").rewind(replace={PLAN: "again"})
        await waits.signal("answer", "yes")
        assert await waits.result() == "text of again yes"
        with pytest.raises(NotForkable, match="not what step 'plan' returns"):
            await client.fork("a", replace={PLAN: 7})


async def test_without_an_engine_it_is_there_for_the_next_one(lab: Lab) -> None:
    async with lab.engine(report, asks) as engine:
        await done(engine)
        await status(await engine.start(asks, "x", id="w"), "parked")
    async with lab.client() as client:
        fork = await client.fork("a", new_id="b", at=WRITE)
        await client.handle("w").rewind(at=2)
        with pytest.raises(NotForkable, match="no code is at hand"):
            await client.fork("a", replace={PLAN: "untyped"})
        typed = await client.fork("a", new_id="c", replace={PLAN: "typed"}, workflow=report)
        with pytest.raises(EncodeError):
            await client.fork("a", replace={PLAN: 7}, workflow=report)
        assert (await fork.describe()).status == "active"
    async with lab.engine(report, asks) as engine:
        assert await engine.handle("b").result() == "text of plan for x"
        assert await engine.handle(typed.id).result() == "text of typed"
        await engine.handle("w").signal("answer", "yes")
        assert (await engine.handle("w").result()).endswith("yes")
    assert (ran().count("plan"), ran().count("publish")) == (3, 3)


async def test_an_engine_notices_that_its_store_was_rewound_under_it(
    lab: Lab, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a client could not reach the socket, and wrote into the store itself: positions are taken by then."""
    monkeypatch.setattr(ThreadCommitter, "_commit_inline", lambda *_: None)  # which tries again without a word
    async with lab.engine(asks) as engine, lab.client() as client:
        handle = await engine.start(asks, "x", id="a")
        await status(handle, "parked")

        async def nobody(_: Any) -> None:
            return None

        client._ask_engine = nobody  # type: ignore[method-assign]
        await client.handle("a").rewind(at=2)
        await until(lambda: ran() == ["plan", "plan"])
        await handle.signal("answer", "yes")
        assert (await handle.result()).endswith("yes")
    assert "cannot write" not in caplog.text


async def test_a_rewind_while_its_journal_is_being_read(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read is of the run that is over: it is read again."""
    began, go_on = threading.Event(), threading.Event()
    read = arrivals.read

    def held(store: Any, row: Any) -> Any:
        loaded = read(store, row)
        began.set()
        assert go_on.wait(20)
        return loaded

    async with lab.engine(asks, cache=0) as engine:
        handle = await engine.start(asks, "x", id="a")
        await status(handle, "parked")
        await until(lambda: handle.key not in engine._running().drivers)
        monkeypatch.setattr(arrivals, "read", held)
        await handle.rewind(at=3)
        await until(began.is_set)
        await handle.rewind(at=2)
        go_on.set()
        await until(lambda: ran() == ["plan", "plan"])  # nothing else tells that there is something to do
        assert [run.status for run in (await handle.runs())[1:]] == ["abandoned", "abandoned"]


async def test_a_rewind_that_is_asked_for_again_happens_once(lab: Lab) -> None:
    async with lab.engine(asks) as engine:
        handle = await engine.start(asks, "x", id="a")
        await status(handle, "parked")
        run = (await handle.describe()).run
        asked = BranchRequest(handle.key, run, handle.key, "ab" * 16, 2)
        await engine.branch(asked)
        await engine.branch(asked)
        assert [each.run for each in await handle.runs()] == ["ab" * 16, run]
        with pytest.raises(MovedOn):
            await engine.branch(BranchRequest(handle.key, run, handle.key, "cd" * 16, 2))


# --- what cannot be ---


async def refused(engine: perdure.Engine, reason: str, **options: Any) -> None:
    with pytest.raises(NotForkable, match=reason):
        await engine.fork("a", new_id="never", **options)
    with pytest.raises(ExecutionNotFound):
        await engine.handle("never").describe()


async def test_positions_where_nothing_can_begin_are_refused(lab: Lab) -> None:
    async with lab.engine(report) as engine:
        handle = await done(engine)
        await refused(engine, "has 6 events", at=7)
        await refused(engine, "had ended there", at=6)
        for early in (0, 1):
            await refused(engine, "has not begun there", at=early)
        await refused(engine, "not a step's result", replace={1: "x"})
        await refused(engine, "event 99 is not in its journal", replace={99: "x"})
        await refused(engine, "lies behind that", at=WRITE, replace={WRITE: "x"})
        await refused(engine, "no run 'nonsense'", run="nonsense")
        for nonsense in (-1, True, "3", 2.5):
            with pytest.raises(InvalidOption, match="number of an event"):
                await engine.fork("a", at=nonsense)  # type: ignore[arg-type]
            with pytest.raises(InvalidOption, match="number of an event"):
                await handle.rewind(at=nonsense)  # type: ignore[arg-type]
            with pytest.raises(InvalidOption, match="number of an event"):
                await engine.fork("a", replace={nonsense: "x"})  # type: ignore[dict-item]
        with pytest.raises(InvalidOption, match="rewind"):
            await engine.fork("a", new_id="a", at=3)
        with pytest.raises(InvalidOption, match="at"):
            await handle.rewind()
        with pytest.raises(InvalidId):
            await engine.fork("a", new_id=" ")
        with pytest.raises((EncodeError, DecodeError)):
            await engine.fork("a", replace={PLAN: object()})
        with pytest.raises(ExecutionNotFound):
            await engine.fork("nobody", at=3)
        with pytest.raises(ExecutionNotFound):
            await engine.handle("nobody").rewind(at=3)


async def test_replacing_what_later_events_rest_on_is_refused_where_the_code_is_known(lab: Lab) -> None:
    @workflow
    async def decides() -> str:
        if await plan("x") == "plan for x":
            return await write("one")
        return await plan("two")

    async with lab.engine(decides) as engine:
        await (await engine.start(decides, id="a")).result()
        await refused(engine, "does something else", at=4, replace={2: "other"})
        same = await engine.fork("a", new_id="b", at=4, replace={2: "plan for x"})
        assert await same.result() == "text of one"


async def test_a_child_that_runs_at_the_cut_or_is_left_behind_is_refused(lab: Lab) -> None:
    @workflow
    async def parent(policy: str) -> str:
        child = await perdure.start_child(asks, "x", id="child", on_parent_close=policy)  # type: ignore[arg-type]
        await write("beside it")
        return str(await child.result())

    async with lab.engine(parent, asks) as engine:
        handle = await engine.start(parent, "terminate", id="a")
        await until(lambda: has(handle, ev.StepCompleted))
        await refused(engine, "child 'child' runs there")
        with pytest.raises(NotForkable, match="its child 'child' runs now"):
            await handle.rewind(at=2)
        await engine.handle("child").signal("answer", "yes")
        await handle.result()
        ended = kinds(await handle.journal()).index("ChildClosed")
        fork = await engine.fork("a", new_id="b", at=ended + 1)
        assert await fork.result() == "text of plan for x yes"


async def test_a_child_that_may_outlive_its_parent_does_not_keep_it_from_being_rewound(lab: Lab) -> None:
    @workflow
    async def parent() -> str:
        await perdure.start_child(asks, "x", on_parent_close="abandon")
        await perdure.receive("end")
        return "end"

    async with lab.engine(parent, asks) as engine:
        handle = await engine.start(parent, id="a")
        await until(lambda: has(handle, ev.ChildInitiated))
        first = of_kind(await handle.journal(), ev.ChildInitiated)[0].execution
        await status(engine.handle(first), "parked")
        await handle.rewind(at=2)
        await handle.signal("end")
        await handle.result()
        second = of_kind(await handle.journal(), ev.ChildInitiated)[0].execution
        assert first != second
        assert (await engine.handle(first).describe()).status == "parked"


async def test_children_of_earlier_runs_end_with_their_execution_and_not_with_its_copy(lab: Lab) -> None:
    @workflow
    async def parent(n: int) -> str:
        if n:
            await perdure.start_child(asks, "x", id="child")
            perdure.continue_as_new(0)
        await perdure.receive("end")
        return "end"

    async with lab.engine(parent, asks) as engine:
        handle = await engine.start(parent, 1, id="a")
        await until(lambda: engine.handle("child").runs() if RAN else None)
        await status(handle, "parked")
        fork = await engine.fork("a", new_id="b")
        await fork.signal("end")
        await fork.result()
        await asyncio.sleep(0)
        assert (await engine.handle("child").describe()).status in ("active", "parked")
        await handle.signal("end")
        await handle.result()
        await status(engine.handle("child"), "terminated")


async def test_a_message_that_is_on_its_way_at_the_cut_is_refused_and_one_event_later_is_enough(lab: Lab) -> None:
    @workflow
    async def sends() -> str:
        await perdure.external("other").signal("hello", 1)
        return await plan("x")

    async with lab.engine(sends, asks) as engine:
        await engine.start(asks, "x", id="other")
        handle = await engine.start(sends, id="a")
        await handle.result()
        sent = kinds(await handle.journal()).index("MessageSent")
        await refused(engine, "a message to 'other'", at=sent + 1)
        before = await engine.fork("a", new_id="b", at=sent)
        behind = await engine.fork("a", new_id="c", at=sent + 2)
        await before.result()
        await behind.result()
        other = engine.handle("other")
        await until(lambda: has(other, ev.SignalReceived, 2))  # the copied one was not sent again
        senders = [event.sender for event in of_kind(await other.journal(), ev.SignalReceived)]
        assert senders == ["a", "b"]


async def test_a_step_that_must_not_be_repeated_is_not_copied_as_if_it_had_not_begun(lab: Lab) -> None:
    release = asyncio.Event()

    @step(once=True)
    async def charge() -> str:
        note("charge")
        await release.wait()
        return "receipt"

    @workflow
    async def pays() -> str:
        return await charge()

    async with lab.engine(pays) as engine:
        handle = await engine.start(pays, id="a")
        await until(lambda: "charge" in ran())
        await refused(engine, "declared once, has begun there", at=3)
        with pytest.raises(NotForkable, match="declared once, runs now"):
            await handle.rewind(at=2)
        release.set()
        await handle.result()
        await refused(engine, "declared once, has begun there", at=3)
        again = await engine.fork("a", new_id="b", at=2)
        assert await again.result() == "receipt"
        copied = await engine.fork("a", new_id="c", at=4)
        assert await copied.result() == "receipt"
        replaced = await engine.fork("a", new_id="d", replace={3: "no receipt"})
        assert await replaced.result() == "no receipt"
        await handle.rewind(at=2)
        assert await handle.result() == "receipt"
    assert ran() == ["charge"] * 3
    assert len({key for _, key in RAN}) == 3


async def test_an_outcome_that_nobody_knows_stays_with_the_run_that_it_is_of(lab: Lab) -> None:
    @step(once=True)
    async def charge() -> str:
        note("charge")
        raise OSError("the line is dead")

    @workflow
    async def pays() -> str:
        await plan("x")
        return await charge()

    async with lab.engine(pays) as engine:
        handle = await engine.start(pays, id="a")
        await until(lambda: has(handle, ev.StepOutcomeUnknown))
        await refused(engine, "nobody knows there what step", at=5)
        [unknown] = await handle.unresolved()
        fork = await engine.fork("a", new_id="b", at=3)
        await until(lambda: has(fork, ev.StepOutcomeUnknown))
        assert [each.execution for each in await engine.unresolved()] == ["a", "b"]
        await handle.rewind(at=3)
        await until(lambda: has(handle, ev.StepOutcomeUnknown))
        runs = [each.run for each in await handle.unresolved()]
        assert len(runs) == 2
        assert unknown.run in runs  # it is still listed, and can still be settled
        with pytest.raises(perdure.NotUnresolved, match="several runs wait"):
            await handle.resolve(2, perdure.Happened("receipt"))
        for run in runs:
            await handle.resolve(2, perdure.Happened("receipt"), run=run)
        assert await handle.result() == "receipt"
        assert await handle.unresolved() == []
    assert ran() == ["plan", "charge", "charge", "charge"]


async def test_an_outcome_that_the_code_was_told_is_unknown_is_no_reason_to_refuse(lab: Lab) -> None:
    """It has gone on; what came of the step is for the run that began it to hear, and not for the copy."""

    @step(once=True, on_unknown="raise")
    async def charge() -> str:
        note("charge")
        raise OSError("the line is dead")

    @workflow
    async def pays() -> str:
        try:
            await charge()
        except perdure.UnknownOutcome:
            return await write("an apology")
        return "paid"

    async with lab.engine(pays) as engine:
        handle = await engine.start(pays, id="a")
        await handle.result()
        unknown = kinds(await handle.journal()).index("StepOutcomeUnknown")
        fork = await engine.fork("a", new_id="b", at=unknown + 1)
        assert await fork.result() == "text of an apology"
        assert [each.execution for each in await engine.unresolved()] == ["a"]
        await handle.resolve(1, perdure.Happened("receipt"))
        assert await engine.unresolved() == []
    assert ran() == ["charge", "write", "write"]


async def test_a_run_that_has_continued_as_new_can_be_forked_but_not_rewound(lab: Lab) -> None:
    @workflow
    async def chain(n: int) -> int:
        await plan(str(n))
        if n:
            perdure.continue_as_new(n - 1)
        await perdure.receive("end")
        return n

    async with lab.engine(chain) as engine:
        handle = await engine.start(chain, 1, id="a")
        await status(handle, "parked")
        old = (await handle.runs())[-1].run
        with pytest.raises(MovedOn):
            await engine.branch(BranchRequest(handle.key, old, handle.key, "ab" * 16, 2))
        fork = await engine.fork("a", new_id="b", at=2, run=old)
        await status(fork, "parked")
        await refused(engine, "had ended there", at=4, run=old)
        await handle.rewind(at=2)
        await status(handle, "parked")
        assert [run.status for run in await handle.runs()] == ["parked", "abandoned", "continued"]
    assert ran() == ["plan"] * 5


async def test_what_follows_a_copy_is_not_what_followed_the_original(lab: Lab) -> None:
    """Also where the code had decided to continue before the cut: the next run's id is the copy's own."""

    @workflow
    async def laps(n: int) -> int:
        await plan(str(n))
        if n:
            perdure.continue_as_new(n - 1)
        return n

    async with lab.engine(laps) as engine:
        handle = await engine.start(laps, 2, id="a")
        await handle.result()
        first = (await handle.runs())[-1].run
        fork = await engine.fork("a", new_id="b", at=3, run=first)
        await fork.result()
        runs = [run.run for run in [*await handle.runs(), *await fork.runs()]]
        assert len(set(runs)) == 6
    assert len({key for _, key in RAN}) == len(RAN) == 5


# --- crashes ---


async def test_what_was_begun_goes_on_after_a_crash_right_behind_it(lab: Lab) -> None:
    async with lab.engine(report, asks) as engine:
        await done(engine)
        await status(await engine.start(asks, "x", id="w"), "parked")
    async with lab.doomed(report, asks) as engine:
        await engine.fork("a", new_id="b", at=WRITE)
        await engine.handle("w").rewind(at=2)
    async with lab.engine(report, asks) as engine:
        assert await engine.handle("b").result() == "text of plan for x"
        await engine.handle("w").signal("answer", "yes")
        assert (await engine.handle("w").result()).endswith("yes")
        assert ran().count("publish") == 2


async def test_encrypted_values_are_copied_for_where_they_stand_now(lab: Lab) -> None:
    from perdure.encryption import KeyRing, generate_key  # noqa: PLC0415 - an extra

    ring = KeyRing({"k": generate_key()}, current="k")
    async with lab.engine(report, asks, codec=ring) as engine:
        await done(engine)
        fork = await engine.fork("a", new_id="b", replace={PLAN: "hidden"})
        assert await fork.result() == "text of hidden"
        handle = engine.handle("a", report)
        await handle.rewind(at=WRITE)
        assert await handle.result() == "text of plan for x"
    async with perdure.Client(lab.path) as blind:
        with pytest.raises(KeyMissing):
            await blind.fork("a", new_id="c", at=WRITE)
        with pytest.raises(ExecutionNotFound):
            await blind.handle("c").describe()
    raw = b"".join(path.read_bytes() for path in lab.path.parent.iterdir() if path.is_file())
    assert b"hidden" not in raw


async def test_large_values_are_kept_for_the_copy(lab: Lab) -> None:
    @step
    async def large() -> bytes:
        note("large")
        return bytes(range(256)) * 8_000

    @workflow
    async def carries() -> int:
        return len(await large()) + len(await plan("x"))

    async with lab.engine(carries) as engine:
        handle = await engine.start(carries, id="a")
        length = await handle.result()
        fork = await engine.fork("a", new_id="b", at=3)
        assert await fork.result() == length
        await handle.rewind(at=3)
        assert await handle.result() == length
    async with lab.engine(carries) as engine:
        assert await engine.handle("b").result() == length
    assert ran() == ["large", "plan", "plan", "plan"]
