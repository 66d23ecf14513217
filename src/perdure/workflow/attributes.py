"""Search attributes: checked names and typed values, between what users pass and what is kept and compared.

Kinds never mix: a number is not found as text. Numbers compare exactly, times by the microsecond.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from perdure.core.errors import InvalidOption
from perdure.core.events import Attribute

Moment: TypeAlias = datetime
AttributeValue: TypeAlias = str | int | float | bool | Moment | list[str]

MAX_ATTRIBUTES = 50
MAX_NAME = 64
MAX_TEXT_BYTES = 1_000
MAX_ITEMS = 100
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def checked_name(name: object, what: str = "attributes") -> str:
    """The name itself, if it may name an attribute or a memo.

    Raises:
        InvalidOption: it may not.
    """
    if isinstance(name, str) and _NAME.fullmatch(name) and len(name) <= MAX_NAME:
        return name
    expected = f"names of a-z, 0-9 and _, not beginning with a digit, up to {MAX_NAME} long"
    raise InvalidOption(option=what, value=ascii(name), expected=expected)


def encode_attributes(attributes: Mapping[str, AttributeValue]) -> dict[str, Attribute]:
    """What is kept of them.

    Raises:
        InvalidOption: a name or a value that cannot be one, or too many.
    """
    if not isinstance(attributes, Mapping):
        raise InvalidOption(option="attributes", value=repr(attributes), expected="a mapping of names to values")
    check_number(len(attributes))
    return {checked_name(name): encode_attribute(name, value) for name, value in attributes.items()}


def check_number(attributes: int) -> None:
    """Raises `InvalidOption` if an execution cannot have so many."""
    if attributes > MAX_ATTRIBUTES:
        raise InvalidOption(option="attributes", value=f"({attributes} of them)", expected=f"at most {MAX_ATTRIBUTES}")


def encode_attribute(name: str, value: object) -> Attribute:
    """What is kept of a value. Raises `InvalidOption`."""
    match value:
        case bool():
            return Attribute("bool", value)
        case int() if -(2**63) <= value < 2**63:
            return Attribute("number", int(value))
        case float() if math.isfinite(value):
            return Attribute("number", float(value))
        case str() if _is_short(value):
            return Attribute("text", str(value))
        case datetime() if value.utcoffset() is not None:
            return Attribute("time", (value - _EPOCH) // _MICROSECOND)
        case list() if _is_list(value):
            return Attribute("text", tuple(map(str, value)))
        case _:
            raise InvalidOption(option=f"attributes[{name!r}]", value=_shown(value), expected=_EXPECTED)


_EXPECTED = (
    f"text of at most {MAX_TEXT_BYTES:,} bytes, a finite number of at most 64 bits, True or False, a datetime with "
    f"time zone, or a list of 1 to {MAX_ITEMS} different texts"
)


def _is_short(text: str) -> bool:
    try:
        return len(text.encode()) <= MAX_TEXT_BYTES
    except UnicodeEncodeError:
        return False


def _is_list(items: list[Any]) -> bool:
    texts = all(isinstance(item, str) and _is_short(item) for item in items)
    return texts and 1 <= len(items) <= MAX_ITEMS and len(set(items)) == len(items)


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 100 else text[:100] + "..."


def moment_ms(moment: object, option: str) -> int:
    """Milliseconds since 1970, UTC. Raises `InvalidOption` for what is no moment."""
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise InvalidOption(option=option, value=repr(moment), expected="a datetime with time zone")
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def moment(since_1970_ms: int) -> Moment | None:
    """That moment, in UTC; None for 0."""
    return _EPOCH + timedelta(milliseconds=since_1970_ms) if since_1970_ms else None


def decode_attribute(attribute: Attribute) -> AttributeValue:
    """The value that was set; times in UTC."""
    kind, value = attribute.kind, attribute.value
    if isinstance(value, tuple):
        return list(value)
    return _EPOCH + int(value) * _MICROSECOND if kind == "time" else value


def decode_attributes(attributes: Mapping[str, Attribute]) -> dict[str, AttributeValue]:
    """All of them."""
    return {name: decode_attribute(attribute) for name, attribute in attributes.items()}
