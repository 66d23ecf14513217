"""Tests that are `async def` run on a fresh loop; a `bank` is a user's database beside Perdure's store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.runtime.conftest import lab
from tests.transactions.bank import Bank

__all__ = ["lab"]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(100, logger="perdure")


@pytest.fixture
def bank(tmp_path: Path) -> Any:
    made = Bank(tmp_path / "bank.db")
    yield made
    made.close()
