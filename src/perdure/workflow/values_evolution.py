"""Whether what was read is what was recorded, perhaps by other code: decoded, or stalled, but never wrong.

What is recorded, and what was made of it, written again, are laid side by side. Fields may have come (with their
defaults), gone, or been renamed by an alias; what both have must be the same data.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import enum
import functools
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.workflow.values_check import Rules, check_same
from perdure.workflow.values_plain import NotPlain, field_names, segment, show, type_name
from perdure.workflow.values_secret import NOT_ITS_TYPE, Secret
from perdure.workflow.values_types import field_facts, old_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SEQUENCES = (list, tuple, set, frozenset)
_UNORDERED = (set, frozenset)
_WRITTEN = (dt.datetime, dt.date, dt.time, dt.timedelta, uuid.UUID, Decimal)
_UNKNOWN = object()  # the value at a place that its class does not show
_EXACTLY = Rules(lenient=False)


class OwnCode(enum.Enum):
    """What a class does to its data when it is made, by code of the user's."""

    NONE = 0
    TIDIES = 1  # it may change a text to another, not to a number
    CONVERTS = 2  # it sees what was recorded, and makes of it what it likes


class Evolution:
    """Compares what was recorded with what was read.

    rivals: by class, those that stand beside it in a union which nothing tells apart; each with what reads it.
    drops: whether the type has maps that pass over keys: a TypedDict.
    """

    def __init__(self, rivals: Mapping[type, Mapping[type, Callable[[Any], Any]]], *, drops: bool) -> None:
        self.rivals = rivals
        self.drops = drops

    def check(self, old: Any, new: Any, value: Any, *, tidied: bool = False) -> None:
        """Pass if `new`, which is `value` in plain data, says what `old` said.

        Raises:
            NotPlain: with the path of the first place that differs.
        """
        if getattr(type(value), "__pydantic_root_model__", False):
            value = value.root
        if isinstance(new, Secret):
            self._secrets(old, new, value)
        elif isinstance(old, dict) and isinstance(new, dict):
            self._maps(old, new, value, tidied=tidied)
        elif isinstance(old, _SEQUENCES) and isinstance(new, _SEQUENCES):
            self._sequences(old, new, value, tidied=tidied)
        elif not _is_same(old, new, value) and not (tidied and type(old) is type(new)):
            raise NotPlain(f"was recorded as {show(old)}, but would be read as {show(_known(value, new))}")

    def _at(self, place: str, old: Any, new: Any, value: Any, *, tidied: bool) -> None:
        try:
            self.check(old, new, value, tidied=tidied)
        except NotPlain as problem:
            problem.segments.append(place)
            raise

    def _secrets(self, old: Any, new: Secret[Any], value: Any) -> None:
        held = value.reveal() if isinstance(value, Secret) else _UNKNOWN
        try:
            self.check(old.reveal() if isinstance(old, Secret) else old, new.reveal(), held)
        except NotPlain:
            raise NotPlain(NOT_ITS_TYPE) from None

    def _maps(self, old: dict[Any, Any], new: dict[Any, Any], value: Any, *, tidied: bool) -> None:
        kind: Any = type(value)
        names = None if value is _UNKNOWN else field_names(kind)
        if names is not None:
            self._models(old, new, value, names)
        elif len(old) == len(new):
            self._pairs(old, new, value, tidied=tidied)
        elif self.drops and new.keys() <= old.keys():
            held = value if isinstance(value, dict) else {}
            for key, its in new.items():
                self._at(segment(key), old[key], its, held.get(key, _UNKNOWN), tidied=tidied)
        elif not tidied:
            raise NotPlain(f"was recorded with {len(old)} items, but would be read with {len(new)}")

    def _pairs(self, old: dict[Any, Any], new: dict[Any, Any], value: Any, *, tidied: bool) -> None:
        values = value.values() if isinstance(value, dict) else [_UNKNOWN] * len(new)
        for (key, item), (other, its), held in zip(old.items(), new.items(), values, strict=True):
            self._at(segment(key), key, other, other, tidied=tidied)
            self._at(segment(key), item, its, held, tidied=tidied)

    def _models(self, old: dict[Any, Any], new: dict[Any, Any], value: Any, names: dict[str, str]) -> None:
        kind: Any = type(value)
        if old.keys() != new.keys():
            self._check_rivals(old, kind)
        for key, its in new.items():
            found = key if key in old else next((each for each in old_names(kind, key) if each in old), None)
            code = _own_code(kind, key)
            if found is None or code is OwnCode.CONVERTS:
                continue
            held = getattr(value, names[key], _UNKNOWN) if key in names else _UNKNOWN
            self._at(segment(found), old[found], its, held, tidied=code is OwnCode.TIDIES)

    def _check_rivals(self, old: dict[Any, Any], kind: Any) -> None:
        for rival, read in self.rivals.get(kind, {}).items():
            if _shared(rival, old) < _shared(kind, old):
                continue
            with contextlib.suppress(Exception):
                read(old)
                break
        else:
            return
        raise NotPlain(
            f"fits {type_name(kind)} and {type_name(rival)}, and nothing in it tells which it was; put that one first"
            " in the union, or tell them apart by a field of type Literal"
        )

    def _sequences(self, old: Any, new: Any, value: Any, *, tidied: bool) -> None:
        if isinstance(value, msgspec.Struct):  # declared array_like: fields may come and go at the end
            tag = [] if value.__struct_config__.tag is None else [_UNKNOWN]
            held = [*tag, *msgspec.structs.astuple(value)]
        elif len(old) != len(new) and not hasattr(value, "_fields"):
            if tidied:
                return
            raise NotPlain(f"was recorded with {len(old)} items, but would be read with {len(new)}")
        elif isinstance(value, _UNORDERED) or isinstance(old, _UNORDERED):
            _check_sets(old, new, value)
            return
        else:
            held = [_UNKNOWN] * len(new) if not hasattr(value, "__getitem__") else list(value)
        for index, (item, its, each) in enumerate(zip(old, new, held, strict=False)):
            self._at(f"[{index}]", item, its, each, tidied=tidied)


