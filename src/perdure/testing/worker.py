"""A simulated worker process: the production `Worker`, `Driver`, `StepRunner`, `Heart`, `CommitQueue` and `perform`.

What is simulated is what blocks in production: the committer's and the readers' threads, clocks and entropy. Each hop
takes a random time, so that answers arrive late and in any order that real threads allow.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from typing import Any

from perdure.core.errors import StoreError
from perdure.core.identity import DEFAULT_LANE, Key
from perdure.runtime.background import answer_of
from perdure.runtime.committer import Answers, CommitQueue, DepositDone, Done, Group, perform
from perdure.runtime.lease import Heart
from perdure.runtime.queries import Queries
from perdure.runtime.steps import StepRunner, itself
from perdure.runtime.threads import ThreadPool, Work
from perdure.runtime.worker import Limits, Worker
from perdure.store.protocol import Advice, Batch, Mail, Session, Start, Store
from perdure.testing.kernel import Process
from perdure.workflow.definitions import Workflow

MAX_BACKOFF_S = 2.0
REOPEN_S = 0.5


class Pace:
    """How long the hops of one simulation take, and how often workers look around."""

    def __init__(self, rng: random.Random, *, longest_ms: int = 20, tick_s: float = 1.0, inline: float = 0.3) -> None:
        self.rng = rng
        self.longest_s = longest_ms / 1000
        self.tick_s = tick_s
        self.inline = inline

    def hop(self) -> float:
        """Seconds that one hop takes: mostly little."""
        return self.rng.random() ** 3 * self.longest_s


class SimEnvironment:
    """One machine's clocks, which may be wrong, and its entropy, which is seeded."""

    def __init__(self, process: Process, rng: random.Random, epoch_ms: int) -> None:
        self.skew_ms = 0
        self._process = process
        self._rng = rng
        self._epoch_ms = epoch_ms

    def now_ms(self) -> int:
        """The wall clock, as wrong as it is."""
        return self._epoch_ms + self._process.kernel.now_ms + self.skew_ms

    def monotonic_ms(self) -> int:
        """Goes on while the process is frozen."""
        return self._process.kernel.now_ms

    def new_id(self) -> str:
        """From the seed."""
        return f"{self._rng.getrandbits(128):032x}"

    def worker_name(self) -> str:
        """The process's name."""
        return self._process.name


