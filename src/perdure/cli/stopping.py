"""Ctrl-C and SIGTERM: the first stops gracefully, the second at once, which is safe: what was recorded is kept."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from perdure.cli.options import Exit

T = TypeVar("T")

_EXITS = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}


class Stopped(Exception):
    """The user asked to stop before the work was done."""

    def __init__(self, exit_code: Exit) -> None:
        super().__init__()
        self.exit_code = exit_code


class Stopper:
    """Listens for both signals on the running loop.

    Args:
        told: called at the first signal, when work that is under way is being finished.
        at_once: called at the second, right before the process ends.
    """

    def __init__(self, told: Callable[[], None], at_once: Callable[[], None] = lambda: None) -> None:
        self._told = told
        self._at_once = at_once
        self._asked = asyncio.Event()
        self._exit_code = Exit.INTERRUPTED
        loop = asyncio.get_running_loop()
        for each in _EXITS:
            loop.add_signal_handler(each, self._signalled, each)

    def _signalled(self, number: signal.Signals) -> None:
        if self._asked.is_set():
            self._at_once()
            sys.stdout.flush()
            os._exit(_EXITS[number])
        self._exit_code = _EXITS[number]
        self._asked.set()
        self._told()

    async def unless_stopped(self, work: Awaitable[T]) -> T:
        """Its result.

        Raises:
            Stopped: a signal came first; the work is cancelled.
        """
        task = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait([task, asked], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise Stopped(self._exit_code)
        finally:
            asked.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
