"""Continue-as-new: one execution, run after run; nothing that was sent to it is lost, nothing is done twice."""

# continue_as_new never returns, and these workflows try what may go wrong there by catching it:
# ruff: noqa: RET503, SIM105, PT017, BLE001, PERF401
from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from tests.runtime.conftest import Lab, kinds, of_kind, status, until

import perdure
from perdure import step, workflow
from perdure.core import events as ev
from perdure.core.errors import EncodeError, OutsideWorkflow, WrongArguments
from perdure.workflow import history

KEYS: list[str] = []


@pytest.fixture(autouse=True)
def _no_keys() -> None:
    KEYS.clear()


@step
async def double(n: int) -> int:
    KEYS.append(perdure.current_step().idempotency_key)
    return 2 * n


@workflow
async def countdown(n: int, total: int = 0) -> int:
    total += await double(n)
    if n:
        perdure.continue_as_new(n - 1, total=total)
    return total


async def test_it_goes_on_run_after_run_and_the_last_one_answers(lab: Lab) -> None:
    async with lab.engine(countdown) as engine:
        handle = await engine.start(countdown, 3, id="x")
        assert await handle.result() == 12
        runs = await handle.runs()
        told = [(run.status, run.events) for run in runs]
        assert told == [("completed", 4), ("continued", 4), ("continued", 4), ("continued", 4)]
        first = await handle.journal(run=runs[-1].run)
        assert kinds(first) == ["ExecutionStarted", "ExecutionClaimed", "StepCompleted", "ContinuedAsNew"]
        assert first[-1].event.run == runs[-2].run
        started = (await handle.journal())[0].event
        assert (started.continued_from, started.first_run) == (runs[1].run, runs[-1].run)
        assert (await handle.runs(limit=2)) + (await handle.runs(before=runs[1])) == runs


async def test_every_run_has_keys_and_random_numbers_of_its_own(lab: Lab) -> None:
    @workflow
    async def draws(n: int, drawn: list[float]) -> list[float]:
        await double(n)
        drawn = [*drawn, perdure.random().random(), float(perdure.uuid4().int)]
        if n:
            perdure.continue_as_new(n - 1, drawn)
        return drawn

    async with lab.engine(draws) as engine:
        drawn = await (await engine.start(draws, 2, [])).result()
    assert len(set(drawn)) == 6
    assert len(set(KEYS)) == 3


async def test_a_client_waits_for_the_last_run_too(lab: Lab) -> None:
    async with lab.engine(countdown) as engine, lab.client() as client:
        waiting = asyncio.create_task(client.handle("x", countdown).result(timeout=20))
        with pytest.raises(perdure.ExecutionNotFound):
            await waiting
        await engine.start(countdown, 20, id="x")
        assert await client.handle("x", countdown).result(timeout=20) == 2 * sum(range(21))


async def test_starting_it_again_returns_the_one_there_is(lab: Lab) -> None:
    async with lab.engine(countdown) as engine:
        handle = await engine.start(countdown, 2, id="x")
        assert await handle.result() == 6
        again = await engine.start(countdown, 2, id="x")
        assert await again.result() == 6
        with pytest.raises(perdure.ExecutionExists):
            await engine.start(countdown, 3, id="x")


# --- what it is given ---


@workflow
async def careful(n: int) -> str:
    if n == 0:
        return "done"
    try:
        perdure.continue_as_new("nonsense", "more")
    except WrongArguments:
        pass
    try:
        perdure.continue_as_new("nonsense")
    except EncodeError as error:
        assert "n" in str(error)
    perdure.continue_as_new(n=n - 1)


async def test_arguments_are_those_of_the_workflow_and_checked_where_they_are_given(lab: Lab) -> None:
    async with lab.engine(careful) as engine:
        assert await (await engine.start(careful, 2)).result() == "done"


@workflow
async def second_half(sum_so_far: int, n: int) -> str:
    return f"second half of {sum_so_far} with {await double(n)}"


