"""CPU and time of `SqliteStore.commit` per event, one event of each of n executions a commit.

    python benchmarks/store_commit.py

The best and the median commit: on a busy machine the best tells of the code, the median of the neighbours.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path

from perdure.core import events as ev
from perdure.core.identity import ExecutionId, Key, Namespace, shard_of
from perdure.store.protocol import Batch, NewEvent, Outcome, Session, Start
from perdure.store.sqlite import SqliteStore

EXECUTIONS = 500
PAYLOAD = ev.Payload(b"x" * 100)


def create(store: SqliteStore, session: Session) -> list[tuple[Key, str]]:
    """The executions, each with its first two events."""
    made, batches = [], []
    for n in range(EXECUTIONS):
        key = Key(shard_of("default", f"bench-{n}", store.shards), Namespace("default"), ExecutionId(f"bench-{n}"))
        event = ev.ExecutionStarted("research", f"{n:032x}", PAYLOAD)
        begin = [NewEvent(event, 1), NewEvent(ev.ExecutionClaimed(), 1)]
        batches.append(Batch(key, event.run, 0, begin, create=Start(key, event, bytes(32))))
        made.append((key, event.run))
    store.commit(session, batches)
    return made


def measure(group: int, commits: int) -> None:
    """One line of the table."""
    dice = random.Random(1)  # noqa: S311 - for spreading, not for secrets
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteStore(Path(directory) / "store.db")
        session = store.open_session("bench", ("default",), "")
        made, positions = create(store, session), [2] * EXECUTIONS
        cpu, wall = [], []
        for _ in range(commits):
            batches = []
            for n in dice.sample(range(EXECUTIONS), group):
                step = ev.StepCompleted(positions[n], "search", bytes(16), "research.py:12", PAYLOAD, result=PAYLOAD)
                batches.append(Batch(*made[n], positions[n], [NewEvent(step, 1_700_000_000_000)]))
                positions[n] += 1
            cpu_before, before = time.thread_time(), time.perf_counter()
            outcomes = store.commit(session, batches).outcomes
            cpu.append((time.thread_time() - cpu_before) / group * 1e6)
            wall.append((time.perf_counter() - before) / group * 1e6)
            assert set(outcomes) == {Outcome.COMMITTED}
        store.close()
    best, usual, waited = min(cpu), statistics.median(cpu), statistics.median(wall)
    print(f"{group:6} {best:12.1f} {usual:12.1f} {waited:12.1f}")


if __name__ == "__main__":
    print("µs per event\n events     CPU best   CPU median  wall median")
    for events, repeats in ((1, 2000), (10, 1000), (100, 200), (500, 60)):
        measure(events, repeats)
