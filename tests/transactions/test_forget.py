"""Records go only when nobody can need them: the journal has held their outcome, or their run's end, for a window."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.conftest import Lab, ShiftedClock, status, until
from tests.transactions.bank import KINDS, Bank, as_workflow, copy_store

import perdure
from perdure import transactions
from perdure.core import events as ev
from perdure.core.events import Recorded
from perdure.store.protocol import Branch

DAY_MS = 24 * 3600 * 1000
MONTH = timedelta(days=30)


async def forget(bank: Bank, lab: Lab, days: float, *, kind: str = "session", **options: Any) -> int:
    """That many days from now."""
    async with perdure.Client(lab.path, environment=ShiftedClock(round(days * DAY_MS))) as client:
        return await perdure.Datasource(bank.bind(kind)).forget(client, **options)


async def run(lab: Lab, flow: Any, *, id: str = "one") -> Any:
    async with lab.engine(flow) as engine:
        return await (await engine.start(flow, 5, id=id)).result(timeout=20)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_record_stays_for_the_window_and_goes_after_it(lab: Lab, bank: Bank, kind: str) -> None:
    await run(lab, as_workflow(bank.deposit(kind)))
    assert await forget(bank, lab, 29.9, kind=kind) == 0
    assert await forget(bank, lab, 30.1, kind=kind) == 1
    assert bank.records() == []
    assert bank.ledger() == [5]


async def test_the_window_is_the_users_choice(lab: Lab, bank: Bank) -> None:
    await run(lab, as_workflow(bank.deposit("session")))
    assert await forget(bank, lab, 80, window=timedelta(days=90)) == 0
    assert await forget(bank, lab, 2, window=24 * 3600) == 1


async def test_what_the_journal_does_not_hold_stays_however_old_it_is(lab: Lab, bank: Bank, tmp_path: Path) -> None:
    """Committed, and the execution stalls before that is journaled: a month later it still needs the record."""
    cents = [5]
    deposit = bank.deposit("session")
    flow = as_workflow(lambda _: deposit(cents[0]))
    async with lab.client() as client:
        await client.start(flow, 5, id="one")
    older = Lab(tmp_path / "older.db")
    copy_store(lab.path, older.path)
    assert await run(lab, flow) == 5
    cents[0] = 6
    async with older.engine(flow) as engine:
        assert "P0703" in (await status(engine.handle("one"), "stalled")).problem
    assert await forget(bank, older, 1_000, gone_after=MONTH) == 0
    cents[0] = 5
    async with older.engine(flow) as engine:
        await engine.handle("one").resume()
        assert await engine.handle("one", flow).result(timeout=20) == 5
    assert bank.calls == [5]
    assert await forget(bank, older, 31) == 1


async def test_records_of_an_open_run_go_one_by_one_as_they_are_answered(lab: Lab, bank: Bank) -> None:
    deposit = bank.deposit("async session")

    async def body(cents: int) -> list[int]:
        first = await deposit(cents)
        await perdure.receive("go on")
        return [first, await deposit(cents + 1)]

    flow = as_workflow(body)
    async with lab.engine(flow) as engine:
        handle = await engine.start(flow, 5, id="one")
        await status(handle, "parked")
        assert await forget(bank, lab, 31) == 1
        assert bank.records() == []
        await handle.signal("go on")
        assert await handle.result(timeout=20) == [5, 6]
    assert bank.ledger() == [5, 6]


async def test_a_cancelled_transaction_keeps_its_record_until_the_run_has_ended(lab: Lab, bank: Bank) -> None:
    """Committed, and nobody waited for it any more: the journal never holds its outcome."""
    deposit = bank.deposit("session")
    committing: list[bool] = []
    go_on: list[bool] = []

    async def body(cents: int) -> str:
        task = asyncio.create_task(deposit(cents))
        await perdure.receive("give up")
        task.cancel()
        await perdure.receive("end")
        return "done"

    flow = as_workflow(body)
    commit = bank.engine.dialect.do_commit

    def slow_commit(connection: Any) -> None:
        while bank.calls and not go_on:
            committing.append(True)
            time.sleep(0.002)
        commit(connection)

    bank.engine.dialect.do_commit = slow_commit  # type: ignore[method-assign]
    async with lab.engine(flow) as engine:
        handle = await engine.start(flow, 5, id="one")
        await until(lambda: committing)
        await handle.signal("give up")
        await status(handle, "parked")
        go_on.append(True)
        await until(lambda: bank.ledger() == [5])
        assert await forget(bank, lab, 1_000) == 0
        await handle.signal("end")
        assert await handle.result(timeout=20) == "done"
    assert await forget(bank, lab, 31) == 1


async def test_records_of_runs_that_the_store_does_not_know_stay_unless_told_otherwise(
    lab: Lab, bank: Bank, tmp_path: Path
) -> None:
    """They may be another store's, or their executions were deleted."""
    await run(lab, as_workflow(bank.deposit("session")))
    other = Lab(tmp_path / "other.db")
    await run(other, as_workflow(bank.deposit("session")), id="two")
    assert await forget(bank, lab, 1_000) == 1
    assert await forget(bank, lab, 1_000) == 0
    assert await forget(bank, lab, 399, gone_after=timedelta(days=400)) == 0
    assert await forget(bank, lab, 401, gone_after=timedelta(days=400)) == 1
    assert bank.records() == []


