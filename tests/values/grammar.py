"""Annotations with values of them, for hypothesis; and a comparison that is written independently of the package."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import uuid
import zoneinfo
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, TypedDict, TypeVar, Union

import attrs
import msgspec
import pydantic
from hypothesis import strategies as st

Typed = tuple[Any, st.SearchStrategy[Any]]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Corner(enum.Enum):
    NEAR = (0, 0)
    FAR = (1, 1)


ZONES = [dt.UTC, dt.timezone(dt.timedelta(hours=2)), dt.timezone(dt.timedelta(hours=-5, minutes=-30))]
ODD_ZONES = [
    dt.timezone(dt.timedelta(hours=1, seconds=7)),
    zoneinfo.ZoneInfo("Europe/Berlin"),
    zoneinfo.ZoneInfo("UTC"),
]

anything_text = st.text(st.characters(), max_size=8)  # with lone surrogates
whole = st.one_of(st.integers(-3, 3), st.integers(), st.sampled_from([2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1]))
datetimes = st.datetimes(timezones=st.sampled_from([None, *ZONES, *ODD_ZONES]))
times = st.times(timezones=st.sampled_from([None, *ZONES, ODD_ZONES[0]]))
decimals = st.one_of(
    st.decimals(), st.sampled_from([Decimal("1.10"), Decimal("1E+5"), Decimal("-0"), Decimal("sNaN7")])
)

HASHABLE: list[Typed] = [
    (bool, st.booleans()),
    (int, whole),
    (str, anything_text),
    (bytes, st.binary(max_size=8)),
    (dt.date, st.dates()),
    (dt.timedelta, st.timedeltas()),
    (uuid.UUID, st.uuids()),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (dt.datetime, datetimes),
    (tuple[int, str], st.tuples(whole, anything_text)),
]

plain_data = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        whole,
        st.floats(),
        anything_text,
        st.binary(max_size=4),
        decimals,
        st.uuids(),
        datetimes,
        st.dates(),
        times,
        st.timedeltas(),
        st.complex_numbers(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(anything_text, whole, st.tuples(whole, anything_text)), inner, max_size=3),
        st.sets(
            st.one_of(whole, anything_text, st.none(), st.tuples(whole), st.frozensets(whole, max_size=2)), max_size=4
        ),
        st.frozensets(st.one_of(whole, anything_text), max_size=3),
    ),
    max_leaves=6,
)

LEAVES: list[Typed] = [
    *HASHABLE,
    (type(None), st.none()),
    (float, st.floats()),
    (Decimal, decimals),
    (dt.time, times),
    (bytearray, st.binary(max_size=4).map(bytearray)),
    (Literal["a", "b", 3], st.sampled_from(["a", "b", 3])),
    (Any, plain_data),
]


One = TypeVar("One")
Two = TypeVar("Two")


@dataclasses.dataclass
class GenericData(Generic[One, Two]):
    first: One
    second: Two


class GenericShape(msgspec.Struct, Generic[One, Two]):
    first: One
    second: Two


class GenericModel(pydantic.BaseModel, Generic[One, Two]):
    first: One
    second: Two


@dataclasses.dataclass
class TreeData:
    value: int
    below: list[TreeData] = dataclasses.field(default_factory=list)


class TreeShape(msgspec.Struct, omit_defaults=True):
    value: int
    below: dict[str, TreeShape] = {}


class TreeModel(pydantic.BaseModel):
    value: int
    left: TreeModel | None = None
    right: TreeModel | None = None


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square"):
    side: float = 1.0


class CatModel(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class DogModel(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int = 1


trees = st.recursive(
    st.builds(TreeData, whole), lambda inner: st.builds(TreeData, whole, st.lists(inner, max_size=3)), max_leaves=6
)
shapes = st.recursive(
    st.builds(TreeShape, whole),
    lambda inner: st.builds(TreeShape, whole, st.dictionaries(anything_text, inner, max_size=2)),
    max_leaves=6,
)
tree_models = st.recursive(
    st.builds(TreeModel, value=whole),
    lambda inner: st.builds(TreeModel, value=whole, left=st.none() | inner, right=inner),
    max_leaves=6,
)
pets = st.builds(CatModel, lives=whole) | st.builds(DogModel, lives=whole)


class Pair(NamedTuple):
    first: int
    second: str = "x"


class Movie(TypedDict, total=False):
    title: str
    year: int


NATIVE_LEAVES: list[Typed] = [
    *LEAVES,
    (Pair, st.builds(Pair, whole, anything_text)),
    (Movie, st.fixed_dictionaries({}, optional={"year": whole, "title": anything_text})),
    (TreeData, trees),
    (TreeShape, shapes),
    (Circle | Square, st.builds(Circle, st.floats()) | st.builds(Square, st.floats())),
]
PYDANTIC_LEAVES: list[Typed] = [
    *(leaf for leaf in LEAVES if leaf[0] not in (bytearray, Decimal)),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),  # pydantic takes no others
    (Corner, st.sampled_from(Corner)),
    (complex, st.complex_numbers()),
    (TreeData, trees),
    (TreeModel, tree_models),
    (CatModel | DogModel, pets),
    (Annotated[CatModel | DogModel, pydantic.Field(discriminator="kind")], pets),
]


def containers(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    hashable = st.sampled_from(HASHABLE)
    return st.one_of(
        inner.map(lambda t: (list[t[0]], st.lists(t[1], max_size=3))),
        inner.map(lambda t: (tuple[t[0], ...], st.lists(t[1], max_size=3).map(tuple))),
        st.tuples(inner, inner).map(lambda ts: (tuple[ts[0][0], ts[1][0]], st.tuples(ts[0][1], ts[1][1]))),
        inner.map(lambda t: (Optional[t[0]], st.none() | t[1])),  # noqa: UP045 - Any has no |
        st.tuples(hashable, inner).map(
            lambda kv: (dict[kv[0][0], kv[1][0]], st.dictionaries(kv[0][1], kv[1][1], max_size=3))
        ),
        hashable.map(lambda t: (set[t[0]], st.sets(t[1], max_size=4))),
        hashable.map(lambda t: (frozenset[t[0]], st.frozensets(t[1], max_size=4))),
    )


def models(inner: st.SearchStrategy[Typed], makers: list[Any]) -> st.SearchStrategy[Typed]:
    def build(args: tuple[Any, Typed, Typed]) -> Typed:
        make, (first, firsts), (second, seconds) = args
        made = make({"first": first, "second": second})
        return made, made_of(made, firsts, seconds)

    return st.tuples(st.sampled_from(makers), inner, inner).map(build)


def made_of(made: Any, firsts: st.SearchStrategy[Any], seconds: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Without a look at its signature, which has a model's aliases."""
    return st.tuples(firsts, seconds).map(lambda pair: made(first=pair[0], second=pair[1]))


