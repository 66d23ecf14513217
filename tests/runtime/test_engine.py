"""The engine's life: shutting down, sharing a file, clients beside it, and what is left when it ends."""

from __future__ import annotations

import asyncio
import os
import threading
from contextvars import Context
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.runtime.conftest import Lab, status, until
from tests.runtime.noting import seen

import perdure
from perdure import errors, step, workflow
from perdure.core.errors import EngineClosed, EngineMisused, OwnershipLost, StoreError
from perdure.core.identity import Key
from perdure.runtime import engine as engine_module
from perdure.runtime import lease, local
from perdure.runtime.background import ThreadBackground
from perdure.runtime.threads import ThreadPool
from perdure.store.protocol import Lease, Row, Session
from perdure.store.sqlite import SqliteStore


@workflow
async def listens() -> Any:
    return await perdure.receive("go")


@step
async def takes(seconds: float) -> str:
    seen.append("begin")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        seen.append("cut off")
        raise
    seen.append("end")
    return "done"


@workflow
async def works(seconds: float) -> list[str]:
    return [await takes(seconds), await takes(0)]


# --- used where it cannot work ---


async def test_an_engine_called_from_another_threads_loop_refuses_and_goes_on(lab: Lab) -> None:
    async with lab.engine(works) as engine:
        with pytest.raises(EngineMisused, match="another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(engine.start(works, 0)))
        assert await (await engine.start(works, 0)).result(timeout=30) == ["done", "done"]


async def test_an_engine_that_is_not_entered_yet_says_so(lab: Lab) -> None:
    engine = perdure.Engine(lab.path, workflows=[works])
    with pytest.raises(EngineClosed):
        await engine.start(works, 0)
    with pytest.raises(EngineClosed):
        engine.handle("w")
    with pytest.raises(EngineClosed):
        await perdure.Client(lab.path).list()


async def test_an_engine_entered_twice_refuses_and_goes_on(lab: Lab) -> None:
    async with lab.engine(works) as engine:
        with pytest.raises(EngineMisused, match="entered already"):
            await engine.__aenter__()
        assert await (await engine.start(works, 0)).result(timeout=30) == ["done", "done"]
    async with engine:
        assert await (await engine.start(works, 0)).result(timeout=30) == ["done", "done"]


async def test_run_where_a_loop_runs_already_says_what_to_do_instead(lab: Lab) -> None:
    with pytest.raises(EngineMisused, match="notebook"):
        perdure.run(works, 0, store=lab.path)


# --- shutting down ---


async def test_a_graceful_shutdown_waits_for_running_steps_records_them_and_begins_no_others(lab: Lab) -> None:
    async with lab.engine(works) as engine:
        await engine.start(works, 0.1, id="w")
        await until(lambda: seen)
    assert seen == ["begin", "end"]
    async with lab.engine(works) as engine:
        assert await engine.handle("w").result(timeout=30) == ["done", "done"]
    assert seen == ["begin", "end", "begin", "end"]


async def test_after_the_shutdown_timeout_steps_are_cancelled_and_run_again_later(lab: Lab) -> None:
    async with lab.engine(works, shutdown_timeout=0.05) as engine:
        await engine.start(works, 30, id="w")
        await until(lambda: seen)
    assert seen == ["begin", "cut off"]
    async with lab.engine(works, shutdown_timeout=0) as engine:
        await until(lambda: seen[2:] == ["begin"])
        assert (await engine.handle("w").describe()).recoveries == 0


async def test_a_thread_that_never_ends_does_not_hold_the_engine(lab: Lab) -> None:
    gate = threading.Event()

    @step(name="stuck")
    def stuck() -> None:
        seen.append("begin")
        gate.wait(20)

    @workflow(name="hangs")
    async def hangs() -> None:
        await stuck()

    try:
        async with lab.engine(hangs, shutdown_timeout=0.05) as engine:
            await engine.start(hangs)
            await until(lambda: seen)
    finally:
        gate.set()


async def test_whoever_waits_when_the_engine_closes_is_told(lab: Lab) -> None:
    async with lab.engine(listens, works, max_active=1) as engine:
        handle = await engine.start(listens)
        await status(handle, "parked")
        waiting = [asyncio.create_task(handle.result()) for _ in range(50)]
        await engine.start(works, 0.05)
        blocked = asyncio.create_task(engine.start(works, 0.06))
        await until(lambda: seen)
    for task in [*waiting, blocked]:
        with pytest.raises(EngineClosed):
            await asyncio.wait_for(task, 30)


async def test_readers_close_when_all_that_was_asked_for_is_answered() -> None:
    background = ThreadBackground(asyncio.get_running_loop())
    gate, answers = threading.Event(), list[Any]()
    for i in range(6):
        background.run(lambda i=i: (gate.wait(5), i)[1], answers.append)  # type: ignore[misc]
    closing = asyncio.create_task(asyncio.to_thread(background.close))
    await asyncio.sleep(0)
    gate.set()
    await closing
    assert sorted(answers) == list(range(6))


class SlowToRead(SqliteStore):
    """Its scans, once `slow`, and heartbeats end when it is closed under them, or a moment later when it is not."""

    slow = False

    def __init__(self, path: Path) -> None:
        super().__init__(path, durability="process")
        self.read, self.closed = threading.Event(), threading.Event()

    def _dawdle(self) -> None:
        if self.slow:
            self.read.set()
            self.closed.wait(0.2)

    def ready(self, session: Session, now_ms: int, after: Key | None, limit: int) -> list[Row]:
        self._dawdle()
        return super().ready(session, now_ms, after, limit)

    def renew(self, session: Session) -> Lease:
        self._dawdle()
        return super().renew(session)

    def close(self) -> None:
        super().close()
        self.closed.set()


@pytest.mark.parametrize("who", ["the scan", "the heart"])
async def test_closing_is_quiet_what_reads_the_store_ends_before_it(
    lab: Lab, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    monkeypatch.setattr(lease, "PAUSE_S", 0.01 if who == "the heart" else 60)
    store = SlowToRead(lab.path)
    monkeypatch.setattr(engine_module, "open_store", lambda *_, **__: store)
    async with lab.engine(listens) as engine:
        store.slow = True
        if who == "the scan":
            engine._running().arrivals.scan()
        await until(store.read.is_set)
    assert store.closed.is_set()
    await until(lambda: not {"perdure-heart", "perdure-reader_0"} & {each.name for each in threading.enumerate()})
    assert caplog.records == []


async def test_messages_under_way_when_the_engine_closes_are_written_or_refused(lab: Lab) -> None:
    async with lab.engine(listens) as engine:
        handle = await engine.start(listens, id="l")
        sends = [asyncio.create_task(handle.signal("go", i, id=str(i))) for i in range(200)]
        await asyncio.sleep(0)
    answers = await asyncio.wait_for(asyncio.gather(*sends, return_exceptions=True), 30)
    assert all(a is None or isinstance(a, EngineClosed | perdure.ExecutionClosed) for a in answers)


async def test_run_forever_ends_when_the_engine_may_not_go_on(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    async with lab.engine(listens, works) as engine:
        handle = await engine.start(listens)
        waiting = asyncio.create_task(handle.result())
        running = asyncio.create_task(engine.run_forever())
        await asyncio.sleep(0.02)
        side = Path(f"{lab.path.resolve()}-owner")
        side.rename(side.with_suffix(".gone"))
        with pytest.raises(OwnershipLost, match="was deleted or replaced"):
            await asyncio.wait_for(running, 30)
        with pytest.raises(OwnershipLost):
            await waiting
        for call in (lambda: handle.signal("go"), lambda: engine.start(listens), handle.describe):
            with pytest.raises(OwnershipLost):
                await asyncio.wait_for(call(), 30)  # type: ignore[operator]
    assert "this engine stops" in caplog.text


async def test_messages_under_way_when_ownership_is_lost_are_refused(lab: Lab) -> None:
    async with lab.engine(listens) as engine:
        handle = await engine.start(listens)
        await status(handle, "parked")
        fence(lab.path)
        start = asyncio.create_task(engine.start(listens, id="new"))
        sends = [asyncio.create_task(handle.signal("go", i)) for i in range(3)]
        answers = await asyncio.wait_for(asyncio.gather(start, *sends, return_exceptions=True), 30)
        assert isinstance(answers[0], OwnershipLost)
        assert all(answer is None or isinstance(answer, OwnershipLost) for answer in answers[1:])
        with pytest.raises(OwnershipLost):
            await asyncio.wait_for(handle.signal("go"), 30)


def fence(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(5000)
    connection.execute("UPDATE fence SET epoch = epoch + 1")
    connection.close()


# --- two engines, one file ---


async def test_a_second_engine_on_one_file_is_refused_by_name_or_waits_if_told_so(lab: Lab) -> None:
    async with lab.engine(listens) as engine:
        await engine.start(listens, id="l")
        with pytest.raises(perdure.StoreBusy, match=rf"process {os.getpid()}"):
            async with lab.engine(listens):
                pass
        second = perdure.Engine(lab.path, workflows=[listens], wait=True)
        entering = asyncio.create_task(second.__aenter__())
        await asyncio.sleep(0.15)
        assert not entering.done()
        await engine.handle("l").signal("go", 1)
        await engine.handle("l").result(timeout=30)
    await asyncio.wait_for(entering, 30)
    try:
        assert await second.handle("l").result(timeout=30) == 1
    finally:
        await second.__aexit__(None, None, None)


async def test_an_engine_that_cannot_listen_says_why_and_leaves_the_file_free(lab: Lab) -> None:
    socket = Path(local.socket_path(str(lab.path)))
    socket.mkdir()
    with pytest.raises(StoreError, match="socket"):
        async with lab.engine(listens):
            pass
    ours = ("perdure-committer", "perdure-heart")  # told to end; the heart may take a moment
    await until(lambda: not any(thread.name in ours for thread in threading.enumerate()))
    socket.rmdir()
    async with lab.engine(listens) as engine:
        await engine.start(listens)


# --- clients ---


async def test_a_client_works_beside_an_engine_and_without_one(lab: Lab) -> None:
    async with lab.client() as client:
        handle = await client.start(listens, id="l")
        assert (await handle.describe()).status == "active"
        async with lab.engine(listens):
            await status(handle, "parked")
        await handle.signal("go", [1])
        async with lab.engine(listens):
            assert await handle.result(timeout=30) == [1]
        assert await handle.result(timeout=30) == [1]
        assert [row.status for row in await client.list(status=["completed"], workflow="listens")] == ["completed"]


async def test_a_client_beside_an_engine_goes_through_its_socket(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async with lab.engine(listens), lab.client() as client:

        def never(*_: Any, **__: Any) -> Any:
            raise AssertionError("the client wrote by itself")

        monkeypatch.setattr(client.store, "deposit", never)
        monkeypatch.setattr(client.store, "resume", never)
        handle = await client.start(listens, id="l")
        await client.start(listens, id="l")
        with pytest.raises(perdure.ExecutionExists):
            await client.start(works, 1.0, id="l")
        await handle.resume()
        await handle.signal("go", 7)
        assert await handle.result(timeout=30) == 7
        with pytest.raises(perdure.ExecutionClosed):
            await handle.signal("go", 8)
        with pytest.raises(perdure.ExecutionNotFound):
            await client.handle("none").cancel()


async def test_a_client_starts_what_the_engine_beside_it_does_not_know(lab: Lab) -> None:
    @workflow(name="unknown")
    async def unknown() -> None: ...

    async with perdure.Engine(lab.path), lab.client() as client:
        handle = await client.start(unknown, id="u")
        assert (await handle.describe()).status in {"active", "stalled"}  # it stalls visibly at the next look


async def test_more_clients_than_connections_are_all_served(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "MAX_CONNECTIONS", 4)

    @workflow(name="sums")
    async def sums(n: int) -> int:
        return sum([await perdure.receive("item", int) for _ in range(n)])

    async with lab.engine(sums), lab.client() as client:
        handle = await client.start(sums, 60)
        await asyncio.gather(*[handle.signal("item", i) for i in range(60)])
        assert await handle.result(timeout=30) == sum(range(60))


async def test_a_client_goes_on_when_the_engine_closes_under_it(lab: Lab) -> None:
    async with lab.client() as client:
        async with lab.engine(listens):
            handle = await client.start(listens, id="l")
            waiting = asyncio.create_task(handle.result())
            sending = [asyncio.create_task(handle.signal("stay", i)) for i in range(20)]
            await asyncio.sleep(0)
        await asyncio.gather(*sending)
        await handle.signal("go", "later")
        async with lab.engine(listens):
            assert await asyncio.wait_for(waiting, 30) == "later"


def mode(path: Path) -> int | None:
    return path.stat().st_mode & 0o777 if path.exists() else None


async def test_a_path_too_long_for_a_socket_gets_one_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20) / ("longer" * 10)
    folder.mkdir(parents=True)
    lab = Lab(folder / "lab.db")
    path = Path(local.socket_path(str(lab.path)))
    assert path.parent != folder
    assert mode(path.parent) == 0o700
    async with lab.engine(listens), lab.client() as client:
        handle = await client.start(listens)
        assert mode(path) == 0o600
        await handle.signal("go", 1)
        assert await handle.result(timeout=30) == 1
    assert mode(path) is None


async def raw(path: Path, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(data)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()


async def test_nonsense_on_the_socket_harms_nobody(lab: Lab) -> None:
    async with lab.engine(listens) as engine:
        path = Path(local.socket_path(str(lab.path)))
        assert await raw(path, b"") == b""
        assert await raw(path, b"GET / HTTP/1.1\r\n\r\n") == b""
        assert await raw(path, b"\x00\x00\x00\x02hi") == b""
        assert await raw(path, b"\xff\xff\xff\xffhuge") == b""
        assert b"protocol 1, not 9" in await raw(path, framed(b"\x81\xa8protocol\x09"))
        assert await raw(path, framed(b"\x80"))
        handle = await engine.start(listens)
        await handle.signal("go", 1)
        assert await handle.result(timeout=30) == 1


async def test_a_client_hears_of_the_trouble_of_the_engine_beside_it(lab: Lab) -> None:
    async with lab.engine(listens) as engine, lab.client() as client:
        handle = await client.start(listens)
        await status(handle, "parked")
        writer = engine.store._writer  # type: ignore[attr-defined]
        writer.pragma("max_page_count", writer.pragma("page_count"))
        sends = [handle.signal("go", "x" * 50_000) for _ in range(100)]
        answers = await asyncio.gather(*sends, return_exceptions=True)
        assert any(isinstance(answer, StoreError) and "No space left" in str(answer) for answer in answers)
        writer.pragma("max_page_count", 2**31)


async def test_what_a_client_asked_and_no_longer_waits_for_ends(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a query to what begins in a week would hold its connection that long."""
    monkeypatch.setattr(local, "STILL_THERE_S", 0.01)
    async with lab.engine(listens) as engine, lab.client() as client:
        handle = await client.start(listens, delay=3_600)
        with pytest.raises(errors.WaitTimeout):
            await handle.query("anything", timeout=0.05)
        server = engine._server
        assert server is not None
        await until(lambda: not server._connections)


async def test_a_start_that_could_not_be_written_is_told_as_that_and_not_as_an_id_that_is_taken(lab: Lab) -> None:
    async with lab.engine(listens) as engine, lab.client() as client:
        writer = engine.store._writer  # type: ignore[attr-defined]
        writer.pragma("max_page_count", writer.pragma("page_count"))
        with pytest.raises(StoreError, match="No space left"):
            await client.start(listens, delay=60, memo={"much": os.urandom(10_000)})
        writer.pragma("max_page_count", 2**31)


async def test_a_socket_folder_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    user = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: user)
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    root = Path("/").stat()
    monkeypatch.setattr(Path, "stat", lambda _: root)
    with pytest.raises(StoreError, match="belongs to another user"):
        local.socket_path("/x" * 60)


def test_calls_that_wait_for_a_thread_can_be_abandoned_and_ended_ones_stay_ended() -> None:
    pool, gate, ran = ThreadPool(1), threading.Event(), list[str]()
    began = threading.Event()
    stuck = pool.submit(lambda: (began.set(), gate.wait(10), None)[2], Context())
    assert began.wait(5)
    waiting = pool.submit(lambda: ran.append("waiting"), Context())
    last = pool.submit(lambda: ran.append("last"), Context())
    pool.abandon(waiting)
    assert pool.abandoned == 0
    pool.abandon(stuck)
    pool.abandon(stuck)
    assert pool.abandoned == 1
    while not last.finished:
        gate.wait(0.001)
    pool.abandon(last)
    gate.set()
    while pool.abandoned:
        gate.wait(0.001)
    pool.close()
    assert ran == ["last"]


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body
