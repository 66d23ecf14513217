"""The simulator for users' own workflows: a scenario, their steps in a world of theirs, their laws and Perdure's.

It is `simulation.Simulation` with other clients: everything else, trouble and laws, is as in Perdure's own tests.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from perdure.core import events as ev
from perdure.core.errors import InvalidOption, StoreError
from perdure.core.events import Payload
from perdure.core.identity import DEFAULT_NAMESPACE, Key
from perdure.core.retry import Seconds, to_ms
from perdure.runtime.executions import Executions
from perdure.runtime.figures import Figures
from perdure.runtime.known import named
from perdure.runtime.local import Query
from perdure.runtime.unresolved import Unresolved
from perdure.store.open import sealed
from perdure.store.protocol import Receipt, Start
from perdure.testing.clients import AnswerLost, SimPort, operate
from perdure.testing.laws import Evidence
from perdure.testing.ledger import Broken
from perdure.testing.report import told
from perdure.testing.simulation import FINGERPRINT, Simulation, profile_of
from perdure.testing.stand_ins import StandIns
from perdure.workflow.context import current_attempt
from perdure.workflow.definitions import Step, Workflow
from perdure.workflow.runnable import Runnable

W = TypeVar("W")

Stand: TypeAlias = Mapping[str | Step[..., Any], Any]
WITHIN_S = 300.0
COLLECT_EVERY = 50


class Seen(NamedTuple, Generic[W]):
    """What a law looks at when a simulation has ended."""

    world: W
    """The outside, as the steps have left it."""
    journals: dict[str, list[ev.Recorded]]
    """By execution id: the events of its last run."""


class Simulated(NamedTuple):
    """What `simulate` did."""

    seeds: int
    events: int
    """Written into journals, in all."""


class LawBroken(AssertionError):
    """A seed led to something that must not be: the message names it, the law, and the last events."""


class SimClient(SimPort, Executions):  # type: ignore[misc]  # the port says less of its store
    """A client whose way to the store is unreliable; it tries until it knows, as a good client does."""

    def __init__(self, *args: Any, code: Mapping[str, Workflow[..., Any]], **options: Any) -> None:
        super().__init__(*args, **options)
        self.store = sealed(self.store, None)
        self._code = code

    async def know(self, workflow: Workflow[..., Any]) -> None:
        """See `Executions.know`: all code is there from the beginning."""
        if self._code.get(workflow.name) is not workflow:
            raise InvalidOption(option="workflows", value=repr(sorted(self._code)), expected=f"{workflow.name!r}, too")

    async def begin(self, start: Start, workflow: Workflow[..., Any]) -> None:
        """See `Executions.begin`."""
        await self.know(workflow)
        await Executions.begin(self, start, workflow)

    async def known_step(self, waiting: Unresolved) -> Step[..., Any] | None:
        """See `Executions.known_step`."""
        return await SimPort.known_step(self, waiting)

    async def figures(self) -> Figures | None:
        """None: there are several workers."""
        return None

    async def read(self, call: Callable[[], Any]) -> Any:
        """See `Executions.read`."""
        return await self._until_told(lambda: SimPort.read(self, call))

    async def resume(self, key: Key, message_id: str = "") -> Receipt:
        """See `Executions.resume`."""
        found: Receipt = await self._until_told(lambda: SimPort.resume(self, key, message_id))
        return found

    async def run_query(self, query: Query) -> Payload:
        """See `Executions.run_query`."""
        found: Payload = await self._until_told(lambda: SimPort.run_query(self, query))
        return found

    async def closed(self, key: Key) -> ev.AnyEvent | None:
        """See `Executions.closed`."""
        found: ev.AnyEvent | None = await self._until_told(lambda: SimPort.closed(self, key))
        return found

    async def _until_told(self, call: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            try:
                return await call()
            except (StoreError, AnswerLost, TimeoutError):
                await asyncio.sleep(0.05 + self.rng.random() * 0.3)


class ScenarioSimulation(Simulation):
    """One seed of a user's scenario."""

    def __init__(
        self,
        seed: int,
        scenario: Callable[[Executions, Any], Awaitable[Any]],
        code: Mapping[str, Workflow[..., Any]],
        outside: Any,
        stand_ins: StandIns,
        within_ms: int,
    ) -> None:
        super().__init__(seed, profile_of(seed)._replace(executions=0, signals=0, pauses=0, branches=0))
        self._code = dict(code)
        self._scenario = scenario
        self.outside = outside
        self._stand_ins = stand_ins
        self.liveness_ms = within_ms

    def stand_in(self, step: Any) -> Any:
        """What runs instead of a step: the same, or what the scenario gives; and the ledger is told."""
        chosen = self._stand_ins.instead_of(step)
        return chosen.replaced(_noted(chosen)) if type(chosen) is Step else chosen

    def _clients_begin(self) -> None:
        client = self._client("client", SimClient, code=self._code)
        self._clients.append(client.process.create_task(self._play(client)))
        port = self._port("client-operator")
        self._operator = port.process.create_task(operate(port, self.stalled))

    async def _play(self, client: SimClient) -> None:
        try:
            await self._scenario(client, self.outside)
        except InvalidOption as error:
            self.kernel.fail(error)
        except Exception as error:  # noqa: BLE001 - whatever it raises is the finding
            self.kernel.fail(Broken(f"the scenario {self._scenario.__name__}", f"{type(error).__name__}: {error}"))

    def _evidence(self) -> Evidence:
        for journal in self.ledger.journals.values():
            name = getattr(journal.events[0].event, "workflow", "") if journal.events else ""
            if name and name not in self._code:
                raise InvalidOption(option="workflows", value=repr(sorted(self._code)), expected=f"{name!r}, too")
        return Evidence(self.store, self.ledger, self._code, FINGERPRINT, DEFAULT_NAMESPACE, None)

    def seen(self) -> Seen[Any]:
        """For the laws."""
        return Seen(self.outside, {key.execution: each.events for (key, _), each in self.ledger.journals.items()})


