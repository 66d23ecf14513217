"""Steps of which nobody knows what they did, as people see and settle them: from any process, with or without code.

What they look like is in the journal; the store only lists where.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from perdure.core import events as ev
from perdure.core.errors import DecodeError, EncodeError, NotUnresolved
from perdure.core.identity import Key
from perdure.store.protocol import Mail, Store, UnresolvedRow
from perdure.workflow.definitions import Step, Workflow
from perdure.workflow.effects import Abandoned, Decision, DidNotHappen, Happened
from perdure.workflow.values import codec_for, encode_untyped, render

PAGE = 1_000
_ROOM = 2_000


class Unresolved(msgspec.Struct, frozen=True):
    """A step that is declared `once`, began, and of which nobody knows whether it did its work.

    It stays listed until somebody settles it, also when its execution has gone on or ended.
    """

    row: UnresolvedRow
    """Where the store lists it."""
    step: str
    location: str
    input: ev.Payload
    """All of its arguments, as `arguments` shows them."""
    reason: str
    failure: ev.FailureInfo | None = None
    """What it raised, if it did."""

    @property
    def execution(self) -> str:
        """Its id."""
        return self.row.key.execution

    @property
    def run(self) -> str:
        """The run of the execution that began it."""
        return self.row.run

    @property
    def seq(self) -> int:
        """The step's number in its run."""
        return self.row.seq

    @property
    def attempt(self) -> int:
        """The attempt in question, from 1."""
        return self.row.attempt

    @property
    def since_ms(self) -> int:
        """Since when nobody knows: milliseconds since 1970, UTC."""
        return self.row.since_ms

    @property
    def is_answered(self) -> bool:
        """Whether an answer is on its way, which the engine has not taken yet."""
        return bool(self.row.message_id)

    @property
    def was_refused(self) -> bool:
        """Whether the last answer was: its value was not of the type of the step's result."""
        return self.row.refused

    @property
    def arguments(self) -> dict[str, Any]:
        """The step's arguments by name, as plain data.

        Raises:
            DecodeError: they are encrypted, and this process lacks the key.
        """
        found: dict[str, Any] = codec_for(dict[str, Any], "a step's input").decode(self.input, "a step's input")
        return found


def read_page(
    store: Store, namespace: str, execution: str, after: UnresolvedRow | None, limit: int
) -> list[Unresolved]:
    """What is listed, with what the journal tells of it. Blocks."""
    return [_listed(store, row) for row in store.unresolved(namespace, execution, after, limit)]


def _listed(store: Store, row: UnresolvedRow) -> Unresolved:
    intent, unknown = (_event(store, row, position) for position in (row.intent, row.unknown))
    assert isinstance(intent, ev.StepIntended)
    assert isinstance(unknown, ev.StepOutcomeUnknown)
    given = intent.input or ev.Payload(b"\x80")
    return Unresolved(row, intent.name, intent.location, given, unknown.reason, unknown.failure)


def _event(store: Store, row: UnresolvedRow, position: int) -> ev.AnyEvent:
    return store.load(row.key, row.run, position, 1)[0].event


def find(store: Store, key: Key, seq: int, run: str | None = None) -> Unresolved:
    """The step of this number that waits for an answer. Blocks.

    Raises:
        NotUnresolved: none does; the message says why.
    """
    found = [row for row in _rows(store, key) if row.seq == seq and run in (None, row.run)]
    waiting = [row for row in found if not row.message_id]
    if len(waiting) > 1:
        runs = ", ".join(row.run for row in waiting)
        raise NotUnresolved(execution=key.execution, seq=seq, state=f"several runs wait for one, say which: {runs}")
    if waiting:
        return _listed(store, waiting[0])
    state = "an answer is on its way already" if found else _what_is_with(store, key, seq)
    raise NotUnresolved(execution=key.execution, seq=seq, state=state)


def _rows(store: Store, key: Key) -> Iterator[UnresolvedRow]:
    page: Sequence[UnresolvedRow] = store.unresolved(key.namespace, key.execution, None, PAGE)
    while page:
        yield from page
        page = store.unresolved(key.namespace, key.execution, page[-1], PAGE)


def _journal(store: Store, key: Key) -> Iterator[ev.AnyEvent]:
    row = store.row(key)
    position = 0
    while row is not None and position < row.position:
        page = store.load(key, row.run, position, PAGE)
        if not page:
            return
        yield from (recorded.event for recorded in page)
        position += len(page)


def _what_is_with(store: Store, key: Key, seq: int) -> str:
    """Why nobody asks what this step did."""
    last = next((e for e in reversed(list(_journal(store, key))) if getattr(e, "seq", 0) == seq), None)
    match last:
        case ev.StepCompleted() | ev.StepFailed() | ev.StepAttemptFailed() if last.resolved is not None:
            return f"it was settled: {last.resolved.outcome.replace('_', ' ')}, says {_who(last.resolved)}"
        case ev.StepCompleted():
            return "it completed"
        case ev.StepFailed() | ev.StepAttemptFailed():
            return f"its attempt {last.attempt} failed, and surely did nothing"
        case ev.StepIntended():
            return "it runs, or its worker is gone and the next one has not looked at it yet"
        case ev.StepOutcomeUnknown():
            return "it was settled after the execution had ended"
        case _:
            return "no step that is declared once has this number"


