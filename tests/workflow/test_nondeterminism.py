"""Changed code against an old journal: each kind of change is found, and explained so that a person can act."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from tests.workflow.harness import Run, begins, child_ends, delivers, drive, fires, fresh, replay

from perdure.core import events as ev
from perdure.core.errors import CorruptJournal, NondeterminismError
from perdure.workflow import context, messages
from perdure.workflow.definitions import Workflow, step, workflow

Code = Callable[[], Coroutine[Any, Any, Any]]


@step
async def a(value: Any = 0) -> Any:
    return value


@step
async def b(value: Any = 0) -> Any:
    return value


@step(name="b2")
async def b_renamed(value: Any = 0) -> Any:
    return value


@workflow
async def child(value: Any) -> Any:
    return value


@workflow(name="child2")
async def child_renamed(value: Any) -> Any:
    return value


def made(fn: Code) -> Workflow[[], Any]:
    """A workflow that is always named the same, whatever its code."""
    return Workflow(fn, name="research")


def recorded(fn: Code, **options: Any) -> Run:
    run = drive(made(fn), evict=0, flaky=0, **options)
    assert run.outcome[0] in {"completed", "failed"}, run.outcome
    return run


def complaint(before: Code, after: Code, **options: Any) -> dict[str, str]:
    """The fields of the error that the new code meets with the old code's journal; and its message is whole."""
    run = recorded(before, **options)
    with pytest.raises(NondeterminismError) as caught:
        replay(made(after), run.journal).take()
    message = str(caught.value)
    for word in ("recorded:", "now:", "where:", "likely:", "Bring back the code", "P0101"):
        assert word in message
    return {key: str(value) for key, value in caught.value.fields.items()}


def line_of(fn: Code, text: str) -> str:
    """`file:line` of the first line of a function that holds this text."""
    lines, first = inspect.getsourcelines(fn)
    return f"test_nondeterminism.py:{next(first + n for n, line in enumerate(lines) if text in line)}"


def test_a_reordered_step() -> None:
    async def before() -> None:
        await asyncio.gather(a(1), b(2))

    async def after() -> None:
        await asyncio.gather(b(2), a(1))

    fields = complaint(before, after)
    assert fields["position"] == "2"
    assert fields["recorded"].endswith(f"at {line_of(before, 'gather')} (StepCompleted)")
    assert fields["where"] == line_of(after, "gather")
    assert "the order has changed" in fields["cause"]


def test_a_reordered_step_in_a_sequence() -> None:
    async def before() -> None:
        await a(1)
        await b(2)

    async def after() -> None:
        await b(2)
        await a(1)

    fields = complaint(before, after)
    assert fields["recorded"] == f"#1 step 'a' at {line_of(before, 'await a')} (StepCompleted)"
    assert fields["now"] == f"#1 step 'b' at {line_of(after, 'await b')}"
    assert fields["where"] == line_of(after, "await b")
    assert "their order has changed" in fields["cause"]


def test_a_renamed_child_workflow() -> None:
    async def before() -> Any:
        return await child(1)

    async def after() -> Any:
        return await child_renamed(1)

    fields = complaint(before, after)
    assert "'child' was removed or renamed, or 'child2' was added before it" in fields["cause"]


def test_a_renamed_step() -> None:
    """The same line calls another name: the message says how to keep the recorded one."""

    def code(second: Any) -> Code:
        async def research() -> None:
            await a(1)
            await second(2)

        return research

    fields = complaint(code(b), code(b_renamed))
    assert "'b' was renamed to 'b2'" in fields["cause"]
    assert "name='b' keeps the name" in fields["cause"]


def test_a_removed_timer() -> None:
    async def before() -> None:
        await a(1)
        await asyncio.sleep(5)
        await b(2)

    async def after() -> None:
        await a(1)
        await b(2)

    fields = complaint(before, after)
    assert fields["recorded"] == "#2 a timer (TimerFired)"
    assert fields["now"] == f"#2 step 'b' at {line_of(after, 'await b')}"
    assert "a timer was removed before this point" in fields["cause"]


