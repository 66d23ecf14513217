"""The committer alone, over a store that is told when to fail: what is told to whom, and what is tried again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from perdure.core import events as ev
from perdure.core.errors import OwnershipLost, StoreFull
from perdure.core.identity import ExecutionId, Key, Namespace
from perdure.core.machine import Machine
from perdure.runtime.committer import LIGHT_BYTES, MAX_GROUP_EVENTS, CommitQueue, ThreadCommitter, is_light
from perdure.runtime.inbox import choose
from perdure.store.memory import MemoryStore
from perdure.store.protocol import Batch, Letter, Mail, NewEvent, Outcome, Park, Start

NOTHING = ev.Payload(b"\xc0")


def key(name: str) -> Key:
    return Key(0, Namespace("default"), ExecutionId(name))


def begin(name: str) -> Batch:
    started = ev.ExecutionStarted(workflow="w", run=f"run-{name}", input=NOTHING)
    start = Start(key(name), started, b"digest")
    return Batch(key=key(name), run=started.run, expected=0, events=[NewEvent(started, 1)], create=start)


def signal(name: str, message: str) -> Mail:
    return Mail(receiver=key(name), message_id=message, event=ev.SignalReceived(message, "go", NOTHING))


class Bench:
    """A committer whose answers are called in its own thread."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.session = self.store.open_session("w", ("default",), "code")
        self.told: list[Any] = []
        self.lost: list[Exception] = []
        self.done = threading.Semaphore(0)
        self.alone = False
        self.committer = ThreadCommitter(
            self.store,
            self.session,
            post=self._post,
            alone=lambda: self.alone,
            woken=lambda keys: self.told.append(list(keys)),
            lost=self.lost.append,
        )

    def _post(self, call: Callable[..., Any], *args: Any) -> None:
        call(*args)
        self.done.release()

    def hear(self, answer: Any) -> None:
        self.told.append(answer)

    def wait(self) -> None:
        assert self.done.acquire(timeout=5)

    def fail(self, method: str, *errors: Exception) -> None:
        """Its next calls raise these."""
        real, waiting = getattr(self.store, method), list(errors)

        def call(*args: Any) -> Any:
            if waiting:
                raise waiting.pop(0)
            return real(*args)

        setattr(self.store, method, call)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.committer.stop()


def full() -> StoreFull:
    return StoreFull(path="x", detail="full")


def test_what_cannot_be_written_is_tried_again_until_it_is(bench: Bench) -> None:
    bench.fail("commit", full(), full())
    bench.committer.submit([(begin("a"), bench.hear)])
    bench.committer.start()
    bench.wait()
    assert bench.told == [Outcome.COMMITTED]


def test_messages_that_meet_trouble_are_refused_at_once_with_it(bench: Bench) -> None:
    bench.fail("commit", full())
    bench.committer.submit([(begin("a"), bench.hear)])
    bench.committer.deposit(signal("a", "m"), bench.hear)
    bench.committer.start()
    bench.wait()
    bench.wait()
    assert [type(each) for each in bench.told] == [StoreFull, Outcome]


def test_messages_alone_that_cannot_be_stored_are_refused(bench: Bench) -> None:
    bench.fail("deposit", full())
    bench.committer.deposit(signal("a", "m"), bench.hear)
    bench.committer.start()
    bench.wait()
    assert isinstance(bench.told[0], StoreFull)


def test_a_message_wakes_its_receiver_and_one_without_a_receiver_says_so(bench: Bench) -> None:
    receipts: dict[str, Any] = {}
    start = begin("c").create
    assert start is not None
    bench.committer.submit([(begin("a"), bench.hear)])
    for name, item in {"known": signal("a", "m"), "unknown": signal("b", "m"), "start": start}.items():
        bench.committer.deposit(item, lambda receipt, name=name: receipts.update({name: receipt}))  # type: ignore[misc]
    bench.committer.start()
    bench.wait()
    outcome, woken = bench.told
    assert outcome is Outcome.COMMITTED
    told = {name: receipt.status for name, receipt in receipts.items()}
    assert told == {"known": "accepted", "unknown": "missing", "start": "accepted"}
    assert sorted(woken) == [key("a"), key("c")]


@pytest.mark.parametrize("error", [OwnershipLost(path="x", detail="fenced"), ZeroDivisionError("a bug")])
def test_what_no_trying_again_helps_against_ends_the_committer_visibly(bench: Bench, error: Exception) -> None:
    bench.fail("commit", error)
    bench.committer.submit([(begin("a"), bench.hear)])
    bench.committer.start()
    bench.wait()
    assert bench.lost == [error]
    assert bench.told == []


