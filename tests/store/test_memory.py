"""What only the memory store can show: several workers, leases, shards that move."""

from __future__ import annotations

import pytest

from perdure.core import events as ev
from perdure.core.errors import OwnershipLost, StoreError
from perdure.core.identity import ExecutionId, Key, Namespace
from perdure.store.memory import MemoryStore
from perdure.store.protocol import Batch, NewEvent, Outcome, Start

LANES = ("default",)


class Clock:
    now_ms = 1000

    def __call__(self):
        return self.now_ms


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(clock):
    return MemoryStore(shards=8, lease_ms=100, clock=clock)


def created(shard, nothing, name="a"):
    key = Key(shard, Namespace("default"), ExecutionId(name))
    event = ev.ExecutionStarted("research", "run", nothing)
    return Batch(key, "run", 0, [NewEvent(event, 1)], create=Start(key, event, b""))


def timer(batch, position=1):
    return Batch(batch.key, "run", position, [NewEvent(ev.TimerFired(1), 1)])


def test_the_first_session_owns_everything_and_shares_when_it_renews(store):
    first = store.open_session("w1", LANES, "")
    second = store.connect().open_session("w2", LANES, "")
    assert store.renew(second).shards == frozenset()
    assert store.renew(first).shards == frozenset({0, 2, 4, 6})
    assert store.renew(second).shards == frozenset({1, 3, 5, 7})


def test_a_batch_for_a_shard_that_moved_is_a_conflict(store, nothing):
    first, second = store.open_session("w1", LANES, ""), store.open_session("w2", LANES, "")
    batch = created(1, nothing)
    assert store.commit(first, [batch]).outcomes == [Outcome.COMMITTED]
    store.renew(first)
    store.renew(second)
    assert store.commit(first, [timer(batch), created(3, nothing)]).outcomes == [Outcome.CONFLICT] * 2
    assert store.commit(second, [timer(batch), created(3, nothing)]).outcomes == [Outcome.COMMITTED] * 2


def test_each_session_is_ready_for_its_own_shards_only(store, nothing):
    first, second = store.open_session("w1", LANES, ""), store.open_session("w2", LANES, "")
    batches = [created(shard, nothing) for shard in range(8)]
    store.commit(first, batches)
    store.renew(first)
    store.renew(second)
    assert [row.key.shard for row in store.ready(first, 0, None, 99)] == [0, 2, 4, 6]
    assert [row.key.shard for row in store.ready(second, 0, None, 99)] == [1, 3, 5, 7]


def test_a_lease_that_expired_is_taken_over_by_whoever_renews(store, clock, nothing):
    first, second = store.open_session("w1", LANES, ""), store.open_session("w2", LANES, "")
    batch = created(0, nothing)
    store.commit(first, [batch])
    clock.now_ms += 60
    store.renew(second)
    clock.now_ms += 60
    assert store.renew(second).shards == frozenset(range(8))
    with pytest.raises(OwnershipLost):
        store.commit(first, [timer(batch)])
    with pytest.raises(OwnershipLost):
        store.renew(first)
    assert store.row(batch.key).recoveries == 1


def test_a_frozen_worker_may_commit_as_long_as_nobody_took_over(store, clock, nothing):
    first = store.open_session("w1", LANES, "")
    clock.now_ms += 1_000_000
    assert store.commit(first, [created(0, nothing)]).outcomes == [Outcome.COMMITTED]
    assert store.renew(first).ttl_ms == 100


def test_a_clean_end_frees_shards_at_once(store, nothing):
    first, second = store.open_session("w1", LANES, ""), store.open_session("w2", LANES, "")
    store.commit(first, [created(0, nothing)])
    store.close_session(first)
    assert store.renew(second).shards == frozenset(range(8))
    assert store.row(created(0, nothing).key).recoveries == 0


def test_a_closed_connection_refuses_while_others_go_on(store):
    other = store.connect()
    store.close()
    with pytest.raises(StoreError):
        store.row(Key(0, Namespace("default"), ExecutionId("a")))
    assert other.row(Key(0, Namespace("default"), ExecutionId("a"))) is None


def test_what_a_caller_changes_afterwards_is_not_in_the_store(store, nothing):
    session = store.open_session("w", LANES, "")
    batch = created(0, nothing)
    digest = bytearray(b"abc")
    batch.create = Start(batch.key, batch.create.event, digest)
    store.commit(session, [batch])
    digest[:] = b"xyz"
    batch.events.append(batch.events[0])
    assert store.row(batch.key).start_digest == b"abc"
    assert len(store.load(batch.key, "run", 0, 10)) == 1
