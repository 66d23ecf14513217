"""Forks and rewinds: a run that begins with events of another. What is asked, what is copied, and what cannot be.

The journal alone decides; the store makes it one transaction. Code is needed only for results that are replaced: to
encode them, and to see that it leads from them to the rest of what is copied.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import msgspec

from perdure.core import events as ev
from perdure.core.ask_events import answered_by
from perdure.core.errors import (
    DecodeError,
    EncodeError,
    ExecutionNotFound,
    InvalidOption,
    MovedOn,
    NotForkable,
    PerdureError,
)
from perdure.core.identity import Key, shard_of
from perdure.runtime.description import started_of
from perdure.runtime.known import fingerprint_of
from perdure.runtime.unresolved import find_step, typed
from perdure.runtime.updates import request_of
from perdure.store.protocol import OPEN_STATUSES, Branch, Mail, Receipt, Row, Store
from perdure.workflow.definitions import Step, Workflow
from perdure.workflow.execution import Execution
from perdure.workflow.values import encode_untyped, secrets_pass

PAGE = 1_000
MOST_TRIES = 20
EVENTS_PER_TURN = 256

Code: TypeAlias = Callable[[str], Workflow[..., Any] | None]
"""The workflow of a name, where that is at hand."""
Read: TypeAlias = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a blocking call off the loop."""


class BranchRequest(msgspec.Struct, frozen=True):
    """A run that is to begin with the first `at` events of another one."""

    source: Key
    source_run: str
    key: Key  # the same as `source`: a rewind
    run: str  # the id of the new run
    at: int
    replace: dict[int, ev.Payload] = {}  # results by position
    typed: bool = False  # encoded as the steps' own results, by who had their code

    @property
    def is_rewind(self) -> bool:
        """Whether the new run takes the place of the current one."""
        return self.key == self.source

    def refused(self, reason: str, fix: str) -> NotForkable:
        """The error for it."""
        return NotForkable(execution=self.source.execution, at=self.at, reason=reason, fix=fix)


# --- asking -----------------------------------------------------------------------------------------------------------


async def branch_request(
    read: Read,
    store: Store,
    source: Key,
    key: Key,
    new_run: str,
    *,
    at: int | None,
    replace: Mapping[int, Any] | None,
    run: str | None,
    code: Code,
) -> BranchRequest:
    """What is asked for, with the replaced results encoded.

    Raises:
        InvalidOption: `at` or a position in `replace` is no such number.
        ExecutionNotFound, NotForkable: there is nothing that could be copied, or no step's result to be replaced.
        EncodeError, DecodeError: a value is not of the type of its step's result.
    """
    replace = {} if replace is None else replace
    _check_numbers(at, replace)
    found: _Found = await read(lambda: _find(store, source, key, new_run, at, replace, run))
    workflow = code(found.workflow)
    values, is_typed = {}, True
    with secrets_pass(when=getattr(store, "private", False)):
        for position, event in found.events.items():
            step = None if workflow is None else find_step(workflow, event.name)
            is_typed = is_typed and step is not None
            values[position] = _encoded(replace[position], step, f"the result of step {event.name!r}")
    return msgspec.structs.replace(found.request, replace=values, typed=is_typed)


def _check_numbers(at: int | None, replace: Mapping[int, Any]) -> None:
    for option, number in [("at", 0 if at is None else at), *(("replace", position) for position in replace)]:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**63:
            raise InvalidOption(option=option, value=repr(number), expected="the number of an event, 0 or more")


def _encoded(value: Any, step: Step[..., Any] | None, what: str) -> ev.Payload:
    if isinstance(value, ev.Payload):  # of who has no Python value
        return value if step is None else typed(value, step, what)
    return encode_untyped(value, what) if step is None else step.result.encode(value, what)


class _Found(msgspec.Struct):
    request: BranchRequest
    workflow: str
    events: dict[int, ev.StepCompleted | ev.StepFailed]  # that are replaced


def _find(
    store: Store, source: Key, key: Key, new_run: str, at: int | None, replace: Mapping[int, Any], run: str | None
) -> _Found:
    row = store.row(source)
    if row is None:
        raise ExecutionNotFound(execution=source.execution, namespace=source.namespace)
    of = run or row.run
    request = BranchRequest(source, of, key, new_run, _cut(store, row, of, at, replace))
    first = store.load(source, of, 0, 1)
    if run and not first:
        missing = f"it has no run {run!r}: it never had, or that run ended long ago and was removed"
        raise request.refused(missing, "`handle.runs()` lists those that are there.")
    workflow = _workflow_of(first) if first else ""
    return _Found(request, workflow, {position: _replaceable(store, request, position) for position in replace})


