"""What an engine counts of itself, for `perdure top` and for monitoring: a fixed number of integers, whatever it does.

Counters only grow; who wants a rate takes two readings and `since`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure.core import events as ev
from perdure.store.protocol import Batch, Outcome

SLOTS = 112  # four for each doubling, up to four minutes


class Figures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A reading of an engine's counters: `await engine.figures()`, `await client.figures()`.

    As of now: `active` executions with something to do and `resting` ones that wait, in memory; `loading` from the
    store; attempts of steps `running` and `waiting` for a place; entries that wait to be written (`queued`); starts
    that wait for room (`held`).

    Since the engine began, `uptime_ms` ago: `commits`, the `events` in them, `steps` that completed, and what steps
    said they `spent`: `input_tokens`, `output_tokens`, and money in millionths (`cost_micros`).
    """

    worker: str = ""
    uptime_ms: int = 0
    active: int = 0
    resting: int = 0
    loading: int = 0
    running: int = 0
    waiting: int = 0
    queued: int = 0
    held: int = 0
    commits: int = 0
    events: int = 0
    steps: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0
    latencies: tuple[int, ...] = ()

    def since(self, earlier: Figures) -> Figures:
        """What was counted after an earlier reading of the same engine; all else is as of now.

        Example:
            per_second = now.since(then).steps / (now.since(then).uptime_ms / 1000)
        """
        if earlier.worker != self.worker or earlier.uptime_ms > self.uptime_ms:
            return self  # another engine's: all that this one counted came later
        counted = {name: getattr(self, name) - getattr(earlier, name) for name in COUNTERS}
        before = earlier.latencies or (0,) * len(self.latencies)
        latencies = tuple(a - b for a, b in zip(self.latencies, before, strict=True))
        return msgspec.structs.replace(self, **counted, latencies=latencies)

    def commit_ms(self, share: float) -> float | None:
        """How long commits took: that share of them, from 0 to 1, at most so many milliseconds. None without any."""
        return percentile(self.latencies, share)


COUNTERS = ("uptime_ms", "commits", "events", "steps", "input_tokens", "output_tokens", "cost_micros")


class Meter:
    """Counts what is committed. Written to by whoever commits, one at a time; read by anybody."""

    __slots__ = ("commits", "cost_micros", "events", "input_tokens", "latencies", "output_tokens", "steps")

    def __init__(self) -> None:
        self.commits = self.events = self.steps = 0
        self.input_tokens = self.output_tokens = self.cost_micros = 0
        self.latencies = [0] * SLOTS

    def counters(self) -> dict[str, int]:
        """What `Figures` tells of it, but for the latencies."""
        return {name: getattr(self, name) for name in COUNTERS if name != "uptime_ms"}

    def wrote(self, batches: Sequence[Batch], outcomes: Sequence[object], took_ns: int) -> None:
        """A transaction was committed, and took so long."""
        self.commits += 1
        self.latencies[slot(took_ns // 1_000)] += 1
        for batch, outcome in zip(batches, outcomes, strict=True):
            if outcome is not Outcome.COMMITTED:
                continue
            self.events += len(batch.events)
            for new in batch.events:
                self.steps += type(new.event) is ev.StepCompleted
                if new.usage is not None:
                    self.input_tokens += new.usage.input_tokens
                    self.output_tokens += new.usage.output_tokens
                    self.cost_micros += new.usage.cost_micros


def slot(microseconds: int) -> int:
    """Where a duration is counted: four slots for each doubling."""
    if microseconds < 4:
        return max(0, microseconds)
    length = microseconds.bit_length()
    return min(SLOTS - 1, 4 * (length - 2) + (microseconds >> (length - 3) & 3))


def upper_us(index: int) -> int:
    """The least duration above all that are counted there."""
    if index < 4:
        return index + 1
    return (4 + index % 4 + 1) << (index // 4 - 1)


def percentile(latencies: Sequence[int], share: float) -> float | None:
    """See `Figures.commit_ms`."""
    wanted, seen = share * sum(latencies), 0
    for index, count in enumerate(latencies):
        seen += count
        if count and seen >= wanted:
            return upper_us(index) / 1_000
    return None
