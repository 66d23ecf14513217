"""One attempt of a step: what the step itself sees of it (`perdure.current_step()`), and what its runner keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from perdure.core import events as ev
from perdure.core.commands import RunStep
from perdure.core.errors import DecodeError, InvalidOption, PerdureError, StepTimeout
from perdure.core.identity import Key
from perdure.runtime.threads import NEVER_RAN, Work
from perdure.store.protocol import NewEvent, Store
from perdure.workflow.context import Attempt
from perdure.workflow.values import codec_for

_progress_codec = codec_for(Any, "a heartbeat's progress")


class Doubt(msgspec.Struct, frozen=True):
    """Why nobody knows what an attempt of a `once` step did."""

    reason: str
    failure: ev.FailureInfo | None = None
    started_at_ms: int = 0
    over_at_ms: int = 0  # of the monotonic clock: until then it may still run elsewhere, or what it sent be on its way
    work: Work | None = None  # its thread

    @property
    def goes_on(self) -> bool:
        """Whether a thread of this process is still in it."""
        return self.work is not None and self.work.abandoned and not self.work.finished


class Driven(Protocol):
    """What the step runner needs of the driver whose step it runs."""

    key: Key
    run: str
    attempts: dict[int, StepRun | None]  # by seq, what the runner has of it; None while it waits for its turn

    @property
    def dead(self) -> bool:
        """It left memory."""
        ...

    @property
    def store(self) -> Store:
        """Where it is journaled."""
        ...

    def step_done(self, seq: int, event: ev.AnyEvent) -> None:
        """The attempt ended."""
        ...

    def step_lapsed(self) -> None:
        """It did not run: the lease lapsed, another worker may be running it."""
        ...

    def step_unbegun(self, seq: int, reason: str) -> None:
        """A `once` step did not run: that it was never called is worth recording."""
        ...

    def step_unreadable(self, seq: int, error: PerdureError) -> None:
        """The attempt ended, but what it returned cannot be recorded; of a `once` step, or nobody knows what it did."""
        ...


class StepRun(Attempt):
    """One attempt under way."""

    __slots__ = (
        "_monotonic_ms",
        "begun",
        "command",
        "driver",
        "last_beat_ms",
        "latest",
        "started_at_ms",
        "started_mono_ms",
        "stopped",
        "task",
        "timed_out",
        "told",
        "usage",
        "watch",
        "work",
    )

    def __init__(self, driver: Driven, command: RunStep, now_ms: int, monotonic_ms: Callable[[], int]) -> None:
        self.execution = driver.key.execution
        self.run = driver.run
        self.seq = command.seq
        self.name = command.name
        self.attempt = command.attempt + 1
        self.cancelled = False
        self.driver = driver
        self.command = command
        self.started_at_ms = now_ms
        self._monotonic_ms = monotonic_ms
        self.started_mono_ms = self.last_beat_ms = monotonic_ms()
        self.latest: ev.Payload | None = command.progress
        self.told: ev.Payload | bool | None = False  # what the store was told of it: not at all, or its progress
        self.begun = False  # a task that is cancelled before its first instruction never runs at all
        self.stopped = False
        self.timed_out: StepTimeout | None = None
        self.task: asyncio.Task[Any] | None = None
        self.work: Work | None = None
        self.watch: asyncio.TimerHandle | None = None
        self.usage: ev.Usage | None = None

    @property
    def progress(self) -> Any:
        """See `Attempt.progress`."""
        recorded = self.command.progress
        return None if recorded is None else _progress_codec.decode(recorded, "progress")

    def heartbeat(self, progress: Any = None) -> None:
        """See `Attempt.heartbeat`."""
        if self.cancelled:
            raise asyncio.CancelledError("the step was cancelled")
        if progress is not None:
            self.latest = _progress_codec.encode(progress, "a heartbeat's progress")
        self.last_beat_ms = self._monotonic_ms()

    def spent(self, *, input_tokens: int = 0, output_tokens: int = 0, cost_micros: int = 0) -> None:
        """See `Attempt.spent`."""
        more = {"input_tokens": input_tokens, "output_tokens": output_tokens, "cost_micros": cost_micros}
        for option, amount in more.items():
            if isinstance(amount, bool) or not isinstance(amount, int) or amount < 0:
                raise InvalidOption(option=option, value=repr(amount), expected="a whole number, 0 or more")
        before = self.usage or ev.Usage()
        self.usage = ev.Usage(**{name: getattr(before, name) + amount for name, amount in more.items()})

    def surely_not(self, error: BaseException) -> bool:
        """Whether the effect of a `once` step surely did not happen: it was not called, or raised what says so."""
        if self.work is NEVER_RAN:
            return True
        undecodable = isinstance(error, DecodeError) and error.fields["what"] is self.command.target.input_what
        declared = self.timed_out is None and isinstance(error, self.command.options.not_happened)
        return undecodable or declared

    def limits(self) -> list[tuple[int, str, int]]:
        """When which limit in time is reached, by the monotonic clock, and how long it is."""
        options = self.command.options
        found: list[tuple[int, str, int]] = []
        if options.timeout_ms is not None:
            found.append((self.started_mono_ms + options.timeout_ms, "timeout", options.timeout_ms))
        if options.total_timeout_ms is not None:
            left = max(0, options.total_timeout_ms - self.command.spent_ms)
            found.append((self.started_mono_ms + left, "total_timeout", options.total_timeout_ms))
        if options.heartbeat_timeout_ms is not None:
            due = self.last_beat_ms + options.heartbeat_timeout_ms
            found.append((due, "heartbeat_timeout", options.heartbeat_timeout_ms))
        return found


class Spent(dict[int, ev.Usage]):
    """What attempts said they spent, by seq, until their events are written."""

    def note(self, run: StepRun | None) -> None:
        """An attempt ended."""
        if run is not None and run.usage is not None:
            self[run.seq] = run.usage

    def headed(self, events: Iterable[ev.AnyEvent], at_ms: int) -> list[NewEvent]:
        """The events with their headers: those of attempts' ends tell what they spent."""
        if not self:
            return [NewEvent(event, at_ms) for event in events]
        ends = (ev.StepCompleted, ev.StepFailed, ev.StepAttemptFailed)
        return [
            NewEvent(event, at_ms, usage=self.get(event.seq) if isinstance(event, ends) else None) for event in events
        ]

    def forget(self, events: Iterable[ev.AnyEvent]) -> None:
        """They are written."""
        for event in events:
            self.pop(getattr(event, "seq", -1), None)
