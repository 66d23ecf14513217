"""What one run has to be written next: letters, answers of its steps, due timers, what its code sends, its end.

It gathers, and composes one batch of it at a time; what was committed is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

from perdure.core import events as ev
from perdure.core.commands import CloseRun
from perdure.core.errors import JournalTooLong
from perdure.core.table import RunState
from perdure.runtime.attempt import Spent
from perdure.runtime.closing import last_batch, last_batch_without_code
from perdure.runtime.effects import Effects
from perdure.runtime.inbox import Chosen, choose, choose_end
from perdure.runtime.left_behind import LeftBehind
from perdure.runtime.outgoing import Outgoing
from perdure.runtime.succession import last_of_many
from perdure.runtime.timing import due_events, end_unbegun, is_overdue, next_due_ms, not_due, opening, overdue
from perdure.runtime.updates import add_rows, expired
from perdure.store.protocol import Batch, Letter, Start
from perdure.workflow.execution import Execution

RESULTS_PER_BATCH = 1_000
MOST_EVENTS = 200_000
MORE_EVENTS = 10_000  # what a run that has as many is granted whenever it is resumed
NONE_CHOSEN = Chosen()

EffectsOf: TypeAlias = Callable[[], Effects]


class Pending:
    """Belongs to the driver of the run."""

    def __init__(self, execution: Execution, outgoing: Outgoing, create: Start | None) -> None:
        self.outgoing = outgoing
        self.create = create  # the start of a new execution, until it is written
        self.parent: ev.Parent | None = create.event.parent if create is not None else None
        self.letters: dict[str, Letter] = {}  # by message id
        self.more_letters = False  # the inbox held a whole page: there may be another behind it
        self.results: list[ev.AnyEvent] = []
        self.spent = Spent()
        self.closing: CloseRun | None = None
        self.effects: Effects | None = None  # of its steps that are declared once; most executions have none
        self.begins_at_ms: int | None = None  # as long as it may not begin
        self._execution = execution
        self._machine = execution.machine
        self._taken_meanwhile: set[str] | None = None  # letters taken while the inbox was read: it may still show them
        self._writing = 0  # how many of the results are in the batch that is being written
        self._most_events = MOST_EVENTS

    # --- what comes in ---

    def journal_is_long(self, length: int) -> None:
        """It was resumed with as many events."""
        if length >= MOST_EVENTS:
            self._most_events = length + MORE_EVENTS

    def inbox_is_read(self) -> None:
        """From now on, until letters arrive."""
        self._taken_meanwhile = set()

    def letters_arrived(self, letters: Sequence[Letter], most: int) -> None:
        """A page was read from the inbox, of at most so many; known letters are recognised."""
        self.more_letters = len(letters) >= most
        taken, self._taken_meanwhile = self._taken_meanwhile or (), None
        self.letters.update((each.message_id, each) for each in letters if each.message_id not in taken)

    def forget_letters(self) -> None:
        """They stay in the inbox, and are to be read again."""
        self.letters.clear()
        self.more_letters = True

    def withdraw(self, seqs: Collection[int]) -> None:
        """Nobody waits for the answers of these commands any more."""
        self.results = [event for event in self.results if getattr(event, "seq", None) not in seqs]

    @property
    def unwritten(self) -> bool:
        """Whether something that happened is not in the journal yet."""
        return bool(self.results or self.outgoing.events)

    def __bool__(self) -> bool:
        """Whether there may be something to write."""
        if self.results or self.letters or self.outgoing.events or self.closing or self.create:
            return True
        return bool(self._machine.facts.patches.unwritten) or next_due_ms(self._machine) is not None

    # --- what is written ---

    def compose(self, now_ms: int, effects_of: EffectsOf) -> Batch | None:
        """The next batch, whatever it holds: messages, then answers, then timers, then what the code sends.

        `effects_of` makes what looks after `once` steps, for those that never had any here.

        Raises:
            JournalTooLong: there is no room for it.
            RunsInVain, TooManyChildren: it may not go on as a new run.
        """
        machine = self._machine
        at_ms = max(machine.now_ms, now_ms)
        chosen = choose(machine, self.letters.values(), self._execution.judge) if self.letters else NONE_CHOSEN
        early = not_due(chosen, at_ms) if machine.state is RunState.NEW else None
        if early is not None:
            self.begins_at_ms = early.start_at_ms
            return end_unbegun(self.outgoing, machine, self._behind_all(chosen), early, at_ms)
        if self.closing or chosen.terminate or is_overdue(machine, at_ms):
            return self._final_batch(at_ms, self._replaced(chosen), effects_of)
        return self._mixed_batch(at_ms, chosen, effects_of)

    def _behind_all(self, chosen: Chosen) -> Chosen:
        """For what has not begun: with what came behind a pause or an update, which wait for its beginning."""
        if not chosen.last and not chosen.blocked:
            return chosen
        waits = ev.PauseRequested | ev.UpdateRequested
        letters = [each for each in self.letters.values() if not isinstance(each.event, waits)]
        return choose(self._machine, letters, self._execution.judge)

    def _replaced(self, chosen: Chosen) -> Chosen:
        """At the end: the same, with the start that is to begin in its place, behind whatever else it waits."""
        asked = choose_end(self.letters.values(), self.outgoing.run)
        return chosen if asked.successor is None else chosen.with_successor(asked)

    def holds_only_results(self) -> bool:
        """Of steps, as nearly every commit does."""
        if self.letters or self.outgoing.events or self.closing or self.effects or self.create:
            return False
        machine = self._machine
        quiet = not machine.timers and machine.facts.deadline_ms is None and not machine.facts.patches.unwritten
        return quiet and machine.state is RunState.RUNNING

    def results_alone(self, now_ms: int) -> Batch:
        """The next batch, where it holds nothing else. Raises `JournalTooLong`."""
        return self._next_batch(max(self._machine.now_ms, now_ms), self.results[:RESULTS_PER_BATCH])

    def end_without_code(
        self, now_ms: int, asked: Chosen, left: LeftBehind, length: int, unfed: Sequence[ev.Recorded]
    ) -> Batch:
        """The end of a run whose code cannot go on, with what its journal tells: its length, and what was not fed."""
        at_ms, parent = max(now_ms, self._machine.now_ms), self._parent()
        return last_batch_without_code(self._execution, self.outgoing, parent, asked, length, unfed, at_ms, left)

    def written(self, batch: Batch) -> None:
        """Forget what is in it; more may have come while it was written."""
        for letter in batch.taken:
            self.letters.pop(letter.message_id, None)
            if self._taken_meanwhile is not None:
                self._taken_meanwhile.add(letter.message_id)
        if self.spent:
            self.spent.forget(self.results[: self._writing])
        del self.results[: self._writing]
        self.outgoing.clear()
        self.create = None

    def _mixed_batch(self, at_ms: int, chosen: Chosen, effects_of: EffectsOf) -> Batch | None:
        outgoing, due = self.outgoing, self._due(chosen, at_ms)
        events = [
            *opening(self._machine, self.create, chosen.events, at_ms),
            *_answered(chosen, effects_of),
            *self.results[:RESULTS_PER_BATCH],
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
        batch.create, batch.closed_asks = self.create, expired(self._execution, at_ms) if due else ()
        return self._with_rows(batch, chosen)

    def _next_batch(self, at_ms: int, events: Sequence[ev.AnyEvent]) -> Batch:
        """These events; a page of results is among them."""
        position = self._machine.position
        if position + len(events) > self._most_events:
            raise JournalTooLong(events=position, more=MORE_EVENTS)
        self._writing = min(len(self.results), RESULTS_PER_BATCH)
        return Batch(self.outgoing.key, self.outgoing.run, position, self.spent.headed(events, at_ms))

    def _with_rows(self, batch: Batch, chosen: Chosen) -> Batch:
        """The batch, with the rows that tell of its events without the journal."""
        if self.outgoing.is_read_outside or chosen.answers_updates:
            add_rows(batch, chosen.rejected)
        batch.attributes = self.outgoing.attributes
        return batch if self.effects is None else self.effects.marked(batch)

    def _due(self, chosen: Chosen, at_ms: int) -> Sequence[ev.AnyEvent]:
        """Timers that fire now: not in a pause, and not before all letters that are stored."""
        paused = self._machine.state is RunState.PAUSED
        if paused or chosen.last or chosen.blocked or (self.more_letters and chosen.letters):
            return ()
        return due_events(self._machine, at_ms)

    def _marks(self) -> list[ev.PatchMarked]:
        """Changes of code that the run has taken, and its journal does not tell yet."""
        patches = self._machine.facts.patches
        return patches.events() if patches.unwritten else []

    # --- the end ---

    def _final_batch(self, at_ms: int, chosen: Chosen, effects_of: EffectsOf) -> Batch | None:
        """The end. Of the letters that come with it only what it needs is taken: what nobody will read is buried."""
        close = self.closing
        if close is None and chosen.terminate is None:
            chosen = overdue(chosen)
        effects = self.effects if chosen.terminate is None else effects_of()  # some may have begun elsewhere
        if effects is not None and chosen.terminate is None and effects.unsettled():
            return self._settling_batch(effects, at_ms)
        words = self._last_words(effects)
        if chosen.terminate is None and close is not None and close.continues is not None:
            batch = last_of_many(self._execution, self.outgoing, close, words, at_ms)
        else:
            begun = opening(self._machine, self.create, chosen.starts(), at_ms)
            first = [*begun, *_answered(chosen, effects_of), *words]
            batch = last_batch(self._execution, self.outgoing, self._parent(), chosen, close, first, at_ms)
            batch.create = self.create
        return self._with_rows(batch, chosen)

    def _last_words(self, effects: Effects | None) -> list[ev.AnyEvent]:
        return [*(() if effects is None else effects.last_words(self.results)), *self._marks()]

    def _settling_batch(self, effects: Effects, at_ms: int) -> Batch | None:
        """The code has ended, but not all that its steps do: nothing else happens any more until that is known."""
        settled = effects.known(self.results)
        self.results = [*settled, *(event for event in self.results if event not in settled)]
        if not settled:
            return None
        outgoing = self.outgoing
        batch = self._next_batch(at_ms, [*settled, *outgoing.at_close()])
        self._writing = len(settled)
        batch.mail, batch.starts, batch.buried = outgoing.mail, outgoing.starts, outgoing.buried
        return self._with_rows(batch, NONE_CHOSEN)

    def _parent(self) -> ev.Parent | None:
        """Who is told how it ends: by its journal, if that can be read."""
        facts = self._machine.facts
        return self.parent if facts.started is None else facts.parent


def _answered(chosen: Chosen, effects_of: EffectsOf) -> Sequence[ev.AnyEvent]:
    """What people say of steps of which nobody knew."""
    return effects_of().answered(chosen.answers) if chosen.answers else ()