def _noted(step: Step[..., Any]) -> Callable[..., Any]:
    """The step's function, which tells the ledger that it begins."""

    def note() -> None:
        process: Any = asyncio.get_running_loop()
        attempt: Any = current_attempt.get()
        process.world.began(process, attempt, repr(attempt.command.input))

    @functools.wraps(step.fn)
    async def waits(*args: Any, **kwargs: Any) -> Any:
        note()
        return await step.fn(*args, **kwargs)

    @functools.wraps(step.fn)
    def at_once(*args: Any, **kwargs: Any) -> Any:
        note()
        return step.fn(*args, **kwargs)

    return waits if step.is_async else at_once


def simulate(
    scenario: Callable[[Executions, W], Awaitable[Any]],
    *,
    workflows: Iterable[Runnable[..., Any]],
    world: Callable[[], W],
    steps: Callable[[W], Stand] | None = None,
    laws: Sequence[Callable[[Seen[W]], Any]] = (),
    seeds: int | Iterable[int] = 100,
    within: Seconds = WITHIN_S,
) -> Simulated:
    """Play a scenario in a simulated fleet, where workers die, freeze and have wrong clocks, and stores fail and fill.

    All of it is one thread on virtual time, and a seed decides all chance: the same seed gives the same story. First
    anything may fail; then nothing does any more, and all that was started must come to its end. Afterwards your laws
    are checked, and Perdure's own: nothing acknowledged is lost, no recorded step begins again, every journal replays.

    Steps run in the simulation: they may await `asyncio.sleep`, locks and the like, but no network, files or threads.
    Whatever needs those gets a stand-in, which acts on your `world` instead: an object of yours that no crash touches.

    Args:
        scenario: an `async def` that is given a client and the world: it starts, signals, awaits; it may assert. The
            client tries until it is told, whatever fails in between.
        workflows: all code there is, children too.
        world: makes a new one for each seed.
        steps: stand-ins for steps, given the world: as of `TestEngine`.
        laws: each is given what is left, `Seen(world, journals)`, and raises AssertionError if something does not hold.
        seeds: so many, from 0 on; or these.
        within: seconds or timedelta of virtual time within which all must have ended, once nothing fails any more.

    Returns:
        How much was simulated.

    Raises:
        LawBroken: the first seed that breaks a law; the message is what there is to see of it.
        InvalidOption: a workflow is missing.

    Example:
        class Bank:
            def __init__(self):
                self.charges = []

        async def pays(client, bank):
            handle = await client.start(pay, "ada", 100, id="pay-1")
            await handle.result()

        def charged_once(seen):
            assert len(seen.world.charges) == 1

        def test_nobody_pays_twice():
            simulate(pays, workflows=[pay], world=Bank, laws=[charged_once],
                     steps=lambda bank: {"charge": bank.charges.append})
    """
    code, within_ms = named(workflows), to_ms(within, "within")
    wanted = range(seeds) if isinstance(seeds, int) else seeds
    logger, events, done = logging.getLogger("perdure"), 0, 0
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)  # its troubles are wanted
    try:
        for seed in wanted:
            outside = world()
            stand_ins = StandIns(steps(outside) if steps is not None else {}, code.values())
            stand_ins.check()
            simulation = ScenarioSimulation(seed, scenario, code, outside, stand_ins, within_ms)
            _run(simulation, laws)
            events, done = events + simulation.ledger.events, done + 1
            if done % COLLECT_EVERY == 0:
                gc.collect()
    finally:
        logger.setLevel(level)
    return Simulated(done, events)


def _run(simulation: ScenarioSimulation, laws: Sequence[Callable[[Seen[Any]], Any]]) -> None:
    again = f"  simulate(..., seeds=[{simulation.seed}])"
    try:
        simulation.run()
        for law in laws:
            _check(law, simulation.seen())
    except InvalidOption:
        raise
    except Exception as error:
        raise LawBroken(told(simulation.seed, error, simulation, again)) from error


def _check(law: Callable[[Seen[Any]], Any], seen: Seen[Any]) -> None:
    try:
        law(seen)
    except AssertionError as error:
        detail = f"{error}".strip() or f"it does not hold for {seen.world!r:.300}"
        raise Broken(getattr(law, "__name__", repr(law)), detail) from error
