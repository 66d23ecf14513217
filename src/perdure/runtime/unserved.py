"""Executions whose workflow nobody here runs: they stall, but for requests to end them, which need no code."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from perdure.core.errors import UnknownWorkflow
from perdure.runtime.committer import Committer
from perdure.runtime.loading import requests_to_end
from perdure.store.protocol import Park, Row, Store
from perdure.workflow.definitions import Workflow

log = logging.getLogger("perdure")

UNSERVED = UnknownWorkflow.__name__  # what a row waits for that stalled because nobody ran its workflow


class Home(Protocol):
    """What is asked of the worker."""

    store: Store
    committer: Committer
    workflows: dict[str, Workflow[..., Any]]

    def in_background(self, call: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Have it called off the loop."""
        ...


class Loading(Protocol):
    """What brings executions into memory."""

    def load(self, row: Row) -> None:
        """Read it, and bring it into memory."""
        ...

    def is_here(self, row: Row) -> bool:
        """Whether it is in memory, or on its way there."""
        ...


class Unserved:
    """Those that one worker meets."""

    def __init__(self, worker: Home, loading: Loading) -> None:
        self._worker = worker
        self._loading = loading
        self._named: set[str] = set()

    def meet(self, row: Row) -> None:
        """Have it written that it stalled; or ended, if somebody asks for that."""
        if row.workflow not in self._named:
            self._named.add(row.workflow)
            message = "nobody here runs workflow %r: its executions stall until a worker that does"
            log.warning(message, row.workflow)
        worker = self._worker

        def looked(letters: Any) -> None:
            if letters and not isinstance(letters, Exception):
                if not self._loading.is_here(row):
                    self._loading.load(row)
            else:
                why = str(self.problem(row))
                worker.committer.advise(
                    Park(row.key, row.run, row.position, "stalled", waits_for=UNSERVED, problem=why)
                )

        worker.in_background(lambda: requests_to_end(worker.store, row.key, row.run), looked)

    def problem(self, row: Row) -> UnknownWorkflow:
        """Why it stalls."""
        return UnknownWorkflow(name=row.workflow, known=", ".join(sorted(self._worker.workflows)) or "none")

    def code_of(self, row: Row) -> Workflow[..., Any]:
        """Its workflow; for one that is not here something in its place, which is not run."""
        return self._worker.workflows.get(row.workflow) or Workflow(_nothing, name=row.workflow)


async def _nothing() -> None: ...
