"""What is known of an annotation before any value is seen: who can encode it, and what then needs a closer look.

msgspec where it supports the whole type, else pydantic, which is optional and imported only when a type needs it.
"""

from __future__ import annotations

import functools
import operator
import typing
from typing import Any

import msgspec
from msgspec import inspect as info

from perdure.workflow.values_plain import NotPlain, type_name
from perdure.workflow.values_secret import Secret
from perdure.workflow.values_unions import SameFields, rivals_in

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic import TypeAdapter

_SORTABLE = (info.StrType, info.IntType, info.BytesType)


class NotSupported(Exception):
    """Neither msgspec nor pydantic can encode the type; the argument is the part of it that is at fault."""


class Traits(msgspec.Struct):
    """What the parts of a type ask of its codec."""

    has_any: bool = False
    has_maps: bool = False
    has_sets: bool = False
    has_odd_sets: bool = False  # of items that msgspec cannot be trusted to sort
    has_left_out: bool = False  # Structs that msgspec would write without what equals a default of today
    has_typed_dicts: bool = False
    equality_tells: bool = True  # `==`, and the same bytes again, show that nothing changed


def native_traits(annotation: Any) -> Traits | None:
    """The traits of a type that msgspec supports as a whole; None for any other.

    Raises:
        NameError: the type names something that is not defined yet.
    """
    try:
        root = info.type_info(annotation)
    except NameError:
        raise
    except Exception:  # noqa: BLE001 - unions that msgspec refuses, and what users' classes raise when looked at
        return None
    traits = Traits()
    for node in _nodes(root):
        is_secret = isinstance(node, info.CustomType) and node.cls is Secret
        if (isinstance(node, info.CustomType) and not is_secret) or _is_not_for_msgspec(node):
            return None
        _note(node, traits)
    return traits


def field_facts(kind: Any, name: str) -> tuple[Any, ...]:
    """What pydantic is told of a field: its `Field`, and what else its annotation holds."""
    field = getattr(kind, "__pydantic_fields__", {}).get(name)
    if field is not None:
        return (field, *field.metadata)
    return _annotated(kind).get(name, ())


@functools.lru_cache(maxsize=4096)
def _annotated(kind: Any) -> dict[str, tuple[Any, ...]]:
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:  # noqa: BLE001 - names that are not defined: msgspec tells of them
        return {}
    return {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}


@functools.lru_cache(maxsize=4096)
def old_names(kind: Any, name: str) -> tuple[str, ...]:
    """The names that a field has had: its aliases."""
    found: list[str] = []
    for fact in field_facts(kind, name):
        for alias in (getattr(fact, "validation_alias", None), getattr(fact, "alias", None)):
            found.extend(each for each in getattr(alias, "choices", [alias]) if isinstance(each, str))
    return tuple(found)


def culprit(annotation: Any) -> Any:
    """The first part of a type that msgspec does not know, or the whole type."""
    try:
        parts = [node.cls for node in _nodes(info.type_info(annotation)) if isinstance(node, info.CustomType)]
    except Exception:  # noqa: BLE001 - as above
        parts = []
    return parts[0] if parts else annotation


def _nodes(root: info.Type) -> Iterator[info.Type]:
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        for name in node.__struct_fields__:
            waiting.extend(_types_in(getattr(node, name)))


def _types_in(value: Any) -> Iterator[info.Type]:
    if isinstance(value, info.Type):
        yield value
    elif isinstance(value, info.Field):
        yield value.type
    elif isinstance(value, tuple):
        for item in value:
            yield from _types_in(item)


def _is_not_for_msgspec(node: info.Type) -> bool:
    """Classes that msgspec takes for its own: pydantic's, those with aliases, attrs' whose fields it leaves out."""
    if not isinstance(node, info.DataclassType):
        return False
    kind = _class_of(node)
    hides_fields = any(attribute.name.startswith("_") for attribute in getattr(kind, "__attrs_attrs__", ()))
    has_aliases = any(old_names(kind, field.name) for field in node.fields)
    return hides_fields or has_aliases or "__pydantic_fields__" in vars(kind)


def _class_of(node: info.DataclassType | info.StructType) -> Any:
    """The class itself, also of a generic one with parameters."""
    return typing.get_origin(node.cls) or node.cls


def _note(node: info.Type, traits: Traits) -> None:
    match node:
        case info.AnyType() | info.RawType():
            traits.has_any = True
        case info.DictType() | info.TypedDictType():
            traits.has_maps = True
            traits.has_typed_dicts |= isinstance(node, info.TypedDictType)
        case info.DataclassType():
            traits.equality_tells &= not hasattr(_class_of(node), "__post_init__")  # which sets what is no field
        case info.StructType():
            traits.has_left_out |= _class_of(node).__struct_config__.omit_defaults
        case info.SetType() | info.FrozenSetType():
            traits.has_sets = True
            traits.has_odd_sets |= not isinstance(node.item_type, _SORTABLE)
        case info.DateTimeType() | info.TimeType():  # equal in any zone, and MessagePack has UTC only
            traits.equality_tells = False
        case _:
            pass


