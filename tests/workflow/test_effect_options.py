"""The options of steps that must not be repeated: checked when decorated, with what to write instead."""

from __future__ import annotations

import functools
from typing import Any

import pytest

import perdure
from perdure import Retry, step
from perdure.core.errors import InvalidDefinition, InvalidOption


async def ask(key: str, *args: Any) -> perdure.Happened[str]:
    return perdure.Happened("")


async def charge(card: str, cents: int) -> str:
    return ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"once": "yes"}, "once='yes' is not valid. Expected True or False"),
        ({"once": True, "on_unknown": "ignore"}, "Expected 'park' or 'raise'"),
        ({"once": True, "not_happened": OSError}, "Expected a list of exception classes"),
        ({"once": True, "not_happened": ["OSError"]}, "Expected a list of exception classes"),
        ({"once": True, "not_happened": [OSError()]}, "Expected a list of exception classes"),
        ({"once": True, "not_happened": [BaseException]}, "no CancelledError"),
        ({"once": True, "not_happened": [KeyboardInterrupt]}, "no KeyboardInterrupt"),
        ({"once": True, "reconcile": "ask"}, "Expected a function of the idempotency key and the step's arguments"),
        ({"reconcile": ask}, "Expected once=True beside it"),
        ({"not_happened": [OSError]}, "Expected once=True beside it"),
        ({"on_unknown": "raise"}, "Expected once=True beside it"),
        ({"on_unknown": "park"}, "Expected once=True beside it"),
        ({"once": False, "on_unknown": "raise"}, "Expected once=True beside it"),
        ({"once": True, "retry": 3}, r"Expected not_happened=\[...\] or reconcile=f beside it"),
        ({"once": True, "retry": Retry(attempts=None)}, "no attempt that failed is tried again"),
    ],
)
def test_what_makes_no_sense_is_refused_at_import(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        step(**options)(charge)
    with pytest.raises(InvalidOption, match=said):
        step(charge).with_options(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"once": True},
        {"once": True, "retry": None},
        {"once": True, "retry": 1},
        {"once": True, "retry": 3, "not_happened": [OSError]},
        {"once": True, "retry": 3, "reconcile": ask},
        {"once": True, "on_unknown": "raise", "not_happened": (OSError, ValueError), "reconcile": ask},
        {"once": True, "not_happened": [Exception]},
        {"once": True, "not_happened": [], "reconcile": None},
        {"once": False},
    ],
)
def test_what_makes_sense_is_taken(options: dict[str, Any]) -> None:
    made: Any = step(**options)(charge)
    assert made.options.once is options["once"]
    assert made.options.not_happened == tuple(options.get("not_happened", ()))
    assert step(charge).with_options(**options).options == made.options  # type: ignore[call-overload]


def test_options_of_a_call_are_held_against_those_of_the_step() -> None:
    plain: Any = step(charge)
    once: Any = step(once=True, not_happened=[OSError])(charge)
    assert plain.with_options(once=True, on_unknown="raise").options.on_unknown == "raise"
    assert once.with_options(timeout=5).options.once
    assert once.with_options(retry=5).options.retry.attempts == 5
    with pytest.raises(InvalidOption, match="Expected once=True beside it"):
        once.with_options(once=False)
    assert not once.with_options(once=False, not_happened=[]).options.once
    assert once.options.once, "the step itself is as it was"


def one_more(key: str, card: str, cents: int, extra: str) -> Any: ...
def too_few(key: str, card: str) -> Any: ...
def other_names(key: str, a: str, b: int) -> Any: ...
def by_name(key: str, *, card: str, cents: int) -> Any: ...
def with_default(key: str, card: str, cents: int, log: bool = False) -> Any: ...  # noqa: FBT001, FBT002 - as people write


class Asker:
    def __call__(self, key: str, card: str, cents: int) -> Any: ...


@pytest.mark.parametrize(
    "reconcile", [ask, other_names, with_default, Asker(), functools.partial(ask), lambda *_: None]
)
def test_reconcile_takes_the_key_and_the_arguments(reconcile: Any) -> None:
    assert step(once=True, reconcile=reconcile)(charge).options.reconcile is reconcile


@pytest.mark.parametrize("reconcile", [one_more, too_few, by_name, lambda: None])
def test_reconcile_that_cannot_be_called_so_is_refused_at_import(reconcile: Any) -> None:
    with pytest.raises(InvalidDefinition, match=r"cannot be called with the key and the arguments of the step") as told:
        step(once=True, reconcile=reconcile)(charge)
    assert "(card: 'str', cents: 'int')" in str(told.value)
    with pytest.raises(InvalidDefinition):
        step(once=True)(charge).with_options(reconcile=reconcile)


def test_arguments_by_name_reach_reconcile_by_name() -> None:
    async def pay(*, cents: int) -> str:
        return ""

    def asked(key: str, *, cents: int) -> Any: ...
    def wrong(key: str, cents_: int) -> Any: ...

    step(once=True, reconcile=asked)(pay)
    with pytest.raises(InvalidDefinition):
        step(once=True, reconcile=wrong)(pay)


def test_of_a_method_reconcile_gets_no_instance() -> None:
    class Bank:
        @step(once=True, reconcile=other_names)
        async def charge(self, card: str, cents: int) -> str:  # noqa: ARG002 - as a user writes it
            return ""

    assert Bank().charge.options.reconcile is other_names


def test_a_transaction_is_exactly_once_already() -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    bank = perdure.Datasource(sqlalchemy.create_engine("sqlite://"))

    @perdure.transaction(bank)
    def move(connection: sqlalchemy.Connection, cents: int) -> int:
        return cents

    with pytest.raises(TypeError, match="once"):
        perdure.transaction(bank, once=True)  # type: ignore[call-overload]
    with pytest.raises(InvalidOption, match="a transaction happens exactly once"):
        move.with_options(once=True)
