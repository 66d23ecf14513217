"""Two journals side by side: where they part, and what follows. A page and a window of each are in memory, no more.

Two events are the same if they say the same: not when, in which run, where in the code, or under which derived ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Literal, TypeAlias

import msgspec

from perdure.core import events as ev
from perdure.core.errors import ExecutionNotFound, RunNotFound
from perdure.core.identity import Key
from perdure.store.protocol import Row, Store

PAGE = 200
WINDOW = 64
"""How far ahead the same step is looked for where one journal has something that the other has not."""

Relation: TypeAlias = Literal["same", "differs", "left", "right"]
Read: TypeAlias = Callable[[Callable[[], Any]], Awaitable[Any]]


class Pair(msgspec.Struct, frozen=True):
    """An event of each journal that stand for each other; or of one, which the other has not."""

    left: ev.Recorded | None
    right: ev.Recorded | None
    relation: Relation


class _Side:
    """One journal, as far as it has been read and not been paired."""

    def __init__(self, read: Read, store: Store, key: Key, run: str) -> None:
        self._read = read
        self._load = partial(store.load, key, run)
        self._position = 0
        self._at_end = False
        self.window: deque[tuple[tuple[Any, ...], ev.Recorded]] = deque()

    async def fill(self) -> bool:
        """Read until a window is full, or the journal ends. Returns whether there is anything in the window."""
        while len(self.window) < WINDOW and not self._at_end:
            page: list[ev.Recorded] = await self._read(partial(self._load, self._position, PAGE))
            self._position += len(page)
            self._at_end = len(page) < PAGE
            self.window.extend((_kind(each.event), each) for each in page if not isinstance(each.event, _MARKS))
        return bool(self.window)

    def next(self) -> ev.Recorded:
        return self.window.popleft()[1]


_MARKS = (ev.RunForked, ev.ExecutionClaimed, ev.PatchMarked)  # say nothing of what happened


async def pairs(read: Read, store: Store, left: tuple[Key, str], right: tuple[Key, str]) -> AsyncIterator[Pair]:
    """All events of two runs, each once and in order."""
    one, other = _Side(read, store, *left), _Side(read, store, *right)
    while await one.fill() and await other.fill():
        for pair in _up_to_the_next(one, other):
            yield pair
    while await one.fill():
        yield Pair(one.next(), None, "left")
    while await other.fill():
        yield Pair(None, other.next(), "right")


def _up_to_the_next(one: _Side, other: _Side) -> Iterator[Pair]:
    """The next two that stand for each other, after what lies before them."""
    on_left, on_right = _meeting(one, other)
    for _ in range(on_left):
        yield Pair(one.next(), None, "left")
    for _ in range(on_right):
        yield Pair(None, other.next(), "right")
    if one.window and other.window and one.window[0][0] == other.window[0][0]:
        a, b = one.next(), other.next()
        yield Pair(a, b, "same" if said(a.event) == said(b.event) else "differs")


def _meeting(one: _Side, other: _Side) -> tuple[int, int]:
    """How many of each come before the nearest two of a kind; of both sides one, if there are none in the window."""
    if one.window[0][0] == other.window[0][0]:
        return 0, 0
    first: dict[tuple[Any, ...], int] = {}
    for index, (kind, _) in enumerate(other.window):
        first.setdefault(kind, index)
    met = [(index + first[kind], index) for index, (kind, _) in enumerate(one.window) if kind in first]
    if not met:
        return 1, 1
    both, ahead = min(met)
    return ahead, both - ahead


def _kind(event: ev.AnyEvent) -> tuple[Any, ...]:
    """What an event may stand beside: the same step, whether it failed or not."""
    match event:
        case ev.StepCompleted() | ev.StepFailed():
            return "step", event.name
        case ev.ChildInitiated():
            return "child", event.workflow
        case ev.MessageSent():
            return "message", _chosen(event.receiver), event.name
        case ev.ClosingEvent():
            return ("end",)
        case _:
            return type(event).__name__, getattr(event, "name", "")


_NOT_SAID = frozenset(
    {"run", "request_id", "message_id", "update_id", "sender_run", "number", "parent", "first_run", "continued_from"}
    | {"location", "preview", "input_ref", "started_at_ms", "retry_at_ms", "spent_ms", "seq", "sealed"}
    | {"start_at_ms", "deadline_ms", "ends_at_ms", "progress", "replaced", "resolved"}
)
_IDS = frozenset({"execution", "receiver", "sender"})
_HEX = frozenset("0123456789abcdef")


def said(event: ev.AnyEvent) -> tuple[Any, ...]:
    """What an event says, without what differs from run to run."""
    fields = [(name, getattr(event, name)) for name in event.__struct_fields__ if name not in _NOT_SAID]
    if isinstance(event, ev.ExecutionStarted):
        fields = [(name, value) for name, value in fields if name != "execution"]
    return type(event).__name__, *(_plain(name, value) for name, value in fields)


def _plain(name: str, value: Any) -> Any:
    if name in _IDS:
        return _chosen(value)
    if isinstance(value, ev.FailureInfo):
        return value.type, value.message
    return value


def _chosen(name: str) -> str:
    """An id that somebody chose; those that follow from a run's are all alike."""
    return "" if len(name) == 32 and _HEX.issuperset(name) else name


async def side(read: Read, store: Store, key: Key, run: str | None) -> tuple[Key, str]:
    """An execution's run: the current one, unless another is named.

    Raises:
        ExecutionNotFound, RunNotFound: there is no such execution, or it has no such run.
    """
    row: Row | None = await read(partial(store.row, key))
    if row is None:
        raise ExecutionNotFound(execution=key.execution, namespace=key.namespace)
    if run is not None and not await read(partial(store.load, key, run, 0, 1)):
        raise RunNotFound(execution=key.execution, run=run)
    return key, run or row.run