@workflow
async def first_half(n: int) -> str:
    second_half.continue_as_new(await double(n), n=n)


async def test_it_may_go_on_as_another_workflow(lab: Lab) -> None:
    async with lab.engine(first_half, second_half) as engine:
        handle = await engine.start(first_half, 4, id="x")
        assert await handle.result() == "second half of 8 with 8"
        assert (await handle.describe()).workflow == "second_half"
        assert [run.workflow for run in await handle.runs()] == ["second_half", "first_half"]
        again = await engine.start(first_half, 4, id="x")
        assert await again.result() == "second half of 8 with 8"


async def test_what_goes_on_as_a_workflow_that_nobody_defines_waits_for_who_does(lab: Lab) -> None:
    other = perdure.Workflow(second_half.fn, name="elsewhere")

    @workflow
    async def moves(n: int) -> str:
        other.continue_as_new(n, n=n)

    async with lab.engine(moves) as engine:
        handle = await engine.start(moves, 4, id="x")
        with pytest.raises(perdure.ExecutionStalled):  # also for who has waited for it since before
            await handle.result(timeout=30)
        row = await status(handle, "stalled")
        assert (row.workflow, row.waits_for) == ("elsewhere", "UnknownWorkflow")
    async with lab.engine(other) as engine:
        assert await engine.handle("x").result() == "second half of 4 with 8"


def test_outside_a_workflow_it_means_nothing() -> None:
    for call in (lambda: perdure.continue_as_new(1), lambda: countdown.continue_as_new(1), lambda: perdure.snapshot(1)):
        with pytest.raises(OutsideWorkflow):
            call()


@workflow
async def cleans_up(n: int) -> str:
    if n == 0:
        return "done"
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(30))
            await double(n)
            try:
                perdure.continue_as_new(n - 1)
            except Exception:
                return "it was caught"
    finally:
        await double(100)


async def test_it_passes_handlers_and_groups_and_lets_cleanup_end(lab: Lab) -> None:
    async with lab.engine(cleans_up) as engine:
        handle = await engine.start(cleans_up, 1)
        assert await handle.result(timeout=30) == "done"
        past = await handle.journal(run=(await handle.runs())[-1].run)
        assert kinds(past)[2:] == ["StepCompleted", "StepCompleted", "ContinuedAsNew"]


@workflow
async def fails_meanwhile(n: int) -> str:
    async def bad() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            raise ValueError("something else")

    async with asyncio.TaskGroup() as group:
        group.create_task(bad())
        await double(n)
        perdure.continue_as_new(n - 1)
    return "no"


async def test_a_failure_beside_it_counts(lab: Lab) -> None:
    async with lab.engine(fails_meanwhile) as engine:
        handle = await engine.start(fails_meanwhile, 1)
        with pytest.raises(perdure.ExecutionFailed, match="unhandled errors"):
            await handle.result(timeout=30)


async def test_it_may_come_out_of_another_task(lab: Lab) -> None:
    @workflow
    async def delegates(n: int) -> int:
        async def decide() -> None:
            await double(n)
            perdure.continue_as_new(n - 1)

        if n:
            await asyncio.gather(decide())
        return n

    async with lab.engine(delegates) as engine:
        assert await (await engine.start(delegates, 2)).result(timeout=30) == 0


# --- what is open when it does ---


@workflow
async def leaves_things_open(n: int) -> str:
    if n == 0:
        return f"at {perdure.now().timestamp() > 0}"
    pending = [asyncio.create_task(endless(n)), asyncio.create_task(asyncio.sleep(3600))]
    await double(n)
    assert not any(task.done() for task in pending)
    perdure.continue_as_new(n - 1)


STOPPED: list[str] = []


@step
async def endless(n: int) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        STOPPED.append(f"{n}")


async def test_open_steps_and_timers_end_with_their_run(lab: Lab) -> None:
    STOPPED.clear()
    async with lab.engine(leaves_things_open) as engine:
        handle = await engine.start(leaves_things_open, 2)
        assert await handle.result(timeout=30) == "at True"
        await until(lambda: len(STOPPED) == 2)
        assert await handle.running() == []


