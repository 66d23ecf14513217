"""Golden journals: what an execution did once, kept in a file, and replayed against the code for ever.

A file is JSON lines: a header, then an event a line, with its bytes as the store has them and as text for people.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from perdure.core import events as ev
from perdure.core.errors import CorruptJournal, PerdureError
from perdure.core.format import FORMAT, decode_event, encode_event
from perdure.core.identity import DEFAULT_LANE, DEFAULT_NAMESPACE, ExecutionId, Key, checked_id, shard_of
from perdure.core.table import RunState
from perdure.runtime.handle import Handle
from perdure.runtime.outgoing import start_digest
from perdure.runtime.updates import add_rows
from perdure.store.codec import PayloadCodec
from perdure.store.open import open_store, sealed
from perdure.store.protocol import Batch, NewEvent, Outcome, Start, Status
from perdure.testing.transcript import transcript
from perdure.workflow import ordered
from perdure.workflow.definitions import Workflow
from perdure.workflow.execution import Execution
from perdure.workflow.runnable import Runnable, workflow_of

KIND = "perdure journal"


async def record(handle: Handle[Any], path: str | Path) -> None:
    """Keep an execution's journal as it is now: its values in clear, also where the store encrypts them.

    Raises:
        ExecutionNotFound: there is none with this id.
        OSError: the file cannot be written.

    Example:
        await record(handle, "tests/journals/report-1.jsonl")
    """
    Path(path).write_text("\n".join(await lines_of(handle)) + "\n", encoding="utf-8")


async def lines_of(handle: Handle[Any]) -> list[str]:
    """The lines of such a file. Raises `ExecutionNotFound`."""
    row, journal = await handle.describe(), await handle.journal()
    header = {"kind": KIND, "format": FORMAT, "execution": handle.id, "run": row.run, "workflow": row.workflow}
    header["events"] = len(journal)
    if handle.is_private:
        header["private"] = True
    return [json.dumps(header), *(json.dumps(_told(recorded)) for recorded in journal)]


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
    try:
        return parse(Path(path).read_text(encoding="utf-8").splitlines())
    except CorruptJournal as error:
        raise CorruptJournal(detail=f"{path}: {error.fields['detail']}") from error


def parse(lines: Sequence[str], *, first: int = 1) -> tuple[dict[str, Any], list[ev.Recorded]]:
    """Header and events of lines at hand, of which the first has this number. Raises as `load`."""
    at, journal = first, list[ev.Recorded]()
    try:
        header = json.loads(lines[0]) if lines else {}
        if not _is_header(header):
            raise CorruptJournal(detail="this is no exported journal")
        for at, line in enumerate(lines[1:], first + 1):  # noqa: B007 - it is told
            if line.strip():
                journal.append(_recorded(json.loads(line), len(journal)))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        why = "it is no JSON" if isinstance(error, json.JSONDecodeError | RecursionError) else repr(error)
        raise CorruptJournal(detail=f"an exported journal is damaged at line {at}: {why}") from error
    whole = header.get("events", len(journal))
    if len(journal) != whole:
        detail = f"the journal of {header['execution']!r} ends at line {at}, after {len(journal)} of {whole} events"
        raise CorruptJournal(detail=detail)
    return header, journal


def _is_header(told: Any) -> bool:
    names = ("execution", "workflow")
    return told.get("kind") == KIND and all(isinstance(told.get(name), str) for name in names)


def _recorded(told: dict[str, Any], position: int) -> ev.Recorded:
    if told["position"] != position:
        raise CorruptJournal(detail=f"event {position} is missing from an exported journal")
    event = decode_event(base64.b64decode(told["event"], validate=True), told["format"])
    return ev.Recorded(position, told["at_ms"], event, 0, told["fingerprint"])


def replay(path: str | Path, workflow: Runnable[..., Any]) -> None:
    """Feed the journal to the code as it is now. Nothing is run and nothing is written.

    Raises:
        NondeterminismError: the code does not agree with it: executions like this one would stall.
        PerdureError: it cannot go on for another reason, such as a value that no longer decodes.

    Example:
        def test_old_reports_still_replay():
            replay("tests/journals/report-1.jsonl", research)
    """
    header, journal = load(path)
    known = workflow_of(workflow)
    if header.get("workflow") != known.name:
        raise CorruptJournal(detail=f"{path} is of workflow {header.get('workflow')!r}, not {known.name!r}")
    replay_events(known, header["execution"], journal, private=is_private(header))


def is_private(header: dict[str, Any]) -> bool:
    """Whether the store that the journal comes from encrypts its values; in the file they are in clear."""
    return bool(header.get("private", False))


def replay_events(
    workflow: Workflow[..., Any], execution_id: str, journal: Sequence[ev.Recorded], *, private: bool = False
) -> None:
    """The same for events at hand; `private` ones may hold Secrets. Raises as `replay`."""
    ordered.install()
    execution = Execution(workflow, execution_id)
    execution.private = private
    execution.expect(journal)
    try:
        for recorded in journal:
            execution.feed(recorded)
        if execution.machine.state is RunState.RUNNING:
            execution.take()
    finally:
        execution.evict()


class Restoring:
    """A store that journals are brought into, in the place of its engine. A context manager.

    Args:
        store: path of the file.
        codec: encrypts what is brought in; by default what `PERDURE_CODEC` names.

    Raises:
        StoreBusy: an engine works on it.
        StoreError: it cannot be opened.
    """

    def __init__(self, store: str | None = None, *, codec: PayloadCodec | None = None) -> None:
        self._path = store
        self._codec = codec

    def __enter__(self) -> Self:
        self._store = sealed(open_store(self._path), self._codec)
        try:
            self._session = self._store.open_session("import", (DEFAULT_LANE,), "")
        except BaseException:
            self._store.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close_session(self._session)
        self._store.close()

    @property
    def is_private(self) -> bool:
        """Whether what is brought in is encrypted."""
        return self._store.private

    def restore(self, execution_id: str, journal: Sequence[ev.Recorded]) -> bool:
        """Write it as it was, wholly or not at all; False if the id is taken.

        What is unfinished goes on with the next worker.

        Raises:
            CorruptJournal: it does not begin with a start.
            InvalidId: the id.
        """
        started = check_start(execution_id, journal)
        shard = shard_of(DEFAULT_NAMESPACE, execution_id, self._store.shards)
        key = Key(shard, DEFAULT_NAMESPACE, ExecutionId(execution_id))
        batch = Batch(
            key=key,
            run=started.run,
            expected=0,
            events=[NewEvent(each.event, each.at_ms, each.trace_parent, each.usage) for each in journal],
            create=Start(key, started, start_digest(started)),
            closes=CLOSES.get(type(journal[-1].event)),
        )
        add_rows(batch, ())
        return self._store.commit(self._session, [batch]).outcomes == [Outcome.COMMITTED]


def check_start(execution_id: str, journal: Sequence[ev.Recorded]) -> ev.ExecutionStarted:
    """What it begins with; what could be brought in begins with a start, and has an id. Raises as `restore`."""
    checked_id(execution_id)
    started = journal[0].event if journal else None
    if not isinstance(started, ev.ExecutionStarted):
        raise CorruptJournal(detail=f"the journal of {execution_id!r} does not begin with a start")
    return started


CLOSES: dict[type, Status] = {
    ev.ExecutionCompleted: "completed",
    ev.ExecutionFailed: "failed",
    ev.ExecutionCancelled: "cancelled",
    ev.ExecutionTerminated: "terminated",
}


def disagreement(
    workflow: Workflow[..., Any], execution_id: str, journal: Sequence[ev.Recorded], *, private: bool = False
) -> PerdureError | None:
    """Why an execution with this journal could not go on with this code; None if it can.

    `private`: its store encrypts values, so that it may hold Secrets.
    """
    try:
        replay_events(workflow, execution_id, journal, private=private)
    except PerdureError as error:
        return error
    return None
