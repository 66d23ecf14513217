"""With a codec, the records in the user's database tell nothing either, and are bound to their step."""

from __future__ import annotations

from typing import Any

import pytest
from tests.runtime.conftest import Lab, status
from tests.transactions.bank import KINDS, Bank, copy_store

import perdure
from perdure.encryption import KeyRing

WORD = "swordfish"
K1, K2 = bytes(range(32)), bytes(range(32, 64))
RING = KeyRing({"k1": K1}, current="k1")
all_kinds = pytest.mark.parametrize("kind", KINDS)


def notes(bank: Bank, kind: str) -> Any:
    """A workflow whose transaction takes and gives text; `fail` makes it fail."""
    decorate = perdure.transaction(bank.bind(kind), name="note", retry=None)

    def told(text: str) -> str:
        bank.calls.append(1)
        if text == "fail":
            raise ValueError(f"{WORD} in a message")
        return f"{WORD}, {text}"

    if kind.startswith("async"):

        @decorate
        async def note(_given: Any, text: str, **_: str) -> str:
            return told(text)
    else:

        @decorate
        def note(_given: Any, text: str, **_: str) -> str:
            return told(text)

    @perdure.workflow(name="flow")
    async def flow(text: str) -> str:
        return await note(text, secret=WORD)

    return flow


@all_kinds
async def test_nothing_of_a_value_is_readable_in_the_users_database(lab: Lab, bank: Bank, kind: str) -> None:
    flow = notes(bank, kind)
    async with lab.engine(flow, codec=RING) as engine:
        assert await (await engine.start(flow, "a", id="one")).result(timeout=20) == f"{WORD}, a"
        with pytest.raises(perdure.ExecutionFailed, match=WORD):
            await (await engine.start(flow, "fail", id="two")).result(timeout=20)
    assert [state for _, state in bank.records()] == ["completed", "failed"]
    assert WORD.encode() not in bank.path.read_bytes()
    assert all(len(digest) > 16 for (digest,) in bank.sql("SELECT digest FROM perdure_transactions"))


@all_kinds
@pytest.mark.parametrize("text", ["a", "fail"])
async def test_an_encrypted_record_wins_after_the_store_was_restored(
    lab: Lab, bank: Bank, kind: str, text: str
) -> None:
    flow = notes(bank, kind)
    older = Lab(lab.path.with_name("older.db"))
    async with lab.engine(codec=RING):
        pass
    copy_store(lab.path, older.path)
    outcomes = []
    for each in (lab, older):
        async with each.engine(flow, codec=RING) as engine:
            engine.environment.new_id = lambda: "0" * 32  # type: ignore[method-assign]
            handle = await engine.start(flow, text, id="one")
            row = await status(handle, "completed", "failed")
            outcomes.append(row.status)
    assert outcomes == (["completed"] * 2 if text == "a" else ["failed"] * 2)
    assert bank.calls == [1]


async def test_a_record_that_was_moved_or_whose_key_is_gone_stalls_and_runs_nothing(lab: Lab, bank: Bank) -> None:
    flow = notes(bank, "session")
    older = Lab(lab.path.with_name("older.db"))
    async with lab.engine(codec=RING):
        pass
    copy_store(lab.path, older.path)
    async with lab.engine(flow, codec=RING) as engine:
        engine.environment.new_id = lambda: "0" * 32  # type: ignore[method-assign]
        for name in ("one", "two"):
            await (await engine.start(flow, "a", id=name)).result(timeout=20)
    bank.sql("UPDATE perdure_transactions SET execution = CASE execution WHEN 'one' THEN 'three' ELSE execution END")
    async with older.engine(flow, codec=RING) as engine:
        engine.environment.new_id = lambda: "0" * 32  # type: ignore[method-assign]
        row = await status(await engine.start(flow, "a", id="three"), "stalled", "completed")
        assert (row.status, "does not decrypt" in row.problem) == ("stalled", True)
    rotated = KeyRing({"k2": K2}, current="k2")
    async with older.engine(flow, codec=rotated) as engine:
        engine.environment.new_id = lambda: "0" * 32  # type: ignore[method-assign]
        row = await status(await engine.start(flow, "a", id="two"), "stalled", "completed")
        assert (row.status, row.waits_for, "'k1'" in row.problem) == ("stalled", "KeyMissing", True)
    assert bank.calls == [1, 1]
