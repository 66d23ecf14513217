"""Replay as an oracle: feed a journal to fresh code, note every command, and compare.

`replay` is used by the laws over simulated journals; `AlwaysReplay` watches the executions of a real worker as they
rest and close, reads their journals back from the store, and holds the replay against what is in memory.
"""

from __future__ import annotations

from asyncio import events as asyncio_events
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

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
from perdure.core.errors import PerdureError, StoreError
from perdure.core.format import encode_event
from perdure.core.machine import Machine
from perdure.core.table import RunState
from perdure.runtime.driver import Driver
from perdure.runtime.worker import Worker
from perdure.store.protocol import Store
from perdure.testing.ledger import Broken
from perdure.workflow.definitions import Workflow
from perdure.workflow.execution import Execution

FIXED_POINT = "replay is a fixed point"


class Point(NamedTuple):
    """The state after a prefix of the journal, as far as replay must reproduce it."""

    next_seq: int
    open: tuple[int, ...]
    now_ms: int
    signals: tuple[tuple[str, int], ...]
    at_work: tuple[ev.Unfinished, ...]
    unpublished: ev.StatePublished | None


class Replay(NamedTuple):
    """A replayed execution: its state after each event, and all commands that it issued."""

    execution: Execution
    points: list[Point]
    commands: dict[int, tuple[Any, ...]]
    renamed: dict[int, list[tuple[Any, ...]]]  # those that were open where the run was forked, as they were since then

    def last(self, seq: int) -> tuple[Any, ...] | None:
        """A command as it is now."""
        return self.renamed[seq][-1] if seq in self.renamed else self.commands.get(seq)


