"""`asyncio.wait`, `as_completed`, `gather` and `all_tasks` in a fixed order, in force inside workflows only.

The standard ones put what they are given into a set first; sets of coroutines or plain futures iterate by memory
address. Outside a workflow the replaced functions hand over to the originals.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any

from perdure.core.errors import UnorderedSet
from perdure.workflow.location import user_location
from perdure.workflow.loop import DeterministicLoop, Future, Task, workflow_loop

_original_wait = asyncio.wait
_original_as_completed = asyncio.as_completed
_original_all_tasks = asyncio.all_tasks


class OrderedSet(set[Any]):
    """A set that iterates in the order in which it was filled, whichever operation filled it."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self._order: dict[Any, None] = dict.fromkeys(items)
        super().__init__(self._order)

    def __iter__(self) -> Iterator[Any]:
        """In order of insertion."""
        return iter(self._order)

    def __repr__(self) -> str:
        return f"{{{', '.join(map(repr, self))}}}" if self else "set()"

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedSet, (list(self),)

    def add(self, item: Any) -> None:
        """At the end, unless it is there."""
        super().add(item)
        self._order[item] = None

    def discard(self, item: Any) -> None:
        """Remove it if it is there."""
        super().discard(item)
        self._order.pop(item, None)

    def remove(self, item: Any) -> None:
        """Remove it, or raise KeyError."""
        super().remove(item)
        del self._order[item]

    def pop(self) -> Any:
        """Remove and return the first."""
        if not self._order:
            raise KeyError("pop from an empty set")
        item = next(iter(self._order))
        self.remove(item)
        return item

    def clear(self) -> None:
        """Remove all."""
        super().clear()
        self._order.clear()

    def update(self, *others: Iterable[Any]) -> None:
        """Add all of these, at the end."""
        for other in others:
            for item in list(other):
                self.add(item)

    def difference_update(self, *others: Iterable[Any]) -> None:
        """Remove all of these."""
        for other in others:
            for item in list(other):
                self.discard(item)

    def intersection_update(self, *others: Iterable[Any]) -> None:
        """Keep what is in all of these."""
        self.difference_update(set(self).difference(set(self).intersection(*others)))

    def symmetric_difference_update(self, other: Iterable[Any]) -> None:
        """Remove what both have, add what only the other has."""
        items = OrderedSet(other)
        common = [item for item in items if item in self]
        self.update(items)
        self.difference_update(common)

    def copy(self) -> OrderedSet:
        """In the same order."""
        return OrderedSet(self)


def _copying(name: str) -> Callable[..., OrderedSet]:
    def method(self: OrderedSet, *others: Iterable[Any]) -> OrderedSet:
        result = self.copy()
        getattr(result, name)(*others)
        return result

    return method


def _operator(
    name: str, *, target: Callable[[OrderedSet, Any], OrderedSet], swapped: bool = False
) -> Callable[..., Any]:
    def method(self: OrderedSet, other: Any) -> Any:
        if not isinstance(other, AbstractSet):
            return NotImplemented
        result = target(self, other)
        getattr(result, name)(self if swapped else other)
        return result

    return method


for _word, _copied, _sign in (
    ("update", "union", "or"),
    ("difference_update", "difference", "sub"),
    ("intersection_update", "intersection", "and"),
    ("symmetric_difference_update", "symmetric_difference", "xor"),
):
    setattr(OrderedSet, _copied, _copying(_word))
    setattr(OrderedSet, f"__i{_sign}__", _operator(_word, target=lambda self, _: self))
    setattr(OrderedSet, f"__{_sign}__", _operator(_word, target=lambda self, _: self.copy()))
    setattr(OrderedSet, f"__r{_sign}__", _operator(_word, target=lambda _, other: OrderedSet(other), swapped=True))


async def _wait(
    fs: Iterable[asyncio.Future[Any]], *, timeout: float | None = None, return_when: str = asyncio.ALL_COMPLETED
) -> tuple[OrderedSet, OrderedSet]:
    futures = _checked(fs, return_when)
    pending = sum(not each.done() for each in futures)
    if pending and not _enough(futures, return_when):
        await _until(futures, pending, timeout, return_when)
    return OrderedSet(f for f in futures if f.done()), OrderedSet(f for f in futures if not f.done())


def _checked(fs: Iterable[asyncio.Future[Any]], return_when: str) -> list[asyncio.Future[Any]]:
    """The futures in order; the errors are asyncio's own."""
    if asyncio.isfuture(fs) or asyncio.iscoroutine(fs):
        raise TypeError(f"expect a list of futures, not {type(fs).__name__}")
    _refuse_unordered("asyncio.wait", fs)
    futures = list(dict.fromkeys(fs))
    if not futures:
        raise ValueError("Set of Tasks/Futures is empty.")
    if any(asyncio.iscoroutine(each) for each in futures):
        raise TypeError("Passing coroutines is forbidden, use tasks explicitly.")
    if return_when not in (asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION, asyncio.ALL_COMPLETED):
        raise ValueError(f"Invalid return_when value: {return_when}")
    return futures


def _enough(futures: list[asyncio.Future[Any]], return_when: str) -> bool:
    done = [each for each in futures if each.done()]
    if return_when == asyncio.FIRST_COMPLETED:
        return bool(done)
    return return_when == asyncio.FIRST_EXCEPTION and any(_raised(each) for each in done)


