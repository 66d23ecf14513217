"""Kills a worker again and again at random moments, and asks the judge whether anything was lost or done twice.

python -m tests.crash.campaign --kills 200 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.crash import workload
from tests.crash.judge import Judge, every_row, integrity, replays, value_of
from tests.crash.ledger import VARIABLE, Reader

import perdure
from perdure.core.errors import StoreError
from perdure.store.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]
OPEN = ("active", "parked", "stalled")
DRAIN_S = 90


class Campaign:
    """One store, one ledger, many lives of the worker; messages from outside all along."""

    def __init__(self, folder: Path, kills: int, seed: int, at_once: int) -> None:
        self.kills = kills
        self.at_once = at_once
        self.random = random.Random(seed)
        self.store = folder / "crash.db"
        self.ledger = folder / "ledger.jsonl"
        self.judge = Judge(self.store, Reader(self.ledger))
        self.counts: Counter[str] = Counter()
        self.wanted: dict[str, workload.End] = {}  # acknowledged starts
        self.poisoned = 0
        self._errands: set[asyncio.Task[None]] = set()
        self._done = False
        self._next = 0

    async def run(self) -> dict[str, Any]:
        """All of it. The findings are in `judge.broken`."""
        began = time.monotonic()
        async with perdure.Client(self.store) as client:
            self.client = client
            feeding = asyncio.create_task(self._feed())
            for life in range(1, self.kills + 1):
                await asyncio.to_thread(self.judge.look)
                await self._one_life(life)
            self._done = True
            await feeding
            await asyncio.to_thread(self.judge.look)
            await self._drain()
        self._judge_ends()
        return {**self._figures(), "seconds": round(time.monotonic() - began, 1)}

    # --- the worker's lives ---

    async def _spawn(self, life: int, *, own: bool = True) -> asyncio.subprocess.Process:
        cache = self.random.choice(["0", "5", "2000"])
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.crash.worker", str(self.store), "--life", str(life), "--cache", cache),
            *(["--own"] if own else []),
            cwd=ROOT,
            env=os.environ | {VARIABLE: str(self.ledger)},
            stdout=asyncio.subprocess.PIPE,
            stderr=(self.store.parent / "worker.log").open("ab"),
        )

    async def _one_life(self, life: int) -> None:
        worker = await self._spawn(life)
        await self._moment(worker)
        if worker.returncode is None:
            worker.kill()
            self.counts["kills"] += 1
        if await worker.wait() != -9:
            self.judge.broken.append(f"the worker of life {life} ended by itself with {worker.returncode}")
        if self.random.random() < 0.3:  # time without an engine: clients write the file themselves
            await asyncio.sleep(self.random.random() * 0.2)

    async def _moment(self, worker: asyncio.subprocess.Process) -> None:
        """A random one: during the set-up, some time after it, or once the ledger has grown by some lines."""
        choice = self.random.random()
        if choice < 0.08:
            await asyncio.sleep(self.random.random() * 0.3)
            self.counts["kills_at_set_up"] += 1
            return
        assert worker.stdout is not None
        await asyncio.wait_for(worker.stdout.readline(), 30)
        if choice < 0.7:
            await asyncio.sleep(0.1 + self.random.random())
            return
        size, growth = self.judge.ledger.size(), self.random.randrange(1, 40_000)
        end = time.monotonic() + 1.5
        while self.judge.ledger.size() < size + growth and time.monotonic() < end:  # noqa: ASYNC110 - a file grows
            await asyncio.sleep(0.001)

    async def _drain(self) -> None:
        """No more kills: everything must come to its end."""
        worker = await self._spawn(self.kills + 1, own=False)
        end = time.monotonic() + DRAIN_S
        while time.monotonic() < end:
            rows = await self.client.list(status=OPEN, limit=1000)
            if not rows and not self._errands:
                break
            for row in rows:
                if row.status == "stalled":
                    await self._resume(row)
            await asyncio.sleep(0.1)
        for errand in list(self._errands):
            errand.cancel()
            self.judge.broken.append(f"not delivered in time: {errand.get_name()}")
        worker.terminate()
        if await worker.wait() != 0:
            self.judge.broken.append(f"the last worker ended with {worker.returncode}")
        self.judge.look()

    async def _resume(self, row: Any) -> None:
        if "P0108" not in row.problem:  # only executions that were there at four kills without progress may stall
            self.judge.broken.append(f"{row.key.execution} stalled: {row.problem}")
        self.poisoned += 1
        await self.client.handle(row.key.execution).resume()

    # --- the world outside ---

    async def _feed(self) -> None:
        while not self._done:
            rows = await self.client.list(status=OPEN, limit=1000)
            for row in rows:
                if row.status == "stalled":
                    await self._resume(row)
            for _ in range(self.at_once - len(rows)):
                await self._start_one()
            await asyncio.sleep(0.05)

    async def _start_one(self) -> None:
        self._next += 1
        n, name = self._next, self.random.choice(list(workload.KINDS))
        kind, execution = workload.KINDS[name], f"{name}-{self._next}"
        await self._persist(lambda: self.client.start(kind.workflow, n, id=execution))
        self.wanted[execution] = kind.end(n)
        self.counts["starts"] += 1
        errand = {"signals": self._send_items, "approval": self._approve, "cancelled": self._cancel}.get(name)
        if errand is not None:
            task = asyncio.create_task(errand(n), name=execution)
            self._errands.add(task)
            task.add_done_callback(self._errands.discard)

    async def _persist(self, call: Callable[[], Awaitable[Any]]) -> None:
        """Until it is acknowledged: messages carry ids, so that sending again is safe."""
        while True:
            try:
                await call()
            except StoreError:
                self.counts["not_acknowledged"] += 1
                await asyncio.sleep(0.05)
            else:
                return

    async def _send_items(self, n: int) -> None:
        handle = self.client.handle(f"signals-{n}")
        for item in range(workload.signal_count(n)):
            await asyncio.sleep(self.random.random() * 0.4)
            await self._persist(lambda item=item: handle.signal("item", item, id=f"{n}:{item}"))  # type: ignore[misc]
            self.counts["signals"] += 1

    async def _approve(self, n: int) -> None:
        await asyncio.sleep(self.random.random())
        await self._persist(lambda: self.client.handle(f"approval-{n}").signal("go", 1000, id=f"go:{n}"))
        self.counts["signals"] += 1

    async def _cancel(self, n: int) -> None:
        await asyncio.sleep(self.random.random())
        await self._persist(lambda: self.client.handle(f"cancelled-{n}").cancel(f"reason {n}"))
        self.counts["cancels"] += 1

    # --- the end ---

    def _judge_ends(self) -> None:
        broken = self.judge.broken
        store = SqliteStore(self.store)
        workflows = {workflow.name: workflow for workflow in workload.WORKFLOWS}
        ended: dict[str, workload.End] = {}
        try:
            for row in every_row(store):
                self.counts[row.status] += 1
                self.counts["events"] += row.position
                if row.status in OPEN:
                    broken.append(f"{row.key.execution} has not ended: {row}")
                    continue
                ended[row.key.execution] = workload.End(row.status, value_of(store, row))
                problem = replays(store, row, workflows)
                broken.extend([problem] if problem else [])
                if store.dead_letters(row.key, 10):
                    broken.append(f"{row.key.execution} has dead letters: {store.dead_letters(row.key, 10)}")
        finally:
            store.close()
        self._compare(ended)
        if (word := integrity(self.store)) != "ok":
            broken.append(f"integrity_check: {word}")

    def _compare(self, ended: dict[str, workload.End]) -> None:
        for execution in [*self.wanted, *self.judge.own]:
            if execution not in ended:
                self.judge.broken.append(f"{execution} was acknowledged and is lost")
        for execution, end in ended.items():
            wanted = workload.end_of(execution)
            if wanted is not None and end != wanted:
                self.judge.broken.append(f"{execution} came to {end}, not to {wanted}")

    def _figures(self) -> dict[str, Any]:
        judge = self.judge
        return {
            **dict(sorted(self.counts.items())),
            "own_starts": len(judge.own),
            "step_starts": judge.lines["start"],
            "steps_recorded": len(judge.answered),
            "recorded_steps_run_again": sum("ran again" in each for each in judge.broken),
            "unrecorded_attempts_run_again": judge.repeated,
            "resumed_after_four_kills_without_progress": self.poisoned,
            "laws_broken": len(judge.broken),
        }


def main() -> int:
    """Run one, print the figures; 1 if a law was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=40, help="executions that are kept open")
    parser.add_argument("--folder", type=Path, help="where to keep store, ledger and log; default: a temporary one")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perdure-crash-", ignore_cleanup_errors=True) as temporary:
        folder = told.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        campaign = Campaign(folder, told.kills, told.seed, told.at_once)
        figures = asyncio.run(campaign.run())
    for name, value in figures.items():
        print(f"{name:45} {value}")
    for broken in campaign.judge.broken[:20]:
        print("BROKEN:", broken)
    if campaign.judge.broken:
        print(f"again: python -m tests.crash.campaign --kills {told.kills} --seed {told.seed} --at-once {told.at_once}")
    return 1 if campaign.judge.broken else 0


if __name__ == "__main__":
    sys.exit(main())
