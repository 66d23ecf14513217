"""P01: the code does not agree with the journal, or leaves the deterministic world. P02: values."""

from __future__ import annotations

from perdure.core.errors.base import TheirError, YourError


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
        "Bring back the code that wrote this journal, or put the change behind perdure.patched; then `perdure resume`. "
        "Nothing is lost: the journal is untouched."
    )


class CorruptJournal(TheirError):
    """An event does not decode, has a wrong checksum, is missing, or can follow in no code. Fields: detail."""

    code = "P0102"
    text = "The journal is damaged: {detail}."
    cure = "Nothing was written. Restore the store from a copy, or terminate this execution."


class JournalFromTheFuture(TheirError):
    """A newer Perdure wrote this; it is refused, not guessed. Fields: found, known."""

    code = "P0103"
    text = "This was written in format {found}; this Perdure reads formats up to {known}."
    cure = "Upgrade Perdure on this machine; nothing was written."


class SpinError(YourError):
    """The workflow goes round without asking for anything that can happen. Fields: handles, stack."""

    code = "P0104"
    text = "The workflow ran {handles} callbacks without waiting for anything that can happen.\n{stack}\n"
    cure = "Await a step, a timer (asyncio.sleep above 0) or a message inside the loop."


class DeadlockError(YourError):
    """Every task of the workflow waits, and nothing is open that could wake one. Fields: stack."""

    code = "P0105"
    text = "The workflow waits, but nothing is open that could wake it.\n{stack}\n"
    cure = "Something awaits a future, event or queue that no task of this workflow will set."


class NotDeterministic(YourError):
    """Workflow code asked for the outside world. Fields: what, where, fix."""

    code = "P0106"
    text = "{what} is not allowed inside a workflow ({where})."
    cure = "{fix} Then `perdure resume`."


class Evicted(BaseException):
    """Raised at every engine call of a coroutine that is being closed to free its memory: let it pass."""


class StalledByBug(TheirError):
    """Running the workflow raised what nothing expects. Fields: failure."""

    code = "P0107"
    text = "Running the workflow failed in an unexpected way: {failure.type}: {failure.message}\n{failure.traceback}"
    cure = "Nothing is lost. Fix the cause and `perdure resume`; if it is Perdure's own fault, please report it."


class PoisonedExecution(YourError):
    """The worker's process died each time this execution ran. Fields: steps."""

    code = "P0108"
    text = "The worker died each time this execution ran, even alone; these steps were open: {steps}."
    cure = "Find out why (memory? a crash in native code?), then `perdure resume`."


class UnorderedSet(YourError):
    """A set whose order is a matter of memory addresses was given where order decides. Fields: what, kind, where."""

    code = "P0109"
    text = "{what} was given a set of {kind}, which iterates by memory address: another order on replay ({where})."
    cure = "Pass a list or a tuple (sets of tasks are fine), then `perdure resume`."


class EncodeError(YourError):
    """A value is no data of its annotated type. Fields: what, path, reason, expected."""

    code = "P0201"
    text = "{what} cannot be encoded: {path} {reason}."
    cure = "Nothing was recorded. Pass data of the annotated type: {expected}."


class DecodeError(YourError):
    """A recorded value does not fit the type of today. Fields: what, expected, reason."""

    code = "P0202"
    text = "{what} cannot be decoded as {expected}: {reason}."
    cure = "Make the type accept what was recorded (a default, a wider type), then `perdure resume`."


class UnsupportedType(YourError):
    """An annotation names a type that cannot be encoded: raised when decorated. Fields: what, type."""

    code = "P0203"
    text = "{what} has type {type}, which neither msgspec nor pydantic can encode."
    cure = "Use dataclasses, msgspec or pydantic models, attrs, builtins, or install pydantic."


class PayloadTooLarge(YourError):
    """An encoded value is above the limit. Fields: what, size, limit."""

    code = "P0204"
    text = "{what} takes {size} bytes encoded; the limit is {limit}."
    cure = "Keep large data outside (a file, a bucket) and pass its name."


class UnencodableResult(YourError):
    """A step ran, but what it returned cannot be recorded: never a reason to run it again by itself.

    Fields: name, location, reason, value.
    """

    code = "P0205"
    text = "Step {name!r} at {location} ran, but {reason}\nThe result was: {value}\n"
    cure = "Return data of the annotated type. After the fix, `perdure resume` runs the step again."


class KeyMissing(YourError):
    """A value is encrypted, or would have to be, with a key that this process does not have. Fields: what, key."""

    code = "P0206"
    text = "{what}: encrypted with key {key!r}, which is not here."
    cure = "Give this process a codec that has the key: what stalled for it goes on when an engine with it starts."


class SecretInClear(EncodeError):
    """A `Secret` is about to be recorded where nothing encrypts. Fields: what, path, reason, expected."""

    code = "P0207"
    text = "{what} cannot be encoded: {path} {reason}."
    cure = "Nothing was recorded. Give engine and client a codec that encrypts: Engine(..., codec=...)."


class UndefinedName(UnsupportedType):
    """An annotation names what is not defined when it is needed. Fields: what, problem."""

    code = "P0208"
    text = "{what} has an annotation that cannot be read: {problem}."
    cure = "Define that name, or import it outside of `if TYPE_CHECKING:`."


class CryptographyMissing(YourError, ImportError):
    """A `KeyRing` needs cryptography. Fields: detail."""

    code = "P0209"
    text = "perdure.encryption.KeyRing needs cryptography: {detail}."
    cure = "Install it: pip install 'cryptography>=44'."
