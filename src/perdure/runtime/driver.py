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
from perdure.core.errors import JournalTooLong, PerdureError, PoisonedExecution, StalledByBug
from perdure.core.identity import Key
from perdure.core.machine import Machine
from perdure.core.table import RunState
from perdure.runtime.attempt import Spent, StepRun
from perdure.runtime.closing import last_batch, last_batch_without_code
from perdure.runtime.effects import Effects
from perdure.runtime.host import Created, Host
from perdure.runtime.inbox import Chosen, choose, requests_to_end
from perdure.runtime.left_behind import LeftBehind
from perdure.runtime.loading import INBOX_PAGE, recorded_here
from perdure.runtime.outgoing import Outgoing
from perdure.runtime.steps import LAPSED
from perdure.runtime.succession import last_of_many
from perdure.runtime.timing import due_events, end_unbegun, is_overdue, next_due_ms, not_due, opening, overdue
from perdure.runtime.updates import expired, tell
from perdure.store.protocol import Batch, Letter, Outcome, Park, Start, Store, Succession
from perdure.workflow.definitions import Workflow
from perdure.workflow.execution import Execution
from perdure.workflow.values import failure_info

log = logging.getLogger("perdure")

EVENTS_PER_TURN = 256
RESULTS_PER_BATCH = 1_000
STARTS_AGAIN = frozenset((ev.StepAttemptFailed, ev.StepIntended))  # when this process has just journaled them
MOST_EVENTS = 200_000
MORE_EVENTS = 10_000  # what a run that has as many is granted whenever it is resumed
NONE_CHOSEN = Chosen()


