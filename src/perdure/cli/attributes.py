"""Search attributes as text."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from perdure import journal as jn

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def attributes_text(attributes: Mapping[str, jn.Attribute]) -> list[str]:
    """`name=value`, by name."""
    return [f"{name}={_text(attribute)}" for name, attribute in sorted(attributes.items())]


def _text(attribute: jn.Attribute) -> str:
    value: Any = attribute.value
    match attribute.kind:
        case "time":
            return (EPOCH + dt.timedelta(microseconds=value)).isoformat()
        case "bool":
            return "true" if value else "false"
        case _ if isinstance(value, tuple):
            return "+".join(value)
        case _:
            return str(value)