def _cut(store: Store, row: Row, run: str, at: int | None, replace: Mapping[int, Any]) -> int:
    """By default behind what is replaced, else at the end of what is recorded."""
    if at is not None:
        return at
    if replace:
        return max(replace) + 1
    length = next((each.events for each in store.runs(row.key, None, PAGE) if each.run == run), 0)
    last = [recorded.event for recorded in store.load(row.key, run, length - 1, 1)] if length else []
    return length - 1 if last and isinstance(last[0], ev.CLOSING) else length


def _replaceable(store: Store, request: BranchRequest, position: int) -> ev.StepCompleted | ev.StepFailed:
    """The answer of a step that stands there."""
    fix = "`perdure journal` lists the events; replace one that is StepCompleted or StepFailed."
    found = store.load(request.source, request.source_run, position, 1)
    if not found:
        raise request.refused(f"event {position} is not in its journal, and cannot be replaced", fix)
    event = found[0].event
    if not isinstance(event, ev.StepCompleted | ev.StepFailed):
        raise request.refused(f"event {position} is {type(event).__name__}, not a step's result", fix)
    if position >= request.at:
        raise request.refused(
            f"event {position} is to be replaced, and lies behind that", "Leave out `at`, or raise it."
        )
    return event


# --- doing ------------------------------------------------------------------------------------------------------------


async def carry_out(read: Read, store: Store, request: BranchRequest, code: Code) -> Receipt:
    """Have the store begin the run.

    Raises:
        ExecutionNotFound: there is nothing that could be copied.
        NotForkable: it cannot begin there; nothing was written.
        MovedOn: another run has taken its place meanwhile, or it goes on faster than it could be looked at.
        KeyMissing: its values are encrypted, and cannot be read or written here.
    """
    for _ in range(MOST_TRIES):
        row: Row | None = await read(partial(store.row, request.source))
        if row is None:
            raise ExecutionNotFound(execution=request.source.execution, namespace=request.source.namespace)
        if request.is_rewind and row.run != request.source_run:
            if row.run == request.run:
                return Receipt("accepted", row)  # asked for again
            break
        branch: Branch = await read(partial(_branch, store, row, request, code))
        await _check_that_code_leads_there(request, code(branch.workflow), branch.events)
        receipt: Receipt = await read(partial(store.branch, branch))
        if receipt.status != "moved":
            return receipt
    raise MovedOn(execution=request.source.execution)


def _branch(store: Store, row: Row, request: BranchRequest, code: Code) -> Branch:
    """What is to be written. Blocks."""
    at, key = request.at, request.key
    journal = list(_events(store, request, row.position if request.is_rewind else at))
    copied, rest = journal[:at], journal[at:]
    _check_cut(request, copied)
    if request.is_rewind:
        _check_what_runs(store, request, journal)
    begun = ev.RunForked(
        request.run,
        key.execution,
        request.source.execution,
        request.source_run,
        tuple(sorted(getattr(copied[position].event, "seq", 0) for position in request.replace)),
    )
    workflow = _workflow_of(copied)
    with secrets_pass(when=getattr(store, "private", False)):
        replaced = _results(request, copied, code(workflow))
    events = [_as_copied(request, recorded, replaced.get(recorded.position)) for recorded in copied]
    events.append(ev.Recorded(at, max(copied[-1].at_ms, store.now_ms()), begun))
    return Branch(
        key=key,
        run=request.run,
        workflow=workflow,
        lane=row.lane,
        origin=f"{request.source.execution}/{request.source_run}/{at}",
        events=events,
        digest=b"" if request.is_rewind else _digest(request),
        instead_of=request.source_run if request.is_rewind else "",
        expected=len(journal) if request.is_rewind else 0,
        carried=list(_carried(key, copied, rest)) if request.is_rewind else (),
        received=list(_received(rest)) if request.is_rewind else (),
    )


def _events(store: Store, request: BranchRequest, end: int) -> Iterator[ev.Recorded]:
    position = 0
    while position < end:
        page = store.load(request.source, request.source_run, position, min(PAGE, end - position))
        if not page:
            return
        yield from page
        position += len(page)