@workflow
async def quiet_child(n: int) -> int:
    got = await perdure.receive("finish", int, timeout=timedelta(days=1))
    return got + n


@workflow
async def parent_of_many(n: int) -> str:
    if n:
        await perdure.start_child(quiet_child, n, id=f"child-{n}", on_parent_close="cancel" if n == 1 else "terminate")
        perdure.continue_as_new(n - 1)
    await perdure.start_child(quiet_child, 9, id="left", on_parent_close="abandon")
    return await perdure.receive("end", str)


async def test_children_go_on_over_runs_and_end_with_the_execution(lab: Lab) -> None:
    async with lab.engine(parent_of_many, quiet_child) as engine:
        handle = await engine.start(parent_of_many, 3, id="x")
        await status(handle, "parked")
        children = [engine.handle(f"child-{n}") for n in (1, 2, 3)]
        for child in children:
            await status(child, "parked")
        await children[2].signal("finish", 1)  # its answer is for a run that is over
        await status(children[2], "completed")
        await handle.signal("end", "all of it")
        assert await handle.result(timeout=30) == "all of it"
        await status(children[0], "cancelled")
        await status(children[1], "terminated")
        await status(engine.handle("left"), "parked")
        assert not of_kind(await handle.journal(), ev.ChildClosed)


@workflow
async def child_that_goes_on(n: int) -> int:
    await double(n)
    if n:
        perdure.continue_as_new(n - 1)
    return 42


@workflow
async def waits_for_child(n: int) -> int:
    return await child_that_goes_on(n)


async def test_a_parent_hears_only_of_the_last_run_of_its_child(lab: Lab) -> None:
    async with lab.engine(waits_for_child, child_that_goes_on) as engine:
        handle = await engine.start(waits_for_child, 3)
        assert await handle.result(timeout=30) == 42
        journal = await handle.journal()
        [closed] = of_kind(journal, ev.ChildClosed)
        child = engine.handle(closed.execution)
        assert closed.sender_run == (await child.runs())[0].run
        assert len(await child.runs()) == 4


@workflow
async def stubborn_child(n: int) -> int:
    if n:
        perdure.continue_as_new(n - 1)
    await perdure.receive("never")
    return 0


@workflow
async def cancels_child() -> str:
    try:
        async with asyncio.timeout(0.05):
            await stubborn_child(3)
    except TimeoutError:
        return "gave up"
    return "?"


async def test_a_cancelled_child_is_found_whatever_run_it_is_in(lab: Lab) -> None:
    async with lab.engine(cancels_child, stubborn_child) as engine:
        handle = await engine.start(cancels_child)
        assert await handle.result(timeout=30) == "gave up"
        [sent] = of_kind(await handle.journal(), ev.MessageSent)
        await status(engine.handle(sent.receiver), "cancelled")


async def test_terminating_a_parent_reaches_the_run_its_child_is_in(lab: Lab) -> None:
    @workflow
    async def parent() -> None:
        await perdure.start_child(stubborn_child, 3, id="kid")
        await perdure.receive("never")

    async with lab.engine(parent, stubborn_child) as engine:
        handle = await engine.start(parent)
        kid = await until(lambda: _there(engine, "kid"))
        await status(kid, "parked")
        await handle.terminate("enough")
        await status(kid, "terminated")


async def _there(engine: perdure.Engine, name: str) -> perdure.Handle[Any] | None:
    return engine.handle(name) if [row for row in await engine.list() if row.key.execution == name] else None


# --- messages ---


@workflow
async def collector(batches: int, seen: list[int]) -> list[int]:
    """Takes two notes a run; others wait for the next."""
    for _ in range(2):
        seen.append(await perdure.receive("note", int))
    if batches:
        perdure.continue_as_new(batches - 1, seen)
    return seen


