"""Drives an `Execution` as the runtime would, but purely: no I/O, no clock, no threads; chance comes from a seed.

`drive` runs a workflow live, with a random (or scripted) order of everything that the world answers; `replays_alike`
holds the journal against fresh code: the whole of it and every prefix. `explore` does both over many seeds.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import inspect
import random
from asyncio import events as asyncio_events
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from perdure.core import events as ev
from perdure.core.commands import (
    AnyCommand,
    AskQuestion,
    CloseQuestion,
    CloseRun,
    CompleteUpdate,
    DropMessage,
    RunStep,
    SendMessage,
    StartChild,
    StartTimer,
    State,
)
from perdure.core.errors import PerdureError
from perdure.core.format import FORMAT, decode_event, encode_event
from perdure.core.identity import derived_id
from perdure.workflow.definitions import Workflow, step
from perdure.workflow.execution import Execution
from perdure.workflow.loop import FAR_FUTURE_MS, DeterministicLoop
from perdure.workflow.values import Arguments, codec_for, failure_info

EPOCH_MS = 1_700_000_000_123
MAX_COMMITS = 100_000
MAX_PREFIXES = 40

Told = tuple[Any, ...]
Move = Callable[["Live"], ev.AnyEvent]


class Stuck(AssertionError):
    """The code waits for something that this world does not give."""


def log(*what: Any) -> None:
    """Called by workflow code under test: what it saw, in order."""
    host = running_execution()
    host.heard.append(what) if host.loop.closing else host.trace.append(what)  # type: ignore[attr-defined]


def running_execution() -> Execution:
    """The execution whose code is running."""
    loop = asyncio_events._get_running_loop()
    assert isinstance(loop, DeterministicLoop)
    assert isinstance(loop.host, Execution)
    return loop.host


def fresh(workflow: Workflow[..., Any], execution_id: str = "x-1", fingerprint: str = "code-1") -> Execution:
    """An execution that keeps a trace and notes every command it issues."""
    execution = Execution(workflow, execution_id, fingerprint)
    execution.trace = []  # type: ignore[attr-defined]
    execution.heard = []  # type: ignore[attr-defined]
    execution.issued = []  # type: ignore[attr-defined]
    issue = execution.machine.issue

    def noted(command: AnyCommand) -> int:
        seq = issue(command)
        execution.issued.append(told(command))  # type: ignore[attr-defined]
        return seq

    execution.machine.issue = noted  # type: ignore[method-assign]
    return execution


def told(command: AnyCommand) -> Told:
    """A command, as far as replay must repeat it."""
    match command:
        case RunStep():
            return command.seq, "step", command.name, command.digest, command.location
        case StartTimer():
            return command.seq, "timer", command.due_ms, command.location
        case StartChild():
            return command.seq, "child", command.workflow, command.execution, command.run, command.input.data
        case SendMessage():
            return command.seq, "message", command.kind, command.receiver, command.name, command.reason
        case CompleteUpdate():
            return command.seq, "answer", command.update_id, command.result, command.failure and command.failure.message
        case DropMessage():
            return command.seq, "drop", command.message.message_id
        case AskQuestion():
            return command.seq, "ask", command.question, command.to, command.digest, command.expires_at_ms
        case CloseQuestion():
            return command.seq, "close question", command.asked, command.outcome
        case CloseRun():
            return command.seq, "close", outcome_of(command)


def outcome_of(close: CloseRun) -> Told:
    """How the workflow ended."""
    if close.cancelled:
        return "cancelled", close.reason
    if close.failure is not None:
        return "failed", close.failure.type, close.failure.message
    assert close.result is not None
    return "completed", close.result.data


def to_start(execution: Execution) -> list[Told]:
    """What `take` of fresh code would hand out at this point, without taking it."""
    return [told(command) for command in execution.machine.open.values() if command.state is State.OPEN]


@dataclass
class Run:
    """A run that has ended, with all that replay is held against."""

    workflow: Workflow[..., Any]
    seed: int
    journal: list[ev.Recorded]
    trace: list[Told]
    issued: list[Told]
    opens: list[list[Told]]  # by position: what was open after that event
    traced: list[int]  # by position: how much was logged by then
    started: list[Told]  # commands that the world was asked to start, over all lives
    outcome: Told
    value: Any = None
    close: CloseRun | None = None
    stalled: PerdureError | None = None
    evictions: int = 0
    heard: list[Told] = field(default_factory=list)  # what `finally` blocks logged while it was evicted
    committed_at: list[int] = field(default_factory=list)  # positions at which commits end

    def names(self) -> list[str]:
        """Types of the journal's events, in order."""
        return [type(recorded.event).__name__ for recorded in self.journal]


