"""Any type read as any other: what comes of it says what was recorded, by a judge that shares nothing with the code."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Any, Optional

import msgspec
import pydantic
import pytest
from grammar import LEAVES as ALL
from grammar import PYDANTIC_LEAVES, identical, make_attrs, make_dataclass, make_pydantic
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from perdure.core.errors import DecodeError, EncodeError
from perdure.workflow.values import codec_for

LOOKALIKES = ["1", "0", "5", "-7", "1.5", "1e3", "true", "null", "nan", "", "YWI=", "P1D", "12:30", "1700000000"]
LOOKALIKES += ["2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00:00Z", "2026-01-01 10:00", str(uuid.UUID(int=7))]
LEAVES = [(kind, values) for kind, values in ALL if kind is not Any]
LEAVES = [(kind, values | st.sampled_from(LOOKALIKES)) if kind is str else (kind, values) for kind, values in LEAVES]

PYDANTIC = [leaf for leaf in PYDANTIC_LEAVES[:-4] if leaf[0] not in (Any, complex)]


def make_struct(fields: dict[str, Any]) -> type:
    return msgspec.defstruct("MadeStruct", list(fields.items()))


MAKERS = [make_dataclass, make_struct, make_attrs, make_pydantic]
WRAPPERS: list[tuple[Any, Any, Any]] = [
    (lambda t: t, lambda v: v, lambda v: v),
    (lambda t: list[t], lambda v: [v], lambda v: v[0]),  # type: ignore[valid-type]
    (lambda t: dict[str, t], lambda v: {"k": v}, lambda v: v["k"]),  # type: ignore[valid-type]
    (lambda t: Optional[t], lambda v: v, lambda v: v),  # noqa: UP045
]


def says(old: Any, new: Any) -> bool:
    """Whether both are the same datum, in whatever types."""
    old, new = (each.value if isinstance(each, enum.Enum) else each for each in (old, new))
    if identical(old, new):
        return True
    if isinstance(old, bool) or isinstance(new, bool) or old is None or new is None:
        return False
    if isinstance(old, int | float | Decimal) and isinstance(new, int | float | Decimal):
        with contextlib.suppress(ArithmeticError):  # a signalling NaN
            return bool(old == new) or (isinstance(new, Decimal) and Decimal(str(old)) == new)
        return False
    if isinstance(old, bytes | bytearray) and isinstance(new, bytes | bytearray):
        return bytes(old) == bytes(new)
    if isinstance(new, bytes) and not isinstance(old, str):  # of the text that it was written as; JSON has no others
        return says(old, new.decode("utf-8", "replace")) or says(old, base64.b64encode(new).decode())
    if isinstance(old, list | tuple | set | frozenset) and isinstance(new, list | tuple | set | frozenset):
        return len(old) == len(new) and all(any(says(one, other) for other in new) for one in old)
    if isinstance(old, bytes) and isinstance(new, str):
        return False
    if isinstance(old, str) != isinstance(new, str):
        return spells(old, new) if isinstance(old, str) else spells(new, old)
    return isinstance(old, dt.datetime) and isinstance(new, dt.datetime) and old == new and bool(old.tzinfo)


def spells(text: str, value: Any) -> bool:
    with contextlib.suppress(ValueError, ArithmeticError, msgspec.ValidationError):
        match value:
            case dt.datetime():
                return "T" in text and dt.datetime.fromisoformat(text) == value
            case dt.date() | dt.time():
                return type(value).fromisoformat(text) == value
            case dt.timedelta():
                return bool(pydantic.TypeAdapter(dt.timedelta).validate_json(f'"{text}"') == value)
            case uuid.UUID():
                return uuid.UUID(text) == value
            case Decimal():
                return str(value) == str(Decimal(text))
            case bytes() | bytearray():
                return text.encode() == value or base64.b64decode(text, validate=True) == value
    return False


@pytest.mark.parametrize("make_old", MAKERS)
@pytest.mark.parametrize("make_new", MAKERS)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_is_read_says_what_was_recorded(make_old: Any, make_new: Any, data: st.DataObject) -> None:
    before, values = data.draw(st.sampled_from(LEAVES if make_old is not make_pydantic else PYDANTIC))
    after, _ = data.draw(st.sampled_from(LEAVES if make_new is not make_pydantic else PYDANTIC))
    wrap, put, take = data.draw(st.sampled_from(WRAPPERS))
    old = make_old({"first": wrap(before), "second": int})
    fields = {"first": wrap(after)} | ({"second": int} if data.draw(st.booleans()) else {})
    given_value = data.draw(values)
    try:
        payload = codec_for(old, "it").encode(old(first=put(given_value), second=1), "it")
        found = take(codec_for(make_new(fields), "it").decode(payload, "it").first)
    except (DecodeError, EncodeError):
        event("refused")
        return
    event("read")
    assert says(given_value, found), (given_value, found)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *[(1, True), (True, 1), ("5", 5), (5, "5"), (None, 0), ("", None), (b"x", "x"), ([1, 1], {1}), ("1", True)],
        (dt.date(2026, 1, 1), dt.datetime(2026, 1, 1)),  # noqa: DTZ001
        (5, dt.timedelta(seconds=5)),
        (2**60 + 1, float(2**60 + 1)),
    ],
    ids=range(12),
)
def test_the_judge_knows_a_wrong_value(old: Any, new: Any) -> None:
    assert not says(old, new)