async def test_messages_that_were_not_received_go_on_to_the_next_run_in_order(lab: Lab) -> None:
    async with lab.engine(collector) as engine:
        handle = await engine.start(collector, 9, [])
        for n in range(20):
            await handle.signal("note", n)
        assert await handle.result(timeout=20) == list(range(20))


async def test_a_message_of_another_name_waits_for_the_run_that_receives_it(lab: Lab) -> None:
    @workflow
    async def waits(n: int) -> str:
        if n:
            await perdure.receive("go")
            perdure.continue_as_new(n - 1)
        return await perdure.receive("late", str)

    async with lab.engine(waits) as engine:
        handle = await engine.start(waits, 3, id="x")
        await handle.signal("late", "kept")
        await until(lambda: _journaled(handle, 1))
        for _ in range(3):
            await handle.signal("go")
        assert await handle.result(timeout=30) == "kept"
        runs = await handle.runs()
        received = [
            [each.name for each in of_kind(await handle.journal(run=run.run), ev.SignalReceived)] for run in runs
        ]
        assert all("late" in names for names in received)  # journaled by every run, taken by the last


async def _journaled(handle: perdure.Handle[Any], number: int) -> bool:
    return len(of_kind(await handle.journal(), ev.SignalReceived)) >= number


async def test_a_message_sent_again_counts_once_over_all_runs(lab: Lab) -> None:
    async with lab.engine(collector) as engine:
        handle = await engine.start(collector, 2, [])
        for n in range(5):
            for _ in range(2):
                await handle.signal("note", n, id=f"note-{n}")
            await handle.signal("note", 0, id="note-0")
        await handle.signal("note", 5)
        assert await handle.result(timeout=30) == list(range(6))


async def test_a_message_that_an_earlier_execution_of_the_id_received_is_new_to_this_one(lab: Lab) -> None:
    @workflow
    async def two_runs(n: int) -> str:
        said = await perdure.receive("said", str)
        if n:
            perdure.continue_as_new(n - 1)
        return said

    async with lab.engine(two_runs) as engine:
        handle = await engine.start(two_runs, 1, id="x")
        await handle.signal("said", "first", id="m1")
        await handle.signal("said", "second", id="m2")
        assert await handle.result(timeout=30) == "second"
        again = await engine.start(two_runs, 1, id="x", reuse="always")
        await again.signal("said", "third", id="m2")
        await again.signal("said", "fourth", id="m1")
        assert await again.result(timeout=30) == "fourth"


async def test_a_storm_of_messages_while_it_goes_on_and_on_loses_none(lab: Lab) -> None:
    async with lab.engine(collector) as engine:
        handle = await engine.start(collector, 49, [])
        await asyncio.gather(*[handle.signal("note", n) for n in range(100)])
        assert sorted(await handle.result(timeout=30)) == list(range(100))
        assert len(await handle.runs()) == 50


async def test_a_cancel_that_comes_as_it_goes_on_reaches_the_next_run(lab: Lab) -> None:
    @workflow
    async def spins(n: int) -> None:
        await double(n)
        perdure.continue_as_new(n + 1)

    async with lab.engine(spins) as engine:
        handle = await engine.start(spins, 0)
        await until(lambda: _runs(handle, 3))
        await handle.cancel("stop it")
        with pytest.raises(perdure.ExecutionCancelled, match="stop it"):
            await handle.result(timeout=30)
        other = await engine.start(spins, 0)
        await until(lambda: _runs(other, 3))
        await other.terminate("now")
        with pytest.raises(perdure.ExecutionTerminated):
            await other.result(timeout=30)


async def test_a_start_in_its_place_that_comes_as_it_goes_on_is_not_lost(lab: Lab) -> None:
    @workflow
    async def spins(n: int) -> None:
        await double(n)
        perdure.continue_as_new(n + 1)

    @workflow
    async def instead(n: int) -> int:
        return n

    async with lab.engine(spins, instead) as engine:
        for n in range(10):
            await engine.start(spins, 0, id="x", reuse="always")
            handle = await engine.start(instead, n, id="x", on_conflict="terminate")
            assert await handle.result(timeout=5) == n


