"""Time limits and cancellation: who is late commits nothing that was called failed, and fails only if it did."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.util import await_only
from tests.runtime.conftest import Lab, kinds, of_kind, status, until
from tests.transactions.bank import ASYNC, KINDS, SYNC, Bank, as_workflow

import perdure
from perdure.core import events as ev
from perdure.runtime import steps

LIMIT_S = 0.8


async def ended(lab: Lab, flow: Any) -> tuple[str, Any]:
    """Status, and the result or the failure's type."""
    async with lab.engine(flow) as engine:
        handle = await engine.start(flow, 5, id="one")
        try:
            return "completed", await handle.result(timeout=20)
        except perdure.ExecutionFailed as error:
            return "failed", error.failure.cause and error.failure.cause.type


TIMEOUT = ("failed", "perdure.errors.StepTimeout")


def outlive_the_limit() -> None:
    """What a thread does that nobody can stop: it goes on for a moment after its time is over."""
    attempt = perdure.current_step()
    while not attempt.cancelled:
        time.sleep(0.002)
    time.sleep(0.02)


@pytest.mark.parametrize("kind", SYNC)
async def test_a_thread_that_outlives_its_last_timeout_commits_nothing(lab: Lab, bank: Bank, kind: str) -> None:
    def late(_: Any, cents: int) -> int:
        outlive_the_limit()
        return cents

    flow = as_workflow(bank.deposit(kind, late, timeout=LIMIT_S))
    assert await ended(lab, flow) == TIMEOUT
    assert (bank.calls, bank.ledger(), bank.records()) == ([5], [], [(1, "failed")])


