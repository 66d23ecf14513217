"""The outside ledger: what step bodies really did, a line each, written with O_APPEND so that a kill tears none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import perdure

VARIABLE = "PERDURE_LEDGER"

Step = tuple[str, str, int]  # execution, run, seq


class Line(NamedTuple):
    kind: str  # start, finish, fail, told, own
    execution: str
    run: str
    seq: int
    attempt: int
    pid: int
    detail: Any

    @property
    def step(self) -> Step:
        return self.execution, self.run, self.seq


def write(line: Line, path: str | None = None) -> None:
    """One write call: whole, or not at all."""
    descriptor = os.open(path or os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)


def note(kind: str, detail: Any = None) -> None:
    """Of the running step."""
    step = perdure.current_step()
    write(Line(kind, step.execution, step.run, step.seq, step.attempt, os.getpid(), detail))


@contextmanager
def noted(detail: Any = None) -> Iterator[perdure.Attempt]:
    """Around a step's body: its start, then its finish or failure."""
    note("start", detail)
    try:
        yield perdure.current_step()
    except BaseException as error:
        note("fail", type(error).__name__)
        raise
    note("finish")


class Reader:
    """Reads what is new since the last time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def new(self) -> list[Line]:
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        return [Line(*json.loads(text)) for text in data.splitlines()]
