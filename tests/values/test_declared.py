"""Declared failures as data: what is written of one and read again, of which class, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import enum
import pickle
from decimal import Decimal
from typing import Any, Self

import pydantic
import pytest

import perdure
from perdure.core.errors import (
    DecodeError,
    ExecutionFailed,
    InvalidDefinition,
    InvalidOption,
    StepFailed,
    UndeclaredFailure,
    UnsupportedType,
)
from perdure.core.events import FailureInfo, Payload
from perdure.workflow.failures import Raises
from perdure.workflow.values import codec_for, failure_info, secrets_pass


class Reason(enum.Enum):
    FUNDS = "funds"
    FRAUD = "fraud"


class Address(pydantic.BaseModel):
    city: str


@dataclasses.dataclass
class Line:
    item: str
    price: Decimal


class CardDeclined(perdure.Failure):
    code: str
    reason: Reason = Reason.FUNDS
    lines: list[Line] = dataclasses.field(default_factory=list)
    at: dt.datetime | None = None
    address: Address | None = None


class Sub(CardDeclined):
    more: int = 0


class OutOfStock(Exception):
    """An ordinary one, whose arguments are not those of its `__init__`."""

    left: Decimal
    line: Line | None

    def __init__(self, item: str, left: Decimal) -> None:
        super().__init__(f"no {item}")
        self.item, self.left, self.line = item, left, None


def crossed(error: BaseException, *declared: type[Exception]) -> Exception:
    """What comes of it on the other side."""
    raises = Raises(declared, "step", "s")
    return raises.as_declared(StepFailed(name="s", attempts=1, failure=raises.info(error)))


@pytest.mark.parametrize(
    "error",
    [
        CardDeclined(code="51"),
        CardDeclined("no funds", code="", reason=Reason.FRAUD, lines=[Line("pear", Decimal("1.10"))]),
        CardDeclined("ünïcode", code="x", at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), address=Address(city="Bern")),
        Sub(code="1", more=2),
    ],
)
def test_a_failure_comes_back_with_every_field(error: CardDeclined) -> None:
    back = crossed(error, CardDeclined, Sub)
    assert type(back) is type(error)
    for field in dataclasses.fields(error):
        assert getattr(back, field.name) == getattr(error, field.name)
    assert str(back) == str(error)


def test_other_exceptions_come_back_with_arguments_and_attributes() -> None:
    error = OutOfStock("pear", Decimal("0.5"))
    error.line = Line("pear", Decimal(2))
    error.seen = [1, {"a": (b"x", 2**70)}]  # type: ignore[attr-defined]
    back = crossed(error, OutOfStock)
    assert type(back) is OutOfStock
    assert vars(back).items() >= vars(error).items()
    assert back.args == error.args
    for plain in (ValueError("a", 2, None), KeyError("k"), TimeoutError(), ZeroDivisionError("x")):
        assert repr(crossed(plain, type(plain))) == repr(plain)
    missing = FileNotFoundError(2, "No such file", "/x")
    found = crossed(missing, FileNotFoundError)
    assert isinstance(found, FileNotFoundError)
    assert (str(found), found.filename, found.errno) == (str(missing), "/x", 2)


def test_only_the_declared_class_itself_crosses() -> None:
    """Neither a subclass nor a base of a declared one is declared."""
    for error, declared in ((Sub(code="1"), CardDeclined), (CardDeclined(code="1"), Sub), (KeyError("k"), LookupError)):
        back = crossed(error, declared)
        assert type(back) is StepFailed
        assert back.failure.type.endswith(type(error).__qualname__)


def test_a_failure_that_nobody_declared_says_how_it_is_declared() -> None:
    back = crossed(CardDeclined("no funds", code="51"), ValueError)
    assert type(back) is StepFailed
    assert "no funds" in str(back)
    assert "step 's' does not declare it: raises=[CardDeclined]" in back.__notes__[0]


# --- chains and groups ---


def test_causes_are_typed_where_they_are_declared_and_told_in_words_elsewhere() -> None:
    error = CardDeclined(code="1")
    error.__cause__ = OSError("line down")
    error.__cause__.__cause__ = OutOfStock("pear", Decimal(1))
    back = crossed(error, CardDeclined, OutOfStock)
    assert type(back) is CardDeclined
    assert type(back.__cause__) is UndeclaredFailure
    assert back.__cause__.failure.message == "line down"
    assert type(back.__cause__.__cause__) is OutOfStock
    plain = KeyError("k")
    plain.__cause__ = CardDeclined(code="2")
    failed = crossed(plain, CardDeclined)
    assert type(failed) is StepFailed
    assert isinstance(failed.__cause__, CardDeclined)
    assert failed.__cause__.code == "2"


def test_a_group_crosses_as_a_group_if_any_member_is_declared() -> None:
    inner = ExceptionGroup("inner (1 sub-exception)", [OutOfStock("x", Decimal(1))])
    back = crossed(ExceptionGroup("outer", [CardDeclined(code="1"), KeyError("k"), inner]), CardDeclined, OutOfStock)
    assert type(back) is ExceptionGroup
    assert back.message == "outer"
    assert [type(each) for each in back.exceptions] == [CardDeclined, UndeclaredFailure, ExceptionGroup]
    assert back.exceptions[2].message == "inner (1 sub-exception)"  # type: ignore[attr-defined]
    assert [type(each) for each in back.exceptions[2].exceptions] == [OutOfStock]  # type: ignore[attr-defined]
    assert type(crossed(ExceptionGroup("outer", [KeyError("k")]), CardDeclined)) is StepFailed


def test_what_has_come_from_elsewhere_goes_on_with_where_it_was_raised() -> None:
    """From a step through a workflow to its caller: the step's own lines are still told."""

    def somewhere_deep() -> None:
        raise CardDeclined("no", code="1") from OSError("gone")

    raises = Raises([CardDeclined], "step", "s")
    try:
        somewhere_deep()
    except CardDeclined as error:
        recorded = raises.info(error)
    try:
        raise raises.as_declared(StepFailed(name="s", attempts=1, failure=recorded))
    except CardDeclined as error:
        again = raises.info(error)
    assert "in somewhere_deep" in again.traceback
    assert "It was raised before, at:" in again.traceback
    assert again.value == recorded.value
    assert again.cause is not None
    assert (again.cause.type, again.cause.message) == ("OSError", "gone")


