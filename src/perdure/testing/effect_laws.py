"""Laws of effects: what is declared once happens at most once, and what is recorded of it is what really happened.

That it happens twice stops the world at once, see `bank.py`; these compare journals and lists with the bank afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.core import events as ev
from perdure.core.commands import RunStep, State
from perdure.core.identity import Key, derived_id
from perdure.journal import plain_value
from perdure.testing.ledger import Broken, Journal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perdure.testing.bank import Bank
    from perdure.testing.laws import Evidence
    from perdure.testing.replaying import Replay

TRUE = "what is recorded of an effect is what happened"
LISTED = "what nobody knows is listed until it is settled"
ALL = 1_000_000


def effects_are_told_truly(evidence: Evidence) -> None:
    """Completed: it happened, with this very value. Failed: it did not, and never will."""
    if evidence.bank is None:
        return
    for journal in evidence.ledger.journals.values():
        intended = {each.event.seq for each in journal.events if isinstance(each.event, ev.StepIntended)}
        for recorded in journal.events[journal.copied :]:  # what was copied is another run's
            event = recorded.event
            if isinstance(event, ev.StepEvent) and event.seq in intended:
                _check(journal, event, evidence.bank)


def _check(journal: Journal, event: ev.StepEvent, bank: Bank) -> None:
    key = derived_id("step", journal.key.execution, journal.run, event.seq)
    match event:
        case ev.StepCompleted():
            paid = bank.find(key, event.attempt)
            value = plain_value(event.result)
            if paid is None or paid.value != value:
                raise Broken(TRUE, f"{_what(journal, event)} is recorded as {value}, the bank has {paid}", journal.key)
        case ev.StepFailed() if event.resolved is not None and event.resolved.outcome == "abandoned":
            pass  # nobody claims to know
        case ev.StepFailed() | ev.StepAttemptFailed():
            paid = bank.find(key, event.attempt)
            if paid is not None:
                raise Broken(TRUE, f"{_what(journal, event)} is recorded as failed, the bank has {paid}", journal.key)
        case _:
            pass


def _what(journal: Journal, event: ev.StepEvent) -> str:
    return f"{event.name} #{event.seq} of {journal.key.execution}, attempt {getattr(event, 'attempt', '?')}"


def what_nobody_knows_is_listed(evidence: Evidence) -> None:
    """Exactly that, whether its execution goes on or has ended."""
    expected: set[tuple[str, str, int]] = set()
    for journal in evidence.ledger.journals.values():
        name, run = journal.key.execution, journal.run
        for recorded in journal.events[journal.copied :]:
            event = recorded.event
            if isinstance(event, ev.StepOutcomeUnknown):
                expected.add((name, run, event.seq))
            elif isinstance(event, ev.StepEvent):
                expected.discard((name, run, event.seq))
        for letter in evidence.store.dead_letters(journal.key, ALL):
            if isinstance(letter.event, ev.ResolveRequested):
                expected.discard((name, letter.event.run, letter.event.seq))
    rows = evidence.store.unresolved(evidence.namespace, "", None, ALL)
    found = {(row.key.execution, row.run, row.seq) for row in rows}
    if found != expected:
        raise Broken(LISTED, f"missing {sorted(expected - found)}, too many {sorted(found - expected)}")


def what_had_begun_does_not_vanish(replays: Mapping[tuple[Key, str], Replay]) -> None:
    """No run ends with a step that had begun, and of which nothing more is said.

    An intent alone is no beginning: one commit may bring it together with what made the code stop waiting for it.
    """
    for (key, _), full in replays.items():
        machine = full.execution.machine
        commands = [*machine.open.values(), *machine.left.values()] if machine.closed_by is not None else []
        begun = [each for each in commands if isinstance(each, RunStep) and each.state in (State.STARTED, State.LEFT)]
        if begun:
            detail = ", ".join(f"{each.name} #{each.seq}" for each in begun)
            raise Broken("what had begun does not vanish", f"{key.execution}: {detail}", key)
