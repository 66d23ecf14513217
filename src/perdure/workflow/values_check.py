"""Whether what decoding brings back is what was encoded: the exact comparison behind "never a silently changed value".

Equality alone does not tell: `==` is blind to a lost time zone, to the class of a model, and trusts users' methods.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import functools
import math
import uuid
import zoneinfo
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from perdure.workflow.values_plain import NotPlain, field_names, model_fields, segment, show, type_name
from perdure.workflow.values_secret import NOT_ITS_TYPE, Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_SEQUENCES = (list, tuple, set, frozenset)
_NUMBERS = (int, float, Decimal)
_ATOMS = frozenset({str, int, bool, bytes, type(None)})
_BYTES = (bytes, bytearray, memoryview)
_WRITTEN = (dt.datetime, dt.date, dt.time, dt.timedelta, uuid.UUID, Decimal)


class Rules(NamedTuple):
    """What may differ. A builtin's subclass and an IntEnum may always come back as the builtin that they equal.

    lenient: what the annotation asks for: a tuple given for a list, a dict for a model, text for a date, as long as
        nothing is lost. Without it the types must agree, as where nothing is annotated.
    enums: those that the annotation names: their members come back as such.
    """

    lenient: bool
    enums: frozenset[type] = frozenset()


def check_same(value: Any, decoded: Any, rules: Rules) -> None:
    """Pass if `decoded` holds all that `value` holds.

    Raises:
        NotPlain: with the path of the first difference.
    """
    if type(value) is type(decoded):
        same = _SAME.get(type(value))
        if same is not None:
            same(value, decoded, rules)
        else:
            _same_object(value, decoded, rules)
    elif not _converted(value, decoded, rules):
        come_back = f"is of type {type_name(type(value))}, but would come back as {type_name(type(decoded))}"
        if not rules.lenient and type(decoded) in _UNTYPED:
            come_back += ", as no annotation tells more"
        raise NotPlain(come_back)


def _differs(value: Any, decoded: Any) -> NotPlain:
    return NotPlain(f"is {show(value)}, but would come back as {show(decoded)}")


def _same_float(value: float, decoded: float, _rules: Rules) -> None:
    both_nan = math.isnan(value) and math.isnan(decoded)
    if not both_nan and (value != decoded or math.copysign(1, value) != math.copysign(1, decoded)):
        raise _differs(value, decoded)


def _same_decimal(value: Decimal, decoded: Decimal, _rules: Rules) -> None:
    if value.as_tuple() != decoded.as_tuple():
        raise _differs(value, decoded)


def _same_complex(value: complex, decoded: complex, rules: Rules) -> None:
    _same_float(value.real, decoded.real, rules)
    _same_float(value.imag, decoded.imag, rules)


def _same_moment(value: dt.datetime | dt.time, decoded: dt.datetime | dt.time, _rules: Rules) -> None:
    zone = value.tzinfo
    if (
        value.replace(tzinfo=None, fold=0) != decoded.replace(tzinfo=None, fold=0)
        or value.utcoffset() != decoded.utcoffset()
        or (zone is None) != (decoded.tzinfo is None)
        or (isinstance(zone, zoneinfo.ZoneInfo) and _key(zone) != _key(decoded.tzinfo))
        or (value.fold != decoded.fold and not isinstance(zone, dt.timezone))
    ):
        raise _differs(value, decoded)


def _key(zone: dt.tzinfo | None) -> str:
    return (zone.key or "") if isinstance(zone, zoneinfo.ZoneInfo) else ""


def _same_items(value: Any, decoded: Any, rules: Rules) -> None:
    if len(value) != len(decoded):
        raise NotPlain(f"has {len(value)} items, but would come back with {len(decoded)}")
    for index, (item, other) in enumerate(zip(value, decoded, strict=True)):
        try:
            check_same(item, other, rules)
        except NotPlain as problem:
            problem.segments.append(f"[{index}]")
            raise


def _same_set(value: Any, decoded: Any, rules: Rules) -> None:
    for item, other in _paired(value, decoded):
        check_same(item, other, rules)


def _same_dict(value: dict[Any, Any], decoded: dict[Any, Any], rules: Rules) -> None:
    for key, other in _paired(value, decoded):
        try:
            check_same(key, other, rules)
            check_same(value[key], decoded[other], rules)
        except NotPlain as problem:
            problem.segments.append(segment(key))
            raise


def _paired(values: Any, decoded: Any) -> list[tuple[Any, Any]]:
    """Items of sets, or keys of dicts, paired by equality; those that equal nothing, as NaN does, by their text."""
    if len(values) != len(decoded):
        raise NotPlain(f"has {len(values)} items, but would come back with {len(decoded)}")
    others = {item: item for item in decoded}
    pairs = []
    left = []
    for item in values:
        other = others.pop(item, _MISSING)
        if other is _MISSING:
            left.append(item)
        else:
            pairs.append((item, other))
    return pairs + list(zip(sorted(left, key=show), sorted(others, key=show), strict=True))


def _same_secret(value: Secret[Any], decoded: Secret[Any], rules: Rules) -> None:
    try:
        check_same(value.reveal(), decoded.reveal(), rules)
    except NotPlain:
        raise NotPlain(NOT_ITS_TYPE) from None


def _same_object(value: Any, decoded: Any, rules: Rules) -> None:
    for base in _CONTAINERS:
        if isinstance(value, base):  # a NamedTuple, or another subclass
            return _SAME[base](value, decoded, rules)
    kind: Any = type(value)
    names = field_names(kind)
    if names is not None:
        _same_dict(_extra(value), _extra(decoded), rules)
        _same_attributes(value, decoded, names, rules)
        return _same_model(value, decoded, names.values(), rules)
    if (value == decoded) is not True:
        raise _differs(value, decoded)
    return None


def _extra(value: Any) -> dict[str, Any]:
    """What a pydantic model holds beside its fields."""
    return getattr(value, "__pydantic_extra__", None) or {}


def _same_attributes(value: Any, decoded: Any, names: Mapping[str, str], rules: Rules) -> None:
    """What a dataclass holds beside its fields, as its `__post_init__` sets it; not what is private or cached."""
    others = getattr(decoded, "__dict__", {})
    if not dataclasses.is_dataclass(value) or not hasattr(value, "__dict__"):
        return
    for name, item in vars(value).items():
        if (
            name in names
            or name.startswith("_")
            or isinstance(getattr(type(value), name, None), functools.cached_property)
        ):
            continue
        try:
            if name not in others:
                raise NotPlain("is no field, and would not come back")  # noqa: TRY301 - gets its path below
            check_same(item, others[name], rules)
        except NotPlain as problem:
            problem.segments.append(segment(name))
            raise


def _same_deque(value: Any, decoded: Any, rules: Rules) -> None:
    if value.maxlen != decoded.maxlen:
        raise NotPlain(f"has a maxlen of {value.maxlen}, which would not come back")
    _same_items(value, decoded, rules)


def _same_model(value: Any, decoded: Any, names: Iterable[str], rules: Rules) -> None:
    for name in names:
        item, other = getattr(value, name), getattr(decoded, name)
        if type(item) in _ATOMS and type(item) is type(other) and item == other:
            continue  # most fields are of this kind, and a call takes its time
        try:
            check_same(item, other, rules)
        except NotPlain as problem:
            problem.segments.append(segment(name))
            raise


def _converted(value: Any, decoded: Any, rules: Rules) -> bool:
    """Whether a value of another type than given still holds the same data, of the type that the annotation names."""
    if isinstance(decoded, enum.Enum) or type(value) in rules.enums:
        return rules.lenient and type(value) in {str, int} and decoded.value == value
    for given, made, holds in _CONVERSIONS:
        if isinstance(value, given) and isinstance(decoded, made):
            return holds(value, decoded, rules)
    return False


def _as_dict(value: Any, decoded: Any, rules: Rules) -> bool:
    _same_dict(value, decoded, rules)
    return True


def _as_number(value: Any, decoded: Any, rules: Rules) -> bool:
    may_differ = rules.lenient or isinstance(value, type(decoded))
    return may_differ and not isinstance(value, bool) and not isinstance(decoded, bool) and value == decoded


def _as_moment(value: Any, decoded: Any, rules: Rules) -> bool:
    _same_moment(value, decoded, rules)
    return True


def _as_sequence(value: Any, decoded: Any, rules: Rules) -> bool:
    if not rules.lenient or type(value) not in _SEQUENCES:
        return False
    unordered = isinstance(decoded, set | frozenset) or isinstance(value, set | frozenset)
    (_same_set if unordered else _same_items)(value, decoded, rules)
    return True


def _as_model(value: Any, decoded: Any, rules: Rules) -> bool:
    """All that a dict has, in the fields of the model that was made of it."""
    others = model_fields(decoded)
    if not rules.lenient or others is None:
        return False
    for name, item in value.items():
        try:
            if name not in others:
                raise NotPlain("would not come back")  # noqa: TRY301 - gets its path below
            check_same(item, others[name], rules)
        except NotPlain as problem:
            problem.segments.append(segment(name))
            raise
    return True


def _as_bytes(value: Any, decoded: Any, rules: Rules) -> bool:
    return rules.lenient and bytes(value) == bytes(decoded)


def _as_text(value: Any, decoded: Any, rules: Rules) -> bool:
    return rules.lenient and type(value) is str and msgspec.to_builtins(decoded) == value


_MISSING = object()
_UNTYPED = {dict, list, str, int, float}
_CONTAINERS = (tuple, list, set, frozenset, dict)

# Given, made of it, and whether that holds the same; the first row that fits decides.
_CONVERSIONS: list[tuple[Any, Any, Callable[[Any, Any, Rules], bool]]] = [
    (dict, dict, _as_dict),
    (_NUMBERS, _NUMBERS, _as_number),
    (str, str, lambda value, decoded, _: str.__eq__(value, decoded)),
    (dt.datetime, dt.datetime, _as_moment),
    (_SEQUENCES, _SEQUENCES, _as_sequence),
    (dict, object, _as_model),
    (_BYTES, _BYTES, _as_bytes),
    (str, _WRITTEN, _as_text),
]


def _same_plain(value: Any, decoded: Any, _rules: Rules) -> None:
    if value != decoded:
        raise _differs(value, decoded)


_SAME: dict[type, Callable[[Any, Any, Rules], None]] = {
    **dict.fromkeys((type(None), bool, int, str, bytes, bytearray, dt.date, dt.timedelta), _same_plain),
    float: _same_float,
    complex: _same_complex,
    Decimal: _same_decimal,
    dt.datetime: _same_moment,
    dt.time: _same_moment,
    list: _same_items,
    tuple: _same_items,
    collections.deque: _same_deque,
    set: _same_set,
    frozenset: _same_set,
    dict: _same_dict,
    Secret: _same_secret,
}
