"""Where durable asyncio has gone wrong before: at least one test for each known trap."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.workflow.harness import (
    Live,
    Run,
    Stuck,
    answers,
    cancels,
    drive,
    echo,
    explore,
    fails,
    fires,
    log,
    outcomes,
    passes,
    replay,
    replays_alike,
    running_execution,
    signals,
    told,
)

from perdure.core import events as ev
from perdure.core.errors import (
    DeadlockError,
    DecodeError,
    EncodeError,
    Evicted,
    NotDeterministic,
    SpinError,
    UnorderedSet,
)
from perdure.workflow import context, loop, messages
from perdure.workflow.definitions import step, workflow

ROOT = Path(__file__).parents[2]


def exactly(run: Run) -> Run:
    """The run, after seeing that it replays alike."""
    replays_alike(run)
    return run


@contextlib.contextmanager
def only_new_garbage() -> Iterator[None]:
    """Collections look at nothing that was there before: the other tests have left much."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def in_a_thread(call: Callable[[], Any]) -> Any:
    """With a stack of its own; a tool that traces lines does not survive a RecursionError, here it need not."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


# --- races -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["signal", "step"])
def test_a_signal_racing_a_step_result_wins_if_it_is_journaled_first(first: str) -> None:
    """Both are in one commit; the order in the journal decides, live and on replay."""

    @workflow
    async def racing() -> str:
        waiting = {
            asyncio.create_task(messages.receive("go"), name="signal"),
            asyncio.create_task(echo(1), name="step"),
        }
        done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        (winner,) = done
        return winner.get_name()

    moves = [signals("go"), answers("echo")]
    run = exactly(drive(racing, script=[moves if first == "signal" else moves[::-1]], evict=0))
    assert run.value == first


def test_concurrent_steps_whose_completions_interleave_keep_their_interleaving() -> None:
    """Shared state that depends on the order of completions comes out the same."""

    @workflow
    async def interleaved() -> str:
        word = ""

        async def one(letter: str) -> None:
            nonlocal word
            for _ in range(3):
                got = await echo(letter)
                word += got

        await asyncio.gather(one("a"), one("b"), one("c"))
        return word

    runs = explore(interleaved, seeds=40)
    assert all(sorted(run.value) == sorted("aaabbbccc") for run in runs)
    assert len(outcomes(runs)) > 30


@pytest.mark.parametrize("cancel_first", [True, False])
def test_cancellation_racing_a_completion_is_decided_by_the_journal(cancel_first: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """In one commit: a cancellation before the result drops the result, one after it comes too late for that step."""

    @workflow
    async def racing() -> str:
        try:
            log(await echo("result"))
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            log("cancelled")
            raise
        return "end"

    moves = [cancels(), answers("echo")] if cancel_first else [answers("echo"), cancels()]
    run = exactly(drive(racing, script=[moves], evict=0))
    assert run.outcome == ("cancelled", "asked to")
    assert run.trace == ([("cancelled",)] if cancel_first else [("result",), ("cancelled",)])
    if cancel_first:
        assert run.names()[2:4] == ["CancelRequested", "StepCompleted"]


def test_a_cancelled_race_loser_does_not_start_on_replay() -> None:
    """A step that lost its race is not handed out again by code that replays the journal."""

    @workflow
    async def racing() -> str:
        slow = asyncio.create_task(echo("slow"))
        await echo("fast")
        slow.cancel()
        await asyncio.wait([slow])
        await asyncio.sleep(10)
        return "end"

    run = exactly(drive(racing, script=[[answers("echo")]], evict=0))
    assert [entry[1] for entry in run.started] == ["step", "step", "timer", "close"]
    for end in range(3, len(run.journal) - 1):
        again = replay(racing, run.journal[:end])
        start, stop = again.take()
        assert [told(command)[1] for command in start] == ["timer"]
        assert not stop
        again.evict()


def test_what_is_answered_within_the_same_commit_never_starts() -> None:
    """A step that is issued and cancelled between two takes is never handed out."""

    @workflow
    async def hasty() -> str:
        await echo(1)
        task = asyncio.create_task(echo("never"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return "end"

    run = exactly(drive(hasty, evict=0))
    assert [entry[1] for entry in run.issued] == ["step", "step", "close"]
    assert [entry[1] for entry in run.started] == ["step", "close"]


def test_a_receive_that_is_cancelled_leaves_its_message_to_the_next() -> None:
    """Timeouts racing with messages: each message is received once, none is lost, at every interleaving."""

    @workflow
    async def receiving(count: int) -> list[Any]:
        got: list[Any] = []
        while len(got) < count:
            with contextlib.suppress(TimeoutError):
                got.append(await messages.receive("item", timeout=1))
        return got

    runs = explore(receiving, 5, seeds=60, signals=[("item", n) for n in range(5)])
    assert outcomes(runs) == {"[0, 1, 2, 3, 4]"}


@pytest.mark.parametrize("signal_first", [True, False])
def test_a_message_and_the_timeout_of_its_receive_in_one_commit(signal_first: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """An approval that was stored beats the timeout that is journaled after it; one that comes later is kept."""

    @workflow
    async def waiting() -> list[str]:
        try:
            got = await messages.receive("approval", str, timeout=10)
        except TimeoutError:
            got = "timeout"
        await echo("between")
        return [got, await messages.receive("approval", str)]

    moves = [signals("approval", "yes"), fires()] if signal_first else [fires(), signals("approval", "yes")]
    run = exactly(drive(waiting, script=[moves, [signals("approval", "again")]], evict=0))
    assert run.value == (["yes", "again"] if signal_first else ["timeout", "yes"])


def test_a_receiver_that_was_chosen_and_gives_up_wakes_the_next() -> None:
    """A message leaves the buffer when its task resumes, not when its future resolves."""

    @workflow
    async def receiving() -> list[Any]:
        got: list[Any] = []

        async def one(number: int) -> None:
            got.append((number, await messages.receive("item")))

        tasks = [asyncio.create_task(one(n)) for n in range(3)]
        await echo("all wait")
        host = running_execution()
        host.mailbox.put(ev.SignalReceived("m-9", "item", ev.Payload(b"\x07")))
        tasks[0].cancel()
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(tasks[:2])
        tasks[2].cancel()
        return got

    assert exactly(drive(receiving, evict=0)).value == [(1, 7)]


def test_cancelling_a_sleeping_task_drops_its_timer() -> None:
    """The timer does not fire later, is not waited for, and is not handed out on replay."""

    @workflow
    async def sleeping() -> str:
        sleeper = asyncio.create_task(asyncio.sleep(3_600))
        await echo("first")
        sleeper.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeper
        await asyncio.sleep(1)
        return "end"

    for run in explore(sleeping, seeds=10, script=[[answers("echo")]]):
        assert run.journal[-1].at_ms - run.journal[0].at_ms < 3_600_000
        assert run.names().count("TimerFired") == 1


# --- sets, the garbage collector, background tasks -------------------------------------------------------------------


def test_iteration_over_sets_does_not_depend_on_the_hash_seed() -> None:
    """Fresh interpreters with other hash seeds and other addresses journal the same bytes."""
    digests = set()
    for seed in ("0", "1", "4242", "random"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{ROOT}"}
        done = subprocess.run(
            [sys.executable, "-m", "tests.workflow.hash_corpus"],
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


def test_sets_that_iterate_by_address_are_refused() -> None:
    """A set of coroutines or of bare futures has no order that replay could repeat; the error says what to pass."""

    @workflow
    async def unordered(what: str) -> None:
        items: Any = [echo(1), echo(2)] if what == "coroutines" else [asyncio.Future(), asyncio.Future()]
        try:
            asyncio.as_completed(set(items)) if what == "coroutines" else await asyncio.wait(frozenset(items))
        except UnorderedSet as error:
            log(str(error))
        for item in items:
            if what == "coroutines":
                item.close()

    for what in ("coroutines", "futures"):
        ((message,),) = exactly(drive(unordered, what)).trace
        assert what in message
        assert "test_traps.py:" in message
        assert "Pass a list" in message


def test_tasks_of_different_runs_hash_apart() -> None:
    """Thousands of executions share asyncio's table of tasks: equal hashes would make it quadratic."""

    @workflow
    async def hashing() -> list[int]:
        tasks = [asyncio.current_task(), asyncio.create_task(asyncio.sleep(0))]
        return [hash(task) for task in tasks]

    values = [drive(hashing, execution_id=f"x-{n}").value for n in range(50)]
    assert len({number for pair in values for number in pair}) == 100
    assert values[0] == drive(hashing, execution_id="x-0").value


