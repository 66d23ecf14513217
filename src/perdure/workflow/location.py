"""Where in the user's code something happened: `file.py:42`, without the machine's paths; what is refused there."""

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

from perdure.core.errors import NotDeterministic, PerdureError, UnorderedSet
from perdure.core.identity import storable

# As code objects spell them: unresolved, and with the separator, so that a neighbour `perdure_app` is not ours.
_OWN = str(Path(__file__).parent.parent) + os.sep
_ASYNCIO = str(Path(asyncio.__file__).parent) + os.sep
_STDLIB = str(Path(os.__file__).parent) + os.sep
_INSTALLED = ("/site-packages/", "/dist-packages/", "/zoneinfo/")
_LOOP = str(Path(__file__).with_name("loop.py"))
_RUNNERS = ("_run_once", "run_forever", "run_until_complete", "run")  # of asyncio's loops
_DOORS = ("drain", "look", "_end_all")  # of the loop, into the user's code

MOST_FRAMES = 50  # of a stack, in a message
REFUSALS = (NotDeterministic, UnorderedSet)
MOVE_INTO_A_STEP = "Move this into a step: a function with @perdure.step, awaited here."


@lru_cache(maxsize=4096)
def place(filename: str, line: int) -> str:
    """`file.py:42`."""
    return storable(f"{Path(filename).name}:{line}")


@lru_cache(maxsize=4096)
def is_users(filename: str) -> bool:
    """Whether a file is neither ours nor asyncio's or anyio's."""
    return not filename.startswith((_OWN, _ASYNCIO, "<frozen")) and "/anyio/" not in filename.replace("\\", "/")


def caller() -> str:
    """The place that called the function that calls this."""
    frame = sys._getframe(2)
    if is_users(frame.f_code.co_filename):
        return place(frame.f_code.co_filename, frame.f_lineno)
    return user_location(frame)


def refusal(what: str, tasks: Iterable[asyncio.Task[Any]] = (), fix: str = MOVE_INTO_A_STEP) -> NotDeterministic:
    """The error that names the workflow's own line, also when a library called; without one, where `tasks` wait."""
    return NotDeterministic(what=what, where=_workflows_line() or waiting_location(tasks), fix=fix)


def refused_in(error: BaseException | None) -> PerdureError | None:
    """The refusal among what nobody caught, maybe in a task group among others: no failure, but code to be mended."""
    found = error.subgroup(REFUSALS) if isinstance(error, BaseExceptionGroup) else error
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found if isinstance(found, REFUSALS) else None


def _workflows_line() -> str:
    """The innermost line that is nobody's library; where all are, the outermost: the workflow itself is one."""
    outermost = ""
    for frame in frames_of_the_workflow(sys._getframe(1)):
        filename = frame.f_code.co_filename
        if is_users(filename):
            outermost = place(filename, frame.f_lineno)
            if not is_installed(filename):
                return outermost
    return outermost


def users_line(frame: FrameType | None) -> str:
    """`agent.py:12 in fetch`, the innermost line of what an event loop runs that is nobody's library; or ""."""
    while frame is not None:
        code = frame.f_code
        if code.co_name in _RUNNERS and code.co_filename.startswith(_ASYNCIO):
            break  # what is further out started the loop
        if is_users(code.co_filename) and not is_installed(code.co_filename):
            return f"{place(code.co_filename, frame.f_lineno)} in {code.co_qualname}"
        frame = frame.f_back
    return ""


def is_in_a_workflow(frame: FrameType | None) -> bool:
    """Whether the loop of a workflow runs this."""
    while frame is not None and not _is_door(frame):
        frame = frame.f_back
    return frame is not None


def frames_of_the_workflow(frame: FrameType | None) -> Iterator[FrameType]:
    """From the inside out, up to the loop that runs the workflow: what is further out started the engine."""
    while frame is not None and not _is_door(frame):
        yield frame
        frame = frame.f_back


def _is_door(frame: FrameType) -> bool:
    return frame.f_code.co_name in _DOORS and frame.f_code.co_filename == _LOOP


@lru_cache(maxsize=4096)
def is_installed(filename: str) -> bool:
    """Whether a file came with Python or a package: code, or data that changes no more often than code does."""
    return filename.startswith(_STDLIB) or any(folder in filename for folder in _INSTALLED)


def user_location(frame: FrameType | None = None) -> str:
    """The innermost place outside Perdure, asyncio and anyio; "" if there is none below the loop that runs it."""
    frame = frame or sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if is_users(code.co_filename):
            return place(code.co_filename, frame.f_lineno)
        if _is_door(frame):
            break  # what is further out started the engine: it is not workflow code
        frame = frame.f_back
    return ""


def waiting_location(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """The innermost user's place at which the first of these tasks waits; "" if none waits in user code."""
    for task in tasks:
        users = [frame for frame in frames_of(task) if is_users(frame.f_code.co_filename)]
        if users:
            return place(users[-1].f_code.co_filename, users[-1].f_lineno)
    return ""


def stack_of(task: asyncio.Task[Any]) -> str:
    """A suspended task's stack, one line a frame, from the outside in."""
    lines = [
        f"    {place(frame.f_code.co_filename, frame.f_lineno)} in {frame.f_code.co_qualname}"
        for frame in itertools.islice(frames_of(task), MOST_FRAMES)
    ]
    return "\n".join([f"  {task.get_name()}:", *lines])


def frames_of(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """The frames of a suspended task, from the outside in."""
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
        if frame is None:
            break
        yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
