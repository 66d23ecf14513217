"""Which waiting letters an execution journals next: each message once, each sender's in order."""

from __future__ import annotations

from collections.abc import Iterable

from perdure.core import events as ev
from perdure.core.machine import Machine
from perdure.store.protocol import Letter


class Chosen:
    """Letters sorted out for one batch."""

    def __init__(self) -> None:
        self.events: list[ev.AnyEvent] = []  # to journal, in order of arrival
        self.taken: list[Letter] = []  # leave the inbox with this batch: the journaled ones and duplicates
        self.terminate: ev.TerminateRequested | None = None


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
            if verdict:
                _accept(chosen, letter.event)
        waiting = later
    return chosen


def _verdict(machine: Machine, event: ev.AnyEvent, received: dict[str, int], seen: set[str | int]) -> bool | None:
    sender = getattr(event, "sender_run", "")
    if sender:
        # Stores deliver in order. Before the first one that arrives others may have failed: there was no receiver yet.
        number, last = event.number, received.get(sender, machine.received.get(sender))  # type: ignore[union-attr]
        if last is not None and number != last + 1:
            return None if number > last else False
        received[sender] = number
        return not isinstance(event, ev.CommandEvent) or event.seq in machine.open
    identity = event.seq if isinstance(event, ev.CommandEvent) else getattr(event, "message_id", "")
    if identity in seen or not machine.accepts(event):
        return False
    seen.add(identity)
    return True


def _accept(chosen: Chosen, event: ev.AnyEvent) -> None:
    if isinstance(event, ev.TerminateRequested):
        chosen.terminate = chosen.terminate or event
    else:
        chosen.events.append(event)
