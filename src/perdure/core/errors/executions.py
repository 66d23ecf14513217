"""P05: executions seen from outside. P06: failures that were journaled, as workflow or caller see them."""

from __future__ import annotations

import re
from typing import Any

from perdure.core.errors.base import PerdureError, YourError
from perdure.core.events import FailureInfo

_POINTER = re.compile(r"\.? \[(P\d{4}): perdure explain \1\]$")


class ExecutionNotFound(YourError):
    """No execution has this id. Fields: execution, namespace."""

    code = "P0501"
    text = "No execution has the id {execution!r} in namespace {namespace!r}."
    cure = "`perdure ls` lists them."


class ExecutionExists(YourError):
    """The id is taken, by another workflow or other input, or by one that this start does not want to meet.

    Fields: execution, recorded, why.
    """

    code = "P0502"
    text = "Execution {execution!r} exists already: workflow {recorded!r}, {why}."
    cure = "Choose another id, start it with the same workflow and input, or say what to do: on_conflict=, reuse=."


class ExecutionClosed(YourError):
    """The execution has ended: what was sent was not delivered, or not finished. Fields: execution, status, fate."""

    code = "P0503"
    text = "Execution {execution!r} is closed ({status})."
    cure = "{fate}"


class ExecutionStalled(YourError):
    """The execution's code failed: it is kept, and goes on with fixed code after `resume`.

    Fields: execution, problem.
    """

    code = "P0504"
    text = "Execution {execution!r} stalled and waits for a fix:\n{problem}\n"
    cure = "Fix the code, start the worker, then `perdure resume {execution}`."


class EngineClosed(YourError):
    """The engine is not running."""

    code = "P0505"
    text = "The engine is not running."
    cure = "Use it inside `async with Engine(...)`."


class EngineMisused(YourError):
    """An engine was used where it cannot work. Fields: what, fix."""

    code = "P0507"
    text = "{what}."
    cure = "{fix}"


class WaitTimeout(YourError, TimeoutError):
    """No result came in time; the execution goes on. Fields: execution, seconds."""

    code = "P0506"
    text = "Execution {execution!r} had no result after {seconds} s; it goes on."
    cure = "Ask again later."


class NotUnresolved(YourError):
    """Nobody asks what came of this step: it is known, or somebody has said so. Fields: execution, seq, state."""

    code = "P0508"
    text = "Step #{seq} of execution {execution!r} does not wait for an answer: {state}."
    cure = "`perdure unresolved` lists those that do."


class AnswerRefused(YourError):
    """What a step is said to have returned is not of the type of its result. Fields: execution, seq, reason."""

    code = "P0509"
    text = "Step #{seq} of execution {execution!r} cannot have returned that: {reason}."
    cure = "Nothing was recorded. Give a value of the type that the step's function returns."


class NothingLeft(YourError):
    """A test awaits what nothing can bring any more. Fields: waits, a text."""

    code = "P0510"
    text = "Nothing is left to happen: {waits}."
    cure = "Send it what it waits for, from a task beside the await or before it; or give the wait a timeout."


class RemoteFailure(PerdureError):
    """Base of failures that were journaled. Fields: failure, which has a traceback and causes; its type and message."""

    def __init__(self, *, failure: FailureInfo, **fields: Any) -> None:
        self.failure = failure
        self._pointer = _POINTER.search(failure.message)
        fields |= {"type": failure.type, "message": _POINTER.sub("", failure.message)}
        super().__init__(failure=failure, **fields)

    def page(self) -> str:
        """That of the error within, if it is one of ours: it is nearer to the cause."""
        return self._pointer[1] if self._pointer else self.code


class StepFailed(RemoteFailure):
    """A step failed for good: raised at its await. Fields: name, attempts, and those of `RemoteFailure`."""

    code = "P0601"
    text = "Step {name!r} failed at attempt {attempts}: {type}: {message}."


class ExecutionFailed(RemoteFailure):
    """A workflow raised: seen by `handle.result()` and by a parent. Fields: execution, and those of `RemoteFailure`."""

    code = "P0602"
    text = "Execution {execution!r} failed: {type}: {message}."
    cure = "Its traceback is in the journal: `perdure show {execution}`."


class ExecutionCancelled(PerdureError):
    """An execution was cancelled: seen by `handle.result()` and by a parent. Fields: execution, reason."""

    code = "P0603"
    text = "Execution {execution!r} was cancelled: {reason}."


class ExecutionTerminated(PerdureError):
    """An execution was ended without asking its code. Fields: execution, reason."""

    code = "P0604"
    text = "Execution {execution!r} was terminated: {reason}."


class MessageNotDelivered(PerdureError):
    """A message from a workflow found no open receiver. Fields: receiver, reason."""

    code = "P0605"
    text = "The message to execution {receiver!r} was not delivered: {reason}."


class ChildNotStarted(PerdureError):
    """A child's id was taken by another execution. Fields: execution, reason."""

    code = "P0606"
    text = "Child execution {execution!r} was not started: {reason}."
    cure = "Give the child another id."


class StepTimeout(YourError, TimeoutError):
    """An attempt took longer than allowed. Fields: kind, limit_ms."""

    code = "P0607"
    text = "The step took longer than its {kind} of {limit_ms} ms."
    cure = "Raise the limit, or make the step heartbeat and go on where it was."


class UnknownOutcome(PerdureError):
    """Nobody knows whether a `once` step happened: raised at its await if so asked for, or once it was given up.

    Fields: name, seq, attempt, reason.
    """

    code = "P0608"
    text = "Nobody knows whether step {name!r} (#{seq}, attempt {attempt}) happened: {reason}."
    cure = "It is not tried again by itself. `perdure unresolved` lists it, `perdure resolve` settles it."


class UndeclaredFailure(RemoteFailure):
    """Stands for an exception among causes, or members of a group, whose class was not declared where it came from.

    Fields: those of `RemoteFailure`.
    """

    code = "P0609"
    text = "{type}: {message}."

    def what(self) -> str:
        """What it was, and how it would be raised as itself: nobody can declare an error of ours."""
        how = " Its class crosses only where the step or workflow that raised it declares it: raises=[...]."
        return super().what() + ("" if self.failure.type.startswith("perdure.") else how)
