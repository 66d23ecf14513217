"""Laws of questions to people: one answer each, none after its time, and what is listed is what is open."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from perdure.core import events as ev
from perdure.core.ask_events import answered_by
from perdure.testing.ledger import Broken, Journal

if TYPE_CHECKING:
    from perdure.store.protocol import Mail
    from perdure.testing.laws import Evidence

ONE_ANSWER = "a question has one answer"
IN_TIME = "a question whose time is over has no answer"
AS_SHOWN = "a call runs as it was shown"
LISTED = "a question is listed while it is open"
ALL = 1_000_000


def questions_have_one_answer(journal: Journal) -> None:
    """Asked once, closed once, answered once where it was answered, and never where its time was over."""
    answers: Counter[int] = Counter()
    opened: set[int] = set()
    for recorded in journal.events:
        match recorded.event:
            case ev.QuestionAsked():
                opened.add(recorded.event.seq)
            case ev.SignalReceived() if (number := answered_by(recorded.event.name)) is not None:
                answers[number] += 1
                if answers[number] > 1 or number not in opened:
                    raise Broken(ONE_ANSWER, f"#{number} of {journal.key.execution}", journal.key)
            case ev.MessageDropped() if (number := answered_by(recorded.event.name)) is not None:
                answers[number] -= 1
            case ev.QuestionClosed():
                _check_end(journal, recorded.event, answers[recorded.event.asked])
            case _:
                pass


def _check_end(journal: Journal, closed: ev.QuestionClosed, answers: int) -> None:
    where = f"#{closed.asked} of {journal.key.execution}"
    if closed.outcome == "answered" and answers != 1:
        raise Broken(ONE_ANSWER, f"{where} has {answers}", journal.key)
    if closed.outcome == "timed_out" and answers:
        raise Broken(IN_TIME, where, journal.key)


def calls_ran_as_they_were_shown(journal: Journal) -> None:
    """In the corpus a step that somebody is asked about runs with those arguments only."""
    shown: dict[str, set[bytes]] = {}
    for recorded in journal.events:
        event = recorded.event
        if isinstance(event, ev.QuestionAsked) and event.name:
            shown.setdefault(event.name, set()).add(event.digest)
        elif isinstance(event, ev.StepCompleted) and event.name in shown and event.digest not in shown[event.name]:
            raise Broken(AS_SHOWN, f"{event.name} #{event.seq} of {journal.key.execution}", journal.key)


def was_answered_before(evidence: Evidence, mail: Mail) -> bool:
    """Whether it is an answer that the run that asked has journaled: after a rewind the next run asks anew."""
    journal = evidence.ledger.journals.get((mail.receiver, mail.receiver_run))
    events = () if journal is None else (recorded.event for recorded in journal.events)
    return any(isinstance(event, ev.SignalReceived) and event.message_id == mail.message_id for event in events)


def what_is_listed_is_open(evidence: Evidence) -> None:
    """Every execution has ended by now: nobody is asked anything."""
    left = evidence.store.asks(evidence.namespace, "", "", 0, None, ALL)
    if left:
        raise Broken(LISTED, f"#{left[0].seq} of {left[0].key.execution}", left[0].key)
