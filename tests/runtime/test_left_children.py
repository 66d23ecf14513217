"""Children of an execution that is terminated without its code: their policy holds, told by the journal alone."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import apsw
import msgspec
import pytest
from tests.runtime.conftest import Lab, of_kind, status, until
from tests.runtime.noting import note, seen

import perdure
from perdure import journal as jn
from perdure import workflow
from perdure.runtime import stalls
from perdure.runtime.outgoing import Outgoing
from perdure.store.sqlite import SqliteStore

POLICIES = ("terminate", "cancel", "abandon")
ENDS = {"terminate": "terminated", "cancel": "cancelled", "abandon": "parked"}


@workflow
async def here() -> None: ...


@workflow
async def cleans() -> None:
    try:
        await perdure.receive("never")
    finally:
        await note("cleaned")


class Codes:
    """What an engine knows only if it is told: it learns the workflows of a module by itself."""

    def __init__(self) -> None:
        @workflow(name="gone")
        async def gone() -> None:
            await note("began")
            for policy in POLICIES:
                await perdure.start_child(cleans, id=policy, on_parent_close=policy)
            await perdure.receive("go")

        @workflow(name="gone")
        async def other() -> None:
            await note("something")
            await note("else")

        @workflow(name="gone")
        async def hands_on(again: bool = True) -> None:  # noqa: FBT001, FBT002 - a workflow's argument
            if again:
                for policy in POLICIES:
                    await perdure.start_child(cleans, id=policy, on_parent_close=policy)
                perdure.continue_as_new(again=False)
            await perdure.receive("go")

        self.gone, self.other, self.hands_on = gone, other, hands_on


class Talkers:
    """Likewise, of those that send messages."""

    def __init__(self) -> None:
        @workflow(name="gone")
        async def talks() -> None:
            child = await perdure.start_child(cleans, id="cancel", on_parent_close="cancel")
            await perdure.external(child.id).signal("hello", 1)
            await perdure.external(child.id).signal("hello", 2)
            await perdure.external("parent").signal("hello", 3)
            await perdure.receive("go")

        @workflow(name="gone")
        async def asks_to_cancel() -> None:
            child = await perdure.start_child(slow, id="slow")
            await perdure.external(child.id).cancel("no more")
            await perdure.receive("go")

        @workflow(name="slow")
        async def slow() -> None:
            try:
                await perdure.receive("never")
            finally:
                await perdure.receive("cleaned")

        @workflow(name="parent")
        async def parent() -> str:
            try:
                await (await perdure.start_child(talks, id="gone")).result()
            except perdure.ExecutionTerminated as error:
                return error.fields["reason"]
            return ""

        self.talks, self.parent, self.asks_to_cancel, self.slow = talks, parent, asks_to_cancel, slow


codes, talkers = Codes(), Talkers()


async def begun(lab: Lab, workflow_: Any, *more: Any, resting: int = 4) -> None:
    async with lab.engine(workflow_, cleans, *more) as engine:
        await engine.start(workflow_, id="gone")

        async def all_wait() -> bool:
            return len(await engine.list(status=["parked"])) == resting

        await until(all_wait)


def sql(lab: Lab, statement: str, *bindings: Any) -> None:
    connection = apsw.Connection(str(lab.path))
    connection.execute(statement, bindings)
    assert connection.changes() > 0
    connection.close()


def damage(lab: Lab, name: str, position: int) -> None:
    which = "(SELECT number FROM execution WHERE execution = ?)"
    sql(lab, f"UPDATE event SET body = x'00' WHERE position = ? AND number = {which}", position, name)  # noqa: S608


async def ended(engine: perdure.Engine) -> jn.ExecutionTerminated:
    handle = engine.handle("gone")
    await handle.terminate("not needed")
    with pytest.raises(perdure.ExecutionTerminated, match="not needed") as told:
        await handle.result(timeout=30)
    rows = await asyncio.to_thread(engine.store.runs, handle.key, None, 1)
    [*_, last] = await asyncio.to_thread(engine.store.load, handle.key, rows[0].run, rows[0].events - 1, 1)
    assert isinstance(last.event, jn.ExecutionTerminated)
    assert getattr(told.value, "__notes__", []) == [f"Not known: {each}." for each in last.event.not_known]
    return last.event


async def policies_hold(engine: perdure.Engine) -> None:
    for policy in POLICIES:
        await status(engine.handle(policy), ENDS[policy])
    assert "cleaned" in seen  # once, or again where its worker died before that was recorded


async def test_where_nobody_runs_its_workflow(lab: Lab) -> None:
    await begun(lab, codes.gone)
    async with lab.engine(here, cleans) as engine:
        assert (await ended(engine)).not_known == ()
        await policies_hold(engine)


async def test_where_nobody_ran_at_all_when_it_was_asked_for(lab: Lab) -> None:
    await begun(lab, codes.gone)
    async with lab.client() as client:
        await client.handle("gone").terminate("not needed")
    async with lab.engine(here, cleans) as engine:
        await policies_hold(engine)
        await status(engine.handle("gone"), "terminated")


async def test_where_the_code_stalled_before_it_came_to_them(lab: Lab) -> None:
    await begun(lab, codes.gone)
    async with lab.engine(codes.other, cleans) as engine:
        await engine.handle("gone").signal("go")
        await status(engine.handle("gone"), "stalled")
        await ended(engine)
        await policies_hold(engine)


@pytest.mark.parametrize("position", range(6))
async def test_where_an_event_cannot_be_read_children_tell_of_themselves(lab: Lab, position: int) -> None:
    """And the last event says what is not known."""
    await begun(lab, codes.gone)
    damage(lab, "gone", position)
    async with lab.engine(codes.gone, cleans) as engine:
        last = await ended(engine)
        assert [f"what stood in its journal at {position}: it cannot be read" in each for each in last.not_known] == [
            True
        ]
        await policies_hold(engine)


async def test_a_child_whose_policy_nobody_can_read_goes_on_and_is_named(lab: Lab) -> None:
    await begun(lab, codes.gone)
    for position in range(3, 6):
        damage(lab, "gone", position)
    damage(lab, "terminate", 0)
    async with lab.engine(here) as engine:
        damaged, child = (await ended(engine)).not_known
        assert "3, 4, 5" in damaged
        assert "child 'terminate'" in child
        assert "goes on" in child
        assert (await engine.handle("terminate").describe()).status in {"parked", "stalled"}
    async with lab.engine(here, cleans) as engine:
        await status(engine.handle("cancel"), "cancelled")


async def test_children_of_earlier_runs_end_as_well(lab: Lab) -> None:
    await begun(lab, codes.hands_on)
    async with lab.engine(here, cleans) as engine:
        await ended(engine)
        await policies_hold(engine)


async def test_children_of_earlier_runs_end_where_the_list_of_them_cannot_be_read(lab: Lab) -> None:
    await begun(lab, codes.hands_on)
    damage(lab, "gone", 0)
    async with lab.engine(here, cleans) as engine:
        await ended(engine)
        await policies_hold(engine)


async def test_children_of_an_earlier_execution_with_its_id_are_not_its(lab: Lab) -> None:
    await begun(lab, codes.gone)
    async with lab.engine(codes.gone, cleans) as engine:
        await ended(engine)
        await policies_hold(engine)
        handle = await engine.start(here, id="gone", reuse="always")
        await handle.result(timeout=30)
        await engine.start(talkers.slow, id="gone", reuse="always")
        await status(engine.handle("gone"), "parked")
    damage(lab, "gone", 0)
    async with lab.engine(here, cleans) as engine:
        assert len((await ended(engine)).not_known) == 1
        await status(engine.handle("abandon"), "parked")


async def test_journals_that_do_not_tell_policies_yet_have_them_read_where_the_children_stand(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_child = Outgoing.start_child

    def as_before(self: Outgoing, command: Any) -> None:
        start_child(self, command)
        self.events[-1] = msgspec.structs.replace(self.events[-1], on_parent_close="")  # type: ignore[call-arg]

    with monkeypatch.context() as patched:
        patched.setattr(Outgoing, "start_child", as_before)
        await begun(lab, codes.gone)
    async with lab.engine(here, cleans) as engine:
        assert (await ended(engine)).not_known == ()
        await policies_hold(engine)


@pytest.mark.parametrize("damaged", [None, 0, 6])
async def test_who_was_written_to_before_hears_of_the_end_all_the_same(lab: Lab, damaged: int | None) -> None:
    """Its numbers go on behind those of earlier messages; where these are not known, there are none."""
    async with lab.engine(talkers.parent, talkers.talks, cleans) as engine:
        await engine.start(talkers.parent, id="parent")

        async def all_wait() -> bool:
            journal = [] if not await engine.list(prefix="gone") else await engine.handle("gone").journal()
            return len(of_kind(journal, jn.MessageDelivered)) == 3 and len(await engine.list(status=["parked"])) == 3

        await until(all_wait)
    if damaged is not None:
        damage(lab, "gone", damaged)
    async with lab.engine(here, cleans) as engine:
        await ended(engine)
        await status(engine.handle("cancel"), "cancelled")
    async with lab.engine(talkers.parent) as engine:
        assert await engine.handle("parent").result(timeout=30) == "not needed"


async def test_a_child_that_was_asked_to_cancel_may_clean_up(lab: Lab) -> None:
    await begun(lab, talkers.asks_to_cancel, talkers.slow, resting=2)
    async with lab.engine(here, talkers.slow) as engine:
        await ended(engine)
        await engine.handle("slow").signal("cleaned")
        await status(engine.handle("slow"), "cancelled")


@pytest.mark.parametrize("direct", [True, False])
async def test_the_policy_holds_when_the_worker_dies_as_it_ends(lab: Lab, *, direct: bool) -> None:
    await begun(lab, codes.gone)
    store = SqliteStore(lab.path, durability="process", direct=direct)
    async with lab.doomed(here, store=store) as engine:
        await ended(engine)
    store.close()
    async with lab.engine(here, cleans) as engine:
        await policies_hold(engine)


async def test_it_ends_when_the_worker_died_before_it_knew_what_is_left(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begun(lab, codes.gone)
    reads, goes_on = threading.Event(), threading.Event()
    left_behind = stalls.left_behind

    def waits(*told: Any) -> Any:
        reads.set()
        goes_on.wait(10)
        return left_behind(*told)

    with monkeypatch.context() as patched:
        patched.setattr(stalls, "left_behind", waits)
        async with lab.doomed(here) as engine:
            await engine.handle("gone").terminate("not needed")
            await until(reads.is_set)
        goes_on.set()
    async with lab.engine(here, cleans) as engine:
        await policies_hold(engine)
        await status(engine.handle("gone"), "terminated")


async def test_grandchildren_end_though_nobody_has_any_of_the_code(lab: Lab) -> None:
    async with lab.engine(talkers.parent, talkers.talks, cleans) as engine:
        await engine.start(talkers.parent, id="parent")

        async def all_wait() -> bool:
            return len(await engine.list(status=["parked"])) == 3

        await until(all_wait)
    async with lab.engine(here) as engine:
        await engine.handle("parent").terminate("all of it")
        await status(engine.handle("gone"), "terminated")
    async with lab.engine(cleans) as engine:
        await status(engine.handle("cancel"), "cancelled")
