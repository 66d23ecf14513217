"""One simulation from one seed: workers, clients, a store and trouble; first a safety phase, then one without faults.

In the safety phase anything may fail; in the liveness phase nothing does, and everything must come to its end. Then the
laws are checked over all that was journaled and all that was seen outside.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from perdure.core.errors import PoisonedExecution, StoreError, StoreFull
from perdure.core.identity import DEFAULT_NAMESPACE, Key
from perdure.runtime.handle import key_of
from perdure.runtime.starting import make_start
from perdure.runtime.worker import Limits, Worker
from perdure.store.memory import MemoryStore
from perdure.store.protocol import OPEN_STATUSES, Batch, Filter, Store
from perdure.testing.child_laws import children_are_seen_to
from perdure.testing.clients import AnswerLost, SimPort, bother, decide, go_back, hold, operate, reply
from perdure.testing.deploys import renewed_before
from perdure.testing.faults import FaultyStore, Plan
from perdure.testing.kernel import Crash, Kernel, Process
from perdure.testing.laws import Evidence, check_all, order_within_a_commit
from perdure.testing.ledger import Broken, Ledger
from perdure.testing.programs import generate, program
from perdure.testing.removal import nothing_is_left_of_what_is_removed
from perdure.testing.replaying import AlwaysReplay
from perdure.testing.shapes import HELPERS, RUNS, SHAPES
from perdure.testing.worker import Pace, SimEnvironment, SimWorker
from perdure.testing.world import World
from perdure.workflow import ordered
from perdure.workflow.definitions import Workflow

P = TypeVar("P", bound=SimPort)

EPOCH_MS = 1_800_000_000_000
LIVENESS_MS = 300_000
FINGERPRINT = "fingerprint"
FREEZE_AFTER_COMMIT = 0.02  # the moment at which a worker knows least of what became of it
WRITES = frozenset({"commit", "deposit", "branch", "deliver", "open_session", "renew", "resume"})
WORKFLOWS: dict[str, Workflow[..., Any]] = {
    workflow.name: workflow for workflow in [*(shape.workflow for shape in SHAPES.values()), *HELPERS, program]
}
BEFORE: dict[str, Workflow[..., Any]] = WORKFLOWS | {renewed_before.name: renewed_before}
"""The code until the deploy, which half of all seeds have."""
POISONED = "P0108"


class Profile(NamedTuple):
    """What one simulation is like."""

    workers: int = 2
    executions: int = 4
    shapes: tuple[str, ...] = ()  # none: any
    direct: bool = True
    shards: int = 4
    lease_ms: int = 3_000
    safety_ms: int = 8_000
    error: float = 0.0  # of a store call, before anything is written
    crash_before: float = 0.0  # of a commit
    crash_after: float = 0.0
    trouble_s: float = 1.0  # mean pause between the troubles below; 0: none
    troubles: tuple[str, ...] = ("kill", "freeze", "skew", "jump", "full", "repeat")
    resting: int = 100
    signals: int = 6
    rude: bool = True  # clients cancel and terminate, too
    pauses: int = 0  # and pause, and resume
    branches: int = 0  # and fork, and rewind
    tick_s: float = 1.0
    always_replay: bool = False  # whatever rests or closes, besides the laws at the end
    all_prefixes: bool = False


def profile_of(seed: int, shape: str = "") -> Profile:
    """Every seed its own kind of trouble."""
    rng = random.Random(f"profile {seed}")  # noqa: S311 - reproducible on purpose
    calm = rng.random() < 0.15
    troubles = [name for name in Profile().troubles if rng.random() < 0.6]
    return Profile(
        workers=rng.choice((1, 2, 2, 3)),
        executions=rng.randint(1, 4),
        shapes=(shape,) if shape else (),
        direct=rng.random() < 0.6,
        shards=rng.choice((1, 4, 8)),
        lease_ms=rng.choice((1_500, 3_000)),
        safety_ms=rng.choice((2_000, 4_000, 8_000)),
        error=0.0 if calm else rng.choice((0.0, 0.02, 0.1)),
        crash_before=0.0 if calm else rng.choice((0.0, 0.02, 0.06)),
        crash_after=0.0 if calm else rng.choice((0.0, 0.02, 0.06)),
        trouble_s=0.0 if calm or not troubles else rng.choice((0.3, 1.0, 2.0)),
        troubles=tuple(troubles),
        resting=rng.choice((0, 1, 100)),
        signals=rng.randint(0, 8),
        always_replay=rng.random() < 0.1,
        all_prefixes=rng.random() < 0.05,
        pauses=random.Random(f"pauses {seed}").choice((0, 0, 1, 3)),  # noqa: S311 - reproducible on purpose
        branches=0 if shape else random.Random(f"branches {seed}").choice((0, 0, 0, 2, 5)),  # noqa: S311 - likewise
    )


class RandomPlan:
    """Faults at random while they are on."""

    def __init__(self, rng: random.Random, profile: Profile) -> None:
        self.on = True
        self.full = False
        self._rng = rng
        self._profile = profile

    def before(self, process: str, call: str) -> None:  # noqa: ARG002 - the port's
        """See `Plan.before`."""
        if not self.on:
            return
        if self.full and call in WRITES:
            raise StoreFull(path="memory", detail="simulated")
        if self._rng.random() < self._profile.error:
            raise StoreError(path="memory", detail="simulated")
        if call == "commit" and self._rng.random() < self._profile.crash_before:
            raise Crash

    def after(self, process: str, call: str) -> None:
        """See `Plan.after`."""
        if self.on and call in WRITES and self._rng.random() < self._profile.crash_after:
            if process.startswith("client"):
                raise AnswerLost
            raise Crash


def bare(store: Store) -> Store:
    """The store as it is."""
    return store


class Simulation:
    """All of it.

    Args:
        seed: of all chance in it.
        profile: what kinds of trouble there are.
        plan: what becomes of each call of the store; by default chance, as the profile says.
        wrap: how processes use the store, for one that encrypts.
    """

    def __init__(
        self, seed: int, profile: Profile, plan: Plan | None = None, *, wrap: Callable[[Store], Store] = bare
    ) -> None:
        ordered.install()
        self.seed = seed
        self.profile = profile
        self.rng = random.Random(seed)  # noqa: S311 - reproducible on purpose
        self.kernel = Kernel()
        self.db_skew_ms = 0
        self.memory = MemoryStore(
            shards=profile.shards, direct=profile.direct, lease_ms=profile.lease_ms, clock=self.db_now_ms
        )
        self._wrap = wrap
        self.store = wrap(self.memory)
        self.ledger = Ledger(self.store)
        self.world = World(random.Random(f"world {seed}"), self.ledger)  # noqa: S311 - see above
        self.pace = Pace(self.rng, tick_s=profile.tick_s, inline=self.rng.choice((0.0, 0.5)))
        self.faults = RandomPlan(random.Random(f"faults {seed}"), profile)  # noqa: S311 - see above
        self.plan: Plan = plan or self.faults
        self.workers: list[SimWorker] = []
        self.god = Process(self.kernel, "god")
        self.keys: list[Key] = []
        self.stalled: list[Key] = []
        self.finished = False
        self.liveness_ms = LIVENESS_MS
        self._chance = random.Random(f"deploys {seed}")  # noqa: S311 - reproducible on purpose
        self._shapes: set[str] = set()  # that executions have
        self._by_old_code: dict[tuple[Key, str], int] = {}  # events of each journal at the deploy
        self._code = BEFORE if self._chance.random() < 0.6 else WORKFLOWS
        self._clients: list[asyncio.Task[None]] = []
        self._incarnations = 0
        self._outside = [self.god]

    def db_now_ms(self) -> int:
        """The database's clock."""
        return EPOCH_MS + self.kernel.now_ms + self.db_skew_ms

    # --- workers ---

    def connect(self, name: str) -> FaultyStore:
        """A connection of a process."""
        store = self._wrap(self.memory.connect())
        return FaultyStore(
            store,
            name,
            self.plan,
            lambda batch: self._committed(name, batch),
            lambda branch: self.ledger.branched(name, self.kernel.now_ms, branch),
        )

    def _committed(self, name: str, batch: Batch) -> None:
        order_within_a_commit(batch)
        self.ledger.committed(name, self.kernel.now_ms, batch)
        children_are_seen_to(self.ledger.journals[batch.key, batch.run], batch)
        if "freeze" in self.profile.troubles and self.faults.on and self.rng.random() < FREEZE_AFTER_COMMIT:
            for worker in self.awake():
                if worker.process.name == name:
                    self._freeze_one(worker.process)

    def boot(self) -> None:
        """A new worker process."""
        self._incarnations += 1
        process = Process(self.kernel, f"worker-{self._incarnations}")
        process.world = self.world
        store = self.connect(process.name)
        worker = SimWorker(
            process,
            self.pace,
            store=store,
            environment=SimEnvironment(process, self.rng, EPOCH_MS),
            workflows=self._code.values(),
            limits=Limits(resting=self.profile.resting),
            stand_in=self.stand_in,
            on_lost=lambda worker: worker.process.kill(),
            on_stalled=self._stalled,
        )
        self.workers.append(worker)
        died = process.at_death

        def at_death() -> None:
            died()
            self.note(process.name, "dies")
            self.workers.remove(worker)
            if self.rng.random() < 0.5:
                store.close()  # the kernel frees its lock at once; otherwise its lease must expire
            self.god.call_later(0.05 + self.rng.random(), self.boot)

        process.at_death = at_death

    def _stalled(self, key: Key, error: Exception) -> None:
        self.note("", f"{key.execution} stalls")
        if POISONED in str(error):
            self.stalled.append(key)
        else:
            self.kernel.fail(Broken("nothing stalls", str(error), key))

    def awake(self) -> list[SimWorker]:
        """Workers that answer."""
        return [each for each in self.workers if each.worker is not None and not each.process.frozen]

    def note(self, process: str, what: str) -> None:
        """For the table of last events."""
        self.ledger.note(self.kernel.now_ms, process, "", what)

    # --- clients ---

    def stand_in(self, step: Any) -> Any:
        """What runs instead of a step."""
        return step

    def _port(self, name: str) -> SimPort:
        return self._client(name, SimPort)

    def _client(self, name: str, kind: type[P], **options: Any) -> P:
        process = Process(self.kernel, name)
        self._outside.append(process)
        environment = SimEnvironment(process, self.rng, EPOCH_MS)
        return kind(
            name,
            process,
            **options,
            store=self.connect(name),
            environment=environment,
            rng=self.rng,
            ledger=self.ledger,
            workers=self.awake,
        )

    async def _begin(self, port: SimPort, key: Key, workflow: Workflow[..., Any], arguments: tuple[Any, ...]) -> None:
        await asyncio.sleep(self.rng.random() * self.profile.safety_ms / 4000)
        start = make_start(workflow, arguments, {}, key, port.environment)
        await port.deposit(start)

    def _clients_begin(self) -> None:
        names = self.profile.shapes or (*(name for name in SHAPES if name not in RUNS), *["program"] * 12)
        later = random.Random(f"runs {self.seed}")  # noqa: S311 - reproducible on purpose
        for i in range(self.profile.executions):
            key = key_of(self.store, DEFAULT_NAMESPACE, f"x{i}")
            self.keys.append(key)
            name = self.rng.choice(names)
            if self.profile.branches and not self.profile.shapes and later.random() < 0.3:
                name = later.choice(RUNS)
            self._shapes.add(name)
            workflow, arguments = self._what(name)
            port = self._port(f"client-{i}")
            self._clients.append(port.process.create_task(self._begin(port, key, workflow, arguments)))
        for i in range(2):
            port = self._port(f"client-s{i}")
            visit = bother(
                port, self.keys, self.profile.signals // 2, self.profile.safety_ms / 4000, rude=self.profile.rude
            )
            self._clients.append(port.process.create_task(visit))
        port = self._port("client-holder")
        holding = hold(port, self.keys, self.profile.pauses, self.profile.safety_ms / 4000)
        self._clients.append(port.process.create_task(holding))
        if self.profile.branches:
            port = self._port("client-b0")
            back = go_back(port, self.keys, self.profile.branches, self.profile.safety_ms / 2000)
            self._clients.append(port.process.create_task(back))
        port = self._port("client-operator")
        self._operator = port.process.create_task(operate(port, self.stalled))
        self._people_begin(names)

    def _people_begin(self, names: Sequence[str]) -> None:
        port = self._port("client-decider")
        self._decider = port.process.create_task(decide(port, self.world.bank))
        if "asks" in names:
            port = self._port("client-replier")
            self._replier = port.process.create_task(reply(port))

    def _what(self, name: str) -> tuple[Workflow[..., Any], tuple[Any, ...]]:
        if name == "program":
            return program, (generate(self.rng),)
        shape = SHAPES[name]
        return shape.workflow, shape.arguments(self.rng)

    # --- trouble ---

    async def _trouble(self) -> None:
        mean_s = self.profile.trouble_s
        while mean_s:
            await asyncio.sleep(self.rng.random() * 2 * mean_s)
            getattr(self, f"_{self.rng.choice(self.profile.troubles)}")()

    def _kill(self) -> None:
        if self.workers:
            self.rng.choice(self.workers).process.kill()

    def _deploy(self) -> None:
        """All workers of the old code die; those that come know the new one."""
        if self._code is not BEFORE:
            return
        self.note("", "new code")
        self._code = WORKFLOWS
        self._by_old_code = {name: len(journal.events) for name, journal in self.ledger.journals.items()}
        if renewed_before.name in self._shapes:  # others' code is the same
            self.ledger.code_changed()
            for worker in list(self.workers):
                worker.process.kill()

    def _freeze(self) -> None:
        awake = self.awake()
        if awake:
            self._freeze_one(self.rng.choice(awake).process)

    def _freeze_one(self, process: Process) -> None:
        process.freeze()
        self.note(process.name, "freezes")
        self.god.call_later(self.rng.random() * 3 * self.profile.lease_ms / 1000, self._thaw, process)

    def _thaw(self, process: Process) -> None:
        if process.frozen:
            self.note(process.name, "wakes up")
            process.thaw()

    def _skew(self) -> None:
        if self.workers:
            worker = self.rng.choice(self.workers)
            worker.environment.skew_ms = self.rng.randint(-4_000, 4_000)
            self.note(worker.process.name, f"clock is off by {worker.environment.skew_ms} ms")

    def _jump(self) -> None:
        # A lease rests on it that the database's clock does not jump by more than the third that a worker keeps back.
        furthest_ms = self.profile.lease_ms // 6 if "freeze" in self.profile.troubles else 3_000
        self.db_skew_ms = self.rng.randint(-furthest_ms, furthest_ms)
        self.note("database", f"clock is off by {self.db_skew_ms} ms")

    def _full(self) -> None:
        self.faults.full = True
        self.note("database", "full")
        self.god.call_later(self.rng.random() * 2, self._free)

    def _free(self) -> None:
        self.faults.full = False

    def _repeat(self) -> None:
        """A message that was acknowledged arrives once more."""
        if self.ledger.acknowledged:
            self.store.deposit([], [self.rng.choice(self.ledger.acknowledged).mail])

    # --- the phases ---

    def run(self) -> None:
        """Raises `Broken`, or whatever else went wrong."""
        gc.disable()
        observer, self._observer = Worker.observer, AlwaysReplay(self.store)
        Worker.observer = self._observer if self.profile.always_replay else None
        try:
            self._run()
        finally:
            Worker.observer = observer
            for worker in list(self.workers):
                worker.process.at_death = worker.forget
                worker.process.kill()
            for process in self._outside:  # else what never began warns when it is collected
                process.kill()
            gc.enable()

    def _run(self) -> None:
        for _ in range(self.profile.workers):
            self.boot()
        self.god.call_later(self._chance.random() * self.profile.safety_ms / 2000, self._deploy)
        self._clients_begin()
        trouble = self.god.create_task(self._trouble())
        self._watch()
        self.kernel.run(lambda: self.finished, self.profile.safety_ms)
        trouble.cancel()
        self._calm()
        if not self.kernel.run(lambda: self.finished, self.profile.safety_ms + self.liveness_ms):
            check_all(self._evidence(), {})
            raise Broken("everything terminates", "the clients did not come to their end")
        if self._observer.problems:
            raise Broken("replay is a fixed point", self._observer.problems[0])
        check_all(self._evidence(), self._prefixes())
        nothing_is_left_of_what_is_removed(self.memory)

    def _calm(self) -> None:
        self.note("", "no more faults")
        self.faults.on = False
        for worker in list(self.workers):
            self._thaw(worker.process)

    def _resume_poisoned(self) -> None:
        """Whoever was killed by chance each time it ran alone is resumed, as a person would."""
        for row in self.store.find(Filter(DEFAULT_NAMESPACE, ("stalled",)), None, 1_000):
            if row.waits_for == PoisonedExecution.__name__:
                self.store.resume(row.key)

    def _resume_copies(self) -> None:
        """A pause that was copied is nobody's: whoever forked or rewound ends it."""
        for row in self.store.find(Filter(DEFAULT_NAMESPACE, ("paused",)), None, 1_000):
            if self.store.runs(row.key, None, 1)[0].origin:
                self.store.resume(row.key, f"resume-{row.run}")

    def _watch(self) -> None:
        if not self.faults.on:
            self._resume_poisoned()
            self._resume_copies()
        rows = self.store.find(Filter(DEFAULT_NAMESPACE, OPEN_STATUSES), None, 1)
        underway = any(self.memory._world.outbox.values())  # noqa: SLF001 - the port does not show it
        self.finished = not rows and not underway and all(task.done() for task in self._clients)
        self.god.call_later(0.2, self._watch)

    def _evidence(self) -> Evidence:
        return Evidence(self.store, self.ledger, self._code, FINGERPRINT, DEFAULT_NAMESPACE, self.world.bank)

    def _prefixes(self) -> dict[tuple[Key, str], list[int]]:
        """Two prefixes of each journal, or all: but for those that other code was fed with."""

        def some(first: int, length: int) -> list[int]:
            everything = list(range(first + 1, length + 1))
            return everything if self.profile.all_prefixes else self.rng.sample(everything, min(2, len(everything)))

        journals = self.ledger.journals
        if renewed_before.name not in self._shapes:
            return {name: some(0, len(each.events)) for name, each in journals.items()}
        before = {name: max(each.copied, self._by_old_code.get(name, 0)) for name, each in journals.items()}
        return {name: some(before[name], len(each.events)) for name, each in journals.items()}


def simulate(seed: int, shape: str = "") -> Simulation:
    """Run one seed; returns what it left. Raises as `Simulation.run`, with the simulation as the error's attribute."""
    simulation = Simulation(seed, profile_of(seed, shape))
    try:
        simulation.run()
    except Exception as error:
        error.simulation = simulation  # type: ignore[attr-defined]
        raise
    return simulation
