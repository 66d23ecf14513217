"""Exceptions as data: what is kept of one for the journal, bounded, and made without ever raising another."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from perdure.core.errors import DecodeError, RemoteFailure, UndeclaredFailure
from perdure.core.events import FailureInfo, Payload

MAX_CHARS = 16 * 1024
MAX_DEPTH = 8
MAX_MEMBERS = 32
MAX_INFOS = 64  # of one exception in all: groups of groups with causes would multiply
MAX_FIELDS_BYTES = 64 * 1024
GROUP = "ExceptionGroup"  # the name that a group is declared by, without being told
KEPT = "_perdure_failure"  # of an exception that was recorded before: its record
THERE = "It was raised before, at:\n"
_OWN = str(Path(__file__).parents[1]) + os.sep  # not resolved: as code objects have it
_MAX_FRAMES = 200


class Kept(NamedTuple):
    """What is kept of a declared exception beside its words."""

    declared: str
    value: Payload | None
    untyped: str


Keep: TypeAlias = Callable[[BaseException], Kept | None]


def failure_info(error: BaseException, *, limit: int = MAX_CHARS, keep: Keep = lambda _: None) -> FailureInfo:
    """What the journal keeps of an exception. Never raises, whatever the exception's own methods do.

    Message and traceback have at most `limit` characters each, a quarter of that for causes and members, head and tail;
    frames of Perdure's own files are left out. Causes go eight deep, groups have at most 32 members. `keep` gives the
    fields of those that are declared: 64 KiB in all.

    >>> failure_info(ValueError("no such page")).message
    'no such page'
    """
    try:
        return _Keeper(limit, keep).info(error, 0)
    except Exception as problem:  # noqa: BLE001 - its class may lie about causes and members
        return FailureInfo(_type_name(error), f"<not kept: looking at it raised {_type_name(problem)}>")


def is_decode_error(info: FailureInfo) -> bool:
    """Whether it was recorded of a value that did not fit its type."""
    package, _, name = info.type.rpartition(".")
    return name == DecodeError.__name__ and package.startswith("perdure.")


class _Keeper:
    def __init__(self, limit: int, keep: Keep) -> None:
        self.limit = limit
        self.keep = keep
        self.seen: set[int] = set()
        self.copies = 0
        self.field_bytes = MAX_FIELDS_BYTES

    def info(self, error: BaseException, depth: int) -> FailureInfo:
        self.seen.add(id(error))
        if isinstance(error, UndeclaredFailure):
            return self.copied(error.failure, depth)
        limit = self.limit if depth == 0 else self.limit // 4
        members = self.members(error, depth)
        kept = self.kept(error, members) or Kept("", None, "")
        return FailureInfo(
            type=_type_name(error),
            message=_shortened(_message(error, limit), limit),
            traceback=_shortened(_traceback(error), limit),
            cause=self.cause(error, depth),
            members=members,
            value=kept.value,
            declared=kept.declared,
            untyped=_shortened(_encodable(kept.untyped), limit),
        )

    def kept(self, error: BaseException, members: tuple[FailureInfo, ...]) -> Kept | None:
        if type(error) in (ExceptionGroup, BaseExceptionGroup):
            typed = any(member.value is not None for member in members)
            return Kept(GROUP, Payload(msgspec.msgpack.encode(_words(error, self.limit))), "") if typed else None
        kept = self.keep(error)
        if kept is None or kept.value is None:
            return kept
        size = len(kept.value.data)
        if size > self.field_bytes:
            reason = f"its fields take {size:,} bytes, and a failure keeps at most {MAX_FIELDS_BYTES:,}"
            return Kept(kept.declared, None, reason)
        self.field_bytes -= size
        return kept

    def cause(self, error: BaseException, depth: int) -> FailureInfo | None:
        if isinstance(error, RemoteFailure):  # what happened there goes on being told
            return self.copied(error.failure, depth + 1) if self.has_room(depth) else None
        cause = _cause(error)
        if cause is None or id(cause) in self.seen or not self.has_room(depth):
            return None
        return self.info(cause, depth + 1)

    def has_room(self, depth: int) -> bool:
        return depth < MAX_DEPTH and len(self.seen) + self.copies < MAX_INFOS

    def members(self, error: BaseException, depth: int) -> tuple[FailureInfo, ...]:
        if not isinstance(error, BaseExceptionGroup):
            return ()
        members = [each for each in error.exceptions[:MAX_MEMBERS] if id(each) not in self.seen]
        kept = [self.info(member, depth + 1) for member in members if self.has_room(depth)]
        return self.all_told(kept, len(error.exceptions) - len(kept))

    def all_told(self, kept: list[FailureInfo], missing: int) -> tuple[FailureInfo, ...]:
        return (*kept, FailureInfo("", f"and {missing} more, not kept")) if missing else tuple(kept)

    def copied(self, info: FailureInfo, depth: int) -> FailureInfo:
        """What was recorded before, in words: its fields are for who declares them."""
        self.copies += 1
        limit = self.limit if depth <= 1 else self.limit // 4
        cause = self.copied(info.cause, depth + 1) if info.cause is not None and self.has_room(depth) else None
        members = [self.copied(each, depth + 1) for each in info.members if self.has_room(depth)]
        return FailureInfo(
            type=info.type,
            message=_shortened(info.message, limit),
            traceback=_shortened(info.traceback, limit),
            cause=cause,
            members=self.all_told(members, len(info.members) - len(members)),
            untyped=info.untyped,
        )


def _words(group: BaseException, limit: int) -> str:
    """The message of a group alone: its `str` counts the members."""
    return _shortened(_encodable(str(getattr(group, "message", ""))[: 2 * limit]), limit)


def _cause(error: BaseException) -> BaseException | None:
    if error.__cause__ is not None:
        return error.__cause__
    return None if error.__suppress_context__ else error.__context__


def _type_name(error: BaseException) -> str:
    try:
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        return _encodable(name)
    except Exception:  # noqa: BLE001 - a metaclass can do anything
        return "?"


def _message(error: BaseException, limit: int) -> str:
    try:
        return _encodable(str(error)[: 2 * limit])
    except BaseException as problem:  # a user's method, called while a failure is handled
        if isinstance(problem, KeyboardInterrupt):
            raise
        return f"<str() of this exception raised {_type_name(problem)}>"


def _traceback(error: BaseException) -> str:
    """The frames only: type and message have fields of their own, and formatting those could raise."""
    try:
        frames = traceback.extract_tb(error.__traceback__, limit=-_MAX_FRAMES)
        lines = traceback.format_list([frame for frame in frames if not frame.filename.startswith(_OWN)])
        notes = [f"{note}\n" for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
        before = getattr(error, KEPT, None)
        there = [THERE, before.traceback] if isinstance(before, FailureInfo) else []
        return _encodable("".join(lines + notes + there))
    except Exception as problem:  # noqa: BLE001 - source files can be gone, loaders broken
        return f"<no traceback: {_type_name(problem)}>"


def _encodable(text: str) -> str:
    """Without lone surrogates, which no journal can hold: they show as escapes."""
    return str.encode(text, "utf-8", "backslashreplace").decode()


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    gap = f"\n... {len(text) - limit} characters left out ...\n"
    room = max(limit - len(gap), 0)
    head = room // 3  # the tail of a traceback is where it happened
    return (text[:head] + gap + text[len(text) - (room - head) :])[:limit]