def test_fields_of_one_that_is_told_in_words_are_not_passed_on() -> None:
    """Another class of the same name, declared by who passes it on, must not be made of them."""

    def other() -> type[Exception]:
        class Other(perdure.Failure, name="CardDeclined"):
            code: str

        return Other

    theirs, ours = Raises([CardDeclined], "step", "s"), Raises([other()], "workflow", "w")
    failed = StepFailed(name="s", attempts=1, failure=theirs.info(CardDeclined("no", code="51")))
    passed_on = ours.info(failed)
    assert passed_on.cause is not None
    assert (passed_on.cause.declared, passed_on.cause.value) == ("", None)
    back = ours.as_declared(ExecutionFailed(execution="w", failure=passed_on))
    assert type(back.__cause__) is UndeclaredFailure


def test_chains_and_fields_are_bounded() -> None:
    chain: Exception = CardDeclined(code="0")
    for n in range(1, 40):
        error = CardDeclined(code=str(n))
        error.__cause__ = chain
        chain = error
    found: BaseException | None = crossed(chain, CardDeclined)
    codes = []
    while isinstance(found, CardDeclined):
        codes.append(found.code)
        found = found.__cause__
    assert codes == [str(n) for n in range(39, 30, -1)]

    first, second = CardDeclined(code="1"), CardDeclined(code="2")
    first.__cause__, second.__cause__ = second, first
    back = crossed(first, CardDeclined)
    assert isinstance(back.__cause__, CardDeclined)
    assert back.__cause__.__cause__ is None

    large = crossed(CardDeclined(code="x" * 70_000), CardDeclined)
    assert type(large) is StepFailed
    assert "70," in large.__notes__[0]
    assert "at most 65,536" in large.__notes__[0]
    group = ExceptionGroup("g", [CardDeclined(code="x" * 30_000) for _ in range(5)])
    halves = crossed(group, CardDeclined)
    assert isinstance(halves, ExceptionGroup)
    assert [type(each) for each in halves.exceptions] == [CardDeclined] * 2 + [UndeclaredFailure] * 3