async def test_a_cancel_that_is_journaled_with_what_ends_a_run_reaches_the_next_one(lab: Lab) -> None:
    """Both are read at once: when the request is fed, the code has told already that it continues."""

    @workflow
    async def relay(n: int) -> None:
        await perdure.receive("go")
        perdure.continue_as_new(n + 1)

    async with lab.client() as client:
        handle = await client.start(relay, 0, id="x")
        await handle.signal("go")
        await handle.cancel("stop it")
    async with lab.engine(relay) as engine:
        handle = engine.handle("x")
        with pytest.raises(perdure.ExecutionCancelled, match="stop it"):
            await handle.result(timeout=30)
        runs = await handle.runs()
        assert [run.status for run in runs] == ["cancelled", "continued"]
        assert "CancelRequested" in kinds(await handle.journal(run=runs[1].run))  # else nothing was tested


async def _runs(handle: perdure.Handle[Any], number: int) -> bool:
    return len(await handle.runs()) >= number


async def test_it_may_be_paused_between_two_runs(lab: Lab) -> None:
    @workflow
    async def spins(n: int) -> int:
        await double(n)
        if n == 200:
            return n
        perdure.continue_as_new(n + 1)

    async with lab.engine(spins) as engine:
        handle = await engine.start(spins, 0)
        await until(lambda: _runs(handle, 3))
        await handle.pause()
        await status(handle, "paused")
        run = (await handle.describe()).run
        await asyncio.sleep(0.05)
        assert (await handle.describe()).run == run
        await handle.resume()
        assert await handle.result(timeout=20) == 200