def test_background_tasks_are_kept_alive() -> None:
    """A task that nobody refers to runs to its end, whenever the garbage collector runs."""

    @workflow
    async def forgetful() -> list[int]:
        seen: list[int] = []

        async def background(number: int) -> None:
            await asyncio.sleep(number)
            seen.append(await echo(number))

        for number in range(5):
            asyncio.create_task(background(number))  # noqa: RUF006 - that is the trap
        while len(seen) < 5:
            await asyncio.sleep(1)
            gc.collect(1)
        return seen

    with only_new_garbage():
        assert all(sorted(run.value) == [0, 1, 2, 3, 4] for run in explore(forgetful, seeds=8))


def test_an_exception_in_a_background_task_becomes_visible() -> None:
    """It does not fail the workflow, and it is not lost: the closing event holds it, however the run ends."""

    @workflow
    async def careless(how: str) -> str:
        async def background() -> None:
            await echo(1)
            raise ValueError("nobody looks")

        def callback() -> None:
            raise KeyError("in a callback")

        asyncio.create_task(background())  # noqa: RUF006 - that is the trap
        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(1_000)
        if how == "failed":
            raise RuntimeError("the workflow's own")
        if how == "cancelled":
            raise asyncio.CancelledError
        return "end"

    for how in ("completed", "failed", "cancelled"):
        for run in explore(careless, how, seeds=3, script=[[answers("echo")], [fires()]]):
            last = run.journal[-1].event
            assert isinstance(last, ev.ExecutionCompleted | ev.ExecutionFailed | ev.ExecutionCancelled)
            assert {(lost.type, lost.message) for lost in last.lost_failures} >= {
                ("ValueError", "nobody looks"),
                ("KeyError", "'in a callback'"),
            }