def test_what_is_told_over_many_hops_does_not_grow() -> None:
    """Each hop tells the failure before as the cause of its own."""
    info = failure_info(ValueError("x" * 5_000))
    for n in range(40):
        info = failure_info(ExecutionFailed(execution=str(n), failure=info))
    depth, link = 0, info.cause
    while link is not None:
        link, depth = link.cause, depth + 1
    assert depth <= 9
    assert len(codec_for(Any, "x").encode(repr(info), "x").data) < 200_000


# --- never a wrong one ---


def test_the_bytes_name_no_class() -> None:
    """A name that is not declared, or no name at all, makes nothing, whatever class there is of it."""
    raises = Raises([CardDeclined], "step", "s")
    info = raises.info(CardDeclined(code="1"))
    for name in ("OutOfStock", "builtins.SystemExit", "tests.values.test_declared.CardDeclined", "Sub"):
        with pytest.raises(DecodeError, match="does not declare it any more"):
            raises.read(FailureInfo(info.type, "m", value=info.value, declared=name))
    assert raises.read(FailureInfo(info.type, "m", value=info.value)) is None
    assert raises.read(FailureInfo(info.type, "m", declared="CardDeclined")) is None


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x80", b"\x81\xa4code\x05", b"\xff" * 20, b"\x93\x01\x02\x03"])
@pytest.mark.parametrize("cls", [CardDeclined, OutOfStock])
def test_fields_that_do_not_fit_make_nothing(cls: type[Exception], data: bytes) -> None:
    raises = Raises([cls], "workflow", "w")
    info = FailureInfo("x", "it was", value=Payload(data), declared=cls.__name__)
    with pytest.raises(DecodeError, match=cls.__name__):
        raises.as_declared(ExecutionFailed(execution="e", failure=info))
    outside = raises.as_declared_outside(ExecutionFailed(execution="e", failure=info))
    assert type(outside) is ExecutionFailed
    assert f"It is not raised as {cls.__name__}: " in outside.__notes__[0]


def test_what_cannot_be_kept_is_told_in_words_with_the_reason() -> None:
    wrong = CardDeclined("no", code=5)  # type: ignore[arg-type]
    back = crossed(wrong, CardDeclined)
    assert type(back) is StepFailed
    assert "$.code" in back.__notes__[0]
    held = ValueError(object())
    assert "$[0] " in crossed(held, ValueError).__notes__[0]
    broken = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")
    with pytest.raises(InvalidDefinition, match=r"'\w+' of UnicodeDecodeError"):
        crossed(broken, UnicodeDecodeError)


class Picky(Exception):
    def __new__(cls, *args: Any) -> Self:
        if args == ("bad",):
            raise RuntimeError("not this")
        return super().__new__(cls, *args)


def test_a_class_that_cannot_be_made_again_is_told_in_words() -> None:
    error = Picky("good")
    error.args = ("bad",)
    back = crossed(error, Picky)
    assert type(back) is StepFailed
    assert "RuntimeError" in back.__notes__[0]


# --- secrets ---


class Refused(perdure.Failure):
    token: perdure.Secret[str]


def test_secrets_are_kept_only_where_values_are_encrypted() -> None:
    error = Refused("no", token=perdure.Secret("swordfish"))
    assert "swordfish" not in repr(error)
    clear = crossed(error, Refused)
    assert type(clear) is StepFailed
    assert "swordfish" not in str(clear.failure)
    assert "Secret" in clear.__notes__[0]
    with secrets_pass(when=True):
        back = crossed(error, Refused)
    assert isinstance(back, Refused)
    assert back.token.reveal() == "swordfish"


