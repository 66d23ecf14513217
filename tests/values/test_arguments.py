"""Arguments: bound as Python binds them, encoded alike when they mean the same, decoded ready to call."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any, TypedDict, Unpack

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.errors import (
    DecodeError,
    EncodeError,
    InvalidDefinition,
    PayloadTooLarge,
    UnsupportedType,
    WrongArguments,
)
from perdure.core.events import Payload
from perdure.workflow import values_codec
from perdure.workflow.values import Arguments, hints_of, render

WHAT = "the input of 'f'"


@dataclasses.dataclass
class Point:
    x: int


class Answer(pydantic.BaseModel):
    text: str


class Options(TypedDict, total=False):
    depth: int


def nothing() -> None: ...
def one(query: str) -> None: ...
def defaults(a: int, b: str = "b", *, c: float = 1.5) -> None: ...
def stars(a: int, /, *rest: int, k: str = "k", **more: float) -> None: ...
def mixed(point: Point, answer: Answer, tags: set[str] = frozenset()) -> None: ...  # type: ignore[assignment]
def untyped(a, b=(1, 2), *rest, **more) -> None: ...
def keywords(**options: Unpack[Options]) -> None: ...
def shadow(a: int, /, **more: int) -> None: ...


CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (nothing, (), {}),
    (one, ("q",), {}),
    (one, (), {"query": "q"}),
    (defaults, (1,), {}),
    (defaults, (1, "x"), {"c": 2.0}),
    (defaults, (), {"b": "x", "a": 1}),
    (stars, (1, 2, 3), {"k": "x", "y": 2.5}),
    (stars, (1,), {}),
    (mixed, (Point(1), Answer(text="a"), {"x", "y"}), {}),
    (mixed, (Point(2**80), Answer(text="a")), {}),
    (untyped, (1, {2}, None), {"z": b"z"}),
    (keywords, (), {"depth": 3}),
    (shadow, (1,), {"a": 2}),
]


@pytest.mark.parametrize("call", CALLS, ids=[f"{n}-{call[0].__name__}" for n, call in enumerate(CALLS)])
def test_a_call_comes_back_as_it_was_made(call: tuple[Any, tuple[Any, ...], dict[str, Any]]) -> None:
    fn, args, kwargs = call
    arguments = Arguments(fn)
    payload, _ = arguments.encode(args, kwargs, WHAT)
    decoded_args, decoded_kwargs = arguments.decode(payload, WHAT)
    assert bound(fn, decoded_args, decoded_kwargs) == bound(fn, args, kwargs)


def bound(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    binding = inspect.signature(fn).bind(*args, **kwargs)
    binding.apply_defaults()
    return dict(binding.arguments)


@settings(max_examples=200, deadline=None)
@given(a=st.integers(), b=st.text(), c=st.floats(allow_nan=False), how=st.integers(0, 5))
def test_calls_that_mean_the_same_have_the_same_bytes(a: int, b: str, c: float, how: int) -> None:
    arguments = Arguments(defaults)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((a, b), {"c": c}),
        ((a,), {"b": b, "c": c}),
        ((), {"c": c, "b": b, "a": a}),
    ]
    first = arguments.encode(*calls[0], WHAT)
    assert arguments.encode(*calls[how % 3], WHAT) == first


def test_a_default_that_is_given_is_the_same_as_one_that_is_not() -> None:
    arguments = Arguments(defaults)
    assert arguments.encode((1,), {}, WHAT) == arguments.encode((1, "b"), {"c": 1.5}, WHAT)
    assert arguments.encode((1,), {}, WHAT) != arguments.encode((1, "c"), {}, WHAT)


WRONG: list[tuple[Any, tuple[Any, ...], dict[str, Any], str]] = [
    (one, (), {}, "missing a required argument: 'query'"),
    (one, (1, 2), {}, "too many positional arguments"),
    (one, ("a",), {"query": "b"}, "multiple values for argument 'query'"),
    (one, ("a",), {"x": 1}, "unexpected keyword argument 'x'"),
    (defaults, (), {"b": "x"}, "missing a required argument: 'a'"),
    (shadow, (), {"a": 1}, "'a'"),
]


@pytest.mark.parametrize("call", WRONG, ids=[f"{n}-{call[0].__name__}" for n, call in enumerate(WRONG)])
def test_wrong_arguments_are_told_with_the_signature(call: tuple[Any, tuple[Any, ...], dict[str, Any], str]) -> None:
    fn, args, kwargs, reason = call
    with pytest.raises(WrongArguments, match=reason) as caught:
        Arguments(fn).encode(args, kwargs, WHAT)
    assert fn.__name__ in str(caught.value)
    assert str(inspect.signature(fn)) in str(caught.value)


def test_an_argument_that_cannot_be_carried_is_named_in_the_path() -> None:
    for fn, args, path in [
        (one, (5,), "$.query"),
        (mixed, (Point("1"), Answer(text="a")), "$.point.x"),  # type: ignore[arg-type]
        (mixed, (Point(1), Answer.model_construct(text=1)), "$.answer.text"),
        (untyped, (1, 2, object()), "$.*rest[0]"),
    ]:
        with pytest.raises(EncodeError) as caught:
            Arguments(fn).encode(args, {}, WHAT)
        assert caught.value.fields["path"] == path
        assert WHAT in str(caught.value)


def test_all_arguments_together_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values_codec, "MAX_PAYLOAD_BYTES", 100)
    for fn, args in [(one, ("a" * 200,)), (untyped, ("a" * 60, ["b" * 60]))]:
        with pytest.raises(PayloadTooLarge, match=WHAT):
            Arguments(fn).encode(args, {}, WHAT)


def test_a_default_that_has_no_encoding_is_recorded_by_absence() -> None:
    missing: Any = object()

    def fn(a: int = None, b: str = missing, c: int = 3) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    arguments = Arguments(fn)
    payload, _ = arguments.encode((), {}, WHAT)
    assert render(payload) == '{"c": 3}'
    assert arguments.decode(payload, WHAT) == ((None, missing, 3), {})
    assert arguments.decode(arguments.encode((1,), {"b": "x"}, WHAT)[0], WHAT) == ((1, "x", 3), {})


# --- evolution ----------------------------------------------------------------------------------------------------


def recorded(fn: Any, *args: Any, **kwargs: Any) -> Payload:
    return Arguments(fn).encode(args, kwargs, WHAT)[0]


def test_a_parameter_that_came_later_with_a_default_takes_it() -> None:
    def before(a: int, c: str) -> None: ...
    def after(a: int, b: str = "new", c: str = "c", *rest: int, d: bool = True, **more: int) -> None: ...

    assert Arguments(after).decode(recorded(before, 1, "x"), WHAT) == ((1, "new", "x"), {"d": True})


def test_parameters_may_change_places_and_ways_to_be_given() -> None:
    def before(a: int, b: str) -> None: ...
    def after(b: str, *, a: int) -> None: ...

    assert Arguments(after).decode(recorded(before, 1, "x"), WHAT) == (("x",), {"a": 1})


def test_a_parameter_that_is_gone_is_refused() -> None:
    def before(a: int, b: str) -> None: ...
    def after(a: int) -> None: ...

    with pytest.raises(DecodeError, match=r"'b' was recorded, but .*after\(a: 'int'\).* does not take it"):
        Arguments(after).decode(recorded(before, 1, "x"), WHAT)


def test_a_parameter_that_came_later_without_a_default_is_refused() -> None:
    def before(a: int) -> None: ...
    def after(a: int, b: str) -> None: ...

    with pytest.raises(DecodeError, match="'b' is missing, and has no default"):
        Arguments(after).decode(recorded(before, 1), WHAT)


def test_a_type_that_does_not_fit_any_more_is_refused_by_name() -> None:
    def before(a: int, p: list[Point]) -> None: ...
    def after(a: int, p: list[str]) -> None: ...

    with pytest.raises(DecodeError, match=r"argument 'p': \$\[0\] Expected `str`, got `object`"):
        Arguments(after).decode(recorded(before, 1, [Point(1)]), WHAT)


def test_an_argument_may_go_from_dataclass_to_pydantic_and_back() -> None:
    class PointModel(pydantic.BaseModel):
        x: int

    def plain(a: int, p: Point) -> None: ...
    def modelled(a: int, p: PointModel) -> None: ...

    assert Arguments(modelled).decode(recorded(plain, 1, Point(2)), WHAT) == ((1, PointModel(x=2)), {})
    assert Arguments(plain).decode(recorded(modelled, 1, PointModel(x=2)), WHAT) == ((1, Point(2)), {})


def test_arguments_may_be_written_by_hand_as_a_json_object() -> None:
    payload = Payload(b'{"point": {"x": 1}, "answer": {"text": "a"}, "tags": ["t"]}', "json")
    assert Arguments(mixed).decode(payload, WHAT) == ((Point(1), Answer(text="a"), {"t"}), {})
    for data in [b"[1]", b"{", b"1"]:
        with pytest.raises(DecodeError):
            Arguments(mixed).decode(Payload(data, "json"), WHAT)


@pytest.mark.parametrize("payload", [Payload(b"x", "text"), Payload(b"\x91\x01"), Payload(b"")])
def test_a_payload_that_holds_no_arguments_is_refused(payload: Payload) -> None:
    with pytest.raises(DecodeError):
        Arguments(one).decode(payload, WHAT)


# --- functions of all kinds ---------------------------------------------------------------------------------------


def test_a_method_may_leave_out_its_self() -> None:
    class Agent:
        def ask(self, prompt: str, limit: int = 3) -> None: ...

    arguments = Arguments(Agent.ask, skip_self=True)
    payload, _ = arguments.encode(("p",), {}, WHAT)
    assert arguments.decode(payload, WHAT) == (("p", 3), {})
    assert Arguments(Agent().ask).decode(payload, WHAT) == (("p", 3), {})
    assert Arguments(functools.partial(Agent.ask, Agent())).decode(payload, WHAT) == (("p", 3), {})


def test_an_object_that_can_be_called_has_the_annotations_of_its_call() -> None:
    class Asker:
        def __call__(self, point: Point) -> None: ...

    arguments = Arguments(Asker())
    assert arguments.decode(arguments.encode((Point(1),), {}, WHAT)[0], WHAT) == ((Point(1),), {})


def test_a_wrapped_function_has_the_annotations_of_what_it_wraps() -> None:
    @functools.wraps(one)
    def wrapper(*args: Any, **kwargs: Any) -> None: ...

    assert recorded(wrapper, "q") == recorded(one, "q")


def test_a_function_without_a_signature_is_refused() -> None:
    with pytest.raises(InvalidDefinition):
        Arguments(type("NoSignature", (), {"__signature__": 5, "__call__": print})())


def test_an_annotation_may_name_a_class_of_the_enclosing_function() -> None:
    @dataclasses.dataclass
    class Local:
        x: int

    def fn(a: Local, b: list[Local | None]) -> Local: ...  # type: ignore[empty-body]

    arguments = Arguments(fn)
    args = (Local(1), [None, Local(2)])
    assert arguments.decode(arguments.encode(args, {}, WHAT)[0], WHAT) == (args, {})
    assert hints_of(fn)["return"] is Local


def test_a_class_of_the_enclosing_function_hides_one_of_the_module() -> None:
    @dataclasses.dataclass
    class Point:
        y: str

    def fn(p: Point) -> None: ...

    assert hints_of(fn)["p"] is Point


def test_an_annotation_may_name_what_is_defined_later() -> None:
    def fn(a: Later) -> None: ...

    arguments = Arguments(fn)

    @dataclasses.dataclass
    class Later:
        x: int

    assert arguments.decode(arguments.encode((Later(1),), {}, WHAT)[0], WHAT) == ((Later(1),), {})


def test_an_annotation_that_names_nothing_is_refused_at_first_use() -> None:
    def fn(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    arguments = Arguments(fn)
    with pytest.raises(UnsupportedType, match="Nowhere"):
        arguments.encode((1,), {}, WHAT)
    with pytest.raises(UnsupportedType, match="Nowhere"):
        arguments.decode(Payload(b"\x80"), WHAT)


def test_an_unsupported_parameter_is_named_when_decorating() -> None:
    def fn(a: int, handle: memoryview | type) -> None: ...

    with pytest.raises(UnsupportedType, match=r"parameter 'handle' of .*fn"):
        Arguments(fn)


def test_what_is_decoded_shares_nothing_with_what_was_passed() -> None:
    def fn(items: list[int], more: dict[str, list[int]] = {}) -> None: ...  # noqa: B006

    items = [1]
    arguments = Arguments(fn)
    payload, _ = arguments.encode((items,), {}, WHAT)
    (decoded, more), _ = arguments.decode(payload, WHAT)
    decoded.append(2)
    more["a"] = [1]
    assert items == [1]
    assert arguments.decode(payload, WHAT) == (([1], {}), {})
    assert recorded(fn, [1]) == payload
