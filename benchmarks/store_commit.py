"""CPU and time of a commit per event, one event of each of n executions a commit.

    python benchmarks/store_commit.py

Three ways in turn, commit by commit, so that what disturbs the machine disturbs all: the bare `SqliteStore`; the same
as a process uses it, in `SealedStore`; and with values encrypted. The best and the median commit: on a busy machine
the best tells of the code, the median of the neighbours.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from perdure.core import events as ev
from perdure.core.identity import ExecutionId, Key, Namespace, shard_of
from perdure.encryption import KeyRing
from perdure.store.protocol import Batch, NewEvent, Outcome, Start, Store
from perdure.store.sealing import SealedStore
from perdure.store.sqlite import SqliteStore

EXECUTIONS = 500
PAYLOAD = ev.Payload(b"x" * 100)


WAYS: dict[str, Callable[[SqliteStore], Store]] = {
    "bare": lambda store: store,
    "packed": SealedStore,
    "encrypted": lambda store: SealedStore(store, KeyRing({"k": bytes(32)}, current="k")),
}


class Side:
    """One store with its executions."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.session = store.open_session("bench", ("default",), "")
        self.made: list[tuple[Key, str]] = []
        self.positions = [2] * EXECUTIONS
        self.cpu: list[float] = []
        self.wall: list[float] = []
        batches = []
        for n in range(EXECUTIONS):
            key = Key(shard_of("default", f"bench-{n}", store.shards), Namespace("default"), ExecutionId(f"bench-{n}"))
            event = ev.ExecutionStarted("research", f"{n:032x}", PAYLOAD)
            begin = [NewEvent(event, 1), NewEvent(ev.ExecutionClaimed(), 1)]
            batches.append(Batch(key, event.run, 0, begin, create=Start(key, event, bytes(16))))
            self.made.append((key, event.run))
        store.commit(self.session, batches)

    def commit(self, chosen: Sequence[int]) -> None:
        """One event more for each of these executions."""
        batches = []
        for n in chosen:
            position = self.positions[n]
            step = ev.StepCompleted(position, "search", bytes(16), "research.py:12", PAYLOAD, result=PAYLOAD)
            batches.append(Batch(*self.made[n], position, [NewEvent(step, 1_700_000_000_000)]))
            self.positions[n] += 1
        cpu_before, before = time.thread_time(), time.perf_counter()
        outcomes = self.store.commit(self.session, batches).outcomes
        self.cpu.append((time.thread_time() - cpu_before) / len(chosen) * 1e6)
        self.wall.append((time.perf_counter() - before) / len(chosen) * 1e6)
        assert set(outcomes) == {Outcome.COMMITTED}


def measure(group: int, commits: int) -> None:
    """A line of the table for each way."""
    dice = random.Random(1)  # noqa: S311 - for spreading, not for secrets
    with tempfile.TemporaryDirectory() as directory:
        sides = {way: Side(wrap(SqliteStore(Path(directory) / f"{way}.db"))) for way, wrap in WAYS.items()}
        for _ in range(commits):
            chosen = dice.sample(range(EXECUTIONS), group)
            for side in sides.values():
                side.commit(chosen)
        bare = statistics.median(sides["bare"].cpu)
        for way, side in sides.items():
            best, usual, waited = min(side.cpu), statistics.median(side.cpu), statistics.median(side.wall)
            print(f"{group:6} {way:10} {best:12.1f} {usual:12.1f} {waited:12.1f} {usual / bare:8.2f} x")
            side.store.close()


if __name__ == "__main__":
    print("µs per event\n events way           CPU best   CPU median  wall median   of bare")
    for events, repeats in ((1, 2000), (10, 1000), (100, 200), (500, 60)):
        measure(events, repeats)
