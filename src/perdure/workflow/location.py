"""Where in the user's code something happened: `file.py:42`, without the machine's paths."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

from perdure.core.identity import storable

# As code objects spell them: unresolved, and with the separator, so that a neighbour `perdure_app` is not ours.
_OWN = str(Path(__file__).parent.parent) + os.sep
_ASYNCIO = str(Path(asyncio.__file__).parent) + os.sep
_LOOP = str(Path(__file__).with_name("loop.py"))


@lru_cache(maxsize=4096)
def place(filename: str, line: int) -> str:
    """`file.py:42`."""
    return storable(f"{Path(filename).name}:{line}")


@lru_cache(maxsize=4096)
def _is_users(filename: str) -> bool:
    return not filename.startswith((_OWN, _ASYNCIO, "<frozen")) and "/anyio/" not in filename.replace("\\", "/")


def caller() -> str:
    """The place that called the function that calls this."""
    frame = sys._getframe(2)
    if _is_users(frame.f_code.co_filename):
        return place(frame.f_code.co_filename, frame.f_lineno)
    return user_location(frame)


def user_location(frame: FrameType | None = None) -> str:
    """The innermost place outside Perdure, asyncio and anyio; "" if there is none below the loop that runs it."""
    frame = frame or sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if _is_users(code.co_filename):
            return place(code.co_filename, frame.f_lineno)
        if code.co_name == "drain" and code.co_filename == _LOOP:
            break  # what is further out started the engine: it is not workflow code
        frame = frame.f_back
    return ""


def waiting_location(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """The innermost user's place at which the first of these tasks waits; "" if none waits in user code."""
    for task in tasks:
        users = [frame for frame in _frames(task) if _is_users(frame.f_code.co_filename)]
        if users:
            return place(users[-1].f_code.co_filename, users[-1].f_lineno)
    return ""


def stack_of(task: asyncio.Task[Any]) -> str:
    """A suspended task's stack, one line a frame, from the outside in."""
    lines = [
        f"    {place(frame.f_code.co_filename, frame.f_lineno)} in {frame.f_code.co_qualname}"
        for frame in itertools.islice(_frames(task), 50)
    ]
    return "\n".join([f"  {task.get_name()}:", *lines])


def _frames(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
        if frame is None:
            break
        yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