def test_exceptions_that_somebody_looked_at_are_not_called_lost() -> None:
    @workflow
    async def careful() -> str:
        task = asyncio.create_task(fails("seen"))
        await asyncio.wait([task])
        return type(task.exception()).__name__

    run = exactly(drive(careful))
    assert run.value == "StepFailed"
    assert run.close is not None
    assert run.close.lost_failures == ()


def test_a_callback_that_raises_what_its_task_raised_does_no_harm() -> None:
    """The idiom `add_done_callback(lambda task: task.result())`, also for a cancelled task."""

    @workflow
    async def checking() -> str:
        tasks = [asyncio.create_task(echo(1)), asyncio.create_task(fails("no"))]
        for task in tasks:
            task.add_done_callback(lambda done: done.result())
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.wait(tasks)
        return "end"

    run = exactly(drive(checking, evict=0))
    assert run.value == "end"
    assert run.close is not None
    assert [lost.type.rpartition(".")[2] for lost in run.close.lost_failures] == ["StepFailed"]


def test_an_exception_group_leaves_the_workflow_with_its_members() -> None:
    """What a task group raised is journaled member by member."""

    @workflow
    async def grouped() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(fails(str(number)))

    for run in explore(grouped, seeds=10):
        assert run.close is not None
        assert run.close.failure is not None
        members = run.close.failure.members
        assert members
        assert all(member.type.endswith("StepFailed") for member in members)


# --- time and idleness -----------------------------------------------------------------------------------------------


def test_call_at_in_the_past_is_call_soon() -> None:
    """It runs in this drain, in order with `call_soon`; nothing is journaled for it."""

    @workflow
    async def past() -> list[str]:
        event_loop = asyncio.get_running_loop()
        seen: list[str] = []
        event_loop.call_soon(seen.append, "soon")
        event_loop.call_at(event_loop.time() - 100, seen.append, "past")
        event_loop.call_later(0, seen.append, "now")
        event_loop.call_later(-1, seen.append, "negative")
        cancelled = event_loop.call_at(0, seen.append, "never")
        cancelled.cancel()
        await asyncio.sleep(0)
        return seen

    run = exactly(drive(past))
    assert run.value == ["soon", "past", "now", "negative"]
    assert [entry[1] for entry in run.issued] == ["close"]