# --- as the code changes ---


def version(n: int) -> type[perdure.Failure]:
    if n == 1:

        class Gone(perdure.Failure, name="Gone"):
            code: int
            note: str = ""

        return Gone
    if n == 2:  # widened, one added with a default, one removed

        class Lost(perdure.Failure, name="Gone"):
            code: int | str
            where: str = "somewhere"

        return Lost

    class Needs(perdure.Failure, name="Gone"):
        code: int
        where: str

    return Needs


def test_fields_may_be_added_removed_and_widened() -> None:
    old, new = version(1), version(2)
    info = Raises([old], "step", "s").info(old("m", code=5, note="n"))
    back: Any = Raises([new], "step", "s").read(info)
    assert type(back) is new
    assert (back.message, back.code, back.where) == ("m", 5, "somewhere")
    with pytest.raises(DecodeError, match="where"):
        Raises([version(3)], "step", "s").read(info)


# --- declarations ---


class Slotted(Exception):
    __slots__ = ("place",)


def two_of_a_name() -> list[type[Exception]]:
    def other() -> type[Exception]:
        class Other(perdure.Failure, name="CardDeclined"):
            pass

        return Other

    return [CardDeclined, other()]


@pytest.mark.parametrize(
    ("declared", "error", "words"),
    [
        (CardDeclined, InvalidOption, "a list of exception classes"),
        ("CardDeclined", InvalidOption, "a list of"),
        ([CardDeclined(code="1")], InvalidOption, "exception classes"),
        ([KeyboardInterrupt], InvalidOption, "no CancelledError"),
        ([int], InvalidOption, "exception classes"),
        ([Exception], InvalidDefinition, "only if it is declared itself"),
        ([ExceptionGroup], InvalidDefinition, "Declare what is in it"),
        ([perdure.StepFailed], InvalidDefinition, "an exception of your own"),
        ([StopIteration], InvalidDefinition, "an exception of your own"),
        ([Slotted], InvalidDefinition, "'place' of Slotted"),
        ([ImportError], InvalidDefinition, "of ImportError"),
        (two_of_a_name(), InvalidDefinition, "both call 'CardDeclined'"),
    ],
)
def test_a_bad_declaration_is_refused_when_decorated(declared: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):

        @perdure.step(raises=declared)
        async def s() -> None: ...

    with pytest.raises(error, match=words):

        @perdure.workflow(raises=declared)
        async def w() -> None: ...


def test_a_field_that_nobody_can_encode_is_refused_when_decorated() -> None:
    class Holds(perdure.Failure):
        it: perdure.Client

    with pytest.raises(UnsupportedType, match="Client"):
        perdure.step(raises=[Holds])(test_a_field_that_nobody_can_encode_is_refused_when_decorated)


def test_a_failure_has_no_init_of_its_own_and_no_field_of_exceptions() -> None:
    with pytest.raises(InvalidDefinition, match="__post_init__"):

        class Own(perdure.Failure):
            def __init__(self) -> None: ...

    with pytest.raises(InvalidDefinition, match="mutable default"):

        class Shared(perdure.Failure):
            seen: list[str] = []  # noqa: RUF012 - what is refused

    with pytest.raises(InvalidDefinition, match="'args'"):

        class Args(perdure.Failure):
            args: int  # type: ignore[assignment]


def test_a_failure_is_an_exception_with_fields() -> None:
    error = CardDeclined("no funds", code="51")
    assert str(error) == "no funds"
    assert str(CardDeclined(code="51")).startswith("code='51', reason=")
    assert error != CardDeclined("no funds", code="51")
    for same in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own bytes
        assert repr(same) == repr(error)
    with pytest.raises(TypeError, match="code"):
        CardDeclined("no funds")  # type: ignore[call-arg]
