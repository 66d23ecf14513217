"""Steps that note what they were given, in a list that every test finds empty."""

from __future__ import annotations

from typing import Any

from perdure import step, workflow

seen: list[Any] = []


@step
async def note(what: Any) -> Any:
    """Its argument, which is noted."""
    seen.append(what)
    return what


@workflow
async def echo(value: str) -> str:
    """One noted step."""
    return await note(value)