def _workflow_of(copied: Sequence[ev.Recorded]) -> str:
    started = copied[0].event
    assert isinstance(started, ev.ExecutionStarted)
    return started.workflow


def _digest(request: BranchRequest) -> bytes:
    """Tells a fork that is asked for again from another one with its id."""
    digest = hashlib.blake2b(f"{request.source.execution}\0{request.source_run}\0{request.at}".encode(), digest_size=16)
    for position, payload in sorted(request.replace.items()):
        digest.update(f"\0{position}\0{payload.content_type}\0{len(payload.data)}\0".encode() + payload.data)
    return digest.digest()


# --- what is copied ---------------------------------------------------------------------------------------------------


def _as_copied(request: BranchRequest, recorded: ev.Recorded, result: ev.Payload | None) -> ev.Recorded:
    event = recorded.event
    if isinstance(event, ev.ExecutionStarted) and not request.is_rewind:
        # It still counts as the other's. Children of that one's earlier runs end with it, not with its copy.
        name = event.execution or request.source.execution
        event = msgspec.structs.replace(event, execution=name, children=())
        return msgspec.structs.replace(recorded, event=event)
    if result is None:
        return recorded
    assert isinstance(event, ev.StepCompleted | ev.StepFailed)
    kept = {name: getattr(event, name) for name in (*ev.StepEvent.__struct_fields__, "attempt", "started_at_ms")}
    answer = ev.StepCompleted(**kept, result=result, replaced=True)
    return msgspec.structs.replace(recorded, event=answer, usage=None)


def _results(
    request: BranchRequest, copied: Sequence[ev.Recorded], workflow: Workflow[..., Any] | None
) -> dict[int, ev.Payload]:
    """The replaced results, each encoded as its step does."""
    if request.typed:
        return request.replace
    found: dict[int, ev.Payload] = {}
    for position, payload in request.replace.items():
        name: str = getattr(copied[position].event, "name")  # noqa: B009 - every step's event has one
        step = None if workflow is None else find_step(workflow, name)
        if step is None:
            fix = "Pass the workflow (`workflow=`, `--module`), or have an engine run that has it."
            raise request.refused(f"no code is at hand that tells what step {name!r} returns", fix)
        try:
            found[position] = typed(payload, step, step.result_what)
        except (DecodeError, EncodeError) as error:
            reason = error.fields.get("reason", "it is not of its type")
            problem = f"what is to replace event {position} is not what step {name!r} returns: {reason}"
            raise request.refused(problem, "Give a value of the type of the step's result.") from error
    return found


def _carried(key: Key, copied: Sequence[ev.Recorded], rest: Sequence[ev.Recorded]) -> Iterator[Mail]:
    """Messages that came behind the cut: to be received again, as from outside. But not updates that have an answer."""
    answered = {each.event.update_id for each in (*copied, *rest) if isinstance(each.event, ev.UpdateCompleted)}
    for recorded in rest:
        event = recorded.event
        if isinstance(event, ev.SignalReceived):
            if answered_by(event.name) is not None:
                continue  # who is asked again answers again
            signal = msgspec.structs.replace(event, sender_run="", number=0)
            yield Mail(key, signal.message_id, signal)
        elif isinstance(event, ev.UpdateAccepted) and event.update_id not in answered:
            yield request_of(key, event.name, event.update_id, event.input)


_MESSAGES = (ev.SignalReceived, ev.CancelRequested, ev.PauseRequested, ev.ResumeRequested)


def _received(rest: Iterable[ev.Recorded]) -> Iterator[str]:
    """Ids of what came behind the cut: sent once more, it has no effect."""
    return (each.event.message_id for each in rest if isinstance(each.event, _MESSAGES))


# --- what cannot be ---------------------------------------------------------------------------------------------------


def _check_cut(request: BranchRequest, copied: Sequence[ev.Recorded]) -> None:
    """Whether the copied events are a whole from which a run can go on."""
    if len(copied) < request.at:
        fix = "`perdure journal` lists them; choose one behind the first two."
        run = "" if not copied else " in that run"
        raise request.refused(f"its journal has {len(copied)} events{run}", fix)
    begun = any(isinstance(each.event, ev.ExecutionClaimed) for each in copied[:3])
    if not begun:
        raise request.refused("its code has not begun there", "Choose an event behind ExecutionClaimed.")
    if isinstance(copied[-1].event, ev.CLOSING):
        raise request.refused(
            "its run had ended there", f"Choose an event before the last one: at most {request.at - 1}."
        )
    waits = _open(copied)
    if waits:
        first = min(waits)
        more = f" (and {len(waits) - 1} more)" if len(waits) > 1 else ""
        raise request.refused(waits[first] + more, "Choose an event before its beginning, or behind its end.")


