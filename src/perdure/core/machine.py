"""The machine of one run: commands go in by `issue`, journaled events by `feed`; the table decides what an event means.

It owns sequence numbers, the state of each command, logical time and what has been received. It does no I/O and knows
no futures: `feed` answers with the command that an event concerns, and what to do with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import Any, NoReturn

import msgspec

from perdure.core import events as ev
from perdure.core.commands import AnyCommand, CloseRun, Intent, RunStep, StartTimer, State
from perdure.core.disagreement import Given, Giving, Show, describe_command, disagreement, drifted
from perdure.core.errors import CorruptJournal, NondeterminismError
from perdure.core.facts import Facts
from perdure.core.table import COMMANDS, RUN, Effect, RunState

MIN_TIMERS = 64


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What feeding an event means to the code: which command, and what to do with its future."""

    effect: Effect
    command: AnyCommand | None
    event: ev.AnyEvent


class Machine:
    """The state of one run, a pure function of the commands issued and the events fed."""

    def __init__(self, fingerprint: str = "", show: Show | None = None) -> None:
        self.fingerprint = fingerprint
        self.show = show  # renders payloads for messages
        self.state = RunState.NEW
        self.position = 0  # number of events fed: the position of the next
        self.now_ms = 0
        self.next_seq = 1
        self.open: dict[int, AnyCommand] = {}  # commands until they are answered, or no longer can be
        self.left: dict[int, RunStep] = {}  # steps that began, until it is known what they did
        self.drifts: list[str] = []
        self.seen_messages: set[str] = set()
        self.updates: set[str] = set()  # accepted ones
        self.received: dict[str, int] = {}  # last number accepted, by sender run
        self.sent: dict[str, int] = {}  # last number sent, by receiver
        self.asked_to_cancel: set[str] = set()  # executions that a request to cancel was sent to
        self.closed_by: ev.AnyEvent | None = None
        self.facts = Facts()
        self.timers: list[tuple[int, int]] = []  # heap of (due, seq); answered and cancelled ones are skipped when met
        self.fresh: list[AnyCommand] = []
        self.dropped: list[AnyCommand] = []

    # --- commands in ---

    def issue(self, command: AnyCommand) -> int:
        """Number a command and keep it open. It starts when `take` hands it out."""
        seq = command.seq = self.next_seq
        self.next_seq = seq + 1
        self.open[seq] = command
        self.fresh.append(command)
        if type(command) is StartTimer:
            heappush(self.timers, (command.due_ms, seq))
        return seq

    def cancel(self, seq: int) -> None:
        """The code no longer waits for this command. Cancelling one that is answered changes nothing."""
        command = self.open.get(seq)
        if command is None:
            return
        if command.state is State.OPEN:
            command.state = State.CANCELLED
            self.dropped.append(command)
        elif command.state in _LEAVES and isinstance(command, RunStep):
            command.state = _LEAVES[command.state]
            del self.open[seq]
            self.left[seq] = command
            self.dropped.append(command)

    def take(self) -> tuple[Sequence[AnyCommand], Sequence[AnyCommand]]:
        """Commands to start, and started ones to stop. Call it only when every committed event has been fed.

        What was answered or cancelled by then never starts: replay does not rerun the losers of races. Among those to
        start are `once` steps that have begun: whoever began them may be gone.
        """
        fresh, self.fresh = self.fresh, []
        stopped = self._forget() if self.dropped else ()
        start: list[AnyCommand] = []
        for command in fresh:
            command.taken = True
            if command.state is State.OPEN or _is_begun(command):
                start.append(command)
        return start, stopped

    def _forget(self) -> list[AnyCommand]:
        """Forget the commands that nobody waits for any more; returns those of them that run, and must be stopped."""
        dropped, self.dropped = self.dropped, []
        stopped: list[AnyCommand] = []
        for command in dropped:
            if command.state is State.CANCELLED:
                del self.open[command.seq]
                if command.taken:
                    stopped.append(command)
            elif command.state is State.LEFT and command.taken:
                stopped.append(command)
        if len(self.timers) > 2 * len(self.open) + MIN_TIMERS:  # mostly timeouts that were not needed
            self.timers = [entry for entry in self.timers if entry[1] in self.open]
            heapify(self.timers)
        return stopped

    def open_commands(self) -> list[AnyCommand]:
        """Commands that the code still waits for, in the order of issue."""
        return [command for command in self.open.values() if command.state is not State.CANCELLED]

    def next_deadline_ms(self) -> int | None:
        """When the first pending timer is due, in logical milliseconds."""
        while self.timers:
            due_ms, seq = self.timers[0]
            if self._is_open(seq):
                return due_ms
            heappop(self.timers)
        return None

    def due_timers(self, now_ms: int) -> list[int]:
        """Sequence numbers of pending timers due by now, by (deadline, seq)."""
        first = self.next_deadline_ms()
        if first is None or first > now_ms:
            return []
        due = sorted(entry for entry in self.timers if entry[0] <= now_ms)
        return [seq for _, seq in due if self._is_open(seq)]

    def _is_open(self, seq: int) -> bool:
        command = self.open.get(seq)
        return command is not None and command.state is State.OPEN

    # --- events in ---

    def feed(self, recorded: ev.Recorded) -> Answer:
        """Advance by one journaled event.

        Raises:
            NondeterminismError: the code, as it is now, did not lead to this event.
            CorruptJournal: no code could have led to it.
        """
        if recorded.position != self.position:
            raise CorruptJournal(detail=f"event {recorded.position} stands where {self.position} should")
        event = recorded.event
        if isinstance(event, ev.CommandEvent):
            answer = self._feed_command_event(event, recorded)
        else:
            answer = self._feed_run_event(event)
        if type(event) in _MESSAGES:
            self._count_message(event)
        self.position += 1
        self.now_ms = max(self.now_ms, recorded.at_ms)
        return answer

    def accepts(self, event: ev.AnyEvent) -> bool:
        """Whether a message without a sender's number is new: not journaled before, and its command still open."""
        if isinstance(event, ev.CommandEvent):
            return event.seq in self.open
        if isinstance(event, ev.ExecutionStarted):
            return self.state is RunState.NEW
        if isinstance(event, ev.UpdateRequested):
            return event.update_id not in self.updates
        return getattr(event, "message_id", "") not in self.seen_messages

    def _count_message(self, event: ev.AnyEvent) -> None:
        if isinstance(event, ev.MessageSent):
            self.sent[event.receiver] = self.sent.get(event.receiver, 0) + 1
            if event.kind == "cancel":
                self.asked_to_cancel.add(event.receiver)
            return
        if isinstance(event, ev.RunForked):  # senders number their messages to this run anew, and so does it
            self.sent.clear()
            self.received.clear()
            return
        sender = getattr(event, "sender_run", "")
        if sender:
            self.received[sender] = getattr(event, "number", 0)
        elif isinstance(event, _LETTERS):
            self.seen_messages.add(event.message_id)
        elif isinstance(event, ev.UpdateAccepted):
            self.updates.add(event.update_id)

    def _feed_run_event(self, event: ev.AnyEvent) -> Answer:
        after = RUN.get((self.state, type(event)))
        if after is None:
            name = type(event).__name__
            raise CorruptJournal(detail=f"{name} at event {self.position}, when the run was {self.state.value}")
        if isinstance(event, ev.CLOSED_BY_CODE) and self.state is RunState.RUNNING:
            self._check_close(event)
        self.state = after
        self.facts.note(event)
        if after is RunState.CLOSED:
            self.closed_by = event
        return Answer(Effect.RUN, None, event)

    def _check_close(self, event: ev.AnyEvent) -> None:
        for close in reversed(self.open.values()):
            if isinstance(close, CloseRun):
                if isinstance(event, close.ends_as):
                    return
                raise NondeterminismError(**disagreement(self.position, event, close, self.open_commands()))
        raise NondeterminismError(**disagreement(self.position, event, None, self.open_commands()))

    def _feed_command_event(self, event: ev.CommandEvent, recorded: ev.Recorded) -> Answer:
        if self.state is not RunState.RUNNING:
            self._check_pause(event)
        command = self.open.get(event.seq) or self.left.get(event.seq) or self._refuse_unasked(event)
        cell = COMMANDS.get((type(command), command.state, type(event)))
        if cell is None or not _names_agree(command, event):
            raise NondeterminismError(**disagreement(self.position, event, command, self.open_commands()))
        if isinstance(event, _GIVEN):
            self._feed_given(event, command, recorded)  # type: ignore[arg-type]
        command.state, effect = cell
        self.facts.done += 1
        if command.state is State.ANSWERED:
            del (self.left if event.seq in self.left else self.open)[event.seq]
        return Answer(effect, command, event)  # type: ignore[arg-type]

    def _check_pause(self, event: ev.CommandEvent) -> None:
        """Commands are of running runs; in a pause, steps that ran when it began may end."""
        may_end = isinstance(event, ev.StepEvent) and not isinstance(event, ev.StepIntended)
        if self.state is not RunState.PAUSED or not may_end:
            name = type(event).__name__
            raise CorruptJournal(detail=f"{name} at event {self.position}, when the run was {self.state.value}")

    def _refuse_unasked(self, event: ev.CommandEvent) -> NoReturn:
        if event.seq < self.next_seq:
            raise CorruptJournal(detail=f"{type(event).__name__} answers command {event.seq} a second time")
        raise NondeterminismError(**disagreement(self.position, event, None, self.open_commands()))

    def _feed_given(self, event: Given, command: Giving, recorded: ev.Recorded) -> None:
        if event.digest != command.digest and event.digest and command.digest:
            self._other_values(event, command, recorded)
        if type(event) is ev.StepCompleted:
            self.facts.size += len(event.result.data)
            return
        if isinstance(event, ev.StepAttemptFailed) and isinstance(command, RunStep):
            command.attempt = event.attempt
            command.retry_at_ms = event.retry_at_ms
            command.spent_ms = event.spent_ms
            command.progress = event.progress
        elif isinstance(event, ev.StepIntended) and isinstance(command, RunStep):
            given = None if event.digest == command.digest else event.input
            command.intent = Intent(recorded.position, recorded.at_ms, given)

    def _other_values(self, event: Given, command: Giving, recorded: ev.Recorded) -> None:
        """The same code must pass the same values. Where other code passes others, that is only noted."""
        if recorded.fingerprint == self.fingerprint:
            raise NondeterminismError(**drifted(self.position, event, command, self.show))
        self.drifts.append(f"{describe_command(command)} is given other values now than when it was recorded")