def make_dataclass(fields: dict[str, Any]) -> type:
    return dataclasses.make_dataclass("MadeData", list(fields.items()))


def make_frozen(fields: dict[str, Any]) -> type:
    return dataclasses.make_dataclass("MadeFrozen", list(fields.items()), frozen=True, slots=True, eq=False)


def make_struct(fields: dict[str, Any]) -> type:
    return msgspec.defstruct("MadeStruct", list(fields.items()), rename="camel")


def make_tagged(fields: dict[str, Any]) -> type:
    return msgspec.defstruct("MadeTagged", list(fields.items()), frozen=True, tag=True, array_like=True)


def make_attrs(fields: dict[str, Any]) -> type:
    return attrs.make_class("MadeAttrs", {name: attrs.field(type=kind) for name, kind in fields.items()})


def make_pydantic(fields: dict[str, Any]) -> type:
    return pydantic.create_model("MadeModel", **{name: (kind, ...) for name, kind in fields.items()})


def make_renamed(fields: dict[str, Any]) -> type:
    return msgspec.defstruct("MadeRenamed", list(fields.items()), rename="camel", kw_only=True, omit_defaults=True)


def make_aliased(fields: dict[str, Any]) -> type:
    """With other names for reading than for writing."""
    first, second = fields
    told = {
        first: pydantic.Field(alias="One"),
        second: pydantic.Field(validation_alias=pydantic.AliasChoices("old", "older"), serialization_alias="out"),
    }
    config = pydantic.ConfigDict(populate_by_name=True)
    made = {name: (kind, told[name]) for name, kind in fields.items()}
    return pydantic.create_model("MadeAliased", __config__=config, **made)  # type: ignore[call-overload, no-any-return]


def make_generic(fields: dict[str, Any]) -> type:
    first, second = fields.values()
    return GenericData[first, second]  # type: ignore[valid-type]


def make_generic_struct(fields: dict[str, Any]) -> type:
    first, second = fields.values()
    return GenericShape[first, second]  # type: ignore[valid-type]


def make_generic_model(fields: dict[str, Any]) -> type:
    first, second = fields.values()
    return GenericModel[first, second]  # type: ignore[valid-type]


