"""Events of questions to people: what was asked of whom, how it ended. Answers are signals with a name of theirs."""

from __future__ import annotations

from typing import Literal, TypeAlias

from perdure.core.events_base import CommandEvent
from perdure.core.payload import Payload

ANSWER = "perdure.answer:"
"""How the names of signals begin that answer questions; the number of the question follows."""

AskOutcome: TypeAlias = Literal["answered", "timed_out", "cancelled"]


class QuestionAsked(CommandEvent, frozen=True):
    """A question that somebody is to answer, once. `digest` is of what they are shown: `about`."""

    question: str
    to: str = ""
    schema: Payload | None = None  # of the answer, as JSON Schema
    about: Payload | None = None
    name: str = ""  # of the step whose arguments that is
    digest: bytes = b""
    expires_at_ms: int = 0
    escalate_to: str = ""  # who is asked instead, from then on
    escalate_at_ms: int = 0
    location: str = ""


class QuestionClosed(CommandEvent, frozen=True):
    """Nobody is asked any more: `asked` is the number of the question."""

    asked: int
    outcome: AskOutcome


def answer_name(seq: int) -> str:
    """The name of the signal that answers the question with this number."""
    return f"{ANSWER}{seq}"


def answered_by(name: str) -> int | None:
    """The number of the question that a signal of this name answers; None if it answers none."""
    number = name.removeprefix(ANSWER)
    is_number = number != name and number.isascii() and number.isdecimal()
    return int(number) if is_number and answer_name(int(number)) == name else None