class SimBackground:
    """Readers: each call happens after a while, its answer arrives after another."""

    def __init__(self, process: Process, pace: Pace) -> None:
        self._process = process
        self._pace = pace

    def run(self, call: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """See `Background.run`."""

        def work() -> None:
            answer = answer_of(call)
            self._process.call_later(self._pace.hop(), done, answer)

        self._process.call_later(self._pace.hop(), work)


class SimThreads(ThreadPool):
    """`def` steps: run in one go when their time has come."""

    def __init__(self, process: Process, pace: Pace) -> None:
        super().__init__(1)
        self._process = process
        self._pace = pace

    def submit(self, call: Callable[[], None], context: Context) -> Work:
        """See `ThreadPool.submit`."""
        work = Work(call, context)
        self._process.call_later(self._pace.hop(), self._run_one, work)
        return work

    def _run_one(self, work: Work) -> None:
        if not work.abandoned:
            work.context.run(work.call)
            work.finished = True

    def abandon(self, work: Work) -> bool:
        """See `ThreadPool.abandon`."""
        work.abandoned = True
        return work.finished


class SimCommitter:
    """The committer's loop as callbacks: gather, write with back-off, tell; the next group gathers meanwhile."""

    def __init__(
        self,
        process: Process,
        pace: Pace,
        store: Store,
        session: Session,
        *,
        woken: Callable[[Sequence[Key]], None],
        lost: Callable[[Exception], None],
    ) -> None:
        self._process = process
        self._pace = pace
        self._store = store
        self._session = session
        self._woken = woken
        self._lost = lost
        self._queue = CommitQueue()
        self._busy = False
        self._told_at = 0.0

    def start(self) -> None:
        """See `Committer.start`."""

    def submit(self, entries: Sequence[tuple[Batch, Done]]) -> None:
        """See `Committer.submit`. Sometimes on the spot, as when one execution is all there is to do."""
        if len(entries) == 1 and not self._busy and not self._queue and self._pace.rng.random() < self._pace.inline:
            self._queue.add(entries[0])
            self._busy = True
            self._write(self._queue.gather(), 0.05)
            return
        for entry in entries:
            self._queue.add(entry)
        self._go()

    def deposit(self, item: Start | Mail, done: DepositDone) -> None:
        """See `Committer.deposit`."""
        self._queue.deposits.append((item, done))
        self._go()

    def advise(self, advice: Advice) -> None:
        """See `Committer.advise`."""
        self._queue.advise(advice)
        self._go()

    def depth(self) -> int:
        """See `Committer.depth`."""
        return len(self._queue)

    def stop(self) -> None:
        """See `Committer.stop`: here the process is killed afterwards."""

    def _go(self) -> None:
        if not self._busy:
            self._busy = True
            self._process.call_later(self._pace.hop(), self._gather)

    def _gather(self) -> None:
        self._write(self._queue.gather(), 0.05)

    def _write(self, group: Group, pause_s: float) -> None:
        try:
            answers = perform(self._store, self._session, group)
        except StoreError:
            self._process.call_later(pause_s, self._write, group, min(pause_s * 2, MAX_BACKOFF_S))
            return
        self._tell(answers)
        self._busy = False
        if self._queue and answers.lost is None:
            self._go()

    def _tell(self, answers: Answers) -> None:
        self._told_at = max(self._told_at, self._process.time() + self._pace.hop())  # threads post in order
        self._process.call_at(self._told_at, answers.distribute, self._woken, self._lost)


class SimWorker:
    """One incarnation of a worker: from its start to its death."""

    def __init__(
        self,
        process: Process,
        pace: Pace,
        *,
        store: Store,
        environment: SimEnvironment,
        workflows: Iterable[Workflow[..., Any]],
        limits: Limits,
        stand_in: Callable[[Any], Any] = itself,
        on_lost: Callable[[SimWorker], None],
        on_stalled: Callable[[Key, Exception], None],
    ) -> None:
        self.process = process
        self.pace = pace
        self.store = store
        self.environment = environment
        self.workflows = list(workflows)
        self.limits = limits
        self.stand_in = stand_in
        self.on_lost = on_lost
        self.on_stalled = on_stalled
        self.worker: Worker | None = None
        self.session: Session | None = None
        process.at_death = self.forget
        process.call_soon(self._open)

    def _open(self) -> None:
        try:
            session = self.store.open_session(self.process.name, (DEFAULT_LANE,), "fingerprint")
        except StoreError:
            self.process.call_later(REOPEN_S, self._open)
            return
        self.session = session
        worker = Worker(
            store=self.store,
            session=session,
            environment=self.environment,
            background=SimBackground(self.process, self.pace),
            workflows=self.workflows,
            limits=self.limits,
        )
        worker.steps = StepRunner(
            self.environment, limit=50, threads=SimThreads(self.process, self.pace), lapsed=worker.holding.lapsed
        )
        worker.steps.stand_in = self.stand_in
        worker.committer = SimCommitter(
            self.process, self.pace, self.store, session, woken=worker.arrivals.woken, lost=self._lost
        )
        worker.on_stalled = self.on_stalled
        self.worker = worker
        self.queries = Queries(worker, self._read)
        self._heart = Heart(
            self.store,
            session,
            monotonic_ms=self.environment.monotonic_ms,
            renewed=worker.renewed,
            lost=self._lost,
        )
        self._beat()
        worker.arrivals.scan()
        self._tick()

    async def _read(self, call: Callable[[], Any]) -> Any:
        answered: asyncio.Future[Any] = self.process.create_future()
        SimBackground(self.process, self.pace).run(call, answered.set_result)
        answer = await answered
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _beat(self) -> None:
        if self.process.thawed_us == self.process.kernel.now_us and self.pace.rng.random() < 0.7:
            self.process.call_later(self.pace.rng.random() / 5, self._beat)  # its thread comes to run later than others
            return
        pause_s = self._heart.beat()
        if pause_s is not None:
            self.process.call_later(pause_s, self._beat)

    def _tick(self) -> None:
        assert self.worker is not None
        self.worker.tick()
        self.process.call_later(self.pace.tick_s * (0.5 + self.pace.rng.random()), self._tick)

    def _lost(self, _error: Exception) -> None:
        """As the engine does: stop, and leave."""
        if self.worker is not None:
            self.worker.stop()
        self.on_lost(self)

    def forget(self) -> None:
        """Its memory is gone: coroutines end here, and say nothing."""
        if self.worker is None:
            return
        self.worker.steps._limit = 0  # noqa: SLF001 - what ends now makes room for nothing
        self.queries.close()
        for driver in list(self.worker.drivers.values()):
            driver.execution.evict()
        for run in self.worker.steps._runs:  # noqa: SLF001 - its memory, not its say
            run.stopped = True
        for task in self.worker.steps.tasks.alive:
            self.process.own(task)