class Noting(Machine):
    """A machine that notes the commands issued."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__(fingerprint)
        self.noted: dict[int, tuple[Any, ...]] = {}

    def issue(self, command: AnyCommand) -> int:
        """See `Machine.issue`."""
        seq = super().issue(command)
        self.noted[seq] = told(command)
        return seq


def told(command: AnyCommand) -> tuple[Any, ...]:
    """A command, as far as replay must repeat it."""
    match command:
        case RunStep():
            return "step", command.name, command.input, command.digest
        case StartTimer():
            return "timer", command.due_ms
        case StartChild():
            return "child", command.workflow, command.execution, command.run, command.input, command.digest
        case SendMessage():
            sent = (command.kind, command.receiver, command.name, command.value, command.reason)
            return "send", *sent, command.digest
        case CompleteUpdate():
            return "answer", command.update_id, command.result, failure_of(command.failure)
        case DropMessage():
            return "drop", command.message.message_id
        case AskQuestion() | CloseQuestion():
            return _question(command)
        case CloseRun():
            how = command.continues
            following = None if how is None else (how.workflow, how.run, how.input, how.state)
            return "close", command.result, failure_of(command.failure), command.cancelled, following


def _question(command: AskQuestion | CloseQuestion) -> tuple[Any, ...]:
    if isinstance(command, CloseQuestion):
        return "close question", command.asked, command.outcome
    return "ask", command.question, command.to, command.name, command.digest, command.expires_at_ms


def failure_of(failure: ev.FailureInfo | None) -> tuple[str, str] | None:
    """A failure without its traceback, which names files."""
    return None if failure is None else (failure.type, failure.message)


def point_of(execution: Execution) -> Point:
    """The state now."""
    machine = execution.machine
    still_open = tuple(seq for seq, command in machine.open.items() if command.state is not State.CANCELLED)
    still_open += tuple(-seq for seq in machine.left)
    signals = tuple(sorted(execution.mailbox.counts().items()))
    at_work = tuple(execution.handlers.unfinished())
    return Point(machine.next_seq, still_open, machine.now_ms, signals, at_work, execution.unpublished)


def replay(
    workflow: Workflow[..., Any],
    execution_id: str,
    events: Sequence[ev.Recorded],
    fingerprint: str,
    *,
    take: Collection[int] = (),
    private: bool = False,
) -> Replay:
    """Feed a journal to fresh code; hand out its commands at the given lengths, as a worker does after each commit.

    `private`: it was recorded with a codec, so that the code may use Secrets.

    Raises:
        PerdureError: the code does not agree with the journal. The caller evicts the execution otherwise.
    """
    execution = Execution(workflow, execution_id, fingerprint)
    execution.machine = machine = Noting(fingerprint)
    execution.private = private
    execution.expect(events)
    points: list[Point] = []
    renamed: dict[int, list[tuple[Any, ...]]] = {}
    try:
        for recorded in events:
            execution.feed(recorded)
            if isinstance(recorded.event, ev.RunForked):
                for command in machine.open.values():
                    renamed.setdefault(command.seq, []).append(told(command))
            if recorded.position + 1 in take and machine.state is not RunState.PAUSED:
                execution.take()
            points.append(point_of(execution))
    except BaseException:
        execution.evict()
        raise
    return Replay(execution, points, machine.noted, renamed)


def check_prefix(
    workflow: Workflow[..., Any], execution_id: str, events: Sequence[ev.Recorded], fingerprint: str, full: Replay
) -> None:
    """A prefix alone leads to the state that the whole journal passed through, and to commands that it goes on from."""
    part = replay(workflow, execution_id, events, fingerprint)
    part.execution.evict()
    expected = full.points[len(events) - 1]
    if part.points[-1] != expected:
        raise Broken(FIXED_POINT, f"{execution_id} after {len(events)} events: {part.points[-1]}, was {expected}")
    for seq in part.commands:
        command = part.last(seq)
        if command not in (full.commands.get(seq), *full.renamed.get(seq, ())):
            raise Broken(FIXED_POINT, f"{execution_id} #{seq}: {command}, was {full.commands.get(seq)}")


class ReplayDiffers(AssertionError):
    """What ran does not replay from its journal to the same state: its code is not deterministic."""


class AlwaysReplay:
    """Watches a worker: whatever comes to rest or closes must replay from its bytes to the very same state.

    `TestEngine` has one. `problems` lists what it has found, `checked` counts what it has compared.

    Args:
        store: to read journals from, instead of the worker's own.
        most_events: so many are replayed; a long journal that often rests would be replayed for ever.
    """

    def __init__(self, store: Store | None = None, *, most_events: int = 20_000) -> None:
        self.left = most_events
        self.problems: list[str] = []
        self._store = store

    def __call__(self, worker: Worker, driver: Driver) -> None:
        """Called on the engine's thread with everything committed and fed."""
        self.left -= driver.length
        if self.left < 0:
            return
        live = driver.execution
        previous = asyncio_events._get_running_loop()
        try:
            journal = (self._store or worker.store).load(driver.key, driver.run, 0, driver.length)
            if len(journal) == driver.length and live.machine.position == driver.length:
                self._compare(worker, driver, journal)
        except Broken as broken:
            self.problems.append(str(broken))
        except StoreError:
            pass  # the test's own doing
        except PerdureError as error:
            self.problems.append(f"{driver.key.execution}: replay of what just ran: {error}")
        finally:
            asyncio_events._set_running_loop(previous)

    def _compare(self, worker: Worker, driver: Driver, journal: list[ev.Recorded]) -> None:
        live = driver.execution
        again = replay(live.workflow, live.id, journal, worker.fingerprint, private=live.private)
        again.execution.take()
        if not live.machine.closed_by:
            expected, found = point_of(live), point_of(again.execution)
            if expected != found:
                raise Broken(FIXED_POINT, f"{live.id}: live {expected}, replayed {found}", driver.key)
            for command in live.machine.open_commands():
                if told(command) != again.last(command.seq):
                    raise Broken(FIXED_POINT, f"{live.id} #{command.seq}: live {told(command)}", driver.key)
        elif encode_event(live.machine.closed_by) != encode_event(journal[-1].event):
            raise Broken("the same bytes", f"{live.id}: closed by {live.machine.closed_by}", driver.key)
        for one, other in ((live.random, again.execution.random), (live.entropy, again.execution.entropy)):
            if one.getstate() != other.getstate():
                raise Broken(FIXED_POINT, f"{live.id}: other random numbers", driver.key)
        again.execution.evict()
