"""The JSON shapes of executions and journals: stable, listed in docs/reference/cli.md."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

import perdure
from perdure import journal as jn
from perdure.cli.problems import tidy


def of_row(row: jn.Row) -> dict[str, Any]:
    """An execution."""
    return {
        "id": row.key.execution,
        "workflow": row.workflow,
        "status": row.status,
        "run": row.run,
        "events": row.position,
        "created_at_ms": row.created_at_ms,
        "closed_at_ms": row.closed_at_ms,
        "wake_at_ms": row.wake_at_ms,
        "waits_for": row.waits_for,
        "problem": tidy(row.problem),
        "recoveries": row.recoveries,
        "parent": row.parent_id or None,
    }


def of_description(row: jn.Description) -> dict[str, Any]:
    """An execution, and what was said of it when it was started."""
    moments = {"start_at": row.start_at, "deadline": row.deadline}
    said = {"memo": row.memo, "attributes": row.attributes}
    return {**of_row(row), **said, **moments, "origin": of_origin(row.origin)}


def of_recorded(recorded: jn.Recorded) -> dict[str, Any]:
    """An event: its header, its type, and its own fields."""
    told = {
        "position": recorded.position,
        "at_ms": recorded.at_ms,
        "type": type(recorded.event).__name__,
        "session": recorded.session,
        "fingerprint": recorded.fingerprint,
    }
    if recorded.usage is not None:
        told["usage"] = msgspec.to_builtins(recorded.usage)
    return told | _fields(recorded.event)


def of_question(each: perdure.OpenQuestion) -> dict[str, Any]:
    """A question to people that is open."""
    return {
        "id": each.execution,
        "run": each.row.run,
        "seq": each.seq,
        "question": each.question,
        "to": each.to,
        "step": each.step or None,
        "about": None if each.about is None else _field(each.about),
        "schema": each.schema or None,
        "location": each.location,
        "asked_at_ms": each.asked_at_ms,
        "expires_at_ms": each.expires_at_ms,
        "refused": each.was_refused,
        "refused_by": each.refused_by or None,
        "token": each.token,
    }


def of_unresolved(each: perdure.Unresolved) -> dict[str, Any]:
    """A step of which nobody knows whether it happened."""
    return {
        "id": each.execution,
        "run": each.run,
        "seq": each.seq,
        "attempt": each.attempt,
        "step": each.step,
        "location": each.location,
        "since_ms": each.since_ms,
        "reason": tidy(each.reason),
        "failure": _field(each.failure),
        "input": of_payload(each.input),
        "answered": each.is_answered,
        "refused": each.was_refused,
    }


def of_running(running: Iterable[jn.Running]) -> list[dict[str, Any]]:
    """Steps known to be open."""
    return [
        {
            "seq": each.seq,
            "name": each.name,
            "attempt": each.attempt,
            "started_at_ms": each.started_at_ms,
            "progress": _field(each.progress),
        }
        for each in running
    ]


def of_struct(struct: msgspec.Struct) -> dict[str, Any]:
    """Its fields, of plain data."""
    found: dict[str, Any] = msgspec.to_builtins(struct)
    return found


def of_origin(origin: jn.Origin | None) -> dict[str, Any] | None:
    """What a fork or a rewind was copied from."""
    return None if origin is None else of_struct(origin)


def _fields(struct: msgspec.Struct) -> dict[str, Any]:
    return {name: _field(getattr(struct, name)) for name in struct.__struct_fields__ if name != "sealed"}


def _field(value: Any) -> Any:
    match value:
        case jn.Payload():
            return of_payload(value)
        case jn.FailureInfo():
            return _fields(value)
        case msgspec.Struct():
            return msgspec.to_builtins(value)
        case bytes():
            return value.hex()
        case tuple():
            return [_field(item) for item in value]
        case str():
            return tidy(value)
        case _:
            return value


def of_payload(payload: jn.Payload) -> Any:
    """The value; what cannot be told as data is an object with the one key "text" or "encrypted_with"."""
    if payload.key_id:
        return {"encrypted_with": payload.key_id}
    try:
        return jn.plain_value(payload)
    except perdure.PerdureError:
        return {"text": jn.render(payload)}
