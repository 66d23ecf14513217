"""Where the tasks of a run stand: the user's lines, and what the innermost of them awaits. Looks only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from types import CodeType, FrameType
from typing import Any

import msgspec

from perdure.core.commands import AnyCommand, RunStep, SendMessage, StartChild, State
from perdure.workflow.execution import Execution
from perdure.workflow.location import frames_of, is_users, place
from perdure.workflow.mailbox import Mailbox

MOST_TASKS = 1_000
MOST_FRAMES = 50


class Frame(msgspec.Struct, frozen=True):
    """A line of the user's code that has not returned yet."""

    place: str
    """`file.py:42`."""
    function: str


class Waiting(msgspec.Struct, frozen=True):
    """A task of a workflow, and what it waits for."""

    task: str
    """Its name: `main` is the workflow's own; handlers have the names of their messages."""
    frames: list[Frame]
    """From the outside in."""
    awaits: str
    """What the innermost of them awaits, for people."""
    seq: int = 0
    """The number of the step, timer, child or message that it awaits; 0 if it is none of them."""
    attempt: int = 0
    """Of a step: the one that runs, or is the next; 0 otherwise."""
    due_at_ms: int = 0
    """Of a timer, and of a step that is tried again: when; milliseconds since 1970, UTC."""


class Stack(msgspec.Struct, frozen=True):
    """The tasks, in order of creation, and how many more there are."""

    waiting: list[Waiting]
    more: int = 0


def stack(execution: Execution) -> Stack:
    """The tasks of a run whose code is where its journal leads it."""
    tasks = execution.loop.waiting_tasks()
    timed = execution.timed()
    shown = [_waiting(execution, task, timed) for task in tasks[:MOST_TASKS]]
    return Stack(shown, len(tasks) - len(shown))


def _waiting(execution: Execution, task: asyncio.Task[Any], timed: Mapping[int, int]) -> Waiting:
    frames = list(islice(frames_of(task), MOST_FRAMES))
    lines = [
        Frame(place(frame.f_code.co_filename, frame.f_lineno), frame.f_code.co_qualname)
        for frame in frames
        if is_users(frame.f_code.co_filename)
    ]
    future = getattr(task, "_fut_waiter", None)
    command = _command(execution, frames, future, timed)
    if command is None:
        return Waiting(task.get_name(), lines, _else(frames, future))
    is_step = isinstance(command, RunStep)
    attempt = command.attempt + 1 if isinstance(command, RunStep) else 0
    due_at_ms = command.retry_at_ms if isinstance(command, RunStep) else getattr(command, "due_ms", 0)
    what = _described(command) if attempt < 2 or not is_step else f"{_described(command)}, attempt {attempt}"
    return Waiting(task.get_name(), lines, what, command.seq, attempt, due_at_ms)


def _command(
    execution: Execution, frames: Sequence[FrameType], future: Any, timed: Mapping[int, int]
) -> AnyCommand | None:
    """The open command that it waits for, if it is one."""
    for frame in reversed(frames):
        if frame.f_code is _CHILD_RESULT:
            return frame.f_locals.get("child")
    seq = getattr(future, "seq", 0) or timed.get(id(future), 0)
    return execution.machine.open.get(seq)


def _described(command: AnyCommand) -> str:
    match command:
        case RunStep():
            unknown = ", of which nobody knows what it did" if command.state is State.UNKNOWN else ""
            return f"step {command.name!r}{unknown}"
        case StartChild():
            return f"child {command.execution!r}"
        case SendMessage():
            return f"delivery to {command.receiver!r}"
        case _:
            return "a timer"


def _else(frames: Sequence[FrameType], future: Any) -> str:
    for frame in reversed(frames):
        tell = _FRAMES.get(frame.f_code)
        if tell is not None:
            return tell(frame)
    if isinstance(future, asyncio.Task):
        return f"task {future.get_name()}"
    children = getattr(future, "_children", None)
    if children:
        return f"{sum(not each.done() for each in children)} of {len(children)} awaited together"
    return "" if not frames else f"{frames[-1].f_code.co_qualname}"


_CHILD_RESULT: CodeType = Execution.child_result.__code__
_FRAMES: dict[CodeType, Callable[[FrameType], str]] = {
    Mailbox.next.__code__: lambda frame: f"signal {frame.f_locals['name']!r}",
    asyncio.Event.wait.__code__: lambda _: "an asyncio.Event",
    asyncio.Lock.acquire.__code__: lambda _: "an asyncio.Lock",
    asyncio.Semaphore.acquire.__code__: lambda _: "an asyncio.Semaphore",
    asyncio.Condition.wait.__code__: lambda _: "an asyncio.Condition",
    asyncio.Queue.get.__code__: lambda _: "an asyncio.Queue",
    asyncio.Queue.put.__code__: lambda _: "room in an asyncio.Queue",
    asyncio.TaskGroup.__aexit__.__code__: lambda _: "the tasks of its asyncio.TaskGroup",
}
