"""An outside witness: a plain file that tells which step bodies really ran, whatever the journal says.

The demo compares the two. Nothing of this is needed to use Perdure.
"""

import functools
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

import perdure

P = ParamSpec("P")
R = TypeVar("R")

LEDGER = "RESEARCH_LEDGER"


@dataclass(frozen=True)
class Line:
    """One line of the ledger: a step's body began, or came to its end, in a process."""

    what: Literal["started", "finished"]
    name: str
    seq: int
    attempt: int
    pid: int
    at: float
    tokens: int = 0


def witnessed(fn: Callable[P, R]) -> Callable[P, R]:
    """Have a step's body leave a line in the ledger as it begins and as it ends."""

    @functools.wraps(fn)
    def body(*args: P.args, **kwargs: P.kwargs) -> R:
        ledger = os.environ.get(LEDGER)
        if not ledger:
            return fn(*args, **kwargs)
        step = perdure.current_step()
        append(Path(ledger), Line("started", fn.__name__, step.seq, step.attempt, os.getpid(), time.time()))
        result = fn(*args, **kwargs)
        tokens = getattr(getattr(result, "usage", None), "total", 0)
        append(Path(ledger), Line("finished", fn.__name__, step.seq, step.attempt, os.getpid(), time.time(), tokens))
        return result

    return body


def append(ledger: Path, line: Line) -> None:
    """Write one line with one system call: it is there whole, or not at all, whenever the process dies."""
    with ledger.open("ab", buffering=0) as file:
        file.write(json.dumps(asdict(line)).encode() + b"\n")


def read(ledger: Path) -> list[Line]:
    """All lines so far, in the order in which they were written."""
    if not ledger.exists():
        return []
    return [Line(**json.loads(line)) for line in ledger.read_text().splitlines()]
