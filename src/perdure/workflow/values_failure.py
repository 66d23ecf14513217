"""Exceptions as data: what is kept of one for the journal, bounded, and made without ever raising another."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from perdure.core.errors import RemoteFailure
from perdure.core.events import FailureInfo

MAX_CHARS = 16 * 1024
MAX_DEPTH = 8
MAX_MEMBERS = 32
MAX_INFOS = 64  # of one exception in all: groups of groups with causes would multiply
_OWN = str(Path(__file__).parents[1]) + os.sep  # not resolved: as code objects have it
_MAX_FRAMES = 200


def failure_info(error: BaseException, *, limit: int = MAX_CHARS) -> FailureInfo:
    """What the journal keeps of an exception. Never raises, whatever the exception's own methods do.

    Message and traceback have at most `limit` characters each, head and tail; frames of Perdure's own files are left
    out. Causes go eight deep, groups have at most 32 members.

    >>> failure_info(ValueError("no such page")).message
    'no such page'
    """
    try:
        return _Keeper(limit).info(error, 0)
    except Exception as problem:  # noqa: BLE001 - its class may lie about causes and members
        return FailureInfo(_type_name(error), f"<not kept: looking at it raised {_type_name(problem)}>")


class _Keeper:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.seen: set[int] = set()

    def info(self, error: BaseException, depth: int) -> FailureInfo:
        self.seen.add(id(error))
        return FailureInfo(
            type=_type_name(error),
            message=_shortened(_message(error, self.limit), self.limit),
            traceback=_shortened(_traceback(error), self.limit),
            cause=self.cause(error, depth),
            members=self.members(error, depth),
        )

    def cause(self, error: BaseException, depth: int) -> FailureInfo | None:
        cause = _cause(error)
        if cause is not None:
            return self.info(cause, depth + 1) if self.has_room(cause, depth) else None
        return error.failure if isinstance(error, RemoteFailure) else None  # what happened there goes on being told

    def has_room(self, error: BaseException, depth: int) -> bool:
        return depth < MAX_DEPTH and len(self.seen) < MAX_INFOS and id(error) not in self.seen

    def members(self, error: BaseException, depth: int) -> tuple[FailureInfo, ...]:
        if not isinstance(error, BaseExceptionGroup):
            return ()
        members = error.exceptions[:MAX_MEMBERS]
        kept = [self.info(member, depth + 1) for member in members if self.has_room(member, depth)]
        missing = len(error.exceptions) - len(kept)
        if missing:
            kept.append(FailureInfo("", f"and {missing} more, not kept"))
        return tuple(kept)


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
        return _encodable("".join(lines + notes))
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
