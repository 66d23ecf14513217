"""Transactions happen exactly once in the simulated world too, and planted bugs in how they are recorded are found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.sim import transfers

from perdure import transaction_records, transactions
from perdure.testing.ledger import Broken

SEEDS = 60


@pytest.fixture(autouse=True)
def _shape(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(100, logger="perdure")
    transfers.install()
    yield
    transfers.uninstall()


def law_broken(start: int = 0, seeds: int = 400) -> str:
    """What the first seed says that does not end well."""
    for seed in range(start, start + seeds):
        try:
            transfers.simulate(seed)
        except Broken as broken:
            return broken.law
    return ""


@pytest.mark.parametrize("start", range(0, SEEDS, 20))
def test_transactions_happen_exactly_once(start: int) -> None:
    for seed in range(start, start + 20):
        transfers.simulate(seed)


def test_without_a_record_it_happens_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction_records.Try, "claim", lambda *_: None)
    monkeypatch.setattr(transaction_records, "complete", lambda *_: True)
    monkeypatch.setattr(transaction_records, "fail", lambda _, __, failure: failure)
    assert law_broken() == transfers.LAW


def test_a_record_that_commits_apart_from_the_writes_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    insert = transaction_records.insert

    def early(connection, place, state, outcome):  # type: ignore[no-untyped-def]
        found = insert(connection, place, state, outcome)
        if found is None and state == "open":
            connection.commit()
        return found

    monkeypatch.setattr(transaction_records, "insert", early)
    assert law_broken() in {transfers.LAW, "nothing stalls"}


def test_a_failure_that_is_not_made_final_may_happen_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen worker goes on where another one has given up."""
    monkeypatch.setattr(transactions.Transaction, "settle", None)
    monkeypatch.setattr(transaction_records, "TRIES", 2)  # it gives up soon
    assert law_broken(start=110) == transfers.LAW
