"""A small world for the rules: a memory store, workers of it on virtual time, and hands to do single things by."""

from __future__ import annotations

import random
from typing import Any

from perdure.core import events as ev
from perdure.core.identity import DEFAULT_NAMESPACE
from perdure.runtime.environment import SystemEnvironment
from perdure.runtime.handle import key_of
from perdure.runtime.starting import make_start
from perdure.runtime.worker import Limits
from perdure.store.memory import MemoryStore
from perdure.store.protocol import Mail
from perdure.testing.faults import FaultyStore
from perdure.testing.kernel import Kernel, Process
from perdure.testing.ledger import Ledger
from perdure.testing.worker import Pace, SimEnvironment, SimWorker
from perdure.testing.world import World
from perdure.workflow import ordered
from perdure.workflow.context import signal_payload
from perdure.workflow.definitions import Workflow

EPOCH_MS = 1_800_000_000_000


class NoFaults:
    """Nothing fails, unless a test says so."""

    def before(self, process: str, call: str) -> None: ...
    def after(self, process: str, call: str) -> None: ...


class Small:
    """Some workers of one store."""

    def __init__(
        self, *workflows: Workflow[..., Any], direct: bool = True, shards: int = 4, resting: int = 100
    ) -> None:
        ordered.install()
        self.kernel = Kernel()
        self.store = MemoryStore(
            shards=shards, direct=direct, lease_ms=3_000, clock=lambda: EPOCH_MS + self.kernel.now_ms
        )
        self.ledger = Ledger(self.store)
        self.rng = random.Random(1)
        self.workflows = workflows
        self.resting = resting
        self.plan: Any = NoFaults()
        self.batches: list[Any] = []
        self.stalls: list[str] = []
        self.workers: list[SimWorker] = []

    def key(self, name: str) -> Any:
        return key_of(self.store, DEFAULT_NAMESPACE, name)

    def _committed(self, name: str, batch: Any) -> None:
        self.batches.append(batch)
        self.ledger.committed(name, self.kernel.now_ms, batch)

    def worker(self, *, skew_ms: int = 0) -> SimWorker:
        process = Process(self.kernel, f"w{len(self.workers)}")
        process.world = World(self.rng, self.ledger)  # type: ignore[attr-defined]
        store = FaultyStore(
            self.store.connect(), process.name, self.plan, lambda batch: self._committed(process.name, batch)
        )
        environment = SimEnvironment(process, self.rng, EPOCH_MS)
        environment.skew_ms = skew_ms
        worker = SimWorker(
            process,
            Pace(self.rng, longest_ms=2, inline=0.0),
            store=store,
            environment=environment,
            workflows=self.workflows,
            limits=Limits(resting=self.resting),
            on_lost=lambda lost: lost.process.kill(),
            on_stalled=lambda _, error: self.stalls.append(str(error)),
        )
        self.workers.append(worker)
        return worker

    def die(self, worker: SimWorker, *, lock_freed: bool = True) -> None:
        worker.process.kill()
        if lock_freed:
            worker.store.close()

    def start(self, workflow: Workflow[..., Any], *arguments: Any, name: str = "x") -> Any:
        key = self.key(name)
        self.store.deposit([make_start(workflow, arguments, {}, key, SystemEnvironment())])
        return key

    def signal(self, name: str, signal: str, value: Any = 1, *, message_id: str = "", **fields: Any) -> Any:
        message_id = message_id or f"m{self.rng.random()}"
        event = ev.SignalReceived(message_id, signal, signal_payload(signal, value), **fields)
        mail = Mail(receiver=self.key(name), message_id=message_id, event=event)
        return self.store.deposit([], [mail])[0]

    def run(self, seconds: float) -> None:
        """Let that much time pass."""
        self.kernel.run(lambda: False, self.kernel.now_ms + round(seconds * 1000))

    def journal(self, name: str = "x") -> list[ev.Recorded]:
        key = self.key(name)
        row = self.store.row(key)
        return [] if row is None else self.store.load(key, row.run, 0, 10_000)

    def kinds(self, name: str = "x") -> list[str]:
        return [type(recorded.event).__name__ for recorded in self.journal(name)]

    def row(self, name: str = "x") -> Any:
        return self.store.row(self.key(name))

    def result(self, name: str = "x") -> Any:
        """What it returned; or its last event."""
        last = self.journal(name)[-1].event
        if not isinstance(last, ev.ExecutionCompleted):
            return last
        workflow = next(each for each in self.workflows if each.name == self.row(name).workflow)
        return workflow.result.decode(last.result, "the result")
