"""The engine: client and worker in one, on the loop where it is entered.

Threads: the user's loop runs workflows and async steps; the committer writes; the heartbeat renews the lease; readers
load journals; `def` steps run in a pool. Each has its own way into the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Self, TypeVar

from perdure.core import events as ev
from perdure.core.errors import (
    DuplicateName,
    EngineClosed,
    EngineMisused,
    InvalidOption,
    KeyMissing,
    StoreBusy,
    StoreError,
)
from perdure.core.events import Payload
from perdure.core.identity import DEFAULT_LANE, DEFAULT_NAMESPACE, Key
from perdure.core.retry import Seconds, to_ms
from perdure.runtime.background import ThreadBackground, post
from perdure.runtime.branching import BranchRequest, carry_out
from perdure.runtime.collecting import retentions_of
from perdure.runtime.committer import ThreadCommitter
from perdure.runtime.environment import Environment, SystemEnvironment
from perdure.runtime.executions import Executions
from perdure.runtime.figures import Figures
from perdure.runtime.handle import raise_if_error
from perdure.runtime.known import fingerprint_of, named, place_of
from perdure.runtime.lease import Heart
from perdure.runtime.loading import is_over
from perdure.runtime.local import LocalServer, Query, socket_path
from perdure.runtime.pulse import Pulse
from perdure.runtime.queries import Queries
from perdure.runtime.rush import Rush
from perdure.runtime.serving import serve
from perdure.runtime.starting import check_receipt, check_same
from perdure.runtime.steps import StepRunner
from perdure.runtime.threads import ThreadPool
from perdure.runtime.unresolved import Unresolved, known_step, refusal_of
from perdure.runtime.unserved import UNSERVED
from perdure.runtime.updates import Callers, Settled
from perdure.runtime.worker import Limits, Worker
from perdure.store.codec import PayloadCodec
from perdure.store.open import open_store, sealed
from perdure.store.protocol import Mail, Receipt, Session, Start, Store
from perdure.workflow import guards, ordered
from perdure.workflow.definitions import Step, Workflow
from perdure.workflow.runnable import Runnable

R = TypeVar("R")
log = logging.getLogger("perdure")

TICK_S = 0.5
BUSY_PAUSE_S = 0.1  # between two tries to become the owner of the file
SETTLE_TRIES = 200  # looks at whether what the last steps answered is written
SHORT_PAUSE_S = 0.01  # about a commit
DEPOSITS_WAITING = 10_000
ADOPT_PAGE = 200


class Engine(Executions):
    """Runs workflows. An async context manager.

    Args:
        store: path of the SQLite file; by default `PERDURE_STORE`, else `perdure.db` in the working directory.
        workflows: what this engine runs, besides children that they start and what their modules define.
        namespace: the tenant's world.
        wait: wait until another engine on the same file ends, instead of raising `StoreBusy`.
        durability: "full" survives power loss; "process" only the death of the process, and is faster.
        shutdown_timeout: how long leaving waits for running steps before it cancels them.
        max_active: executions with something to do at once; `start` waits above that.
        max_steps: attempts of steps that run at once.
        step_threads: threads for `def` steps.
        cache: resting executions that are kept in memory; others are loaded by replay when something happens.
        retention: executions that closed longer ago are removed, with all that belongs to them; None keeps them.
        run_retention: past runs that ended longer ago are removed, of open executions too; None keeps them.
        codec: encrypts values at rest, as `perdure.encryption.KeyRing` does; by default what `PERDURE_CODEC` names.
        environment: its clock and its ids; tests have another one.

    Raises:
        StoreBusy: another engine works on this file.
        StoreError: the store cannot be opened; the message says why, and what to do.
        DuplicateName, InvalidDefinition: the workflows.

    Example:
        async with perdure.Engine("perdure.db", workflows=[research]) as engine:
            handle = await engine.start(research, "durable execution", id="report-1")
            print(await handle.result())
    """

    def __init__(
        self,
        store: str | Path | Store | None = None,
        *,
        workflows: Iterable[Runnable[..., Any]] = (),
        namespace: str = DEFAULT_NAMESPACE,
        wait: bool = False,
        durability: str = "full",
        shutdown_timeout: Seconds = 10.0,
        max_active: int = 10_000,
        max_steps: int = 1_000,
        step_threads: int = 32,
        cache: int = 2_000,
        retention: Seconds | None = None,
        run_retention: Seconds | None = None,
        codec: PayloadCodec | None = None,
        environment: Environment | None = None,
    ) -> None:
        for option, value in {"max_active": max_active, "max_steps": max_steps, "step_threads": step_threads}.items():
            at_least(1, value, option)
        at_least(0, cache, "cache")
        self.namespace = namespace
        self.environment = environment or SystemEnvironment()
        self.workflows = named(workflows)
        self._given = store
        self._codec = codec
        self._options: dict[str, Any] = {"durability": durability}
        self._wait = wait
        self._shutdown_s = to_ms(shutdown_timeout, "shutdown_timeout") / 1000
        self._limits = Limits(active=max_active, resting=cache)
        self._retentions = retentions_of(namespace, retention, run_retention)
        self._max_steps = max_steps
        self._step_threads = step_threads
        self._worker: Worker | None = None
        self._waiters: dict[Key, list[asyncio.Future[ev.AnyEvent | None]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._callers = Callers(self.read)
        self._asked: set[asyncio.Future[Any]] = set()  # of the committer; it may end without an answer
        self._server: LocalServer | None = None
        self._heart: Heart | None = None
        self._deposits = 0
        self._new_names: list[str] = []  # of workflows that this engine has just got to know
        self.failure: Exception | None = None
        self.failed = asyncio.Event()

    # --- life ---

    async def __aenter__(self) -> Self:
        if self._worker is not None:
            raise EngineMisused(what="This engine is entered already", fix="Make another Engine, or share this one.")
        ordered.install()
        guards.install()
        options = self._options if isinstance(self._given, str | Path | None) else {}
        opened = await asyncio.to_thread(open_store, self._given, **options)
        self._close_given = opened.close if opened is not self._given else None
        try:
            self.store = sealed(opened, self._codec)
            await self._begin()
        except BaseException:
            if self._worker is not None:
                await self.__aexit__()
            elif self._close_given is not None:
                await asyncio.to_thread(self._close_given)
            raise
        return self

    async def _begin(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._began_ms = self.environment.monotonic_ms()
        fingerprint = fingerprint_of(self.workflows.values())
        session = await self._open_session(fingerprint)
        self._session = session
        self._threads = ThreadPool(self._step_threads)
        self._background = ThreadBackground(loop)
        worker = Worker(
            store=self.store,
            session=session,
            environment=self.environment,
            background=self._background,
            workflows=self.workflows.values(),
            limits=self._limits,
        )
        worker.on_closed = lambda key, _, event: self._wake(key, event)
        worker.on_stalled = lambda key, _: self._wake(key, None)
        worker.on_answered = self._callers.tell
        worker.on_moved = lambda key: self._wake(key, None)
        self._rush = Rush()
        worker.on_arrived = self._rush.arrived
        worker.steps = StepRunner(
            self.environment,
            limit=self._max_steps,
            threads=self._threads,
            lapsed=worker.holding.lapsed,
            private=worker.private,
        )
        worker.committer = self._committer = ThreadCommitter(
            self.store,
            session,
            post=loop.call_soon_threadsafe,
            alone=lambda: worker.active <= 1 and len(worker.steps) == 0,
            woken=worker.arrivals.woken,
            lost=self._lost,
        )
        worker.collector.keep(self._retentions)
        self._worker = worker
        self._queries = Queries(worker, self.read)
        self._committer.start()
        monotonic_ms = self.environment.monotonic_ms
        worker.changes = await asyncio.to_thread(self.store.changes)
        asked_ms = monotonic_ms()
        worker.renewed(await asyncio.to_thread(self.store.renew, session), asked_ms)
        self._heart = Heart(
            self.store,
            session,
            monotonic_ms=monotonic_ms,
            renewed=lambda lease, asked_ms: post(loop, worker.renewed, lease, asked_ms),
            lost=lambda error: post(loop, self._lost, error),
            watch=Pulse(loop).beat,
        )
        self._heart.start()
        await self._listen()
        await self._adopt(list(worker.workflows))
        self._tasks.append(loop.create_task(self._tick(), name="perdure-tick"))

    async def _adopt(self, names: Sequence[str]) -> None:
        """Executions that stalled for want of their workflow or key go on by themselves once there is a chance."""
        for name in names:
            try:
                await self._adopt_all_of(name)
            except (StoreError, EngineClosed) as error:
                log.warning("could not look for executions of %r that wait for a worker: %s", name, error)

    async def _adopt_all_of(self, name: str) -> None:
        cursor: str | None = None
        while cursor != "":
            page = await self.list(status=["stalled"], workflow=name, cursor=cursor or "", limit=ADOPT_PAGE)
            for row in page:
                if row.waits_for in (UNSERVED, KeyMissing.__name__):
                    await self.resume(row.key)
            cursor = page.next

    async def _open_session(self, fingerprint: str) -> Session:
        name, lanes = self.environment.worker_name(), (DEFAULT_LANE,)
        while True:
            try:
                return await asyncio.to_thread(self.store.open_session, name, lanes, fingerprint)
            except StoreBusy:
                if not self._wait:
                    raise
                await asyncio.sleep(BUSY_PAUSE_S)

    async def _listen(self) -> None:
        announce = getattr(self.store, "announce", None)
        if announce is not None:
            self._server = LocalServer(socket_path(self.store.path), partial(serve, self))
            await self._server.start()
            await asyncio.to_thread(announce, self._server.path)

    async def __aexit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        if self._server is not None:
            await self._server.stop()
        worker.stopping = True
        if kind is asyncio.CancelledError and len(worker.steps) and self._shutdown_s:
            message = "stopping: %d running step(s) may finish, within %g s; interrupted again, it does not wait"
            log.warning(message, len(worker.steps), self._shutdown_s)
        try:
            await worker.steps.drain(self._shutdown_s)
            await self._settle(worker)
        finally:
            await self._end(worker)

    async def _end(self, worker: Worker) -> None:
        worker.stop()
        self._rush.end()
        self._queries.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.to_thread(self._committer.stop)
        if self._heart is not None:
            await asyncio.to_thread(self._heart.stop)
        await asyncio.to_thread(self._background.close)
        self._threads.close()
        unanswered: list[asyncio.Future[Any]] = [*self._asked, *self._callers, *chain(*self._waiters.values())]
        for waiter in unanswered:
            if not waiter.done():
                waiter.set_exception(EngineClosed())
        await asyncio.to_thread(self._close_store)

    async def _settle(self, worker: Worker) -> None:
        """Let what the last steps answered be written: bounded, because the disk may be full."""
        for _ in range(SETTLE_TRIES):
            if self.failure is not None or not (self._committer.depth() or worker.writing()):
                return
            await asyncio.sleep(SHORT_PAUSE_S)

    def _close_store(self) -> None:
        try:
            if self.failure is None:
                self.store.close_session(self._session)
        except StoreError as error:
            log.warning("could not sign off, the next engine takes over as after a crash: %s", error)
        if self._close_given is not None:
            self._close_given()

    def _lost(self, error: Exception) -> None:
        """This engine may not write any more: everything in memory is void."""
        if self.failure is not None:
            return
        log.critical("this engine stops: %s", error)
        self.failure = error
        self.failed.set()
        if self._worker is not None:
            self._worker.stop()
        for key in list(self._waiters):
            self._wake(key, None)
        for asked in (*self._asked, *self._callers):
            if not asked.done():
                asked.set_exception(error)

    async def run_forever(self) -> None:
        """Work until cancelled, or until the engine may not go on.

        Raises:
            OwnershipLost: another engine took over.
        """
        await self.failed.wait()
        assert self.failure is not None
        raise self.failure

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if self._worker is None:
                return
            self._worker.tick()
            names, self._new_names = self._new_names, []
            await self._adopt(names)  # once more: some were just about to be written as stalled

    # --- what the handles need ---

    def _running(self) -> Worker:
        """Its worker. Raises what keeps it from working."""
        if self.failure is not None:
            raise self.failure
        if self._worker is None:
            raise EngineClosed
        if asyncio.get_running_loop() is not self._loop:
            raise EngineMisused(
                what="This engine works on another event loop than the one that calls it",
                fix="Call it there: asyncio.run_coroutine_threadsafe(engine.start(...), loop); or use a Client here.",
            )
        return self._worker

    async def read(self, call: Callable[[], Any]) -> Any:
        """See `Executions.read`."""
        future = asyncio.get_running_loop().create_future()

        def done(answer: Any) -> None:
            if future.done():
                return
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        self._running()
        self._background.run(call, done)
        return await future

    async def know(self, workflow: Workflow[..., Any]) -> None:
        """See `Executions.know`. Raises `DuplicateName`."""
        worker = self._running()
        if workflow.name not in worker.workflows:
            worker.workflows[workflow.name] = workflow
            self._new_names.append(workflow.name)
            await self._adopt([workflow.name])
        known = worker.workflows[workflow.name]
        if known is not workflow and known.fn is not workflow.fn:
            raise DuplicateName(kind="workflow", name=workflow.name, first=place_of(known), second=place_of(workflow))

    async def begin(self, start: Start, workflow: Workflow[..., Any]) -> None:
        """See `Executions.begin`."""
        await self.know(workflow)
        await self._running().room()
        worker = self._running()
        is_put_off = start.event.start_at_ms > 0 and start.event.start_at_ms > self.environment.now_ms()
        if not is_put_off and start.key not in worker.drivers and await self._created(worker, start, workflow):
            return
        if is_put_off or start.is_choosy:
            check_receipt(start, await self.deposit(start))
            return
        row = await self._row_once_stored(start.key)
        if row is None:  # refused by the store, which takes any id that is free: it could not be encrypted
            raise KeyMissing(what=f"The input of execution {start.key.execution!r}", key="?")
        check_same(start, row)

    async def _created(self, worker: Worker, start: Start, workflow: Workflow[..., Any]) -> bool:
        """Whether the id was free. Its fate is the store's if the engine stops meanwhile, but nobody waits for ever."""
        created = asyncio.get_running_loop().create_future()
        self._asked.add(created)
        try:
            driver = worker.start(start, workflow)
            driver.created = lambda *, free: None if created.done() else created.set_result(free)
            return await created  # type: ignore[no-any-return]
        finally:
            self._asked.discard(created)

    def _forget(self, key: Key, waiter: asyncio.Future[ev.AnyEvent | None]) -> None:
        waiters = self._waiters.get(key, [])
        if waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[key]
        waiter.cancel()

    async def _row_once_stored(self, key: Key) -> Any:
        while True:
            row = await self.read(lambda: self.store.row(key))
            if row is not None or key not in self._running().drivers:
                return row
            await asyncio.sleep(SHORT_PAUSE_S / 2)  # the first start of this id is in the next commit

    async def deposit(self, item: Start | Mail) -> Receipt:
        """See `Executions.deposit`. Into the next group commit."""
        worker = self._running()
        if isinstance(item, Mail) and isinstance(item.event, ev.ResolveRequested):
            reason = await self.read(lambda: refusal_of(worker, item))
            if reason:
                return Receipt("refused", detail=reason)
        if self._deposits >= DEPOSITS_WAITING:
            raise StoreError(path=self.store.path, detail=f"{DEPOSITS_WAITING} messages wait to be written")
        answered = asyncio.get_running_loop().create_future()
        self._asked.add(answered)
        self._deposits += 1
        try:
            self._committer.deposit(item, lambda answer: None if answered.done() else answered.set_result(answer))
            return raise_if_error(await answered)
        finally:
            self._asked.discard(answered)
            self._deposits -= 1

    async def known_step(self, waiting: Unresolved) -> Step[..., Any] | None:
        """See `Executions.known_step`."""
        worker = self._running()
        return await self.read(lambda: known_step(worker, waiting.row))  # type: ignore[no-any-return]

    async def resume(self, key: Key, message_id: str = "") -> Receipt:
        """See `Executions.resume`. It runs here."""
        receipt: Receipt = await self.read(lambda: self.store.resume(key, message_id))
        if receipt.status == "accepted":
            self._running().arrivals.woken([key])
        return receipt

    def code(self, name: str) -> Workflow[..., Any] | None:
        """See `Executions.code`."""
        return None if self._worker is None else self._worker.workflows.get(name)

    async def branch(self, request: BranchRequest, workflow: Workflow[..., Any] | None = None) -> Receipt:
        """See `Executions.branch`. It runs here."""
        self._running()
        receipt = await carry_out(self.read, self.store, request, self.with_code(workflow))
        if receipt.status == "accepted":
            self._running().begun_anew(request.key, request.run)
        return receipt

    async def answered(self, key: Key, update_id: str) -> Settled:
        """See `Executions.answered`."""
        return await self._callers.wait(self.store, key, update_id)

    async def run_query(self, query: Query) -> Payload:
        """See `Executions.run_query`."""
        self._running()
        return await self._queries.answer(query)

    async def figures(self) -> Figures:
        """What this engine counts of itself: see `Figures`."""
        worker, meter = self._running(), self._committer.meter
        return Figures(
            worker=self.environment.worker_name(),
            uptime_ms=self.environment.monotonic_ms() - self._began_ms,
            queued=self._committer.depth(),
            latencies=tuple(meter.latencies),
            **worker.gauges(),
            **meter.counters(),
        )

    async def closed(self, key: Key) -> ev.AnyEvent | None:
        """See `Executions.closed`. The event is at hand if it ends in this engine."""
        pause_s = SHORT_PAUSE_S
        while True:
            waiter: asyncio.Future[ev.AnyEvent | None] = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(key, []).append(waiter)
            try:
                if key in self._running().drivers:
                    event = await waiter
                    if event is not None:
                        return event
                    await asyncio.sleep(pause_s)  # stalled, and about to be written as such
                    continue
                if await self.read(lambda: is_over(self.store, key)):
                    return None
                # Evicted, or a stall that is not written yet: look again now and then.
                await asyncio.wait([waiter], timeout=pause_s)
                if waiter.done() and waiter.result() is not None:
                    return waiter.result()
                pause_s = min(pause_s * 2, TICK_S)
            finally:
                self._forget(key, waiter)

    def _wake(self, key: Key, event: ev.AnyEvent | None) -> None:
        for waiter in self._waiters.pop(key, []):
            if waiter.done():
                continue
            if self.failure is not None:
                waiter.set_exception(self.failure)
            else:
                waiter.set_result(event)


def at_least(least: int, value: int, option: str) -> None:
    """Raises `InvalidOption` for anything but a whole number of that size."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidOption(option=option, value=repr(value), expected=f"a whole number, {least} or more")
