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
    killed = [life for life in lives if life.killed]
    inherited = [before.recorded for before, life in pairwise(lives) if went_on(life, started)]
    return Figures(
        steps=len(recorded),
        bodies_run=len(started),
        replayed=sum(len(steps) for steps in inherited),
        repeated=sum(len(repeated_after(life, started, lives)) for life in killed),
        cut_short=sum(len(in_flight(life, started)) for life in killed),
        tokens_spent=sum(line.tokens for line in ledger),
        tokens_kept=sum(step.tokens for steps in inherited for step in steps),
    )


def went_on(life: Life, started: Sequence[Line]) -> bool:
    """Whether a process got as far as doing something new, before which it replays all that others had recorded."""
    return not life.killed or any(line.pid == life.pid for line in started)


def repeated_after(life: Life, started: Sequence[Line], lives: Sequence[Life]) -> list[Line]:
    """Bodies that the next process ran again although they were recorded when this one died."""
    known = {step.seq for step in life.recorded}
    following = lives[lives.index(life) + 1 :][:1]
    return [line for line in started if line.seq in known and any(line.pid == later.pid for later in following)]


def in_flight(life: Life, started: Sequence[Line]) -> set[int]:
    """Steps that a process had begun, and whose results were not in the journal when it died."""
    return {line.seq for line in started if line.pid == life.pid} - {step.seq for step in life.recorded}
