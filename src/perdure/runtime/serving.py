"""What other processes ask of an engine through the local socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.core.errors import ExecutionExists, InvalidOption
from perdure.runtime.local import Answer, Request
from perdure.store.protocol import Receipt, Row, Start

if TYPE_CHECKING:
    from perdure.runtime.engine import Engine


async def serve(engine: Engine, request: Request) -> Answer:
    """The answer to one request. Raises what goes back as its problem."""
    if request.figures:
        return await engine.figures()
    if request.private and not engine.store.private:
        raise InvalidOption(option="codec", value="None", expected="for the engine what its clients have: a codec")
    if request.start is not None:
        return await _start(engine, request.start)
    if request.mail is not None:
        return await engine.deposit(request.mail)
    if request.resume is not None:
        return await engine.resume(request.resume, request.message_id)
    if request.query is not None:
        return await engine.run_query(request.query)
    if request.branch is not None:
        return await engine.branch(request.branch)
    return None


async def _start(engine: Engine, start: Start) -> Receipt:
    workflow = engine.code(start.event.workflow)
    if workflow is None:
        return await engine.deposit(start)
    try:
        await engine.begin(start, workflow)
    except ExecutionExists:
        row: Row | None = await engine.read(lambda: engine.store.row(start.key))
        return Receipt("exists", row)
    return Receipt("accepted")