# --- moves: what the world can do next, for scripts ------------------------------------------------------------------


def answers(name: str, *, value: Any = ..., error: BaseException | None = None, last: bool = False) -> Move:
    """The first (or last) open step of this name completes: as its function does, or with this value or error."""

    def move(live: Live) -> ev.AnyEvent:
        found = [seq for seq, open_step in live.steps.items() if open_step[0].name == name]
        if not found:
            raise Stuck(f"no step {name!r} is open: {[c.name for c, _ in live.steps.values()]}")
        return live.answer_step(found[-1 if last else 0], value=value, error=error)

    return move


def attempt_fails(name: str, error: BaseException) -> Move:
    """An attempt of the first open step of this name fails, and is to be tried again."""

    def move(live: Live) -> ev.AnyEvent:
        seq = next(seq for seq, open_step in live.steps.items() if open_step[0].name == name)
        return live.attempt_failed(seq, error, 10)

    return move


def fires() -> Move:
    """The next timer by (deadline, seq) fires, at its deadline or at once if that has passed."""
    return lambda live: live.fire()


def passes(seconds: float) -> Move:
    """So much time passes, told by an unrelated signal."""

    def move(live: Live) -> ev.AnyEvent:
        live.clock_ms += round(seconds * 1000)
        return live.signal("clock", None)

    return move


def signals(name: str, value: Any = None) -> Move:
    """A signal arrives."""
    return lambda live: live.signal(name, value)


def updates(name: str, *args: Any) -> Move:
    """An update arrives and is accepted: it must be the first of its commit."""
    return lambda live: live.update(name, args)


def writes() -> Move:
    """The first answer to an update, or dropped message, that is to be written is written."""
    return lambda live: live.begin(next(seq for seq, each in live.unwritten.items() if not _goes_out(each)))


def _goes_out(command: AnyCommand) -> bool:
    return isinstance(command, StartChild | SendMessage)


def cancels(reason: str = "asked to") -> Move:
    """A cancel request arrives."""
    return lambda live: live.cancel(reason)


def begins() -> Move:
    """The first child or message that is to be written is written."""
    return lambda live: live.begin(next(iter(live.unwritten)))


def child_ends(status: str = "completed", value: Any = None) -> Move:
    """The first child that has begun ends."""
    return lambda live: live.end_child(next(iter(live.children)), status=status, value=value)


def delivers(reason: str = "") -> Move:
    """The first message under way arrives, or cannot for this reason."""
    return lambda live: live.deliver(next(iter(live.messages)), reason=reason)


# --- the live run ----------------------------------------------------------------------------------------------------


