"""Declared failures over a real store: step to workflow, child to parent, workflow to client; after crashes too."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from tests.runtime.conftest import Lab, kinds, of_kind, status, until
from tests.runtime.noting import seen

import perdure
from perdure import Retry, step, workflow
from perdure.core import events as ev
from perdure.encryption import KeyRing


class CardDeclined(perdure.Failure):
    code: str
    cents: Decimal = Decimal(0)


class OutOfStock(Exception):
    def __init__(self, item: str, left: int) -> None:
        super().__init__(f"only {left} of {item}")
        self.item, self.left = item, left


@step(retry=Retry(attempts=3, delay=0.001, never=(CardDeclined,)), raises=[CardDeclined, OutOfStock])
async def charge(how: str) -> int:
    seen.append(how)
    if how == "declined":
        raise CardDeclined("no funds", code="51", cents=Decimal("1.10")) from OutOfStock("pears", 2)
    if how == "stock":
        raise OutOfStock("pears", 2)
    if how == "group":
        raise ExceptionGroup("many", [CardDeclined(code="1"), KeyError("k"), OutOfStock("figs", 0)])
    raise KeyError(how) from CardDeclined(code="9")


@workflow(raises=[CardDeclined])
async def pay(how: str) -> list[Any]:
    """What it caught, told before and after it waited for a message: in the end it is caught by replay."""
    told: list[Any] = []
    try:
        await charge(how)
    except CardDeclined as error:
        cause = error.__cause__
        assert isinstance(cause, OutOfStock)
        told += ["declined", error.code, str(error.cents), cause.item, cause.left]
    except OutOfStock as error:
        told += ["stock", error.item, error.left, str(error)]
    except ExceptionGroup as group:
        told += [group.message, *(type(each).__name__ for each in group.exceptions)]
    except perdure.StepFailed as error:
        told += ["failed", error.failure.type, getattr(error.__cause__, "code", None)]
    await perdure.receive("go", int)
    return told


EXPECTED = {
    "declined": ["declined", "51", "1.10", "pears", 2],
    "stock": ["stock", "pears", 2, "only 2 of pears"],
    "group": ["many", "CardDeclined", "UndeclaredFailure", "OutOfStock"],
    "other": ["failed", "KeyError", "9"],
}


@pytest.mark.parametrize("how", EXPECTED)
async def test_a_workflow_catches_the_very_class_live_and_after_a_crash(lab: Lab, how: str) -> None:
    async with lab.doomed(pay) as engine:
        handle = await engine.start(pay, how, id="p")
        await status(handle, "parked")
    tries = len(seen)
    async with lab.engine(pay) as engine:
        handle = engine.handle("p", pay)
        await handle.signal("go", 1)
        assert await handle.result() == EXPECTED[how]
    assert len(seen) == tries, "no step ran again"


async def test_a_class_that_is_never_retried_is_not(lab: Lab) -> None:
    async with lab.engine(pay) as engine:
        for how, tries in (("declined", 1), ("stock", 3)):
            seen.clear()
            handle = await engine.start(pay, how, id=how)
            await status(handle, "parked")
            assert len(seen) == tries


# --- further on ---


@workflow(raises=[CardDeclined, OutOfStock])
async def child(how: str) -> None:
    await charge(how)


@workflow(raises=[CardDeclined])
async def parent(how: str) -> str:
    try:
        await child(how)
    except OutOfStock as error:
        return f"{error.item} {error.left}"
    except perdure.ExecutionFailed as error:
        return error.failure.type
    return "paid"


async def test_from_child_to_parent_and_on_to_any_client(lab: Lab) -> None:
    async with lab.engine(parent, child) as engine:
        assert await (await engine.start(parent, "stock", id="stock")).result() == "pears 2"
        handle = await engine.start(parent, "declined", id="declined")
        with pytest.raises(CardDeclined, match="no funds") as caught:
            await handle.result()
        assert caught.value.code == "51"
        assert (await (await engine.start(parent, "other", id="other")).result()).endswith("StepFailed")
    async with lab.client() as client:
        with pytest.raises(CardDeclined) as caught:
            await client.handle("declined", parent).result()
        assert caught.value.cents == Decimal("1.10")
        assert type(caught.value.__cause__) is perdure.UndeclaredFailure, "the workflow does not declare OutOfStock"
        with pytest.raises(perdure.ExecutionFailed, match="CardDeclined: no funds"):
            await client.handle("declined").result()


@workflow
async def undeclared(how: str) -> None:
    await charge(how)


async def test_a_workflow_that_does_not_declare_it_fails_with_its_words(lab: Lab) -> None:
    async with lab.engine(undeclared) as engine:
        handle = await engine.start(undeclared, "declined", id="u")
        with pytest.raises(perdure.ExecutionFailed, match="CardDeclined: no funds") as caught:
            await handle.result()
        assert "raises=[CardDeclined]" in caught.value.__notes__[0]
        failed = of_kind(await handle.journal(), ev.ExecutionFailed)[0].failure
        assert (failed.value, failed.cause.declared) == (None, "")
        assert "in charge" in failed.traceback


@workflow
async def handles_groups() -> list[str]:
    found: list[str] = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(charge("group"))
            group.create_task(charge("declined"))
    except* CardDeclined as declined:
        found += [f"{type(each).__name__}" for each in declined.exceptions]
    except* Exception as others:  # noqa: BLE001 - what is left
        found += [f"{type(each).__name__}" for each in others.exceptions]
    return found


async def test_except_star_sees_the_members(lab: Lab) -> None:
    async with lab.engine(handles_groups) as engine:
        found = await (await engine.start(handles_groups, id="g")).result()
    assert found[0] in ("ExceptionGroup", "CardDeclined")
    assert "CardDeclined" in found


@step(once=True, not_happened=[CardDeclined], raises=[CardDeclined, OutOfStock])
async def once(how: str) -> int:
    if how == "declined":
        raise CardDeclined(code="51")
    raise OutOfStock("pears", 1)


@workflow
async def effects() -> str:
    try:
        await once("declined")
    except CardDeclined as error:
        return error.code
    return "paid"


async def test_a_once_step_raises_what_surely_did_not_happen_as_itself(lab: Lab) -> None:
    async with lab.engine(effects) as engine:
        assert await (await engine.start(effects, id="e")).result() == "51"


async def test_a_transaction_raises_what_it_declares(lab: Lab, tmp_path: Path) -> None:
    bank = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'bank.db'}")

    @perdure.transaction(bank, retry=1, raises=[CardDeclined])
    def transfer(connection: sqlalchemy.Connection, how: str) -> int:
        raise CardDeclined("no", code=how)

    @workflow
    async def moves() -> str:
        try:
            await transfer("77")
        except CardDeclined as error:
            await perdure.receive("go")
            return error.code
        return "moved"

    async with lab.doomed(moves) as engine:
        await status(await engine.start(moves, id="m"), "parked")
    async with lab.engine(moves) as engine:
        await engine.handle("m").signal("go")
        assert await engine.handle("m", moves).result() == "77"
    bank.dispose()


# --- as the code changes ---


def version(n: int) -> Any:
    if n == 1:

        class Gone(perdure.Failure, name="Gone"):
            code: int

    elif n == 2:

        class Gone(perdure.Failure, name="Gone"):  # type: ignore[no-redef]
            code: int
            where: str

    else:

        class Gone(perdure.Failure, name="Gone"):  # type: ignore[no-redef]
            code: int
            where: str = "somewhere"

    @step(name="look", retry=None, raises=[Gone])
    async def look() -> None:
        raise Gone(code=5)

    @workflow(name="finds", raises=[Gone])
    async def finds() -> str:
        try:
            await look()
        except Gone as error:
            await perdure.receive("go")
            if n == 1:
                raise
            return f"{error.code} {error.where}"  # type: ignore[attr-defined]
        except perdure.StepFailed:
            return "in words"
        return "found"

    return finds


async def test_fields_that_no_longer_fit_stall_the_run_until_the_code_is_mended(lab: Lab) -> None:
    """In words only it would go another way than it went, and nobody would notice."""
    old, wrong, mended = version(1), version(2), version(3)
    async with lab.doomed(old) as engine:
        await status(await engine.start(old, id="f"), "parked")
    async with lab.engine(wrong) as engine:
        await engine.handle("f").signal("go")
        row = await status(engine.handle("f"), "stalled")
        assert "failure 'Gone'" in row.problem
        assert "where" in row.problem
    async with lab.engine(mended) as engine:
        await engine.handle("f").resume()
        assert await engine.handle("f", mended).result() == "5 somewhere"


async def test_a_client_whose_class_has_other_fields_gets_the_words_and_the_reason(lab: Lab) -> None:
    old, wrong = version(1), version(2)
    async with lab.engine(old) as engine:
        handle = await engine.start(old, id="f")
        await handle.signal("go")
        with pytest.raises(perdure.Failure):
            await handle.result()
    async with lab.client() as client:
        with pytest.raises(perdure.ExecutionFailed) as caught:
            await client.handle("f", wrong).result()
    assert "It is not raised as Gone: " in caught.value.__notes__[0]


# --- secrets ---


class Leaks(perdure.Failure):
    account: str
    token: perdure.Secret[str]


CANARIES = ("canary-account-9gT", "canary-token-4kW", "canary-message-2pX")


@step(retry=None, raises=[Leaks])
async def leak() -> None:
    account, token, message = CANARIES
    raise Leaks(message, account=account, token=perdure.Secret(token)) from Leaks(
        message, account=account, token=perdure.Secret(token)
    )


@workflow(raises=[Leaks])
async def leaks() -> str:
    try:
        await leak()
    except Leaks as error:
        if error.token.reveal() != CANARIES[1]:
            return "another token"
        await perdure.receive("go")
        raise
    return "tight"


def found_in(folder: Path) -> set[str]:
    held = b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
    return {canary for canary in CANARIES if re.search(canary.encode(), held)}


async def test_fields_are_encrypted_where_values_are(tmp_path: Path, lab: Lab) -> None:
    codec = KeyRing({"k1": bytes(range(32))}, current="k1")
    async with lab.doomed(leaks, codec=codec) as engine:
        await status(await engine.start(leaks, id="l"), "parked")
    async with lab.engine(leaks, codec=codec) as engine:
        await engine.handle("l").signal("go")
        with pytest.raises(Leaks) as caught:
            await engine.handle("l", leaks).result()
        assert (caught.value.account, caught.value.token.reveal()) == CANARIES[:2]
        assert isinstance(caught.value.__cause__, Leaks)
        assert not found_in(tmp_path)
    assert not found_in(tmp_path)


async def test_a_secret_field_is_refused_where_nothing_encrypts(tmp_path: Path, lab: Lab) -> None:
    async with lab.engine(leaks) as engine:
        handle = await engine.start(leaks, id="l")
        with pytest.raises(perdure.ExecutionFailed, match="StepFailed"):
            await handle.result()
        failed = of_kind(await handle.journal(), ev.StepFailed)[0].failure
        assert "Secret" in failed.untyped
        assert failed.value is None
    assert found_in(tmp_path) == {CANARIES[2]}, "a message is text: who writes a secret into it has told it"


async def test_what_is_recorded_is_what_is_shown(lab: Lab) -> None:
    """The journal knows the type's full name for people, and the declared name for code."""
    async with lab.engine(pay) as engine:
        handle = await engine.start(pay, "stock", id="s")
        journal = await until(lambda: _failed(handle))
        assert kinds(journal).count("StepAttemptFailed") == 2
        failure = of_kind(journal, ev.StepFailed)[0].failure
        assert (failure.declared, failure.message) == ("OutOfStock", "only 2 of pears")
        assert failure.type.endswith("test_typed_failures.OutOfStock")
        await handle.terminate()


async def _failed(handle: perdure.Handle[Any]) -> Any:
    journal = await handle.journal()
    return journal if "StepFailed" in kinds(journal) else None
