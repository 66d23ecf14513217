"""Digests: equal for equal values, in every process; and payloads that do not depend on the hash seed either."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from grammar import plain_data
from hypothesis import given, settings

from perdure.core.events import Payload
from perdure.workflow.values import Arguments, codec_for, digest

SCRIPT = """
import dataclasses, enum, typing, pydantic, msgspec
from perdure.workflow.values import Arguments, codec_for

class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"
    GREEN = "green"

@dataclasses.dataclass
class Tagged:
    tags: set[str]
    more: dict[typing.Any, typing.Any]

class Model(pydantic.BaseModel):
    tags: frozenset[str]
    more: dict[str, typing.Any]

class Wide(msgspec.Struct):
    colours: set[Colour]
    groups: set[frozenset[str]]

words = {"one", "two", "three", "four", "five"}
groups = {frozenset({"a", "b"}), frozenset({"c", "d"}), frozenset({"e", "f", "g"})}
more = {"b": words, "a": [(1, words)], 3: {None, "x", 2}}
for annotation, value in [
    (typing.Any, more),
    (set[str], words),
    (set[frozenset[str]], groups),
    (dict[str, set[str]], {"z": words, "a": words}),
    (Tagged, Tagged(words, more)),
    (Model, Model(tags=words, more={"b": words, "a": 1})),
    (Wide, Wide(set(Colour), groups)),
    (set[str], words | {"\\ud800"}),
]:
    codec = codec_for(annotation, "it")
    payload = codec.encode(value, "it")
    print(payload.content_type, payload.data.hex(), codec.digest(payload).hex())

def fn(a: set[str], b: Model, *c: typing.Any) -> None: ...
payload, digest = Arguments(fn).encode((words, Model(tags=words, more={}), words, more), {}, "it")
print(payload.data.hex(), digest.hex())
"""


@pytest.mark.slow
def test_payloads_and_digests_are_the_same_under_every_hash_seed() -> None:
    def run(seed: int) -> str:
        env = {**os.environ, "PYTHONHASHSEED": str(seed)}
        return subprocess.run(
            [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True
        ).stdout

    first, *others = [run(seed) for seed in range(4)]
    assert len(first.splitlines()) == 9
    assert others == [first] * 3


@pytest.mark.parametrize("annotation", [Any, dict[str, Any], dict[Any, Any], dict[str, dict[str, int]]], ids=str)
def test_the_order_of_keys_is_kept_but_not_digested(annotation: Any) -> None:
    one = {"a": {"x": 1, "y": 2}, "b": {}}
    two = {"b": {}, "a": {"y": 2, "x": 1}}
    codec = codec_for(annotation, "it")
    first, second = codec.encode(one, "it"), codec.encode(two, "it")
    assert first != second
    assert list(codec.decode(second, "it")["a"]) == ["y", "x"]
    assert digest(first) == digest(second) == codec.digest(first) == codec.digest(second)


def test_keys_of_all_kinds_are_sorted_in_digests() -> None:
    codec = codec_for(Any, "it")
    one = codec.encode([{1: "a", (1, 2): "b", None: "c"}, ({"x": 1, "y": 2},)], "it")
    two = codec.encode([{None: "c", (1, 2): "b", 1: "a"}, ({"y": 2, "x": 1},)], "it")
    assert digest(one) == digest(two)
    assert digest(one) != digest(codec.encode([{1: "a", (1, 2): "b", None: "d"}, ({"x": 1, "y": 2},)], "it"))


def test_a_pydantic_models_maps_are_sorted_in_digests() -> None:
    import pydantic  # noqa: PLC0415

    class Model(pydantic.BaseModel):
        more: dict[str, int]

    def fn(model: Model) -> None: ...

    codec = codec_for(Model, "it")
    one, two = Model(more={"a": 1, "b": 2}), Model(more={"b": 2, "a": 1})
    assert codec.digest(codec.encode(one, "it")) == codec.digest(codec.encode(two, "it"))
    arguments = Arguments(fn)
    assert arguments.encode((one,), {}, "it")[1] == arguments.encode((two,), {}, "it")[1]


@settings(max_examples=200, deadline=None)
@given(plain_data, plain_data)
def test_different_values_have_different_digests(one: Any, two: Any) -> None:
    codec = codec_for(Any, "it")
    first, second = codec.encode(one, "it"), codec.encode(two, "it")
    assert (digest(first) == digest(second)) == (first == second) or one == two


def test_an_int_given_for_a_float_has_the_floats_digest() -> None:
    def fn(x: float, xs: list[float]) -> None: ...

    arguments = Arguments(fn)
    assert arguments.encode((1, [2]), {}, "it") == arguments.encode((1.0, [2.0]), {}, "it")


def test_a_digest_has_16_bytes_and_is_pinned() -> None:
    """It is compatibility data: a journal of an older release is compared with it."""

    def fn(query: str, options: dict[str, int]) -> None: ...

    assert Arguments(fn).encode(("q", {"b": 1, "a": 2}), {}, "it")[1].hex() == "6156d12b59d990e5fa8896d6420690f2"
    assert digest(Payload(b"text", "text")) == digest(Payload(b"text", "text"))
