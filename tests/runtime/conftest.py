"""A `lab` starts, kills and restarts engines over one store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.noting import seen

import perdure
from perdure.core.events import Recorded
from perdure.runtime.environment import SystemEnvironment


class Killed(Exception):
    """What an engine believes that we kill."""


class ShiftedClock(SystemEnvironment):
    """The system's clock, some time later."""

    def __init__(self, ahead_ms: int) -> None:
        self.ahead_ms = ahead_ms

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


class Lab:
    """One store, and engines over it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @asynccontextmanager
    async def engine(self, *workflows: perdure.Workflow[..., Any], **options: Any) -> AsyncIterator[perdure.Engine]:
        options = {"durability": "process", "shutdown_timeout": 5.0} | options
        async with perdure.Engine(self.path, workflows=workflows, **options) as engine:
            yield engine

    @asynccontextmanager
    async def doomed(self, *workflows: perdure.Workflow[..., Any], **options: Any) -> AsyncIterator[perdure.Engine]:
        """An engine that ends as if its process died: no goodbye, running steps cut off, nothing more written."""
        engine = perdure.Engine(
            options.pop("store", self.path),
            workflows=workflows,
            **({"durability": "process", "shutdown_timeout": 0} | options),
        )
        async with engine:
            try:
                yield engine
            finally:
                engine._lost(Killed())

    @asynccontextmanager
    async def client(self) -> AsyncIterator[perdure.Client]:
        async with perdure.Client(self.path) as client:
            yield client


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    """What the last test noted is forgotten."""
    seen.clear()


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "lab.db")


async def until(condition: Callable[[], Any], *, seconds: float = 30.0) -> Any:
    """Poll until it is true; its value. It may be a coroutine function."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.005)


async def status(handle: perdure.Handle[Any], *wanted: str) -> Any:
    """Its row, once it has one of these statuses."""

    async def row() -> Any:
        found = await handle.describe()
        return found if found.status in wanted else None

    return await until(row)


def kinds(journal: list[Recorded]) -> list[str]:
    """Names of the events."""
    return [type(recorded.event).__name__ for recorded in journal]


def of_kind(journal: list[Recorded], kind: type) -> list[Any]:
    """The events of one type."""
    return [recorded.event for recorded in journal if isinstance(recorded.event, kind)]
