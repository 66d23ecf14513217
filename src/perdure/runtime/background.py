"""Blocking reads of the store, off the engine's loop: two threads, whose answers come back to the loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

log = logging.getLogger("perdure")

TRY_AGAIN_S = 0.5  # after a call that the store refused


class Background(Protocol):
    """Where blocking reads run. `done` is called on the engine's thread with the result, or with the exception."""

    def run(self, call: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Run it off the loop."""
        ...


class ThreadBackground:
    """The real one, over two threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="perdure-reader")

    def run(self, call: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Run it off the loop; `done` gets the result or the exception."""
        self._pool.submit(lambda: post(self._loop, done, answer_of(call)))

    def close(self) -> None:
        """Finish what was asked for: afterwards nobody uses the store from here any more. Blocks."""
        self._pool.shutdown()


def answer_of(call: Callable[[], Any]) -> Any:
    """What it returns, or the exception that it raises."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - handed to whoever asked
        return error


def post(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any) -> None:
    """Call it on the engine's thread; if its loop is closed, nobody waits any more."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        log.debug("the engine's loop was closed before an answer came")