def _open(events: Iterable[ev.Recorded]) -> dict[int, str]:
    """What began and has not ended, by seq: its answer goes to the run that began it, and nowhere else."""
    waits: dict[int, str] = {}
    for recorded in events:
        event = recorded.event
        tell = _BEGINS.get(type(event))
        if isinstance(event, ev.StepOutcomeUnknown) and event.raises:  # its code was told, and has gone on
            waits.pop(event.seq, None)
        elif tell is not None:
            waits[event.seq] = tell(event)  # type: ignore[union-attr]
        elif isinstance(event, _ENDS):
            waits.pop(event.seq, None)
    return waits


_BEGINS: dict[type, Callable[[Any], str]] = {
    ev.StepIntended: lambda event: f"step {event.name!r} (#{event.seq}), declared once, has begun there",
    ev.StepOutcomeUnknown: lambda event: f"nobody knows there what step {event.name!r} (#{event.seq}) did",
    ev.ChildInitiated: lambda event: f"child {event.execution!r} runs there",
    ev.MessageSent: lambda event: f"a message to {event.receiver!r} (#{event.seq}) is on its way there",
}
_ENDS = (
    *(ev.StepCompleted, ev.StepFailed, ev.StepAttemptFailed),
    *(ev.ChildStartFailed, ev.ChildClosed, ev.MessageDelivered, ev.MessageFailed),
)


def _check_what_runs(store: Store, request: BranchRequest, journal: Sequence[ev.Recorded]) -> None:
    """Whether what a rewind leaves behind has come to an end: nobody would look after it."""
    began: dict[int, ev.AnyEvent] = {}
    for recorded in journal:
        event = recorded.event
        if isinstance(event, ev.StepIntended | ev.ChildInitiated):
            began[event.seq] = event
        elif isinstance(event, (*_ENDS, ev.StepOutcomeUnknown)):
            began.pop(event.seq, None)
    has_ended = isinstance(journal[-1].event, ev.CLOSING)
    for event in began.values():
        if isinstance(event, ev.StepIntended):
            reason = f"step {event.name!r} (#{event.seq}), declared once, runs now"
            raise request.refused(reason, "Wait until its outcome is recorded.")
        if isinstance(event, ev.ChildInitiated) and _depends(store, request.key, event, has_ended=has_ended):
            reason = f"its child {event.execution!r} runs now, or is about to, and would go on beside its successor"
            raise request.refused(reason, "Terminate or cancel it, or wait for its end.")


def _depends(store: Store, parent: Key, event: ev.ChildInitiated, *, has_ended: bool) -> bool:
    """Whether this child is open, and would end with its parent."""
    shard = shard_of(parent.namespace, event.execution, store.shards)
    row = store.row(Key(shard, parent.namespace, event.execution))  # type: ignore[arg-type]
    if row is None:  # its start is on its way; but of a parent that has ended, and asked it to, it may be long gone
        return not has_ended and event.on_parent_close != "abandon"
    if row.status not in OPEN_STATUSES or event.run not in (row.run, row.first_run):
        return False
    started = started_of(store, row)
    return started is None or started.on_parent_close != "abandon"


async def _check_that_code_leads_there(
    request: BranchRequest, workflow: Workflow[..., Any] | None, events: Sequence[ev.Recorded]
) -> None:
    """Replaced results change what follows. What is copied behind them must be what the code does."""
    if workflow is None or not request.replace or max(request.replace) >= request.at - 1:
        return
    execution = Execution(workflow, request.key.execution, fingerprint_of([workflow]))
    try:
        execution.expect(events)
        for count, recorded in enumerate(events, 1):
            execution.feed(recorded)
            if count % EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)
    except PerdureError as error:
        reason = f"with what is replaced its code does something else than what follows ({type(error).__name__})"
        fix = f"Let it begin behind the replaced result: at event {max(request.replace) + 1}."
        raise request.refused(reason, fix) from error
    finally:
        execution.evict()
