"""anyio keeps a scope's child scopes in a set and cancels them in its order: inside workflows, an ordered set."""

from __future__ import annotations

import functools
import sys
from asyncio import events as asyncio_events
from typing import Any

from perdure.workflow.loop import DeterministicLoop
from perdure.workflow.ordered import OrderedSet


def install() -> None:
    """Teach anyio's asyncio backend this order, once, if it has been imported. Called before a workflow's code runs."""
    backend = sys.modules.get("anyio._backends._asyncio")
    if backend is None or hasattr(backend.CancelScope.__init__, "__wrapped__"):
        return
    original = backend.CancelScope.__init__

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if isinstance(asyncio_events._get_running_loop(), DeterministicLoop):
            self._child_scopes = OrderedSet()

    backend.CancelScope.__init__ = init
