"""The 1st, 2nd, ... n-th call of the database's driver fails, before or after it had its effect, once or from then on.

Whatever happens, outcome and ledger agree: completed means one line, failed means none, stalled means nobody knows yet.
"""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.runtime.conftest import Lab, status
from tests.transactions.bank import Bank, as_workflow

import perdure
from perdure import transaction_records


class Busy(sqlite3.OperationalError):
    sqlite_errorcode = sqlite3.SQLITE_BUSY


ERRORS: dict[str, Exception] = {
    "busy": Busy("database is locked"),
    "lost": sqlite3.ProgrammingError("Cannot operate on a closed database."),
    "hard": sqlite3.OperationalError("disk I/O error"),
}
CALLS = ("do_execute", "do_commit", "do_rollback")


class Faults:
    """Stands before an engine's driver."""

    def __init__(self, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, error: Exception, *, after: bool) -> None:
        self.count = 0
        self.first = self.last = -1  # calls that fail, from 1
        self._error = error
        self._after = after
        for name in CALLS:
            monkeypatch.setattr(engine.dialect, name, self._faulty(getattr(engine.dialect, name)))

    def _faulty(self, call: Any) -> Any:
        def faulty(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            fails = self.first <= self.count <= self.last
            if not fails or self._after:
                call(*args, **kwargs)
            if fails:
                raise self._error

        return faulty


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction_records, "TRIES", 2)
    monkeypatch.setattr(transaction_records, "SETTLE_TRIES", 2)
    monkeypatch.setattr(transaction_records, "FIRST_PAUSE_S", 0.001)


async def outcome_of(lab: Lab, flow: Any, faults: Faults) -> tuple[str, int]:
    """How it ended, once it was resumed where it stalled; and how many calls it took until then."""
    async with lab.engine(flow) as engine:
        handle = await engine.start(flow, 5, id="one")
        row = await status(handle, "completed", "failed", "stalled")
        calls = faults.count
        if row.status == "stalled":
            assert "P0705" in row.problem, row.problem
            faults.last = -1
            await handle.resume()
            row = await status(handle, "completed", "failed")
        if row.status == "completed":
            assert await handle.result() == 5
        return row.status, calls


LEDGER = {"completed": ([5], [(1, "completed")]), "failed": ([], [(1, "failed")])}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["session", "async connection"])
@pytest.mark.parametrize(
    ("error", "after", "for_good"),
    [
        ("busy", False, False),
        ("busy", True, False),
        ("lost", False, False),
        ("lost", True, False),
        ("hard", False, False),
        ("hard", True, False),
        ("lost", False, True),
        ("hard", True, True),
    ],
)
async def test_outcome_and_ledger_agree_whichever_call_of_the_driver_fails(
    tmp_path: Path, kind: str, error: str, *, after: bool, for_good: bool
) -> None:
    ended = set()
    for first in itertools.count(1):
        bank = Bank(tmp_path / f"bank{first}.db", timeout=0.05)
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(bank.sync_engine(kind), patch, ERRORS[error], after=after)
            faults.first, faults.last = first, 10**9 if for_good else first
            flow = as_workflow(bank.deposit(kind, retry=None if for_good else perdure.Retry(attempts=2, delay=0)))
            end, calls = await outcome_of(Lab(tmp_path / f"lab{first}.db"), flow, faults)
        ended.add(end)
        assert (bank.ledger(), bank.records()) == LEDGER[end], f"after call {first}"
        bank.close()
        if calls < first:
            break
    assert first > 8, "the calls of one transaction, at least"
    assert "completed" in ended
