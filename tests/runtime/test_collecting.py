"""What a worker does now and then about large values that nothing refers to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.core.errors import StoreError
from perdure.core.identity import ExecutionId, Key, Namespace
from perdure.runtime.collecting import EVERY_MS, GRACE_MS, MOST, Collector
from perdure.store.memory import MemoryStore
from perdure.store.protocol import Blob

KEY = Key(0, Namespace("default"), ExecutionId("a"))


class Clock:
    """Both clocks of an environment."""

    def __init__(self) -> None:
        self.at_ms = 10**12

    def now_ms(self) -> int:
        return self.at_ms

    monotonic_ms = now_ms

    def __call__(self) -> int:
        return self.at_ms


def at_once(call: Callable[[], Any], done: Callable[[Any], None]) -> None:
    try:
        answer = call()
    except StoreError as error:
        answer = error
    done(answer)


def test_what_is_old_and_loose_goes_in_bounded_bites_and_what_is_fresh_stays() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    collector = Collector(store, at_once, clock)  # type: ignore[arg-type]
    store.put_blobs([Blob(KEY, b"%d" % n, b"") for n in range(2 * MOST + 10)])
    clock.at_ms += GRACE_MS
    store.put_blobs([Blob(KEY, b"fresh", b"")])

    def left() -> int:
        return len(store._world.blobs)

    collector.tick()
    assert left() == 2 * MOST + 11
    clock.at_ms += EVERY_MS
    sizes = []
    for _ in range(5):
        collector.tick()
        sizes.append(left())
    assert sizes == [MOST + 11, 11, 1, 1, 1]


def test_trouble_is_tried_again_later(caplog: Any) -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    collector = Collector(store, at_once, clock)  # type: ignore[arg-type]
    store.close()
    clock.at_ms += EVERY_MS
    collector.tick()
    collector.tick()
    assert len(caplog.records) == 1
