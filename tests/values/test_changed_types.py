"""Types that changed since a value was recorded: it is read as what it was, or refused with its place."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from typing_extensions import TypedDict

from perdure.core.errors import DecodeError, EncodeError, UnsupportedType
from perdure.core.events import Payload
from perdure.workflow.values import Arguments, Secret, codec_for, secrets_pass
from perdure.workflow.values_codec import Codec

T = TypeVar("T")


def dataclass(name: str, fields: dict[str, Any]) -> Any:
    made = [(each, *(kind if isinstance(kind, tuple) else (kind,))) for each, kind in fields.items()]
    return dataclasses.make_dataclass(name, made)


def struct(name: str, fields: dict[str, Any]) -> Any:
    return msgspec.defstruct(name, [(e, *(k if isinstance(k, tuple) else (k,))) for e, k in fields.items()])


def model(name: str, fields: dict[str, Any]) -> Any:
    return pydantic.create_model(name, **{e: k if isinstance(k, tuple) else (k, ...) for e, k in fields.items()})


def attrs_class(name: str, fields: dict[str, Any]) -> Any:
    made = {
        each: attrs.field(type=kind[0], default=kind[1]) if isinstance(kind, tuple) else attrs.field(type=kind)
        for each, kind in fields.items()
    }
    return attrs.make_class(name, made)


LIBRARIES = {"dataclass": dataclass, "struct": struct, "pydantic": model, "attrs": attrs_class}


def reread(before: Any, value: Any, after: Any) -> Any:
    """What a value that one annotation recorded is under another."""
    return codec_for(after, "it").decode(codec_for(before, "it").encode(value, "it"), "it")


def renamed(library: str) -> Any:
    """A class whose field `y` was `x`."""
    match library:
        case "dataclass":
            return dataclass("After", {"y": Annotated[int, pydantic.Field(validation_alias="x")]})
        case "struct":
            return struct("After", {"y": (int, msgspec.field(name="x"))})
        case "pydantic":
            return model("After", {"y": (int, pydantic.Field(validation_alias=pydantic.AliasChoices("y", "x")))})
    return None


CHANGES = {
    "added": ({"x": int}, {"x": int, "y": (str, "new")}, {"x": 1, "y": "new"}),
    "removed": ({"x": int, "y": str}, {"x": int}, {"x": 1}),
    "both": ({"x": int, "y": str}, {"x": int, "z": (int, 3)}, {"x": 1, "z": 3}),
    "wider": ({"x": int}, {"x": int | str | None}, {"x": 1}),
    "float": ({"x": int}, {"x": float}, {"x": 1.0}),
    "float or": ({"x": int}, {"x": float | None}, {"x": 1.0}),
    "any": ({"x": int}, {"x": Any}, {"x": 1}),
    "decimal": ({"x": int}, {"x": Decimal}, {"x": Decimal(1)}),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("before", LIBRARIES)
@pytest.mark.parametrize("after", LIBRARIES)
def test_safe_changes_read_what_was_recorded(before: str, after: str, change: str) -> None:
    old, new, expected = CHANGES[change]
    one, two = LIBRARIES[before]("Before", old), LIBRARIES[after]("After", new)
    value = one(**{name: given for name, given in {"x": 1, "y": "a"}.items() if name in old})
    for wrap, unwrap in ((lambda t: t, lambda v: v), (lambda t: list[t], lambda v: v[0])):  # type: ignore[valid-type]
        recorded = [value] if unwrap([value]) is value else value
        found = unwrap(reread(wrap(one), recorded, wrap(two)))
        assert type(found) is two
        assert {name: (getattr(found, name), type(getattr(found, name))) for name in expected} == {
            name: (given, type(given)) for name, given in expected.items()
        }


@pytest.mark.parametrize("after", ["dataclass", "struct", "pydantic"])
@pytest.mark.parametrize("before", LIBRARIES)
def test_what_was_recorded_under_an_old_name_is_read_by_its_alias(before: str, after: str) -> None:
    old, new = LIBRARIES[before]("Before", {"x": int}), renamed(after)
    assert reread(list[old], [old(5)] if before != "pydantic" else [old(x=5)], list[new])[0].y == 5
    value = reread(old, old(x=6), new)
    assert reread(new, value, new).y == 6


@pytest.mark.parametrize("alias", [{"alias": "x"}, {"validation_alias": "x"}])
def test_an_alias_finds_the_old_name_though_the_new_one_has_a_default(alias: dict[str, str]) -> None:
    """Else the default would stand for what was recorded."""
    old = model("Before", {"x": int})
    new = model("After", {"y": (int, pydantic.Field(default=0, **alias))})  # type: ignore[call-overload]
    assert reread(old, old(x=5), new).y == 5
    data = dataclass("Data", {"y": (Annotated[int, pydantic.Field(**alias)], 0)})  # type: ignore[call-overload]
    assert reread(old, old(x=5), data) == data(5)
    assert reread(data, data(7), data) == data(7)
    with pytest.raises(DecodeError, match=r"\$\.x was recorded as 1, but would be read as True"):
        reread(old, old(x=1), model("After", {"y": (bool, pydantic.Field(**alias))}))  # type: ignore[call-overload]


def test_aliases_that_are_the_names_of_other_fields_do_not_swap_them() -> None:
    fields = {"a": (int, pydantic.Field(alias="b")), "b": (int, pydantic.Field(alias="a"))}
    swapped, more = model("Swapped", fields), model("More", fields | {"c": (int, 0)})
    value = swapped(a=1, b=2)
    assert reread(swapped, value, swapped) == value
    found = reread(swapped, value, more)
    assert (found.a, found.b, found.c) == (value.a, value.b, 0)


DAY, NOON = dt.date(2026, 1, 1), dt.datetime(2026, 1, 1, 12)  # noqa: DTZ001
WRONG: list[tuple[Any, Any, Any]] = [
    (int, 1, bool),
    (bool, True, int),
    (bool, True, float),
    (str, "5", int),
    (str, "true", bool),
    (str, "1.5", float),
    (int, 5, str),
    (int, 5, dt.datetime),
    (int, 5, dt.timedelta),
    (float, 5.0, dt.timedelta),
    (dt.datetime, NOON, dt.date),
    (dt.date, DAY, dt.datetime),
    (Decimal, Decimal("1.5"), float),
    (int, 2**60 + 1, float),
    (int, 2**60 + 1, float | None),
    (bytes, b"ab", str),
    (list[int], [1, 1], set[int]),
    (list[int], [1, 2], int),
    (dict[str, int], {"01": 1}, dict[int, int]),
    (int | None, None, int),
]


@pytest.mark.parametrize(("before", "value", "after"), WRONG, ids=[f"{a} {v!r} {b}" for a, v, b in WRONG])
@pytest.mark.parametrize("library", LIBRARIES)
def test_what_would_be_another_value_is_refused_with_its_place(
    library: str, before: Any, value: Any, after: Any
) -> None:
    one, two = LIBRARIES[library]("Before", {"x": before}), LIBRARIES[library]("After", {"x": after})
    with pytest.raises(DecodeError, match=r"\$\[0\]\.x"):
        reread(list[one], [one(x=value)], list[two])
    if library == "pydantic":  # which reads leniently what stands outside models too
        adapted = pydantic.create_model("In", x=(before, ...))
        with pytest.raises(DecodeError, match=r"\$\.k\.x"):
            reread(dict[str, adapted], {"k": adapted(x=value)}, dict[str, two])  # type: ignore[valid-type]


@pytest.mark.parametrize(
    ("before", "value", "after", "expected"),
    [
        (str, "2026-01-01", dt.date, DAY),
        (str, str(UUID(int=1)), UUID, UUID(int=1)),
        (str, "1.50", Decimal, Decimal("1.50")),
        (float, 0.1, Decimal, Decimal("0.1")),
        (list[int], [1, 2], tuple[int, ...], (1, 2)),
        (set[int], {1, 2}, list[int], [1, 2]),
        (list[str], [str(UUID(int=2)), str(UUID(int=1))], set[UUID], {UUID(int=1), UUID(int=2)}),
        (dt.timedelta, dt.timedelta(hours=25), dt.timedelta | None, dt.timedelta(hours=25)),
    ],
)
@pytest.mark.parametrize("before_in", LIBRARIES)
@pytest.mark.parametrize("after_in", LIBRARIES)
def test_the_same_data_in_another_type_is_read(
    before_in: str, after_in: str, before: Any, value: Any, after: Any, expected: Any
) -> None:
    one, two = LIBRARIES[before_in]("Before", {"x": before}), LIBRARIES[after_in]("After", {"x": after, "y": (int, 0)})
    assert reread(one, one(x=value), two).x == expected


def test_arguments_are_looked_at_as_values_are() -> None:
    def before(x: int) -> None: ...
    def after(x: float) -> None: ...
    def optional(x: float | None, y: int = 3) -> None: ...

    for value, fits in ((5, True), (2**60 + 1, False)):
        payload, _ = Arguments(before).encode((value,), {}, "it")
        if fits:
            assert Arguments(after).decode(payload, "it") == ((5.0,), {})
            assert Arguments(optional).decode(payload, "it") == ((5.0, 3), {})
            continue
        for changed in (after, optional):
            with pytest.raises(DecodeError, match=r"argument 'x': \$ was recorded as 1152921504606846977"):
                Arguments(changed).decode(payload, "it")
    with pytest.raises(DecodeError, match="1152921504606846977"):
        reread(int, 2**60 + 1, float)


# --- unions ---


class Cat(pydantic.BaseModel):
    name: str
    lives: int = 9


class Dog(pydantic.BaseModel):
    name: str


class OldCat(pydantic.BaseModel):
    name: str
    lives: int


@dataclasses.dataclass
class DataCat:
    name: str
    lives: int = 9


@dataclasses.dataclass
class DataDog:
    name: str


@pytest.mark.parametrize(("dog", "cat"), [(Dog, Cat), (DataDog, DataCat)])
def test_a_member_that_comes_to_a_union_does_not_take_what_was_anothers(dog: Any, cat: Any) -> None:
    rex = dog(name="Rex")
    assert reread(dog, rex, dog | cat) == rex
    assert type(reread(list[dog], [rex], list[dog | cat])[0]) is dog
    for widened, wrap in ((cat | dog, False), (list[cat | dog], True), (cat | dog | None, False)):
        with pytest.raises(DecodeError, match=r"fits .*Cat and .*Dog, and nothing in it tells which it was"):
            reread(list[dog] if wrap else dog, [rex] if wrap else rex, widened)
    holder = pydantic.create_model("Holder", pet=(dog, ...))
    widened = pydantic.create_model("Holder", pet=(cat | dog, ...))
    with pytest.raises(DecodeError, match=r"\$\.pet fits"):
        reread(holder, holder(pet=rex), widened)


def test_a_member_that_gets_a_field_is_still_told_by_the_others() -> None:
    class NewCat(pydantic.BaseModel):
        name: str
        lives: int
        colour: str = "grey"

    found = reread(OldCat | Dog, OldCat(name="Tom", lives=3), Dog | NewCat)
    assert found == NewCat(name="Tom", lives=3)


def test_a_tag_tells_members_apart_for_ever() -> None:
    class A(pydantic.BaseModel):
        kind: Annotated[str, pydantic.Field(pattern="^a$")] = "a"
        more: int = 0

    bee = pydantic.create_model("Bee", kind=(str, "b"))
    assert type(reread(bee, bee(), A | bee)) is bee
    assert type(reread(bee, bee(), bee | A)) is bee


# --- what stays as it was meant ---


def test_a_default_that_changes_does_not_change_what_was_recorded() -> None:
    for options in ({}, {"tag": True}, {"omit_defaults": True}, {"omit_defaults": True, "tag": "s"}):
        old = msgspec.defstruct("S", [("x", int, 1), ("y", list[int], msgspec.field(default_factory=list))], **options)
        new = msgspec.defstruct("S", [("x", int, 2), ("y", list[int], msgspec.field(default_factory=list))], **options)
        assert reread(old, old(), new).x == 1
        assert reread(list[old], [old(), old(x=7)], list[new])[1].x == 7  # type: ignore[valid-type]
    for make in LIBRARIES.values():
        old, new = make("S", {"x": (int, 1)}), make("S", {"x": (int, 2)})
        assert reread(old, old(), new).x == 1


def test_generic_classes_are_looked_at_as_others() -> None:
    class Box(msgspec.Struct, Generic[T], omit_defaults=True):
        held: T
        n: int = 1

    @dataclasses.dataclass
    class Noted(Generic[T]):
        held: T

        def __post_init__(self) -> None:
            self.seen = [self.held]

    box = codec_for(Box[int], "it").encode(Box(3), "it")
    assert msgspec.msgpack.decode(box.data) == {"held": 3, "n": 1}
    noted = Noted(3)
    noted.seen.append(4)
    with pytest.raises(EncodeError, match=r"\$\.seen has 2 items"):
        codec_for(Noted[int], "it").encode(noted, "it")


def test_keys_that_go_from_a_typed_dict_are_passed_over() -> None:
    before, after = TypedDict("before", {"x": int, "y": int}), TypedDict("after", {"x": float})
    for wrap in (lambda t: t, lambda t: t | Decimal | bytes | str):  # the second is pydantic's
        assert reread(before, {"x": 1, "y": 2}, wrap(after)) == {"x": 1.0}


def test_bytes_are_never_taken_for_text_between_libraries() -> None:
    one, two = model("One", {"x": bytes}), dataclass("Two", {"x": bytes})
    for data in (b"abcd", b"", b"\xff"):
        assert reread(one, one(x=data), two).x == data
        assert reread(two, two(x=data), one).x == data


class Colour(enum.Enum):
    RED = "red"


def test_a_value_that_becomes_an_enums_member_is_that_member() -> None:
    for make in LIBRARIES.values():
        one, two = make("One", {"x": str, "y": set[str]}), make("Two", {"x": Colour, "y": set[Colour], "z": (int, 0)})
        found = reread(one, one(x="red", y={"red"}), two)
        assert (found.x, found.y) == (Colour.RED, {Colour.RED})


# --- code of the user's that reads old values ---


def test_a_validator_that_comes_before_may_convert_what_was_recorded() -> None:
    class New(pydantic.BaseModel):
        tags: list[str]
        count: int = 0

        @pydantic.field_validator("tags", mode="before")
        @classmethod
        def split(cls, value: Any) -> Any:
            return value.split(",") if isinstance(value, str) else value

    old = model("Old", {"tags": str, "count": int})
    assert reread(old, old(tags="a,b", count=1), New) == New(tags=["a", "b"], count=1)
    wrong = model("Old", {"tags": str, "count": bool})
    with pytest.raises(DecodeError, match=r"\$\.count was recorded as True"):
        reread(wrong, wrong(tags="a,b", count=True), New)


def test_code_that_runs_afterwards_may_tidy_a_text_and_no_more() -> None:
    class Tidy(pydantic.BaseModel):
        mail: str
        n: int

        @pydantic.field_validator("mail", "n")
        @classmethod
        def lower(cls, value: Any) -> Any:
            return value.lower() if isinstance(value, str) else value

    class Stripped(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(str_strip_whitespace=True)
        mail: str

    @dataclasses.dataclass
    class Lowered:
        mail: str

        def __post_init__(self) -> None:
            self.mail = self.mail.lower()

    old = model("Old", {"mail": str, "n": int})
    assert reread(old, old(mail="A@B", n=1), Tidy) == Tidy(mail="a@b", n=1)
    assert reread(old, old(mail=" A ", n=1), Stripped) == Stripped(mail="A")
    assert reread(old, old(mail="A@B", n=1), Lowered) == Lowered("a@b")
    texts = model("Old", {"mail": str, "n": str})
    with pytest.raises(DecodeError, match=r"\$\.n was recorded as '5', but would be read as 5"):
        reread(texts, texts(mail="a", n="5"), Tidy)


def test_a_secret_is_looked_at_and_not_told() -> None:
    old, new = model("Old", {"pin": Secret[str]}), model("New", {"pin": Secret[int], "more": (int, 0)})
    same = model("Same", {"pin": Secret[str], "more": (int, 0)})
    with secrets_pass(when=True):
        payload = codec_for(old, "it").encode(old(pin=Secret("1234")), "it")
    assert codec_for(same, "it").decode(payload, "it").pin.reveal() == "1234"
    with pytest.raises(DecodeError, match=r"\$\.pin") as caught:
        codec_for(new, "it").decode(payload, "it")
    assert "1234" not in str(caught.value)


# --- what it costs ---


def test_what_was_written_here_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Live results, and whatever was once found to be as it was recorded; builtins are not looked at at all."""
    looked: list[Any] = []
    again = Codec._again

    def count(self: Codec[Any], payload: Payload, value: Any, **how: Any) -> Payload:
        looked.append(value)
        return again(self, payload, value, **how)

    monkeypatch.setattr(Codec, "_again", count)
    codec = Codec(list[Dog])
    codec.build()
    payload = codec.encode([Dog(name="Rex")], "it")
    codec.decode(payload, "it")
    assert looked == []
    fresh = Codec(list[Dog])
    fresh.build()
    for _ in range(3):
        fresh.decode(payload, "it")
    assert len(looked) == 1
    codec_for(str, "it").decode(Payload(b"\xa1a"), "it")
    codec_for(Any, "it").decode(Payload(b"\xa1a"), "it")
    assert len(looked) == 1


def test_members_of_a_union_that_nothing_tells_apart_are_refused_when_decorating() -> None:
    same = model("Same", {"name": str})
    with pytest.raises(UnsupportedType, match="have the same fields"):
        codec_for(Dog | same, "it")
    apart = model("Apart", {"name": int})
    assert reread(apart, apart(name=1), Dog | apart) == apart(name=1)
    with pytest.raises(EncodeError):
        codec_for(Cat | Dog, "it").encode(Dog(name="Rex"), "it")
