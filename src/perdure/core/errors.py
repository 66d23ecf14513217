"""Every error of Perdure: a stable code, structured fields, and a message that says what happened and what to do.

Each code has a page under docs/errors/. *Yours* (the code's or caller's) and *theirs* (the store's, the world's) are
separate branches, because the first stall or raise and the second back off.
"""

from __future__ import annotations

from typing import Any, ClassVar

from perdure.core.events import FailureInfo


class PerdureError(Exception):
    """Base of all errors. `code` names the page under docs/errors/; `fields` holds the facts."""

    code: ClassVar[str] = "P0000"
    text: ClassVar[str] = ""
    cure: ClassVar[str] = ""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields
        super().__init__(self.render())

    def render(self) -> str:
        """The message: what happened, what to do, and the page to read."""
        what = self.text.format_map(self.fields)
        cure = self.cure.format_map(self.fields)
        space = "" if not cure or what.endswith("\n") else " "
        return f"{what}{space}{cure} [{self.code}: docs/errors/{self.code}.md]"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.fields))


def _rebuild(kind: type[PerdureError], fields: dict[str, Any]) -> PerdureError:
    return kind(**fields)


class YourError(PerdureError):
    """The code, the arguments or the use are at fault: trying again alone does not help."""


class TheirError(PerdureError):
    """The world is at fault: store, disk, machine. Nothing acknowledged is lost."""


# --- P01: the code does not agree with the journal, or leaves the deterministic world ------------------------------


class NondeterminismError(YourError):
    """Replay met a journal that the code does not agree with.

    Fields: position, recorded, now, where, cause.
    """

    code = "P0101"
    text = (
        "The journal and the code disagree at event {position}.\n"
        "  recorded: {recorded}\n"
        "  now:      {now}\n"
        "  where:    {where}\n"
        "  likely:   {cause}\n"
    )
    cure = (
        "Bring back the code that wrote this journal, or make the change behind a version, then `perdure resume`. "
        "Nothing is lost: the journal is untouched."
    )


class CorruptJournal(TheirError):
    code = "P0102"
    text = "The journal is damaged: {detail}."
    cure = "Nothing was written. Restore the store from a copy, or terminate this execution."


class JournalFromTheFuture(TheirError):
    code = "P0103"
    text = "This was written in format {found}; this Perdure reads formats up to {known}."
    cure = "Upgrade Perdure on this machine; nothing was written."


class SpinError(YourError):
    code = "P0104"
    text = "The workflow ran {handles} callbacks without waiting for anything that can happen.\n{stack}\n"
    cure = "Await a step, a timer (asyncio.sleep above 0) or a message inside the loop."


class DeadlockError(YourError):
    code = "P0105"
    text = "The workflow waits, but nothing is open that could wake it.\n{stack}\n"
    cure = "Something awaits a future, event or queue that no task of this workflow will set."


class NotDeterministic(YourError):
    code = "P0106"
    text = "{what} is not allowed inside a workflow ({where})."
    cure = "Move this into a step: a function with @perdure.step, awaited here."


class Evicted(BaseException):
    """Raised at every engine call of a coroutine that is being closed to free its memory: let it pass."""


class StalledByBug(TheirError):
    """Fields: failure."""

    code = "P0107"
    text = "Running the workflow failed in an unexpected way: {failure.type}: {failure.message}\n{failure.traceback}"
    cure = "Nothing is lost. Fix the cause and `perdure resume`; if it is Perdure's own fault, please report it."


class PoisonedExecution(YourError):
    code = "P0108"
    text = "The worker died each time this execution ran, even alone; these steps were open: {steps}."
    cure = "Find out why (memory? a crash in native code?), then `perdure resume`."


class UnorderedSet(YourError):
    code = "P0109"
    text = "{what} was given a set of {kind}, which iterates by memory address: another order on replay ({where})."
    cure = "Pass a list or a tuple; sets of tasks are fine."


