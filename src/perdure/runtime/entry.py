"""`perdure.run`: one workflow to its end, in three lines."""

from __future__ import annotations

import asyncio
from asyncio import events as asyncio_events
from pathlib import Path
from typing import Any, TypeVar

from perdure.core.errors import EngineMisused, PerdureError
from perdure.runtime.engine import Engine
from perdure.store.protocol import Store
from perdure.workflow.runnable import Runnable
from perdure.workflow.values_failure import KEPT

R = TypeVar("R")


def run(
    workflow: Runnable[..., R],
    *args: Any,
    id: str | None = None,
    store: str | Path | Store | None = None,
    **kwargs: Any,
) -> R:
    """Run a workflow to its end and return the result: the three-line entry.

    Run it again with the same id after a crash and it goes on; after its end, it returns the recorded result.

    Args:
        workflow: what to run; its arguments follow.
        id: of the execution; by default a random one, so that every call is a new execution.
        store: path of the SQLite file; by default `PERDURE_STORE`, else `perdure.db` in the working directory.

    Raises:
        ExecutionFailed, ExecutionCancelled, ExecutionTerminated, ExecutionStalled: how it ended otherwise.
        StoreBusy: another engine works on this file.
        EngineMisused: an event loop runs here already.
        KeyboardInterrupt: Ctrl-C; its message names the id to go on with. Running steps may finish first; a second
            Ctrl-C does not wait for them.

    Example:
        print(perdure.run(research, "durable execution", id="report-1"))
    """
    if asyncio_events._get_running_loop() is not None:
        raise EngineMisused(
            what="perdure.run was called where an event loop runs already, as in a notebook or inside a coroutine",
            fix="There: async with perdure.Engine(workflows=[...]) as engine: handle = await engine.start(...).",
        )

    engine = Engine(store, workflows=[workflow])
    chosen = id if id is not None else engine.new_id()

    async def main() -> R:
        async with engine:
            handle = await engine.start(workflow, *args, id=chosen, **kwargs)
            return await handle.result()

    try:
        return asyncio.run(main())
    except Exception as error:
        if not isinstance(error, PerdureError) and not hasattr(error, KEPT):
            raise
        ended = error.with_traceback(None)  # frames of ours and of asyncio would hide what it says
    except KeyboardInterrupt:  # without the frames of whatever the interrupt met
        message = f"stopped; nothing recorded is lost: the same call with id={chosen!r} goes on"
        raise KeyboardInterrupt(message) from None
    raise ended
