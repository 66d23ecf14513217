"""Blocking reads of the store, off the engine's loop: two threads, whose answers come back to the loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

log = logging.getLogger("perdure")


class ThreadBackground:
    """The worker's `Background` over threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="perdure-reader")

    def run(self, call: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Run it off the loop; `done` gets the result or the exception."""

        def work() -> None:
            try:
                answer = call()
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                answer = error
            post(self._loop, done, answer)

        self._pool.submit(work)

    def close(self) -> None:
        """Finish what was asked for: afterwards nobody uses the store from here any more. Blocks."""
        self._pool.shutdown()


def post(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any) -> None:
    """Call it on the engine's thread; if its loop is closed, nobody waits any more."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        log.debug("the engine's loop was closed before an answer came")
