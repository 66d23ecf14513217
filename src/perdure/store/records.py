"""Between the port's structs and what stores keep: bodies, their checksums, headers, rows. Pure.

A checksum is kept beside each body, because a flipped bit inside a payload still decodes.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from perdure.core.errors import CorruptJournal, JournalFromTheFuture
from perdure.core.events import AnyEvent, Attribute, FailureInfo, Payload, Recorded, Usage
from perdure.core.format import FORMAT, decode_event, encode_event
from perdure.core.identity import ExecutionId, Key, Namespace
from perdure.store.protocol import AskRow, Letter, NewEvent, Row, Running, UnresolvedRow, UpdateRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Body: TypeAlias = tuple[int, int, bytes]
"""Format, checksum, bytes."""
EventRow: TypeAlias = tuple[int, int, int, str, str | None, int, int, bytes]
"""Position, at_ms, session, trace_parent, usage, then the three of `Body`."""

_usage_of: Callable[[str], Usage] = msgspec.json.Decoder(Usage).decode
_progress_of: Callable[[bytes], Payload] = msgspec.msgpack.Decoder(Payload).decode
_failure_of: Callable[[bytes], FailureInfo] = msgspec.msgpack.Decoder(FailureInfo).decode


def checksum(body: bytes, position: int = 0, at_ms: int = 0) -> int:
    """Detects any single flipped bit of a body, and of the two header fields that replay depends on."""
    return zlib.crc32(body, (at_ms ^ (at_ms >> 32) ^ position) & 0xFFFFFFFF)


def seal(event: AnyEvent) -> Body:
    """An event as inbox, outbox and dead letters keep it."""
    body = encode_event(event)
    return FORMAT, zlib.crc32(body), body


def unseal(body: Body | list[Any], what: str) -> AnyEvent:
    """The event of `seal`.

    Raises:
        CorruptJournal, JournalFromTheFuture: as `decode_event`, or the checksum differs.
    """
    version, recorded, data = body
    if zlib.crc32(data) != recorded:
        raise CorruptJournal(detail=f"the checksum of {what} differs: some of its bytes were changed")
    return decode_event(data, version)


def header(new: NewEvent, position: int) -> tuple[int, int, str, str | None, int, bytes]:
    """What is kept of a new event: format, at_ms, trace_parent, usage, checksum, body."""
    body = encode_event(new.event)
    at_ms = new.at_ms
    usage = None if new.usage is None else msgspec.json.encode(new.usage).decode()
    return FORMAT, at_ms, new.trace_parent, usage, checksum(body, position, at_ms), body


def copied(event: Recorded) -> tuple[int, int, str, str | None, int, bytes]:
    """What is kept of an event that was recorded elsewhere: `header`, with its own moment and position."""
    return header(NewEvent(event.event, event.at_ms, event.trace_parent, event.usage), event.position)


def recorded(row: EventRow, fingerprint: str) -> Recorded:
    """An event with its header, out of what was kept.

    Raises:
        CorruptJournal, JournalFromTheFuture: as `decode_event`, or the checksum differs.
    """
    position, at_ms, session, trace_parent, usage, version, check, body = row
    try:
        same = checksum(body, position, at_ms) == check
    except TypeError:  # SQLite keeps any type in any column
        same = False
    if not same:
        raise CorruptJournal(detail=f"the checksum of event {position} differs: some of its bytes were changed")
    spent = None if usage is None else _usage_of(usage)
    return Recorded(position, at_ms, decode_event(body, version), session, fingerprint, trace_parent, spent)


def journal(rows: Sequence[EventRow], start: int, key: Key, fingerprint: Callable[[int], str]) -> list[Recorded]:
    """Consecutive events from position `start` on.

    Raises:
        CorruptJournal: an event does not decode or is missing; the message names the execution.
    """
    found = []
    try:
        for expected, row in enumerate(rows, start):
            _check_position(row[0], expected)
            found.append(recorded(row, fingerprint(row[2])))
    except CorruptJournal as error:
        raise CorruptJournal(detail=f"execution {key.execution!r}: {error.fields['detail']}") from error
    return found


def _check_position(found: int, expected: int) -> None:
    if found != expected:
        raise CorruptJournal(detail=f"event {expected} is missing, event {found} stands in its place")


def letter(row: Any) -> Letter:
    """Arrival, message id and the three of `Body` as a letter."""
    arrival, message_id, *body = row
    return Letter(arrival, message_id, unseal(body, f"message {message_id}"))


def readable(rows: Iterable[Any]) -> list[Letter]:
    """Letters, without those that cannot be read: one that is damaged hides no other."""
    found: list[Letter] = []
    for row in rows:
        with suppress(CorruptJournal, JournalFromTheFuture):
            found.append(letter(row))
    return found


def row_of(columns: Sequence[Any]) -> Row:
    """The struct for the columns of an execution, which have its fields' order."""
    shard, namespace, execution, *rest = columns
    return Row(Key(shard, Namespace(namespace), ExecutionId(execution)), *rest)


