"""What was recorded under one annotation is read under the next one; what is sent untyped, under the receiver's."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from decimal import Decimal
from typing import Any, Optional
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest

from perdure.core.errors import DecodeError, EncodeError, PayloadTooLarge, UnsupportedType
from perdure.workflow import values_codec
from perdure.workflow.values import codec_for, encode_untyped


class Colour(enum.Enum):
    RED = "red"


FIELDS: dict[str, Any] = {
    "number": int,
    "big": int,
    "text": str,
    "data": bytes,
    "when": dt.datetime,
    "naive": Optional[dt.datetime],  # noqa: UP045
    "day": dt.date,
    "span": dt.timedelta,
    "money": Decimal,
    "id": UUID,
    "colour": Colour,
    "tags": set[str],
    "pair": tuple[int, str],
    "scores": dict[int, float],
}
VALUES: dict[str, Any] = {
    "number": 1,
    "big": 2**70,
    "text": "naïve \ud83d",
    "data": b"\xff\x00",
    "when": dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    "naive": dt.datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001
    "day": dt.date(2026, 1, 2),
    "span": dt.timedelta(days=-1, microseconds=5),
    "money": Decimal("1.10"),
    "id": UUID(int=5),
    "colour": Colour.RED,
    "tags": {"b", "a"},
    "pair": (1, "x"),
    "scores": {1: 0.5, 2: float("inf")},
}

Data = dataclasses.make_dataclass("Data", list(FIELDS.items()))
Shape = msgspec.defstruct("Shape", list(FIELDS.items()))
Attrs = attrs.make_class("Attrs", {name: attrs.field(type=kind) for name, kind in FIELDS.items()})
Model = pydantic.create_model("Model", **{name: (kind, ...) for name, kind in FIELDS.items()})  # type: ignore[call-overload]
KINDS = {"dataclass": Data, "struct": Shape, "attrs": Attrs, "pydantic": Model}

LEFT_OUT = {"big": 5, "text": "naïve", "scores": {1: 0.5}, "when": dt.datetime(2026, 1, 2, tzinfo=dt.UTC)}


@pytest.mark.parametrize("values", [VALUES, VALUES | LEFT_OUT], ids=["hard", "easy"])
@pytest.mark.parametrize("before", KINDS)
@pytest.mark.parametrize("after", KINDS)
def test_a_model_may_be_written_by_one_library_and_read_by_another(
    before: str, after: str, values: dict[str, Any]
) -> None:
    payload = codec_for(KINDS[before], "it").encode(KINDS[before](**values), "it")
    decoded = codec_for(KINDS[after], "it").decode(payload, "it")
    assert type(decoded) is KINDS[after]
    assert {name: getattr(decoded, name) for name in FIELDS} == values


def test_a_pydantic_model_is_json_as_long_as_json_carries_it() -> None:
    class Note(pydantic.BaseModel):
        text: str
        score: float = 0.0
        any: Any = None

    codec = codec_for(Note, "it")
    assert codec.content_type == "json"
    assert codec.encode(Note(text="a", score=1), "it").content_type == "json"
    for hard in [
        Note(text="\ud800"),
        Note(text="a", score=float("-inf")),
        Note(text="a", any={1: (2,)}),
        Note(text="a", any=b"bytes"),
    ]:
        payload = codec.encode(hard, "it")
        assert payload.content_type == "msgpack"
        assert codec.decode(payload, "it") == hard


def test_aliases_computed_fields_and_nested_json_come_back() -> None:
    class Odd(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        a: int = pydantic.Field(alias="A")
        b: int = pydantic.Field(validation_alias="bee", serialization_alias="BEE")
        c: pydantic.Json[list[int]]

        @pydantic.computed_field
        def total(self) -> int:
            return self.a + self.b

    odd = Odd(A=1, bee=2, c="[3]")  # type: ignore[arg-type]
    codec = codec_for(list[Odd], "it")
    assert codec.decode(codec.encode([odd], "it"), "it") == [odd]


def test_a_field_that_came_later_takes_its_default_and_one_that_is_gone_is_passed_over() -> None:
    before = dataclasses.make_dataclass("Before", [("x", int), ("y", int)])
    after = dataclasses.make_dataclass("After", [("x", int), ("z", str, "new")])
    payload = codec_for(before, "it").encode(before(1, 2), "it")
    assert codec_for(after, "it").decode(payload, "it") == after(1)


def test_a_field_that_came_later_without_a_default_is_refused() -> None:
    before = dataclasses.make_dataclass("Before", [("x", int)])
    after = dataclasses.make_dataclass("After", [("x", int), ("z", str)])
    payload = codec_for(list[before], "it").encode([before(1)], "it")  # type: ignore[valid-type]
    with pytest.raises(DecodeError, match=r"\$\[0\] Object missing required field `z`"):
        codec_for(list[after], "it").decode(payload, "it")  # type: ignore[valid-type]


def test_a_class_whose_field_names_a_later_class_is_looked_at_again() -> None:
    codec = codec_for(Early, "it")
    globals()["Late"] = dataclasses.make_dataclass("Late", [("x", int)])
    try:
        value = Early(globals()["Late"](1))
        assert codec.decode(codec.encode(value, "it"), "it") == value
    finally:
        del globals()["Late"]


@dataclasses.dataclass
class Early:
    late: Late  # type: ignore[name-defined]  # noqa: F821


def test_a_class_whose_field_names_nothing_is_refused_at_first_use() -> None:
    @dataclasses.dataclass
    class Lost:
        late: Nowhere  # type: ignore[name-defined]  # noqa: F821

    codec = codec_for(list[Lost], "it")
    with pytest.raises(UnsupportedType, match="Nowhere"):
        codec.encode([], "the result of step 's'")


# --- what is sent to a receiver who knows the type ----------------------------------------------------------------


@dataclasses.dataclass
class Decision:
    approved: bool
    by: tuple[str, ...] = ()


class Verdict(pydantic.BaseModel):
    approved: bool
    tags: set[str] = set()


SENT: list[tuple[Any, Any, Any]] = [
    (True, bool, True),
    (Decision(approved=True, by=("a",)), Decision, Decision(approved=True, by=("a",))),
    (
        [Decision(approved=True), Decision(approved=False)],
        list[Decision],
        [Decision(approved=True), Decision(approved=False)],
    ),
    (
        {"a": (Decision(approved=True), {1})},
        dict[str, tuple[Decision, set[int]]],
        {"a": (Decision(approved=True), {1})},
    ),
    (Verdict(approved=True, tags={"a"}), Verdict, Verdict(approved=True, tags={"a"})),
    ([Verdict(approved=True)], list[Verdict], [Verdict(approved=True)]),
    (Verdict(approved=True), Decision, Decision(approved=True)),
    (Decision(approved=True), dict[str, Any], {"approved": True, "by": []}),
    (Colour.RED, Colour, Colour.RED),
    (dt.datetime(2026, 1, 1), dt.datetime, dt.datetime(2026, 1, 1)),  # noqa: DTZ001
    (2**70, int, 2**70),
    ("\ud800", str, "\ud800"),
    ((1, 2), list[int], [1, 2]),
]


@pytest.mark.parametrize("sent", SENT, ids=[str(n) for n in range(len(SENT))])
def test_a_message_is_read_with_the_receivers_annotation(sent: tuple[Any, Any, Any]) -> None:
    value, annotation, expected = sent
    decoded = codec_for(annotation, "it").decode(encode_untyped(value, "signal 's'"), "it")
    assert (type(decoded), decoded) == (type(expected), expected)


def test_a_message_that_is_no_data_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (object(), [object()], {"a": Decision(approved=object())}, len):  # type: ignore[arg-type]
        with pytest.raises(EncodeError, match="signal 's'"):
            encode_untyped(value, "signal 's'")
    monkeypatch.setattr(values_codec, "MAX_PAYLOAD_BYTES", 10)
    with pytest.raises(PayloadTooLarge):
        encode_untyped([Decision(approved=True)], "signal 's'")
