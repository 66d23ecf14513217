"""Drives one execution: the one place that matches on commands. Commit, then feed; that is the whole cycle.

feed events -> take commands -> start them, gather what they and the world answer -> commit -> feed ...
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from perdure.core import events as ev
from perdure.core.commands import (
    AnyCommand,
    CloseRun,
    RunStep,
    SendMessage,
    StartChild,
    StartTimer,
    State,
)
from perdure.core.errors import NotAsShown, PerdureError, PoisonedExecution, StalledByBug
from perdure.core.identity import Key
from perdure.core.machine import Machine
from perdure.core.table import RunState
from perdure.runtime.attempt import StepRun
from perdure.runtime.effects import Effects
from perdure.runtime.host import Created, Host
from perdure.runtime.inbox import Chosen, choose_end
from perdure.runtime.left_behind import LeftBehind
from perdure.runtime.loading import INBOX_PAGE, recorded_here
from perdure.runtime.outgoing import Outgoing
from perdure.runtime.pending import Pending
from perdure.runtime.steps import LAPSED
from perdure.runtime.timing import next_due_ms
from perdure.store.protocol import Batch, Letter, Outcome, Park, Start, Store, Succession
from perdure.workflow.definitions import Workflow
from perdure.workflow.execution import Execution
from perdure.workflow.values import failure_info

log = logging.getLogger("perdure")

EVENTS_PER_TURN = 256
STARTS_AGAIN = frozenset((ev.StepAttemptFailed, ev.StepIntended))  # when this process has just journaled them


class Driver:
    """One execution in memory, between its store and its code. Belongs to the engine's thread."""

    def __init__(
        self, host: Host, key: Key, run: str, workflow: Workflow[..., Any], *, create: Start | None = None
    ) -> None:
        self.host, self.key, self.run = host, key, run
        self.execution = Execution(workflow, key.execution, host.fingerprint)
        self.execution.private = host.private
        self.machine = self.execution.machine
        self._outgoing = Outgoing(key, run, host.shards, self.machine)
        self.pending = Pending(self.execution, self._outgoing, create)
        self.attempts: dict[int, StepRun | None] = {}  # what the step runner has of its steps; None: it waits there
        self.progress: dict[int, ev.Payload] = {}  # what attempts of an earlier process last told
        self.dead = False
        self.reach = INBOX_PAGE  # how many letters a reading takes
        self.ending = False  # it may not close before it knows which start waits to begin in its place
        self.paused = False  # as its code was when it was last given something to do
        self.broken: PerdureError | None = None  # its code cannot run its journal, or nobody can read it
        self.length = 0  # of the durable journal
        self.watched = False  # the worker wants to hear of progress: it died too often with this one
        self.poisoned = False  # it died again: do not run its steps any more
        self.created: Created | None = None  # told whether the id was free
        self.when_fed: list[asyncio.Future[None]] = []  # of those who want to look at what is in memory
        self.size = 0  # bytes of journal behind this execution, roughly
        self._feeding: deque[ev.Recorded] = deque()
        self._again: list[RunStep] = []
        self._retries: dict[int, RunStep] = {}
        self.replaced = False  # another start has taken its place
        self.then: Succession | None = None  # what follows, once this run has ended
        self._committing: Batch | None = None
        self._scheduled = False
        self._unreadable: PerdureError | None = None
        self._wake_at_ms: int | None = None  # what the worker's alarm is set to

    # --- what happens to it ---

    def replay(self, journal: Iterable[ev.Recorded], letters: Sequence[Letter]) -> None:
        """Begin from what the store holds."""
        self._feeding.extend(journal)
        self.length = len(self._feeding)
        self.pending.journal_is_long(self.length)
        self.execution.expect(self._feeding)
        self.letters_arrived(letters)
        self.poke()

    def letters_arrived(self, letters: Sequence[Letter]) -> None:
        """A page was read from the inbox."""
        self.pending.letters_arrived(letters, self.reach)
        self.poke()

    @property
    def store(self) -> Store:
        """Where it is journaled."""
        return self.host.store

    def step_done(self, seq: int, event: ev.AnyEvent) -> None:
        """An attempt ended: its event waits for the next commit."""
        self.pending.spent.note(self.attempts.pop(seq, None))
        if not self.dead:
            self.pending.results.append(event)
            self.poke()

    def step_lapsed(self) -> None:
        """A step did not run, because another worker may be running it."""
        self.host.lost_soon(self)

    def step_unbegun(self, seq: int, reason: str) -> None:
        """An intended attempt surely did not run."""
        self.attempts.pop(seq, None)
        self.effects.unbegun(seq, reason, lapsed=reason == LAPSED)

    def step_unreadable(self, seq: int, error: PerdureError) -> None:
        """A step ran, but its result cannot be recorded: never a reason to run it again by itself."""
        run = self.attempts.pop(seq, None)
        if run is not None and run.command.options.once:
            self.effects.undecided(run, error)
        else:
            self._unreadable = error
            self.poke()

    def later(self, command: RunStep, at_ms: int) -> None:
        """Start this step again then."""
        command.retry_at_ms = at_ms
        self._retries[command.seq] = command
        self.poke()

    @property
    def effects(self) -> Effects:
        """What looks after its steps that are declared once; made for the first of them: most executions have none."""
        pending = self.pending
        if pending.effects is None:
            pending.effects = Effects(self, self.host, self._outgoing)
        return pending.effects

    def poke(self) -> None:
        """There may be something to do: look at the end of this turn of the loop, so that answers gather."""
        if not self._scheduled and not self.dead and self._committing is None:
            self._scheduled = True
            self.host.soon(self)

    @property
    def resting(self) -> bool:
        """Nothing runs and nothing is to be written: it waits for timers, messages or children."""
        return not self.attempts and self.is_quiet

    @property
    def is_quiet(self) -> bool:
        """Nothing is to be written; but its steps may run, wait for their place, or for the time to ask about them."""
        pending = self.pending
        if self._scheduled or self._committing or self._feeding or pending.results:
            return False
        held = self._outgoing.events or self._again or pending.closing
        return not pending.more_letters and (self.paused or not held)

    @property
    def is_fed(self) -> bool:
        """Whether its code is where the journal leads it: then one may look at it."""
        return not (self.dead or self._feeding) and self.machine.state not in (RunState.NEW, RunState.PENDING)

    def _tell_who_looks(self) -> None:
        waiting, self.when_fed = self.when_fed, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    @property
    def is_new(self) -> bool:
        """Whether its start is not written yet."""
        return self.pending.create is not None

    @property
    def committing(self) -> bool:
        """Whether a commit of it is under way."""
        return self._committing is not None

    @property
    def unwritten(self) -> bool:
        """Whether something that happened is not in the journal yet."""
        return self._committing is not None or self.pending.unwritten

    def discard(self) -> None:
        """Leave memory. What was committed stays; everything else is forgotten, as after a crash."""
        if not self.dead:
            self.dead = True
            self._end_code()

    def halt(self, error: PerdureError) -> None:
        """Its code cannot go on. It stays until that is written: until then its row says that it may be run."""
        self.broken = error
        self._end_code()

    def _end_code(self) -> None:
        for seq in list(self.attempts):
            self.host.steps.stop(self, seq)
        if self.pending.effects is not None:
            self.pending.effects.stop()
        self.host.wake_at(self, None)
        self.execution.evict()
        self._tell_who_looks()

    def open_steps(self) -> list[str]:
        """Names of the steps that the code waits for."""
        return [c.name for c in self.machine.open_commands() if isinstance(c, RunStep)]

    # --- the cycle ---

    def turn(self) -> None:
        """Feed what is committed; then start, write or rest. Called by the worker after `soon`."""
        self._scheduled = False
        if self.dead or self._committing is not None:
            return
        if self.broken is not None:
            self.host.stalled(self, self.broken)
            return
        try:
            if self._feeding:
                self._feed_some()
            if self.when_fed:
                self._tell_who_looks()
            if self._feeding:
                self.poke()
            elif self.machine.closed_by is not None:
                self._end()
            else:
                self._advance()
        except PerdureError as error:
            self.host.stalled(self, error)
        except Exception as error:
            log.exception("execution %s: unexpected error", self.key.execution, exc_info=not self.host.private)
            self.host.stalled(self, StalledByBug(failure=failure_info(error)))

    def _end(self) -> None:
        """Its journal has ended. Who waits for the execution waits for what began in its place, if something did."""
        assert self.machine.closed_by is not None
        if self.replaced:
            self.host.reload(self)
        else:
            self.host.closed(self, self.machine.closed_by)

    def asked_to_end(self) -> Chosen | None:
        """What asks to terminate it, if something does: for that its code is not needed."""
        asked = choose_end(self.pending.letters.values(), self.run)
        return None if asked.terminate is None or self.is_new else asked

    def end_without_code(self, asked: Chosen, left: LeftBehind) -> None:
        """Close it, with what its journal tells."""
        end = self.pending.end_without_code(self.host.now_ms(), asked, left, self.length, self._feeding)
        self._committing = end
        self.host.commit(end, lambda outcome: self._terminated(outcome, end))

    def _terminated(self, outcome: Outcome | PerdureError, end: Batch) -> None:
        self._committing = None
        if self.dead:
            return
        if outcome is not Outcome.COMMITTED:
            self.host.lost(self)
        elif end.successor is not None:
            self.host.reload(self)
        else:
            self.host.closed(self, end.events[-1].event)

    def _feed_some(self) -> None:
        feeding, execution = self._feeding, self.execution
        for _ in range(min(len(feeding), EVENTS_PER_TURN)):
            recorded = feeding[0]
            execution.feed(recorded)
            feeding.popleft()  # only now: what could not be fed is still ahead
            event = recorded.event
            if type(event) in STARTS_AGAIN:
                self._try_again(event.seq)  # type: ignore[union-attr]

    def _try_again(self, seq: int) -> None:
        command = self.machine.open.get(seq)
        if isinstance(command, RunStep) and command.taken:
            self._again.append(command)

    def _advance(self) -> None:
        """Every committed event has been fed: start what the code asked for, and write what there is to write."""
        machine = self.machine
        if self.paused is not (machine.state is RunState.PAUSED):
            self._pause_or_go_on()
        if not self.paused:
            self._take_commands(machine)
        batch = self._compose() if self.pending else None
        if batch is not None:
            self._committing = batch
            self.host.commit(batch, self._committed)
            return
        if self._unreadable is not None:
            raise self._unreadable  # only now: what other steps answered has been written
        if self.machine.state is RunState.NEW and self.pending.more_letters and not self.ending:
            self._look_further(closes=True)  # it may not begin yet; somebody may ask to end it
        self._wait()

    def _compose(self) -> Batch | None:
        """The next batch: answers of steps alone, as nearly always, or of all that has gathered, in its order."""
        pending, now_ms = self.pending, self.host.now_ms()
        if pending.holds_only_results():
            return pending.results_alone(now_ms)
        return pending.compose(now_ms, lambda: self.effects)

    def _take_commands(self, machine: Machine) -> None:
        if machine.fresh or machine.dropped or not machine.open or self._again:
            self._do(*self.execution.take())
        execution = self.execution
        state = execution.take_state()
        if state is not None:
            self._outgoing.publish(state)
        if execution.attributes is not None:
            self._outgoing.set_attributes(execution.attributes)

    def _pause_or_go_on(self) -> None:
        """A pause has begun or ended. While it lasts, only requests are read from the inbox; all else stays there."""
        self.paused = not self.paused
        self.pending.forget_letters()
        if self.paused:
            self._hold_back()
        self.host.fetch_letters(self)

    def _hold_back(self) -> None:
        """What has not begun, because it only waits for its place."""
        effects = self.pending.effects
        never_begun, asked = (set[int](), set[int]()) if effects is None else effects.hold_back()
        self._again = [step for step in self._again if step.seq not in never_begun]
        for seq in [seq for seq, run in self.attempts.items() if run is None and seq not in asked]:
            self.host.steps.stop(self, seq)
            self._try_again(seq)

    def _wait(self) -> None:
        wake_at_ms = self.next_wake_ms()
        if wake_at_ms != self._wake_at_ms:
            self._wake_at_ms = wake_at_ms
            self.host.wake_at(self, wake_at_ms)
        if self.resting:
            self.host.rested(self)

    def _do(self, start: Sequence[AnyCommand], stop: Sequence[AnyCommand]) -> None:
        if self.poisoned and self.open_steps():
            raise PoisonedExecution(steps=", ".join(self.open_steps()))
        if stop:
            self._stop(stop)
        again, self._again = self._again, []
        for command in (*start, *again):
            self._start(command)
        if self.machine.drifts:
            self._tell_drifts()

    def _tell_drifts(self) -> None:
        for drift in self.machine.drifts:
            log.warning("execution %s: %s", self.key.execution, drift)
        self.machine.drifts.clear()

    def _committed(self, outcome: Outcome | PerdureError) -> None:
        batch, self._committing = self._committing, None
        if self.dead:
            self.host.left(self.key)
        if self.dead or batch is None:
            return
        if outcome is Outcome.COMMITTED:
            self._forget_written(batch)
            self.then, self.replaced = batch.then, batch.successor is not None
            self._feed_batch(batch)
            if self.pending.more_letters and batch.taken:
                self.host.fetch_letters(self)
            self.turn()
        elif outcome is Outcome.MAIL:
            self._look_further(closes=batch.closes is not None)
        elif isinstance(outcome, PerdureError) and self.created is None:
            self.host.stalled(self, outcome)  # what it wants written cannot be encrypted
        else:
            self._conflict()

    def _look_further(self, *, closes: bool) -> None:
        """There are letters that it must know of, behind a page of those that have to wait."""
        self.ending = closes
        if self.pending.more_letters:
            self.reach *= 2
        self.host.fetch_letters(self)

    def _conflict(self) -> None:
        if not self.is_new or self.created is None:
            self.host.lost(self)
            return
        created, self.created = self.created, None
        self.host.refused(self)
        created(free=False)

    def _forget_written(self, batch: Batch) -> None:
        if batch.updates:
            self.host.on_answered(self.key, batch)
        self.length += len(batch.events)
        self.pending.written(batch)
        if self.created is not None:
            created, self.created = self.created, None
            created(free=True)
        if self.watched:
            self.watched = False
            self.host.progressed(self)

    def _feed_batch(self, batch: Batch) -> None:
        self._feeding.extend(recorded_here(batch.events, batch.expected, self.host.fingerprint))

    # --- commands ---

    def _start(self, command: AnyCommand) -> None:
        match command:
            case RunStep():
                self._start_step(command)
            case StartChild():
                self.host.know(command.target)
                self._outgoing.start_child(command)
            case SendMessage():
                self._outgoing.send(command)
            case CloseRun():
                self.pending.closing = command
            case StartTimer():
                pass  # the machine holds its deadline, only its firing is written
            case _:
                self._outgoing.note(command)

    def _start_step(self, command: RunStep) -> None:
        if command.shown and command.shown != command.digest and command.state is State.OPEN:
            reason = "other code asked about it, and showed other arguments"
            self._unreadable = NotAsShown(name=command.name, reason=reason)
            return
        if command.retry_at_ms and command.retry_at_ms > self.host.now_ms():
            self._retries[command.seq] = command
            return
        if command.options.once or command.state is not State.OPEN:
            self.effects.start(command)
            return
        if self.progress:
            command.progress = self.progress.pop(command.seq, command.progress)
        self.host.steps.begin(self, command)

    def _stop(self, stop: Sequence[AnyCommand]) -> None:
        seqs = {command.seq for command in stop if command.state is State.CANCELLED}
        if len(seqs) < len(stop):
            self.effects.left(stop)
        for seq in seqs & self._retries.keys():
            del self._retries[seq]
        for seq in sorted(seqs & self.attempts.keys()):
            self.host.steps.stop(self, seq, for_good=True)
        self._again = [step for step in self._again if step.seq not in seqs]
        self.pending.withdraw(seqs)

    # --- what it waits for ---

    def park(self, status: Literal["parked", "paused", "stalled"], *, waits_for: str = "", problem: str = "") -> Park:
        """What its row is to tell while it rests."""
        wake_at_ms = None if status == "stalled" else self.next_wake_ms()
        return Park(self.key, self.run, self.length, status, wake_at_ms, waits_for, problem)

    def next_wake_ms(self) -> int | None:
        """When time alone brings it something to do: a timer, its deadline, a retry; None: never."""
        if self.paused:
            return None
        if self.machine.state is RunState.NEW:
            return self.pending.begins_at_ms
        deadline_ms = None if self.pending.closing else next_due_ms(self.machine)
        if not self._retries:
            return deadline_ms
        first_retry_ms = min(command.retry_at_ms for command in self._retries.values())
        return first_retry_ms if deadline_ms is None else min(first_retry_ms, deadline_ms)

    def timer_due(self) -> None:
        """The worker's clock reached what `wake_at` asked for."""
        self._wake_at_ms = None
        now_ms = self.host.now_ms()
        for seq, command in list(self._retries.items()):
            if command.retry_at_ms <= now_ms:
                del self._retries[seq]
                self._again.append(command)
        self.poke()
