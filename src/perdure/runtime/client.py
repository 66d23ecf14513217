"""The client: starts, messages and questions from any process, beside a running engine or without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

from perdure.core.errors import NobodyAnswers, StoreError
from perdure.core.events import AnyEvent, Payload
from perdure.core.identity import DEFAULT_NAMESPACE, Key
from perdure.runtime.branching import BranchRequest, carry_out
from perdure.runtime.environment import Environment, SystemEnvironment
from perdure.runtime.executions import Executions
from perdure.runtime.figures import Figures
from perdure.runtime.handle import raise_if_error
from perdure.runtime.loading import is_over
from perdure.runtime.local import Query, Reply, Request, error_of, send
from perdure.runtime.updates import Settled, look
from perdure.store.codec import PayloadCodec
from perdure.store.open import local_owner, open_store, sealed
from perdure.store.protocol import Mail, Receipt, Start, Store
from perdure.workflow.definitions import Workflow

POLL_MIN_S = 0.003
POLL_MAX_S = 0.25
ASK_TRIES = 20
ASK_PAUSE_S = 0.01  # after the first try; longer after each that follows


class Client(Executions):
    """Starts, signals and watches executions that an engine in another process runs, or will run.

    Args:
        store: path of the SQLite file; by default `PERDURE_STORE`, else `perdure.db` in the working directory.
        namespace: the tenant's world.
        codec: encrypts values at rest: the same as the engine's; by default what `PERDURE_CODEC` names.
        environment: its clock and its ids; tests have another one.

    Example:
        async with perdure.Client("perdure.db") as client:
            await client.handle("report-1").signal("approval", Decision(approved=True))
    """

    def __init__(
        self,
        store: str | Store | None = None,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        codec: PayloadCodec | None = None,
        environment: Environment | None = None,
    ) -> None:
        self._given = store
        self._codec = codec
        self.namespace = namespace
        self.environment = environment or SystemEnvironment()

    async def __aenter__(self) -> Self:
        opened = await asyncio.to_thread(open_store, self._given)
        self.store = sealed(opened, self._codec)
        self._is_ours = opened is not self._given
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._is_ours:
            await asyncio.to_thread(self.store.close)

    async def know(self, workflow: Workflow[..., Any]) -> None:
        """See `Executions.know`. Nothing runs here."""

    async def deposit(self, item: Start | Mail) -> Receipt:
        """See `Executions.deposit`. Through the running engine, if there is one; else straight into the store."""
        request = Request(private=self.store.private)
        if isinstance(item, Start):
            request.start = item
        else:
            request.mail = item

        def write() -> Receipt:
            items: tuple[list[Start], list[Mail]] = ([item], []) if isinstance(item, Start) else ([], [item])
            return raise_if_error(self.store.deposit(*items)[0])

        return await self._ask_or(request, write)

    async def resume(self, key: Key, message_id: str = "") -> Receipt:
        """See `Executions.resume`. Through the running engine, if there is one; else straight into the store."""
        request = Request(resume=key, message_id=message_id)
        return await self._ask_or(request, lambda: self.store.resume(key, message_id))

    async def _ask_or(self, request: Request, write: Callable[[], Receipt]) -> Receipt:
        receipt = await self._receipt(request)
        return receipt if receipt is not None else await asyncio.to_thread(write)

    async def _receipt(self, request: Request) -> Receipt | None:
        """What the engine that runs says; None if none does, or it does not listen: it reads what is in the store."""
        reply = await self._ask_engine(request)
        if reply is not None and reply.receipt is None:
            raise StoreError(path=self.store.path, detail=reply.error)
        return None if reply is None else reply.receipt

    async def _ask_engine(self, request: Request) -> Reply | None:
        """The running engine's reply; None if there is no engine, or it does not listen.

        Raises the problem that it tells of.
        """
        for tried in range(ASK_TRIES):
            address = await asyncio.to_thread(local_owner, self.store)
            if address is None:
                break
            try:
                reply = await send(address, request)
            except (OSError, EOFError):
                await asyncio.sleep(ASK_PAUSE_S * tried)  # it has just died, or not begun to listen
                continue
            if reply.problem is not None:
                raise error_of(reply.problem)
            return reply
        return None

    async def branch(self, request: BranchRequest, workflow: Workflow[..., Any] | None = None) -> Receipt:
        """See `Executions.branch`. A running engine is asked first: it knows more code, and goes on with it at once."""
        receipt = await self._receipt(Request(branch=request, private=self.store.private))
        if receipt is not None:
            return receipt
        return await carry_out(self.read, self.store, request, self.with_code(workflow))

    async def closed(self, key: Key) -> AnyEvent | None:
        """See `Executions.closed`. Looks again whenever the store has changed."""
        await self._until(lambda: is_over(self.store, key))
        return None

    async def answered(self, key: Key, update_id: str) -> Settled:
        """See `Executions.answered`. Looks again whenever the store has changed."""
        return await self._until(lambda: look(self.store, key, update_id))  # type: ignore[no-any-return]

    async def _until(self, look: Callable[[], Any]) -> Any:
        pause = POLL_MIN_S
        seen: int | None = None
        while True:
            changes = await asyncio.to_thread(self.store.changes)
            if changes != seen:
                seen = changes
                found = await asyncio.to_thread(look)
                if found:
                    return found
                pause = POLL_MIN_S
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, POLL_MAX_S)

    async def run_query(self, query: Query) -> Payload:
        """See `Executions.run_query`. The engine that runs on the store answers."""
        reply = await self._ask_engine(Request(query=query, private=self.store.private))
        if reply is None:
            raise NobodyAnswers(path=self.store.path, execution=query.key.execution)
        if reply.answer is None:
            raise StoreError(path=self.store.path, detail=reply.error or "the engine is too old for queries")
        return reply.answer

    async def figures(self) -> Figures | None:
        """What the engine that runs on the store counts of itself; None if none runs, or one that is too old."""
        reply = await self._ask_engine(Request(figures=True))
        return None if reply is None else reply.figures
