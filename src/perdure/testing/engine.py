"""An engine for tests: in memory, on virtual time, with stand-ins for steps. A week's sleep takes milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from perdure.core.errors import EngineClosed, EngineMisused
from perdure.core.retry import Seconds, to_ms
from perdure.runtime.engine import Engine
from perdure.runtime.worker import Worker
from perdure.store.memory import MemoryStore
from perdure.store.protocol import Store
from perdure.testing.clock import DEFAULT_START, VirtualClock
from perdure.testing.stand_ins import as_function
from perdure.workflow.definitions import Step, Workflow

LOOK_S = 0.001
LOOKS = 3  # so many passes of the loop without anything to do count as idle
PATIENCE_S = 10.0


class TestEngine(Engine):
    """An `Engine` whose time is virtual: while a test awaits a result and nothing runs, it jumps to the next timer.

    Everything else is the real thing: the same loop, journal, replay and rules.

    Args:
        workflows: what it runs.
        steps: stand-ins by step or name: a function, a value that answers every call, or `replies(...)`.
        start_at: the virtual time at the beginning.
        skip_time: let time jump by itself; otherwise only `advance` moves it.
        patience: real seconds that `advance` waits for steps to end.
        store: another store than a new one in memory.

    Example:
        async def test_a_reminder_goes_out_after_a_week():
            async with TestEngine([remind], steps={"send_mail": "sent"}) as engine:
                handle = await engine.start(remind, "ada")
                assert await handle.result() == "sent"
                assert engine.clock.now() == start + timedelta(days=7)
    """

    __test__ = False  # pytest: no class of tests

    def __init__(
        self,
        workflows: Iterable[Workflow[..., Any]] = (),
        *,
        steps: Mapping[str | Step[..., Any], Any] | None = None,
        start_at: datetime = DEFAULT_START,
        skip_time: bool = True,
        patience: Seconds = PATIENCE_S,
        store: Store | None = None,
    ) -> None:
        self.clock = VirtualClock(start_at)
        super().__init__(
            MemoryStore() if store is None else store,
            workflows=workflows,
            environment=self.clock,
            shutdown_timeout=0,
        )
        given = steps or {}
        self._stand_ins = {
            key if isinstance(key, str) else key.name: as_function(stand_in) for key, stand_in in given.items()
        }
        self._skip_time = skip_time
        self._patience_s = to_ms(patience, "patience") / 1000
        self._advancing = False

    async def _begin(self) -> None:
        await super()._begin()
        worker = self._running()
        worker.steps.stand_in = self._stand_in
        if self._skip_time:
            self._tasks.append(self._loop.create_task(self._skip(worker), name="perdure-skip"))

    def _stand_in(self, step: Step[..., Any]) -> Step[..., Any]:
        fn = self._stand_ins.get(step.name)
        return step if fn is None else step.replaced(fn)

    async def advance(self, duration: Seconds) -> None:
        """Let that much virtual time pass, timer by timer, each with all that follows from it.

        Raises:
            EngineMisused: a step does not end within the engine's `patience`.
        """
        worker = self._running()
        target_ms = self.clock.now_ms() + to_ms(duration, "duration")
        self._advancing = True
        try:
            await self._until_idle(worker)
            while (due_ms := worker.next_due_ms()) is not None and due_ms <= target_ms:
                self._jump(worker, due_ms)
                await self._until_idle(worker)
            self._jump(worker, target_ms)
            await self._until_idle(worker)
        finally:
            self._advancing = False

    def _jump(self, worker: Worker, now_ms: int) -> None:
        self.clock.move_to_ms(now_ms)
        worker.clock_moved()

    async def _until_idle(self, worker: Worker) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                while not await self._idle(worker):  # noqa: ASYNC110 - many things end it; none of them knows of tests
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            names = ", ".join(worker.steps.names()) or "something"
            raise EngineMisused(
                what=f"Time cannot be advanced: {names} has been running for {self._patience_s:g} real seconds",
                fix="Give the step a stand-in: TestEngine(..., steps={'name': ...}); or more `patience`.",
            ) from None

    async def _idle(self, worker: Worker) -> bool:
        for _ in range(LOOKS):
            if self._worker is not worker:
                raise EngineClosed
            if not worker.idle:
                return False
            await asyncio.sleep(0)
        return True

    async def _skip(self, worker: Worker) -> None:
        """While somebody waits for an end that only time brings, let it pass."""
        while self._worker is worker:
            await asyncio.sleep(LOOK_S)
            if self._waiters and not self._advancing and self._worker is worker and await self._idle(worker):
                due_ms = worker.next_due_ms()
                if due_ms is not None:
                    self._jump(worker, due_ms)
