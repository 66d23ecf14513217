"""Answers looked at without code: what cannot be of the type is refused, what may be is not."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.values.grammar import LEAVES

from perdure.runtime.schemas import MAX_DEPTH, mismatch
from perdure.workflow.asks import _schema
from perdure.workflow.values import codec_for


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str


class Node(pydantic.BaseModel):
    value: int
    children: list[Node] = []
    kind: Literal["a", "b"] = "a"


@dataclass
class Form:
    when: dt.datetime
    money: Decimal
    id: UUID
    data: bytes
    tags: set[str]
    colour: Colour = Colour.RED
    pet: Cat | Dog | None = None


def refusal(type_: Any, value: Any) -> str:
    payload = _schema(type_)
    assert payload is not None
    return mismatch(codec_for(Any, "x").decode(payload, "x"), value)


FORM = Form(dt.datetime(2026, 1, 1), Decimal("1.1"), UUID(int=5), b"x", {"a"}, Colour.BLUE, Cat(9))  # noqa: DTZ001 - any


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (int, 5),
        (float, 5),
        (float, 0.5),
        (bool, False),
        (str, ""),
        (str | None, None),
        (list[int], [1, 2]),
        (tuple[int, str], (1, "x")),
        (dict[str, int], {"a": 1}),
        (dict[int, int], {1: 1}),
        (Literal["a", 1], 1),
        (Colour, "red"),
        (Cat | Dog, {"type": "Dog", "name": "Rex"}),
        (Node, {"value": 1, "children": [{"value": 2, "kind": "b"}]}),
        (Any, object()),
    ],
)
def test_what_may_be_of_the_type_passes(type_: Any, value: Any) -> None:
    assert refusal(type_, value) == ""


def test_what_json_has_no_word_for_passes_as_it_is_encoded() -> None:
    payload = codec_for(Form, "x").encode(FORM, "x")
    assert refusal(Form, codec_for(Any, "x").decode(payload, "x")) == ""
    assert codec_for(Form, "x").decode(payload, "x") == FORM


@pytest.mark.parametrize(
    ("type_", "value", "words"),
    [
        (int, "5", "$ is '5', not integer"),
        (int, True, "$ is True, not integer"),
        (int, 1.5, "$ is 1.5, not integer"),
        (bool, 1, "$ is 1, not boolean"),
        (str, 5, "$ is 5, not string"),
        (list[int], "abc", "$ is 'abc', not array"),
        (list[int], [1, "x"], "$[1] is 'x', not integer"),
        (Literal["yes", "no"], "maybe", "$ is 'maybe', not one of 'no', 'yes'"),
        (Literal[1], True, "$ is True, not 1"),
        (Node, {}, "$ lacks 'value'"),
        (Node, {"value": 1, "children": [{"value": "x"}]}, "$.children[0].value is 'x', not integer"),
        (Node, None, "$ is None, not object"),
        (Cat | Dog, {"type": "Cow"}, "$ is {'type': 'Cow'}, which fits none of the types there"),
    ],
)
def test_what_cannot_be_of_the_type_is_named_with_its_place(type_: Any, value: Any, words: str) -> None:
    assert refusal(type_, value) == words


def test_what_is_unknown_or_endless_is_left_to_code() -> None:
    assert mismatch({"type": "quaternion"}, 1) == ""
    assert mismatch({"$ref": "#/$defs/gone"}, 1) == ""
    assert mismatch({"$ref": "#/$defs/self", "$defs": {"self": {"$ref": "#/$defs/self"}}}, 1) == ""
    deep: Any = 1
    for _ in range(3 * MAX_DEPTH):
        deep = [deep]
    assert (
        mismatch(
            {"$ref": "#/$defs/n", "$defs": {"n": {"type": ["array", "integer"], "items": {"$ref": "#/$defs/n"}}}}, deep
        )
        == ""
    )


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_value_of_a_type_is_refused_as_one_of_it(data: st.DataObject) -> None:
    """Whatever the decoder takes, as it arrives, must pass."""
    kind, values = data.draw(st.sampled_from(LEAVES))
    if data.draw(st.booleans()):
        kind, values = list[kind], st.lists(values, max_size=3)  # type: ignore[valid-type]
    value = data.draw(values)
    schema = _schema(kind)
    if schema is None:
        return
    payload = codec_for(kind, "x").encode(value, "x")
    arrived = codec_for(Any, "x").decode(payload, "x")
    assert mismatch(codec_for(Any, "x").decode(schema, "x"), arrived) == ""
