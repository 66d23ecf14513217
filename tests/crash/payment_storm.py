"""Kills a worker that charges money, and the payment server too, again and again: one charge each, sums checked.

The command is `tests.crash.payments`. Processes are forked from one that has imported this file: a kill costs little.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import multiprocessing
import os
import random
import sqlite3
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from tests.crash import payment_server

import perdure
from perdure.core import events as ev
from perdure.core.errors import StoreError

OPEN = ("active", "parked", "stalled")
DRAIN_S = 60
PORT = "PERDURE_TEST_PAYMENT_PORT"
PATIENT = perdure.Retry(attempts=None, delay=0.02, maximum=0.1)
processes = multiprocessing.get_context("forkserver")


@perdure.step(retry=PATIENT)
def charge(purchase: str, cents: int) -> int:
    """Over HTTP; the number of the charge."""
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ[PORT]), timeout=5)
    with closing(connection):
        key = perdure.current_step().idempotency_key
        body = json.dumps({"purchase": purchase, "cents": cents})
        connection.request("POST", "/charges", body, {"Idempotency-Key": key})
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"the payment server said {answer.status}")
        return int(json.loads(answer.read())["charge"])


@perdure.workflow
async def purchase(number: int) -> list[int]:
    """A deposit, then the rest in two parts at once."""
    deposit = await charge(f"{number}/deposit", amount(number))
    parts = await asyncio.gather(charge(f"{number}/a", 2 * amount(number)), charge(f"{number}/b", 3 * amount(number)))
    return [deposit, *parts]


@perdure.workflow
async def subscription(number: int, told: list[int]) -> list[int]:
    """Three months, each a run of its own: the same step under the same number, and new keys."""
    told = [*told, await charge(f"{number}/month {len(told)}", amount(number))]
    if len(told) < 3:
        perdure.continue_as_new(number, told)
    return told


def amount(number: int) -> int:
    """Cents."""
    return 100 + number % 37


def charges(number: int) -> list[tuple[str, int]]:
    """What a purchase must come to: every third is a subscription."""
    parts = {"month 0": 1, "month 1": 1, "month 2": 1} if number % 3 == 0 else {"deposit": 1, "a": 2, "b": 3}
    return [(f"{number}/{part}", times * amount(number)) for part, times in parts.items()]


def work(store: Path, port: int, ready: Any) -> None:
    """The worker's process: run until killed."""
    os.environ[PORT] = str(port)

    async def forever() -> None:
        async with perdure.Engine(store, workflows=[purchase, subscription], wait=True) as engine:
            ready.send("ready")
            await engine.run_forever()

    asyncio.run(forever())


class Process:
    """A real process; it says when it is ready."""

    def __init__(self, target: Any, *args: Any, **options: Any) -> None:
        self.said, theirs = processes.Pipe(duplex=False)
        self._process = processes.Process(target=target, args=args, kwargs={**options, "ready": theirs}, daemon=True)
        self._process.start()
        theirs.close()

    def ready(self) -> Any:
        """What it says."""
        assert self.said.poll(30), "it does not begin"
        return self.said.recv()

    def kill(self) -> None:
        self._process.kill()
        self._process.join(30)
        if self._process.exitcode != -9:
            raise AssertionError(f"it ended by itself with {self._process.exitcode}")
        self._process.close()
        self.said.close()


