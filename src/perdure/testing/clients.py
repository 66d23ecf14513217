"""Outside clients of a simulation: they start, signal, cancel and terminate through the production handles.

Their way in is unreliable: straight into the store or through some worker, with answers that are late, lost or errors.
They try again with the same id until they are told, and what they were told goes into the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any

from perdure.core import events as ev
from perdure.core.errors import ExecutionNotFound, PerdureError, StoreError
from perdure.core.events import Payload
from perdure.core.identity import Key, derived_id
from perdure.runtime.branching import BranchRequest, Code, branch_request, carry_out
from perdure.runtime.description import Description
from perdure.runtime.handle import Handle, key_of, raise_if_error
from perdure.runtime.local import Query
from perdure.runtime.unresolved import Unresolved
from perdure.runtime.updates import Settled, look
from perdure.store.protocol import OPEN_STATUSES, Mail, Receipt, Start, Store, UnresolvedRow
from perdure.testing.bank import Bank
from perdure.testing.kernel import Process
from perdure.testing.ledger import Acknowledged, Ledger
from perdure.testing.worker import SimEnvironment, SimWorker
from perdure.workflow.definitions import Step, Workflow
from perdure.workflow.effects import Abandoned, Decision, DidNotHappen, Happened

PATIENCE_S = 2.0
SIGNALS = ("note", "other", "go", "aside")


class AnswerLost(Exception):
    """It may have been written, or not."""


class SimPort:
    """How a handle reaches the simulated store: a `runtime.handle.Port`."""

    def __init__(
        self,
        name: str,
        process: Process,
        *,
        store: Store,
        environment: SimEnvironment,
        rng: random.Random,
        ledger: Ledger,
        workers: Callable[[], list[SimWorker]],
    ) -> None:
        self.name = name
        self.process = process
        self.store = store
        self.rng = rng
        self.ledger = ledger
        self.environment = environment
        self._workers = workers

    def new_id(self) -> str:
        """From the seed."""
        return self.environment.new_id()

    async def read(self, call: Callable[[], Any]) -> Any:
        """After a while."""
        await asyncio.sleep(self.rng.random() * 0.01)
        return call()

    async def closed(self, key: Key) -> ev.AnyEvent | None:
        """Wait for the end."""
        while True:
            row = self.store.row(key)
            if row is None or row.closed_at_ms is not None:
                return None
            await asyncio.sleep(0.1)

    async def known_step(self, waiting: Unresolved) -> Step[..., Any] | None:  # noqa: ARG002 - the port's
        """Outside there is no code."""
        return None

    async def answered(self, key: Key, update_id: str) -> Settled:
        """Look at the store now and then."""
        while True:
            await asyncio.sleep(0.05 + self.rng.random() * 0.2)
            try:
                found = look(self.store, key, update_id)
            except StoreError:
                continue
            if found is not None:
                return found

    async def run_query(self, query: Query) -> Payload:
        """Of a worker, which need not own the execution."""
        while True:
            workers = self._workers()
            if workers:
                return await asyncio.wait_for(self._asked(self.rng.choice(workers), query), PATIENCE_S)
            await asyncio.sleep(0.1)

    async def _asked(self, host: SimWorker, query: Query) -> Payload:
        answered: asyncio.Future[Any] = self.process.create_future()

        async def ask() -> None:
            try:
                found: Any = await host.queries.answer(query)
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                found = error
            self.process.call_soon(lambda: None if answered.done() else answered.set_result(found))

        host.process.call_soon(lambda: host.process.create_task(ask()))
        answer = await answered
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    async def resume(self, key: Key, message_id: str = "") -> Receipt:
        """Straight into the store."""
        return self.store.resume(key, message_id)

    def with_code(self, workflow: Workflow[..., Any] | None) -> Code:  # noqa: ARG002 - the port's
        """Outside there is no code."""
        return lambda _: None

    async def branch(self, request: BranchRequest, workflow: Workflow[..., Any] | None = None) -> Receipt:
        """Straight into the store, however often that takes."""
        while True:
            try:
                return await carry_out(self.read, self.store, request, self.with_code(workflow))
            except (StoreError, AnswerLost):
                await asyncio.sleep(0.05 + self.rng.random() * 0.3)

    async def deposit(self, item: Start | Mail) -> Receipt:
        """Have it stored, however often that takes; then note that it was acknowledged."""
        sent = self.ledger.next()
        while True:
            try:
                receipt = await self._try(item)
            except (StoreError, AnswerLost, TimeoutError):
                await asyncio.sleep(0.05 + self.rng.random() * 0.3)
                continue
            if receipt.status == "accepted":
                self._acknowledged(sent, item)
            return receipt

    def _acknowledged(self, sent: int, item: Start | Mail) -> None:
        time_ms = self.process.kernel.now_ms
        if isinstance(item, Start):
            self.ledger.accepted_starts[item.key] = item.event.run
            self.ledger.note(time_ms, self.name, item.key.execution, f"start of {item.event.workflow} acknowledged")
        else:
            self.ledger.acknowledged.append(Acknowledged(sent, self.ledger.next(), self.name, item))
            what = f"{type(item.event).__name__} {item.message_id[:6]} acknowledged"
            self.ledger.note(time_ms, self.name, item.receiver.execution, what)

    async def _try(self, item: Start | Mail) -> Receipt:
        await asyncio.sleep(self.rng.random() * 0.01)
        workers = self._workers()
        if workers and self.rng.random() < 0.6:
            return await asyncio.wait_for(self._through(self.rng.choice(workers), item), PATIENCE_S)
        starts = [item] if isinstance(item, Start) else []
        mail = [item] if isinstance(item, Mail) else []
        return raise_if_error(self.store.deposit(starts, mail)[0])

    async def _through(self, host: SimWorker, item: Start | Mail) -> Receipt:
        answered: asyncio.Future[Any] = self.process.create_future()
        worker = host.worker
        assert worker is not None

        def tell(answer: Any) -> None:
            self.process.call_soon(lambda: None if answered.done() else answered.set_result(answer))

        def start() -> None:
            assert isinstance(item, Start)
            workflow = worker.workflows[item.event.workflow]
            if item.key in worker.drivers or worker.stopping:
                tell(None)
            else:
                worker.start(item, workflow).created = lambda *, free: tell(free)

        if isinstance(item, Mail) or self.rng.random() < 0.3:
            host.process.call_soon(worker.committer.deposit, item, tell)
        else:
            host.process.call_soon(start)
        answer = await answered
        if isinstance(answer, PerdureError):
            raise answer
        if isinstance(answer, Receipt):
            return answer
        if answer:
            return Receipt("accepted", created=True)
        row = self.store.row(item.key) if isinstance(item, Start) else None
        if row is None:
            raise AnswerLost
        assert isinstance(item, Start)
        return Receipt("accepted" if row.start_digest == item.digest else "exists", row)


async def bother(port: SimPort, keys: list[Key], times: int, longest_s: float, *, rude: bool) -> None:
    """Signal at random moments; the rude also cancel and terminate."""
    rng = port.rng
    for _ in range(times):
        await asyncio.sleep(rng.random() * longest_s)
        handle: Handle[Any] = Handle(port, rng.choice(keys), None)
        kind = rng.random()
        try:
            if kind < 0.85 or not rude:
                await handle.signal(rng.choice(SIGNALS), rng.randint(0, 9))
            elif kind < 0.97:
                await handle.cancel("a client wants it")
            else:
                await handle.terminate("a client insists")
        except PerdureError:
            pass  # not there yet, or closed: a client may well be told so


async def hold(port: SimPort, keys: list[Key], times: int, longest_s: float) -> None:
    """Pause at random moments, and resume a while later: each pause has its end."""
    for _ in range(times):
        await asyncio.sleep(port.rng.random() * longest_s)
        handle: Handle[Any] = Handle(port, port.rng.choice(keys), None)
        refused = False
        while True:
            try:
                await handle.pause("a client thinks about it")
            except PerdureError:
                refused = True
                await asyncio.sleep(0.2)  # not there yet; what is closed cannot be paused
                if await _row(handle) is None:
                    continue
            break
        await asyncio.sleep(port.rng.random() * longest_s)
        await _resume(handle)
        if refused:
            await _resume_whenever_paused(handle)


async def _row(handle: Handle[Any]) -> Description | None:
    while True:
        try:
            return await handle.describe()
        except ExecutionNotFound:
            return None
        except StoreError:
            await asyncio.sleep(0.2)


async def _resume_whenever_paused(handle: Handle[Any]) -> None:
    """Until it closes: a pause that was refused may lie with a frozen worker as well, and come after its end."""
    while (row := await _row(handle)) is not None and row.status in OPEN_STATUSES:
        if row.status == "paused":
            await _resume(handle)
        await asyncio.sleep(0.5)


async def _resume(handle: Handle[Any]) -> None:
    while True:
        try:
            await handle.resume()
        except (StoreError, AnswerLost):
            await asyncio.sleep(0.2)
        except PerdureError:
            return
        else:
            return


async def decide(port: SimPort, bank: Bank) -> None:
    """Settle what nobody knows: a person looks at the world, and says what is true. Some give up."""
    while True:
        await asyncio.sleep(0.2 + port.rng.random() * 0.4)
        with contextlib.suppress(PerdureError, AnswerLost):  # somebody was faster, or the store does not answer
            for row in await port.read(lambda: port.store.unresolved("default", "", None, 100)):
                handle: Handle[Any] = Handle(port, row.key, None)
                await handle.resolve(row.seq, _truth(port, bank, row), run=row.run)


async def reply(port: SimPort) -> None:
    """People who answer what is asked of anybody, sometimes wrongly, sometimes twice at once."""
    while True:
        await asyncio.sleep(0.1 + port.rng.random() * 0.3)
        with contextlib.suppress(PerdureError, AnswerLost):  # the store does not answer
            for row in await port.read(lambda: port.store.asks("default", "", "", 0, None, 100)):
                handle: Handle[Any] = Handle(port, row.key, None)
                values: list[Any] = [port.rng.randint(0, 9) for _ in range(port.rng.randint(0, 2))]
                if port.rng.random() < 0.1:
                    values.append("no number")
                await asyncio.gather(*(handle.answer(each, seq=row.seq) for each in values), return_exceptions=True)


def _truth(port: SimPort, bank: Bank, row: UnresolvedRow) -> Decision:
    key = derived_id("step", row.key.execution, row.run, row.seq)
    paid = bank.find(key, row.attempt)
    if paid is not None:
        return Happened(paid.value)
    if port.rng.random() < 0.2:
        return Abandoned()
    bank.void(f"{key}-{row.attempt}")
    return DidNotHappen()


async def go_back(port: SimPort, keys: list[Key], times: int, longest_s: float) -> None:
    """Fork or rewind at random moments, from random events; what cannot be is refused, and asked for no more."""
    for n in range(times):
        await asyncio.sleep(port.rng.random() * longest_s)
        source = port.rng.choice(keys)
        fork = key_of(port.store, source.namespace, f"{source.execution}-{port.name[-1]}{n}")
        key = fork if port.rng.random() < 0.5 else source
        try:
            row = port.store.row(source)
            at = port.rng.randint(2, max(2, row.position if row is not None else 0))
            run, code = port.new_id(), port.with_code(None)
            asked = await branch_request(
                port.read, port.store, source, key, run, at=at, replace=None, run=None, code=code
            )
            await port.branch(asked)
        except (PerdureError, AnswerLost):
            pass  # not there yet, or something is open there: a client may well be told so


async def operate(port: SimPort, stalled: list[Key]) -> None:
    """Resume what stalled because its worker died too often."""
    while True:
        await asyncio.sleep(0.5)
        while stalled:
            key = stalled.pop()
            try:
                await port.resume(key)
            except (StoreError, AnswerLost):
                stalled.append(key)
                break