# --- P02: values --------------------------------------------------------------------------------------------------


class EncodeError(YourError):
    code = "P0201"
    text = "{what} cannot be encoded: {path} {reason}."
    cure = "Nothing was recorded. Pass data of the annotated type: {expected}."


class DecodeError(YourError):
    code = "P0202"
    text = "{what} cannot be decoded as {expected}: {reason}."
    cure = "Make the type accept what was recorded (a default, a wider type), then `perdure resume`."


class UnsupportedType(YourError):
    code = "P0203"
    text = "{what} has type {type}, which neither msgspec nor pydantic can encode."
    cure = "Use dataclasses, msgspec or pydantic models, attrs, builtins, or install `perdure[pydantic]`."


class PayloadTooLarge(YourError):
    code = "P0204"
    text = "{what} takes {size} bytes encoded; the limit is {limit}."
    cure = "Keep large data outside (a file, a bucket) and pass its name."


class UnencodableResult(YourError):
    code = "P0205"
    text = "Step {name!r} at {location} ran, but its result cannot be recorded: {reason}\nThe result was: {value}\n"
    cure = "Return data of the annotated type. After the fix, `perdure resume` runs the step again."


# --- P03: definitions and options ---------------------------------------------------------------------------------


class InvalidDefinition(YourError):
    code = "P0301"
    text = "{name} is no valid {kind}: {reason}."
    cure = "{fix}"


class InvalidOption(YourError):
    code = "P0302"
    text = "Option {option}={value} is not valid."
    cure = "Expected {expected}."


class UnknownWorkflow(YourError):
    code = "P0303"
    text = "No workflow is named {name!r} here. Known: {known}."
    cure = "Pass it to Engine(workflows=[...]), or name the module that defines it."


class DuplicateName(YourError):
    code = "P0304"
    text = "Two different {kind}s are named {name!r}: {first} and {second}."
    cure = "Give one of them another name: @{kind}(name=...)."


class WrongArguments(YourError):
    code = "P0305"
    text = "{name}{signature} was called with wrong arguments: {reason}."
    cure = "Nothing was started."


class InvalidId(YourError):
    code = "P0306"
    text = "{value} is no valid {kind}: {reason}."
    cure = "Use 1 to 200 bytes of printable UTF-8, without surrogates or control characters."


class OutsideWorkflow(YourError):
    code = "P0307"
    text = "perdure.{name} was called outside {place}."
    cure = "It only means something there."


# --- P04: store ---------------------------------------------------------------------------------------------------


class StoreError(TheirError):
    code = "P0400"
    text = "The store at {path} failed: {detail}."
    cure = "Perdure tries again by itself where that can help; nothing acknowledged is lost."


class StoreBusy(StoreError):
    code = "P0401"
    text = "Another engine works on {path} ({owner})."
    cure = "Stop it, or wait for it with Engine(..., wait=True); clients and the command line work beside it."


class StoreFull(StoreError):
    code = "P0402"
    text = "No space left for {path}: {detail}."
    cure = "Free some disk space; waiting work goes on by itself."


class StoreReadOnly(StoreError):
    code = "P0403"
    text = "{path} cannot be written: {detail}."
    cure = "Make the file and its directory writable for this user."


class StoreLocked(StoreError):
    code = "P0404"
    text = "{path} stayed locked by another program: {detail}."
    cure = "Close what holds a transaction open on the file (a database browser?)."


class StoreReplaced(StoreError):
    code = "P0405"
    text = "{path} was deleted or replaced while in use."
    cure = "Stop all that uses it, put the right file back, and start again."


class StoreCorrupt(StoreError):
    code = "P0406"
    text = "{path} is damaged or is no Perdure store: {detail}."
    cure = "Restore it from a copy, or name another file."


class SchemaFromTheFuture(StoreError):
    code = "P0407"
    text = "{path} has schema {found}; this Perdure knows {known}."
    cure = "Upgrade Perdure on this machine; the file is untouched."


