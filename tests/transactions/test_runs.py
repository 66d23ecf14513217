"""Runs that follow each other: a new run has new keys, what an earlier one did is not done again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.conftest import Lab, ShiftedClock
from tests.transactions.bank import KINDS, Bank, as_workflow, copy_store

import perdure
from perdure.core.identity import derived_id

MONTH_MS = 31 * 24 * 3600 * 1000
all_kinds = pytest.mark.parametrize("kind", KINDS)


def effects(bank: Bank) -> list[int]:
    """The ledger. Every line stands under the key of a completed record, and every such record has its line."""
    keys = [key for (key,) in bank.sql("SELECT key FROM ledger")]
    records = bank.sql("SELECT execution, run, seq FROM perdure_transactions WHERE state = 'completed'")
    assert sorted(keys) == sorted(derived_id("step", *place) for place in records)
    return bank.ledger()


def countdown(bank: Bank, kind: str) -> Any:
    """A workflow that deposits 3, 2 and 1, each in a run of its own."""
    deposit = bank.deposit(kind)

    @perdure.workflow(name="countdown")
    async def flow(cents: int) -> int:
        await deposit(cents)
        if cents > 1:
            perdure.continue_as_new(cents - 1)
        return cents

    return flow


@all_kinds
async def test_each_run_of_those_that_follow_each_other_has_keys_of_its_own(lab: Lab, bank: Bank, kind: str) -> None:
    """The same execution, the same step, the same number in its run: only the run differs."""
    flow = countdown(bank, kind)
    async with lab.engine(flow) as engine:
        assert await (await engine.start(flow, 3, id="one")).result(timeout=20) == 1
    assert effects(bank) == [3, 2, 1]
    places = bank.sql("SELECT DISTINCT execution, seq FROM perdure_transactions")
    assert places == [("one", 1)]
    async with perdure.Client(lab.path, environment=ShiftedClock(MONTH_MS)) as client:
        assert await perdure.Datasource(bank.bind(kind)).forget(client) == 3


async def test_runs_that_follow_each_other_find_their_records_after_the_store_went_back(
    lab: Lab, bank: Bank, tmp_path: Path
) -> None:
    """Also those of the later runs: the id of each run follows from the one before, so the copy's go the same way."""
    flow = countdown(bank, "session")
    async with lab.client() as client:
        await client.start(flow, 3, id="one")
    older = Lab(tmp_path / "older.db")
    copy_store(lab.path, older.path)
    for each in (lab, older):
        async with each.engine(flow) as engine:
            assert await engine.handle("one", flow).result(timeout=20) == 1
    assert effects(bank) == [3, 2, 1]
    assert bank.calls == [3, 2, 1]


async def test_a_transaction_that_is_open_when_its_run_ends_happens_once_or_not_at_all(lab: Lab, bank: Bank) -> None:
    deposit = bank.deposit("async session", lambda _, cents: asyncio.sleep(0.02, cents))

    async def body(cents: int) -> str:
        if cents == 0:
            return "done"
        task = asyncio.create_task(deposit(cents))
        await asyncio.wait({task}, timeout=None if cents == 6 else 0.02)
        return perdure.continue_as_new(cents - 1)

    flow = as_workflow(body)
    async with lab.engine(flow) as engine:
        assert await (await engine.start(flow, 6, id="one")).result(timeout=20) == "done"
    done = effects(bank)
    assert done[0] == 6, "the first run waits for its own"
    assert done == sorted(set(done), reverse=True)


# --- forks and rewinds ---


def deposits(bank: Bank, kind: str) -> Any:
    deposit = bank.deposit(kind)

    @perdure.workflow(name="deposits")
    async def flow(*cents: int) -> int:
        for each in cents:
            await deposit(each)
        return sum(cents)

    return flow


@all_kinds
async def test_a_fork_runs_what_was_open_under_its_own_key_and_never_what_was_copied(
    lab: Lab, bank: Bank, kind: str
) -> None:
    flow = deposits(bank, kind)
    async with lab.engine(flow) as engine:
        await (await engine.start(flow, 1, 2, 3, id="one")).result(timeout=20)
        fork = await engine.fork("one", new_id="two", at=3)  # the first one is copied
        assert await fork.result(timeout=20) == 6
        assert effects(bank) == [1, 2, 3, 2, 3]
        handle = engine.handle("one", flow)
        await handle.rewind(at=4)
        assert await handle.result(timeout=20) == 6
    assert effects(bank) == [1, 2, 3, 2, 3, 3]
    assert bank.calls == [1, 2, 3, 2, 3, 3]
    places = bank.sql("SELECT execution, seq, count(DISTINCT run) FROM perdure_transactions GROUP BY execution, seq")
    assert sorted(places) == [("one", 1, 1), ("one", 2, 1), ("one", 3, 2), ("two", 2, 1), ("two", 3, 1)]


async def test_a_result_that_is_replaced_touches_no_record(lab: Lab, bank: Bank) -> None:
    deposit = bank.deposit("session")

    @perdure.workflow(name="deposits")
    async def flow() -> int:
        return await deposit(5) + 100  # type: ignore[no-any-return]

    async with lab.engine(flow) as engine:
        total = await (await engine.start(flow, id="one")).result(timeout=20)
        fork = await engine.fork("one", new_id="two", replace={2: 7}, workflow=flow)
        assert await fork.result(timeout=20) == 107
        assert await engine.handle("one", flow).result() == total
    assert effects(bank) == [5]


async def test_a_fork_of_one_whose_transaction_is_open_runs_it_anew_beside_it(lab: Lab, bank: Bank) -> None:
    """Also where the database holds the record of the other one, and its journal does not yet."""
    gate = asyncio.Event()

    async def held(_: Any, cents: int) -> int:
        if len(bank.calls) == 1:
            await gate.wait()
        return cents

    flow = as_workflow(bank.deposit("async session", held))
    async with lab.engine(flow) as engine:
        first = await engine.start(flow, 5, id="one")
        fork = await engine.fork("one", new_id="two", at=2)
        gate.set()
        await first.result(timeout=20)
        await fork.result(timeout=20)
    assert effects(bank) == [5, 5]