class Storm:
    """Purchases all along, a worker with many lives, a server with a few."""

    def __init__(self, folder: Path, kills: int, seed: int, at_once: int, *, careless: bool) -> None:
        self.store = folder / "perdure.db"
        self.charges = folder / "charges.db"
        self.kills = kills
        self.at_once = at_once
        self.careless = careless
        self.chance = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.broken: list[str] = []
        self.branches: dict[str, int] = {}  # forks and rewinds: by the execution that came of each, the purchase
        self._port = 0
        self._done = False

    async def run(self) -> dict[str, Any]:
        """All of it; what is broken is in `broken`."""
        began = time.monotonic()
        server = self._serve()
        async with perdure.Client(self.store) as client:
            buying = asyncio.create_task(self._buy(client))
            while self.counts["worker kills"] < self.kills:
                await self._one_life()
                if self.chance.random() < 0.1:
                    server.kill()
                    self.counts["server kills"] += 1
                    server = self._serve()
            self._done = True
            await buying
            last = Process(work, self.store, self._port)
            await self._drain(client)
            last.kill()
            results = {}
            cursor: str | None = None
            while cursor != "":
                page = await client.list(cursor=cursor or "", limit=1000)
                names = [row.key.execution for row in page]
                results |= {name: await client.handle(name, purchase).result() for name in names}
                cursor = page.next
        server.kill()
        self._judge(results)
        return {**dict(self.counts), "laws broken": len(self.broken), "seconds": round(time.monotonic() - began, 1)}

    def _serve(self) -> Process:
        server = Process(payment_server.serve, self.charges, self._port, careless=self.careless)
        self._port = server.ready()
        return server

    async def _one_life(self) -> None:
        worker = Process(work, self.store, self._port)
        if self.chance.random() < 0.1:  # while it sets itself up
            await asyncio.sleep(self.chance.random() * 0.05)
        else:
            await asyncio.to_thread(worker.ready)
            await asyncio.sleep(self.chance.random() * 0.15)
        worker.kill()
        self.counts["worker kills"] += 1

    async def _buy(self, client: perdure.Client) -> None:
        while not self._done:
            rows = await client.list(status=OPEN, limit=1000)
            await self._resume(client, rows)
            await self._go_back(client)
            for _ in range(self.at_once - len(rows)):
                self.counts["purchases"] += 1
                number = self.counts["purchases"]
                what: tuple[Any, ...] = (subscription, number, []) if number % 3 == 0 else (purchase, number)
                await self._persist(client.start, *what, id=f"purchase-{number}")
            await asyncio.sleep(0.02)

    async def _go_back(self, client: perdure.Client) -> None:
        """Fork one of the purchases that have ended, or rewind it: the deposit is copied, the rest is bought anew."""
        number = self.chance.randrange(self.counts["purchases"] + 1)
        name, fork = f"purchase-{number}", f"fork-{number}"
        if number % 3 == 0 or {name, fork} & self.branches.keys():
            return
        if (await client.handle(name).describe()).status != "completed":
            return
        journal = await client.handle(name).journal()
        paid = next(each.position for each in journal if isinstance(each.event, ev.StepCompleted))
        if number % 3 == 1:
            self.branches[fork] = number
            await self._persist(client.fork, name, new_id=fork, at=paid + 1)
            return
        self.branches[name] = number
        while len(await client.handle(name).runs()) < 2:  # whoever got no answer looks before asking again
            with suppress(StoreError):
                await client.handle(name).rewind(at=paid + 1)

    async def _persist(self, call: Any, *args: Any, **options: Any) -> None:
        while True:
            try:
                await call(*args, **options)
            except StoreError:
                await asyncio.sleep(0.02)
            else:
                return

    async def _resume(self, client: perdure.Client, rows: list[Any]) -> None:
        for row in rows:
            if row.status == "stalled":
                if "P0108" not in row.problem:  # only for having been there at too many kills
                    self.broken.append(f"{row.key.execution} stalled: {row.problem}")
                self.counts["resumed"] += 1
                await self._persist(client.handle(row.key.execution).resume)

    async def _drain(self, client: perdure.Client) -> None:
        end = time.monotonic() + DRAIN_S
        while rows := await client.list(status=OPEN, limit=1000):
            await self._resume(client, rows)
            if time.monotonic() > end:
                raise AssertionError(f"{len(rows)} purchases do not come to an end")
            await asyncio.sleep(0.05)

    def _judge(self, results: dict[str, list[int]]) -> None:
        with closing(sqlite3.connect(self.charges)) as connection:
            booked = connection.execute("SELECT id, key, purchase, cents FROM charge").fetchall()
            asked = connection.execute("SELECT count(*), count(DISTINCT key) FROM request").fetchone()
        self.counts["charges"] = len(booked)
        self.counts["requests under a known key"] = asked[0] - asked[1]
        self.counts["cents"] = sum(cents for _, _, _, cents in booked)
        if len({key for _, key, _, _ in booked}) != len(booked):
            self.broken.append("a key was charged twice")
        by_id = {number: (purchase, cents) for number, _, purchase, cents in booked}
        wanted = [each for number in range(1, self.counts["purchases"] + 1) for each in charges(number)]
        self.counts["forks and rewinds"] = len(self.branches)
        wanted += [each for number in self.branches.values() for each in charges(number)[1:]]
        if sorted(by_id.values()) != sorted(wanted):
            self.broken.append(f"{len(booked)} charges instead of {len(wanted)}")
        if self.counts["cents"] != sum(cents for _, cents in wanted):
            self.broken.append(f"{self.counts['cents']} cents instead of {sum(cents for _, cents in wanted)}")
        for name, told in results.items():
            number = int(name.rpartition("-")[2])
            if [by_id.get(each) for each in told] != charges(number):
                self.broken.append(f"{name} was told of {told}")
            original = results[f"purchase-{number}"]
            if told is not original and (told[0] != original[0] or set(told[1:]) & set(original)):
                self.broken.append(f"{name} shares {told} with {original}")


def main() -> int:
    """Run one storm, print the figures; 1 if money is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=10, help="purchases that are kept open")
    parser.add_argument("--careless", action="store_true", help="a server that charges again: shows what is noticed")
    told = parser.parse_args()
    processes.set_forkserver_preload([__name__])
    with tempfile.TemporaryDirectory(prefix="perdure-payments-", ignore_cleanup_errors=True) as folder:
        storm = Storm(Path(folder), told.kills, told.seed, told.at_once, careless=told.careless)
        figures = asyncio.run(storm.run())
    for name, value in figures.items():
        print(f"{name:30} {value}")
    for broken in storm.broken[:20]:
        print("BROKEN:", broken)
    return 1 if storm.broken else 0