class Live:
    """One execution and the world around it."""

    def __init__(
        self,
        workflow: Workflow[..., Any],
        args: Sequence[Any] = (),
        *,
        seed: int = 0,
        script: Sequence[Sequence[Move]] = (),
        signals: Sequence[tuple[str, Any]] = (),
        updates: Sequence[tuple[str, tuple[Any, ...]]] = (),
        cancel: bool = False,
        evict: float = 0.1,
        flaky: float = 0.1,
        batch: int = 4,
        count_opens: bool = True,
        execution_id: str = "x-1",
    ) -> None:
        self.workflow = workflow
        self.rng = random.Random(seed)
        self.seed = seed
        self.script = list(script)
        self.outside: list[tuple[str, Any]] = list(signals)  # signals still to come, in order
        self.asked: list[tuple[str, tuple[Any, ...]]] = list(updates)  # updates still to come, in order
        self.rejected: list[ev.FailureInfo] = []
        self.state: ev.StatePublished | None = None  # to be written
        self.may_cancel = cancel
        self.evict_chance = evict
        self.flaky = flaky
        self.batch = batch
        self.execution_id = execution_id
        self.clock_ms = EPOCH_MS
        self.journal: list[ev.Recorded] = []
        self.opens: list[list[Told]] = []
        self.traced: list[int] = []
        self.started: list[Told] = []
        self.committed_at: list[int] = []
        self.evictions = 0
        self.heard: list[Told] = []
        self.steps: dict[int, tuple[RunStep, tuple[Any, Any]]] = {}
        self.again: dict[int, tuple[RunStep, tuple[Any, Any]]] = {}  # between two attempts, until the first is fed
        self.timers: list[tuple[int, int]] = []
        self.unwritten: dict[int, AnyCommand] = {}
        self.children: dict[int, StartChild] = {}
        self.messages: dict[int, SendMessage] = {}
        self.told_to_cancel: dict[str, str] = {}  # children, and why
        self.close: CloseRun | None = None
        self.keep_opens = count_opens
        self._messages_made = 0
        self._numbers: dict[str, int] = {}
        self.execution = fresh(workflow, execution_id)
        payload, _ = workflow.arguments.encode(tuple(args), {}, "the input")
        self.run_id = derived_id("run", execution_id, workflow.name, 0)
        self.first = ev.ExecutionStarted(workflow=workflow.name, run=self.run_id, input=payload)

    # --- the cycle: commit, then feed; take only when all is fed ---

    def go(self) -> Run:
        """Until the run closes or stalls."""
        try:
            self.commit([self.first, ev.ExecutionClaimed()])
            for _ in range(MAX_COMMITS):
                self.take()
                if self.close is not None:
                    return self._finish()
                self._maybe_evict()
                self.commit(self._next_events())
        except PerdureError as error:
            return self._ended(("stalled", type(error).__name__), stalled=error)
        raise Stuck("it does not end")

    def commit(self, events: Iterable[ev.AnyEvent]) -> None:
        """Journal these in one commit, then feed them one by one."""
        recorded = []
        for event in events:
            body = encode_event(event)
            position = len(self.journal) + len(recorded)
            recorded.append(
                ev.Recorded(position, self.clock_ms, decode_event(body, FORMAT), session=1, fingerprint="code-1")
            )
        self.journal += recorded
        for each in recorded:
            self.execution.feed(each)
            self.traced.append(len(self.execution.trace))  # type: ignore[attr-defined]
            self.opens.append(to_start(self.execution) if self.keep_opens else [])
        self.committed_at.append(len(self.journal))

    def take(self) -> None:
        """Stop and start what the code asks for."""
        start, stop = self.execution.take()
        for command in stop:
            self._stop(command)
        self.steps.update((seq, open_step) for seq, open_step in self.again.items() if self._waits_for(seq))
        self.again.clear()
        for command in start:
            self.started.append(told(command))
            self._start(command)
        self.state = self.execution.take_state() or self.state

    def _waits_for(self, seq: int) -> bool:
        command = self.execution.machine.open.get(seq)
        return command is not None and command.state is State.OPEN

    def _start(self, command: AnyCommand) -> None:
        match command:
            case RunStep():
                self.steps[command.seq] = command, command.target.arguments.decode(command.input, command.name)
            case StartTimer():
                heapq.heappush(self.timers, (command.due_ms, command.seq))
            case StartChild() | SendMessage() | CompleteUpdate() | DropMessage() | AskQuestion() | CloseQuestion():
                self.unwritten[command.seq] = command
            case CloseRun():
                self.close = command

    def _stop(self, command: AnyCommand) -> None:
        self.steps.pop(command.seq, None)
        self.unwritten.pop(command.seq, None)
        if isinstance(command, StartTimer):
            self.timers.remove((command.due_ms, command.seq))
            heapq.heapify(self.timers)

    def _maybe_evict(self) -> None:
        if self.rng.random() < self.evict_chance:
            self.evict()
        elif self.rng.random() < 0.1:
            gc.collect(0)

    def evict(self) -> None:
        """Forget the execution, and go on from the journal with fresh code."""
        old = self.execution
        old.evict()
        self.heard += old.heard  # type: ignore[attr-defined]
        self.evictions += 1
        self.steps.clear()
        self.again.clear()
        self.timers.clear()
        self.unwritten.clear()
        self.execution = fresh(self.workflow, self.execution_id)
        for recorded in self.journal:
            self.execution.feed(recorded)
        assert self.execution.trace == old.trace, self._about("the code saw something else after an eviction")  # type: ignore[attr-defined]
        assert self.execution.issued == old.issued, self._about("other commands after an eviction")  # type: ignore[attr-defined]
        self.take()

    def _about(self, what: str) -> str:
        return f"{what} (seed {self.seed}, {self.workflow.name}): {[type(r.event).__name__ for r in self.journal]}"

    def _finish(self) -> Run:
        close = self.close
        assert close is not None
        event: ev.AnyEvent
        value = None
        if close.cancelled:
            event = ev.ExecutionCancelled(reason=close.reason, lost_failures=close.lost_failures)
        elif close.failure is not None:
            event = ev.ExecutionFailed(failure=close.failure, lost_failures=close.lost_failures)
        else:
            assert close.result is not None
            event = ev.ExecutionCompleted(result=close.result, lost_failures=close.lost_failures)
            value = self.workflow.result.decode(close.result, "the result")
        last = [self.begin(seq) for seq, each in list(self.unwritten.items()) if not _goes_out(each)]
        self.commit([*last, *([] if self.state is None else [self.state]), event])
        assert self.execution.is_closed
        return self._ended(outcome_of(close), value=value)

    def _ended(self, outcome: Told, *, value: Any = None, stalled: PerdureError | None = None) -> Run:
        execution = self.execution
        execution.evict()
        return Run(
            workflow=self.workflow,
            seed=self.seed,
            journal=self.journal[: len(self.opens) + 1],
            trace=execution.trace,  # type: ignore[attr-defined]
            issued=execution.issued,  # type: ignore[attr-defined]
            opens=self.opens,
            traced=self.traced,
            started=self.started,
            outcome=outcome,
            value=value,
            close=self.close,
            stalled=stalled,
            evictions=self.evictions,
            heard=self.heard + execution.heard,  # type: ignore[attr-defined]
            committed_at=self.committed_at,
        )

    # --- what happens next ---

    def _next_events(self) -> list[ev.AnyEvent]:
        state = [] if self.state is None else [self.state]
        self.state = None
        if self.script:
            return [*(move(self) for move in self.script.pop(0)), *state]
        if self.rng.random() < 0.3:
            self.clock_ms += self.rng.choice((1, 10, 1_000, 10_000))
        events = self._any_update()
        for _ in range(self.rng.randint(0 if events or state else 1, self.batch)):
            event = self._any_event()
            if event is None:
                break
            events.append(event)
        events += state
        events = events or self._any_update(sure=True)
        if not events:
            raise Stuck(self._about(f"nothing can happen; open: {to_start(self.execution)}"))
        return events

    def _any_update(self, *, sure: bool = False) -> list[ev.AnyEvent]:
        if not self.asked or (not sure and self.rng.random() < 0.5):
            return []
        name, args = self.asked[0]
        if self.execution._main.done():
            return []
        self.asked.pop(0)
        found = self.judged(name, args)
        return [found] if isinstance(found, ev.UpdateAccepted) else []

    def _any_event(self) -> ev.AnyEvent | None:
        """One of all the things that can happen, each as likely as the others."""
        fireable = bool(self.timers) and self.timers[0][0] < FAR_FUTURE_MS
        counts = [
            (len(self.steps), self._any_step),
            (int(fireable), self.fire),
            (len(self.unwritten), lambda: self.begin(self._any_of(self.unwritten))),
            (len(self.children), lambda: self.end_child(self._any_of(self.children))),
            (len(self.messages), lambda: self.deliver(self._any_of(self.messages))),
            (int(bool(self.outside)), lambda: self.signal(*self.outside.pop(0))),
            (int(self.may_cancel and self.rng.random() < 0.2), lambda: self.cancel("asked to")),
        ]
        total = sum(count for count, _ in counts)
        if not total and self.may_cancel:
            return self.cancel("asked to")
        pick = self.rng.randrange(total) if total else 0
        for count, make in counts:
            if pick < count:
                return make()
            pick -= count
        return None

    def _any_of(self, among: dict[int, Any]) -> int:
        return self.rng.choice(list(among))

    def _any_step(self) -> ev.AnyEvent:
        seq = self._any_of(self.steps) if len(self.steps) < 200 else next(iter(self.steps))
        command, _ = self.steps[seq]
        retry = command.options.retry
        if self.rng.random() < self.flaky and (retry.attempts is None or command.attempt + 1 < retry.attempts):
            return self.attempt_failed(seq, ConnectionError("the network blinked"), 10)
        return self.answer_step(seq)

    # --- events ---

    def answer_step(self, seq: int, *, value: Any = ..., error: BaseException | None = None) -> ev.AnyEvent:
        """Call the step's function on its decoded arguments."""
        command, (args, kwargs) = self.steps.pop(seq)
        common: dict[str, Any] = {
            "seq": seq,
            "name": command.name,
            "digest": command.digest,
            "location": command.location,
            "attempt": command.attempt + 1,
        }
        if error is None and value is ...:
            try:
                value = call(command.target.fn, args, kwargs)
            except Exception as raised:  # noqa: BLE001 - steps fail in any way
                error = raised
        if error is not None:
            return ev.StepFailed(**common, failure=failure_info(error))
        return ev.StepCompleted(**common, result=command.target.result.encode(value, f"the result of {command.name}"))

    def attempt_failed(self, seq: int, error: BaseException, pause_ms: int) -> ev.AnyEvent:
        """One more attempt went wrong; the step stays open."""
        self.again[seq] = self.steps.pop(seq)
        command, _ = self.again[seq]
        return ev.StepAttemptFailed(
            seq=seq,
            name=command.name,
            digest=command.digest,
            attempt=command.attempt + 1,
            failure=failure_info(error),
            retry_at_ms=self.clock_ms + pause_ms,
            spent_ms=command.spent_ms + pause_ms,
        )

    def fire(self) -> ev.AnyEvent:
        """The next timer; the clock moves to its deadline if it has not passed."""
        if not self.timers:
            raise Stuck("no timer is open")
        due_ms, seq = heapq.heappop(self.timers)
        self.clock_ms = max(self.clock_ms, due_ms)
        return ev.TimerFired(seq)

    def signal(self, name: str, value: Any) -> ev.AnyEvent:
        """From outside."""
        self._messages_made += 1
        return ev.SignalReceived(f"m-{self._messages_made}", name, codec_for(Any, "signal").encode(value, "signal"))

    def judged(self, name: str, args: tuple[Any, ...]) -> ev.UpdateAccepted | ev.FailureInfo | None:
        """An update from outside meets its validator."""
        self._messages_made += 1
        payload = Arguments.encode_by_position(args, "the update")
        found = self.execution.judge(ev.UpdateRequested(f"u-{self._messages_made}", name, payload))
        if isinstance(found, ev.FailureInfo):
            self.rejected.append(found)
        return found

    def update(self, name: str, args: tuple[Any, ...]) -> ev.AnyEvent:
        """An update that is accepted."""
        found = self.judged(name, args)
        assert isinstance(found, ev.UpdateAccepted), found
        return found

    def cancel(self, reason: str) -> ev.AnyEvent:
        """From outside, once."""
        self.may_cancel = False
        self._messages_made += 1
        return ev.CancelRequested(f"m-{self._messages_made}", reason)

    def begin(self, seq: int) -> ev.AnyEvent:
        """A child's start, a message, an answer becomes durable."""
        command = self.unwritten.pop(seq)
        if isinstance(command, CompleteUpdate):
            told_of = {"update_id": command.update_id, "name": command.name}
            return ev.UpdateCompleted(seq=seq, result=command.result, failure=command.failure, **told_of)
        if isinstance(command, DropMessage):
            return ev.MessageDropped(
                seq=seq, message_id=command.message.message_id, name=command.name, failure=command.failure
            )
        if isinstance(command, AskQuestion):
            told = {name: getattr(command, name) for name in ev.QuestionAsked.__struct_fields__ if name != "sealed"}
            return ev.QuestionAsked(**told)
        if isinstance(command, CloseQuestion):
            return ev.QuestionClosed(seq, command.asked, command.outcome)
        if isinstance(command, StartChild):
            self.children[seq] = command
            return ev.ChildInitiated(
                seq=seq,
                workflow=command.workflow,
                execution=command.execution,
                run=command.run,
                input=command.input,
                location=command.location,
                digest=command.digest,
            )
        self.messages[seq] = command
        return ev.MessageSent(
            seq=seq,
            kind=command.kind,
            receiver=command.receiver,
            name=command.name,
            value=command.value,
            reason=command.reason,
            location=command.location,
            digest=command.digest,
        )

    def end_child(self, seq: int, *, status: str = "", value: Any = None) -> ev.AnyEvent:
        """A child ends: as its workflow would, driven by itself."""
        child = self.children.pop(seq)
        number = self._numbers[child.run] = self._numbers.get(child.run, 0) + 1
        common: dict[str, Any] = {"seq": seq, "execution": child.execution, "sender_run": child.run, "number": number}
        if not status and child.execution in self.told_to_cancel and self.rng.random() < 0.7:
            reason = self.told_to_cancel[child.execution]
            return ev.ChildClosed(status="cancelled", reason=reason, **common)
        if status == "refused":
            return ev.ChildStartFailed(seq=seq, reason="its id was taken")
        if status in {"cancelled", "terminated"}:
            return ev.ChildClosed(status=status, reason="by the test", **common)  # type: ignore[arg-type]
        if status == "failed":
            return ev.ChildClosed(status="failed", failure=failure_info(ValueError("child failed")), **common)
        if status == "completed":
            result = child.target.result.encode(value, "the child's result")
            return ev.ChildClosed(status="completed", result=result, **common)
        args, kwargs = child.target.arguments.decode(child.input, "the child's input")
        assert not kwargs
        run = drive(child.target, *args, seed=self.rng.randrange(2**30), execution_id=child.execution, evict=0)
        assert run.close is not None
        if run.close.cancelled:
            return ev.ChildClosed(status="cancelled", reason=run.close.reason, **common)
        if run.close.failure is not None:
            return ev.ChildClosed(status="failed", failure=run.close.failure, **common)
        return ev.ChildClosed(status="completed", result=run.close.result, **common)

    def deliver(self, seq: int, *, reason: str = "") -> ev.AnyEvent:
        """A message arrives; one to nobody does not."""
        command = self.messages.pop(seq)
        if reason or command.receiver == "nobody":
            return ev.MessageFailed(seq, reason or "no such execution")
        if command.kind == "cancel":
            self.told_to_cancel[command.receiver] = command.reason
        return ev.MessageDelivered(seq)


