"""What cannot be carried is refused, with the path of the place; nothing is ever changed in silence."""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
import socket
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from datetime import datetime, time
from pathlib import Path
from typing import Any, NamedTuple, Union
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pydantic
import pytest

from perdure.core.errors import DecodeError, EncodeError, KeyMissing, PayloadTooLarge, UnsupportedType
from perdure.core.events import Payload
from perdure.workflow import values, values_codec
from perdure.workflow.values import Arguments, codec_for, render


@dataclasses.dataclass
class Point:
    x: int
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class NamedPoint(Point):
    name: str = ""


@dataclasses.dataclass
class SamePoint(Point):
    """No field more, but another class."""


class Shape(msgspec.Struct):
    sides: int
    of: Any = None


class Square(Shape):
    colour: str = "red"


class Answer(pydantic.BaseModel):
    text: str
    score: float = 0.0


class LongAnswer(Answer):
    footnotes: str = ""


@dataclasses.dataclass
class NearPoint:
    x: int
    y: int | None = None


@dataclasses.dataclass
class FarPoint:
    x: float
    y: str | None = None


class Plain:
    """No data class."""


class Corner(NamedTuple):
    x: int


Json = Union[dict[str, "Json"], list["Json"], str, int, float, bool, None]  # noqa: UP007 - as most write it


class Colour(enum.Enum):
    RED = "red"


def path_of(annotation: Any, value: Any) -> str:
    with pytest.raises(EncodeError) as caught:
        codec_for(annotation, "it").encode(value, "the input of step 'paint'")
    assert "the input of step 'paint'" in str(caught.value)
    return str(caught.value.fields["path"])


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@dataclasses.dataclass
class Derives:
    x: int
    scale: dataclasses.InitVar[int] = 1

    def __post_init__(self, scale: int) -> None:
        self.scaled = self.x * scale
        self._hidden = scale

    @functools.cached_property
    def double(self) -> int:
        return 2 * self.x


@dataclasses.dataclass
class Notes:
    x: int

    def __post_init__(self) -> None:
        self.seen = [self.x]


NOTED = Notes(1)
NOTED.more = 2  # type: ignore[attr-defined]

REFUSED = [
    (Derives, Derives(2, 3), "$.scaled"),
    (Notes, NOTED, "$.more"),
    (list[Notes], [NOTED], "$[0].more"),
    (deque[int], deque([1], maxlen=3), "$"),
    (Json, {"a": [object()]}, "$.a[0]"),
    (Json, {"a": (1, 2)}, "$.a"),
    (Json, {"a": b"x"}, "$.a"),
    (Any, {"a": [1, {"b": object()}]}, "$.a[1].b"),
    (Any, {"a b": {(1, 2): Plain()}}, "$['a b'][(1, 2)]"),
    (Any, CYCLE, "$"),
    (list, CYCLE, "$"),
    (dict[str, Any], {"when": {"who": Plain()}}, "$.when.who"),
    (Any, {"items": {1, 2, Plain()}}, "$.items[...]"),
    (Any, Point(1), "$"),
    (Any, [Answer(text="a")], "$[0]"),
    (Any, [Corner(1)], "$[0]"),
    (Any, [Colour.RED], "$[0]"),
    (list[Any], [{"at": time(1, tzinfo=ZoneInfo("Europe/Berlin"))}], "$[0].at"),
    (int, True, "$"),
    (int, 1.0, "$"),
    (bool, 1, "$"),
    (str, b"a", "$"),
    (bytes, "QQ==", "$"),
    (float, True, "$"),
    (float, 2**60 + 1, "$"),
    (list[int], [1, True], "$[1]"),
    (dict[str, int], {"a": 1, "b": "2"}, "$[...]"),
    (list[dict[str, int]], [{1: 1}], "$[0]"),
    (Point, NamedPoint(1), "$"),
    (Point, SamePoint(1), "$"),
    (list[Point], [Point(1), NamedPoint(1)], "$[1]"),
    (list[Point], [Point(1), SamePoint(1)], "$[1]"),
    (list[Point], [Point(1, ["a", 5])], "$[0].tags[1]"),  # type: ignore[list-item]
    (Shape, Square(4), "$"),
    (list[Shape], [Shape(3), Square(4)], "$[1]"),
    (Shape, Shape(3, of=Plain()), "$.of"),
    (Shape, Shape(3, of=Square(4)), "$.of"),
    (Point, {"x": 1, "tags": [], "colour": "red"}, "$.colour"),
    (Answer, LongAnswer(text="a"), "$"),
    (list[Answer], [Answer(text="a"), LongAnswer(text="a", footnotes="b")], "$[1]"),
    (Answer, Answer.model_construct(text=5), "$.text"),
]


