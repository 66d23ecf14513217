"""Lists of executions: what users ask for, checked, and pages with a cursor to the next.

A cursor names a place, not a number of rows: what is started meanwhile moves nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeAlias, get_args

import msgspec

from perdure.core.errors import InvalidOption
from perdure.core.identity import MAX_ID_BYTES, Namespace
from perdure.store.protocol import Condition, Filter, Operator, Row, Status
from perdure.workflow.attributes import AttributeValue, Moment, checked_name, encode_attribute, moment_ms

Where: TypeAlias = tuple[str, Operator, AttributeValue]
"""An attribute's name, how it is compared, and with what."""

MAX_PAGE = 1_000
MAX_CONDITIONS = 20
_OPERATORS: tuple[str, ...] = get_args(Operator)
_STATUSES: tuple[str, ...] = get_args(Status)


class Page(list[Row]):
    """Executions, the newest first. `next` is the cursor of the page that follows; empty: there is none."""

    def __init__(self, rows: Iterable[Row] = (), cursor: str = "") -> None:
        super().__init__(rows)
        self.next = cursor


class _Place(msgspec.Struct, array_like=True):
    """What a cursor says."""

    digest: bytes  # of the filter
    created_at_ms: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    execution: str


def filter_of(
    namespace: str,
    *,
    status: Sequence[Status],
    workflow: str,
    prefix: str,
    parent: str,
    started_from: Moment | None,
    started_before: Moment | None,
    where: Sequence[Where],
) -> Filter:
    """What is asked for. Raises `InvalidOption`."""
    _check_statuses(status)
    for option, text in {"workflow": workflow, "prefix": prefix, "parent": parent}.items():
        _check_text(option, text)
    if isinstance(where, str) or len(where) > MAX_CONDITIONS:
        raise InvalidOption(option="where", value=repr(where), expected=f"a list of up to {MAX_CONDITIONS} conditions")
    return Filter(
        namespace=Namespace(namespace),
        statuses=tuple(dict.fromkeys(status)),
        workflow=workflow,
        prefix=prefix,
        parent=parent,
        from_ms=None if started_from is None else moment_ms(started_from, "started_from"),
        until_ms=None if started_before is None else moment_ms(started_before, "started_before"),
        where=tuple(map(_condition, where)),
    )


def _check_statuses(statuses: Sequence[Status]) -> None:
    if isinstance(statuses, str) or any(each not in _STATUSES for each in statuses):
        raise InvalidOption(option="status", value=repr(statuses), expected=f"a list of {', '.join(_STATUSES)}")


def _check_text(option: str, text: object) -> None:
    if not isinstance(text, str) or not text.isprintable() or len(text.encode()) > MAX_ID_BYTES:
        raise InvalidOption(option=option, value=ascii(text), expected=f"text of at most {MAX_ID_BYTES} bytes")


def _condition(where: Any) -> Condition:
    if not isinstance(where, tuple | list) or len(where) != 3:
        raise InvalidOption(option="where", value=repr(where), expected='a tuple such as ("cents", ">", 1_000)')
    name, operator, value = where
    checked_name(name, "where")
    if operator not in _OPERATORS:
        raise InvalidOption(option="where", value=repr(where), expected=f"one of {' '.join(_OPERATORS)}")
    wanted = encode_attribute(name, value)
    if isinstance(wanted.value, tuple):
        raise InvalidOption(option="where", value=repr(where), expected="one value: any item of a list may be it")
    if wanted.kind == "bool" and operator not in ("=", "!="):
        raise InvalidOption(option="where", value=repr(where), expected="= or != for True and False")
    return Condition(name, operator, wanted.kind, wanted.value)


def checked_limit(limit: int) -> int:
    """The limit itself. Raises `InvalidOption` unless it is a whole number that a page can hold."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
        raise InvalidOption(option="limit", value=repr(limit), expected=f"a whole number from 1 to {MAX_PAGE:,}")
    return limit


def page_of(wanted: Filter, found: Sequence[Row], limit: int) -> Page:
    """A page of what was found; one more than `limit` was asked for."""
    rows = found[:limit]
    if len(found) <= limit:
        return Page(rows)
    place = _Place(_digest(wanted), rows[-1].created_at_ms, rows[-1].key.execution)
    return Page(rows, base64.urlsafe_b64encode(msgspec.msgpack.encode(place)).rstrip(b"=").decode())


def place_of(wanted: Filter, cursor: str) -> tuple[int, str] | None:
    """Where the page begins. Raises `InvalidOption` for what is no cursor of this list."""
    if cursor == "":
        return None
    try:
        place = _decode(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, TypeError):
        place = None
    if place is None or place.digest != _digest(wanted):
        expected = "`next` of a page of this very list: with the same filters"
        raise InvalidOption(option="cursor", value=repr(cursor), expected=expected)
    return place.created_at_ms, place.execution


_decode = msgspec.msgpack.Decoder(_Place).decode


def _digest(wanted: Filter) -> bytes:
    return hashlib.blake2b(msgspec.msgpack.encode(wanted), digest_size=8).digest()