@pytest.mark.parametrize("kind", SYNC)
async def test_a_commit_that_outlives_the_last_timeout_counts(
    lab: Lab, bank: Bank, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The thread is at its COMMIT when time is over. The failure waits for it, and turns out to be none."""
    commit = bank.engine.dialect.do_commit

    def slow_commit(connection: Any) -> None:
        if bank.calls:
            outlive_the_limit()
        commit(connection)

    monkeypatch.setattr(bank.engine.dialect, "do_commit", slow_commit)
    flow = as_workflow(bank.deposit(kind, timeout=LIMIT_S))
    assert await ended(lab, flow) == ("completed", 5)
    assert (bank.calls, bank.ledger(), bank.records()) == ([5], [5], [(1, "completed")])


@pytest.mark.parametrize("kind", ASYNC)
@pytest.mark.parametrize("arrives", [False, True])
async def test_a_commit_that_is_cut_off_by_the_last_timeout_counts_if_it_arrived(
    lab: Lab, bank: Bank, monkeypatch: pytest.MonkeyPatch, kind: str, *, arrives: bool
) -> None:
    dialect = bank.async_engine.sync_engine.dialect
    commit = dialect.do_commit

    def hanging_commit(connection: Any) -> None:
        if len(bank.calls) == 1 and not hung:
            hung.append(True)
            if arrives:
                commit(connection)
            await_only(asyncio.sleep(60))
        commit(connection)

    hung: list[bool] = []
    monkeypatch.setattr(dialect, "do_commit", hanging_commit)
    flow = as_workflow(bank.deposit(kind, timeout=LIMIT_S))
    if arrives:
        assert await ended(lab, flow) == ("completed", 5)
        assert (bank.calls, bank.ledger(), bank.records()) == ([5], [5], [(1, "completed")])
    else:
        assert await ended(lab, flow) == TIMEOUT
        assert (bank.calls, bank.ledger(), bank.records()) == ([5], [], [(1, "failed")])


@pytest.mark.parametrize("kind", KINDS)
async def test_an_attempt_that_timed_out_is_followed_by_one_that_waits_for_it(lab: Lab, bank: Bank, kind: str) -> None:
    def slow_at_first(_: Any, cents: int) -> Any:
        if len(bank.calls) > 1:
            return cents
        if kind in ASYNC:
            return asyncio.sleep(60, cents)
        outlive_the_limit()
        return cents

    flow = as_workflow(bank.deposit(kind, slow_at_first, timeout=LIMIT_S, retry=perdure.Retry(attempts=2, delay=0)))
    assert await ended(lab, flow) == ("completed", 5)
    assert (bank.calls, bank.ledger(), bank.records()) == ([5, 5], [5], [(1, "completed")])


async def test_a_failure_that_cannot_be_settled_in_time_stalls(
    lab: Lab, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "SETTLE_S", 0.3)
    freed = asyncio.Event()

    def stuck(_: Any, cents: int) -> int:
        while not freed.is_set():
            time.sleep(0.002)
        return cents

    flow = as_workflow(bank.deposit("session", stuck, timeout=LIMIT_S))
    async with lab.engine(flow) as engine:
        handle = await engine.start(flow, 5, id="one")
        row = await status(handle, "stalled", "failed", "completed")
        assert "P0705" in row.problem
        assert "no answer within" in row.problem
        freed.set()
        await handle.resume()
        assert await handle.result(timeout=20) == 5
    assert bank.ledger() == [5]


async def test_a_limit_that_is_reached_while_a_failure_is_settled_changes_nothing(
    lab: Lab, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt is over; what its watch would cancel is the answer to whether it failed."""
    dialect = bank.async_engine.sync_engine.dialect
    commit = dialect.do_commit

    def slow_commit(connection: Any) -> None:
        if bank.calls:
            await_only(asyncio.sleep(1.2 * LIMIT_S))
        commit(connection)

    def refused(_: Any, cents: int) -> int:
        raise ValueError(f"no {cents}")

    monkeypatch.setattr(dialect, "do_commit", slow_commit)
    flow = as_workflow(bank.deposit("async session", refused, timeout=LIMIT_S))
    assert await ended(lab, flow) == ("failed", "ValueError")
    assert bank.records() == [(1, "failed")]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_the_workflow_cancels_before_its_commit_is_rolled_back(lab: Lab, bank: Bank, kind: str) -> None:
    def endless(_: Any, cents: int) -> Any:
        if kind in ASYNC:
            return asyncio.sleep(60, cents)
        outlive_the_limit()
        return cents

    deposit = bank.deposit(kind, endless)

    async def body(cents: int) -> str:
        task = asyncio.create_task(deposit(cents))
        await perdure.receive("give up")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return "given up"

    flow = as_workflow(body)
    async with lab.engine(flow) as engine:
        handle = await engine.start(flow, 5, id="one")
        await until(lambda: bank.calls)
        await handle.signal("give up")
        assert await handle.result(timeout=20) == "given up"
    await until(lambda: can_write(bank))
    assert (bank.calls, bank.ledger(), bank.records()) == ([5], [], [])


def can_write(bank: Bank) -> bool:
    with bank.engine.connect() as connection:
        connection.execute(sa.text("UPDATE ledger SET cents = cents"))
    return True


@pytest.mark.parametrize("kind", KINDS)
async def test_an_engine_that_leaves_cuts_it_off_and_the_next_one_runs_it(lab: Lab, bank: Bank, kind: str) -> None:
    def slow_at_first(_: Any, cents: int) -> Any:
        if len(bank.calls) > 1:
            return cents
        if kind in ASYNC:
            return asyncio.sleep(60, cents)
        outlive_the_limit()
        return cents

    flow = as_workflow(bank.deposit(kind, slow_at_first))
    async with lab.engine(flow, shutdown_timeout=0) as engine:
        handle = await engine.start(flow, 5, id="one")
        await until(lambda: bank.calls)
    async with lab.engine(flow) as engine:
        handle = engine.handle("one", flow)
        assert await handle.result(timeout=20) == 5
        journal = await handle.journal()
    assert kinds(journal).count("StepAttemptFailed") == 0
    assert of_kind(journal, ev.StepCompleted)[0].attempt == 1
    assert (bank.calls, bank.ledger(), bank.records()) == ([5, 5], [5], [(1, "completed")])


async def test_an_engine_that_leaves_while_a_failure_is_settled_leaves_it_to_the_next_one(
    lab: Lab, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect = bank.async_engine.sync_engine.dialect
    commit = dialect.do_commit
    settling: list[bool] = []

    def hanging_commit(connection: Any) -> None:
        if bank.calls and not settling:
            settling.append(True)
            await_only(asyncio.sleep(60))
        commit(connection)

    def refused(_: Any, cents: int) -> int:
        raise ValueError(f"no {cents}")

    monkeypatch.setattr(dialect, "do_commit", hanging_commit)
    flow = as_workflow(bank.deposit("async connection", refused))
    async with lab.engine(flow, shutdown_timeout=0) as engine:
        await engine.start(flow, 5, id="one")
        await until(lambda: settling)
    assert bank.records() == []
    assert await ended(lab, flow) == ("failed", "ValueError")
    assert (bank.calls, bank.ledger(), bank.records()) == ([5, 5], [], [(1, "failed")])
