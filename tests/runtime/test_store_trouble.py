"""The world fails under a running engine: disk full, file deleted or replaced, another program's lock. It goes on."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.runtime.conftest import Lab, until

import perdure
from perdure import step, workflow
from perdure.core.errors import StoreError, StoreFull, StoreReplaced
from perdure.store.sqlite import SqliteStore

calls: list[int] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    calls.clear()


@step
async def work(n: int) -> int:
    calls.append(n)
    return n


@workflow
async def sums(n: int) -> int:
    return sum([await work(await perdure.receive("item", int)) for _ in range(n)])


@workflow
async def chain(n: int) -> int:
    for i in range(n):
        await work(i)
    return n


def limit(engine: perdure.Engine, pages: int | None) -> None:
    """Let the file grow by so many pages; None: without limit."""
    writer = engine.store._writer  # type: ignore[attr-defined]
    now = writer.pragma("page_count")
    writer.pragma("max_page_count", 2**31 if pages is None else now + pages)


async def test_a_full_disk_delays_steps_and_loses_none_and_they_go_on_by_themselves(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    async with lab.engine(chain) as engine:
        await (await engine.start(chain, 1)).result(timeout=30)
        calls.clear()
        limit(engine, 0)
        starting = asyncio.create_task(engine.start(chain, 400, id="c"))
        await until(lambda: "No space left" in caplog.text)
        assert "nothing is lost" in caplog.text
        limit(engine, None)
        assert await (await starting).result(timeout=30) == 400
    assert calls == list(range(400))


async def test_signals_on_a_full_disk_are_written_or_refused_and_none_acknowledged_is_lost(lab: Lab) -> None:
    payload = "x" * 3_000

    @workflow(name="collects")
    async def collects() -> list[int]:
        got = []
        while True:
            item = await perdure.receive("item")
            if item is None:
                return got
            got.append(item[0])

    async with lab.engine(collects) as engine:
        handle = await engine.start(collects)
        acknowledged, refused = list[int](), list[int]()
        limit(engine, 30)
        for i in range(60):
            try:
                await handle.signal("item", [i, payload])
            except StoreFull:
                refused.append(i)
                if len(refused) == 3:
                    break
            else:
                acknowledged.append(i)
        limit(engine, None)
        await handle.signal("item")
        assert await handle.result(timeout=30) == acknowledged
        assert acknowledged


async def test_an_engine_can_close_on_a_full_disk_and_the_next_goes_on(lab: Lab) -> None:
    async with lab.engine(chain, shutdown_timeout=0) as engine:
        await (await engine.start(chain, 1)).result(timeout=30)
        await engine.start(chain, 100, id="c")
        limit(engine, 0)
        await asyncio.sleep(0.1)
    async with lab.engine(chain) as engine:
        assert await engine.handle("c").result(timeout=30) == 100


async def test_an_engine_waits_for_another_programs_transaction_and_goes_on(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with lab.engine(chain) as engine:
        engine.store._writer.set_busy_timeout(20)  # type: ignore[attr-defined]
        browser = apsw.Connection(str(lab.path))
        browser.execute("BEGIN IMMEDIATE")
        starting = asyncio.create_task(engine.start(chain, 2))
        await until(lambda: "stayed locked by another program" in caplog.text)
        browser.execute("ROLLBACK")
        browser.close()
        assert await (await starting).result(timeout=30) == 2


async def refused(handle: perdure.Handle[Any]) -> None:
    """Within a second or so the engine notices, and says so to whoever writes."""

    async def tells() -> bool:
        try:
            await asyncio.wait_for(handle.signal("other", 30), 10)
        except StoreReplaced:
            return True
        return False

    await until(tells)


async def test_a_file_moved_away_is_told_of_and_all_goes_on_when_it_is_back(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    async with lab.engine(sums) as engine:
        handle = await engine.start(sums, 2, id="s")
        await handle.signal("item", 1)
        away = lab.path.with_name("away.db")
        lab.path.rename(away)
        await refused(handle)
        away.rename(lab.path)
        await handle.signal("item", 10)
        assert await handle.result(timeout=30) == 11


async def test_a_file_replaced_under_the_engine_is_never_written_to(lab: Lab, tmp_path: Path) -> None:
    async with lab.engine(sums) as engine:
        handle = await engine.start(sums, 2, id="s")
        copy = tmp_path / "copy.db"
        shutil.copy(lab.path, copy)
        before = copy.read_bytes()
        copy.rename(lab.path)
        await refused(handle)
        assert lab.path.read_bytes() == before


async def test_reads_that_fail_are_tried_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reading call that brings an execution back fails once."""
    async with lab.client() as client:
        handle = await client.start(sums, 1, id="s")
        await handle.signal("item", 4)
    engine = perdure.Engine(lab.path, workflows=[sums], cache=0)
    async with engine:
        assert await engine.handle("s").result(timeout=30) == 4
    for name in ("load", "inbox", "ready", "row"):
        await one_failing_read(lab, monkeypatch, name)


async def one_failing_read(lab: Lab, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real, failures = getattr(SqliteStore, name), [StoreError(path="x", detail=f"{name} failed")]

    def fails(self: SqliteStore, *args: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(self, *args)

    async with lab.client() as client:
        await client.start(sums, 2, id=name)
        await client.handle(name).signal("item", 1)
    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, name, fails)
        async with lab.engine(sums, cache=0) as engine:
            with suppress(StoreError):
                await engine.handle(name).describe()
            await until(lambda: not failures)
            await engine.handle(name).signal("item", 2)
            assert await engine.handle(name).result(timeout=30) == 3