@pytest.mark.parametrize(("annotation", "value", "path"), REFUSED)
def test_a_refusal_names_the_place(annotation: Any, value: Any, path: str) -> None:
    assert path_of(annotation, value) == path


def take(value: Any) -> None: ...


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"a": v}, lambda v: {1: v}, lambda v: (v,)], ids=range(4))
@pytest.mark.parametrize("depth", [500, 950, 5_000, 200_000])
def test_a_very_deep_value_is_carried_or_refused_and_no_crash(wrap: Any, depth: int) -> None:
    """How deep a value may be depends on the Python; beyond, it is a refusal as any other."""
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    codec = codec_for(Any, "it")
    for encode in (lambda: codec.encode(value, "it"), lambda: Arguments(take).encode((value,), {}, "it")[0]):
        try:
            payload = encode()
        except EncodeError as refused:
            assert "nested too deeply" in str(refused)  # noqa: PT017
        else:
            assert depth < 100_000
            assert render(payload)
            codec.decode(payload, "it")


@pytest.mark.parametrize("code", [3, 4, 5, 16])
def test_extensions_within_extensions_are_refused_and_no_crash(code: int) -> None:
    data = b"\x90"
    for _ in range(3000):
        data = msgspec.msgpack.encode(msgspec.msgpack.Ext(code, b"\x91" + data))
    with pytest.raises(DecodeError):
        codec_for(Any, "it").decode(Payload(data), "it")
    assert render(Payload(data)).endswith("…") or code == 16


def test_what_a_users_method_raises_is_a_refusal() -> None:
    @dataclasses.dataclass
    class Grumpy:
        x: int

        def __post_init__(self) -> None:
            if self.x < 0:
                raise KeyError("grumpy")

    grumpy = Grumpy(1)
    grumpy.x = -1
    with pytest.raises(EncodeError, match="grumpy"):
        codec_for(Grumpy, "it").encode(grumpy, "it")


def test_a_field_that_the_encoding_leaves_out_is_missed() -> None:
    class Note(pydantic.BaseModel):
        text: str
        hidden: str = pydantic.Field(default="", exclude=True)

    codec = codec_for(Note, "it")
    assert codec.decode(codec.encode(Note(text="a"), "it"), "it") == Note(text="a")
    with pytest.raises(EncodeError) as caught:
        codec.encode(Note(text="a", hidden="b"), "it")
    assert caught.value.fields["path"] == "$.hidden"


def test_what_a_class_derives_from_its_fields_comes_back() -> None:
    derived = Derives(2)
    assert derived.double == 4
    codec = codec_for(Derives, "it")
    decoded = codec.decode(codec.encode(derived, "it"), "it")
    assert (decoded, decoded.scaled, decoded.double) == (derived, 2, 4)
    codec = codec_for(Notes, "it")
    assert codec.decode(codec.encode(Notes(1), "it"), "it").seen == [1]


def test_what_changes_itself_when_made_again_is_refused() -> None:
    @dataclasses.dataclass
    class Counter:
        n: int

        def __post_init__(self) -> None:
            self.n += 1

    with pytest.raises(EncodeError, match=r"\$\.n is 2, but would come back as 3"):
        codec_for(Counter, "it").encode(Counter(1), "it")


ACCEPTED: list[tuple[Any, Any, Any]] = [
    (float, 1, 1.0),
    (list[float], [1, 2.5], [1.0, 2.5]),
    (list[int], (1, 2), [1, 2]),
    (tuple[int, ...], [1, 2], (1, 2)),
    (set[int], [2, 1], {1, 2}),
    (frozenset[int], {2, 1}, frozenset({1, 2})),
    (Point, {"x": 1}, Point(1)),
    (list[Shape], [{"sides": 3}], [Shape(3)]),
    (Answer, {"text": "a"}, Answer(text="a")),
    (Colour, "red", Colour.RED),
    (datetime, "2026-01-02T03:04:05Z", datetime.fromisoformat("2026-01-02T03:04:05+00:00")),
    (dict[str, int], OrderedDict(a=1), {"a": 1}),
    (Any, defaultdict(int, {"a": 1}), {"a": 1}),
    (deque[int], deque([1, 2]), deque([1, 2])),
    (bytes, bytearray(b"a"), b"a"),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), ACCEPTED)
def test_what_the_annotation_asks_for_is_converted(annotation: Any, value: Any, expected: Any) -> None:
    """Nothing is lost by it, and the payload is the same as that of the converted value."""
    codec = codec_for(annotation, "it")
    payload = codec.encode(value, "it")
    decoded = codec.decode(payload, "it")
    assert (type(decoded), decoded) == (type(expected), expected)
    assert payload == codec.encode(expected, "it")


