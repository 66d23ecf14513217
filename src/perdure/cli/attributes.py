"""Search attributes as text, and as people type them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any

from perdure import journal as jn
from perdure.cli.inputs import plain_or_text

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ].*(Z|[+-]\d\d:?\d\d)")
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def attributes_text(attributes: Mapping[str, jn.Attribute]) -> list[str]:
    """`name=value`, by name."""
    return [f"{name}={_text(attribute)}" for name, attribute in sorted(attributes.items())]


def _text(attribute: jn.Attribute) -> str:
    value: Any = attribute.value
    return value_text(EPOCH + dt.timedelta(microseconds=value) if attribute.kind == "time" else value)


def value_text(value: Any) -> str:
    """One attribute's value."""
    match value:
        case dt.datetime():
            return value.isoformat()
        case bool():
            return "true" if value else "false"
        case list() | tuple():
            return "+".join(value)
        case _:
            return str(value)


def attribute_of(text: str) -> Any:
    """A value as it is typed: a number, true, false, a moment with its zone, an array of texts; all else is text.

    In JSON's quotes anything is text: `"7"`.
    """
    if _MOMENT.fullmatch(text):
        try:
            return dt.datetime.fromisoformat(text)
        except ValueError:
            return text
    found = plain_or_text(text)
    return found if isinstance(found, str | bool | int | float | list) else text