def _raised(future: asyncio.Future[Any]) -> bool:
    return not future.cancelled() and future.exception() is not None


async def _until(
    futures: list[asyncio.Future[Any]],
    pending: int,
    timeout: float | None,
    return_when: str,
) -> None:
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    def finished(future: asyncio.Future[Any]) -> None:
        nonlocal pending
        pending -= 1
        first = return_when == asyncio.FIRST_COMPLETED
        if first or pending == 0 or (return_when == asyncio.FIRST_EXCEPTION and _raised(future)):
            wake()

    timer = None if timeout is None else loop.call_later(timeout, wake)
    watched = [each for each in futures if not each.done()]
    for each in watched:
        each.add_done_callback(finished)
    try:
        await waiter
    finally:
        if timer is not None:
            timer.cancel()
        for each in watched:
            each.remove_done_callback(finished)


class _AsCompleted:
    """Iterable both ways, as since Python 3.13: `for` gives awaitables, `async for` the futures themselves."""

    def __init__(self, fs: Iterable[Any], timeout: float | None) -> None:
        if asyncio.isfuture(fs) or asyncio.iscoroutine(fs):
            raise TypeError(f"expect an iterable of futures, not {type(fs).__name__}")
        _refuse_unordered("asyncio.as_completed", fs)
        loop = asyncio.get_running_loop()
        self._todo = dict.fromkeys(asyncio.ensure_future(each, loop=loop) for each in dict.fromkeys(fs))
        self._left = len(self._todo)
        self._done: deque[asyncio.Future[Any] | None] = deque()
        self._waiters: deque[asyncio.Future[Any]] = deque()
        self._timer = loop.call_later(timeout, self._time_out) if timeout is not None and self._todo else None
        for each in self._todo:
            each.add_done_callback(self._finished)

    def _put(self, item: asyncio.Future[Any] | None) -> None:
        self._done.append(item)
        self._wake_one()

    def _finished(self, future: asyncio.Future[Any]) -> None:
        if future in self._todo:
            del self._todo[future]
            self._put(future)
            if not self._todo and self._timer is not None:
                self._timer.cancel()

    def _time_out(self) -> None:
        for future in self._todo:
            future.remove_done_callback(self._finished)
            self._put(None)
        self._todo.clear()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break

    async def _next(self) -> asyncio.Future[Any]:
        while not self._done:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except BaseException:
                if self._done and not waiter.cancelled():
                    self._wake_one()  # this consumer was chosen but gives up: the next one gets it
                raise
        future = self._done.popleft()
        if future is None:
            raise TimeoutError
        return future

    async def _next_result(self) -> Any:
        return (await self._next()).result()

    def __iter__(self) -> Iterator[Coroutine[Any, Any, Any]]:
        return self

    def __next__(self) -> Coroutine[Any, Any, Any]:
        if not self._left:
            raise StopIteration
        self._left -= 1
        return self._next_result()

    def __aiter__(self) -> AsyncIterator[asyncio.Future[Any]]:
        return self

    async def __anext__(self) -> asyncio.Future[Any]:
        if not self._left:
            raise StopAsyncIteration
        self._left -= 1
        return await self._next()


def _refuse_unordered(what: str, items: Iterable[Any]) -> None:
    """Our tasks and futures hash by number; a set of anything else iterates by chance."""
    if not isinstance(items, set | frozenset) or isinstance(items, OrderedSet) or len(items) < 2:
        return
    for item in items:
        if not isinstance(item, Future | Task | _Gathering):
            kind = "coroutines" if asyncio.iscoroutine(item) else "bare futures"
            raise UnorderedSet(what=what, kind=kind, where=user_location())


class _Gathering(asyncio.tasks._GatheringFuture):  # type: ignore[name-defined, misc]
    """What `gather` returns, hashed like our other futures."""

    def __init__(self, children: Any, *, loop: Any) -> None:
        ours = isinstance(loop, DeterministicLoop)
        self._hash: int = loop.salt + loop.next_number() if ours else object.__hash__(self)
        super().__init__(children, loop=loop)

    def __hash__(self) -> int:
        return self._hash


@functools.wraps(_original_wait)
def _dispatch_wait(fs: Any, **options: Any) -> Any:
    return _original_wait(fs, **options) if workflow_loop() is None else _wait(fs, **options)


@functools.wraps(_original_as_completed)
def _dispatch_as_completed(fs: Any, *, timeout: float | None = None) -> Any:
    if workflow_loop() is None:
        return _original_as_completed(fs, timeout=timeout)
    return _AsCompleted(fs, timeout)


@functools.wraps(_original_all_tasks)
def _dispatch_all_tasks(loop: asyncio.AbstractEventLoop | None = None) -> Any:
    ours = loop if isinstance(loop, DeterministicLoop) else None if loop else workflow_loop()
    return _original_all_tasks(loop) if ours is None else OrderedSet(ours.waiting_tasks())


def install() -> None:
    """Put the dispatchers in place. Outside workflows they hand over to the originals."""
    for module in (asyncio, asyncio.tasks):
        module.wait = _dispatch_wait  # type: ignore[attr-defined]
        module.as_completed = _dispatch_as_completed  # type: ignore[attr-defined]
        module.all_tasks = _dispatch_all_tasks  # type: ignore[attr-defined]
    asyncio.tasks._GatheringFuture = _Gathering  # type: ignore[attr-defined]