def _check_sets(old: Any, new: Any, value: Any) -> None:
    """Items have no order, and text may stand for an item of another type."""
    items = sorted(value if isinstance(value, _UNORDERED) else new, key=str)
    for item, its in zip(sorted(old, key=str), items, strict=True):
        if not _is_same(item, its, its) and not _is_enum_of(item, its):
            raise NotPlain(f"was recorded with {show(item)}, but would be read with {show(its)}")


def _is_enum_of(old: Any, value: Any) -> bool:
    return isinstance(value, enum.Enum) and _is_same(old, value.value, value.value)


def _known(value: Any, plain: Any) -> Any:
    return plain if value is _UNKNOWN else value


def _is_same(old: Any, new: Any, value: Any) -> bool:
    """Whether a single datum is the one that was recorded, perhaps in a wider type or another spelling."""
    if type(old) is type(new):
        with contextlib.suppress(NotPlain):
            check_same(old, new, _EXACTLY)
            return True
    if isinstance(old, bool) or isinstance(new, bool):
        return False
    if isinstance(old, int | float):
        if isinstance(value, Decimal):
            return Decimal(str(old)) == value
        return isinstance(new, int | float) and old == new
    return isinstance(old, str) and _spells(old, value)


def _spells(text: str, value: Any) -> bool:
    """Whether text stands for this value: a date for one, or bytes as libraries write them in JSON."""
    with contextlib.suppress(ValueError, NotPlain, msgspec.ValidationError):
        if isinstance(value, bytes):
            return text.encode() == value or base64.b64decode(text, validate=True) == value
        if type(value) in _WRITTEN:
            check_same(msgspec.convert(text, type(value)), value, _EXACTLY)
            return True
    return False


# --- what classes say of themselves -----------------------------------------------------------------------------------


def _shared(kind: Any, old: dict[Any, Any]) -> int:
    """How many of a class's fields were recorded."""
    names = field_names(kind) or {}
    return sum(name in old or any(each in old for each in old_names(kind, name)) for name in names)


@functools.lru_cache(maxsize=4096)
def _own_code(kind: Any, name: str) -> OwnCode:
    """What the class's own code may do to a field."""
    modes = _pydantic_modes(kind, name) | {_MODES.get(type(each).__name__, "") for each in field_facts(kind, name)}
    modes |= {"before" for each in getattr(kind, "__attrs_attrs__", ()) if each.name == name and each.converter}
    if modes & {"before", "wrap", "plain"}:
        return OwnCode.CONVERTS
    told = [getattr(kind, "model_config", {}).get(each) for each in _TIDYING]
    told += [getattr(kind, each, None) for each in _HOOKS]
    return OwnCode.TIDIES if "after" in modes or any(told) else OwnCode.NONE


def _pydantic_modes(kind: Any, name: str) -> set[str]:
    """When the validators of a pydantic class see a field: before or after pydantic itself."""
    told = getattr(kind, "__pydantic_decorators__", None)
    if told is None:
        return set()
    modes = {each.info.mode for each in told.model_validators.values()}
    for each in (*told.field_validators.values(), *told.validators.values()):
        if name in each.info.fields or "*" in each.info.fields:
            modes.add(getattr(each.info, "mode", "before"))
    return modes


_MODES = {
    "BeforeValidator": "before",
    "WrapValidator": "wrap",
    "PlainValidator": "plain",
    "AfterValidator": "after",
    "StringConstraints": "after",
}
_TIDYING = ("str_strip_whitespace", "str_to_lower", "str_to_upper")
_HOOKS = ("__post_init__", "__attrs_post_init__", "__pydantic_post_init__")