UNSUPPORTED: list[tuple[Any, str]] = [
    (Plain, "Plain"),
    (dict[str, Plain], "Plain"),
    (list[tuple[int, Plain]], "Plain"),
    (Callable[[], int], "Callable"),
    (Iterable[int], "Iterable"),
    (socket.socket, "socket"),
    (type[int], "type"),
    (pydantic.SecretStr, "SecretStr"),
    (dict[str, pydantic.SecretBytes], "SecretBytes"),
    (pydantic.create_model("Login", token=(pydantic.SecretStr, ...)), "Login"),
    (re.Pattern[str], "Pattern"),
    (NearPoint | FarPoint, "NearPoint and .*FarPoint have the same fields"),
    (BaseException, "BaseException"),
    (attrs.make_class("Hider", {"_x": attrs.field(type=int)}), "Hider"),
    (msgspec.defstruct("Mixed", [("a", Answer), ("b", Plain)]), "Mixed"),
]


@pytest.mark.parametrize(("annotation", "named"), UNSUPPORTED)
def test_a_type_that_nobody_can_encode_is_refused_when_decorating(annotation: Any, named: str) -> None:
    with pytest.raises(UnsupportedType, match=named) as caught:
        codec_for(annotation, "parameter 'x' of 'paint'")
    assert caught.value.fields["what"] == "parameter 'x' of 'paint'"


def test_arbitrary_types_inside_a_pydantic_model_are_refused() -> None:
    class Holder(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
        plain: Plain

    with pytest.raises(UnsupportedType, match="Holder"):
        codec_for(Holder, "it")


def test_without_pydantic_its_types_are_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(UnsupportedType, match=r"Path.*install pydantic"):
        codec_for(Path | None, "it")
    assert codec_for(list[int], "it").content_type == "msgpack"


def test_a_value_above_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values_codec, "MAX_PAYLOAD_BYTES", 100)
    for annotation, value in [(str, "a" * 200), (list[str], ["a" * 200]), (list[str], ["\ud800" * 200])]:
        with pytest.raises(PayloadTooLarge, match="100"):
            codec_for(annotation, "it").encode(value, "it")
    assert values.MAX_PAYLOAD_BYTES == 64 * 1024 * 1024


BAD_PAYLOADS = [
    (int, Payload(b"\xa1a"), "Expected `int`, got `str`"),
    (list[Point], Payload(b"\x91\x81\xa1x\xc0"), "$[0].x"),
    (Answer, Payload(b'{"text": 1}', "json"), "$.text"),
    (Answer, Payload(b"{", "json"), "JSON"),
    (int, Payload(b"\xda"), "truncated"),
    (int, Payload(b""), "truncated"),
    (Any, Payload(b"\xd4\x63\x00"), "unknown extension code 99"),
    (Any, Payload(b"\xd4\x05\x00"), ""),
    (str, Payload(b"a", "pickle"), "pickle"),
    (str, Payload(b"a", "text"), "preview"),
    (int, Payload(b"[" * 100_000, "json"), "deeply"),
    (Any, Payload(b"\x91" * 100_000), "deeply"),
]


@pytest.mark.parametrize(("annotation", "payload", "reason"), BAD_PAYLOADS)
def test_bytes_that_do_not_fit_are_refused(annotation: Any, payload: Payload, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        codec_for(annotation, "it").decode(payload, "the result of step 'paint'")
    assert reason in caught.value.fields["reason"]
    assert "the result of step 'paint'" in str(caught.value)


def test_what_is_still_encrypted_says_so_and_with_which_key() -> None:
    payload = Payload(b"\xa1a", "msgpack", "k1")
    for decode in (codec_for(str, "it").decode, codec_for(Answer, "it").decode, Arguments(take).decode):
        with pytest.raises(KeyMissing, match="the result of step 'paint': encrypted with key 'k1'"):
            decode(payload, "the result of step 'paint'")


@pytest.mark.parametrize("seed", range(200))
def test_damaged_bytes_are_refused_or_decode_to_the_annotated_type(seed: int) -> None:
    import random  # noqa: PLC0415

    rng = random.Random(seed)
    codec = codec_for(dict[str, list[Point]], "it")
    data = bytearray(codec.encode({"a": [Point(1, ["b"])], "c": []}, "it").data)
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    try:
        decoded = codec.decode(Payload(bytes(data)), "it")
    except DecodeError:
        return
    assert all(isinstance(point, Point) for points in decoded.values() for point in points)
