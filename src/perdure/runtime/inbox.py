"""Which waiting letters an execution journals next: each message once, each sender's in order, each update alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from perdure.core import events as ev
from perdure.core.machine import Machine
from perdure.core.table import RunState
from perdure.store.protocol import Letter

Judge: TypeAlias = Callable[[ev.UpdateRequested], ev.UpdateAccepted | ev.FailureInfo | None]
"""What becomes of an update: accepted, rejected and why, or it waits and lets others pass."""

REPLACED = "another one was started in its place"
_PAUSES = (ev.PauseRequested, ev.ResumeRequested)
_APART = (ev.UpdateRequested, ev.ExecutionStarted)


class Chosen:
    """The letters that one batch takes, and what becomes of each."""

    def __init__(self) -> None:
        self.events: list[ev.AnyEvent] = []  # to journal, in order of arrival
        self.last: list[ev.AnyEvent] = []  # to journal behind all else: a pause, for whose end waits what came later
        self.answers: list[ev.ResolveRequested] = []  # what people say of steps of which nobody knew
        self.letters: list[Letter] = []  # from which these come
        self.moot: list[Letter] = []  # that leave no event: duplicates, rejected updates, requests to terminate
        self.left: list[Letter] = []  # updates that wait: for the end of the run, which is near, or of a pause
        self.rejected: list[tuple[ev.UpdateRequested, ev.FailureInfo]] = []
        self.terminate: ev.TerminateRequested | None = None
        self.successor: ev.ExecutionStarted | None = None  # what begins in its place
        self.blocked = False  # an update, and what came after it, has its turn when the events have been fed

    @property
    def taken(self) -> list[Letter]:
        """What leaves the inbox with this batch."""
        return [*self.letters, *self.moot]

    def starts(self) -> list[ev.ExecutionStarted]:
        """Of the events: that the run began."""
        return [event for event in self.events if isinstance(event, ev.ExecutionStarted)]

    def needed_at_the_end(self) -> list[Letter]:
        """What leaves the inbox with a run's last batch: what is left there is settled by the store."""
        needed = ev.ExecutionStarted | ev.ResolveRequested
        return [*(each for each in self.letters if isinstance(each.event, needed)), *self.moot]

    def with_successor(self, asked: Chosen) -> Chosen:
        """The same, and ended for what begins in its place."""
        known = {letter.message_id for letter in self.moot}
        self.moot += [letter for letter in asked.moot if letter.message_id not in known]
        self.terminate, self.successor = self.terminate or asked.terminate, asked.successor
        return self

    @property
    def answers_updates(self) -> bool:
        """Whether somebody is to be told of an update."""
        return bool(self.rejected) or (bool(self.events) and type(self.events[0]) is ev.UpdateAccepted)


def choose(machine: Machine, letters: Iterable[Letter], judge: Judge) -> Chosen:
    """Sort out what may be journaled now; a message that is ahead of its turn stays until the earlier ones came.

    An update is judged when everything that came before it has been fed. So an accepted one is the first event of its
    batch, and no other is judged until it has been fed.
    """
    chosen = Chosen()
    received: dict[str, int] = {}  # beside what the machine knows, which may be much
    seen: set[str | int] = set()
    waiting = list(letters)
    progress = True
    while progress and waiting:
        progress = False
        later: list[Letter] = []
        for letter in waiting:
            if type(letter.event) in _APART:
                if not _apart(machine, chosen, letter, judge):
                    chosen.blocked = True
                    return chosen
                continue
            verdict = _verdict(machine, letter.event, received, seen)
            if verdict is None:
                later.append(letter)
                continue
            progress = True
            if _take(chosen, letter, letter.event, new=verdict):
                return chosen
        waiting = later
    return chosen