def running_of(key: Key, columns: Sequence[Any]) -> Running:
    """The struct for run, seq, name, attempt, started_at_ms and progress."""
    run, seq, name, attempt, started_at_ms, progress = columns
    decoded = None if progress is None else _progress_of(progress)
    return Running(key, run, seq, name, attempt, started_at_ms, decoded)


def progress_bytes(running: Running) -> bytes | None:
    """What is kept of a step's progress."""
    return None if running.progress is None else msgspec.msgpack.encode(running.progress)


def update_of(update_id: str, columns: Sequence[Any]) -> UpdateRow:
    """The struct for run, status, position and failure. Raises `CorruptJournal`."""
    run, status, position, failure = columns
    try:
        decoded = None if failure is None else _failure_of(failure)
    except msgspec.DecodeError as error:
        raise CorruptJournal(detail=f"why update {update_id!r} was rejected does not decode: {error}") from error
    return UpdateRow(update_id, run, status, position, decoded)


def unresolved_of(columns: Sequence[Any]) -> UnresolvedRow:
    """The struct for the columns of its table."""
    shard, namespace, execution, run, seq, attempt, intent, unknown, since_ms, message_id, refused = columns
    key = Key(shard, Namespace(namespace), ExecutionId(execution))
    return UnresolvedRow(key, run, seq, attempt, intent, unknown, since_ms, message_id, bool(refused))


def ask_of(columns: Sequence[Any]) -> AskRow:
    """The struct for the columns of its table."""
    shard, namespace, execution, run, seq, position, to, escalate_to, *times, message_id, refused = columns
    escalate_at_ms, asked_at_ms, expires_at_ms = times
    key, whom = Key(shard, Namespace(namespace), ExecutionId(execution)), (to, escalate_to, escalate_at_ms)
    return AskRow(key, run, seq, position, *whom, asked_at_ms, expires_at_ms, message_id, bool(refused))


def failure_bytes(update: UpdateRow) -> bytes | None:
    """What is kept of the reason of a rejection."""
    return None if update.failure is None else msgspec.msgpack.encode(update.failure)


def attribute_rows(attributes: Mapping[str, Attribute]) -> list[tuple[str, int, str, bool | int | float | str]]:
    """Name, item, kind and value of each: of a list there is a row for each item, from 1."""
    rows: list[tuple[str, int, str, bool | int | float | str]] = []
    for name, attribute in attributes.items():
        kind, value = attribute.kind, attribute.value
        if isinstance(value, tuple):
            rows += [(name, n, kind, item) for n, item in enumerate(value, 1)]
        else:
            rows.append((name, 0, kind, value))
    return rows


def attributes_from(rows: Iterable[Sequence[Any]]) -> dict[str, Attribute]:
    """The attributes whose rows these are, in the order of names and items."""
    found: dict[str, Attribute] = {}
    for name, item, kind, value in rows:
        if item == 0:
            found[name] = Attribute(kind, bool(value) if kind == "bool" else value)
        else:
            before: Any = found[name].value if name in found else ()
            found[name] = Attribute(kind, (*before, value))
    return found
