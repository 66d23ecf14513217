"""What workflow code says about its own history: begin anew, hand over a state, tell changes of code apart."""

from __future__ import annotations

from typing import Any, Final, NoReturn, TypeVar, overload

from perdure.core.errors import DecodeError, PatchMissing
from perdure.core.identity import checked_id
from perdure.workflow.context import current_execution
from perdure.workflow.location import caller
from perdure.workflow.values import codec_for, encode_untyped

T = TypeVar("T")

SUGGESTED_EVENTS: Final = 10_000
SUGGESTED_BYTES: Final = 20 * 2**20


def continue_as_new(*args: Any, **kwargs: Any) -> NoReturn:
    """End this run and begin the next one of the same execution with these arguments: its journal begins empty.

    It never returns. Messages that were not received go on to the next run, with what `publish` was last given and
    the attributes; open steps and timers are cancelled, children go on. Whoever waits for the result waits for the last
    run's. `other.continue_as_new(...)` goes on as another workflow, and is checked by type checkers.

    Raises:
        WrongArguments, EncodeError: the workflow does not take these arguments; the run goes on.

    Example:
        if perdure.continue_as_new_suggested():
            perdure.continue_as_new(cursor)
    """
    execution = current_execution("continue_as_new")
    raise execution.continue_as(execution.workflow, execution.workflow.input(args, kwargs))


def continue_as_new_suggested() -> bool:
    """Whether the run's journal is long enough to begin a new one: from 10,000 events or 20 MiB of values on.

    Raises:
        OutsideWorkflow: no workflow calls.

    Example:
        if perdure.continue_as_new_suggested():
            perdure.continue_as_new(cursor)
    """
    machine = current_execution("continue_as_new_suggested").machine
    return machine.position >= SUGGESTED_EVENTS or machine.facts.size >= SUGGESTED_BYTES


def snapshot(state: Any) -> NoReturn:
    """Continue as new with the same arguments and this state, which the next run gets from `restored`.

    It never returns: replay begins where the next run does, with what is in the state and nothing else. Call it where
    the workflow is between two pieces of work.

    Raises:
        EncodeError: the state cannot be kept; the run goes on.

    Example:
        state = perdure.restored(State) or State()
        while True:
            state.seen.append(await look())
            if perdure.continue_as_new_suggested():
                perdure.snapshot(state)
    """
    execution = current_execution("snapshot")
    started = execution.machine.facts.started
    assert started is not None
    raise execution.continue_as(execution.workflow, started.input, encode_untyped(state, "the snapshot"))


@overload
def restored() -> Any: ...
@overload
def restored(type_: type[T], /) -> T | None: ...
def restored(type_: Any = Any, /) -> Any:
    """What the run before handed over with `snapshot`; None if there was none.

    Args:
        type_: what it is decoded as; by default plain data.

    Raises:
        DecodeError: it does not fit the type: the run stalls.
        OutsideWorkflow: no workflow calls.

    Example:
        state = perdure.restored(State) or State()
    """
    execution = current_execution("restored")
    if execution.snapshot is None:
        return None
    try:
        return codec_for(type_, "the snapshot").decode(execution.snapshot, "the snapshot")
    except DecodeError as error:
        execution.problem = error  # not the workflow's failure: code that reads it is to be brought
        raise


# --- changes of code ---


def patched(name: str) -> bool:
    """Whether this run goes the new way of a change: true unless it was recorded beyond this point by older code.

    The same answer for a name during a whole run, however often and wherever it is asked. Give each change a name of
    its own. Once no run is open that goes the old way, put `deprecate_patch` in its place.

    Example:
        if perdure.patched("check stock first"):
            await check_stock(order)
        await charge(order)
    """
    checked_id(name, "patch name")
    machine = current_execution("patched").machine
    return machine.facts.patches.ask(name, machine.next_seq)


def deprecate_patch(name: str) -> None:
    """Says that only the new way of a change is left: runs that go the old way stall, and say so.

    It writes nothing. Remove it when no run is open that began before the change.

    Args:
        name: of the change, as `patched` had it.

    Raises:
        PatchMissing: this run goes the old way: it stalls.
        InvalidId: it cannot be a name.
        OutsideWorkflow: no workflow calls.

    Example:
        perdure.deprecate_patch("check stock first")
        await check_stock(order)
        await charge(order)
    """
    checked_id(name, "patch name")
    execution = current_execution("deprecate_patch")
    machine = execution.machine
    if not machine.facts.patches.has(name, machine.next_seq):
        execution.problem = PatchMissing(name=name, where=caller())
        raise execution.problem


def workflow_version() -> str:
    """What `@workflow(version=...)` said when this run began; empty if it said nothing.

    Raises:
        OutsideWorkflow: no workflow calls.

    Example:
        if perdure.workflow_version() == "1":
            await notify_by_letter(order)
    """
    started = current_execution("workflow_version").machine.facts.started
    return "" if started is None else started.version
