"""The rules of DESIGN sections 4 and 5: each has the test that is named after it, and that fails without it."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

import msgspec

import perdure
from perdure.core import events as ev
from perdure.core.commands import StartTimer
from perdure.core.identity import derived_id
from perdure.core.machine import Machine
from perdure.runtime.driver import Driver
from perdure.store.memory import MemoryStore
from perdure.testing.shapes import act
from perdure.workflow.definitions import step, workflow

sys.path.insert(0, str(Path(__file__).parent))

from world import EPOCH_MS, Small

DAY_S = 86_400


@step(retry=perdure.Retry(attempts=3, delay=0.2, jitter=0))
async def touch(tag: str, longest_ms: int = 0, fail: float = 0.0) -> int:
    return await act(tag, longest_ms, fail)


@step(retry=None)
async def slow(tag: str) -> int:
    await act(tag, 0, 0)
    await asyncio.sleep(3_600)
    return 0


@workflow
async def one_step(tag: str) -> int:
    return await touch(tag)


@workflow
async def waits(seconds: float) -> str:
    try:
        await perdure.receive("go", timeout=seconds)
    except TimeoutError:
        return "timeout"
    return "message"


@workflow
async def sleeps(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return perdure.now().isoformat()


@workflow
async def collects(n: int) -> list[object]:
    return [await perdure.receive("go") for _ in range(n)]


@workflow
async def stuck_step() -> int:
    return await slow("stuck")


@workflow
async def loses(n: int) -> str:
    first = asyncio.create_task(touch("winner"))
    second = asyncio.create_task(touch("loser", 500, 1.0))
    _, pending = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.sleep(n)
    return "done"


@workflow
async def parent() -> int:
    return await one_step("child")


@workflow
async def sends(receiver: str, n: int) -> str:
    target = perdure.external(receiver)
    for i in range(n):
        try:
            await target.signal("go", i)
        except perdure.MessageNotDelivered:
            await asyncio.sleep(1)
    return "sent"


@workflow
async def sends_twice(receiver: str, n: int) -> str:
    target = perdure.external(receiver)
    first = [asyncio.create_task(target.signal("go", i)) for i in range(n)]
    await touch("in between", 20)
    await asyncio.gather(*first, *[target.signal("go", n + i) for i in range(n)])
    return "sent"


@workflow
async def timers_together() -> list[str]:
    woke: list[str] = []

    async def nap(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woke.append(name)

    await asyncio.gather(nap("late", 2), nap("early", 1), nap("early too", 1), touch("x", 100))
    return woke


def step_starts(world: Small, tag: str) -> int:
    return len([start for start in world.ledger.starts if start.arguments == tag])


# --- identity -------------------------------------------------------------------------------------------------------


def test_every_run_has_a_run_id_and_derived_ids_are_functions_of_execution_run_and_seq():
    world = Small(one_step, parent)
    world.worker()
    world.start(parent)
    world.run(2)
    started = world.journal()[0].event
    child = next(each.event for each in world.journal() if isinstance(each.event, ev.ChildInitiated))
    assert len(started.run) == 32
    assert child.execution == derived_id("child", "x", started.run, child.seq)
    assert child.run == derived_id("child run", "x", started.run, child.seq)
    (start,) = world.ledger.starts
    assert start.key == derived_id("step", child.execution, child.run, start.seq)


def test_an_idempotency_key_is_the_same_on_every_attempt_and_after_every_crash():
    world = Small(one_step)
    worker = world.worker()
    world.start(one_step, "a")
    worker.pace.longest_s = 0.5
    world.kernel.run(lambda: bool(world.ledger.starts), 60_000)
    world.die(worker)
    world.worker()
    world.run(5)
    assert len(world.ledger.starts) == 2
    assert len({start.key for start in world.ledger.starts}) == 1


# --- time -----------------------------------------------------------------------------------------------------------


def test_at_ms_is_never_before_the_previous_events_also_when_the_clock_goes_back():
    world = Small(collects)
    worker = world.worker()
    world.start(collects, 2)
    world.run(1)
    worker.environment.skew_ms = -600_000
    world.signal("x", "go")
    world.run(1)
    world.signal("x", "go")
    world.run(1)
    times = [recorded.at_ms for recorded in world.journal()]
    assert world.row().status == "completed"
    assert times == sorted(times)
    assert times[-1] == times[0]


def test_logical_time_starts_at_the_claim():
    """A start that waited three hours for a worker does not begin expired."""
    world = Small(sleeps)
    world.start(sleeps, 5)
    world.run(3 * 3600)
    world.worker()
    world.run(2)
    assert world.kinds() == ["ExecutionStarted", "ExecutionClaimed"]
    assert world.journal()[1].at_ms >= EPOCH_MS + 3 * 3600 * 1000
    world.run(5)
    assert world.row().status == "completed"


def test_starting_a_timer_writes_nothing_only_firing_does():
    world = Small(sleeps)
    world.worker()
    world.start(sleeps, 5)
    world.run(3)
    assert world.kinds() == ["ExecutionStarted", "ExecutionClaimed"]
    world.run(4)
    assert world.kinds()[2:] == ["TimerFired", "ExecutionCompleted"]


# --- order within a commit ------------------------------------------------------------------------------------------


def test_an_approval_stored_on_day_two_beats_a_three_day_timeout_when_the_worker_returns_on_day_four():
    world = Small(waits)
    worker = world.worker()
    world.start(waits, 3 * DAY_S)
    world.run(1)
    world.die(worker)
    world.run(2 * DAY_S)
    world.signal("x", "go")
    world.run(2 * DAY_S)
    world.worker()
    world.run(5)
    assert world.result() == "message"


def test_a_timer_fires_only_where_the_inbox_was_read_in_the_same_transaction():
    """The message is stored while the commit with the due timer is on its way."""
    world = Small(waits)
    worker = world.worker()
    world.start(waits, 5)
    world.run(1)
    seen = []

    class Racing:
        def before(self, _process, call):
            if call == "commit" and not seen:
                seen.append(world.signal("x", "go"))

        def after(self, process, call):
            pass

    worker.store.plan = Racing()
    worker.environment.skew_ms = 10_000
    worker.process.call_soon(worker.worker.drivers[world.key("x")].timer_due)
    world.run(2)
    assert seen
    assert world.result() == "message"


def test_a_commit_holds_messages_then_results_then_timers_by_deadline_and_number():
    world = Small(timers_together)
    worker = world.worker()
    world.start(timers_together)
    world.run(0.05)
    worker.process.freeze()
    world.signal("x", "unheard")
    world.run(1)
    worker.process.thaw()
    worker.environment.skew_ms = 10_000
    worker.process.call_soon(worker.worker.arrivals.woken, [world.key("x")])
    world.run(20)
    events = [recorded.event for recorded in world.journal()]
    timers = [event.seq for event in events if isinstance(event, ev.TimerFired)]
    kinds = world.kinds()
    assert kinds.index("SignalReceived") < kinds.index("TimerFired")
    assert timers == [2, 3, 1]
    assert world.result() == ["early", "early too", "late"]


# --- commands -------------------------------------------------------------------------------------------------------


def test_commands_start_only_after_every_committed_event_has_been_fed():
    """Replay does not rerun the loser of a race."""
    world = Small(loses, resting=0)
    worker = world.worker()
    world.start(loses, 30)
    world.run(5)
    before = step_starts(world, "loser")
    world.die(worker)
    world.worker()
    world.run(40)
    assert world.result() == "done"
    assert step_starts(world, "winner") == 1
    assert step_starts(world, "loser") == before


def test_a_late_result_of_a_cancelled_command_is_accepted_and_ignored():
    machine = Machine()
    for position, event in enumerate([ev.ExecutionStarted("w", "r", ev.Payload(b"\x90")), ev.ExecutionClaimed()]):
        machine.feed(ev.Recorded(position, 1, event))
    seq = machine.issue(StartTimer(due_ms=5))
    machine.take()
    machine.cancel(seq)
    answer = machine.feed(ev.Recorded(2, 6, ev.TimerFired(seq)))
    assert answer.effect.value == "ignore"


def test_only_timer_fired_fires_a_pending_timer():
    world = Small(waits)
    worker = world.worker()
    world.start(waits, 5)
    world.run(1)
    worker.process.freeze()
    world.run(20)
    assert "TimerFired" not in world.kinds()
    driver = next(iter(worker.worker.drivers.values()))
    assert driver.execution.machine.open


# --- parking and eviction -------------------------------------------------------------------------------------------


def test_parking_is_a_cache_and_losing_it_costs_one_replay():
    world = Small(sleeps)
    worker = world.worker()
    world.start(sleeps, 60)
    world.run(3)
    assert world.row().status == "parked"
    assert world.row().wake_at_ms is not None
    world.die(worker)
    row = world.row()
    world.store._world.rows[row.key] = msgspec.structs.replace(row, status="active", wake_at_ms=None)
    world.worker()
    world.run(70)
    assert world.row().status == "completed"
    assert world.kinds().count("TimerFired") == 1


def test_a_parked_execution_is_not_loaded_before_it_is_due_or_has_mail():
    world = Small(waits)
    worker = world.worker()
    world.start(waits, 60)
    world.run(3)
    world.die(worker)
    again = world.worker()
    world.run(10)
    assert not again.worker.drivers
    world.signal("x", "go")
    world.run(3)
    assert world.result() == "message"


def test_parking_does_not_hide_a_message_that_came_meanwhile():
    """It is stored while the advice to park is on its way."""
    world = Small(waits, resting=0)
    world.worker()
    world.start(waits, 60)
    sent = []

    class Racing:
        def before(self, _process, call):
            if call == "commit" and not sent and world.kinds() == ["ExecutionStarted", "ExecutionClaimed"]:
                sent.append(world.signal("x", "go"))

        def after(self, process, call):
            pass

    world.workers[0].store.plan = Racing()
    world.run(10)
    assert sent
    assert world.result() == "message"


def test_eviction_frees_memory_and_changes_nothing():
    world = Small(sleeps, resting=0)
    worker = world.worker()
    for i in range(5):
        world.start(sleeps, 30, name=f"x{i}")
    world.run(5)
    assert not worker.worker.drivers
    gc.collect()
    left = [each for each in gc.get_objects() if isinstance(each, Driver) and each.host is worker.worker]
    assert not left  # though their timers are still to ring
    world.run(40)
    assert {world.row(f"x{i}").status for i in range(5)} == {"completed"}


# --- mailboxes ------------------------------------------------------------------------------------------------------


def test_the_receiver_accepts_exactly_the_next_expected_number():
    world = Small(collects)
    world.worker()
    world.start(collects, 3)
    for number, name in ((1, "one"), (3, "three"), (1, "one again"), (2, "two")):
        world.signal("x", "go", name, message_id=name, sender="s", sender_run="r", number=number)
        world.run(2)
    assert world.result() == ["one", "two", "three"]


def test_a_sender_whose_first_messages_failed_is_heard_later():
    world = Small(sends, collects)
    world.worker()
    world.start(sends, "y", 4, name="x")
    world.run(2)
    world.start(collects, 1, name="y")
    world.run(10)
    assert world.row("y").status == "completed"
    assert world.row("x").status == "completed"


def test_delivery_in_the_same_transaction_only_while_the_outbox_is_empty():
    """Three messages wait in the outbox; three more, which could go directly, do not overtake them."""
    world = Small(sends_twice, collects, direct=False)
    worker = world.worker()
    world.start(collects, 6, name="y")
    world.run(2)
    worker.pace.tick_s = 30
    world.start(sends_twice, "y", 3, name="x")
    world.kernel.run(lambda: any(world.store._world.outbox.values()), 60_000)
    worker.store.inner._direct = True
    world.run(60)
    numbers = [each.event.number for each in world.journal("y") if isinstance(each.event, ev.SignalReceived)]
    assert numbers == [1, 2, 3, 4, 5, 6]


def test_an_undeliverable_message_ends_in_a_dead_letter_and_its_sender_is_told():
    world = Small(sends, one_step)
    world.worker()
    world.start(one_step, "done", name="y")
    world.run(2)
    world.start(sends, "y", 1, name="x")
    world.run(5)
    assert "MessageFailed" in world.kinds("x")
    assert len(world.store.dead_letters(world.key("y"), 10)) == 1


def test_a_close_lists_unreceived_messages():
    world = Small(sleeps)
    worker = world.worker()
    world.start(sleeps, 2)
    world.run(1)
    worker.process.freeze()
    world.run(1.2)
    worker.environment.skew_ms = 0

    class AtTheClose:
        def before(self, _process, call):
            if call == "commit" and world.kinds()[-1] == "TimerFired":
                world.signal("x", "late", message_id="late one")

        def after(self, process, call):
            pass

    worker.store.plan = AtTheClose()
    worker.process.thaw()
    world.run(3)
    assert world.row().status == "completed"
    assert [letter.message_id for letter in world.store.dead_letters(world.key("x"), 10)] == ["late one"]


def test_a_message_is_journaled_once_however_often_it_arrives():
    world = Small(collects)
    world.worker()
    world.start(collects, 2)
    for name in ("a", "a", "b"):
        world.signal("x", "go", name, message_id=name)
        world.run(2)
    assert world.result() == ["a", "b"]


# --- header, feed, lane ---------------------------------------------------------------------------------------------


def test_the_header_tells_session_time_and_fingerprint():
    world = Small(one_step)
    world.worker()
    world.start(one_step, "a")
    world.run(2)
    for recorded in world.journal():
        assert recorded.session == 1
        assert recorded.fingerprint == "fingerprint"
        assert recorded.at_ms > EPOCH_MS


def test_shard_pos_has_no_gaps_so_that_one_cursor_misses_nothing():
    world = Small(one_step, sleeps, shards=2)
    world.worker()
    for i in range(6):
        world.start(one_step, f"a{i}", name=f"x{i}")
    world.run(5)
    for shard in range(2):
        feed = world.store.tail(shard, 0, 1_000)
        assert [entry[0] for entry in feed] == list(range(1, len(feed) + 1))
        half = len(feed) // 2
        assert world.store.tail(shard, half, 1_000) == feed[half:]
    total = sum(len(world.store.tail(shard, 0, 1_000)) for shard in range(2))
    assert total == sum(world.row(f"x{i}").position for i in range(6))


def test_a_worker_gets_only_executions_of_lanes_that_it_announced():
    world = Small(one_step)
    key = world.start(one_step, "a")
    row = world.store.row(key)
    assert row.lane == "default"
    elsewhere = world.store.open_session("other", ("elsewhere",), "f")
    assert world.store.ready(elsewhere, EPOCH_MS, None, 10) == []
    here = MemoryStore(shards=4)
    assert here.ready(here.open_session("w", ("default",), "f"), EPOCH_MS, None, 10) == []


# --- ownership, fencing, recoveries ---------------------------------------------------------------------------------


def test_a_frozen_worker_that_wakes_up_records_nothing():
    world = Small(collects)
    first = world.worker()
    world.start(collects, 2)
    world.run(1)
    world.signal("x", "go", "a")
    first.process.freeze()
    world.worker()
    world.run(10)
    assert world.kinds()[-1] == "SignalReceived"
    first.process.thaw()
    world.signal("x", "go", "b")
    world.run(5)
    assert world.result() == ["a", "b"]
    assert first.process.dead


def test_a_worker_starts_no_step_after_two_thirds_of_its_lease():
    world = Small(collects, one_step)
    worker = world.worker()
    world.run(1)
    holding = worker.worker.holding
    renewed_ms = holding.until_ms - 2_000
    assert not holding.lapsed()
    world.kernel.now_us = (renewed_ms + 1_999) * 1_000
    assert not holding.lapsed()
    world.kernel.now_us = (renewed_ms + 2_000) * 1_000
    assert holding.lapsed()


def test_an_unclean_take_over_adds_a_recovery_to_active_executions_only():
    world = Small(stuck_step, sleeps)
    worker = world.worker()
    world.start(stuck_step, name="busy")
    world.start(sleeps, 3_000, name="parked")
    world.run(2)
    assert world.row("parked").status == "parked"
    world.die(worker)
    world.worker()
    world.run(1)
    assert world.row("busy").recoveries == 1
    assert world.row("parked").recoveries == 0


def test_a_clean_end_counts_no_recovery():
    world = Small(stuck_step)
    worker = world.worker()
    world.start(stuck_step)
    world.run(2)
    worker.store.close_session(worker.session)
    world.die(worker)
    world.worker()
    world.run(1)
    assert world.row().recoveries == 0


def test_progress_resets_recoveries():
    @workflow(name="progressing")
    async def progressing() -> int:
        await perdure.receive("go")
        return await slow("then stuck")

    world = Small(stuck_step, progressing)
    worker = world.worker()
    world.start(progressing)
    world.run(0.1)
    row = world.row()
    world.store._world.rows[row.key] = msgspec.structs.replace(row, recoveries=2)
    world.signal("x", "go")
    world.run(2)
    assert world.row().recoveries == 0
    world.die(worker)


def test_after_three_recoveries_it_runs_alone_and_then_stalls_naming_its_open_steps():
    world = Small(stuck_step, one_step)
    world.start(stuck_step)
    world.start(one_step, "beside", name="beside")
    for deaths in range(12):
        worker = world.worker()
        world.run(2)
        if deaths >= 3 and worker.worker.steps.alone is not None:
            assert worker.worker.steps.alone == world.key("x")
        world.die(worker)
        if world.row().status == "stalled":
            break
    assert world.row().status == "stalled"
    assert "slow" in world.row().problem
