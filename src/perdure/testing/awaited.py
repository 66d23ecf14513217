"""Who awaits an engine under test, and whether anybody else in the test could still do something about it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OURS = "perdure-"  # how the tasks of engines are named
FOR_TASKS = {
    asyncio.wait_for.__code__,  # until 3.12 it waits for a task
    asyncio.tasks._wait.__code__,  # type: ignore[attr-defined]  # noqa: SLF001 - nothing public tells
    asyncio.TaskGroup.__aexit__.__code__,
    getattr(asyncio.TaskGroup, "_aexit", asyncio.TaskGroup.__aexit__).__code__,
}


class Awaited:
    """The tasks that stand in an await of a result or an update."""

    def __init__(self) -> None:
        self._tasks: Counter[asyncio.Task[Any] | None] = Counter()

    @contextmanager
    def here(self) -> Iterator[None]:
        """While the current task waits."""
        task = asyncio.current_task()
        self._tasks[task] += 1
        try:
            yield
        finally:
            self._tasks[task] -= 1
            if not self._tasks[task]:
                del self._tasks[task]

    def nobody_else_acts(self) -> bool:
        """Whether every task of the loop is an engine's, waits for it, or waits for tasks that do."""
        return all(
            task in self._tasks or task.get_name().startswith(OURS) or _only_waits_for_tasks(task)
            for task in asyncio.all_tasks()
        )


def _only_waits_for_tasks(task: asyncio.Task[Any]) -> bool:
    waits_for = getattr(task, "_fut_waiter", None)
    if isinstance(waits_for, asyncio.Task | asyncio.tasks._GatheringFuture):  # type: ignore[attr-defined]
        return True
    awaited: Any = task.get_coro()
    while hasattr(following := getattr(awaited, "cr_await", None), "cr_code"):
        awaited = following
    return getattr(awaited, "cr_code", None) in FOR_TASKS
