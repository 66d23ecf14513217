"""What lint says: findings, and the rules that they belong to. Codes are stable; docs/reference/lint.md lists them."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """One place in the code that may go another way on replay, or lose something.

    Example:
        for finding in perdure.lint(research):
            print(f"{finding.file}:{finding.line}: {finding.code} {finding.message} {finding.cure}")
    """

    code: str
    """The rule: `L001` and so on. A comment `# perdure: allow L001` on the line says that it is meant."""
    message: str
    """What was found."""
    file: str
    """Path of the source file."""
    line: int
    """In the file, from 1."""
    column: int
    """In the line, from 1."""
    function: str
    """The function in which it stands."""
    cure: str
    """What to write instead."""


class Rule(NamedTuple):
    """A kind of finding."""

    title: str
    cure: str


RULES: dict[str, Rule] = {
    "L000": Rule("the source cannot be read", "Check it where its source is: nothing of it was looked at."),
    "L001": Rule("the wall clock", "Use perdure.now(), or take the time in a step."),
    "L002": Rule("randomness of its own", "Use perdure.random() and perdure.uuid4(), or draw in a step."),
    "L003": Rule("a set decides an order", "Sort it: sets of text iterate in another order in each process."),
    "L004": Rule("no annotation", "Annotate it: values are encoded and decoded by their annotations."),
    "L005": Rule("input or output", "Move this into a step: a function with @perdure.step, awaited here."),
    "L006": Rule("the environment", "Read it in a step, or pass it in as an argument."),
    "L007": Rule("threads and other loops", "Move this into a step; a plain `def` step runs in a thread already."),
    "L008": Rule("state outside the run", "Keep state in local variables: only those come back after a crash."),
    "L009": Rule("cancellation is swallowed", "Catch Exception, or raise again."),
    "L010": Rule("not awaited", "Write `await`, or give it to asyncio.gather or a task."),
    "L011": Rule(
        "a query changes state",
        "Only look: change a copy, or make it a signal or an update (@perdure.on_update), which is recorded.",
    ),
}
