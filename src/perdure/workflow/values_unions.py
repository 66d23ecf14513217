"""Unions of models without a tag: which classes stand side by side, and which of them nobody could tell apart.

pydantic takes the member that fits best, and the first of those that fit alike. With the same fields, the bytes of one
are the bytes of the other: such a union is refused.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

from perdure.workflow.values_plain import type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Rivals = dict[type, dict[type, "Callable[[Any], Any]"]]


class SameFields(Exception):
    """Two members of a union have the same fields; the argument tells which."""


def rivals_in(parts: Iterable[dict[str, Any]]) -> Rivals:
    """By class, those that stand beside it in a union without a tag, each with what reads it from plain data.

    Raises:
        SameFields: nothing could tell two of them apart.
    """
    parts = list(parts)
    by_ref = {part["ref"]: part for part in parts if "ref" in part}
    found: Rivals = {}
    for union in (part for part in parts if part["type"] == "union"):
        members = [part for part in _choices(union, by_ref) if isinstance(part.get("cls"), type)]
        for one, other in itertools.permutations(members, 2):
            if one["cls"] is not other["cls"]:
                _check_apart(one, other, by_ref)
                found.setdefault(one["cls"], {})[other["cls"]] = functools.partial(_read, other["cls"])
    return found


def _read(kind: type, tree: Any) -> Any:
    return _adapter(kind).validate_python(tree, by_alias=True, by_name=True)


@functools.lru_cache(maxsize=1024)
def _adapter(kind: type) -> Any:
    import pydantic  # noqa: PLC0415 - optional; its schema is why we are here

    return pydantic.TypeAdapter(kind)


def _choices(part: dict[str, Any], by_ref: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The models among the members of a union, and of the unions in it."""
    match part["type"]:
        case "union":
            for choice in part["choices"]:
                yield from _choices(choice[0] if isinstance(choice, tuple) else choice, by_ref)
        case "definition-ref" if part["schema_ref"] in by_ref:
            yield from _choices(by_ref[part["schema_ref"]], by_ref)
        case "model" | "dataclass" if not part.get("root_model"):
            yield part
        case "nullable" | "default" | "function-before" | "function-after" | "function-wrap":
            yield from _choices(part["schema"], by_ref)
        case _:
            pass


def _check_apart(one: dict[str, Any], other: dict[str, Any], by_ref: Mapping[str, dict[str, Any]]) -> None:
    left, right = _fields(one), _fields(other)
    if left is None or right is None or left.keys() != right.keys():
        return
    if not any(_differ(_shape(left[name], by_ref), _shape(right[name], by_ref)) for name in left):
        both = f"{type_name(one['cls'])} and {type_name(other['cls'])}"
        raise SameFields(f"{both} have the same fields: tell them apart by a field of type Literal")


def _fields(part: dict[str, Any]) -> dict[str, Any] | None:
    """The schemas of a model's fields."""
    inner = part["schema"]  # below validators of the whole model
    while "fields" not in inner:
        if "schema" not in inner:
            return None
        inner = inner["schema"]
    fields = inner["fields"]
    return fields if isinstance(fields, dict) else {each["name"]: each for each in fields}


def _shape(part: dict[str, Any], by_ref: Mapping[str, dict[str, Any]]) -> frozenset[Any]:
    """What its data can look like when it is written; empty: anything."""
    match part["type"]:
        case "model-field" | "dataclass-field" | "default":
            return _shape(part["schema"], by_ref)
        case "definition-ref" if part["schema_ref"] in by_ref:
            return _shape(by_ref[part["schema_ref"]], by_ref)
        case "literal":
            return _values(part["expected"])
        case "enum":
            return _values([member.value for member in part["members"]])
        case kind:
            return frozenset({_SHAPES[kind]}) if kind in _SHAPES else frozenset()


def _values(expected: Iterable[Any]) -> frozenset[Any]:
    values = [getattr(value, "value", value) for value in expected]
    return (
        frozenset(("is", each) for each in values)
        if {type(each) for each in values} <= _SHAPE_OF.keys()
        else frozenset()
    )


def _differ(one: frozenset[Any], other: frozenset[Any]) -> bool:
    if not one or not other or one & other:
        return False
    values = [each for each in one ^ other if isinstance(each, tuple)]
    return len(values) == len(one | other) or not any(_SHAPE_OF.get(type(value)) in one | other for _, value in values)


_SHAPE_OF: dict[type, str] = {str: "text", int: "number", bool: "truth", bytes: "bytes"}
_SHAPES: dict[str, str] = {
    **dict.fromkeys(("int", "float"), "number"),
    **dict.fromkeys(("str", "date", "time", "datetime", "timedelta", "uuid", "url", "decimal"), "text"),
    **dict.fromkeys(("list", "tuple", "set", "frozenset", "deque"), "array"),
    **dict.fromkeys(("dict", "model", "dataclass", "typed-dict"), "map"),
    "bool": "truth",
    "bytes": "bytes",
}
