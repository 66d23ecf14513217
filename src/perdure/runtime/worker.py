"""A worker: the executions that it has in memory, how they come in from the store, and how they leave again.

All of it runs on the engine's loop. What blocks (loading, committing, renewing the lease) goes through the ports
`Background` and `Committer`, so that the simulator runs this very code in one thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from perdure.core import events as ev
from perdure.core.errors import CorruptJournal, JournalFromTheFuture, PerdureError, StalledByBug, StoreError
from perdure.core.identity import Key
from perdure.runtime.alarm import Alarm
from perdure.runtime.background import Background
from perdure.runtime.collecting import Collector
from perdure.runtime.committer import Committer, Done
from perdure.runtime.driver import Driver
from perdure.runtime.environment import Environment
from perdure.runtime.lease import NOTHING, Holding
from perdure.runtime.loading import Loaded, died_alone, letters_for, parent_of, read, recorded_here, size_of
from perdure.runtime.stalls import Stalls
from perdure.runtime.steps import StepRunner
from perdure.runtime.suspects import RECOVERIES_ALONE, Suspects
from perdure.runtime.unserved import UNSERVED, Unserved
from perdure.store.protocol import Batch, Lease, Row, Session, Start, Store, Succession
from perdure.workflow.definitions import Workflow
from perdure.workflow.values import failure_info

log = logging.getLogger("perdure")

READY_PAGE = 200
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
        self._loading: set[Key] = set()
        self._fetching: dict[Driver, bool] = {}  # whose inbox is being read: whether to read it again after that
        self._woken_while_loading: set[Key] = set()
        self._outdated: set[Key] = set()  # another run took its place while it was read
        self._leaving: dict[Key, bool] = {}  # dropped with a commit under way: whether to load it again after that
        self._scanning = False
        self._scan_again = False
        self._suspects = Suspects(self)
        self.collector = Collector(store, self.ask, environment)
        self._unserved = Unserved(self)
        self._room: list[asyncio.Future[None]] = []
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

    def ask(self, call: Callable[[], Any], done: Callable[[Any], None]) -> None:
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
                    self._loop.call_later(0.5, self.fetch_letters, driver)
            elif driver.dead:
                if letters or again:
                    self.woken([driver.key])  # it was evicted meanwhile
            else:
                driver.letters_arrived(letters)
                if again:
                    self.fetch_letters(driver)

        self.ask(lambda: letters_for(self.store, driver), fetched)

    def rested(self, driver: Driver) -> None:
        """It waits: remember that in its row, and make it a candidate for eviction."""
        if self.observer is not None:
            self.observer(self, driver)
        key = driver.key
        wake_at_ms = driver.next_wake_ms()
        if wake_at_ms is None or wake_at_ms > self.now_ms() + PARK_WORTH_MS:
            paused = driver.paused
            self.committer.advise(driver.park("paused" if paused else "parked", waits_for=driver.execution.waits_for()))
            self._rouse(driver)
            self.resting[key] = driver.size
            self._resting_bytes += driver.size
            self._evict_some()
        self._suspects.passed(key)
        self._made_room()

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
            self.woken([key])
            return
        following = self.drivers[key] = Driver(self, key, then.run, workflow)
        following.replay(recorded_here(then.events, 0, self.fingerprint), ())

    def stalled(self, driver: Driver, error: PerdureError) -> None:
        """Its code failed."""
        self._stalls.begin(driver, error)

    def begun_anew(self, key: Key, run: str) -> None:
        """Another run has taken the place of the one that there was, if there was one."""
        driver = self.drivers.get(key)
        if key in self._loading:
            self._outdated.add(key)
        elif driver is not None and driver.run != run:
            self.reload(driver)
        else:
            self.woken([key])

    def lost(self, driver: Driver) -> None:
        """Somebody else has written to its journal, or may have: forget it, and look at the store again."""
        if driver.dead:
            return
        log.warning("execution %s moved on without this worker: dropped from memory", driver.key.execution)
        self.reload(driver)

    def refused(self, driver: Driver) -> None:
        """Its id was taken: it never existed. Meanwhile it stood in the place of the one that has the id."""
        self.reload(driver)

    def reload(self, driver: Driver) -> None:
        """Forget what is in memory, and look at the store again."""
        self.drop(driver)
        self.on_moved(driver.key)
        self.woken([driver.key])

    # --- coming in ---

    def start(self, start: Start, workflow: Workflow[..., Any]) -> Driver:
        """Begin a new execution; its first commit tells whether the id was free."""
        driver = Driver(self, start.key, start.event.run, workflow, create=start)
        self.drivers[start.key] = driver
        driver.poke()
        return driver

    @property
    def active(self) -> int:
        """Executions in memory that have something to do."""
        return len(self.drivers) - len(self.resting) + len(self._loading)

    def gauges(self) -> dict[str, int]:
        """What `Figures` tells of it."""
        told = {"active": self.active, "resting": len(self.resting), "loading": len(self._loading)}
        return told | {"running": len(self.steps), "waiting": self.steps.waiting(), "held": len(self._room)}

    async def room(self) -> None:
        """Wait until another execution may become active: back-pressure for starts."""
        while self.active >= self.limits.active and not self.stopping:
            waiter = self._loop.create_future()
            self._room.append(waiter)
            await waiter

    def woken(self, keys: Sequence[Key]) -> None:
        """These executions have mail, or are new. Those of other workers are found by them."""
        for key in keys:
            if key.shard not in self.holding.shards:
                continue
            driver = self.drivers.get(key)
            if driver is not None:
                self._rouse(driver)
                self.fetch_letters(driver)
            elif key in self._loading:
                self._woken_while_loading.add(key)
            elif self.active < self.limits.active:
                self._load_key(key)
            else:
                self.scan()  # it is in the store, `active`: found when there is room

    def scan(self) -> None:
        """Look in the store for what is active or due and not in memory."""
        if self.stopping:
            return
        if self._scanning:
            self._scan_again = True
            return
        self._scanning = True
        self._scan_again = False
        self._scan_page(None)

    def _scan_page(self, after: Key | None) -> None:
        room = self.limits.active - self.active
        if room <= 0 or self.stopping:
            self._scanning = False  # `_made_room` scans again
            self._scan_again = True
            return
        limit = min(READY_PAGE, room)

        def scanned(rows: Any) -> None:
            if isinstance(rows, Exception):
                log.warning("cannot look for work, trying again: %s", rows)
                self._scanning = False
                self._loop.call_later(0.5, self.scan)
                return
            self._load_rows(rows)
            if len(rows) == limit:
                self._scan_page(rows[-1].key)
            else:
                self._scanning = False
                self._arm_scan()

        self.ask(lambda: self.store.ready(self.session, self.now_ms(), after, limit), scanned)

    def _arm_scan(self) -> None:
        if self._scan_again:
            self._loop.call_soon(self.scan)
            return

        def told(wake_at_ms: Any) -> None:
            if isinstance(wake_at_ms, Exception):
                self._loop.call_later(0.5, self._arm_scan)
            else:
                self._hear_of(wake_at_ms)  # what was parked since it was read is heard of already

        self.ask(lambda: self.store.next_wake_ms(self.session), told)

    def left(self, key: Key) -> None:
        """The last commit of an execution that was dropped has ended."""
        if self._leaving.pop(key, False):
            self.woken([key])

    def _load_key(self, key: Key) -> None:
        if key in self._leaving:
            self._leaving[key] = True
            return
        self._loading.add(key)
        self.ask(lambda: self.store.row(key), lambda row: self._row_read(key, row))

    def _row_read(self, key: Key, row: Any) -> None:
        self._loading.discard(key)
        if isinstance(row, Exception):
            log.warning("cannot read %s, trying again: %s", key.execution, row)
            self._loop.call_later(0.5, self.woken, [key])
        elif row is not None and row.status == "active":
            self._load_rows([row])
        elif key in self._woken_while_loading:  # what woke it may have been written after the row was read
            self._woken_while_loading.discard(key)
            self.woken([key])
        elif row is not None and row.status == "stalled" and row.waits_for == UNSERVED:
            self._load_rows([row])  # it stalled just when somebody asked to end it
        elif row is not None and row.status == "parked":
            self._hear_of(row.wake_at_ms)

    def _load_rows(self, rows: Sequence[Row]) -> None:
        for row in rows:
            driver = self.drivers.get(row.key)
            if driver is not None and driver.run != row.run and not driver.is_new:
                self.reload(driver)  # another process rewound it
            elif driver is not None:
                self._rouse(driver)
                driver.timer_due()
                if row.status == "active":
                    self.fetch_letters(driver)  # another process may have written into its inbox
            elif row.key not in self._loading and self._serves(row):
                if row.recoveries < RECOVERIES_ALONE:
                    self.load(row)
                else:
                    self._suspects.add(row)
        self._suspects.next()

    def _serves(self, row: Row) -> bool:
        if row.key.shard not in self.holding.shards:
            return False
        if row.workflow in self.workflows:
            return True
        self._unserved.meet(row)
        return False

    def is_here(self, row: Row) -> bool:
        """Whether it is in memory, or on its way there."""
        return row.key in self._loading or row.key in self.drivers

    def load(self, row: Row) -> None:
        """Read it in the background, and bring it into memory."""
        if row.key in self._leaving:
            self._leaving[row.key] = True
            self._suspects.passed(row.key)
            return
        self._loading.add(row.key)
        reading = self._suspects.read if self._suspects.has_turn(row.key) else read
        self.ask(lambda: reading(self.store, row), lambda loaded: self._read(row, loaded))

    def _read(self, row: Row, loaded: Any) -> None:
        self._loading.discard(row.key)
        if row.key in self._outdated:
            self._outdated.discard(row.key)
            self._woken_while_loading.discard(row.key)
            self._suspects.passed(row.key)
            self.woken([row.key])
        else:
            self._loaded(row, loaded)

    def _loaded(self, row: Row, loaded: Any) -> None:
        again = row.key in self._woken_while_loading
        self._woken_while_loading.discard(row.key)
        there = self.drivers.get(row.key)
        if there is not None and there.is_new and self._suspects.has_turn(row.key):
            self._loop.call_later(0.02, self.load, row)  # a start of its id stands in its place for a moment
            return
        if self.stopping or there is not None or row.key.shard not in self.holding.shards:
            self._suspects.passed(row.key)
            return
        driver = Driver(self, row.key, row.run, self._unserved.code_of(row))
        if isinstance(loaded, StoreError):
            log.warning("cannot load %s, trying again: %s", row.key.execution, loaded)
            self._loop.call_later(0.5, self._load_again, row)
            return
        self.drivers[row.key] = driver
        if isinstance(loaded, Exception):
            self._unreadable(driver, row, loaded)
        else:
            self._replay(driver, row, loaded)
        if again:
            self.fetch_letters(driver)

    def _load_again(self, row: Row) -> None:
        if self._suspects.has_turn(row.key):
            self.load(row)
        else:
            self.woken([row.key])

    def _unreadable(self, driver: Driver, row: Row, error: Exception) -> None:
        driver.length = row.position
        driver.pending.parent = parent_of(row)
        driver.broken = error if isinstance(error, PerdureError) else StalledByBug(failure=failure_info(error))
        self.fetch_letters(driver)

    def _replay(self, driver: Driver, row: Row, loaded: Loaded) -> None:
        driver.watched = self._suspects.has_turn(row.key)
        driver.poisoned = died_alone(loaded)
        driver.size = sum(size_of(recorded.event) for recorded in loaded.journal)
        driver.progress = {r.seq: r.progress for r in loaded.running if r.run == row.run and r.progress is not None}
        if row.workflow not in self.workflows:
            driver.broken, driver.pending.parent = self._unserved.problem(row), parent_of(row)
        driver.replay(loaded.journal, loaded.letters)

    def progressed(self, driver: Driver) -> None:
        """Something of an execution that runs alone was committed."""
        self._suspects.passed(driver.key)

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
        if gained:
            self.scan()
        if self._lapse is not None:
            self._lapse.cancel()
        if lease.ttl_ms is not None:
            left_ms = (self.holding.until_ms or 0) - self.environment.monotonic_ms()
            self._lapse = self._loop.call_later(max(0, left_ms) / 1000, self._lapsed)

    def _lapsed(self) -> None:
        if self.holding.lapsed() and not self.stopping:
            log.warning("the lease could not be renewed in time: steps stop until it is")
            self.renewed(NOTHING, 0)

    def tick(self) -> None:
        """Once in a while: tell of long steps, deliver what is queued, notice what others wrote into the store."""
        self.advise_of_steps()

        def delivered(keys: Any) -> None:
            if isinstance(keys, list):
                self.woken(keys)

        def looked(changes: Any) -> None:
            if isinstance(changes, Exception):
                log.warning("cannot look at the store: %s", changes)
            elif changes != self.changes:
                self.changes = changes
                self.scan()

        self.ask(lambda: self.store.deliver(self.session, DELIVERIES_PER_TICK), delivered)
        self.ask(self.store.changes, looked)
        self.collector.tick()

    # --- leaving ---

    def _rouse(self, driver: Driver) -> None:
        size = self.resting.pop(driver.key, None)
        if size is not None:
            self._resting_bytes -= size

    def drop(self, driver: Driver) -> None:
        """It leaves memory."""
        if self.drivers.get(driver.key) is driver:
            del self.drivers[driver.key]
            self._alarm.set(driver.key, None)
        self._rouse(driver)
        if driver.committing:
            self._leaving.setdefault(driver.key, False)
        driver.discard()
        if not driver.is_new:  # else it only was a start that met the suspect's id
            self._suspects.passed(driver.key)
        self._made_room()

    def _evict_some(self) -> None:
        while self.resting and (
            len(self.resting) > self.limits.resting or self._resting_bytes > self.limits.resting_bytes
        ):
            key = next(iter(self.resting))
            driver = self.drivers[key]
            if driver.resting:
                due_ms = driver.next_wake_ms()
                self.drop(driver)
                self._hear_of(due_ms)
            else:
                self._rouse(driver)

    def _hear_of(self, due_ms: int | None) -> None:
        armed = self._alarm.due("scan")
        if due_ms is not None and (armed is None or due_ms < armed):
            self._alarm.set("scan", due_ms)

    def _made_room(self) -> None:
        while self._room and self.active < self.limits.active:
            waiter = self._room.pop(0)
            if not waiter.done():
                waiter.set_result(None)
                break
        if self._scan_again and not self._scanning and not self.stopping:
            self._loop.call_soon(self.scan)

    def _ring(self, who: Any) -> None:
        if who == "scan":
            self.scan()
            return
        driver = self.drivers.get(who)
        if driver is not None:
            self._rouse(driver)
            driver.timer_due()

    def idle(self, asleep: int = 0) -> bool:
        """Nothing runs but so many steps, is read or written: only time or a message brings something to do."""
        reading = self._loading or self._fetching or self._scanning or self._leaving
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
