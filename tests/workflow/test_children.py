"""Children and messages to other executions: begun, answered, cancelled, at every interleaving."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.workflow.harness import (
    Live,
    Run,
    begins,
    cancels,
    child_ends,
    delivers,
    drive,
    echo,
    explore,
    fires,
    log,
    outcomes,
    replays_alike,
    signals,
)

from perdure.core import events as ev
from perdure.core.errors import (
    ChildNotStarted,
    DecodeError,
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionTerminated,
    MessageNotDelivered,
)
from perdure.core.identity import derived_id
from perdure.workflow import context, messages
from perdure.workflow.definitions import workflow


@workflow
async def doubled(number: int) -> int:
    """A child with a step and a sleep of its own."""
    await asyncio.sleep(1)
    return 2 * int(await echo(number))


@workflow
async def broken(number: int) -> int:
    """A child that fails."""
    raise ValueError(f"broken {number}")


def exactly(run: Run) -> Run:
    replays_alike(run)
    return run


def test_awaiting_a_workflow_runs_it_as_a_child() -> None:
    """Its result is typed; its failure arrives as `ExecutionFailed` with the child's own type and message."""

    @workflow
    async def parent() -> list[Any]:
        found: list[Any] = list(await asyncio.gather(*(doubled(n) for n in range(4))))
        try:
            await broken(7)
        except ExecutionFailed as error:
            found.append(f"{error.failure.type}: {error.failure.message}")
        return found

    assert outcomes(explore(parent)) == {str([0, 2, 4, 6, "ValueError: broken 7"])}


def test_children_have_ids_of_their_own_or_the_one_given() -> None:
    """Derived from execution, run and number: the same on replay, after every crash."""

    @workflow
    async def parent() -> list[str]:
        first = await context.start_child(doubled, 1)
        second = await context.start_child(doubled, number=2, id="my-child", on_parent_close="abandon")
        log(await first.result(), await second.result())
        return [first.id, second.id]

    for run in explore(parent, seeds=10):
        assert run.value == [derived_id("child", "x-1", run.journal[0].event.run, 1), "my-child"]  # type: ignore[union-attr]
        assert run.trace == [(2, 4)]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("failed", ExecutionFailed),
        ("cancelled", ExecutionCancelled),
        ("terminated", ExecutionTerminated),
        ("refused", ChildNotStarted),
    ],
)
def test_every_end_of_a_child_is_an_exception_of_its_own(status: str, error: type[Exception]) -> None:
    @workflow
    async def parent() -> str:
        handle = await context.start_child(doubled, 1)
        found = []
        for _ in range(2):  # asked twice, told twice
            try:
                await handle.result()
            except error as problem:
                found.append(type(problem).__name__)
        return " ".join(found)

    run = exactly(drive(parent, script=[[begins()], [child_ends(status)]], evict=0))
    assert run.value == f"{error.__name__} {error.__name__}"
    assert run.close is not None
    assert run.close.lost_failures == ()


def test_a_childs_end_that_nobody_asks_for_is_no_lost_failure() -> None:
    """Whoever starts a child and forgets it does not care."""

    @workflow
    async def parent() -> str:
        await context.start_child(doubled, 1, on_parent_close="abandon")
        await asyncio.sleep(1_000)
        return "end"

    run = exactly(drive(parent, script=[[begins()], [child_ends("failed")]], evict=0))
    assert run.close is not None
    assert run.close.lost_failures == ()


def test_cancelling_the_await_of_a_child_asks_it_to_cancel() -> None:
    """Before it is taken it is never started; once begun it gets a cancel request; when done nothing happens."""

    @workflow
    async def parent() -> str:
        try:
            async with asyncio.timeout(5):
                return f"got {await doubled(1)}"
        except TimeoutError:
            await asyncio.sleep(100)
            return "gave up"

    runs = explore(parent, seeds=60)
    assert outcomes(runs) == {"got 2", "gave up"}
    for run in runs:
        messages = [event for event in run.issued if event[1] == "message"]
        begun = "ChildInitiated" in run.names()
        if run.value == "gave up":
            assert [message[2] for message in messages] == (["cancel"] if begun else [])
        else:
            assert messages == []


def test_a_child_that_begins_in_the_commit_that_cancels_it_is_asked_to_cancel() -> None:
    """Its start is durable, so it exists: the message is issued when that is fed, live as in replay."""

    @workflow
    async def parent() -> str:
        try:
            async with asyncio.timeout(5):
                await doubled(1)
        except TimeoutError:
            await messages.receive("go")
        return "end"

    script = [[fires(), begins()], [begins()], [delivers()], [child_ends("cancelled")], [signals("go")]]
    run = exactly(drive(parent, script=script, evict=0))
    assert run.outcome[0] == "completed"
    assert [entry[1:3] for entry in run.issued if entry[1] == "message"] == [("message", "cancel")]


def test_cancelling_the_wait_for_a_handle_leaves_the_child_alone() -> None:
    @workflow
    async def parent() -> list[Any]:
        handle = await context.start_child(doubled, 3)
        try:
            async with asyncio.timeout(1):
                first: Any = await handle.result()
        except TimeoutError:
            first = "late"
        return [first, await handle.result()]

    runs = explore(parent, seeds=40)
    assert outcomes(runs) == {"[6, 6]", "['late', 6]"}
    assert all("MessageSent" not in run.names() for run in runs)


