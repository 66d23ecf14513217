"""A message at every moment of an execution's life: before and after each call of the store, until the last is reached.

What was acknowledged is received exactly once, or it is a dead letter; an update is answered exactly once. Whatever
happens at that moment: the close, a cancellation, an eviction, the beginning of the next run.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure.core import events as ev
from perdure.core.format import encode_event
from perdure.runtime.updates import request_of
from perdure.store.protocol import Mail
from perdure.testing.shapes import act
from perdure.workflow.definitions import Workflow, step, workflow
from perdure.workflow.values import Arguments

sys.path.insert(0, str(Path(__file__).parent))

from world import Small

MOST_MOMENTS = 400
LONG_S = 200


@step
async def touch(tag: str) -> int:
    return await act(tag, 5, 0)


@workflow
async def brief() -> list[Any]:
    """Handlers and a few steps; it does not wait for anybody."""
    got: list[Any] = []

    @perdure.on_signal
    def note(n: int) -> None:
        got.append(n)

    @perdure.on_update
    async def add(n: int) -> int:
        await touch(f"add {n}")
        got.append(n)
        return len(got)

    await touch("a")
    await asyncio.sleep(1)
    await touch("b")
    return got


@workflow
async def receiver() -> list[Any]:
    """No handler: what it does not receive in time is left."""
    await touch("a")
    got: list[Any] = []
    try:
        got.append(await perdure.receive("note", int, timeout=1))
    except TimeoutError:
        await touch("nobody")
    return got


@workflow
async def cautious() -> list[Any]:
    """Cancelled, it tells what it has."""
    got: list[Any] = []
    perdure.on_signal("note")(got.append)

    @perdure.on_update
    async def add(n: int) -> int:
        got.append(n)
        await asyncio.sleep(2)
        return n

    try:
        await asyncio.sleep(1_000)
    except asyncio.CancelledError:
        await touch("tidy")
    return got


@workflow
async def relay(left: int, got: list[Any]) -> list[Any]:
    """Each run hands on what it has."""
    got = list(got)
    perdure.on_signal("note")(got.append)

    @perdure.on_update
    async def add(n: int) -> int:
        await touch(f"add {n}")
        got.append(n)
        return len(got)

    await touch(f"run {left}")
    await perdure.all_handlers_finished()
    if left:
        perdure.continue_as_new(left - 1, got)
    return got


@workflow(unfinished_handlers="abandon")
async def hasty(left: int, got: list[Any]) -> list[Any]:
    """As `relay`, but waits for no handler: what is not answered begins anew in the next run."""
    got = list(got)

    @perdure.on_update
    async def add(n: int) -> int:
        await touch(f"add {n}")
        got.append(n)
        return len(got)

    await touch(f"run {left}")
    if left:
        perdure.continue_as_new(left - 1, got)
    return got


class Moments:
    """Does something once, at the n-th moment before or after a store call of a worker."""

    def __init__(self, nth: int, act: Callable[[], None]) -> None:
        self.nth = nth
        self.act = act
        self.count = 0

    def before(self, process: str, call: str) -> None:  # noqa: ARG002 - the plan's
        if call in ("changes", "next_wake_ms", "renew", "deliver"):
            return
        self.count += 1
        if self.count == self.nth:
            self.act()

    after = before


def moments(make: Callable[[int], tuple[Small, Callable[[], None]]]) -> Iterator[Small]:
    """A world for each moment, after it has come to its end."""
    for nth in range(1, MOST_MOMENTS):
        world, act = make(nth)
        plan = world.plan = Moments(nth, act)
        for worker in world.workers:
            worker.store.plan = plan
        world.run(LONG_S)
        assert not world.stalls
        if plan.count < nth:
            assert nth > 10
            return
        assert world.row().closed_at_ms is not None
        yield world
    raise AssertionError("it does not end")


class World(Small):
    """Its ledger knows nothing of runs that follow each other."""

    def _committed(self, name: str, batch: Any) -> None:  # noqa: ARG002 - as there
        self.batches.append(batch)


def begun(shape: Workflow[..., Any], arguments: tuple[Any, ...], resting: int) -> Small:
    world = World(shape, resting=resting)
    world.worker()
    world.start(shape, *arguments)
    return world


def all_runs(world: Small) -> list[ev.Recorded]:
    runs = world.store.runs(world.key("x"), None, 100)
    return [each for run in reversed(runs) for each in world.store.load(world.key("x"), run.run, 0, 1_000)]


SHAPES: dict[str, tuple[Workflow[..., Any], tuple[Any, ...]]] = {
    "brief": (brief, ()),
    "receiver": (receiver, ()),
    "relay": (relay, (2, [])),
}


@pytest.mark.parametrize("resting", [100, 0], ids=["kept", "evicted"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_signal_at_any_moment_is_received_once_or_is_a_dead_letter(name: str, resting: int) -> None:
    shape, arguments = SHAPES[name]
    answers: list[str] = []

    def make(nth: int) -> tuple[Small, Callable[[], None]]:
        world = begun(shape, arguments, resting)
        return world, lambda: answers.append(world.signal("x", "note", 7, message_id="seven").status)

    fates = []
    for world in moments(make):
        received = world.result().count(7)
        dead = [each.message_id for each in world.store.dead_letters(world.key("x"), 9)].count("seven")
        assert received + dead == (answers[-1] == "accepted"), answers[-1]
        closing = world.journal()[-1].event
        journaled = sum(getattr(each.event, "message_id", "") == "seven" for each in world.journal())
        assert closing.unreceived == (journaled if dead else 0)  # type: ignore[union-attr]
        fates.append((received, dead))
    assert {(1, 0), (0, 0)} <= set(fates) | {(0, 0)}
    assert (0, 1) in fates, "no moment was that of the close"


def update(world: Small, update_id: str, n: int) -> str:
    mail = request_of(world.key("x"), "add", update_id, Arguments.encode_by_position((n,), "it"))
    return world.store.deposit([], [mail])[0].status


@pytest.mark.parametrize("resting", [100, 0], ids=["kept", "evicted"])
@pytest.mark.parametrize("name", ["brief", "cautious", "relay", "hasty"])
def test_an_update_at_any_moment_is_answered_once(name: str, resting: int) -> None:
    shape: Workflow[..., Any] = {"brief": brief, "cautious": cautious, "relay": relay, "hasty": hasty}[name]
    statuses: list[str] = []

    def make(nth: int) -> tuple[Small, Callable[[], None]]:
        world = begun(shape, (2, []) if shape in (relay, hasty) else (), resting)
        if shape is cautious:
            request = ev.CancelRequested("c", "enough")
            world.store.deposit([], [Mail(world.key("x"), "c", request)])
        return world, lambda: statuses.append(update(world, "u", 7))

    fates = []
    for world in moments(make):
        row = world.store.update(world.key("x"), "u")
        journal = [each.event for each in all_runs(world)]
        accepted = [each for each in journal if isinstance(each, ev.UpdateAccepted)]
        completed = [each for each in journal if isinstance(each, ev.UpdateCompleted)]
        if statuses[-1] != "accepted":
            assert (row, accepted) == (None, [])
            continue
        assert row is not None
        assert row.status in ("completed", "closed")
        assert len(completed) == (row.status == "completed")
        assert len(accepted) >= len(completed)
        assert len(accepted) <= 1 or shape is hasty
        assert world.result().count(7) == (row.status == "completed")
        assert not world.store.inbox(world.key("x"), 9)
        if row.status == "completed":
            found = world.store.load(world.key("x"), row.run, row.position, 1)[0].event
            assert encode_event(found) == encode_event(completed[0])
        else:
            closing = world.journal()[-1].event
            unfinished = [each.message_id for each in closing.unfinished]  # type: ignore[union-attr]
            begun_here = any(isinstance(each.event, ev.UpdateAccepted) for each in world.journal())
            assert unfinished == (["u"] if begun_here else [])
        fates.append(row.status)
    assert {"completed", "closed"} <= set(fates)


def test_two_updates_that_are_valid_alone_and_not_together_are_never_both_accepted() -> None:
    """Whatever moment lies between them, and in whichever order they come."""

    @workflow(name="one place")
    async def one_place() -> list[int]:
        taken: list[int] = []

        def free(n: int) -> None:
            if taken:
                raise ValueError("taken")

        @perdure.on_update(validator=free)
        async def add(n: int) -> int:
            taken.append(n)
            await touch("book")
            return n

        await asyncio.sleep(20)
        return taken

    def make(nth: int) -> tuple[Small, Callable[[], None]]:
        world = begun(one_place, (), 100)
        world.run(1)
        update(world, "first", 1)

        def second() -> None:
            for i in range(3):
                update(world, f"second {i}", 2 + i)

        return world, second

    for world in moments(make):
        rows = [world.store.update(world.key("x"), name) for name in ("first", "second 0", "second 1", "second 2")]
        statuses = [each.status for each in rows if each is not None]
        assert statuses.count("completed") == 1
        assert len(world.result()) == 1
        journal = [each.event for each in world.journal()]
        assert sum(isinstance(each, ev.UpdateAccepted) for each in journal) == 1
        refused = [each for each in rows if each is not None and each.status == "rejected"]
        assert all(each.failure is not None and each.failure.message == "taken" for each in refused)


def test_an_accepted_update_is_the_first_event_of_its_commit_and_no_other_is_in_it() -> None:
    world = begun(brief, (), 100)
    for n in range(4):
        update(world, f"u{n}", n)
        world.signal("x", "note", 100 + n)
    world.run(LONG_S)
    with_updates = [
        [type(new.event).__name__ for new in batch.events]
        for batch in world.batches
        if any(isinstance(new.event, ev.UpdateAccepted) for new in batch.events)
    ]
    assert len(with_updates) == 4
    assert all(names.index("UpdateAccepted") == 0 and names.count("UpdateAccepted") == 1 for names in with_updates)


def test_messages_of_one_sender_are_taken_in_the_order_of_sending_whatever_their_kind() -> None:
    """A signal before an update is handled before it is judged; one after it, afterwards."""

    @workflow(name="ordered")
    async def ordered() -> list[int]:
        seen: list[int] = []

        def in_turn(n: int) -> None:
            if len(seen) != n:
                raise ValueError(f"{len(seen)} before {n}")

        perdure.on_signal("note")(seen.append)

        @perdure.on_update(validator=in_turn)
        def add(n: int) -> None:
            seen.append(n)

        await asyncio.sleep(20)
        return seen

    world = begun(ordered, (), 100)
    for n in range(40):
        if n % 3:
            update(world, f"u{n}", n)
        else:
            world.signal("x", "note", n)
    world.run(LONG_S)
    assert world.result() == list(range(40))


def test_a_pause_keeps_updates_waiting_and_answers_them_afterwards() -> None:
    world = begun(brief, (), 100)
    world.store.deposit([], [Mail(world.key("x"), "p", ev.PauseRequested("p", "stop"))])
    world.run(5)
    assert world.row().status == "paused"
    update(world, "u", 7)
    world.run(20)
    assert world.store.update(world.key("x"), "u") is None
    world.store.resume(world.key("x"), "r")
    world.run(LONG_S)
    found = world.store.update(world.key("x"), "u")
    assert found is not None
    assert found.status == "completed"
    assert world.result() == [7]
