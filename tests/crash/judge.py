"""The judge: holds the ledger against the journal, read while no engine runs, and the ends against the truth."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import msgspec
from tests.crash.ledger import Line, Reader, Step

from perdure.core import events as ev
from perdure.core.format import decode_event
from perdure.store.protocol import Filter, Row
from perdure.store.sqlite import SqliteStore
from perdure.workflow.execution import Execution
from perdure.workflow.values import codec_for

ANSWERS = (ev.StepCompleted, ev.StepFailed)
EVENTS = """
SELECT shard_pos, execution.execution, execution.run, event.format, event.body
FROM event JOIN execution USING (number) WHERE shard_pos > ? ORDER BY shard_pos
"""
TOLD = """
SELECT execution.execution, execution.run, seq, progress FROM running JOIN execution USING (number)
WHERE progress IS NOT NULL
"""


@dataclass
class Judge:
    """Called at each restart, before the next worker begins.

    The law: once the journal, read with no engine running, holds a step's answer, no later start line of that step may
    appear; once it holds a failed attempt, no later start of that attempt or an earlier one.
    """

    store: Path
    ledger: Reader
    answered: set[Step] = field(default_factory=set)
    attempts: dict[Step, int] = field(default_factory=dict)
    progress: dict[Step, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    lines: Counter[str] = field(default_factory=Counter)
    repeated: int = 0  # starts of steps that had started before a kill, whose answers were not journaled
    own: set[str] = field(default_factory=set)
    _begun: dict[tuple[Step, int], int] = field(default_factory=dict)
    _at: int = 0

    def look(self) -> None:
        """Judge what the last life did by what was known when it began, then learn what it recorded."""
        for line in self.ledger.new():
            self.lines[line.kind] += 1
            if line.kind == "start":
                self._judge_start(line)
            elif line.kind == "own":
                self.own.add(line.execution)
        self._learn()

    def _judge_start(self, line: Line) -> None:
        step, attempt = line.step, line.attempt
        if step in self.answered:
            self.broken.append(f"a recorded step ran again: {line}")
        if attempt <= self.attempts.get(step, 0):
            self.broken.append(f"a recorded attempt ran again: {line}")
        if line.detail is not None and line.detail < self.progress.get(step, 0):
            self.broken.append(f"an attempt began behind the stored progress {self.progress[step]}: {line}")
        before = self._begun.get((step, attempt))
        if before == line.pid:
            self.broken.append(f"an attempt began twice in one process: {line}")
        self.repeated += before is not None
        self._begun[step, attempt] = line.pid

    def _learn(self) -> None:
        connection = apsw.Connection(str(self.store), apsw.SQLITE_OPEN_READWRITE)
        try:
            rows: list[Any] = connection.execute(EVENTS, (self._at,)).fetchall()
            told: list[Any] = connection.execute(TOLD).fetchall()
        finally:
            connection.close()
        for position, execution, run, version, body in rows:
            self._at = position
            event = decode_event(body, version)
            if isinstance(event, ANSWERS):
                step = execution, run, event.seq
                if step in self.answered:
                    self.broken.append(f"the journal answers a step twice: {step}")
                self.answered.add(step)
            elif isinstance(event, ev.StepAttemptFailed):
                self.attempts[execution, run, event.seq] = event.attempt
        for execution, run, seq, progress in told:
            data, content_type, *_ = _payload(progress)
            value = codec_for(Any, "progress").decode(ev.Payload(data, content_type), "progress")
            self.progress[execution, run, seq] = int(value)


def _payload(data: bytes) -> tuple[bytes, str]:
    payload = msgspec.msgpack.decode(data, type=ev.Payload)
    return payload.data, payload.content_type


def value_of(store: SqliteStore, row: Row) -> Any:
    """What a closed execution came to: its result, its failure's message, or its reason."""
    event: Any = store.load(row.key, row.run, row.position - 1, 1)[0].event
    match event:
        case ev.ExecutionCompleted():
            return codec_for(Any, "a result").decode(event.result, "a result")
        case ev.ExecutionFailed():
            return event.failure.message
        case _:
            return event.reason


def replays(store: SqliteStore, row: Row, workflows: dict[str, Any]) -> str | None:
    """Feed an execution's journal to fresh code; what is wrong with it, or None."""
    execution = Execution(workflows[row.workflow], row.key.execution)
    position = 0
    try:
        while position < row.position:
            for recorded in store.load(row.key, row.run, position, 1000):
                execution.feed(recorded)
                position += 1
    except Exception as error:  # noqa: BLE001 - reported
        return f"{row.key.execution} does not replay: {error}"
    finally:
        execution.evict()
    return None if execution.is_closed else f"{row.key.execution} is not closed after its journal"


def every_row(store: SqliteStore) -> list[Row]:
    """All executions."""
    rows: list[Row] = []
    after: tuple[int, str] | None = None
    while page := store.find(Filter("default"), after, 1000):
        rows += page
        after = page[-1].created_at_ms, page[-1].key.execution
    return rows


def integrity(path: Path) -> str:
    """SQLite's own word, `ok` if all is well."""
    connection = apsw.Connection(str(path))
    try:
        return "\n".join(str(row[0]) for row in connection.execute("PRAGMA integrity_check"))
    finally:
        connection.close()