_GIVEN = (ev.StepEvent, ev.ChildInitiated, ev.MessageSent, ev.QuestionAsked)
_LETTERS = (ev.SignalReceived, ev.CancelRequested, ev.PauseRequested, ev.ResumeRequested)
_MESSAGES = frozenset((ev.MessageSent, ev.ChildClosed, ev.UpdateAccepted, ev.RunForked, *_LETTERS))

_LEAVES = {State.STARTED: State.LEFT, State.UNKNOWN: State.LEFT_UNKNOWN}
_BEGUN = frozenset((State.STARTED, State.LEFT))


def _is_begun(command: AnyCommand) -> bool:
    """Whether an attempt of it began, and nothing was heard of that since. Children and messages tell by themselves."""
    return type(command) is RunStep and command.state in _BEGUN


_SAME: dict[type, Callable[[Any], object]] = {
    ev.StepIntended: attrgetter("name"),
    ev.StepOutcomeUnknown: attrgetter("name"),
    ev.StepAttemptFailed: attrgetter("name"),
    ev.StepCompleted: attrgetter("name"),
    ev.StepFailed: attrgetter("name"),
    ev.ChildInitiated: attrgetter("workflow", "execution"),
    ev.ChildClosed: attrgetter("execution"),
    ev.MessageSent: attrgetter("kind", "receiver", "name"),
    ev.UpdateCompleted: attrgetter("update_id"),
    ev.QuestionAsked: attrgetter("name"),
    ev.QuestionClosed: attrgetter("asked", "outcome"),
    ev.MessageDropped: lambda it: getattr(it, "message", it).message_id,
}


def _names_agree(command: AnyCommand, event: ev.CommandEvent) -> bool:
    """Whether the event speaks of the same step, child or receiver as the command that the code issues now."""
    named = _SAME.get(type(event))
    return named is None or named(event) == named(command)