class NetworkFileSystem(StoreError):
    code = "P0408"
    text = "{path} lies on a network file system ({detail}), where SQLite's locks cannot be trusted."
    cure = "Use a local disk, or a PostgreSQL URL for several machines."


class OwnershipLost(StoreError):
    code = "P0409"
    text = "This worker no longer owns {path}: {detail}."
    cure = "Another worker took over; this one stops recording and nothing is recorded twice."


class StoreMissing(StoreError):
    code = "P0410"
    text = "There is no store at {path}."
    cure = "A worker or `perdure run` makes one; or name another with --store or PERDURE_STORE."


# --- P05: executions and messages ---------------------------------------------------------------------------------


class ExecutionNotFound(YourError):
    code = "P0501"
    text = "No execution has the id {execution!r} in namespace {namespace!r}."
    cure = "`perdure ls` lists them."


class ExecutionExists(YourError):
    code = "P0502"
    text = "Execution {execution!r} exists already, for workflow {recorded!r} with other input, not {now!r}."
    cure = "Choose another id, or start it with the same workflow and input to get the running one."


class ExecutionClosed(YourError):
    code = "P0503"
    text = "Execution {execution!r} is closed ({status})."
    cure = "What was sent was not delivered."


class ExecutionStalled(YourError):
    code = "P0504"
    text = "Execution {execution!r} stalled and waits for a fix:\n{problem}"
    cure = "Fix the code, start the worker, then `perdure resume {execution}`."


class EngineClosed(YourError):
    code = "P0505"
    text = "The engine is not running."
    cure = "Use it inside `async with Engine(...)`."


class WaitTimeout(YourError, TimeoutError):
    code = "P0506"
    text = "Execution {execution!r} had no result after {seconds} s; it goes on."
    cure = "Ask again later."


# --- P06: what a workflow or caller sees of a failure ---------------------------------------------------------------


class RemoteFailure(PerdureError):
    """Base of failures that were journaled: `failure` holds type, message, traceback and causes."""

    def __init__(self, *, failure: FailureInfo, **fields: Any) -> None:
        self.failure = failure
        fields |= {"type": failure.type, "message": failure.message}
        super().__init__(failure=failure, **fields)


class StepFailed(RemoteFailure):
    code = "P0601"
    text = "Step {name!r} failed after {attempts} attempt(s): {type}: {message}."
    cure = "Its traceback is in the journal: `perdure show`."


class ExecutionFailed(RemoteFailure):
    code = "P0602"
    text = "Execution {execution!r} failed: {type}: {message}."
    cure = "Its traceback is in the journal: `perdure show {execution}`."


class ExecutionCancelled(PerdureError):
    code = "P0603"
    text = "Execution {execution!r} was cancelled: {reason}."


class ExecutionTerminated(PerdureError):
    code = "P0604"
    text = "Execution {execution!r} was terminated: {reason}."


class MessageNotDelivered(PerdureError):
    code = "P0605"
    text = "The message to execution {receiver!r} was not delivered: {reason}."


class ChildNotStarted(PerdureError):
    code = "P0606"
    text = "Child execution {execution!r} was not started: {reason}."
    cure = "Give the child another id."


class StepTimeout(YourError, TimeoutError):
    code = "P0607"
    text = "The step took longer than its {kind} of {limit_ms} ms."
    cure = "Raise the limit, or make the step heartbeat and go on where it was."


def every_error() -> list[type[PerdureError]]:
    """All error classes that have a code of their own, for the documentation's tests."""
    found: list[type[PerdureError]] = []
    waiting: list[type[PerdureError]] = [PerdureError]
    while waiting:
        kind = waiting.pop()
        waiting.extend(kind.__subclasses__())
        if "code" in vars(kind) and kind is not PerdureError:
            found.append(kind)
    return sorted(found, key=lambda kind: kind.code)
