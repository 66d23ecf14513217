"""Aliases that name themselves, above all the JSON that models answer with: known when decorated."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Optional, Union

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import TypeAliasType

import perdure
from perdure.core.errors import DecodeError, EncodeError, InvalidDefinition, UnsupportedType
from perdure.core.events import Payload
from perdure.workflow.values import Arguments, codec_for

Json = Union[dict[str, "Json"], list["Json"], str, int, float, bool, None]  # noqa: UP007 - as most write it
Short = dict[str, "Short"] | list["Short"] | int
Object = dict[str, "Value"]
Value = Union[Object, list["Value"], str, None]  # noqa: UP007 - as most write it
Tree = list[tuple[str, Optional["Tree"]]]
Named = TypeAliasType("Named", dict[str, "Named"] | list["Named"] | int | None)

jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def same(value: Any, annotation: Any) -> Any:
    codec = codec_for(annotation, "it")
    return codec.decode(codec.encode(value, "it"), "it")


@settings(max_examples=200, deadline=None)
@given(jsons)
def test_json_comes_back_as_it_was(value: Any) -> None:
    assert repr(same(value, Json)) == repr(value)
    assert repr(same({"a": value}, dict[str, Json])) == repr({"a": value})
    assert repr(same(value, pydantic.JsonValue)) == repr(value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Short, {"a": [1, {"b": 2}]}),
        (Object, {"a": ["x", None, {"b": "c"}]}),
        (Value, [{"a": []}]),
        (Tree, [("a", [("b", None)]), ("c", None)]),
        (Named, {"a": [1, None]}),
        (list[Json], [{"a": 1}, None]),
        (Annotated[Json, "a fact"], [1]),
        (tuple[Json, Tree], ({"a": 1}, [("b", None)])),
        (Json, [math.inf, 2**80, "\ud800"]),
    ],
    ids=range(9),
)
def test_aliases_of_every_shape_are_known(annotation: Any, value: Any) -> None:
    assert same(value, annotation) == value


def test_functions_may_name_them_in_any_place() -> None:
    def ask(a: Json, b: list[Json], *more: Tree, **named: Object) -> Json: ...

    arguments = Arguments(ask)
    args, kwargs = ({"a": [1]}, [None, {"b": True}], [("x", None)]), {"z": {"k": ["v"]}}
    payload, _ = arguments.encode(args, kwargs, "it")
    assert arguments.decode(payload, "it") == (args, kwargs)


def test_an_alias_that_is_local_to_a_function_is_known() -> None:
    Local = Union[dict[str, "Local"], int]  # type: ignore[misc]  # noqa: N806, UP007 - as a module has it
    assert same({"a": {"b": 1}}, Local) == {"a": {"b": 1}}


def test_what_does_not_fit_is_refused() -> None:
    for value in (object(), {1: 2}, (1, 2), b"x", {"a": {1}}, [float]):
        with pytest.raises(EncodeError):
            codec_for(Json, "it").encode(value, "it")
    with pytest.raises(DecodeError):
        codec_for(Short, "it").decode(Payload(b'{"a": ["text"]}', "json"), "it")
    with pytest.raises(DecodeError):
        codec_for(Tree, "it").decode(Payload(b'[["a", 1]]', "json"), "it")


def test_one_that_names_nothing_is_refused_at_first_use() -> None:
    with pytest.raises(UnsupportedType, match="Nowhere"):
        codec_for(list["Nowhere"], "it").encode([], "it")  # type: ignore[name-defined]  # noqa: F821


def test_it_needs_pydantic_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    Bare = Union[list["Bare"], int]  # type: ignore[misc]  # noqa: N806, UP007
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(UnsupportedType, match="or install pydantic"):
        codec_for(Bare, "it")


# --- what can never be recorded is refused when it is decorated ---


def numbers() -> Iterator[int]:
    yield 1


async def answers() -> Any:
    yield 1


class Numbers:
    def __call__(self) -> Any:
        yield 1


@dataclasses.dataclass
class Page:
    text: str


class Login(pydantic.BaseModel):
    token: pydantic.SecretStr


@pytest.mark.parametrize(
    ("fn", "reason"),
    [(numbers, "generator"), (answers, "generator"), (Numbers(), "generator"), (Page, "class"), (3, "called")],
)
def test_a_step_that_has_no_result_to_record_is_refused(fn: Any, reason: str) -> None:
    for decorate in (perdure.step, perdure.step(name="s"), perdure.step(once=True, name="s")):
        with pytest.raises(InvalidDefinition, match=reason):
            decorate(fn)


def test_a_secret_of_pydantics_is_refused_before_it_could_be_lost() -> None:
    async def login() -> Login: ...

    with pytest.raises(UnsupportedType, match="Login"):
        perdure.step(login)
