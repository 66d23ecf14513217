"""Whether plain data can be of a type, by its JSON Schema: for answers that come where no code is at hand.

It never refuses for what it does not know: the workflow's own decoder has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

MAX_DEPTH = 100
Schema = Mapping[str, Any]


def mismatch(schema: Schema, value: Any) -> str:
    """Why the value is not of the type, with the path of the place; empty if it may be.

    >>> mismatch({"type": "object", "required": ["ok"], "properties": {"ok": {"type": "boolean"}}}, {"ok": "yes"})
    "$.ok is 'yes', not boolean"
    """
    return _Looking(schema.get("$defs") or {}).at(schema, value, "$", 0)


class _Looking:
    def __init__(self, definitions: Schema) -> None:
        self._definitions = definitions

    def at(self, schema: Any, value: Any, path: str, depth: int) -> str:
        if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
            return ""
        if "$ref" in schema:
            name = str(schema["$ref"]).rpartition("/")[2]
            return self.at(self._definitions.get(name), value, path, depth + 1)
        several = schema.get("anyOf") or schema.get("oneOf")
        if several:
            return self._any(several, value, path, depth)
        wanted = _choice(schema, value) or _kind(schema, value)
        return f"{path} is {_shown(value)}, not {wanted}" if wanted else self._inside(schema, value, path, depth)

    def _any(self, schemas: Sequence[Any], value: Any, path: str, depth: int) -> str:
        found = [self.at(each, value, path, depth + 1) for each in schemas]
        if "" in found:
            return ""
        return found[0] if len(found) == 1 else f"{path} is {_shown(value)}, which fits none of the types there"

    def _inside(self, schema: Schema, value: Any, path: str, depth: int) -> str:
        if isinstance(value, Mapping):
            return self._fields(schema, value, path, depth)
        items = schema.get("items")
        if isinstance(value, Sequence) and not isinstance(value, str | bytes) and isinstance(items, Mapping):
            found = (self.at(items, each, f"{path}[{n}]", depth + 1) for n, each in enumerate(value))
            return next(filter(None, found), "")
        return ""

    def _fields(self, schema: Schema, value: Mapping[Any, Any], path: str, depth: int) -> str:
        missing = [name for name in schema.get("required") or () if name not in value]
        if missing:
            return f"{path} lacks {missing[0]!r}"
        fields = schema.get("properties") or {}
        known = [(name, each) for name, each in value.items() if name in fields]
        found = (self.at(fields[name], each, f"{path}.{name}", depth + 1) for name, each in known)
        return next(filter(None, found), "")


def _choice(schema: Schema, value: Any) -> str:
    """The values that it is none of."""
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if choices is None or not _is_json(value) or any(_same(value, each) for each in choices):
        return ""
    return f"{'one of ' if len(choices) > 1 else ''}{', '.join(map(repr, choices))}"


def _kind(schema: Schema, value: Any) -> str:
    """The types that it is none of."""
    kinds = schema.get("type") or []
    names = [kinds] if isinstance(kinds, str) else kinds
    tests = [_KINDS.get(name) for name in names]
    fits = not tests or any(test is None or test(value) for test in tests)
    return "" if fits else " or ".join(names)


def _is_json(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | list | tuple | Mapping)


def _same(value: Any, other: Any) -> bool:
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_KINDS: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool) or not _is_json(value),
    "integer": lambda value: (isinstance(value, int) and not isinstance(value, bool)) or not _is_json(value),
    "number": lambda value: _is_number(value) or not _is_json(value),
    "string": lambda value: isinstance(value, str) or not _is_json(value),  # dates, bytes and the like
    "array": lambda value: isinstance(value, list | tuple) or not _is_json(value),  # sets
    "object": lambda value: isinstance(value, Mapping) or not _is_json(value),
}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