class Adapter:
    """pydantic's encoding of one type, with its errors in our terms.

    Raises:
        NotSupported: pydantic does not know the type either, or is not installed.
        NameError: the type names something that is not defined yet.
    """

    def __init__(self, annotation: Any) -> None:
        self.adapter = _type_adapter(annotation)
        parts = list(_schema_parts(self.adapter.core_schema))
        kinds = {part["type"] for part in parts}
        if kinds & _NOT_DATA or any(map(_is_no_data, parts)):
            raise NotSupported(type_name(culprit(annotation)))
        try:
            self.rivals = rivals_in(parts)
        except SameFields as problem:
            raise NotSupported(str(problem)) from problem
        self.is_ambiguous = any(part["type"] == "union" and _members(part) > 1 for part in parts)
        self.traits = _traits(kinds, parts, is_ambiguous=self.is_ambiguous)
        self.has_only_tagged = bool(kinds & _NOT_IN_JSON)
        self.has_secrets = any(map(_is_secret, parts))
        self.enums = _enums(parts)
        # Names, not aliases: aliases for reading and writing may differ. Older pydantic has aliases only.
        self.names: dict[str, bool] = {"by_alias": False, "by_name": True} if _knows_names(self.adapter) else {}
        self.has_aliases = bool(self.names) and _has_aliases(parts)

    def dump_json(self, value: Any) -> bytes:
        return self.adapter.dump_json(value, by_alias=not self.names, round_trip=True, warnings=False)

    def dump_python(self, value: Any) -> Any:
        return self.adapter.dump_python(value, by_alias=not self.names, round_trip=True, warnings=False)

    def validate_json(self, data: bytes, *, aliases: bool = False) -> Any:
        return self._validate(self.adapter.validate_json, data, aliases=aliases)

    def validate_python(self, tree: Any, *, aliases: bool = False) -> Any:
        return self._validate(self.adapter.validate_python, tree, aliases=aliases)

    def _validate(self, validate: Callable[..., Any], data: Any, *, aliases: bool) -> Any:
        try:
            return validate(data, **(self.names | {"by_alias": True} if aliases else self.names))
        except ValueError as error:
            if not hasattr(error, "errors"):
                raise
            first = error.errors(include_url=False, include_context=False)[0]
            problem = NotPlain(first["msg"])
            problem.segments = [f"[{p}]" if isinstance(p, int) else f".{p}" for p in reversed(first["loc"])]
            raise problem from error


def _type_adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        import pydantic  # noqa: PLC0415 - optional, and slow to import

        adapter: TypeAdapter[Any] = pydantic.TypeAdapter(annotation)
        _ = adapter.core_schema  # raises what is still missing
    except NameError:
        raise
    except Exception as error:
        if getattr(error, "code", None) in {"class-not-fully-defined", "undefined-annotation"}:
            raise NameError(str(error)) from error
        told = isinstance(error, ImportError) or getattr(error, "code", None) == "schema-for-unknown-type"
        raise NotSupported(type_name(culprit(annotation))) from None if told else error
    return adapter


def _traits(kinds: set[str], parts: list[dict[str, Any]], *, is_ambiguous: bool) -> Traits:
    sets_others = any(part.get("post_init") for part in parts)
    return Traits(
        has_any="any" in kinds,
        has_maps=True,
        equality_tells=not (is_ambiguous or sets_others or kinds & _EQUAL_BUT_NOT_SAME),
        has_typed_dicts="typed-dict" in kinds,
    )


def _enums(parts: list[dict[str, Any]]) -> frozenset[type]:
    return frozenset(part["cls"] for part in parts if part["type"] == "enum")


def _has_aliases(parts: list[dict[str, Any]]) -> bool:
    return any("validation_alias" in part for part in parts)


def _is_no_data(part: dict[str, Any]) -> bool:
    """What pydantic reads, but writes for people only: its own secrets, and patterns."""
    written = (part.get("serialization") or {}).get("function")
    return getattr(written, "__name__", "") == "_serialize_secret_field" or repr(written) == _PATTERN_WRITER


_PATTERN_WRITER = repr(operator.attrgetter("pattern"))


def _is_secret(part: dict[str, Any]) -> bool:
    return bool((part.get("metadata") or {}).get("perdure_secret"))


_EQUAL_BUT_NOT_SAME = {
    "datetime",
    "time",
    "decimal",
    "complex",
    "deque",
}  # in another zone, with other digits, signs or lengths
_NOT_DATA = {"callable", "is-instance", "is-subclass", "generator"}
_NOT_IN_JSON = {"set", "frozenset", "bytes"}  # it has the order of hashes, or is taken for text
_NO_PARTS = {"metadata", "serialization", "config", "default", "members", "expected"}
_BRANCH: dict[Any, str] = {"json-or-python": "json_schema", "lax-or-strict": "lax_schema"}


def _schema_parts(schema: Any) -> Iterator[dict[str, Any]]:
    """All parts of a schema of pydantic's that JSON can reach and that have a `type`."""
    waiting: list[Any] = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list | tuple):
            waiting.extend(part)
        elif isinstance(part, dict):
            kind = part.get("type")
            if isinstance(kind, str):
                yield part
            if kind in _BRANCH:
                waiting.append(part[_BRANCH[kind]])
            else:
                waiting.extend(item for key, item in part.items() if key not in _NO_PARTS)


def _members(union: dict[str, Any]) -> int:
    choices = (choice[0] if isinstance(choice, tuple) else choice for choice in union["choices"])
    return sum(choice["type"] != "none" for choice in choices)


def _knows_names(adapter: TypeAdapter[Any]) -> bool:
    code = getattr(type(adapter).validate_json, "__code__", None)
    return code is not None and "by_name" in code.co_varnames