def _who(resolution: ev.Resolution) -> str:
    return "its reconcile" if resolution.by == "reconcile" else "a person"


def was_taken(store: Store, key: Key, message_id: str) -> bool:
    """Whether this answer counted: asked when it is told that nobody waits for it. Blocks."""
    resolved = (getattr(event, "resolved", None) for event in _journal(store, key))
    if any(each is not None and each.message_id == message_id for each in resolved):
        return True
    return any(letter.message_id == message_id for letter in store.dead_letters(key, PAGE))


def answer(waiting: Unresolved, decision: Decision, step: Step[..., Any] | None, message_id: str, note: str) -> Mail:
    """The message that settles it.

    Raises:
        EncodeError: the value is not of the type of the step's result, or nothing that can be encoded.
    """
    value: ev.Payload | None = None
    if isinstance(decision, Happened):
        value = _encoded(decision.value, step, f"the result of step {waiting.step!r}")
    outcome = _OUTCOMES[type(decision)]
    request = ev.ResolveRequested(message_id, waiting.run, waiting.seq, waiting.attempt, outcome, value, note)
    return Mail(receiver=waiting.row.key, message_id=message_id, event=request)


_OUTCOMES: dict[type, ev.Outcome] = {
    Happened: "happened",
    DidNotHappen: "did_not_happen",
    Abandoned: "abandoned",
}


def is_decision(value: object) -> bool:
    """Whether it says what came of a step."""
    return type(value) in _OUTCOMES


def _encoded(value: Any, step: Step[..., Any] | None, what: str) -> ev.Payload:
    if isinstance(value, ev.Payload):
        return value  # of who has no Python value: the engine looks at it
    return encode_untyped(value, what) if step is None else step.result.encode(value, what)


def typed(value: ev.Payload | None, step: Step[..., Any], what: str) -> ev.Payload:
    """A value that a person gave, as the step itself would have returned it.

    Raises:
        DecodeError, EncodeError: it is not of the type of the step's result.
    """
    given = value if value is not None else ev.Payload(b"\xc0")
    return step.result.encode(step.result.decode(given, what), what)


def refusal(value: ev.Payload | None, step: Step[..., Any]) -> str:
    """Why a value cannot be what the step returned; empty if it can."""
    try:
        typed(value, step, step.result_what)
    except DecodeError as error:
        return (
            f"{render(value)[:_ROOM] if value else 'null'} is no {error.fields['expected']}: {error.fields['reason']}"
        )
    except EncodeError as error:
        return f"{error.fields['path']} {error.fields['reason']}"
    return ""


class Code(Protocol):
    """A worker, as far as it is asked what it runs."""

    store: Store
    drivers: Any
    workflows: dict[str, Workflow[..., Any]]


def known_step(worker: Code, waiting: UnresolvedRow) -> Step[..., Any] | None:
    """The step in the code that runs it: of an execution in memory, else by its name. Blocks, unless in memory."""
    driver = worker.drivers.get(waiting.key)
    if driver is not None and driver.run == waiting.run:
        command = driver.machine.open.get(waiting.seq) or driver.machine.left.get(waiting.seq)
        if command is not None:
            return command.target  # type: ignore[no-any-return]
    row, intent = worker.store.row(waiting.key), _event(worker.store, waiting, waiting.intent)
    workflow = None if row is None else worker.workflows.get(row.workflow)
    return None if workflow is None else find_step(workflow, intent.name)  # type: ignore[union-attr]


def refusal_of(worker: Code, mail: Mail) -> str:
    """Why an answer cannot be, as far as the code is at hand; empty if it can. Blocks."""
    event = mail.event
    if not isinstance(event, ev.ResolveRequested) or event.outcome != "happened":
        return ""
    rows = [row for row in _rows(worker.store, mail.receiver) if (row.run, row.seq) == (event.run, event.seq)]
    step = known_step(worker, rows[0]) if rows else None
    return "" if step is None else refusal(event.value, step)


def find_step(workflow: Workflow[..., Any], name: str) -> Step[..., Any] | None:
    """The step of this name that the workflow's module knows, by whatever way; None if it is not found."""
    for value in _reachable(workflow.fn):
        if isinstance(value, Step) and value.name == name:
            return value
    return None


def _reachable(fn: Callable[..., Any]) -> Iterator[Any]:
    cells: Iterable[Any] = (cell.cell_contents for cell in fn.__closure__ or ())
    for value in (*fn.__globals__.values(), *cells):
        yield value
        if isinstance(value, types.ModuleType | type):
            yield from vars(value).values()