@workflow
class Counter:
    """Counts by messages, and begins anew after each."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self, count: int, rounds: int) -> int:
        self.count = count
        perdure.publish({"count": self.count})
        while self.count == count:
            await perdure.receive("tick", timeout=3600)
        if rounds:
            perdure.continue_as_new(self.count, rounds - 1)
        return self.count

    @perdure.on_update
    async def add(self, n: int) -> int:
        self.count += await double(n)
        return self.count

    @perdure.on_query
    def now(self) -> int:
        return self.count


async def test_updates_that_are_under_way_are_answered_before_or_after(lab: Lab) -> None:
    async with lab.engine(Counter) as engine:
        handle = await engine.start(Counter, 0, 3)
        answers = []
        for n in range(1, 5):
            answers.append(await handle.update("add", n, timeout=10))
            await handle.signal("tick")
        assert await handle.result(timeout=30) == 20
        assert answers == [2, 6, 12, 20]


@workflow(unfinished_handlers="abandon")
class Hasty(Counter.cls):  # type: ignore[name-defined,misc]
    """Does not wait for its handlers."""

    async def run(self, rounds: int) -> str:
        await perdure.receive("go")
        if rounds:
            perdure.continue_as_new(rounds - 1)
        await perdure.all_handlers_finished()
        return "done"

    @perdure.on_update
    async def ask(self, n: int) -> int:
        await perdure.receive(f"answer {n}")
        return n


async def test_an_update_that_a_run_accepted_and_did_not_answer_is_the_next_ones(lab: Lab) -> None:
    async with lab.engine(Hasty) as engine:
        handle = await engine.start(Hasty, 2)
        asked = asyncio.create_task(handle.update("ask", 7, id="u-7", timeout=20))
        await until(lambda: _accepted(handle))
        for _ in range(2):
            await handle.signal("go")
        await until(lambda: _runs(handle, 3))
        await until(lambda: _accepted(handle))
        await handle.signal("answer 7")
        assert await asked == 7
        await handle.signal("go")
        assert await handle.result(timeout=30) == "done"


async def _accepted(handle: perdure.Handle[Any]) -> bool:
    return bool(of_kind(await handle.journal(), ev.UpdateAccepted))


async def test_handlers_may_not_begin_another_run(lab: Lab) -> None:
    @workflow
    class Odd:
        async def run(self) -> str:
            return await perdure.receive("end", str)

        @perdure.on_update
        async def go_on(self) -> None:
            perdure.continue_as_new()

    async with lab.engine(Odd) as engine:
        handle = await engine.start(Odd)
        with pytest.raises(perdure.UpdateFailed, match="own coroutine"):
            await handle.update("go_on", timeout=10)
        await handle.signal("end", "fine")
        assert await handle.result(timeout=30) == "fine"


async def test_what_was_published_stays_readable_over_runs(lab: Lab) -> None:
    @workflow
    async def publishes(n: int) -> None:
        if n == 2:
            perdure.publish({"seen": n})
        await perdure.receive("go")
        perdure.continue_as_new(n - 1)

    async with lab.engine(publishes) as engine:
        handle = await engine.start(publishes, 2)
        await handle.signal("go")
        await until(lambda: _runs(handle, 2))
        await handle.signal("go")
        await until(lambda: _runs(handle, 3))
        assert await handle.state() == {"seen": 2}
        assert (await handle.runs())[-1].run != (await handle.describe()).run


# --- snapshots ---


@dataclasses.dataclass
class State:
    seen: list[int] = dataclasses.field(default_factory=list)
    label: str = "new"


@workflow
async def remembers(limit: int) -> State:
    state = perdure.restored(State) or State()
    state.seen.append(await double(len(state.seen)))
    if len(state.seen) < limit:
        perdure.snapshot(state)
    return state


async def test_a_snapshot_is_where_replay_begins(lab: Lab) -> None:
    async with lab.engine(remembers) as engine:
        handle = await engine.start(remembers, 4)
        assert await handle.result() == State([0, 2, 4, 6])
        journal = await handle.journal()
        assert kinds(journal)[:3] == ["ExecutionStarted", "Snapshot", "ExecutionClaimed"]
        assert len(journal) == 5
    assert len(set(KEYS)) == 4


async def test_a_snapshot_that_cannot_be_kept_leaves_the_run_as_it_is(lab: Lab) -> None:
    @workflow
    async def tries() -> str:
        try:
            perdure.snapshot(object())
        except EncodeError:
            return f"refused; {perdure.restored()}"

    async with lab.engine(tries) as engine:
        assert await (await engine.start(tries)).result() == "refused; None"


async def test_a_snapshot_that_other_code_cannot_read_stalls(lab: Lab) -> None:
    async def first() -> str:
        if perdure.restored(int) is None:
            perdure.snapshot("text")
        return "no"

    async def second() -> str:
        return perdure.restored(str) or "nothing"

    async with lab.engine(perdure.Workflow(first, name="w")) as engine:
        handle = await engine.start(perdure.Workflow(first, name="w"), id="x")
        row = await status(handle, "stalled")
        assert "P0202" in row.problem
    mended = perdure.Workflow(second, name="w")
    async with lab.engine(mended) as engine:
        await engine.handle("x").resume()
        assert await engine.handle("x", mended).result(timeout=30) == "text"


async def test_suggested_after_many_events_or_much_data(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    @step
    async def page(size: int) -> bytes:
        return bytes(size)

    @workflow
    async def reads(size: int) -> int:
        pages = 0
        while not perdure.continue_as_new_suggested():
            await page(size)
            pages += 1
        return pages

    async with lab.engine(reads) as engine:
        assert await (await engine.start(reads, 2**20)).result(timeout=30) == 20
        monkeypatch.setattr(history, "SUGGESTED_EVENTS", 100)
        assert await (await engine.start(reads, 1)).result(timeout=30) == 98


# --- crashes ---


async def test_it_goes_on_where_it_was_after_a_crash_in_any_run(lab: Lab) -> None:
    for crash_after in range(1, 6):
        async with lab.doomed(countdown) as engine:
            handle = await engine.start(countdown, 30, id="x")
            await until(lambda: _runs(handle, 5 * crash_after))  # noqa: B023 - awaited before the next round
    async with lab.engine(countdown) as engine:
        handle = engine.handle("x", countdown)
        assert await handle.result(timeout=20) == 2 * sum(range(31))
        runs = await handle.runs()
        assert len(runs) == 31
        for run in runs:
            journal = await handle.journal(run=run.run)
            assert len(of_kind(journal, ev.StepCompleted)) == 1
            assert len({recorded.position for recorded in journal}) == run.events


# --- limits ---


async def test_a_run_with_too_many_events_stalls_and_each_resume_lets_it_go_on_a_little(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.runtime.pending.MOST_EVENTS", 50)
    monkeypatch.setattr("perdure.runtime.pending.MORE_EVENTS", 10)

    @workflow
    async def grows(n: int) -> int:
        for i in range(n):
            await double(i)
        return n

    async with lab.engine(grows) as engine:
        handle = await engine.start(grows, 55)
        row = await status(handle, "stalled")
        assert row.position == 50
        assert "P0901" in row.problem
        await handle.resume()
        await until(lambda: _longer(handle, 50))
        assert await handle.result(timeout=30) == 55


async def _longer(handle: perdure.Handle[Any], events: int) -> bool:
    return (await handle.describe()).position > events


async def test_a_run_that_continues_is_let_go_whatever_its_length(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.runtime.pending.MOST_EVENTS", 3)

    async with lab.engine(countdown) as engine:
        assert await (await engine.start(countdown, 3)).result(timeout=30) == 12


async def test_too_many_children_left_behind_stall_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.runtime.succession.MOST_CHILDREN", 2)

    async with lab.engine(parent_of_many, quiet_child) as engine:
        handle = await engine.start(parent_of_many, 4, id="x")
        row = await status(handle, "stalled")
        assert "P0903" in row.problem
        await handle.terminate()
        await status(engine.handle("child-4"), "terminated")
        await status(engine.handle("child-2"), "terminated")


# --- runs that follow each other for nothing ---


@workflow
async def spins(way: str, n: int = 0) -> int:
    if way == "works" and n == 300:
        return n
    if way == "works":
        await double(n)
    if way == "sleeps":
        await asyncio.sleep(0)
        asyncio.create_task(asyncio.sleep(60))  # noqa: RUF006 - it comes to nothing
    if way == "snapshots":
        perdure.snapshot(n)
    perdure.continue_as_new(way, n + 1)


@pytest.mark.parametrize("way", ["nothing", "sleeps", "snapshots", "with a signal that nobody takes"])
async def test_runs_that_do_nothing_do_not_follow_each_other_for_ever(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("perdure.runtime.succession.MOST_IDLE_RUNS", 5)
    async with lab.engine(spins) as engine:
        handle = await engine.start(spins, way, id="x")
        if way.startswith("with"):
            with contextlib.suppress(perdure.ExecutionClosed):
                await handle.signal("unheard", 1)
        row = await status(handle, "stalled")
        assert "P0906" in row.problem
        assert len(await handle.runs()) in (6, 7)  # a signal that comes in is something, the first time
        await handle.resume()
        assert "P0906" in (await status(handle, "stalled")).problem
    mended = workflow(name="spins")(_stops)
    async with lab.engine(mended) as engine:
        await engine.handle("x").resume()
        assert await engine.handle("x").result() == "mended"


async def _stops(way: str, n: int = 0) -> str:
    return "mended"


async def test_runs_that_do_something_may_follow_each_other_as_long_as_they_like(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.runtime.succession.MOST_IDLE_RUNS", 5)

    @workflow
    async def listens(n: int) -> int:
        await perdure.receive("go")
        if n:
            perdure.continue_as_new(n - 1)
        return n

    async with lab.engine(spins, listens) as engine:
        assert await (await engine.start(spins, "works", 280)).result(timeout=20) == 300
        handle = await engine.start(listens, 10, id="l")
        for _ in range(11):
            await handle.signal("go")
        assert await handle.result(timeout=20) == 0
        started = (await handle.journal())[0].event
        assert started.idle_runs == 0
