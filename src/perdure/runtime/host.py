"""What a driver asks of its worker: the world as one execution meets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from perdure.core import events as ev
from perdure.core.errors import PerdureError
from perdure.core.identity import Key
from perdure.runtime.environment import Environment
from perdure.runtime.lease import Holding
from perdure.runtime.steps import StepRunner
from perdure.store.protocol import Batch, Outcome, Store
from perdure.workflow.definitions import Workflow

if TYPE_CHECKING:
    from perdure.runtime.driver import Driver


class Host(Protocol):
    """What a driver asks of its worker."""

    fingerprint: str
    shards: int
    store: Store
    on_answered: Callable[[Key, Batch], None]  # told of every commit that settles updates
    private: bool  # values are encrypted: they do not go into logs either
    steps: StepRunner
    holding: Holding
    environment: Environment

    def now_ms(self) -> int: ...  # the database's time, as this worker estimates it
    def soon(self, driver: Driver) -> None: ...
    def commit(self, batch: Batch, done: Callable[[Outcome | PerdureError], None]) -> None: ...
    def lost_soon(self, driver: Driver) -> None: ...
    def know(self, workflow: Workflow[..., Any]) -> None: ...
    def fetch_letters(self, driver: Driver) -> None: ...
    def wake_at(self, driver: Driver, due_ms: int | None) -> None: ...
    def rested(self, driver: Driver) -> None: ...
    def closed(self, driver: Driver, event: ev.AnyEvent) -> None: ...
    def stalled(self, driver: Driver, error: PerdureError) -> None: ...
    def lost(self, driver: Driver) -> None: ...
    def left(self, key: Key) -> None: ...
    def refused(self, driver: Driver) -> None: ...
    def reload(self, driver: Driver) -> None: ...
    def progressed(self, driver: Driver) -> None: ...


class Created(Protocol):
    """Told whether the id of a start was free."""

    def __call__(self, *, free: bool) -> None: ...
