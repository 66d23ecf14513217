"""Getting hold of executions in a store that exists, beside a running worker or without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import perdure
from perdure.cli.modules import find_codec
from perdure.cli.options import Settings
from perdure.cli.problems import nearest, problem_of
from perdure.journal import Description, Row, Status
from perdure.store.reader import local_owner, open_existing

T = TypeVar("T")
PAGE = 1_000
ROWS_COMPARED = 20_000  # the newest, for a hint


def go(work: Coroutine[Any, Any, T]) -> T:
    """Run one command's work."""
    return asyncio.run(work)


@asynccontextmanager
async def client_of(settings: Settings) -> AsyncIterator[perdure.Client]:
    """A client of the store; the file must exist."""
    codec = find_codec(settings.codec)
    store = await asyncio.to_thread(open_existing, settings.store)
    try:
        async with perdure.Client(store, codec=codec) as client:
            yield client
    finally:
        await asyncio.to_thread(store.close)


def worker_runs(client: perdure.Client) -> bool:
    """Whether an engine works on this store now."""
    return local_owner(client.store) is not None


async def rows_of(
    client: perdure.Client, *, status: Sequence[Status] = (), workflow: str = ""
) -> AsyncIterator[list[Row]]:
    """All executions, a page at a time."""
    cursor: str | None = None
    while cursor != "":
        page = await client.list(status=status, workflow=workflow, cursor=cursor or "", limit=PAGE)
        yield page
        cursor = page.next


async def known(client: perdure.Client, execution_id: str) -> Description:
    """An execution as it is now.

    Raises:
        Problem: there is none; with the nearest id.
    """
    try:
        return await client.handle(execution_id).describe()
    except perdure.PerdureError as error:
        if not isinstance(error, perdure.ExecutionNotFound):
            raise
        ids: list[str] = []
        async for page in rows_of(client):
            ids += [row.key.execution for row in page]
            if len(ids) >= ROWS_COMPARED:
                break
        hint = nearest(execution_id, ids) or ("perdure ls lists them." if ids else "The store is empty.")
        raise problem_of(error, f"No execution has the id {execution_id!r}.", hint=hint) from None
