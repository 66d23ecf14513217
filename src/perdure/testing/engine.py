"""An engine for tests: in memory, on virtual time, with stand-ins for steps. A week's sleep takes milliseconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import chain
from typing import Any

from perdure.core import events as ev
from perdure.core.errors import EngineClosed, EngineMisused, NothingLeft, PerdureError
from perdure.core.identity import Key
from perdure.core.retry import Seconds, to_ms
from perdure.runtime.attempt import StepRun
from perdure.runtime.engine import Engine
from perdure.runtime.updates import Settled
from perdure.runtime.worker import DELIVERIES_PER_TICK, Worker
from perdure.store.codec import PayloadCodec
from perdure.store.memory import MemoryStore
from perdure.store.protocol import Store
from perdure.testing.asleep import Sleepers
from perdure.testing.awaited import Awaited
from perdure.testing.clock import DEFAULT_START, VirtualClock
from perdure.testing.replaying import AlwaysReplay, ReplayDiffers
from perdure.testing.stand_ins import StandIns
from perdure.workflow.definitions import Step
from perdure.workflow.runnable import Runnable

LOOK_S = 0.001
LOOKS = 3  # so many passes of the loop without anything to do count as idle
PATIENCE_S = 10.0


class TestEngine(Engine):
    """An `Engine` whose time is virtual: while a test awaits a result or an update and nothing runs, it jumps.

    It jumps to whatever comes next: a timer, a retry, a question to `reconcile`, a deadline. Everything else is the
    real thing: the same loop, journal, replay and rules.

    Steps really run, so time stands still for them, but for two cases. A step that sleeps in `asyncio.sleep` sleeps in
    virtual time. One that is still at it after `patience` real seconds, without a heartbeat, is taken to hang: time
    goes on to its `timeout=`, and if it has none the test fails, with its name. A `timeout=` that is reached in real
    time counts as well. Awaiting what nothing can bring any more raises `NothingLeft` at once, unless another task of
    the test could still do something: then after `patience`.

    Args:
        workflows: what it runs.
        steps: stand-ins by step or name: a function, a value that answers every call, or `replies(...)`.
        start_at: the virtual time at the beginning.
        skip_time: let time jump by itself; otherwise only `advance` moves it.
        patience: real seconds that it waits for steps to end, and for other tasks to do something.
        always_replay: replay whatever comes to rest or closes, and fail at the end if that led elsewhere.
        codec: encrypts values, as of `Engine`.
        store: another store than a new one in memory.

    Raises:
        EngineMisused: a stand-in whose name no step has: at once where a known step has a similar one, else at the end.
        ReplayDiffers: at the end: some workflow is not deterministic.

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
        workflows: Iterable[Runnable[..., Any]] = (),
        *,
        steps: Mapping[str | Step[..., Any], Any] | None = None,
        start_at: datetime = DEFAULT_START,
        skip_time: bool = True,
        patience: Seconds = PATIENCE_S,
        always_replay: bool = True,
        codec: PayloadCodec | None = None,
        store: Store | None = None,
    ) -> None:
        self.clock = VirtualClock(start_at)
        super().__init__(
            MemoryStore(lease_ms=None) if store is None else store,
            workflows=workflows,
            environment=self.clock,
            codec=codec,
            shutdown_timeout=0,
        )
        self._stand_ins = StandIns(steps or {}, self.workflows.values())
        self._skip_time = skip_time
        self._patience_s = to_ms(patience, "patience") / 1000
        self._alone = store is None  # nobody else writes into the store
        self._replayed = AlwaysReplay() if always_replay else None
        self._advancing = False
        self._awaited = Awaited()
        self._reading = 0
        self._asleep: set[StepRun] = set()
        self._busy: list[tuple[StepRun, int]] = []  # what steps were at when they were last looked at
        self._busy_since_s = 0.0

    # --- life ---

    @property
    def is_open(self) -> bool:
        """Whether it was entered, and not left."""
        return self._worker is not None

    async def _begin(self) -> None:
        self._stand_ins.check()
        await super()._begin()
        worker = self._running()
        worker.steps.stand_in = self._stand_ins.instead_of
        if self._replayed is not None:
            worker.observer = self._replayed
        self._sleepers = Sleepers(self.clock.monotonic_ms)
        if self._skip_time:
            self._tasks.append(self._loop.create_task(self._skip(worker), name="perdure-skip"))

    async def __aexit__(self, kind: type[BaseException] | None = None, *rest: object) -> None:
        """Leave. Raises what it found, unless something else was raised."""
        entered = self._worker is not None
        await super().__aexit__(kind, *rest)
        if kind is not None or not entered:
            return
        if self._replayed is not None and self._replayed.problems:
            raise ReplayDiffers("\n".join(self._replayed.problems))
        self._stand_ins.check_used()

    async def closed(self, key: Key) -> ev.AnyEvent | None:
        """See `Engine.closed`."""
        with self._awaited.here():
            return await super().closed(key)

    async def answered(self, key: Key, update_id: str) -> Settled:
        """See `Engine.answered`."""
        with self._awaited.here():
            return await super().answered(key, update_id)

    async def read(self, call: Callable[[], Any]) -> Any:
        """See `Engine.read`."""
        self._reading += 1
        try:
            return await super().read(call)
        finally:
            self._reading -= 1

    # --- time ---

    async def advance(self, duration: Seconds) -> None:
        """Let that much virtual time pass, timer by timer, each with all that follows from it.

        Raises:
            EngineMisused: a step without a `timeout=` does not end within the engine's `patience`.
        """
        worker = self._running()
        target_ms = self.clock.now_ms() + to_ms(duration, "duration")
        self._advancing = True
        try:
            await self._until_idle(worker)
            while (due_ms := self._next_ms(worker)) is not None and due_ms <= target_ms:
                self._jump(worker, due_ms)
                await self._until_idle(worker)
            self._jump(worker, target_ms)
            await self._until_idle(worker)
        finally:
            self._advancing = False

    def _jump(self, worker: Worker, now_ms: int) -> None:
        self.clock.move_to_ms(now_ms)
        worker.steps.clock_moved()
        self._sleepers.wake()
        worker.clock_moved()

    def _next_ms(self, worker: Worker) -> int | None:
        """When time alone brings something to do."""
        ahead_ms = self.clock.now_ms() - self.clock.monotonic_ms()
        limits = [due + ahead_ms for run in self._asleep for due, _, _ in run.limits()]
        woken = self._sleepers.next_ms()
        times = [worker.next_due_ms(), None if woken is None else woken + ahead_ms, *limits]
        return min((each for each in times if each is not None), default=None)

    async def _until_idle(self, worker: Worker) -> None:
        while not await self._idle(worker):  # noqa: ASYNC110 - many things end it; none of them knows of tests
            await asyncio.sleep(LOOK_S)

    async def _idle(self, worker: Worker) -> bool:
        """Whether only time, or a message, brings something to do. Raises `EngineMisused` if a step hangs."""
        for _ in range(LOOKS):
            if self._worker is not worker:
                raise EngineClosed
            runs = worker.steps.running()
            asleep = self._sleepers.look(runs)
            self._asleep = asleep | self._hanging([run for run in runs if run not in asleep])
            if not worker.idle(len(self._asleep)) or not self._committer.is_quiet():
                return False
            await asyncio.sleep(0)
        return True

    def _hanging(self, awake: list[StepRun]) -> set[StepRun]:
        """All of them, once they have been at it for so long that they must be taken to hang, and have limits."""
        busy, now_s = [(run, run.last_beat_ms) for run in awake], time.monotonic()
        if busy != self._busy:
            self._busy, self._busy_since_s = busy, now_s
        if not awake or now_s - self._busy_since_s < self._patience_s:
            return set()
        endless = sorted({run.name for run in awake if not run.limits()})
        if endless:
            raise EngineMisused(
                what=f"Time cannot go on: {', '.join(endless)} has been running for {self._patience_s:g} real seconds",
                fix="Give the step a stand-in: TestEngine(..., steps={'name': ...}); a timeout=; or more `patience`.",
            )
        return set(awake)

    def _waiting(self) -> list[asyncio.Future[Any]]:
        return [*self._callers, *chain(*self._waiters.values())]

    def _is_awaited(self) -> bool:
        """Whether somebody waits for an end; and nobody has just been told of one, or is looking for it."""
        waiting = self._waiting()
        return bool(waiting) and not self._reading and not any(waiter.done() for waiter in waiting)

    async def _skip(self, worker: Worker) -> None:
        """While somebody waits for an end that only time brings, let it pass."""
        idle_since_s: float | None = None
        while self._worker is worker:
            await asyncio.sleep(LOOK_S)
            if self._advancing or self._worker is not worker or not self._is_awaited():
                idle_since_s = None
                continue
            try:
                idle = await self._idle(worker)
            except EngineMisused as error:
                self._fail(error)
                continue
            if not idle or not self._is_awaited():
                idle_since_s = None
            elif (due_ms := self._next_ms(worker)) is not None:
                self._jump(worker, due_ms)
                idle_since_s = None
            else:
                idle_since_s = idle_since_s or time.monotonic()
                await self._nothing_is_due(worker, time.monotonic() - idle_since_s)

    # --- what can never end ---

    async def _nothing_is_due(self, worker: Worker, seconds: float) -> None:
        at_once = self._alone and self._awaited.nobody_else_acts()
        if not at_once and seconds < self._patience_s:
            return
        delivered = await self.read(lambda: self.store.deliver(worker.session, DELIVERIES_PER_TICK))
        worker.arrivals.woken(delivered)
        if await self._idle(worker) and self._next_ms(worker) is None and self._is_awaited():
            self._fail(NothingLeft(waits=await self._waits_for(worker)))

    async def _waits_for(self, worker: Worker) -> str:
        """In the words of the journal, of each execution that somebody waits for."""
        keys = dict.fromkeys([*self._waiters, *(key for key, _ in self._callers.waiting)])
        told = []
        for key in keys:
            driver = worker.drivers.get(key)
            row = await self.read(lambda key=key: self.store.row(key))  # type: ignore[misc]
            waits_for = driver.execution.waits_for() if driver is not None else row.waits_for if row is not None else ""
            told.append(f"execution {key.execution!r} waits for {waits_for or 'a message, or to be terminated'}")
        return "; ".join(told) or "what is awaited will not come"

    def _fail(self, error: PerdureError) -> None:
        """Whoever waits is told. Those who come later are told anew."""
        for waiter in self._waiting():
            if not waiter.done():
                waiter.set_exception(error)
