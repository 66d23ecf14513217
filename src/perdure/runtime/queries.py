"""Queries: answered by the code of an execution, in memory where it runs, else from its journal, replayed to be read.

What is replayed to be read is kept for a while, and fed with what was journaled since when it is asked again. It starts
nothing and writes nothing, whatever its state.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from perdure.core.errors import ExecutionNotFound, ExecutionStalled, ReadOnlyHandler, UnknownWorkflow
from perdure.core.events import Payload, Recorded
from perdure.core.identity import Key
from perdure.runtime.loading import LOAD_PAGE
from perdure.runtime.local import Query
from perdure.runtime.worker import Worker
from perdure.store.protocol import Row
from perdure.workflow.execution import Execution
from perdure.workflow.standing import stack

MOST_KEPT = 32
EVENTS_PER_TURN = 256
_encode = msgspec.msgpack.Encoder().encode
PENDING_S, MOST_PENDING_S = 0.01, 0.5


class Queries:
    """The queries of one engine. Belongs to its thread."""

    def __init__(self, worker: Worker, read: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self._worker = worker
        self._read = read
        self._kept: OrderedDict[tuple[Key, str], Execution] = OrderedDict()
        self._replaying = asyncio.Lock()  # one at a time: it is work for the one thread that there is

    async def answer(self, query: Query) -> Payload:
        """What the execution's code answers.

        Raises:
            ExecutionNotFound, ExecutionStalled, UnknownWorkflow: nobody can answer.
            UnknownHandler, WrongArguments, QueryFailed, ReadOnlyHandler, EncodeError: as the code answers.
            NondeterminismError: an execution that is not running here does not replay with this code.
        """
        key, pause_s = query.key, PENDING_S
        while True:
            driver = self._worker.drivers.get(key)
            if driver is None:
                found = await self._answer_from_journal(query)
                if found is not None:
                    return found
                await asyncio.sleep(pause_s)  # it has not begun yet
                pause_s = min(pause_s * 2, MOST_PENDING_S)
            elif driver.broken is not None:
                raise ExecutionStalled(execution=key.execution, problem=str(driver.broken))
            elif driver.is_fed:
                try:
                    return _answer(driver.execution, query)
                except ReadOnlyHandler:
                    self._worker.reload(driver)
                    raise
            else:
                fed = asyncio.get_running_loop().create_future()
                driver.when_fed.append(fed)
                await fed

    async def _answer_from_journal(self, query: Query) -> Payload | None:
        """Replayed to be read; None if the journal is empty."""
        key = query.key
        row: Row | None = await self._read(lambda: self._worker.store.row(key))
        if row is None:
            raise ExecutionNotFound(execution=key.execution, namespace=key.namespace)
        if row.workflow not in self._worker.workflows:
            known = ", ".join(sorted(self._worker.workflows)) or "none"
            raise UnknownWorkflow(name=row.workflow, known=known)
        if row.status == "stalled":
            raise ExecutionStalled(execution=key.execution, problem=row.problem)
        if not row.position:
            return None
        async with self._replaying:
            execution = await self._replayed(row)
            try:
                return _answer(execution, query)
            except ReadOnlyHandler:
                self._forget((key, row.run))
                raise

    async def _replayed(self, row: Row) -> Execution:
        """Its code as the journal leaves it."""
        name = (row.key, row.run)
        execution = self._kept.pop(name, None) or self._fresh(row)
        self._kept[name] = execution
        while len(self._kept) > MOST_KEPT:
            self._forget(next(iter(self._kept)))
        try:
            journal = await self._journal(row, execution.machine.position)
            execution.expect(journal)
            for count, recorded in enumerate(journal, 1):
                execution.feed(recorded)
                if count % EVENTS_PER_TURN == 0:
                    await asyncio.sleep(0)
        except BaseException:
            self._forget(name)
            raise
        return execution

    async def _journal(self, row: Row, position: int) -> list[Recorded]:
        """What was journaled from there on."""
        found: list[Recorded] = []
        page: list[Recorded] | None = None
        while page is None or len(page) == LOAD_PAGE:
            start = position + len(found)
            page = await self._read(partial(self._worker.store.load, row.key, row.run, start, LOAD_PAGE))
            found += page
        return found

    def _fresh(self, row: Row) -> Execution:
        worker = self._worker
        execution = Execution(worker.workflows[row.workflow], row.key.execution, worker.fingerprint)
        execution.private = worker.private
        return execution

    def _forget(self, name: tuple[Key, str]) -> None:
        execution = self._kept.pop(name, None)
        if execution is not None:
            execution.evict()

    def close(self) -> None:
        """Free what is kept."""
        for name in list(self._kept):
            self._forget(name)


def _answer(execution: Execution, query: Query) -> Payload:
    if query.stack:
        return Payload(_encode(stack(execution)))
    return execution.handlers.answer(query.name, query.input)
