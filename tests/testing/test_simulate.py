"""The simulator with a user's own workflows: planted bugs are found, their corrected twins pass."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

import perdure
from perdure import step, workflow
from perdure.core.errors import EngineMisused, InvalidOption
from perdure.testing import LawBroken, Seen, simulate


@step
async def charge(_name: str, _cents: int) -> str:
    raise AssertionError("not in a test")


@step
def receipt(charged: str) -> str:
    return f"receipt for {charged}"


@workflow
async def pay(name: str, cents: int) -> str:
    charged = await charge(name, cents)
    approved = await perdure.receive("approved", bool)
    return receipt.fn(charged) if not approved else await receipt(charged)


@workflow
async def family() -> list[str]:
    return await asyncio.gather(pay("ada", 1), pay("bob", 2))


told: list[int] = []


@workflow
async def forgetful() -> None:
    told.append(1)
    for _ in range(len(told)):
        await charge("ada", 1)


class Bank:
    def __init__(self) -> None:
        self.charges: dict[str, str] = {}
        self.times = 0

    def __repr__(self) -> str:
        return f"Bank({self.charges})"

    async def charge(self, name: str, _cents: int) -> str:
        await asyncio.sleep(0.05)
        self.times += 1
        self.charges[f"{self.times}"] = name
        return name

    async def charge_by_key(self, name: str, _cents: int) -> str:
        await asyncio.sleep(0.05)
        self.charges.setdefault(perdure.current_step().idempotency_key, name)
        return name


async def pays(client: perdure.Client, _bank: Bank) -> None:
    handle = await client.start(pay, "ada", 100, id="pay-1")
    with contextlib.suppress(perdure.ExecutionClosed):  # it was heard, and only the answer was lost
        await handle.signal("approved", value=True, id="yes")
    assert await handle.result() == "receipt for ada"


async def expects_too_much(client: perdure.Client, _bank: Bank) -> None:
    handle = await client.start(pay, "ada", 100, id="pay-1")
    await handle.signal("approved", value=True)
    assert await handle.result() == "nothing"


async def never_approves(client: perdure.Client, _bank: Bank) -> None:
    await client.start(pay, "ada", 100, id="pay-1")


async def forgets(client: perdure.Client, _bank: Bank) -> None:
    await (await client.start(forgetful, id="x")).result()


def charged_once(seen: Seen[Bank]) -> None:
    assert len(seen.world.charges) == 1


def told_in_the_journal(seen: Seen[Bank]) -> None:
    kinds = [type(recorded.event).__name__ for recorded in seen.journals["pay-1"]]
    assert kinds[-1] == "ExecutionCompleted"


def test_a_step_that_is_not_idempotent_is_found_out():
    with pytest.raises(LawBroken, match=r"law broken: charged_once[\s\S]*seeds=\[\d+\]"):
        simulate(pays, workflows=[pay], world=Bank, steps=lambda bank: {"charge": bank.charge}, laws=[charged_once])


def test_its_corrected_twin_passes():
    done = simulate(
        pays,
        workflows=[pay],
        world=Bank,
        steps=lambda bank: {charge: bank.charge_by_key},
        laws=[charged_once, told_in_the_journal],
        seeds=40,
    )
    assert done.seeds == 40
    assert done.events > 200


def test_what_a_seed_finds_it_finds_again():
    def tried(seeds):
        given = {"workflows": [pay], "world": Bank, "laws": [charged_once], "seeds": seeds}
        with pytest.raises(LawBroken) as found:
            simulate(pays, **given, steps=lambda bank: {charge: bank.charge})
        return str(found.value).partition("last events")[2]

    first = tried(100)
    seed = int(first.partition("seeds=[")[2].partition("]")[0])
    assert tried([seed]) == first


def test_what_the_scenario_expects_is_a_law():
    with pytest.raises(LawBroken, match="the scenario expects_too_much"):
        simulate(expects_too_much, workflows=[pay], world=Bank, steps=lambda b: {"charge": b.charge}, seeds=1)


def test_what_never_ends_breaks_a_law():
    with pytest.raises(LawBroken, match="everything terminates"):
        simulate(never_approves, workflows=[pay], world=Bank, steps=lambda b: {"charge": b.charge}, seeds=1, within=5)


def test_a_workflow_that_is_not_deterministic_breaks_a_law():
    with pytest.raises(LawBroken):
        simulate(forgets, workflows=[forgetful], world=Bank, steps=lambda b: {"charge": b.charge_by_key}, seeds=20)


async def children_are_paid(client: perdure.Client, _bank: Bank) -> None:
    handle = await client.start(family, id="all")
    while len(children := await client.list(workflow="pay")) < 2:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.1)
    for child in children:
        with contextlib.suppress(perdure.ExecutionClosed):
            await client.handle(child.key.execution).signal("approved", value=True, id="yes")
    assert await handle.result() == ["receipt for ada", "receipt for bob"]


def test_children_lists_and_sleeps_are_part_of_scenarios():
    simulate(children_are_paid, workflows=[family], world=Bank, steps=lambda b: {"charge": b.charge_by_key}, seeds=15)


def test_code_that_is_missing_is_named():
    @workflow
    async def stranger() -> None:
        pass

    async def starts(client: perdure.Client, _bank: Bank) -> None:
        await client.start(stranger, id="x")

    with pytest.raises(InvalidOption, match="stranger', too"):
        simulate(starts, workflows=[pay], world=Bank, seeds=1)


def test_a_stand_in_with_a_typo_is_refused():
    with pytest.raises(EngineMisused, match="'charge' meant"):
        simulate(pays, workflows=[pay], world=Bank, steps=lambda b: {"chrge": b.charge}, seeds=1)