def make_subclass(fields: dict[str, Any]) -> type:
    """One that inherits its first field."""
    (first, kind), (second, other) = fields.items()
    base = dataclasses.make_dataclass("MadeBase", [(first, kind)])
    return dataclasses.make_dataclass("MadeSub", [(second, other)], bases=(base,))


def make_submodel(fields: dict[str, Any]) -> type:
    (first, kind), (second, other) = fields.items()
    base = pydantic.create_model("MadeBaseModel", **{first: (kind, ...)})
    return pydantic.create_model("MadeSubModel", __base__=base, **{second: (other, ...)})


MSGSPEC_MAKERS = [make_dataclass, make_frozen, make_struct, make_tagged, make_attrs]
MSGSPEC_MAKERS += [make_renamed, make_generic, make_generic_struct, make_subclass]
PYDANTIC_MAKERS = [make_dataclass, make_pydantic, make_aliased, make_generic, make_generic_model, make_submodel]


def unions_of(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    """Of two types; a union with Any is Any, and tells no more than that."""
    told = inner.filter(lambda t: t[0] is not Any)
    return st.tuples(told, told).map(lambda ts: (Union[ts[0][0], ts[1][0]], ts[0][1] | ts[1][1]))  # noqa: UP007


def grammar(leaves: list[Typed], makers: list[Any], *, unions: bool = False) -> st.SearchStrategy[Typed]:
    def larger(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
        ways = containers(inner) | models(inner, makers)
        return ways | unions_of(inner) if unions else ways

    return st.recursive(st.sampled_from(leaves), larger, max_leaves=4)


def deepened(inner: Typed, depth: int, makers: list[Any]) -> Typed:
    """The same value, that many times in a list, a dict or a model."""
    annotation, values = inner
    for n in range(depth):
        make = makers[n % len(makers)]
        ways: list[tuple[Any, Any]] = [
            (list[annotation], lambda v: [v]),  # type: ignore[valid-type]
            (dict[str, annotation], lambda v: {"k": v}),  # type: ignore[valid-type]
            (Optional[annotation], lambda v: v),  # noqa: UP045
        ]
        if n % 4 == 3:
            made = make({"first": annotation, "second": int})
            annotation, values = made, made_of(made, values, whole)
        else:
            annotation, wrap = ways[n % 4]
            values = values.map(wrap)
    return annotation, values


def identical(one: Any, two: Any) -> bool:  # noqa: C901 - a plain list of cases reads best
    """Whether two values are the same to every eye: type, sign of zero, zone, fold, digits."""
    if type(one) is not type(two):
        return False
    match one:
        case float():
            return (math.isnan(one) and math.isnan(two)) or (
                one == two and math.copysign(1, one) == math.copysign(1, two)
            )
        case complex():
            return identical(one.real, two.real) and identical(one.imag, two.imag)
        case Decimal():
            return str(one) == str(two)
        case dt.datetime() | dt.time():
            return moment(one) == moment(two)
        case list() | tuple():
            return len(one) == len(two) and all(map(identical, one, two))
        case set() | frozenset():
            return sorted(map(canonical_repr, one)) == sorted(map(canonical_repr, two))
        case dict():
            return identical(list(one), list(two)) and identical(list(one.values()), list(two.values()))
        case _ if dataclasses.is_dataclass(one):
            return all(identical(getattr(one, f.name), getattr(two, f.name)) for f in dataclasses.fields(one))
        case msgspec.Struct():
            return identical(msgspec.structs.astuple(one), msgspec.structs.astuple(two))
        case pydantic.BaseModel():
            return all(identical(getattr(one, name), getattr(two, name)) for name in type(one).model_fields)
        case _ if attrs.has(type(one)):
            return all(identical(getattr(one, a.name), getattr(two, a.name)) for a in attrs.fields(type(one)))
        case _:
            return bool(one == two)


def moment(value: dt.datetime | dt.time) -> tuple[Any, ...]:
    """A fixed offset makes `fold` meaningless, and is the same in any class of tzinfo; a named zone is data."""
    zone = value.tzinfo
    named = zone.key if isinstance(zone, zoneinfo.ZoneInfo) else None
    fold = value.fold if zone is None or named else 0
    return value.replace(tzinfo=None, fold=0), value.utcoffset(), zone is None, named, fold


def canonical_repr(value: Any) -> str:
    """A text that is the same for the same items, whatever their order in a set."""
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}{sorted(map(canonical_repr, value))}"
    if isinstance(value, tuple):
        return f"({', '.join(map(canonical_repr, value))})"
    if isinstance(value, dt.datetime):
        return repr(moment(value))
    return repr(value)