class Driver:
    """One execution in memory, between its store and its code. Belongs to the engine's thread."""

    def __init__(
        self, host: Host, key: Key, run: str, workflow: Workflow[..., Any], *, create: Start | None = None
    ) -> None:
        self.host, self.key, self.run = host, key, run
        self.execution = Execution(workflow, key.execution, host.fingerprint)
        self.execution.private = host.private
        self.machine = self.execution.machine
        self.create = create
        self.parent: ev.Parent | None = create.event.parent if create is not None else None
        self.attempts: dict[int, StepRun | None] = {}  # what the step runner has of its steps; None: it waits there
        self.progress: dict[int, ev.Payload] = {}  # what attempts of an earlier process last told
        self.dead = False
        self.paused = False  # as its code was when it was last given something to do
        self.broken: PerdureError | None = None  # its code cannot run its journal, or nobody can read it
        self.length = 0  # of the durable journal
        self._most_events = MOST_EVENTS
        self.watched = False  # the worker wants to hear of progress: it died too often with this one
        self.poisoned = False  # it died again: do not run its steps any more
        self.created: Created | None = None  # told whether the id was free
        self.when_fed: list[asyncio.Future[None]] = []  # of those who want to look at what is in memory
        self.size = 0  # bytes of journal behind this execution, roughly
        self._letters: dict[str, Letter] = {}  # by message id
        self.taken_meanwhile: set[str] | None = None  # letters taken while the inbox was read: it may still show them
        self._more_letters = False  # the inbox held a whole page: there may be another behind it
        self._results: list[ev.AnyEvent] = []
        self._spent = Spent()
        self._outgoing = Outgoing(key, run, host.shards, self.machine)
        self._feeding: deque[ev.Recorded] = deque()
        self._again: list[RunStep] = []
        self._retries: dict[int, RunStep] = {}
        self._closing: CloseRun | None = None
        self.replaced = False  # another start has taken its place
        self.then: Succession | None = None  # what follows, once this run has ended
        self._committing: Batch | None = None
        self._writing = 0  # how many of the results are in it
        self._scheduled = False
        self._unreadable: PerdureError | None = None
        self._effects: Effects | None = None  # of its steps that are declared once
        self._begins_at_ms: int | None = None  # as long as it may not begin
        self._wake_at_ms: int | None = None  # what the worker's alarm is set to

    # --- what happens to it ---

    def replay(self, journal: Iterable[ev.Recorded], letters: Sequence[Letter]) -> None:
        """Begin from what the store holds."""
        self._feeding.extend(journal)
        self.length = len(self._feeding)
        if self.length >= MOST_EVENTS:
            self._most_events = self.length + MORE_EVENTS
        self.execution.expect(self._feeding)
        self.letters_arrived(letters)
        self.poke()

    def letters_arrived(self, letters: Sequence[Letter]) -> None:
        """A page was read from the inbox; known letters are recognised."""
        self._more_letters = len(letters) >= INBOX_PAGE
        taken, self.taken_meanwhile = self.taken_meanwhile or (), None
        self._letters.update((each.message_id, each) for each in letters if each.message_id not in taken)
        self.poke()

    @property
    def store(self) -> Store:
        """Where it is journaled."""
        return self.host.store

    def step_done(self, seq: int, event: ev.AnyEvent) -> None:
        """An attempt ended: its event waits for the next commit."""
        self._spent.note(self.attempts.pop(seq, None))
        if not self.dead:
            self._results.append(event)
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
        """Of its steps that are declared once; most executions have none."""
        if self._effects is None:
            self._effects = Effects(self, self.host, self._outgoing)
        return self._effects

    def poke(self) -> None:
        """Something may be to be done: look at the end of this turn of the loop, so that answers gather."""
        if not self._scheduled and not self.dead and self._committing is None:
            self._scheduled = True
            self.host.soon(self)

    @property
    def resting(self) -> bool:
        """Nothing runs and nothing is to be written: it waits for timers, messages or children."""
        return not self.attempts and self.is_quiet

    @property
    def is_quiet(self) -> bool:
        """Likewise, but its steps may run, wait for their place, or for the time to ask what came of them."""
        if self._scheduled or self._committing or self._feeding or self._results:
            return False
        held = self._outgoing.events or self._again or self._closing
        return not self._more_letters and (self.paused or not held)

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
    def committing(self) -> bool:
        """Whether a commit of it is under way."""
        return self._committing is not None

    @property
    def unwritten(self) -> bool:
        """Whether something that happened is not in the journal yet."""
        return bool(self._committing or self._results or self._outgoing.events)

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
        if self._effects is not None:
            self._effects.stop()
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
        asked = requests_to_end(self._letters.values(), self.run)
        return None if asked.terminate is None or self.create is not None else asked

    def end_without_code(self, asked: Chosen, left: LeftBehind) -> None:
        """Close it, with what its journal tells."""
        at_ms = max(self.host.now_ms(), self.machine.now_ms)
        end = last_batch_without_code(
            self.execution, self._outgoing, self._parent(), asked, self.length, self._feeding, at_ms, left
        )
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
        batch = self._compose() if self._results or self._has_news() else None
        if batch is not None:
            self._committing = batch
            self.host.commit(batch, self._committed)
            return
        if self._unreadable is not None:
            raise self._unreadable  # only now: what other steps answered has been written
        self._wait()

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
        self.paused, self._more_letters = not self.paused, True
        self._letters.clear()
        if self.paused:
            self._hold_back()
        self.host.fetch_letters(self)

    def _hold_back(self) -> None:
        """What has not begun, because it only waits for its place."""
        kept = () if self._effects is None else self._effects.hold_back()
        self._again = [step for step in self._again if step.seq not in kept]
        for seq in [seq for seq, run in self.attempts.items() if run is None and seq not in kept]:
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
            if self._more_letters and batch.taken:
                self.host.fetch_letters(self)
            self.turn()
        elif outcome is Outcome.MAIL:
            self.host.fetch_letters(self)
        elif isinstance(outcome, PerdureError) and self.created is None:
            self.host.stalled(self, outcome)  # what it wants written cannot be encrypted
        else:
            self._conflict()

    def _conflict(self) -> None:
        if self.create is None or self.created is None:
            self.host.lost(self)
            return
        created, self.created = self.created, None
        self.host.refused(self)
        created(free=False)

    def _forget_written(self, batch: Batch) -> None:
        if batch.updates:
            self.host.on_answered(self.key, batch)
        self.length += len(batch.events)
        for letter in batch.taken:
            self._letters.pop(letter.message_id, None)
            if self.taken_meanwhile is not None:
                self.taken_meanwhile.add(letter.message_id)
        if self._spent:
            self._spent.forget(self._results[: self._writing])
        del self._results[: self._writing]  # later ones came while it was written
        self._outgoing.clear()
        self.create = None
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
                self._closing = command
            case StartTimer():
                pass  # the machine holds its deadline, only its firing is written
            case _:
                self._outgoing.note(command)

    def _start_step(self, command: RunStep) -> None:
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
            self.host.steps.stop(self, seq)
        self._again = [step for step in self._again if step.seq not in seqs]
        self._results = [event for event in self._results if getattr(event, "seq", None) not in seqs]

    # --- what is written next ---

    def _has_news(self) -> bool:
        if self._letters or self._outgoing.events or self._closing or self.create:
            return True
        if self.machine.facts.patches.unwritten:
            return True
        return next_due_ms(self.machine) is not None

    def _compose(self) -> Batch | None:
        machine = self.machine
        at_ms = max(machine.now_ms, self.host.now_ms())
        if self._holds_only_results():
            return self._next_batch(at_ms, self._results[:RESULTS_PER_BATCH])
        chosen = choose(machine, self._letters.values(), self.execution.judge) if self._letters else NONE_CHOSEN
        early = not_due(chosen, at_ms) if machine.state is RunState.NEW else None
        if early is not None:
            self._begins_at_ms = early.start_at_ms
            return end_unbegun(self._outgoing, machine, chosen, early, at_ms)
        if self._closing or chosen.terminate or is_overdue(machine, at_ms):
            return self._final_batch(at_ms, chosen)
        return self._mixed_batch(at_ms, chosen)

    def _holds_only_results(self) -> bool:
        """Of steps, as nearly every commit does."""
        if self._letters or self._outgoing.events or self._closing or self._effects or self.create:
            return False
        machine = self.machine
        quiet = not machine.timers and machine.facts.deadline_ms is None and not machine.facts.patches.unwritten
        return quiet and machine.state is RunState.RUNNING

    def _mixed_batch(self, at_ms: int, chosen: Chosen) -> Batch | None:
        outgoing, due = self._outgoing, self._due(chosen, at_ms)
        events = [
            *opening(self.machine, self.create, chosen.events, at_ms),
            *self._answered(chosen),
            *self._results[:RESULTS_PER_BATCH],
            *due,
            *self._marks(),
            *outgoing.events,
            *chosen.last,
        ]
        taken = chosen.taken
        if not events and not taken:
            return None
        batch = self._next_batch(at_ms, events)
        batch.taken, batch.left, batch.inbox_seen = taken, chosen.left, bool(due)
        batch.mail, batch.starts, batch.buried = outgoing.mail, outgoing.starts, outgoing.buried
        batch.create, batch.closed_asks = self.create, expired(self.execution, at_ms) if due else ()
        return self._told(batch, chosen)

    def _next_batch(self, at_ms: int, events: Sequence[ev.AnyEvent]) -> Batch:
        """These events; a page of results is among them."""
        position = self.machine.position
        if position + len(events) > self._most_events:
            raise JournalTooLong(events=position, more=MORE_EVENTS)
        self._writing = min(len(self._results), RESULTS_PER_BATCH)
        return Batch(self.key, self.run, position, self._spent.headed(events, at_ms))

    def _told(self, batch: Batch, chosen: Chosen) -> Batch:
        """With what its events mean to those who do not read them."""
        if self._outgoing.is_read_outside or chosen.answers_updates:
            tell(batch, chosen.rejected)
        batch.attributes = self._outgoing.attributes
        return batch if self._effects is None else self._effects.marked(batch)

    def _settling_batch(self, effects: Effects, at_ms: int) -> Batch | None:
        """The code has ended, but not all that its steps do: nothing else happens any more until that is known."""
        settled = effects.known(self._results)
        self._results = [*settled, *(event for event in self._results if event not in settled)]
        if not settled:
            return None
        outgoing = self._outgoing
        batch = self._next_batch(at_ms, [*settled, *outgoing.at_close()])
        self._writing = len(settled)
        batch.mail, batch.starts, batch.buried = outgoing.mail, outgoing.starts, outgoing.buried
        return self._told(batch, NONE_CHOSEN)

    def _answered(self, chosen: Chosen) -> Sequence[ev.AnyEvent]:
        """What people say of steps of which nobody knew."""
        return self.effects.answered(chosen.answers) if chosen.answers else ()

    def _due(self, chosen: Chosen, at_ms: int) -> Sequence[ev.AnyEvent]:
        """Timers that fire now: not in a pause, and not before all letters that are stored."""
        if self.paused or chosen.last or chosen.blocked or (self._more_letters and chosen.letters):
            return ()
        return due_events(self.machine, at_ms)

    def _final_batch(self, at_ms: int, chosen: Chosen) -> Batch | None:
        """The end. Of the letters that come with it only what it needs is taken: what nobody will read is buried."""
        close = self._closing
        if close is None and chosen.terminate is None:
            chosen = overdue(chosen)
        if self._waits_for_effects(chosen):
            return self._settling_batch(self.effects, at_ms)
        effects = self._effects if chosen.terminate is None else self.effects  # some may have begun elsewhere
        words = [*(() if effects is None else effects.last_words(self._results)), *self._marks()]
        if chosen.terminate is None and close is not None and close.continues is not None:
            batch = last_of_many(self.execution, self._outgoing, close, words, at_ms)
        else:
            begun = opening(self.machine, self.create, chosen.starts(), at_ms)
            first = [*begun, *self._answered(chosen), *words]
            batch = last_batch(self.execution, self._outgoing, self._parent(), chosen, close, first, at_ms)
            batch.create = self.create
        return self._told(batch, chosen)

    def _waits_for_effects(self, chosen: Chosen) -> bool:
        return self._effects is not None and chosen.terminate is None and self._effects.unsettled()

    def _marks(self) -> list[ev.PatchMarked]:
        """Changes of code that the run has taken, and its journal does not tell yet."""
        patches = self.machine.facts.patches
        return patches.events() if patches.unwritten else []

    def _parent(self) -> ev.Parent | None:
        """Who is told how it ends: by its journal, if that can be read."""
        facts = self.machine.facts
        return self.parent if facts.started is None else facts.parent

    def park(self, status: Literal["parked", "paused", "stalled"], *, waits_for: str = "", problem: str = "") -> Park:
        """What its row is to tell while it rests."""
        wake_at_ms = None if status == "stalled" else self.next_wake_ms()
        return Park(self.key, self.run, self.length, status, wake_at_ms, waits_for, problem)

    def next_wake_ms(self) -> int | None:
        if self.paused:
            return None
        if self.machine.state is RunState.NEW:
            return self._begins_at_ms
        deadline_ms = None if self._closing else next_due_ms(self.machine)
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
