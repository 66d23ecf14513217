"""What many executions cost: asleep, closed and kept, and how quickly one of them answers another process.

scale.py [--asleep 100000] [--closed 1000000] [--signals 300] [--chain 100000] [--only asleep,growth,signals,chain]
    [--folder .cache/bench]
Prints one line of JSON for each, and writes all to benchmarks/results/. (`scale.py answer STORE` is who answers.)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import perdure
from perdure import step, workflow
from perdure.core import events as ev
from perdure.core.identity import DEFAULT_NAMESPACE, ExecutionId, Key, shard_of
from perdure.store.protocol import Batch, NewEvent, Start
from perdure.store.sqlite import SqliteStore

sys.path.insert(0, str(Path(__file__).parent))
from bench import machine  # type: ignore[import-not-found]
from perdure_side import chain, run_all  # type: ignore[import-not-found]

NONE = ev.Payload(b"\xc0")
ROUNDS = 3
IN_FLIGHT = 1_000
SEED_COMMIT = 2_000


def rss_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- asleep ----------------------------------------------------------------------------------------------------------


@workflow
async def sleeper(until: datetime) -> datetime:
    """Sleeps until then; says when it woke."""
    await asyncio.sleep((until - perdure.now()).total_seconds())
    return perdure.now()


async def asleep(file: Path, count: int, due: int = 1_000) -> dict[str, Any]:
    """Memory of a worker whose executions sleep; seconds until those that are due at one moment have all closed."""
    async with perdure.Engine(str(file), workflows=[sleeper], durability="process") as engine:
        first = await engine.start(sleeper, perdure_now(), id="warm")
        await first.result()
        before, began = rss_mb(), time.perf_counter()
        await start_sleepers(engine, "day", count, perdure_now(24 * 3600))
        await settled(engine)
        grown, took = rss_mb() - before, time.perf_counter() - began
    async with perdure.Engine(str(file), workflows=[sleeper]) as engine:
        due_at = perdure_now(8)
        handles = await start_sleepers(engine, "due", due, due_at)
        await asyncio.gather(*[handle.result() for handle in handles])
        late = (datetime.now(UTC) - due_at).total_seconds()
    return {"measure": "asleep", "asleep": count, "grown_mb": grown, "started_s": took, "due": due, "awake_s": late}


def perdure_now(seconds: float = 0) -> datetime:
    return datetime.fromtimestamp(time.time() + seconds, UTC)


async def start_sleepers(engine: perdure.Engine, name: str, count: int, until: datetime) -> list[Any]:
    handles: list[Any] = []
    for start in range(0, count, IN_FLIGHT):
        numbers = range(start, min(start + IN_FLIGHT, count))
        handles += await asyncio.gather(*[engine.start(sleeper, until, id=f"{name}-{n}") for n in numbers])
        if count > IN_FLIGHT:
            handles.clear()
    return handles


async def settled(engine: perdure.Engine) -> None:
    while await engine.list(status=["active"], limit=1):  # noqa: ASYNC110 (the rows are all there is to look at)
        await asyncio.sleep(0.2)


# --- growth ----------------------------------------------------------------------------------------------------------


def seed(file: Path, count: int) -> None:
    """Closed executions of three events, written by the store itself."""
    store = SqliteStore(file, durability="process")
    session = store.open_session("seed", ("default",), "seed")
    for start in range(0, count, SEED_COMMIT):
        numbers = range(start, min(start + SEED_COMMIT, count))
        store.commit(session, [closed(number, store.shards) for number in numbers])
    store.close_session(session)
    store.close()


def closed(number: int, shards: int) -> Batch:
    execution, run = f"old-{number}", f"{number:032x}"
    key = Key(shard_of(DEFAULT_NAMESPACE, execution, shards), DEFAULT_NAMESPACE, ExecutionId(execution))
    started = ev.ExecutionStarted(workflow="chain", run=run, input=NONE)
    events = (started, ev.ExecutionClaimed(), ev.ExecutionCompleted(result=NONE))
    news = [NewEvent(event, 1_700_000_000_000 + number) for event in events]
    return Batch(key, run, 0, news, create=Start(key, started, b"digest"), closes="completed")


async def rate(file: Path, name: str) -> float:
    """Steps per second of 500 executions with 10 steps each."""
    async with perdure.Engine(str(file), workflows=[chain]) as engine:
        await run_all(engine, chain, f"{name}-warm", 1, 0)
        began = time.perf_counter()
        await run_all(engine, chain, name, 500, 10)
        return 5_000 / (time.perf_counter() - began)


def growth(folder: Path, count: int) -> dict[str, Any]:
    """The rate in a file full of closed executions beside the rate in an empty one, taking turns."""
    full = folder / "full.db"
    seed(full, count)
    rates: dict[str, list[float]] = {"empty": [], "full": []}
    for turn in range(ROUNDS):
        empty = folder / f"empty-{turn}.db"
        rates["empty"].append(asyncio.run(rate(empty, f"turn-{turn}")))
        rates["full"].append(asyncio.run(rate(full, f"turn-{turn}")))
    beside = statistics.median(rates["full"]) / statistics.median(rates["empty"])
    size_mb = full.stat().st_size / 2**20
    return {"measure": "growth", "closed": count, "file_mb": size_mb, "rates": rates, "full_beside_empty": beside}


# --- signals ---------------------------------------------------------------------------------------------------------


@workflow
async def answer() -> int:
    """Waits for a number, and returns it."""
    return await perdure.receive("ask", int)


async def answering(file: Path) -> None:
    async with perdure.Engine(str(file), workflows=[answer]) as engine:
        await engine.run_forever()


async def signals(file: Path, count: int) -> dict[str, Any]:
    """Milliseconds from a signal sent by another process to the answer in its hands."""
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, "answer", str(file))
    try:
        while not file.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        took = []
        async with perdure.Client(str(file)) as client:
            for number in range(count):
                handle = await client.start(answer, id=f"ask-{number}")
                while (await handle.describe()).status != "parked":  # noqa: ASYNC110 (the row is all there is to look at)
                    await asyncio.sleep(0.005)
                began = time.perf_counter()
                await handle.signal("ask", number)
                assert await handle.result() == number
                took.append(1000 * (time.perf_counter() - began))
    finally:
        process.kill()
        await process.wait()
    found = statistics.quantiles(took, n=100)
    return {"measure": "signals", "count": count, "p50_ms": found[49], "p95_ms": found[94], "ms": sorted(took)}


# --- a chain of runs -------------------------------------------------------------------------------------------------


@step
async def trivial(number: int) -> str:
    return f"{number:0100}"


@workflow
async def link(done: int, steps: int, a_run: int) -> int:
    """So many steps in all, in runs of a few."""
    for number in range(done, done + a_run):
        await trivial(number)
    if done + a_run < steps:
        perdure.continue_as_new(done + a_run, steps, a_run)
    return done + a_run


async def chain_of_runs(file: Path, steps: int, a_run: int = 100) -> dict[str, Any]:
    """Memory of a worker, from one tenth to the next, while one execution goes on in run after run."""
    async with perdure.Engine(str(file), workflows=[link], durability="process") as engine:
        await (await engine.start(link, 0, 10 * a_run, a_run)).result()
        began = time.perf_counter()
        before, first = rss_mb(), await runs_of(engine, "chain")
        handle = await engine.start(link, 0, steps, a_run, id="chain")
        work = asyncio.ensure_future(handle.result())
        memory = []
        while not work.done():
            await asyncio.wait([work], timeout=1)
            memory.append(round(rss_mb() - before, 1))
        assert work.result() == steps
        took_s = time.perf_counter() - began
        runs = await runs_of(engine, "chain") - first
    tenths = memory[:: max(1, len(memory) // 10)]
    rate = round(steps / took_s)
    told = {"steps": steps, "runs": runs, "steps_per_s": rate, "grown_mb": max(memory), "by_time_mb": tenths}
    return {"measure": "chain", **told, "file_mb": round(file.stat().st_size / 2**20)}


async def runs_of(engine: perdure.Engine, name: str) -> int:
    """How many runs the execution has had."""
    try:
        return len(await engine.handle(name).runs(limit=100_000))
    except perdure.ExecutionNotFound:
        return 0


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def main() -> None:
    if sys.argv[1:2] == ["answer"]:
        asyncio.run(answering(Path(sys.argv[2])))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--asleep", type=int, default=100_000)
    parser.add_argument("--closed", type=int, default=1_000_000)
    parser.add_argument("--signals", type=int, default=300)
    parser.add_argument("--chain", type=int, default=100_000)
    parser.add_argument("--only", default="asleep,signals,growth,chain")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / ".cache" / "bench")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    only = options.only.split(",")
    started = datetime.now(UTC)
    results: dict[str, Any] = {"at": started.isoformat(timespec="seconds"), "machine": machine(), "measures": []}
    for measure in measures(only, options):
        results["measures"].append(measure)
        print(json.dumps(measure), flush=True)
    shutil.rmtree(options.folder, ignore_errors=True)
    options.results.mkdir(exist_ok=True)
    file = options.results / f"{started:%Y-%m-%d-%H%M}-scale.json"
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def measures(only: list[str], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if "asleep" in only:
        yield asyncio.run(asleep(emptied(options.folder) / "asleep.db", options.asleep))
    if "signals" in only:
        yield asyncio.run(signals(emptied(options.folder) / "signals.db", options.signals))
    if "chain" in only:
        yield asyncio.run(chain_of_runs(emptied(options.folder) / "chain.db", options.chain))
    if "growth" in only:
        yield growth(emptied(options.folder), options.closed)


if __name__ == "__main__":
    main()