@pytest.mark.parametrize("how", ["sleep", "callback", "timeouts"])
def test_a_spin_stalls_with_its_stack(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`while True: await asyncio.sleep(0)`, callbacks that reschedule themselves, timeouts of zero around steps."""

    @workflow
    async def spinning(how: str) -> None:
        event_loop = asyncio.get_running_loop()

        def again() -> None:
            event_loop.call_soon(again)

        if how == "callback":
            again()
            await echo("never answered")
        while True:
            if how == "timeouts":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0):
                        await echo("never in time")
            else:
                await asyncio.sleep(0)

    monkeypatch.setattr(loop, "MAX_HANDLES_PER_DRAIN", 6_000)
    monkeypatch.setattr(loop, "MAX_HANDLES_WITHOUT_COMMAND", 3_000)
    run = exactly(drive(spinning, how))
    assert isinstance(run.stalled, SpinError)
    assert "spinning" in str(run.stalled)
    assert "test_traps.py:" in str(run.stalled)


def test_many_events_without_a_command_are_no_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count begins anew with each event: a workflow may receive for ever."""

    @workflow
    async def receiving(count: int) -> int:
        return sum([await messages.receive("n", int) for _ in range(count)])

    monkeypatch.setattr(loop, "MAX_HANDLES_WITHOUT_COMMAND", 50)
    run = drive(receiving, 200, signals=[("n", 1)] * 200, evict=0)
    assert run.value == 200


@pytest.mark.parametrize("what", ["future", "event", "queue", "task"])
def test_an_await_that_nothing_resolves_stalls_with_its_stack(what: str) -> None:
    """Instead of hanging for ever: the message shows where it waits."""

    @workflow
    async def hanging(what: str) -> None:
        await echo(1)
        match what:
            case "future":
                await asyncio.get_running_loop().create_future()
            case "event":
                await asyncio.Event().wait()
            case "queue":
                await asyncio.Queue().get()
            case "task":
                await asyncio.gather(asyncio.Event().wait(), asyncio.Event().wait())

    run = exactly(drive(hanging, what))
    assert isinstance(run.stalled, DeadlockError)
    assert "hanging" in str(run.stalled)
    assert "test_traps.py:" in str(run.stalled)


def test_a_receive_that_gave_up_does_not_hide_a_deadlock() -> None:
    """Nobody waits for that message any more."""

    @workflow
    async def hanging() -> None:
        with contextlib.suppress(TimeoutError):
            await messages.receive("go", timeout=1)
        await asyncio.Event().wait()

    assert isinstance(exactly(drive(hanging)).stalled, DeadlockError)


def test_waiting_for_a_message_or_a_far_timer_is_no_deadlock() -> None:
    """A receiver, and a sleep without end, are things that can be woken: by people."""

    @workflow
    async def patient() -> str:
        await asyncio.wait([asyncio.create_task(asyncio.sleep(float("inf")))], timeout=1)
        return str(await messages.receive("go"))

    with pytest.raises(Stuck):
        drive(patient, evict=0)
    assert exactly(drive(patient, signals=[("go", "went")])).value == "went"


# --- eviction, finalisers, cleanup -----------------------------------------------------------------------------------


def test_eviction_runs_finally_blocks_that_await_without_effect() -> None:
    """Coroutines end at once; whatever their cleanup asks of the engine raises `Evicted`, and nothing is issued."""

    @workflow
    async def cleaning() -> str:
        async def one(number: int) -> None:
            try:
                await asyncio.sleep(100)
            except BaseException as error:
                log(number, "caught", isinstance(error, Evicted))
                raise
            finally:
                for attempt in range(3):
                    try:
                        await echo(number)
                        log(number, "went through")
                    except Evicted:
                        log(number, "refused", attempt)
                    await asyncio.shield(asyncio.sleep(0))

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(one(number))
        return "end"

    live = Live(cleaning, evict=0)
    live.commit([live.first, ev.ExecutionClaimed()])
    live.take()
    seqs = live.execution.machine.next_seq
    live.execution.evict()
    live.execution.evict()  # again is nothing
    heard = live.execution.heard  # type: ignore[attr-defined]
    assert [entry for entry in heard if entry[1] == "refused"][:3] == [
        (0, "refused", 0),
        (1, "refused", 0),
        (2, "refused", 0),
    ]
    assert not any("went through" in entry for entry in heard)
    assert live.execution.machine.next_seq == seqs
    assert all(entry[2] for entry in heard if entry[1] == "caught")


def test_everything_the_engine_offers_is_refused_during_eviction() -> None:
    """Steps, timers, children, messages, tasks, futures, callbacks."""
    refused: list[str] = []

    @workflow
    async def child() -> None: ...

    @workflow
    async def cleaning() -> None:
        host, event_loop = running_execution(), asyncio.get_running_loop()
        try:
            await asyncio.sleep(100)
        finally:
            asks: list[Any] = [
                lambda: echo(1).send(None),
                lambda: child().send(None),
                lambda: context.start_child(child).send(None),
                lambda: context.external("x").cancel().send(None),
                lambda: event_loop.call_soon(print),
                lambda: event_loop.call_later(1, print),
                event_loop.create_future,
                lambda: event_loop.create_task(asyncio.sleep(1)),
                lambda: host.start_timer(loop.Timer(1, print, (), event_loop), 1),
            ]
            for number, ask in enumerate(asks):
                try:
                    ask()
                except Evicted:
                    refused.append(str(number))

    live = Live(cleaning)
    live.commit([live.first, ev.ExecutionClaimed()])
    live.execution.evict()
    assert refused == [str(n) for n in range(9)]


def test_eviction_belongs_to_the_owning_thread() -> None:
    @workflow
    async def sleeping() -> None:
        await asyncio.sleep(1)

    live = Live(sleeping)
    live.commit([live.first, ev.ExecutionClaimed()])
    raised: list[BaseException] = []

    def elsewhere() -> None:
        try:
            live.execution.evict()
        except AssertionError as error:
            raised.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert raised
    live.execution.evict()


def test_a_stubborn_coroutine_cannot_stop_an_eviction(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that swallows everything for ever is given up on."""

    @workflow
    async def stubborn() -> None:
        while True:
            with contextlib.suppress(BaseException):
                await asyncio.sleep(1)
            with contextlib.suppress(BaseException):
                await _Bare()

    class _Bare:
        def __await__(self) -> Any:
            yield

    live = Live(stubborn)
    live.commit([live.first, ev.ExecutionClaimed()])
    live.execution.evict()
    assert live.execution.loop.is_closed()
    told_by_python: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told_by_python.append)
    del live
    gc.collect()
    assert "ignored GeneratorExit" in str(told_by_python[0].exc_value)


def test_suspended_coroutines_are_not_left_to_the_garbage_collector() -> None:
    """After an eviction nothing of the execution is left that could wake up inside another one."""

    @workflow
    async def nested() -> None:
        async def numbers(name: str) -> AsyncIterator[int]:
            try:
                for number in range(5):
                    yield await echo([name, number])
            finally:
                log(name, "closing")
                await echo([name, "closing"])

        async def consume(name: str) -> None:
            async for number in numbers(name):
                log(name, number)
                if number == 1 and name == "b":
                    break
            await asyncio.sleep(100)

        await asyncio.gather(consume("a"), consume("b"), consume("c"))

    @workflow
    async def innocent() -> list[str]:
        gc.collect()
        return [command[1] for command in running_execution().issued]  # type: ignore[attr-defined]

    with only_new_garbage():
        for position in range(2, 9):
            live = Live(nested, seed=position, evict=0, flaky=0)
            live.commit([live.first, ev.ExecutionClaimed()])
            for _ in range(position):
                live.take()
                live.commit([live._any_event() or live.fire()])
            live.execution.evict()
            heard = live.execution.heard  # type: ignore[attr-defined]
            del live
            assert drive(innocent).value == []
            assert len(heard) == len(set(heard))


def test_async_generators_that_are_left_early_are_not_finalised_by_chance() -> None:
    """The collector never closes one in the middle of a run; those that were not closed end with the execution."""

    @workflow
    async def leaving() -> list[str]:
        seen: list[str] = []

        async def numbers() -> AsyncIterator[int]:
            try:
                yield 1
                yield 2
            finally:
                seen.append("closed")
                log("closed")

        async for _ in numbers():
            break
        gc.collect()
        await echo(1)
        gc.collect()
        return seen

    with only_new_garbage():
        for run in explore(leaving, seeds=5):
            assert run.value == []
            assert ("closed",) in run.heard


def test_async_generators_begun_during_an_eviction_end_with_it() -> None:
    """The engine's own loop never gets to finalise one: it would run the user's cleanup, and its steps, for real."""
    effects: list[str] = []

    @step
    async def effect(what: str) -> None:
        effects.append(what)

    @workflow
    async def cleaning() -> None:
        async def late() -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                log("closed")
                await effect("cleanup")

        try:
            await asyncio.sleep(1)
        finally:
            await anext(late())

    async def engine() -> list[Any]:
        live = Live(cleaning)
        live.commit([live.first, ev.ExecutionClaimed()])
        live.execution.evict()
        heard = list(live.execution.heard)  # type: ignore[attr-defined]
        del live
        gc.collect(1)
        for _ in range(5):
            await asyncio.sleep(0)
        return heard

    assert asyncio.run(engine()) == [("closed",)]
    assert effects == []


def test_many_async_generators_cost_no_memory_once_they_are_exhausted() -> None:
    @workflow
    async def generating() -> int:
        async def one(number: int) -> AsyncIterator[int]:
            yield number

        total = 0
        for number in range(1_000):
            async for value in one(number):
                total += value
        log(len(running_execution().loop._asyncgens))
        return total

    run = exactly(drive(generating))
    assert run.value == 499_500
    assert run.trace[0][0] < 100


def test_an_exception_in_cleanup_after_cancellation_fails_the_run() -> None:
    """The cleanup's exception wins, with the cancellation as its context, as in Python."""

    @workflow
    async def failing_cleanup() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            await echo("cleanup")
            raise ValueError("cleanup failed")

    runs = explore(failing_cleanup, seeds=15, cancel=True)
    assert outcomes(runs) <= {"('failed', 'ValueError', 'cleanup failed')", "('cancelled', 'asked to')"}
    assert "('failed', 'ValueError', 'cleanup failed')" in outcomes(runs)


def test_a_second_cancellation_interrupts_the_cleanup() -> None:
    @workflow
    async def cleaning() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            await echo("cleanup")
            log("cleaned")

    run = exactly(drive(cleaning, script=[[cancels("one")], [cancels("two")]]))
    assert run.outcome == ("cancelled", "two")
    assert run.trace == []


# --- size ------------------------------------------------------------------------------------------------------------


def test_a_deep_await_chain_works_and_can_be_evicted() -> None:
    """500 coroutines that await each other: resumed, cancelled, evicted."""

    @workflow
    async def deep(depth: int) -> int:
        async def level(left: int) -> int:
            if left == 0:
                await asyncio.sleep(1)
                return int(await echo(0))
            return await level(left - 1) + 1

        return await level(depth)

    depth = 500 if sys.gettrace() is None else 200  # whoever traces needs some of the stack
    for run in explore(deep, depth, seeds=3, evict=0.5):
        assert run.value == depth
    assert exactly(drive(deep, depth, script=[[cancels()]])).outcome[0] == "cancelled"


def test_too_deep_a_chain_is_pythons_recursion_error() -> None:
    """The engine adds no limit of its own; the failure is the workflow's, and the engine stays whole."""

    @workflow
    async def bottomless() -> None:
        async def level() -> None:
            await level()

        await level()

    run = in_a_thread(lambda: drive(bottomless))
    assert run.outcome[:2] == ("failed", "RecursionError")
    assert drive(echo_twice).value == [1, 2]


@workflow
async def echo_twice() -> list[int]:
    return [await echo(1), await echo(2)]


def test_a_long_chain_of_tasks_waiting_for_each_other_unwinds() -> None:
    """2,000 tasks, each awaiting the next: completion goes through callbacks, not through recursion."""

    @workflow
    async def chained() -> int:
        async def link(following: asyncio.Task[int] | None) -> int:
            return int(await echo(0)) if following is None else await following + 1

        task = None
        for _ in range(2_000):
            task = asyncio.create_task(link(task))
        assert task is not None
        return await task

    assert exactly(drive(chained, evict=0)).value == 1_999


def test_ten_thousand_tasks_at_once() -> None:
    """Each with a step and a timer; memory of finished ones is given back; the journal replays."""

    @workflow
    async def crowd(count: int) -> int:
        async def one(number: int) -> int:
            await asyncio.sleep(number % 7)
            return int(await echo(number))

        found = await asyncio.gather(*(one(n) for n in range(count)))
        return sum(found)

    run = drive(crowd, 10_000, evict=0, flaky=0, batch=2_000, count_opens=False)
    assert run.value == sum(range(10_000))
    again = replay(crowd, run.journal)
    assert again.is_closed
    assert len(again.loop._tasks) < 5_000
    again.evict()


# --- values ----------------------------------------------------------------------------------------------------------


def test_a_step_that_mutates_its_arguments_changes_nothing_in_the_workflow() -> None:
    """It works on data decoded from the journal's encoding, live too."""

    @step
    async def greedy(items: list[int]) -> int:
        items.append(99)
        items.clear()
        return 0

    @workflow
    async def keeping() -> list[int]:
        items = [1, 2]
        await greedy(items)
        await greedy(items)
        return items

    assert outcomes(explore(keeping, seeds=10)) == {"[1, 2]"}


def test_a_value_that_the_workflow_mutates_after_passing_it_reaches_the_step_as_it_was() -> None:
    """Arguments are encoded when the step is issued; results are fresh objects each time."""

    @workflow
    async def mutating() -> list[Any]:
        items = [1]
        first = asyncio.create_task(echo(items))
        await asyncio.sleep(0)
        items.append(2)
        second = asyncio.create_task(echo(items))
        await asyncio.sleep(0)
        items.append(3)
        one, two = await first, await second
        one.append("mine")
        return [one, two, items]

    assert outcomes(explore(mutating, seeds=20)) == {str([[1, "mine"], [1, 2], [1, 2, 3]])}


def test_live_code_sees_values_as_replay_does() -> None:
    """What a step returned is decoded from its bytes: a tuple declared as a list is a list, live as in replay."""

    @step
    async def pair() -> list[int]:
        return (1, 2)  # type: ignore[return-value]

    @workflow
    async def typed() -> str:
        return type(await pair()).__name__

    assert outcomes(explore(typed, seeds=3)) == {"list"}


def test_a_value_that_cannot_be_encoded_is_refused_before_anything_is_issued() -> None:
    @workflow
    async def refused() -> str:
        try:
            await echo(object())
        except EncodeError as error:
            return str(error)
        return "went through"

    run = exactly(drive(refused))
    assert "echo" in run.value
    assert [entry[1] for entry in run.issued] == ["close"]


def test_a_result_that_does_not_decode_stalls() -> None:
    """The code's type no longer fits what was recorded: nothing is lost, the run waits for a fix."""

    @workflow
    async def before() -> int:
        return int(await echo("text"))

    @step(name="echo")
    async def echo_int(value: Any) -> int:
        return int(value)

    @workflow(name="before")
    async def after() -> int:
        return await echo_int("text")

    live = Live(after, script=[[answers("echo", value=1)]], evict=0)
    live.commit([live.first, ev.ExecutionClaimed()])
    live.take()
    event = ev.StepCompleted(seq=1, name="echo", result=ev.Payload(b"\xa4text"))
    with pytest.raises(DecodeError, match="echo"):
        live.commit([event])
    live.execution.evict()
    assert before.name == "test_a_result_that_does_not_decode_stalls.before"


def test_a_signal_that_does_not_decode_stalls_nobody_and_is_not_lost() -> None:
    """The journal says which, and why; the receiver goes on waiting."""

    @workflow
    async def typed() -> int:
        return await messages.receive("n", int)

    for run in explore(typed, signals=[("n", "text"), ("n", 7)]):
        assert run.value == 7
        dropped = [each.event for each in run.journal if isinstance(each.event, ev.MessageDropped)]
        assert [(each.message_id, each.name) for each in dropped] == [("m-1", "n")]
        assert "Expected `int`, got `str`" in dropped[0].failure.message


def test_a_result_that_does_not_encode_stalls() -> None:
    @workflow
    async def wrong() -> int:
        await echo(1)
        return "text"  # type: ignore[return-value]

    run = drive(wrong)
    assert isinstance(run.stalled, EncodeError)
    replays_alike(run)


# --- the world is refused --------------------------------------------------------------------------------------------

WORLD = {
    "to_thread": lambda: asyncio.to_thread(print),
    "open_connection": lambda: asyncio.open_connection("127.0.0.1", 9),
    "start_server": lambda: asyncio.start_server(print, "127.0.0.1", 9),
    "create_subprocess_exec": lambda: asyncio.create_subprocess_exec("true"),
    "create_subprocess_shell": lambda: asyncio.create_subprocess_shell("true"),
    "run_in_executor": lambda: asyncio.get_running_loop().run_in_executor(None, print),
    "add_signal_handler": lambda: asyncio.get_running_loop().add_signal_handler(15, print),
    "add_reader": lambda: asyncio.get_running_loop().add_reader(0, print),
    "getaddrinfo": lambda: asyncio.get_running_loop().getaddrinfo("localhost", 9),
    "sock_recv": lambda: asyncio.get_running_loop().sock_recv(None, 1),  # type: ignore[arg-type]
    "run_until_complete": lambda: asyncio.get_running_loop().run_until_complete(None),  # type: ignore[arg-type]
    "run_forever": lambda: asyncio.get_running_loop().run_forever(),
    "stop": lambda: asyncio.get_running_loop().stop(),
    "close": lambda: asyncio.get_running_loop().close(),
    "set_debug": lambda: asyncio.get_running_loop().set_debug(enabled=True),
    "set_exception_handler": lambda: asyncio.get_running_loop().set_exception_handler(None),
}


@pytest.mark.parametrize("what", WORLD)
def test_what_touches_the_world_is_refused_with_its_line(what: str) -> None:
    """Sockets, threads, processes, signals: the error names file and line and says "move this into a step"."""

    @workflow
    async def touching(what: str) -> str:
        try:
            found = WORLD[what]()
            if asyncio.iscoroutine(found) or asyncio.isfuture(found):
                await found
        except NotDeterministic as error:
            return str(error)
        return "went through"

    message = exactly(drive(touching, what)).value
    assert "Move this into a step" in message
    assert "(test_traps.py:" in message


def test_every_method_of_a_loop_is_either_there_or_refused() -> None:
    """No bare `NotImplementedError` for whatever a library may call."""
    abstract = asyncio.AbstractEventLoop
    for name in dir(abstract):
        if not name.startswith("__"):
            assert getattr(loop.DeterministicLoop, name) is not getattr(abstract, name), name


def test_other_threads_cannot_call_into_a_workflow() -> None:
    """Their timing would decide the order of things."""

    @workflow
    async def waiting() -> list[str]:
        event_loop = asyncio.get_running_loop()
        found: list[str] = []

        def elsewhere() -> None:
            try:
                event_loop.call_soon_threadsafe(print)
            except NotDeterministic as error:
                found.append(str(error))

        ended = threading.Event()
        _thread.start_new_thread(lambda: (elsewhere(), ended.set()), ())  # `Thread.start` is refused here
        assert ended.wait(10)
        event_loop.call_soon_threadsafe(found.append, "own thread")
        await asyncio.sleep(0)
        return found

    message, own = drive(waiting).value
    assert "from another thread" in message
    assert own == "own thread"


def test_nested_runs_are_refused_as_asyncio_does() -> None:
    @workflow
    async def nesting() -> str:
        coro = asyncio.sleep(0)
        try:
            asyncio.run(coro)
        except RuntimeError as error:
            coro.close()
            return str(error)
        return "went through"

    assert "running event loop" in drive(nesting).value


def test_system_exit_fails_the_workflow_and_not_the_process() -> None:
    @workflow
    async def leaving(where: str) -> None:
        def callback() -> None:
            raise SystemExit(3)

        if where == "callback":
            asyncio.get_running_loop().call_soon(callback)
            await echo(1)
            return
        await echo(1)
        sys.exit(4)

    assert exactly(drive(leaving, "main")).outcome[:2] == ("failed", "SystemExit")
    assert exactly(drive(leaving, "callback")).outcome[0] == "completed"


def test_keyboard_interrupt_reaches_whoever_runs_the_engine() -> None:
    @workflow
    async def interrupted() -> None:
        raise KeyboardInterrupt

    live = Live(interrupted)
    with pytest.raises(KeyboardInterrupt):
        live.commit([live.first, ev.ExecutionClaimed()])
    live.execution.evict()


def test_time_passes_only_with_events() -> None:
    """Within one drain the clock stands still; a signal that comes later moves it."""

    @workflow
    async def watching() -> list[float]:
        event_loop = asyncio.get_running_loop()
        begin = event_loop.time()
        for _ in range(1_000):
            await asyncio.sleep(0)
        still = event_loop.time() - begin
        await messages.receive("clock")
        return [still, round(event_loop.time() - begin, 3)]

    assert exactly(drive(watching, script=[[passes(3.5)]])).value == [0.0, 3.5]
