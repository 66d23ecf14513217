"""What the kills did, measured: the journal says what was recorded, the ledger outside it says what really ran."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from examples.research.witness import Line


@dataclass(frozen=True)
class Recorded:
    """A step's result in the journal."""

    seq: int
    name: str
    at: float
    tokens: int = 0
    caption: str = ""


@dataclass
class Life:
    """One worker process, from its start to its end."""

    pid: int
    began: float
    ended: float | None = None
    killed: bool = False
    recorded: list[Recorded] = field(default_factory=list)  # in the journal when it ended


@dataclass(frozen=True)
class Figures:
    """The demo in numbers."""

    steps: int
    bodies_run: int
    replayed: int
    repeated: int
    cut_short: int
    tokens_spent: int
    tokens_kept: int


def measure(recorded: Sequence[Recorded], ledger: Sequence[Line], lives: Sequence[Life]) -> Figures:
    """Compare journal and ledger.

    `replayed` and `tokens_kept` count what each restart got from the journal instead of doing it again; `repeated`
    counts bodies that ran in a later process although the journal held their result; `cut_short` those that a kill
    caught before their result was recorded: they run again, and must.
    """
    started = [line for line in ledger if line.what == "started"]
    replayed = inherited(lives, started)
    return Figures(
        steps=len(recorded),
        bodies_run=len(started),
        replayed=len(replayed),
        repeated=sum(len(repeated_by(life, before, started)) for before, life in pairwise(lives)),
        cut_short=sum(len(in_flight(life, started)) for life in lives if life.killed),
        tokens_spent=sum(line.tokens for line in ledger),
        tokens_kept=sum(step.tokens for step in replayed),
    )


def inherited(lives: Sequence[Life], started: Sequence[Line]) -> list[Recorded]:
    """The results that processes took from the journal, each as often as it was taken."""
    return [step for before, life in pairwise(lives) if went_on(life, started) for step in before.recorded]


def went_on(life: Life, started: Sequence[Line]) -> bool:
    """Whether a process got as far as doing something new, before which it replays all that others had recorded."""
    return not life.killed or any(line.pid == life.pid for line in started)


def repeated_by(life: Life, before: Life, started: Sequence[Line]) -> list[Line]:
    """Bodies that a process ran although they were recorded when the one before it died."""
    known = {step.seq for step in before.recorded}
    return [line for line in started if line.seq in known and line.pid == life.pid]


def in_flight(life: Life, started: Sequence[Line]) -> set[int]:
    """Steps that a process had begun, and whose results were not in the journal when it died."""
    return {line.seq for line in started if line.pid == life.pid} - {step.seq for step in life.recorded}