def test_an_added_timer() -> None:
    async def before() -> None:
        await a(1)

    async def after() -> None:
        await asyncio.sleep(5)
        await a(1)

    fields = complaint(before, after)
    assert fields["now"] == f"#1 a timer at {line_of(after, 'sleep')}"
    assert "a timer was added" in fields["cause"]


def test_an_added_step() -> None:
    async def before() -> None:
        await a(1)
        await a(3)

    async def after() -> None:
        await a(1)
        await b(2)
        await a(3)

    fields = complaint(before, after)
    assert fields["where"] == line_of(after, "await b")
    assert "'b' was added before it" in fields["cause"]


def test_a_changed_argument_under_the_same_code_is_an_error_that_shows_both() -> None:
    """What depends on something outside the journal is named, with the arguments as far as they were kept."""
    outside = ["monday"]

    async def code() -> None:
        await a({"day": outside[0]})

    def keep_input(run: Run) -> list[ev.Recorded]:
        event = run.journal[2].event
        assert isinstance(event, ev.StepCompleted)
        first = fresh(made(code))
        for each in run.journal[:2]:
            first.feed(each)
        ((command,), _) = first.take()
        first.evict()
        kept = msgspec.structs.replace(event, preview=command.input)  # type: ignore[union-attr]
        return [*run.journal[:2], msgspec.structs.replace(run.journal[2], event=kept)]

    run = recorded(code)
    bare, shown = run.journal[:3], keep_input(run)
    outside[0] = "tuesday"
    for journal in (bare, shown):
        with pytest.raises(NondeterminismError, match="outside the journal") as caught:
            replay(made(code), journal)
        fields = caught.value.fields
        assert "input digest" in fields["recorded"]
        assert fields["where"] == line_of(code, "await a")
        assert ("monday" in fields["recorded"]) == (journal is shown)
        assert ("tuesday" in fields["now"]) == (journal is shown)


def gives(outside: list[str]) -> dict[str, Code]:
    """Code that passes something from outside the journal on: to a child, and to another execution."""

    async def to_a_child() -> None:
        await context.start_child(child, {"day": outside[0]}, on_parent_close="abandon")

    async def in_a_message() -> None:
        await context.external("x-2").signal("go", {"day": outside[0]})

    return {"a child": to_a_child, "a message": in_a_message}


@pytest.mark.parametrize("to", ["a child", "a message"])
def test_other_values_for_a_child_or_message_under_the_same_code_are_an_error_that_shows_both(to: str) -> None:
    outside = ["monday"]
    code = gives(outside)[to]
    run = recorded(code)
    assert replay(made(code), run.journal).is_closed
    outside[0] = "tuesday"
    with pytest.raises(NondeterminismError, match="outside the journal") as caught:
        replay(made(code), run.journal)
    fields = caught.value.fields
    assert "monday" in fields["recorded"]
    assert "tuesday" in fields["now"]
    assert "input digest" in fields["now"]
    assert fields["where"] == line_of(code, "await context")


@pytest.mark.parametrize("to", ["a child", "a message"])
def test_other_values_for_a_child_or_message_under_other_code_are_only_a_drift(to: str) -> None:
    outside = ["monday"]
    code = gives(outside)[to]
    run = recorded(code)
    outside[0] = "tuesday"
    execution = fresh(made(code), fingerprint="code-2")
    for each in run.journal:
        execution.feed(each)
    assert execution.is_closed
    (drift,) = execution.machine.drifts
    assert ("child" if to == "a child" else "signal 'go'") in drift
    assert line_of(code, "await context") in drift
    execution.evict()


@pytest.mark.parametrize("to", ["a child", "a message"])
def test_the_order_of_a_maps_keys_is_no_other_value(to: str) -> None:
    outside = [{"a": 1, "b": 2}]
    code = gives(outside)[to]  # type: ignore[arg-type]
    run = recorded(code)
    outside[0] = {"b": 2, "a": 1}
    assert replay(made(code), run.journal).is_closed


