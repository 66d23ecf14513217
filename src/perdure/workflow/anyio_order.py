"""anyio inside workflows: child scopes in an ordered set, patient level cancellation, no threads.

anyio cancels a scope's child scopes in a set's order, and cancels again on every turn of the loop until the scope is
left; here a bounded number of times per event, because a turn costs nothing and time passes only with events.
"""

from __future__ import annotations

import functools
import importlib
import re
import sys
from typing import Any

from perdure.workflow.location import refusal
from perdure.workflow.loop import workflow_loop
from perdure.workflow.ordered import OrderedSet

MAX_DELIVERIES_PER_EVENT = 100
# In the message of the CancelledError: the scope's address and the repr of a task differ from run to run.
_ADDRESS = re.compile(r"(?<=^Cancelled via cancel scope )[0-9a-f]+( by <.*>)?", re.DOTALL)


def install() -> None:
    """Prepare anyio's asyncio backend, once, if anyio has been imported. Called before a workflow's code runs."""
    if "anyio" not in sys.modules:
        return
    backend = importlib.import_module("anyio._backends._asyncio")
    if not hasattr(backend.CancelScope.__init__, "__wrapped__"):
        _order_child_scopes(backend.CancelScope)
        _deliver_patiently(backend.CancelScope)
        _refuse_threads(backend.AsyncIOBackend)


def _order_child_scopes(scope: Any) -> None:
    original = scope.__init__

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if workflow_loop() is not None:
            self._child_scopes = OrderedSet()

    scope.__init__ = init


def _deliver_patiently(scope: Any) -> None:
    original = scope._deliver_cancellation

    @functools.wraps(original)
    def deliver(self: Any, origin: Any) -> Any:
        loop = workflow_loop()
        if loop is not None and getattr(origin, "_cancel_reason", None) is not None:
            origin._cancel_reason = _ADDRESS.sub("of a workflow", origin._cancel_reason)
        again = original(self, origin)
        handle = self._cancel_handle
        if again and origin is self and handle is not None and loop is not None:
            deliveries = loop.turns[self] = loop.turns.get(self, 0) + 1
            if deliveries >= MAX_DELIVERIES_PER_EVENT:
                handle.cancel()
                self._cancel_handle = loop.call_at_next_event(self._deliver_cancellation, origin)
        return again

    scope._deliver_cancellation = deliver


def _refuse_threads(backend: Any) -> None:
    original = backend.run_sync_in_worker_thread

    @functools.wraps(original)
    async def run_sync(_: Any, *args: Any, **kwargs: Any) -> Any:
        if workflow_loop() is not None:
            raise refusal("anyio's to_thread")
        return await original(*args, **kwargs)

    backend.run_sync_in_worker_thread = classmethod(run_sync)
