"""How executions come into a worker's memory: found by looking, woken by mail, or asked for; read, and replayed.

Whoever is woken while it is read, or while its last commit is under way, is looked at once more after that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perdure.core.errors import PerdureError, StalledByBug, StoreError
from perdure.core.identity import Key
from perdure.runtime.background import TRY_AGAIN_S
from perdure.runtime.driver import Driver
from perdure.runtime.loading import Loaded, Reading, died_alone, parent_of, read, read_some, size_of
from perdure.runtime.suspects import RECOVERIES_ALONE, Suspects
from perdure.runtime.unserved import UNSERVED, Unserved
from perdure.store.protocol import Row
from perdure.workflow.values import failure_info

if TYPE_CHECKING:
    from perdure.runtime.worker import Worker

log = logging.getLogger("perdure")

READY_PAGE = 200
PASSES_S = 0.02  # until a start that met the id of another execution has left memory


class Arrivals:
    """The arrivals of one worker. Belongs to the engine's thread."""

    def __init__(self, worker: Worker) -> None:
        self.suspects = Suspects(worker, self.load)
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._unserved = Unserved(worker, self)
        self._loading: set[Key] = set()
        self._woken_while_loading: set[Key] = set()
        self._outdated: set[Key] = set()  # another run took its place while it was read
        self._leaving: dict[Key, bool] = {}  # dropped with a commit under way: whether to load it again after that
        self._scanning = False
        self._scan_again = False

    def __len__(self) -> int:
        """How many are on their way."""
        return len(self._loading)

    @property
    def under_way(self) -> bool:
        """Whether anything is being looked for or read, or was dropped with a commit under way."""
        return bool(self._loading or self._scanning or self._leaving)

    def room_again(self) -> None:
        """Another one may become active."""
        if self._scan_again and not self._scanning and not self._worker.stopping:
            self._loop.call_soon(self.scan)

    def outdated(self, key: Key) -> bool:
        """Another run has taken its place. True if it is being read just now: it is read again then."""
        if key in self._loading:
            self._outdated.add(key)
            self._woken_while_loading.add(key)
            return True
        return False

    def woken(self, keys: Sequence[Key]) -> None:
        """These executions have mail, or are new. What belongs to other workers they find themselves."""
        worker = self._worker
        for key in keys:
            if key.shard not in worker.holding.shards:
                continue
            driver = worker.drivers.get(key)
            if driver is not None:
                worker.rouse(driver)
                worker.fetch_letters(driver)
            elif key in self._loading:
                self._woken_while_loading.add(key)
            elif worker.active < worker.limits.active:
                self._load_key(key)
            else:
                self.scan()  # it is in the store, `active`: found when there is room

    def scan(self) -> None:
        """Look in the store for what is active or due and not in memory."""
        if self._worker.stopping:
            return
        if self._scanning:
            self._scan_again = True
            return
        self._scanning = True
        self._scan_again = False
        self._scan_page(None, self._worker.now_ms())

    def _scan_page(self, after: Key | None, now_ms: int) -> None:
        worker = self._worker
        room = worker.limits.active - worker.active
        if room <= 0 or worker.stopping:
            self._scanning = False  # `room_again` scans again
            self._scan_again = True
            return
        limit = min(READY_PAGE, room)

        def scanned(rows: Any) -> None:
            if isinstance(rows, Exception):
                log.warning("cannot look for work, trying again: %s", rows)
                self._scanning = False
                self._loop.call_later(TRY_AGAIN_S, self.scan)
                return
            self._load_rows(rows)
            if len(rows) == limit:
                self._scan_page(rows[-1].key, now_ms)
            else:
                self._scanning = False
                self._arm_scan(now_ms)

        worker.in_background(lambda: worker.store.ready(worker.session, now_ms, after, limit), scanned)

    def _arm_scan(self, now_ms: int) -> None:
        """What was due at this time has been found, and may stay due as long as its next attempt runs."""
        if self._scan_again:
            self._loop.call_soon(self.scan)
            return

        def looked(wake_at_ms: Any) -> None:
            if isinstance(wake_at_ms, Exception):
                self._loop.call_later(TRY_AGAIN_S, self._arm_scan, now_ms)
            else:
                self._worker.hear_of(wake_at_ms)  # what was parked since it was read is heard of already

        self._worker.in_background(lambda: self._worker.store.next_wake_ms(self._worker.session, now_ms), looked)

    def leaving(self, key: Key) -> None:
        """It was dropped with a commit under way: it may come again when that has ended."""
        self._leaving.setdefault(key, False)

    def left(self, key: Key) -> None:
        """That commit has ended."""
        if self._leaving.pop(key, False):
            self.woken([key])

    def _load_key(self, key: Key) -> None:
        if self._still_leaves(key):
            return
        self._loading.add(key)
        self._worker.in_background(lambda: self._worker.store.row(key), lambda row: self._row_read(key, row))

    def _row_read(self, key: Key, row: Any) -> None:
        self._loading.discard(key)
        self._look_at(key, row)
        self._worker.made_room()

    def _look_at(self, key: Key, row: Any) -> None:
        if isinstance(row, Exception):
            log.warning("cannot read %s, trying again: %s", key.execution, row)
            self._loop.call_later(TRY_AGAIN_S, self.woken, [key])
        elif row is not None and row.status == "active":
            self._load_rows([row])
        elif key in self._woken_while_loading:  # what woke it may have been written after the row was read
            self._woken_while_loading.discard(key)
            self.woken([key])
        elif row is not None and row.status == "stalled" and row.waits_for == UNSERVED:
            self._load_rows([row])  # it stalled just when somebody asked to end it
        elif row is not None and row.status == "parked":
            self._worker.hear_of(row.wake_at_ms)

    def _load_rows(self, rows: Sequence[Row]) -> None:
        worker, absent = self._worker, list[Row]()
        for row in rows:
            driver = worker.drivers.get(row.key)
            if driver is not None and driver.run != row.run and not driver.is_new:
                worker.reload(driver)  # another process rewound it
            elif driver is not None:
                worker.rouse(driver)
                driver.timer_due()
                if row.status == "active":
                    worker.fetch_letters(driver)  # another process may have written into its inbox
            elif row.key not in self._loading and self._serves(row):
                if row.recoveries < RECOVERIES_ALONE:
                    absent.append(row)
                else:
                    self.suspects.add(row)
        self._load_all(absent, read)
        self.suspects.next()

    def _serves(self, row: Row) -> bool:
        if row.key.shard not in self._worker.holding.shards:
            return False
        if row.workflow in self._worker.workflows:
            return True
        self._unserved.meet(row)
        return False

    def is_here(self, row: Row) -> bool:
        """Whether it is in memory, or on its way there."""
        return row.key in self._loading or row.key in self._worker.drivers

    def load(self, row: Row) -> None:
        """Read it in the background, and bring it into memory."""
        self._load_all([row], self.suspects.read if self.suspects.has_turn(row.key) else read)

    def _load_all(self, rows: Sequence[Row], reading: Reading) -> None:
        here = [row for row in rows if not self._still_leaves(row.key)]
        self._loading.update(row.key for row in here)
        self._read_some(here, reading)

    def _still_leaves(self, key: Key) -> bool:
        """Whether it must leave first, and comes again after that."""
        if key not in self._leaving:
            return False
        self._leaving[key] = True
        self.suspects.passed(key)
        return True

    def _read_some(self, rows: Sequence[Row], reading: Reading) -> None:
        """Read these: many small ones in one go, a large one by itself."""
        store = self._worker.store

        def done(found: list[Loaded | Exception]) -> None:
            self._read_some(rows[len(found) :], reading)  # while those that are read are replayed
            for row, loaded in zip(rows, found, strict=False):
                self._read(row, loaded)

        if rows:
            self._worker.in_background(lambda: read_some(store, rows, reading), done)

    def _read(self, row: Row, loaded: Any) -> None:
        self._loading.discard(row.key)
        if row.key in self._outdated:
            self._outdated.discard(row.key)
            self._woken_while_loading.discard(row.key)
            self.suspects.passed(row.key)
            self.woken([row.key])
        else:
            self._loaded(row, loaded)
        self._worker.made_room()

    def _loaded(self, row: Row, loaded: Any) -> None:
        worker, again = self._worker, row.key in self._woken_while_loading
        self._woken_while_loading.discard(row.key)
        there = worker.drivers.get(row.key)
        if there is not None and there.is_new and self.suspects.has_turn(row.key):
            self._loop.call_later(PASSES_S, self.load, row)  # a start of its id stands in its place for a moment
            return
        if worker.stopping or there is not None or row.key.shard not in worker.holding.shards:
            self.suspects.passed(row.key)
            return
        driver = Driver(worker, row.key, row.run, self._unserved.code_of(row))
        if isinstance(loaded, StoreError):
            log.warning("cannot load %s, trying again: %s", row.key.execution, loaded)
            self._loop.call_later(TRY_AGAIN_S, self._load_again, row)
            return
        worker.drivers[row.key] = driver
        worker.on_arrived()
        if isinstance(loaded, Exception):
            self._unreadable(driver, row, loaded)
        else:
            self._replay(driver, row, loaded)
        if again:
            worker.fetch_letters(driver)

    def _load_again(self, row: Row) -> None:
        if self.suspects.has_turn(row.key):
            self.load(row)
        else:
            self.woken([row.key])

    def _unreadable(self, driver: Driver, row: Row, error: Exception) -> None:
        driver.length = row.position
        driver.pending.parent = parent_of(row)
        driver.broken = error if isinstance(error, PerdureError) else StalledByBug(failure=failure_info(error))
        self._worker.fetch_letters(driver)

    def _replay(self, driver: Driver, row: Row, loaded: Loaded) -> None:
        driver.watched = self.suspects.has_turn(row.key)
        driver.poisoned = died_alone(loaded)
        driver.size = sum(size_of(recorded.event) for recorded in loaded.journal)
        driver.progress = {r.seq: r.progress for r in loaded.running if r.run == row.run and r.progress is not None}
        if row.workflow not in self._worker.workflows:
            driver.broken, driver.pending.parent = self._unserved.problem(row), parent_of(row)
        driver.replay(loaded.journal, loaded.letters)
