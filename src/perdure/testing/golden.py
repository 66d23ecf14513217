"""Golden journals: what an execution did once, kept in a file, and replayed against the code for ever.

A file is JSON lines: a header, then an event a line, with its bytes as the store has them and as text for people.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perdure.core import events as ev
from perdure.core.errors import CorruptJournal, NondeterminismError, PerdureError
from perdure.core.format import FORMAT, decode_event, encode_event
from perdure.core.table import RunState
from perdure.runtime.handle import Handle
from perdure.testing.transcript import transcript
from perdure.workflow import ordered
from perdure.workflow.definitions import Workflow
from perdure.workflow.execution import Execution

KIND = "perdure journal"


async def record(handle: Handle[Any], path: str | Path) -> None:
    """Keep an execution's journal as it is now.

    Raises:
        ExecutionNotFound: there is none with this id.
        OSError: the file cannot be written.

    Example:
        await record(handle, "tests/journals/report-1.jsonl")
    """
    row, journal = await handle.describe(), await handle.journal()
    header = {"kind": KIND, "format": FORMAT, "execution": handle.id, "run": row.run, "workflow": row.workflow}
    lines = [json.dumps(header), *(json.dumps(_told(recorded)) for recorded in journal)]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _told(recorded: ev.Recorded) -> dict[str, Any]:
    return {
        "position": recorded.position,
        "at_ms": recorded.at_ms,
        "format": FORMAT,
        "fingerprint": recorded.fingerprint,
        "event": base64.b64encode(encode_event(recorded.event)).decode(),
        "text": transcript([recorded]),
    }


def load(path: str | Path) -> tuple[dict[str, Any], list[ev.Recorded]]:
    """Header and events of such a file, upcast to the current format.

    Raises:
        CorruptJournal: it is none, or damaged; with the line.
        JournalFromTheFuture: a newer Perdure wrote it.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    try:
        header = json.loads(lines[0]) if lines else {}
        if header.get("kind") != KIND:
            raise CorruptJournal(detail=f"{path} holds no golden journal")
        return header, [_recorded(json.loads(line)) for line in lines[1:]]
    except (ValueError, KeyError, AttributeError) as error:
        raise CorruptJournal(detail=f"{path} is damaged: {error}") from error


def _recorded(told: dict[str, Any]) -> ev.Recorded:
    event = decode_event(base64.b64decode(told["event"], validate=True), told["format"])
    return ev.Recorded(told["position"], told["at_ms"], event, 0, told["fingerprint"])


def replay(path: str | Path, workflow: Workflow[..., Any]) -> None:
    """Feed the journal to the code as it is now. Nothing is run and nothing is written.

    Raises:
        NondeterminismError: the code does not agree with it: executions like this one would stall.
        PerdureError: it cannot go on for another reason, such as a value that no longer decodes.

    Example:
        def test_old_reports_still_replay():
            replay("tests/journals/report-1.jsonl", research)
    """
    header, journal = load(path)
    if header.get("workflow") != workflow.name:
        raise CorruptJournal(detail=f"{path} is of workflow {header.get('workflow')!r}, not {workflow.name!r}")
    replay_events(workflow, header["execution"], journal)


def replay_events(workflow: Workflow[..., Any], execution_id: str, journal: Sequence[ev.Recorded]) -> None:
    """The same for events at hand. Raises as `replay`."""
    ordered.install()
    execution = Execution(workflow, execution_id)
    try:
        for recorded in journal:
            execution.feed(recorded)
        if execution.machine.state is RunState.RUNNING:
            execution.take()
    finally:
        execution.evict()


def disagreement(
    workflow: Workflow[..., Any], execution_id: str, journal: Sequence[ev.Recorded]
) -> PerdureError | None:
    """Why an execution with this journal could not go on with this code; None if it can."""
    try:
        replay_events(workflow, execution_id, journal)
    except (NondeterminismError, PerdureError) as error:
        return error
    return None
