"""What is kept in the user's database is compatibility data: the table, and the bytes of an outcome."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateTable
from tests.runtime.conftest import Lab
from tests.transactions.bank import Bank, as_workflow

from perdure.core.events import FailureInfo, Payload
from perdure.transaction_records import _DECODERS, FORMAT, TABLE, _encode

PAGE = Path(__file__).parents[2] / "docs" / "exactly-once.md"

COMPLETED = bytes.fromhex("93c40105a76d73677061636ba0")
FAILED = bytes.fromhex(
    "84a474797065aa56616c75654572726f72a76d657373616765a46e6f2035a97472616365"
    "6261636ba866696c652e70793aa5636175736582a474797065a74f534572726f72a76d657373616765a464697363"
)
PAYLOAD = Payload(b"\x05")
FAILURE = FailureInfo("ValueError", "no 5", "file.py:", cause=FailureInfo("OSError", "disc"))


def test_outcomes_of_format_0_are_written_and_read_for_ever() -> None:
    assert FORMAT == 0
    assert (_encode(PAYLOAD), _encode(FAILURE)) == (COMPLETED, FAILED)
    assert _DECODERS["completed"].decode(COMPLETED) == PAYLOAD
    assert _DECODERS["failed"].decode(FAILED) == FAILURE


@pytest.mark.parametrize(("name", "dialect"), [("PostgreSQL", postgresql.dialect()), ("SQLite", sqlite.dialect())])
def test_the_table_is_the_one_in_the_documentation(name: str, dialect: Any) -> None:
    """Who may not create tables at run time puts this into a migration."""
    documented = re.search(rf"```sql\n-- {name}\n(.*?);\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert documented is not None

    def words(text: str) -> str:
        return " ".join(text.replace("\t", " ").split()).replace("( ", "(").replace(" )", ")")

    assert words(documented.group(1)) == words(str(CreateTable(TABLE).compile(dialect=dialect)))


async def test_a_table_that_a_migration_made_is_used(lab: Lab, bank: Bank) -> None:
    documented = re.search(r"```sql\n-- SQLite\n(.*?);\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert documented is not None
    bank.sql(documented.group(1))
    flow = as_workflow(bank.deposit("async session"))
    async with lab.engine(flow) as engine:
        assert await (await engine.start(flow, 5, id="one")).result(timeout=20) == 5
    assert bank.records() == [(1, "completed")]
