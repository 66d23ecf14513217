"""An event's shape: what stays readable when its values are encrypted. Secret unless it is known to be shape.

Shape is what tells people and tools what happened when and where: types, numbers, ids, names, code locations. All
else (values, digests, failures, reasons) is what users' data may be in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, get_args, get_origin

import msgspec

from perdure.core import events as ev
from perdure.core.step_events import Resolution

CLEAR = frozenset(
    {"workflow", "run", "lane", "on_parent_close", "request_id", "message_id", "update_id", "sender", "sender_run"}
    | {"name", "location", "execution", "receiver", "endpoint", "service", "operation"}
    | {"version", "continued_from", "first_run", "from_execution", "from_run"}
    | {"to", "escalate_to"}  # of a question, by whom it is found
    | {"not_known"}  # of a journal that cannot be read: ids and positions
    | {"attributes", "changed", "removed"}  # search attributes, which the database must be able to compare
)
"""Fields that are shape though their type could hold a value. What is not named here is secret."""

HIDDEN = ev.Payload(b"", "sealed")
_HIDDEN_TEXT = "sealed"
_NO_FAILURE = ev.FailureInfo("", "")

Hide: TypeAlias = Callable[[Any], Any]


def _hide_note(resolution: Resolution) -> Resolution:
    return msgspec.structs.replace(resolution, note=resolution.note and _HIDDEN_TEXT)


_HIDE: list[tuple[set[Any], Hide]] = [
    ({ev.Payload}, lambda _: HIDDEN),
    ({ev.FailureInfo}, lambda _: _NO_FAILURE),
    ({ev.FailureInfo, ...}, lambda _: ()),
    ({Resolution}, _hide_note),
    ({str, ev.Payload}, lambda named: dict.fromkeys(named, HIDDEN)),
    ({bytes}, lambda _: b""),
    ({str}, lambda _: _HIDDEN_TEXT),
]
_SHAPE = {int, bool, float, ev.Parent, ev.Unfinished, ev.EarlierChild, ...}


def _hide(field: msgspec.structs.FieldInfo) -> Hide | None:
    """What puts a placeholder into this field; None if the field is shape itself."""
    parts = set(get_args(field.type) or (field.type,)) - {type(None)}
    if get_origin(field.type) is Literal or parts <= _SHAPE or field.name in CLEAR:
        return None
    for types, hide in _HIDE:
        if parts == types:
            return hide
    assert not field.required, f"field {field.name!r} has type {field.type}: say in core/shape.py how it is hidden"
    return lambda _: field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def _secrets(kind: type[ev.Event]) -> tuple[tuple[str, Hide], ...]:
    found = [(field.name, _hide(field)) for field in msgspec.structs.fields(kind) if field.name != "sealed"]
    return tuple((name, hide) for name, hide in found if hide is not None)


def _payloads(kind: type[ev.Event]) -> tuple[str, ...]:
    return tuple(f.name for f in msgspec.structs.fields(kind) if f.type in (ev.Payload, ev.Payload | None))


class _ByType(dict[type[ev.Event], tuple[Any, ...]]):
    """What is found out about a type of event when it is first asked for: all of them at import would be slow."""

    def __init__(self, find: Callable[[type[ev.Event]], tuple[Any, ...]]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, kind: type[ev.Event]) -> tuple[Any, ...]:
        found = self[kind] = self._find(kind)
        return found


SECRETS: Mapping[type, tuple[tuple[str, Hide], ...]] = _ByType(_secrets)
"""By type of event: its secret fields, and what puts a placeholder for its value into each."""

PAYLOADS: Mapping[type, tuple[str, ...]] = _ByType(_payloads)
"""By type of event: its fields that hold a payload."""

PACKED: Mapping[type, tuple[str, ...]] = _ByType(lambda kind: tuple(n for n in PAYLOADS[kind] if n != "preview"))
"""By type of event: the fields whose payloads may be large. A preview never is."""


def hidden_in(event: ev.AnyEvent) -> dict[str, Any]:
    """What stands for each value that the event has; what is absent stays absent."""
    values = [(name, hide, getattr(event, name)) for name, hide in SECRETS[type(event)]]
    return {name: hide(value) for name, hide, value in values if value}


def shape_of(event: ev.AnyEvent, sealed: ev.Payload | None = None) -> ev.AnyEvent:
    """The event with placeholders for its values.

    >>> shape_of(ev.CancelRequested("m1", reason="fraud by K.")).reason
    'sealed'
    """
    return msgspec.structs.replace(event, **hidden_in(event), sealed=sealed)


def not_here(key_id: str) -> str:
    """What stands for a text whose key is missing."""
    return f"encrypted with key {key_id!r}, which is not here"


def unreadable_failure(key_id: str) -> ev.FailureInfo:
    """What stands for a failure whose key is missing."""
    return ev.FailureInfo("?", not_here(key_id))


def unreadable(shape: ev.AnyEvent, key_id: str) -> ev.AnyEvent:
    """A shape as people see it where the key is missing: it says so in the place of each value."""
    stand_in: dict[type, Any] = {
        ev.Payload: ev.Payload(b"", HIDDEN.content_type, key_id),
        ev.FailureInfo: unreadable_failure(key_id),
        str: not_here(key_id),
    }
    found = {name: getattr(shape, name) for name, _ in SECRETS[type(shape)]}
    alone = {name: stand_in[type(value)] for name, value in found.items() if value and type(value) in stand_in}
    named = {name: value for name, value in found.items() if isinstance(value, dict)}  # a memo
    memos = {name: dict.fromkeys(value, stand_in[ev.Payload]) for name, value in named.items()}
    return msgspec.structs.replace(shape, **alone, **memos)
