"""What the store tests share: a laboratory over one store, with short names for the things that they say often."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.core import events as ev
from perdure.core.identity import ExecutionId, Key, Namespace, shard_of
from perdure.encryption import KeyRing
from perdure.store.memory import MemoryStore
from perdure.store.protocol import Batch, Committed, Mail, NewEvent, Outcome, Start, Store
from perdure.store.sealing import SealedStore
from perdure.store.sqlite import SqliteStore

NOTHING = ev.Payload(b"\xc0")
LANES = ("default",)
RING = KeyRing({"k1": bytes(range(32))}, current="k1")


def seal(store: Store) -> SealedStore:
    return SealedStore(store, RING)


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now_ms


class Lab:
    """A store with an open session. It counts positions and message ids, so that tests need not."""

    def __init__(self, make: Callable[[Clock], Store], reconnect: Callable[[Store, Clock], Store]) -> None:
        self.clock = Clock()
        self.make = make
        self.store = make(self.clock)
        self.reconnect = reconnect
        self.session = self.store.open_session("worker", LANES, "code-1")
        self.positions: dict[str, int] = {}
        self._ids = itertools.count(1)

    def die(self) -> Store:
        """The worker's process dies without a word; another connection to the same store remains."""
        other = self.reconnect(self.store, self.clock)
        self.store.close()
        self.store = other
        return other

    def connect(self) -> Store:
        return self.reconnect(self.store, self.clock)

    def reopen(self) -> None:
        """The worker's process dies, and another takes over."""
        self.die()
        self.session = self.store.open_session("worker", LANES, "code-2")

    # --- things ---

    def key(self, name: str) -> Key:
        return Key(shard_of("default", name, self.store.shards), Namespace("default"), ExecutionId(name))

    def start(self, name: str, *, run: str = "", digest: bytes = b"digest", **fields: Any) -> Start:
        event = ev.ExecutionStarted("research", run or f"run-{name}", NOTHING, **fields)
        return Start(self.key(name), event, digest)

    def signal(self, name: str = "go") -> ev.SignalReceived:
        return ev.SignalReceived(f"m{next(self._ids)}", name, NOTHING)

    def mail(self, receiver: str, event: Any = None, **fields: Any) -> Mail:
        event = event or self.signal()
        message_id = fields.pop("message_id", None) or getattr(event, "message_id", None) or f"m{next(self._ids)}"
        return Mail(self.key(receiver), message_id, event, **fields)

    def new(self, event: Any, **fields: Any) -> NewEvent:
        return NewEvent(event, fields.pop("at_ms", self.clock.now_ms), **fields)

    def batch(self, name: str, *events: Any, **fields: Any) -> Batch:
        """The next batch of an execution. It counts as committed: tests of conflicts give `expected`."""
        expected = fields.pop("expected", None)
        if expected is None:
            expected = self.positions.get(name, 0)
            self.positions[name] = expected + len(events)
        run = fields.pop("run", f"run-{name}")
        return Batch(self.key(name), run, expected, [self.new(each) for each in events], **fields)

    # --- short stories ---

    def commit(self, *batches: Batch, advice: Any = ()) -> Committed:
        return self.store.commit(self.session, batches, advice)

    def create(self, *names: str) -> None:
        batches = [
            self.batch(name, self.start(name).event, ev.ExecutionClaimed(), create=self.start(name)) for name in names
        ]
        assert self.commit(*batches).outcomes == [Outcome.COMMITTED] * len(names)

    def close(self, name: str) -> None:
        assert self.commit(self.batch(name, ev.ExecutionCompleted(NOTHING), closes="completed")).outcomes == [
            Outcome.COMMITTED
        ]

    def deliver(self) -> list[Key]:
        """Empty the outbox."""
        woken: list[Key] = []
        while found := self.store.deliver(self.session, 1000):
            woken += found
        return woken

    def send(self, sender: str, *mail: Mail, **fields: Any) -> list[Key]:
        """Commit mail, and see to it that it arrives; the answer is who woke."""
        woken = list(self.commit(self.batch(sender, **fields, mail=mail)).woken)
        return woken + [key for key in self.deliver() if key not in woken]

    def inbox(self, name: str) -> list[ev.AnyEvent]:
        return [each.event for each in self.store.inbox(self.key(name), 1000)]

    def dead(self, name: str) -> list[ev.AnyEvent]:
        return [each.event for each in self.store.dead_letters(self.key(name), 1000)]

    def journal(self, name: str, run: str = "") -> list[ev.AnyEvent]:
        return [each.event for each in self.store.load(self.key(name), run or f"run-{name}", 0, 1000)]

    def row(self, name: str) -> Any:
        return self.store.row(self.key(name))


def _make_lab(kind: str, directory: Path) -> Lab:
    if kind.startswith("sealed "):
        bare = _make_lab(kind.removeprefix("sealed "), directory)
        bare.store.close()
        return Lab(lambda clock: seal(bare.make(clock)), lambda store, clock: seal(bare.reconnect(store, clock)))
    store, _, way = kind.partition("-")
    direct = way != "outbox"
    if store == "memory":
        return Lab(lambda clock: MemoryStore(direct=direct, clock=clock), lambda store, _: store.connect())
    path = directory / "store.db"
    return Lab(
        lambda clock: SqliteStore(path, direct=direct, clock=clock),
        lambda _, clock: SqliteStore(path, direct=direct, clock=clock),
    )


@pytest.fixture(params=["sqlite", "sqlite-outbox", "memory", "memory-outbox", "sealed sqlite-outbox", "sealed memory"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """Each of the stores, with mail delivered directly or by way of the outbox, and with values encrypted."""
    made = _make_lab(request.param, tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def nothing() -> ev.Payload:
    return NOTHING


@pytest.fixture
def make_lab() -> Callable[[str, Path], Lab]:
    """For tests that choose the store's kind and place; they close it."""
    return _make_lab


@pytest.fixture
def sqlite_lab(tmp_path: Path) -> Iterator[Lab]:
    """For what only a file can show."""
    made = _make_lab("sqlite", tmp_path)
    yield made
    made.store.close()