def test_a_changed_argument_under_other_code_is_only_a_drift() -> None:
    """A new default must not stall a deploy: it is noted, and the recorded result is used."""

    async def before() -> Any:
        return await a({"limit": 10})

    async def after() -> Any:
        return await a({"limit": 20})

    run = recorded(before)
    execution = fresh(made(after), fingerprint="code-2")
    for each in run.journal:
        execution.feed(each)
    assert execution.is_closed
    (drift,) = execution.machine.drifts
    assert "step 'a'" in drift
    assert line_of(after, "await a") in drift
    execution.evict()


def test_a_digest_that_was_not_recorded_is_not_compared() -> None:
    async def code() -> Any:
        return await a(1)

    run = recorded(code)
    event = msgspec.structs.replace(run.journal[2].event, digest=b"")
    journal = [*run.journal[:2], msgspec.structs.replace(run.journal[2], event=event), *run.journal[3:]]
    assert replay(made(code), journal).is_closed


def test_a_workflow_shorter_than_its_journal() -> None:
    async def before() -> None:
        await a(1)
        await b(2)

    async def after() -> None:
        await a(1)

    fields = complaint(before, after)
    assert fields["recorded"].startswith("#2 step 'b'")
    assert fields["now"] == "#2 the end of the workflow: it returned"
    assert fields["where"] == "the end of the workflow"
    assert "shorter than its journal" in fields["cause"]


def test_a_workflow_that_lost_two_steps_says_so_too() -> None:
    """The recorded number was not even given out."""

    async def before() -> None:
        await asyncio.gather(a(1), a(2), b(3))

    async def after() -> None:
        return None

    run = recorded(before, seed=3)
    journal = [*run.journal[:2], next(r for r in run.journal if getattr(r.event, "name", "") == "b")]
    journal[2] = msgspec.structs.replace(journal[2], position=2)
    with pytest.raises(NondeterminismError, match="shorter than its journal") as caught:
        replay(made(after), journal)
    assert "the end of the workflow: it returned" in caught.value.fields["now"]


def test_a_workflow_that_raises_where_it_went_on() -> None:
    """The exception is in the message: it is what the person needs."""

    async def before() -> None:
        await a(1)
        await b(2)

    async def after() -> None:
        raise KeyError(await a("1"[0:0] or 1))

    fields = complaint(before, after)
    assert fields["now"] == "#2 the end of the workflow: KeyError: 1"
    assert "the code raises KeyError where it went on" in fields["cause"]


def test_a_workflow_longer_than_its_journal() -> None:
    async def before() -> None:
        await a(1)

    async def after() -> None:
        await a(1)
        await b(2)

    fields = complaint(before, after)
    assert fields["recorded"] == "the end of the workflow: it returned (ExecutionCompleted)"
    assert fields["now"] == f"waiting for #2 step 'b' at {line_of(after, 'await b')}"
    assert fields["where"] == line_of(after, "await b")
    assert "longer than its journal" in fields["cause"]


def test_a_workflow_that_ends_otherwise() -> None:
    async def before() -> None:
        await a(1)

    async def fails() -> None:
        raise ValueError(await a(1))

    fields = complaint(before, fails)
    assert fields["now"] == "#2 the end of the workflow: ValueError: 1"
    assert "ends otherwise than it was recorded: ValueError: 1" in fields["cause"]
    fields = complaint(fails, before)
    assert fields["recorded"] == "the end of the workflow: ValueError: 1 (ExecutionFailed)"
    assert "it returned" in fields["cause"]


def test_code_that_has_not_come_as_far() -> None:
    """It waits for something that was not there: all it waits for is listed, up to a bound."""

    async def before() -> None:
        for number in range(3):
            await a(number)

    async def after() -> None:
        await a(0)
        await asyncio.wait([asyncio.create_task(messages.receive(str(n), timeout=5)) for n in range(8)])

    async def waits_for_a_message() -> None:
        await messages.receive("go")

    run = recorded(before)
    journal = [*run.journal[:3], msgspec.structs.replace(run.journal[4], position=3)]
    far = msgspec.structs.replace(journal[3], event=msgspec.structs.replace(journal[3].event, seq=99))
    with pytest.raises(NondeterminismError, match="has not come as far") as caught:
        replay(made(after), [*journal[:3], far])
    assert "and 3 more" in caught.value.fields["now"]
    with pytest.raises(NondeterminismError, match="has not come as far") as caught:
        replay(made(waits_for_a_message), run.journal[:3])
    assert "waits for no step" in caught.value.fields["now"]


