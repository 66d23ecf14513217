"""Notices when the engine's loop is held up, by a workflow that computes or by an `async def` step that blocks.

Nothing else of the worker goes on meanwhile, and nobody would know: the lease is renewed by a thread of its own.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from types import FrameType

from perdure.runtime.background import post
from perdure.workflow.location import is_in_a_workflow, users_line

log = logging.getLogger("perdure")

MISSED = 2  # beats, about a second apart: a process that was stopped and goes on misses one


class Pulse:
    """Belongs to the loop on whose thread it is made; `beat` is called by another thread, now and then."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._asked = False
        self._missed = 0
        self._said = False

    def beat(self) -> None:
        """Ask the loop for an answer; say so, once, if two beats in a row found none."""
        if not self._asked:
            self._asked, self._missed = True, 0
            post(self._loop, self._answered)
            return
        self._missed += 1
        if self._missed >= MISSED and not self._said:
            frames = sys._current_frames()  # noqa: SLF001 - nothing else shows another thread's stack
            self._said = self._say(frames.get(self._thread))

    def _answered(self) -> None:
        self._asked = False
        if self._said:
            self._said = False
            log.warning("the worker goes on")

    def _say(self, frame: FrameType | None) -> bool:
        where = users_line(frame)
        if not where:  # our own work, on what is large
            return False
        what = "a workflow computes without awaiting" if is_in_a_workflow(frame) else "a call blocks the event loop"
        log.warning("nothing else of this worker goes on: %s, at %s. Move that into a `def` step", what, where)
        return True