@pytest.mark.parametrize(
    ("on_cancel", "asked", "ends_with"),
    [("leave", [], "TimerFired"), ("cancel", ["cancel"], "TimerFired"), ("wait", ["cancel"], "ChildClosed")],
)
def test_what_cancelling_the_wait_for_a_child_means_for_it(on_cancel: Any, asked: list[str], ends_with: str) -> None:
    """It is left alone, asked to cancel, or asked and waited for; in the end the await raises as asyncio wants it."""

    @workflow
    async def parent() -> list[str]:
        handle = await context.start_child(doubled, 1)
        try:
            async with asyncio.timeout(5):
                await handle.result(on_cancel=on_cancel)
        except TimeoutError:
            log("given up")
        await asyncio.sleep(100)
        return ["end"]

    script = [
        [begins()],
        [fires()],
        *([[begins()], [delivers()]] if asked else []),
        [child_ends("cancelled")],
        [fires()],
    ]
    run = exactly(drive(parent, script=script, evict=0))
    assert run.outcome[0] == "completed"
    assert [entry[2] for entry in run.issued if entry[1] == "message"] == asked
    assert run.names()[run.traced.index(1)] == ends_with


def test_a_second_cancellation_ends_the_wait_for_the_childs_end() -> None:
    @workflow
    async def parent() -> str:
        handle = await context.start_child(doubled, 1)
        waiting = asyncio.create_task(handle.result(on_cancel="wait"))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.sleep(1)
        found = [waiting.done()]
        waiting.cancel()
        await asyncio.sleep(1)
        return f"{found[0]} {waiting.cancelled()}"

    run = exactly(drive(parent, script=[[begins()], [fires()], [begins(), fires()], [fires()]], evict=0))
    assert run.value == "False True"


def test_a_cancelled_parent_asks_its_child_to_cancel_and_may_wait_for_it() -> None:
    @workflow
    async def parent() -> None:
        child = asyncio.create_task(doubled(1))
        try:
            await asyncio.shield(child)
        except asyncio.CancelledError:
            log("cancelled")
            child.cancel()
            await asyncio.wait([child])
            log("child's await ended")
            raise

    run = exactly(drive(parent, script=[[begins()], [cancels("enough")]], evict=0))
    assert run.outcome == ("cancelled", "enough")
    assert run.trace == [("cancelled",), ("child's await ended",)]


def test_signals_and_cancel_requests_to_other_executions() -> None:
    """They return when they have arrived; to nobody, they raise."""

    @workflow
    async def sender() -> list[str]:
        found: list[str] = []
        child = await context.start_child(doubled, 1, id="child-1", on_parent_close="cancel")
        other, nobody = context.external("x-2"), context.external("nobody")

        async def tell(name: str, message: Any) -> None:
            try:
                await message
                found.append(name)
            except MessageNotDelivered as error:
                found.append(f"{name}: {error.fields['reason']}")

        await asyncio.gather(
            tell("child", child.signal("go", {"n": 1})),
            tell("cancel child", child.cancel("enough")),
            tell("other", other.signal("go")),
            tell("cancel other", other.cancel()),
            tell("nobody", nobody.signal("go", 1)),
        )
        return sorted(found)

    runs = explore(sender)
    assert outcomes(runs) == {
        str(["cancel child", "cancel other", "child", "nobody: no such execution", "other"]),
    }
    for run in runs:
        sent = [recorded.event for recorded in run.journal if isinstance(recorded.event, ev.MessageSent)]
        assert {(event.kind, event.receiver) for event in sent} == {
            ("signal", "child-1"),
            ("cancel", "child-1"),
            ("signal", "x-2"),
            ("cancel", "x-2"),
            ("signal", "nobody"),
        }
        assert all(event.location.startswith("test_children.py:") for event in sent)


def test_a_message_whose_await_is_cancelled_may_still_be_sent() -> None:
    """Until it is written it is dropped; after that it goes its way and its answer is ignored."""

    @workflow
    async def impatient() -> str:
        try:
            async with asyncio.timeout(1):
                await context.external("x-2").signal("go")
                return "arrived"
        except TimeoutError:
            await asyncio.sleep(50)
            return "gave up"

    runs = explore(impatient, seeds=60)
    assert outcomes(runs) == {"arrived", "gave up"}
    sent = {("MessageSent" in run.names(), run.value) for run in runs}
    assert sent == {(True, "arrived"), (True, "gave up"), (False, "gave up")}


def test_what_it_waits_for_can_be_told_to_a_person() -> None:
    """Signals, children and timers; a long list is cut."""

    @workflow
    async def waiting() -> None:
        for number in range(5):
            await context.start_child(doubled, number, id=f"child-{number}")
        async with asyncio.timeout(50):
            await asyncio.gather(messages.receive("approval"), messages.receive("hint"))

    live = Live(waiting)
    live.commit([live.first, ev.ExecutionClaimed()])
    for _ in range(5):
        live.take()
        live.commit([begins()(live)])
    told = live.execution.waits_for()
    assert told == "signal approval, signal hint, child child-0, child child-1, child child-2, 2 more children, timer"
    live.execution.evict()


def test_a_child_result_that_does_not_decode_stalls() -> None:
    @workflow(name="doubled")
    async def now_text(number: int) -> list[str]:
        return []

    @workflow
    async def parent() -> Any:
        return await now_text(1)

    live = Live(parent)
    live.commit([live.first, ev.ExecutionClaimed()])
    live.take()
    begun = begins()(live)
    assert isinstance(begun, ev.ChildInitiated)
    live.commit([begun])
    closed = ev.ChildClosed(seq=1, execution=begun.execution, status="completed", result=ev.Payload(b"\x02"))
    with pytest.raises(DecodeError, match="the result of child"):
        live.commit([closed])
    live.execution.evict()