def test_another_child() -> None:
    async def before() -> None:
        await context.start_child(child, 1, id="first")

    async def after() -> None:
        await context.start_child(child, 1, id="second")

    fields = complaint(before, after)
    assert fields["recorded"].startswith("#1 child 'child', id 'first' at test_nondeterminism.py:")
    assert "id 'second'" in fields["now"]
    assert "this child was added, removed or reordered" in fields["cause"]


def test_a_child_in_place_of_a_step_and_the_other_way_round() -> None:
    async def before() -> None:
        await child(1)

    async def after() -> None:
        await a(1)

    assert "a child was removed before this point" in complaint(before, after)["cause"]
    assert "a step was removed before this point" in complaint(after, before)["cause"]


def test_another_message() -> None:
    async def before() -> None:
        await context.external("x-2").signal("go", 1)

    async def after() -> None:
        await context.external("x-2").signal("stop", 1)

    async def cancels() -> None:
        await context.external("x-2").cancel("enough")

    fields = complaint(before, after)
    assert fields["recorded"].startswith("#1 signal 'go' to 'x-2' at ")
    assert fields["now"].startswith("#1 signal 'stop' to 'x-2' at ")
    fields = complaint(before, cancels)
    assert fields["now"].startswith("#1 a cancel request to 'x-2' at ")


def test_answers_are_told_apart_too() -> None:
    """Where the event itself tells little, its kind does: the end of a child, a delivery."""

    async def with_child() -> None:
        handle = await context.start_child(child, 1)
        await handle.result()

    async def with_message() -> None:
        await context.external("x-2").signal("go")

    async def steps() -> None:
        await a(1)

    ends = recorded(with_child, script=[[begins()], [child_ends(value=1)]]).journal[3]
    refused = recorded(failing_child, script=[[begins()], [child_ends("refused")]]).journal[3]
    delivered = recorded(with_message, script=[[begins()], [delivers()]]).journal[3]
    first = recorded(steps, script=[]).journal[:2]
    texts = []
    for event in (ends, refused, delivered):
        with pytest.raises(NondeterminismError) as caught:
            replay(made(steps), [*first, msgspec.structs.replace(event, position=2)])
        texts.append(caught.value.fields["recorded"])
    assert texts[0].startswith("#1 a child, id '")
    assert texts[1:] == ["#1 a child (ChildStartFailed)", "#1 a message (MessageDelivered)"]


async def failing_child() -> None:
    handle = await context.start_child(child, 1)
    try:
        await handle.result()
    except Exception as error:
        raise RuntimeError from error


def test_a_journal_with_a_hole_is_damaged_and_not_nondeterministic() -> None:
    async def code() -> None:
        await a(1)
        await b(2)

    run = recorded(code)
    with pytest.raises(CorruptJournal, match="event 3 stands where 2 should"):
        replay(made(code), [*run.journal[:2], *run.journal[3:]])
    twice = [*run.journal[:3], msgspec.structs.replace(run.journal[2], position=3)]
    with pytest.raises(CorruptJournal, match="answers command 1 a second time"):
        replay(made(code), twice)


def test_the_message_as_a_whole_reads_well() -> None:
    """Pinned, so that whoever changes it looks at it."""

    async def before() -> None:
        await asyncio.sleep(1)
        await a(1)

    async def after() -> None:
        await b(2)

    run = recorded(before, script=[[fires()]])
    with pytest.raises(NondeterminismError) as caught:
        replay(made(after), run.journal)
    assert str(caught.value) == (
        "The journal and the code disagree at event 2.\n"
        "  recorded: #1 a timer (TimerFired)\n"
        f"  now:      #1 step 'b' at {line_of(after, 'await b')}\n"
        f"  where:    {line_of(after, 'await b')}\n"
        "  likely:   a timer was removed before this point, or a step was added: what follows has other numbers\n"
        "Bring back the code that wrote this journal, or put the change behind perdure.patched; then `perdure resume`. "
        "Nothing is lost: the journal is untouched. [P0101: perdure explain P0101]"
    )
