"""Writing that an execution stalled: at once, and until then its driver stays in memory.

Nobody may take the row's word meanwhile, and run it again. If somebody asks for its end, that is written instead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from perdure.core.errors import ExecutionStalled, PerdureError
from perdure.core.identity import Key
from perdure.runtime.background import TRY_AGAIN_S
from perdure.runtime.driver import Driver
from perdure.runtime.left_behind import left_behind
from perdure.runtime.loading import requests_to_end
from perdure.store.protocol import Letter, Session, Store

log = logging.getLogger("perdure")


class Home(Protocol):
    """What is asked of the worker."""

    store: Store
    session: Session
    private: bool
    on_stalled: Callable[[Key, PerdureError], None]

    def in_background(self, call: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Have it called off the loop."""
        ...

    def drop(self, driver: Driver) -> None:
        """It leaves memory."""
        ...


class Stalls:
    """The stalls of one worker that are being written. Belongs to the engine's thread."""

    def __init__(self, worker: Home) -> None:
        self._worker = worker
        self._writing: set[Key] = set()

    def __len__(self) -> int:
        return len(self._writing)

    def begin(self, driver: Driver, error: PerdureError) -> None:
        """Its code failed: keep it, say so, and leave it until somebody resumes it. Or end it, if that is asked."""
        if driver.key in self._writing:
            return
        self._writing.add(driver.key)
        if driver.asked_to_end() is not None:
            driver.broken = error
            self._end(driver)
            return
        log.error("execution %s stalled: %s", driver.key.execution, error.brief() if self._worker.private else error)
        driver.halt(error)
        self._write(driver, error)

    def _end(self, driver: Driver) -> None:
        worker = self._worker
        if driver.dead:
            self._writing.discard(driver.key)
            return

        def read(left: Any) -> None:
            asked = driver.asked_to_end()
            if isinstance(left, Exception):
                log.warning("cannot read what %s leaves behind, trying again: %s", driver.key.execution, left)
                asyncio.get_running_loop().call_later(TRY_AGAIN_S, self._end, driver)
                return
            self._writing.discard(driver.key)
            if not driver.dead and asked is not None:
                for what in left.not_known:
                    log.error("execution %s is terminated; not known: %s", driver.key.execution, what)
                driver.end_without_code(asked, left)

        worker.in_background(lambda: left_behind(worker.store, driver.key, driver.run, driver.length), read)

    def _write(self, driver: Driver, error: PerdureError) -> None:
        worker = self._worker
        if driver.dead:
            self._writing.discard(driver.key)
            return
        park = driver.park("stalled", waits_for=type(error).__name__, problem=str(error))

        def write() -> list[Letter]:
            worker.store.commit(worker.session, [], [park])
            return requests_to_end(worker.store, driver.key, driver.run)

        def written(letters: Any) -> None:
            if driver.dead or driver.committing:
                self._writing.discard(driver.key)
            elif isinstance(letters, Exception):
                log.warning("cannot write that %s stalled, trying again: %s", driver.key.execution, letters)
                asyncio.get_running_loop().call_later(TRY_AGAIN_S, self._write, driver, error)
            else:
                self._writing.discard(driver.key)
                self._written(driver, error, letters)

        worker.in_background(write, written)

    def _written(self, driver: Driver, error: PerdureError, letters: Sequence[Letter]) -> None:
        if letters:  # somebody asked to terminate it
            driver.letters_arrived(letters)
            return
        self._worker.drop(driver)
        stalled = ExecutionStalled(execution=driver.key.execution, problem=str(error))
        self._worker.on_stalled(driver.key, stalled)
