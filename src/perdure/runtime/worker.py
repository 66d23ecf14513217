"""A worker: the executions that it has in memory, how they are written, rest, and leave; `Arrivals` brings them in.

All of it runs on the engine's loop. What blocks (loading, committing, renewing the lease) goes through the ports
`Background` and `Committer`, so that the simulator runs this very code in one thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from perdure.core import events as ev
from perdure.core.errors import CorruptJournal, JournalFromTheFuture, PerdureError
from perdure.core.identity import Key
from perdure.runtime.alarm import Alarm
from perdure.runtime.arrivals import Arrivals
from perdure.runtime.background import TRY_AGAIN_S, Background
from perdure.runtime.collecting import Collector
from perdure.runtime.committer import Committer, Done
from perdure.runtime.driver import Driver
from perdure.runtime.environment import Environment
from perdure.runtime.lease import NO_LEASE, Holding
from perdure.runtime.loading import letters_for, recorded_here
from perdure.runtime.stalls import Stalls
from perdure.runtime.steps import StepRunner
from perdure.store.protocol import Batch, Lease, Session, Start, Store, Succession
from perdure.workflow.definitions import Workflow

log = logging.getLogger("perdure")

PARK_WORTH_MS = 1_000
DELIVERIES_PER_TICK = 1_000


class Limits(NamedTuple):
    """Bounds of one worker."""

    active: int = 10_000  # executions with something to do, in memory
    resting: int = 2_000  # executions that wait, kept in memory to save a replay
    resting_bytes: int = 256 * 2**20


class Worker:
    """Runs executions of the workflows it knows, for one session of one store.

    `observer`, if set, is called with every execution that comes to rest or closes, before it may leave memory.
    """

    observer: Callable[[Worker, Driver], None] | None = None

    def __init__(
        self,
        *,
        store: Store,
        session: Session,
        environment: Environment,
        background: Background,
        workflows: Iterable[Workflow[..., Any]],
        limits: Limits,
    ) -> None:
        self.store = store
        self.private: bool = getattr(store, "private", False)
        self.session = session
        self.environment = environment
        self.now_ms = environment.now_ms  # the database's time as this worker estimates it
        self.background = background
        self.fingerprint = session.fingerprint
        self.shards = store.shards
        self.limits = limits
        self.workflows = {workflow.name: workflow for workflow in workflows}
        self.drivers: dict[Key, Driver] = {}
        self.resting: OrderedDict[Key, int] = OrderedDict()  # in order of rest, with what each takes
        self.on_closed: Callable[[Key, str, ev.AnyEvent], None] = lambda *_: None
        self.on_stalled: Callable[[Key, PerdureError], None] = lambda *_: None
        self.on_answered: Callable[[Key, Batch], None] = lambda *_: None
        self.on_arrived: Callable[[], None] = lambda: None
        self.on_moved: Callable[[Key], None] = lambda *_: None  # not in memory any more: who waits for it looks again
        self.holding = Holding(environment.monotonic_ms)
        self._lapse: asyncio.TimerHandle | None = None
        self.changes: int | None = None  # of the store, when it was last looked at
        self.committer: Committer
        self.steps: StepRunner
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(self._loop, self.now_ms, self._ring)
        self._turns: list[Driver] = []
        self._turning = False
        self._outgoing: list[tuple[Batch, Done]] = []
        self._resting_bytes = 0
        self._stalls = Stalls(self)
        self._fetching: dict[Driver, bool] = {}  # whose inbox is being read: whether to read it again after that
        self.arrivals = Arrivals(self)
        self.collector = Collector(store, self.in_background, environment)
        self._room: OrderedDict[asyncio.Future[None], None] = OrderedDict()  # starts that wait for it, in order
        self.stopping = False  # nothing new comes in
        self._stopped = False  # everything has left

    # --- the driver's host ---

    def soon(self, driver: Driver) -> None:
        """Give it its turn at the end of what is ready now; all in one go, so that what they write joins one group."""
        self._turns.append(driver)
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._take_turns)

    def _take_turns(self) -> None:
        turns, self._turns = self._turns, []
        for driver in turns:
            driver.turn()
        self._turning = False
        self._hand_over()
        if self._turns:
            self._turning = True
            self._loop.call_soon(self._take_turns)

    def commit(self, batch: Batch, done: Done) -> None:
        """Into the next group, with whatever else this pass of the loop wants written."""
        self._outgoing.append((batch, done))
        if len(self._outgoing) == 1 and not self._turning:
            self._turning = True
            self._loop.call_soon(self._take_turns)

    def _hand_over(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if outgoing:
            self.committer.submit(outgoing)

    def lost_soon(self, driver: Driver) -> None:
        """A step found that it may not begin here any more: its execution leaves memory."""
        self._loop.call_soon(self.lost, driver)

    def know(self, workflow: Workflow[..., Any]) -> None:
        """A child's workflow: its executions are ours to run from now on."""
        self.workflows.setdefault(workflow.name, workflow)

    def wake_at(self, driver: Driver, due_ms: int | None) -> None:
        """Call its `timer_due` then."""
        if self.drivers.get(driver.key) is driver:
            self._alarm.set(driver.key, due_ms)  # by key: the alarm must not keep who left in memory

    def in_background(self, call: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Have it called off the loop. Once this worker has stopped, nothing begins any more and no answer is heard."""
        if not self._stopped:
            self.background.run(
                lambda: None if self._stopped else call(), lambda answer: None if self._stopped else done(answer)
            )

    def fetch_letters(self, driver: Driver) -> None:
        """Read its inbox: of all that ask while it is read, once more afterwards."""
        if driver in self._fetching:
            self._fetching[driver] = True
            return
        self._fetching[driver] = False
        driver.pending.inbox_is_read()

        def fetched(letters: Any) -> None:
            again = self._fetching.pop(driver)
            if isinstance(letters, CorruptJournal | JournalFromTheFuture) and not driver.dead:
                self.stalled(driver, letters)
            elif isinstance(letters, Exception):
                if not self.stopping:
                    log.warning("cannot read the inbox of %s, trying again: %s", driver.key.execution, letters)
                    self._loop.call_later(TRY_AGAIN_S, self.fetch_letters, driver)
            elif driver.dead:
                if letters or again:
                    self.arrivals.woken([driver.key])  # it was evicted meanwhile
            else:
                driver.letters_arrived(letters)
                if again:
                    self.fetch_letters(driver)

        self.in_background(lambda: letters_for(self.store, driver), fetched)

    def rested(self, driver: Driver) -> None:
        """It waits: remember that in its row, and make it a candidate for eviction."""
        if self.observer is not None:
            self.observer(self, driver)
        key = driver.key
        wake_at_ms = driver.next_wake_ms()
        if wake_at_ms is None or wake_at_ms > self.now_ms() + PARK_WORTH_MS:
            paused = driver.paused
            self.committer.advise(driver.park("paused" if paused else "parked", waits_for=driver.execution.waits_for()))
            self.rouse(driver)
            self.resting[key] = driver.size
            self._resting_bytes += driver.size
            self._evict_some()
        self.arrivals.suspects.passed(key)
        self.made_room()

    def closed(self, driver: Driver, event: ev.AnyEvent) -> None:
        """Its journal has ended."""
        if self.observer is not None and driver.broken is None:
            self.observer(self, driver)
        self.drop(driver)
        if isinstance(event, ev.ContinuedAsNew):
            self._follow(driver, driver.then)
        else:
            self.on_closed(driver.key, driver.run, event)

    def _follow(self, driver: Driver, then: Succession | None) -> None:
        """The next run goes on at once; its letters are read when the store says that there are some."""
        key, workflow = driver.key, self.workflows.get(then.workflow) if then is not None else None
        if then is None or workflow is None or self.stopping:
            self.on_moved(key)
            self.arrivals.woken([key])
            return
        following = self.drivers[key] = Driver(self, key, then.run, workflow)
        following.replay(recorded_here(then.events, 0, self.fingerprint), ())

    def stalled(self, driver: Driver, error: PerdureError) -> None:
        """Its code failed."""
        self._stalls.begin(driver, error)

    def begun_anew(self, key: Key, run: str) -> None:
        """Another run has taken the place of the one that there was, if there was one."""
        driver = self.drivers.get(key)
        if self.arrivals.outdated(key):
            return
        if driver is not None and driver.is_new:
            return  # a start that stands in its place: told that the id is taken, it makes room
        if driver is not None and driver.run != run:
            self.reload(driver)
        else:
            self.arrivals.woken([key])

    def lost(self, driver: Driver) -> None:
        """Somebody else has written to its journal, or may have: forget it, and look at the store again."""
        if driver.dead:
            return
        log.warning("execution %s moved on without this worker: dropped from memory", driver.key.execution)
        self.reload(driver)

    def refused(self, driver: Driver) -> None:
        """Its id was taken: it never existed. Meanwhile it stood in the place of the one that has the id."""
        self.reload(driver)

    def left(self, key: Key) -> None:
        """The last commit of an execution that was dropped has ended."""
        self.arrivals.left(key)

    def reload(self, driver: Driver) -> None:
        """Forget what is in memory, and look at the store again."""
        self.drop(driver)
        self.on_moved(driver.key)
        self.arrivals.woken([driver.key])

    # --- beginning ---

    def start(self, start: Start, workflow: Workflow[..., Any]) -> Driver:
        """Begin a new execution; its first commit tells whether the id was free."""
        driver = Driver(self, start.key, start.event.run, workflow, create=start)
        self.drivers[start.key] = driver
        self.on_arrived()
        driver.poke()
        return driver

    @property
    def active(self) -> int:
        """Executions in memory that have something to do."""
        return len(self.drivers) - len(self.resting) + len(self.arrivals)

    def gauges(self) -> dict[str, int]:
        """What `Figures` tells of it."""
        gauges = {"active": self.active, "resting": len(self.resting), "loading": len(self.arrivals)}
        return gauges | {"running": len(self.steps), "waiting": self.steps.waiting(), "held": len(self._room)}

    async def room(self) -> None:
        """Wait until another execution may become active: back-pressure for starts."""
        while self.active >= self.limits.active and not self.stopping:
            waiter = self._loop.create_future()
            self._room[waiter] = None
            try:
                await waiter
            finally:
                self._room.pop(waiter, None)
                self._loop.call_soon(self.made_room)  # it may not take the place: it was cancelled, or is put off

    def progressed(self, driver: Driver) -> None:
        """Something of an execution that runs alone was committed."""
        self.arrivals.suspects.passed(driver.key)

    # --- what is ours ---

    def renewed(self, lease: Lease, asked_ms: int) -> None:
        """The session's lease, asked for at that time of the monotonic clock: leave what is lost, look for what is new.

        A start that is not written yet stays: its own commit tells it.
        """
        if self.stopping:
            return
        lost, gained = self.holding.renewed(lease, asked_ms)
        for driver in [each for key, each in self.drivers.items() if key.shard in lost and not each.is_new]:
            self.drop(driver)
            self.on_moved(driver.key)
        if gained:
            self.arrivals.scan()
        if self._lapse is not None:
            self._lapse.cancel()
        if lease.ttl_ms is not None:
            left_ms = (self.holding.until_ms or 0) - self.environment.monotonic_ms()
            self._lapse = self._loop.call_later(max(0, left_ms) / 1000, self._lapsed)

    def _lapsed(self) -> None:
        if self.holding.lapsed() and not self.stopping:
            log.warning("the lease could not be renewed in time: steps stop until it is")
            self.renewed(NO_LEASE, 0)

    def tick(self) -> None:
        """Once in a while: tell of long steps, deliver what is queued, notice what others wrote into the store."""
        self.advise_of_steps()

        def delivered(keys: Any) -> None:
            if isinstance(keys, list):
                self.arrivals.woken(keys)

        def looked(changes: Any) -> None:
            if isinstance(changes, Exception):
                log.warning("cannot look at the store: %s", changes)
            elif changes != self.changes:
                self.changes = changes
                self.arrivals.scan()

        self.in_background(lambda: self.store.deliver(self.session, DELIVERIES_PER_TICK), delivered)
        self.in_background(self.store.changes, looked)
        self.collector.tick()

    # --- leaving ---

    def rouse(self, driver: Driver) -> None:
        """It does not rest any more."""
        size = self.resting.pop(driver.key, None)
        if size is not None:
            self._resting_bytes -= size

    def drop(self, driver: Driver) -> None:
        """It leaves memory."""
        if self.drivers.get(driver.key) is driver:
            del self.drivers[driver.key]
            self._alarm.set(driver.key, None)
        self.rouse(driver)
        if driver.committing:
            self.arrivals.leaving(driver.key)
        driver.discard()
        if not driver.is_new:  # else it only was a start that met the suspect's id
            self.arrivals.suspects.passed(driver.key)
        self.made_room()

    def _evict_some(self) -> None:
        while self.resting and (
            len(self.resting) > self.limits.resting or self._resting_bytes > self.limits.resting_bytes
        ):
            key = next(iter(self.resting))
            driver = self.drivers[key]
            if driver.resting:
                due_ms = driver.next_wake_ms()
                self.drop(driver)
                self.hear_of(due_ms)
            else:
                self.rouse(driver)

    def hear_of(self, due_ms: int | None) -> None:
        """Something is due then that is not in memory: look at the store then."""
        armed = self._alarm.due("scan")
        if due_ms is not None and (armed is None or due_ms < armed):
            self._alarm.set("scan", due_ms)

    def made_room(self) -> None:
        """Fewer executions are active than before, or on their way."""
        while self._room and self.active < self.limits.active:
            waiter, _ = self._room.popitem(last=False)
            if not waiter.done():
                waiter.set_result(None)
                break
        self.arrivals.room_again()

    def _ring(self, who: Any) -> None:
        if who == "scan":
            self.arrivals.scan()
            return
        driver = self.drivers.get(who)
        if driver is not None:
            self.rouse(driver)
            driver.timer_due()

    def idle(self, asleep: int = 0) -> bool:
        """Nothing runs but so many steps, is read or written: only time or a message brings something to do."""
        reading = self.arrivals.under_way or self._fetching
        under_way = self._turning or self._stalls or len(self.steps) > asleep or self.committer.depth()
        return not (reading or under_way) and all(driver.is_quiet for driver in self.drivers.values())

    def next_due_ms(self) -> int | None:
        """When time alone brings something to do."""
        return self._alarm.next_ms()

    def clock_moved(self) -> None:
        """Wall time has jumped: look now who is due."""
        self._alarm.look()

    def writing(self) -> bool:
        """Whether any execution in memory has something that is not written yet."""
        return bool(self._stalls) or any(driver.unwritten for driver in self.drivers.values())

    def advise_of_steps(self) -> None:
        """Tell the store of attempts that take long. Called every second or so."""
        for running in self.steps.advice():
            self.committer.advise(running)

    def stop(self) -> None:
        """Drop everything from memory; the journal has it."""
        self.stopping = self._stopped = True
        self._alarm.close()
        if self._lapse is not None:
            self._lapse.cancel()
        for driver in list(self.drivers.values()):
            self.drop(driver)
        for waiter in self._room:
            if not waiter.done():
                waiter.set_result(None)
