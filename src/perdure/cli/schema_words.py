"""A JSON Schema in a few words, `{"approved": boolean, "comment"?: string}`: what somebody is to type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DEEPEST = 3
MOST = 12  # fields or choices
ANYTHING = "any JSON"


def schema_words(schema: Mapping[str, Any]) -> str:
    """Names of types, fields with their names (`?`: may be left out), choices as they are typed.

    >>> schema_words({"type": "array", "items": {"enum": ["yes", "no"]}})
    '["yes" | "no", ...]'
    """
    return _words(schema, schema.get("$defs", {}), 0)


def _words(schema: Any, named: Mapping[str, Any], depth: int) -> str:
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return "..."
    if "$ref" in schema:
        return _words(named.get(str(schema["$ref"]).rpartition("/")[2]), named, depth)
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    if "enum" in schema:
        return _either([json.dumps(each, ensure_ascii=False) for each in schema["enum"]])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return _either([_words(each, named, depth) for each in schema[several]])
    return _typed(schema, named, depth)


def _typed(schema: Mapping[str, Any], named: Mapping[str, Any], depth: int) -> str:
    kind = schema.get("type", ANYTHING)
    if kind == "object" and "properties" in schema:
        return _fields(schema, named, depth)
    if kind == "array" and "items" in schema:
        return f"[{_words(schema['items'], named, depth + 1)}, ...]"
    form = f" ({schema['format']})" if "format" in schema else ""
    return f"{kind}{form}" if isinstance(kind, str) else _either([str(each) for each in kind])


def _fields(schema: Mapping[str, Any], named: Mapping[str, Any], depth: int) -> str:
    needed = schema.get("required", ())
    told = [
        f'"{name}"{"" if name in needed else "?"}: {_words(each, named, depth + 1)}'
        for name, each in schema["properties"].items()
    ]
    return f"{{{', '.join(told[:MOST])}{', ...' if told[MOST:] else ''}}}"


def _either(choices: list[str]) -> str:
    return " | ".join([*dict.fromkeys(choices)][:MOST]) + (" | ..." if choices[MOST:] else "")
