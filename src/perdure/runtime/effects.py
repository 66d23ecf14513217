"""The `once` steps of one execution: an intent is journaled before each attempt, and what came of it before the next.

What nobody in this process knows is asked of the step's `reconcile`, else journaled as unknown, for a person to settle.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import msgspec

from perdure.core import events as ev
from perdure.core.commands import AnyCommand, RunStep, State
from perdure.core.errors import PerdureError, UnencodableResult, UnknownOutcome
from perdure.core.identity import Key, noise
from perdure.core.machine import Machine
from perdure.core.retry import Retry
from perdure.runtime.asking import Asking, Finding
from perdure.runtime.attempt import Doubt, Driven, StepRun
from perdure.runtime.environment import Environment
from perdure.runtime.lease import Holding
from perdure.runtime.outgoing import Outgoing
from perdure.runtime.steps import StepRunner
from perdure.runtime.unresolved import typed
from perdure.store.protocol import Batch, UnresolvedRow
from perdure.workflow.values import preview

log = logging.getLogger("perdure")

LAPSED = Retry(attempts=None, delay=1.0, maximum=60.0, jitter=0.0)  # before what could not begin is tried again
CLOSE_AFTER_MS = 10_000  # an attempt that does not end when its execution does
NOT_WAITED_FOR = "the workflow stopped waiting for it first"
GONE = "the worker that ran it is gone"
CUT_OFF = "the execution was terminated while it ran"


class Host(Protocol):
    """What is asked of the worker."""

    steps: StepRunner
    holding: Holding
    environment: Environment

    def now_ms(self) -> int: ...


class Owner(Driven, Protocol):
    """What is asked of the driver."""

    machine: Machine

    def later(self, command: RunStep, at_ms: int) -> None: ...  # start it again then


class Effects:
    """Belongs to a driver, which hands it the steps that are declared once, or that had begun as such."""

    def __init__(self, owner: Owner, host: Host, outgoing: Outgoing) -> None:
        self.owner = owner
        self.host = host
        self._outgoing = outgoing
        self._intended: set[int] = set()  # by seq: the intent is this process's own, and its attempt has not begun
        self._asking: dict[int, Asking] = {}
        self._hurried: set[int] = set()  # attempts whose execution closes
        self._refused: list[RunStep] = []  # of whose answer the next batch tells that

    # --- before, and at the beginning ---

    def start(self, command: RunStep) -> None:
        """It is new or tried again, its intent was just committed, somebody had begun it, or it is time to ask."""
        seq = command.seq
        if command.state is State.OPEN:
            self._intend(command)
        elif command.state not in (State.STARTED, State.LEFT):
            return
        elif seq in self._intended:
            self._begin(command)
        elif seq in self._asking:
            self._asking[seq].ask()
        elif self.owner.attempts.get(seq) is not None:
            self.host.steps.stop(self.owner, seq)
            self._declare(command, Doubt("it went on when its execution closed"))
        else:
            # Whoever ran it began before this worker came: by this worker's own clock, as others' may be wrong.
            seen_ms = self.host.environment.monotonic_ms()
            self._wonder(command, Doubt(GONE, over_at_ms=seen_ms + _limit_ms(command) + self.host.holding.ttl_ms))

    def _intend(self, command: RunStep) -> None:
        if self.host.steps.draining:
            self.owner.attempts[command.seq] = None  # the next engine runs it
            return
        event = ev.StepIntended(
            seq=command.seq,
            name=command.name,
            digest=command.digest,
            location=command.location,
            attempt=command.attempt + 1,
            input=command.input,
        )
        self._outgoing.events.append(event)
        self._intended.add(command.seq)

    def _begin(self, command: RunStep) -> None:
        self._intended.discard(command.seq)
        if command.state is State.LEFT:
            self.unbegun(command.seq, NOT_WAITED_FOR)
        else:
            self.host.steps.begin(self.owner, command)

    # --- what came of it ---

    def unbegun(self, seq: int, reason: str, *, lapsed: bool = False) -> None:
        """Its intent is journaled, but this process knows that it never called the function."""
        command = self.find(seq)
        if command is not None:
            pause_ms = LAPSED.pause_ms(command.attempt + 1, TimeoutError(), 0.0) if lapsed else 0
            failure = ev.FailureInfo("NotBegun", f"it was never called: {reason}")
            self._tell(self._try_again(command, failure, pause_ms))

    def undecided(self, run: StepRun, error: PerdureError) -> None:
        """Its attempt in this process ended, and whether it did its work does not follow from how."""
        if isinstance(error, UnencodableResult):
            reason = f"it returned {error.fields['value']}, which cannot be recorded: {error.fields['reason']}"
            self._declare(run.command, Doubt(reason, started_at_ms=run.started_at_ms))
        else:
            failure = error.fields.get("failure")
            over_at_ms = run.started_mono_ms + _limit_ms(run.command)  # what it sent may still be on its way
            reason = error.fields.get("reason", str(error))
            self._wonder(run.command, Doubt(reason, failure, run.started_at_ms, over_at_ms, run.work))

    def left(self, commands: Iterable[AnyCommand]) -> None:
        """The code stopped waiting for some that had begun: their attempts are cancelled, but how they end matters."""
        for seq in [command.seq for command in commands if command.state is State.LEFT]:
            runs_here = seq in self.owner.attempts and seq not in self._asking
            if runs_here and not self.host.steps.leave(self.owner, seq):
                self.unbegun(seq, NOT_WAITED_FOR)

    def _wonder(self, command: RunStep, doubt: Doubt) -> None:
        if command.options.reconcile is None:
            self._declare(command, doubt)
        else:
            asking = self._asking[command.seq] = Asking(self, command, doubt)
            asking.ask()

    def _declare(self, command: RunStep, doubt: Doubt) -> None:
        which = (self.owner.key.execution, command.name, command.seq, command.attempt + 1)
        log.warning("execution %s: nobody knows whether step %s (#%d, attempt %d) happened", *which)
        raises = command.options.on_unknown == "raise" and command.state is State.STARTED
        self._tell(
            ev.StepOutcomeUnknown(
                **_common_fields(command),
                reason=doubt.reason,
                failure=doubt.failure,
                started_at_ms=doubt.started_at_ms,
                raises=raises,
            )
        )

    def settled(self, command: RunStep, doubt: Doubt, finding: Finding) -> None:
        """`reconcile` has answered, or was asked often enough."""
        self._asking.pop(command.seq, None)
        if self.owner.dead:
            return
        if finding.outcome is None:
            self._declare(command, msgspec.structs.replace(doubt, reason=f"{doubt.reason}; {finding.detail}"))
            return
        resolved = ev.Resolution(finding.outcome, "reconcile")
        if finding.result is not None:
            self._tell(_happened(command, finding.result, resolved, doubt.started_at_ms))
            return
        error = UnknownOutcome(name=command.name, seq=command.seq, attempt=command.attempt + 1, reason=doubt.reason)
        jitter = noise(self.owner.run, command.seq, command.attempt + 1)
        pause_ms = command.options.retry.pause_ms(command.attempt + 1, error, jitter)
        self._tell(self._try_again(command, _not_happened(doubt.reason), pause_ms, resolved, doubt.started_at_ms))

    def _try_again(
        self,
        command: RunStep,
        failure: ev.FailureInfo,
        pause_ms: int | None,
        resolved: ev.Resolution | None = None,
        started_at_ms: int = 0,
    ) -> ev.AnyEvent:
        """It surely did not happen: another attempt follows, if anybody waits for it and the pause is not None."""
        fields: dict[str, Any] = {**_common_fields(command), "failure": failure, "resolved": resolved}
        fields["started_at_ms"] = started_at_ms
        if pause_ms is None or command.state in (State.LEFT, State.LEFT_UNKNOWN):
            return ev.StepFailed(**fields)
        retry_at_ms = self.host.now_ms() + pause_ms
        return ev.StepAttemptFailed(**fields, retry_at_ms=retry_at_ms, spent_ms=command.spent_ms)

    def _tell(self, event: ev.AnyEvent) -> None:
        self.owner.step_done(event.seq, event)  # type: ignore[union-attr]

    # --- people ---

    def answered(self, answers: Sequence[ev.ResolveRequested]) -> list[ev.AnyEvent]:
        """What people's answers mean for the journal. What is not of the step's type is refused, and stays listed."""
        events: dict[int, ev.AnyEvent] = {}
        self._refused = []
        for answer in answers:
            command = self.find(answer.seq)
            which = (self.owner.key.execution, answer.seq, answer.attempt)
            if command is None or not self._waits_for(answer, command) or answer.seq in events:
                log.warning("execution %s, step #%d, attempt %d: an answer came too late", *which)
                continue
            try:
                events[answer.seq] = self._answer(answer, command)
            except PerdureError:
                log.warning("execution %s, step #%d, attempt %d: an answer was refused: no value of its type", *which)
                self._refused.append(command)
        return list(events.values())

    def _waits_for(self, request: ev.ResolveRequested, command: RunStep) -> bool:
        waits = command.state in (State.UNKNOWN, State.LEFT_UNKNOWN)
        return waits and (request.run, request.attempt) == (self.owner.run, command.attempt + 1)

    def _answer(self, request: ev.ResolveRequested, command: RunStep) -> ev.AnyEvent:
        resolved = ev.Resolution(request.outcome, "person", request.message_id, request.note)
        match request.outcome:
            case "happened":
                return _happened(command, typed(request.value, command.target, command.target.result_what), resolved)
            case "did_not_happen":
                return self._try_again(command, _not_happened("a person says so"), 0, resolved)
            case "abandoned":
                failure = ev.FailureInfo("UnknownOutcome", "nobody will know")
                return ev.StepFailed(**_common_fields(command), failure=failure, resolved=resolved)

    # --- what is written ---

    def marked(self, batch: Batch) -> Batch:
        """The batch, which has the store list what it declares unknown, and no longer what it settles."""
        refused, self._refused = self._refused, []
        rows = [msgspec.structs.replace(self._row(command, 0, 0), refused=True) for command in refused]
        resolved: list[int] = []
        for position, new in enumerate(batch.events, batch.expected):
            command = self.find(getattr(new.event, "seq", 0))
            if command is None:
                continue
            if isinstance(new.event, ev.StepOutcomeUnknown):
                rows.append(self._row(command, position, new.at_ms))
            elif command.state in (State.UNKNOWN, State.LEFT_UNKNOWN):
                resolved.append(command.seq)
        if rows or resolved:
            batch.unresolved, batch.resolved = rows, resolved
        return batch

    def _row(self, command: RunStep, position: int, at_ms: int) -> UnresolvedRow:
        assert command.intent is not None, "what is unknown was intended"
        attempt, intended = command.attempt + 1, command.intent.position
        return UnresolvedRow(self.owner.key, self.owner.run, command.seq, attempt, intended, position, at_ms)

    def known(self, results: Iterable[ev.AnyEvent]) -> list[ev.AnyEvent]:
        """Of the results that wait to be written, those that must not be lost when the execution closes."""
        found = []
        for event in results:
            command = self.find(getattr(event, "seq", 0))
            if command is not None and command.state in (State.STARTED, State.LEFT):
                found.append(event)
        return found

    def last_words(self, results: Iterable[ev.AnyEvent]) -> list[ev.AnyEvent]:
        """What is known, and what will never be, when the execution ends at once."""
        known = self.known(results)
        seqs = {event.seq for event in known}  # type: ignore[union-attr]
        return [*known, *(event for event in cut_off(self.owner.machine, ()).values() if event.seq not in seqs)]

    def unsettled(self) -> bool:
        """Whether there are begun steps of which it will be known what they did, or declared that nobody knows."""
        waits = [command for command in self.owner.machine.left.values() if command.state is State.LEFT]
        for command in waits:
            if self.owner.attempts.get(command.seq) is not None and command.seq not in self._hurried:
                self._hurried.add(command.seq)
                self.owner.later(command, self.host.now_ms() + CLOSE_AFTER_MS)
        return bool(waits)

    def hold_back(self) -> tuple[set[int], set[int]]:
        """A pause begins: what was intended and has not begun never will. These, and those that are asked about."""
        waiting = [seq for seq, run in self.owner.attempts.items() if run is None and seq not in self._asking]
        commands = [self.find(seq) for seq in {*waiting, *self._intended}]
        begun = [each for each in commands if each is not None and each.state in (State.STARTED, State.LEFT)]
        for command in begun:
            self._intended.discard(command.seq)
            self.host.steps.stop(self.owner, command.seq)
            self.unbegun(command.seq, "the execution was paused")
        return {command.seq for command in begun}, set(self._asking)

    # --- the rest ---

    def find(self, seq: int) -> RunStep | None:
        """An open step, or one that was left."""
        machine = self.owner.machine
        command = machine.open.get(seq) or machine.left.get(seq)
        return command if isinstance(command, RunStep) else None

    def stop(self) -> None:
        """The execution leaves memory: nobody is asked any more."""
        for seq, asking in self._asking.items():
            self.host.steps.stop(asking, seq)


def cut_off(machine: Machine, ahead: Iterable[ev.Recorded]) -> dict[int, ev.StepOutcomeUnknown]:
    """What is to be declared unknown of an execution that is terminated: begun steps, by the position of their intents.

    `ahead` are events of its journal that its code has not been fed, and will not be.
    """
    begun: dict[int, tuple[int, ev.StepOutcomeUnknown]] = {}
    for command in (*machine.open.values(), *machine.left.values()):
        if isinstance(command, RunStep) and command.state in (State.STARTED, State.LEFT) and command.intent is not None:
            unknown = ev.StepOutcomeUnknown(**_common_fields(command), reason=CUT_OFF)
            begun[command.seq] = (command.intent.position, unknown)
    for recorded in ahead:
        event = recorded.event
        if isinstance(event, ev.StepIntended):
            fields = {name: getattr(event, name) for name in ("seq", "name", "digest", "location", "attempt")}
            begun[event.seq] = (recorded.position, ev.StepOutcomeUnknown(**fields, reason=CUT_OFF))
        elif isinstance(event, ev.StepEvent):
            begun.pop(event.seq, None)
    return dict(begun.values())


def rows_of(
    unknown: dict[int, ev.StepOutcomeUnknown], key: Key, run: str, length: int, at_ms: int
) -> list[UnresolvedRow]:
    """For the store's list, of what `cut_off` found and a batch appends first to a journal of that length."""
    return [
        UnresolvedRow(key, run, event.seq, event.attempt, intent, position, at_ms)
        for position, (intent, event) in enumerate(unknown.items(), length)
    ]


def _limit_ms(command: RunStep) -> int:
    """How long an attempt may take; 0 if nobody said."""
    return command.options.timeout_ms or command.options.total_timeout_ms or 0


def _common_fields(command: RunStep) -> dict[str, Any]:
    """What all events of the attempt that was intended last hold."""
    return {
        "seq": command.seq,
        "name": command.name,
        "digest": command.digest,
        "location": command.location,
        "preview": preview(command.input),
        "attempt": command.attempt + 1,
    }


def _happened(
    command: RunStep, result: ev.Payload, resolved: ev.Resolution, started_at_ms: int = 0
) -> ev.StepCompleted:
    return ev.StepCompleted(**_common_fields(command), result=result, started_at_ms=started_at_ms, resolved=resolved)


def _not_happened(reason: str) -> ev.FailureInfo:
    return ev.FailureInfo("DidNotHappen", f"it did not happen: {reason}")