def call(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """A step's function, which in these tests never really waits."""
    value = fn(*args, **kwargs)
    if not inspect.iscoroutine(value):
        return value
    try:
        value.send(None)
    except StopIteration as end:
        return end.value
    value.close()
    raise AssertionError("steps of these tests do not wait")


@step
async def echo(value: Any) -> Any:
    """Returns what it was given."""
    return value


@step
def double(number: int) -> int:
    """A step in a thread."""
    return 2 * number


@step
async def fails(text: str) -> None:
    """Never succeeds."""
    raise ValueError(text)


async def second_fails(number: int) -> None:
    """One of several tasks: number 2 fails when its step is done; the log tells who was done and who was cancelled."""
    try:
        await echo(number)
        log("done", number)
        if number == 2:
            raise ValueError("two")
    except asyncio.CancelledError:
        log("cancelled", number)
        raise


# --- laws ------------------------------------------------------------------------------------------------------------


def drive(workflow: Workflow[..., Any], *args: Any, **options: Any) -> Run:
    """Run it live once."""
    return Live(workflow, args, **options).go()


def replay(workflow: Workflow[..., Any], journal: Iterable[ev.Recorded], execution_id: str = "x-1") -> Execution:
    """Fresh code, fed with a journal (through its bytes)."""
    execution = fresh(workflow, execution_id)
    for recorded in journal:
        event = decode_event(encode_event(recorded.event), FORMAT)
        execution.feed(msgspec.structs.replace(recorded, event=event))
    return execution


def replays_alike(run: Run) -> None:
    """The journal leads fresh code the same way: all of it, and from every prefix."""
    what = f"seed {run.seed}, {run.workflow.name}: {run.names()}"
    if run.stalled is None:
        whole = replay(run.workflow, run.journal)
        assert whole.is_closed, what
        assert whole.trace == run.trace, what  # type: ignore[attr-defined]
        assert whole.issued == run.issued, what  # type: ignore[attr-defined]
        whole.evict()
    length = len(run.journal) - (1 if run.stalled is None else 0)
    step = max(1, length // MAX_PREFIXES)
    for end in sorted({*range(2, length + 1, step), length}):
        _prefix_alike(run, end, f"prefix {end} of {what}")


def _prefix_alike(run: Run, end: int, what: str) -> None:
    if run.stalled is not None and end == len(run.journal):
        _stalls_alike(run, what)
        return
    execution = replay(run.workflow, run.journal[:end])
    assert execution.trace == run.trace[: run.traced[end - 1]], what  # type: ignore[attr-defined]
    opened = to_start(execution)
    assert opened == run.opens[end - 1], what
    if end in run.committed_at:
        start, stop = execution.take()
        assert [told(command) for command in start] == opened, what
        assert not stop, what
    execution.evict()


def _stalls_alike(run: Run, what: str) -> None:
    execution = fresh(run.workflow)
    with pytest.raises(PerdureError) as caught:  # noqa: PT012 - in one of these, whichever it was
        for recorded in run.journal:
            execution.feed(recorded)
        execution.take()
    assert ("stalled", type(caught.value).__name__) == run.outcome, what
    assert str(caught.value) == str(run.stalled), what
    execution.evict()


def explore(workflow: Workflow[..., Any], *args: Any, seeds: int = 25, **options: Any) -> list[Run]:
    """Many interleavings, each of which replays alike. Returns them, for what the test knows of their outcomes."""
    runs = []
    for seed in range(seeds):
        run = drive(workflow, *args, seed=seed, **options)
        replays_alike(run)
        runs.append(run)
    return runs


def outcomes(runs: Iterable[Run]) -> set[str]:
    """The different results that the interleavings led to."""
    return {str(run.value) if run.outcome[0] == "completed" else str(run.outcome) for run in runs}
