"""Random histories, told to the memory store and to SQLite at once: every answer and every row must be the same."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from perdure.core import events as ev
from perdure.core.errors import OwnershipLost
from perdure.core.identity import ExecutionId, Key, Namespace, shard_of
from perdure.store.memory import MemoryStore
from perdure.store.protocol import OPEN_STATUSES, Batch, Filter, Mail, NewEvent, Park, Running, Start, Store
from perdure.store.sqlite import SqliteStore

NAMES = ("a", "b", "c", "d")
SHARDS = 4
DATA = ev.Payload(b"\xc0")


def key(name: str) -> Key:
    return Key(shard_of("default", name, SHARDS), Namespace("default"), ExecutionId(name))


names = st.sampled_from(NAMES)
messages = st.builds(
    Mail,
    names.map(key),
    st.sampled_from([f"m{n}" for n in range(12)]),
    st.sampled_from(
        [
            ev.SignalReceived("m", "go", DATA),
            ev.CancelRequested("m"),
            ev.TerminateRequested("m"),
            ev.ChildClosed(1, "x", "failed"),
        ]
    ),
    st.sampled_from(["", "", "", "run-a", "run-b"]),
    seq=st.integers(0, 3),
)
step_events = st.sampled_from(
    [ev.TimerFired(1), ev.StepCompleted(1, "s"), ev.StepFailed(2, "s"), ev.StepAttemptFailed(3, "s")]
)


def start_of(name: str, *, parent: str = "", digest: bytes = b"d", workflow: str = "w") -> Start:
    origin = ev.Parent(parent, f"run-{parent}", 1) if parent else None
    return Start(key(name), ev.ExecutionStarted(workflow, f"run-{name}", DATA, parent=origin), digest)


class Stores(RuleBasedStateMachine):
    """The same call to both; the first is SQLite, the second memory."""

    @initialize(direct=st.booleans())
    def begin(self, direct):
        self.directory = Path(tempfile.mkdtemp())
        self.direct = direct
        self.now = 1_000
        memory = MemoryStore(shards=SHARDS, direct=direct, clock=lambda: self.now)
        self.stores: list[Store] = [self.sqlite(), memory]
        self.open()

    def sqlite(self) -> Store:
        path = self.directory / "store.db"
        return SqliteStore(path, shards=SHARDS, direct=self.direct, durability="process", clock=lambda: self.now)

    def open(self):
        self.session = self.both("open_session", "worker", ("default",), f"code-{self.now}")

    def both(self, method: str, *arguments: Any) -> Any:
        found = []
        for store in self.stores:
            try:
                found.append(getattr(store, method)(*arguments))
            except OwnershipLost:
                found.append(OwnershipLost)
        assert found[0] == found[1], method
        return found[0]

    def teardown(self):
        if hasattr(self, "stores"):
            for store in self.stores:
                store.close()
            shutil.rmtree(self.directory)

    def position(self, name: str) -> int:
        row = self.stores[0].row(key(name))
        return 0 if row is None else row.position

    # --- rules ---

    @rule(name=names, count=st.integers(1, 3), closes=st.sampled_from([None, None, "completed"]))
    def create(self, name, count, closes):
        start = start_of(name)
        events = [NewEvent(start.event, self.now)] + [NewEvent(ev.TimerFired(n), self.now) for n in range(count)]
        batch = Batch(key(name), f"run-{name}", 0, events, create=start, closes=closes)
        self.both("commit", self.session, [batch])

    @rule(data=st.data())
    def commit(self, data):
        batches = [self.draw_batch(data) for _ in range(data.draw(st.integers(1, 4)))]
        advice = [self.draw_advice(data) for _ in range(data.draw(st.integers(0, 2)))]
        self.both("commit", self.session, batches, advice)

    def draw_batch(self, data) -> Batch:
        name = data.draw(names)
        letters = self.stores[0].inbox(key(name), 10)
        taken = letters[: data.draw(st.integers(0, len(letters)))]
        parent = data.draw(st.sampled_from(["", name]))
        return Batch(
            key(name),
            data.draw(st.sampled_from([f"run-{name}"] * 5 + ["other"])),
            self.position(name) + data.draw(st.sampled_from([0] * 6 + [1, 2])),
            [NewEvent(event, self.now) for event in data.draw(st.lists(step_events, max_size=2))],
            taken,
            inbox_seen=data.draw(st.booleans()),
            mail=data.draw(st.lists(messages, max_size=2)),
            starts=[start_of(each, parent=parent) for each in data.draw(st.lists(names, max_size=1))],
            closes=data.draw(st.sampled_from([None] * 6 + ["completed", "terminated"])),
        )

    def draw_advice(self, data) -> Park | Running:
        name = data.draw(names)
        run, position = f"run-{name}", self.position(name)
        return data.draw(
            st.one_of(
                st.builds(
                    Park,
                    st.just(key(name)),
                    st.just(run),
                    st.sampled_from([position] * 3 + [position + 1]),
                    st.sampled_from(["parked", "parked", "stalled"]),
                    st.none() | st.integers(900, 1200),
                    st.sampled_from(["", "x"]),
                    st.sampled_from(["", "bug"]),
                ),
                st.builds(
                    Running, st.just(key(name)), st.just(run), st.integers(1, 4), st.just("s"), st.just(1), st.just(5)
                ),
            )
        )

    @rule(name=names, mail=st.lists(messages, max_size=3), digest=st.sampled_from([b"d", b"e"]), begin=st.booleans())
    def deposit(self, name, mail, digest, begin):
        self.both("deposit", [start_of(name, digest=digest)] if begin else [], mail)

    @rule(name=names)
    def resume(self, name):
        self.both("resume", key(name))

    @rule(limit=st.integers(1, 5))
    def deliver(self, limit):
        self.both("deliver", self.session, limit)

    @rule(by=st.integers(1, 100))
    def later(self, by):
        self.now += by

    @rule()
    def die(self):
        for n, store in enumerate(self.stores):
            other = self.sqlite() if n == 0 else store.connect()
            store.close()
            self.stores[n] = other
        old, self.session = self.session, None
        self.open()
        self.both("commit", old, [])

    @rule()
    def restart(self):
        self.both("close_session", self.session)
        self.both("close_session", self.session)
        self.open()

    # --- what must be the same, and right ---

    @invariant()
    @precondition(lambda self: hasattr(self, "stores"))
    def all_is_the_same(self):
        for name in NAMES:
            row = self.both("row", key(name))
            letters = self.both("inbox", key(name), 100)
            self.both("dead_letters", key(name), 100)
            running = self.both("running", key(name))
            journal = self.both("load", key(name), f"run-{name}", 0, 1000)
            if row is None:
                assert letters == running == journal == []
                continue
            assert len(journal) == row.position
            assert len({each.message_id for each in letters}) == len(letters)
            if row.status not in OPEN_STATUSES:
                assert letters == running == []
            if row.status == "parked":
                assert letters == []
            if row.status == "active":
                assert (row.wake_at_ms, row.waits_for, row.problem) == (None, "", "")
        self.both("ready", self.session, self.now, None, 100)
        self.both("next_wake_ms", self.session, 0)
        self.both("next_wake_ms", self.session, self.now)
        self.both("find", Filter("default"), None, 100)

    @invariant()
    @precondition(lambda self: hasattr(self, "stores"))
    def feeds_are_the_same_but_for_their_numbers(self):
        for shard in range(SHARDS):
            feeds = [store.tail(shard, 0, 1000) for store in self.stores]
            assert [each[1:] for each in feeds[0]] == [each[1:] for each in feeds[1]]
            positions = [each[0] for each in feeds[0]]
            assert positions == sorted(set(positions))


Stores.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking a history takes longer than reading it
    suppress_health_check=list(HealthCheck),
)
TestMemoryAndSqliteAgree = pytest.mark.timeout(300)(Stores.TestCase)