def _apart(machine: Machine, chosen: Chosen, letter: Letter, judge: Judge) -> bool:
    """Take an update or a start; False if it is too early for that."""
    event = letter.event
    if isinstance(event, ev.UpdateRequested):
        return _update(machine, chosen, letter, event, judge)
    assert isinstance(event, ev.ExecutionStarted)
    begun = [machine.facts.started] if machine.facts.started is not None else chosen.starts()
    if not begun:
        chosen.letters.append(letter)
        chosen.events.append(event)
        return True
    chosen.moot.append(letter)
    if event.run != begun[0].run:
        chosen.terminate = chosen.terminate or ev.TerminateRequested("", REPLACED)
        chosen.successor = event
    return True


def choose_end(letters: Iterable[Letter], run: str) -> Chosen:
    """Sort out what ends an execution whose code cannot go on; all else stays."""
    chosen = Chosen()
    for letter in letters:
        event = letter.event
        if isinstance(event, ev.TerminateRequested):
            chosen.terminate = chosen.terminate or event
            chosen.moot.append(letter)
        elif isinstance(event, ev.ExecutionStarted) and event.run == run:
            chosen.letters.append(letter)
            chosen.events.append(event)  # it has not begun
        elif isinstance(event, ev.ExecutionStarted):
            chosen.terminate = chosen.terminate or ev.TerminateRequested("", REPLACED)
            chosen.successor = event
            chosen.moot.append(letter)
    return chosen


def _update(machine: Machine, chosen: Chosen, letter: Letter, request: ev.UpdateRequested, judge: Judge) -> bool:
    """Have an update judged, or recognise it; False if it is too early for that."""
    if not machine.accepts(request):
        chosen.moot.append(letter)
        return True
    if chosen.events or machine.state not in (RunState.RUNNING, RunState.PAUSED):
        return False
    verdict = judge(request) if machine.state is RunState.RUNNING else None
    if verdict is None:
        chosen.left.append(letter)
    elif isinstance(verdict, ev.UpdateAccepted):
        chosen.letters.append(letter)
        chosen.events.append(verdict)
    else:
        chosen.moot.append(letter)
        chosen.rejected.append((request, verdict))
    return True


def _verdict(machine: Machine, event: ev.AnyEvent, received: dict[str, int], seen: set[str | int]) -> bool | None:
    if machine.state is RunState.PAUSED or isinstance(event, _PAUSES):
        return _verdict_about_pauses(machine, event)
    if getattr(event, "sender_run", ""):
        return _verdict_by_number(machine, event, received)
    identity = event.seq if isinstance(event, ev.CommandEvent) else getattr(event, "message_id", "")
    if identity in seen or not machine.accepts(event):
        return False
    seen.add(identity)
    return True


def _verdict_by_number(machine: Machine, event: Any, received: dict[str, int]) -> bool | None:
    # Stores deliver in order. Before the first one that arrives others may have failed: there was no receiver yet.
    sender, number = event.sender_run, event.number
    last = received.get(sender, machine.received.get(sender))
    if last is not None and number != last + 1:
        return None if number > last else False
    received[sender] = number
    return not isinstance(event, ev.CommandEvent) or event.seq in machine.open


def _verdict_about_pauses(machine: Machine, event: ev.AnyEvent) -> bool | None:
    """In a pause all but requests wait. To begin what has begun, or to end what has not, has no effect."""
    if isinstance(event, _PAUSES):
        ends, paused = isinstance(event, ev.ResumeRequested), machine.state is RunState.PAUSED
        return ends == paused and machine.accepts(event)
    return machine.accepts(event) if isinstance(event, ev.TerminateRequested) else None


def _take(chosen: Chosen, letter: Letter, event: ev.AnyEvent, *, new: bool) -> bool:
    """Whether it begins or ends a pause, so that the others are looked at afresh after it."""
    if not new or isinstance(event, ev.TerminateRequested):
        chosen.moot.append(letter)
        if new and isinstance(event, ev.TerminateRequested):
            chosen.terminate = chosen.terminate or event
        return False
    chosen.letters.append(letter)
    if isinstance(event, ev.PauseRequested):
        chosen.last.append(event)
    elif isinstance(event, ev.ResolveRequested):
        chosen.answers.append(event)
    else:
        chosen.events.append(event)
    return isinstance(event, _PAUSES)
