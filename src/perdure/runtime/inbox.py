"""Which waiting letters an execution journals next: each message once, each sender's in order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from perdure.core import events as ev
from perdure.core.machine import Machine
from perdure.core.table import RunState
from perdure.store.protocol import Letter

_PAUSES = (ev.PauseRequested, ev.ResumeRequested)


class Chosen:
    """Letters sorted out for one batch."""

    def __init__(self) -> None:
        self.events: list[ev.AnyEvent] = []  # to journal, in order of arrival
        self.taken: list[Letter] = []  # leave the inbox with this batch: the journaled ones and duplicates
        self.terminate: ev.TerminateRequested | None = None
        self.last: list[ev.AnyEvent] = []  # to journal behind all else: a pause, for whose end waits what came later
        self.answers: list[ev.ResolveRequested] = []  # what people say of steps of which nobody knew


def choose(machine: Machine, letters: Iterable[Letter]) -> Chosen:
    """Sort out what may be journaled now; a message that is ahead of its turn stays until the earlier ones came."""
    chosen = Chosen()
    received: dict[str, int] = {}  # beside what the machine knows, which may be much
    seen: set[str | int] = set()
    waiting = list(letters)
    progress = True
    while progress and waiting:
        progress = False
        later: list[Letter] = []
        for letter in waiting:
            verdict = _verdict(machine, letter.event, received, seen)
            if verdict is None:
                later.append(letter)
                continue
            progress = True
            chosen.taken.append(letter)
            if verdict and _accept(chosen, letter.event):
                return chosen
        waiting = later
    return chosen


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


def _accept(chosen: Chosen, event: ev.AnyEvent) -> bool:
    """Whether it begins or ends a pause, so that the others are looked at afresh after it."""
    if isinstance(event, ev.TerminateRequested):
        chosen.terminate = chosen.terminate or event
    elif isinstance(event, ev.PauseRequested):
        chosen.last.append(event)
    elif isinstance(event, ev.ResolveRequested):
        chosen.answers.append(event)
    else:
        chosen.events.append(event)
    return isinstance(event, _PAUSES)
