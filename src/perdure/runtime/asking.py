"""Asks a step's `reconcile` what came of an attempt, again and again, but not for ever.

To the step runner it is both a driver and its step: a question runs under the same limits as an attempt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from perdure.core import events as ev
from perdure.core.commands import RunStep
from perdure.core.errors import EncodeError, PayloadTooLarge, PerdureError
from perdure.core.identity import derived_id, noise
from perdure.core.retry import NO_RETRY, Retry
from perdure.runtime.attempt import Doubt, StepRun
from perdure.workflow.definitions import StepOptions, is_async
from perdure.workflow.effects import DidNotHappen, Happened, StillUnknown
from perdure.workflow.failures import NOTHING_DECLARED

if TYPE_CHECKING:
    from perdure.runtime.effects import Effects
    from perdure.store.protocol import Store

PAUSES = Retry(attempts=8, delay=1.0, factor=2.0, maximum=60.0)  # some two minutes in all
OPTIONS = StepOptions(retry=NO_RETRY, timeout_ms=60_000)
TOO_EARLY_MS = 100


class Finding(msgspec.Struct, frozen=True):
    """The end of asking. `outcome` is None if nobody could tell, `detail` then says what was last heard."""

    outcome: ev.Outcome | None
    result: ev.Payload | None = None
    detail: str = ""


class Asking:
    """About one attempt. See `attempt.Driven` and `definitions.Step` for what the runner wants to know."""

    settle = None
    raises = NOTHING_DECLARED

    def __init__(self, effects: Effects, command: RunStep, doubt: Doubt) -> None:
        step = command.target
        self.name = f"reconcile {command.name}"
        self.key, self.run = effects.owner.key, effects.owner.run
        self.attempts: dict[int, StepRun | None] = {}
        self.arguments = step.arguments
        self.input_what = step.input_what
        self.is_async = is_async(command.options.reconcile)
        self._effects = effects
        self._command = command
        self._doubt = doubt
        self._idempotency_key = derived_id("step", self.key.execution, self.run, command.seq)
        self._asked = 0
        self._finding: Finding | None = None

    @property
    def dead(self) -> bool:
        """With its driver."""
        return self._effects.owner.dead

    @property
    def store(self) -> Store:
        """Its driver's."""
        return self._effects.owner.store

    def ask(self) -> None:
        """Once more."""
        command, intent = self._command, self._command.intent
        self._asked += 1
        self._effects.owner.attempts[command.seq] = None  # so that the execution stays in memory
        question = RunStep(
            seq=command.seq,
            location=command.location,
            name=self.name,
            input=(intent and intent.input) or command.input,
            digest=command.digest,
            target=self,
            options=OPTIONS,
            attempt=command.attempt,  # so that `current_step()` tells of which attempt it is asked
        )
        self._effects.host.steps.begin(self, question)

    # --- the step that the runner sees ---

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """See `Step.call`."""
        return self._command.options.reconcile(self._idempotency_key, *args, **kwargs)

    def outcome(self, value: Any) -> ev.Payload | ev.FailureInfo:
        """See `Step.outcome`. Raises `TypeError` for what is no answer."""
        step = self._command.target
        match value:
            case Happened():
                result = step.result.encode(value.value, f"what reconcile tells of {step.result_what}")
                self._finding = Finding("happened", result)
                return result  # type: ignore[no-any-return]
            case DidNotHappen():
                self._finding = Finding("did_not_happen")
                return ev.Payload(b"\xc0")
            case StillUnknown():
                return ev.FailureInfo("StillUnknown", "")
            case _:
                raise TypeError(f"it returned {value!r:.200}, not Happened(value), DidNotHappen() or StillUnknown()")

    # --- the driver that the runner sees ---

    def step_done(self, seq: int, event: ev.AnyEvent) -> None:
        """See `Driven.step_done`."""
        self.attempts.pop(seq, None)
        answer, self._finding = self._finding, None
        if isinstance(event, ev.StepFailed):
            failure = event.failure
            self._heard_nothing(f"{failure.type}: {failure.message}" if failure.message else failure.type)
        elif answer is not None and answer.outcome == "did_not_happen" and not self._is_over():
            self._once_it_is_over()
        elif answer is not None:
            self._effects.settled(self._command, self._doubt, answer)

    def step_unreadable(self, seq: int, error: PerdureError) -> None:
        """See `Driven.step_unreadable`: what it said happened is not of the step's type."""
        self.attempts.pop(seq, None)
        reason = error.fields.get("reason", error)
        self._heard_nothing(str(reason) if isinstance(reason, EncodeError | PayloadTooLarge) else str(error))

    def step_unbegun(self, seq: int, reason: str) -> None:  # noqa: ARG002 - the port's
        """See `Driven.step_unbegun`: the next engine asks."""
        self.attempts.pop(seq, None)

    def step_lapsed(self) -> None:
        """See `Driven.step_lapsed`."""
        self._effects.owner.step_lapsed()

    # --- again ---

    def _heard_nothing(self, detail: str) -> None:
        jitter = noise(self.run, self._command.seq, self._asked)
        pause_ms = PAUSES.pause_ms(self._asked, TimeoutError(), jitter)
        if pause_ms is None:
            summary = f"reconcile was asked {self._asked} times and could not tell, last: {detail}"
            self._effects.settled(self._command, self._doubt, Finding(None, detail=summary))
        else:
            self._ask_at(self._effects.host.now_ms() + pause_ms)

    def _is_over(self) -> bool:
        """Whether the old attempt can no longer be running, as far as anybody can tell who is not frozen."""
        return not self._doubt.goes_on and self._left_ms() <= 0

    def _left_ms(self) -> int:
        return self._doubt.over_at_ms - self._effects.host.environment.monotonic_ms()

    def _once_it_is_over(self) -> None:
        """That it did not happen counts only when it is said of something that has ended."""
        if self._doubt.goes_on:
            self._heard_nothing("DidNotHappen, while the thread of the attempt still runs")
        else:
            self._asked -= 1
            self._ask_at(self._effects.host.now_ms() + max(self._left_ms(), TOO_EARLY_MS))

    def _ask_at(self, at_ms: int) -> None:
        if not self.dead:
            self._effects.owner.later(self._command, at_ms)
