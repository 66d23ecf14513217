"""What the store lists of a batch for those who read no journal: state, updates, questions. And waiting for updates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from perdure.core import events as ev
from perdure.core.ask_events import answered_by
from perdure.core.errors import ExecutionNotFound, ExecutionStalled
from perdure.core.identity import Key, checked_id
from perdure.store.protocol import OPEN_STATUSES, AskRow, Batch, Mail, Start, Store, UpdateRow

if TYPE_CHECKING:
    from perdure.workflow.execution import Execution

LOOK_SOON_S, LOOK_AGAIN_S = 0.01, 0.5  # the first pause between two looks at an update, and the longest

Settled: TypeAlias = ev.UpdateCompleted | UpdateRow
"""How an update ended: its handler's answer, or a row that is `rejected` or `closed`."""


def request_of(key: Key, name: str, update_id: str, payload: ev.Payload, start: Start | None = None) -> Mail:
    """An update on its way. Its id is its caller's; other messages may have the same."""
    request = ev.UpdateRequested(update_id, checked_id(name, "update name"), payload)
    return Mail(receiver=key, message_id=f"update:{update_id}", event=request, start=start)


def add_rows(batch: Batch, rejected: Sequence[tuple[ev.UpdateRequested, ev.FailureInfo]]) -> None:
    """Add to a batch the rows that tell of its events without the journal: of updates, questions, the state."""
    run, asks = batch.run, list[AskRow]()
    updates = [UpdateRow(request.update_id, run, "rejected", failure=failure) for request, failure in rejected]
    for position, new in enumerate(batch.events, batch.expected):
        match new.event:
            case ev.StatePublished():
                batch.state_at = position
            case ev.UpdateAccepted():
                updates.append(UpdateRow(new.event.update_id, run, "accepted", position))
            case ev.UpdateCompleted():
                updates.append(UpdateRow(new.event.update_id, run, "completed", position))
            case ev.QuestionAsked():
                asks.append(ask_row(batch.key, run, position, new.at_ms, new.event))
            case ev.QuestionClosed():
                batch.closed_asks = (*batch.closed_asks, new.event.asked)
            case ev.MessageDropped() if (asked := answered_by(new.event.name)) is not None:
                batch.reopened_asks = (*batch.reopened_asks, asked)
            case _:
                pass
    batch.updates, batch.asks = updates, asks


def expired(execution: Execution, at_ms: int) -> list[int]:
    """Questions whose time is over: no answer is taken from the moment on at which their timers fire."""
    return [seq for seq, each in execution.asks.items() if 0 < each.expires_at_ms <= at_ms]


def ask_row(key: Key, run: str, position: int, at_ms: int, asked: ev.QuestionAsked) -> AskRow:
    """How a question is listed."""
    whom = (asked.to, asked.escalate_to, asked.escalate_at_ms)
    return AskRow(key, run, asked.seq, position, *whom, at_ms, asked.expires_at_ms)


def look(store: Store, key: Key, update_id: str) -> Settled | None:
    """How an update ended, if it has. Blocks.

    Raises:
        ExecutionNotFound: there is no such execution.
        ExecutionStalled: it waits for a fix, and the update with it.
    """
    found = store.update(key, update_id)
    if found is not None and found.status == "completed":
        event = store.load(key, found.run, found.position, 1)[0].event
        assert isinstance(event, ev.UpdateCompleted)
        return event
    if found is not None and found.status in ("rejected", "closed"):
        return found
    row = store.row(key)
    if row is None:
        raise ExecutionNotFound(execution=key.execution, namespace=key.namespace)
    if row.status == "stalled":
        raise ExecutionStalled(execution=key.execution, problem=row.problem)
    if row.status not in OPEN_STATUSES and store.update(key, update_id) is None:  # it closed before it could be asked
        return UpdateRow(update_id, row.run, "closed")
    return None


class Callers:
    """Who waits in this process for the answers to updates. Belongs to the engine's thread."""

    def __init__(self, read: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self.waiting: dict[tuple[Key, str], list[asyncio.Future[Settled]]] = {}
        self._read = read

    def __iter__(self) -> Iterator[asyncio.Future[Settled]]:
        return chain.from_iterable(self.waiting.values())

    def tell(self, key: Key, batch: Batch) -> None:
        """A commit settled updates."""
        for update in batch.updates:
            for waiter in self.waiting.get((key, update.update_id), ()):
                if update.status != "accepted" and not waiter.done():
                    waiter.set_result(_settled(batch, update))

    async def wait(self, store: Store, key: Key, update_id: str) -> Settled:
        """How it ended: heard from this process's own commits, else looked up now and then. Raises as `look`."""
        pause_s = LOOK_SOON_S
        waiter: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        waiters = self.waiting.setdefault((key, update_id), [])
        waiters.append(waiter)
        try:
            while not waiter.done():
                found = await self._read(lambda: look(store, key, update_id))
                if found is not None:
                    return found  # type: ignore[no-any-return]
                await asyncio.wait([waiter], timeout=pause_s)
                pause_s = min(pause_s * 2, LOOK_AGAIN_S)
            return waiter.result()
        finally:
            waiters.remove(waiter)
            if not waiters:
                self.waiting.pop((key, update_id), None)
            waiter.cancel()


def _settled(batch: Batch, update: UpdateRow) -> Settled:
    if update.status != "completed":
        return update
    event = batch.events[update.position - batch.expected].event
    assert isinstance(event, ev.UpdateCompleted)
    return event