async def test_a_run_that_was_left_behind_by_a_rewind_is_over_as_well(lab: Lab, bank: Bank, tmp_path: Path) -> None:
    """Its record is not in the journal, and never will be: the execution has gone on as another run."""
    cents = [5]
    deposit = bank.deposit("session")
    flow = as_workflow(lambda _: deposit(cents[0]))
    async with lab.client() as client:
        await client.start(flow, 5, id="one")
    rewound = Lab(tmp_path / "rewound.db")
    copy_store(lab.path, rewound.path)
    assert await run(lab, flow) == 5
    cents[0] = 6
    async with rewound.engine(flow) as engine:
        await status(engine.handle("one"), "stalled")
    async with rewound.client() as client:
        handle = client.handle("one")
        row, journal = await handle.describe(), await handle.journal()
        forked = ev.RunForked("the next run", "one", "one", row.run)
        events = [*journal, Recorded(len(journal), journal[-1].at_ms, forked)]
        branch = Branch(handle.key, forked.run, "flow", row.lane, "", events, instead_of=row.run, expected=row.position)
        assert client.store.branch(branch).status == "accepted"
    assert await forget(bank, rewound, 29) == 0
    assert await forget(bank, rewound, 31) == 1


async def test_many_records_are_looked_at_page_by_page(lab: Lab, bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "FORGET_PAGE", 3)
    monkeypatch.setattr(transactions, "JOURNAL_PAGE", 2)
    deposit = bank.deposit("async connection")

    async def body(cents: int) -> int:
        return len(await asyncio.gather(*[deposit(n) for n in range(cents)]))

    async def waits(cents: int) -> int:
        done = await body(cents)
        await perdure.receive("never")
        return done

    flow, open_flow = as_workflow(body), as_workflow(waits, name="open")
    async with lab.engine(flow, open_flow) as engine:
        for name in ("a", "b"):
            await (await engine.start(flow, 5, id=name)).result(timeout=20)
        await status(await engine.start(open_flow, 4, id="c"), "parked")
        assert await forget(bank, lab, 29) == 0
        assert await forget(bank, lab, 31) == 14
    assert bank.records() == []


async def test_a_damaged_journal_keeps_its_records_and_no_others(lab: Lab, bank: Bank) -> None:
    flow = as_workflow(bank.deposit("session"))
    await run(lab, flow)
    await run(lab, flow, id="two")
    with closing(sqlite3.connect(lab.path)) as connection, connection:
        connection.execute(
            "UPDATE event SET body = X'C1' WHERE number = (SELECT number FROM execution WHERE execution = 'two')"
        )
    assert await forget(bank, lab, 1_000, gone_after=MONTH) == 1
    assert [row[0] for row in bank.sql("SELECT execution FROM perdure_transactions")] == ["two"]


async def test_a_database_without_records_has_nothing_to_forget(lab: Lab, bank: Bank) -> None:
    assert await forget(bank, lab, 31) == 0
    assert bank.sql("SELECT name FROM sqlite_master WHERE name = 'perdure_transactions'") == []


async def test_a_copy_within_the_window_never_misses_a_forgotten_record(lab: Lab, bank: Bank, tmp_path: Path) -> None:
    """Forgotten on day 31: whatever copy a restore may still use then holds the completion, and nothing runs again."""
    flow = as_workflow(bank.deposit("session"))
    await run(lab, flow)
    copy = Lab(tmp_path / "copy.db")
    copy_store(lab.path, copy.path)  # of day 1; on day 31 it is the oldest that may be restored
    assert await forget(bank, lab, 31) == 1
    assert await run(copy, flow) == 5
    assert bank.calls == [5]