def test_alone_a_batch_is_committed_inline_and_after_trouble_by_the_thread(bench: Bench) -> None:
    bench.alone = True
    bench.committer.submit([(begin("a"), bench.hear)])
    assert bench.told == [Outcome.COMMITTED]
    bench.fail("commit", full())
    bench.committer.advise(Park(key("a"), "run-a", 1))
    bench.committer.submit([(begin("b"), bench.hear)])
    assert bench.told == [Outcome.COMMITTED]
    bench.committer.start()
    bench.wait()
    assert bench.told == [Outcome.COMMITTED] * 2
    row = bench.store.row(key("a"))
    assert row is not None
    assert row.status == "parked"


@pytest.mark.parametrize("error", [OwnershipLost(path="x", detail="fenced"), ZeroDivisionError("a bug")])
def test_inline_it_ends_visibly_too(bench: Bench, error: Exception) -> None:
    bench.alone = True
    bench.fail("commit", error)
    bench.committer.submit([(begin("a"), bench.hear)])
    assert bench.lost == [error]


def test_one_listener_that_raises_does_not_keep_the_others_from_hearing(bench: Bench) -> None:
    def raises(_: Any) -> None:
        raise ZeroDivisionError

    bench.committer.submit([(begin("a"), raises)])
    bench.committer.submit([(begin("b"), bench.hear)])
    bench.committer.start()
    bench.wait()
    assert bench.told == [Outcome.COMMITTED]


def test_a_committer_that_is_stopped_in_trouble_gives_up(bench: Bench) -> None:
    bench.fail("commit", *[full() for _ in range(1000)])
    bench.committer.submit([(begin("a"), bench.hear)])
    bench.committer.start()
    bench.committer.stop()
    assert bench.told == []
    assert bench.committer.depth() == 0


def test_a_flood_of_starts_does_not_delay_what_goes_on(bench: Bench) -> None:
    queue = CommitQueue()
    for i in range(MAX_GROUP_EVENTS + 10):
        queue.add((begin(f"s{i}"), bench.hear))
    urgent = begin("u")
    urgent.create = None
    queue.add((urgent, bench.hear))
    group = queue.gather()
    assert group.batches[0][0] is urgent
    assert len(group.batches) == MAX_GROUP_EVENTS
    assert len(queue) == 11


# --- letters: each once, each sender's in order ---


def letter(number: int, *, sender: str = "s", arrival: int = 0) -> Letter:
    name = f"{sender}{number}"
    return Letter(arrival or number, name, ev.SignalReceived(name, "go", NOTHING, sender, sender, number))


def no_updates(request: ev.UpdateRequested) -> None:
    raise AssertionError(request)


def test_letters_of_one_sender_are_taken_in_its_order_and_one_ahead_of_its_turn_waits() -> None:
    machine = Machine()
    machine.received["s"] = 1
    chosen = choose(machine, [letter(3), letter(2), letter(5), letter(4, sender="t"), letter(1)], no_updates)
    assert [event.message_id for event in chosen.events] == ["s2", "t4", "s3"]  # type: ignore[union-attr]
    assert [each.message_id for each in chosen.taken] == ["s2", "t4", "s3", "s1"]


def test_a_letter_that_was_taken_before_leaves_without_an_event() -> None:
    chosen = choose(Machine(), [letter(1), letter(1, arrival=2)], no_updates)
    assert (len(chosen.events), len(chosen.taken)) == (1, 2)
    outside = Letter(1, "m", ev.SignalReceived("m", "go", NOTHING))
    chosen = choose(Machine(), [outside, Letter(2, "m", outside.event)], no_updates)
    assert (len(chosen.events), len(chosen.taken)) == (1, 2)


def test_a_heavy_batch_is_left_to_the_thread_even_when_it_is_alone() -> None:
    """Packing 64 MiB takes a second: the engine's loop has other things to do."""
    heavy = ev.StepCompleted(1, "s", result=ev.Payload(bytes(LIGHT_BYTES + 1)))
    light = ev.StepCompleted(1, "s", result=ev.Payload(bytes(LIGHT_BYTES)))
    for event, expected in ((heavy, False), (light, True), (ev.TimerFired(1), True)):
        assert is_light(Batch(key("a"), "run", 0, [NewEvent(ev.ExecutionClaimed(), 1), NewEvent(event, 1)])) is expected
