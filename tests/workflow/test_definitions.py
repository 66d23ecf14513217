"""Steps and workflows as definitions: names, options, methods, what is refused, and what they do outside a workflow."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.workflow.harness import Run, answers, drive, echo, explore, log, replays_alike

from perdure.core.errors import (
    EncodeError,
    InvalidDefinition,
    InvalidId,
    InvalidOption,
    OutsideWorkflow,
    UnsupportedType,
    WrongArguments,
)
from perdure.core.retry import NO_RETRY, Retry
from perdure.workflow import context, messages
from perdure.workflow.definitions import Step, Workflow, step, workflow


def exactly(run: Run) -> Run:
    replays_alike(run)
    return run


@step
async def search(query: str, *, limit: int = 10) -> list[str]:
    """Find pages."""
    return [query] * limit


@step(name="old-name", retry=5, timeout=60, total_timeout=timedelta(minutes=5), heartbeat_timeout=1.5, concurrency=2)
def compute(number: int) -> int:
    return number + 1


class Shop:
    """Steps as methods."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    @step
    async def price(self, number: int) -> int:
        return number * self.factor

    @step(retry=None)
    def count(self) -> int:
        return self.factor


class Negate:
    """An object that can be called."""

    async def __call__(self, number: int) -> int:
        return -number


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_are_given_or_derived_from_the_function() -> None:
    """Without module and `<locals>`: stable when a file moves or runs as a script."""

    @step
    async def inner() -> None: ...

    @workflow
    async def flow() -> None: ...

    assert search.name == "search"
    assert compute.name == "old-name"
    assert Shop.price.name == "Shop.price"
    assert inner.name == "test_names_are_given_or_derived_from_the_function.inner"
    assert flow.name == "test_names_are_given_or_derived_from_the_function.flow"
    assert step(functools.partial(inner.fn)).name == inner.name
    assert step(Negate()).name == "Negate"
    assert workflow(name="flow-1")(flow.fn).name == "flow-1"


def test_definitions_look_like_their_function() -> None:
    assert search.__doc__ == "Find pages."
    assert search.__name__ == "search"
    assert repr(search) == "<step 'search'>"
    assert repr(workflow(name="flow-1")(search.fn)) == "<workflow 'flow-1'>"


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00b", "\ud800", "x" * 201, "é" * 101, 7])
def test_names_that_no_journal_could_hold_for_ever_are_refused(name: Any) -> None:
    async def fn() -> None: ...

    with pytest.raises(InvalidDefinition, match="printable text of 1 to 200 bytes"):
        step(name=name)(fn)
    with pytest.raises(InvalidDefinition, match="@workflow"):
        workflow(name=name)(fn)


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(InvalidDefinition, match="Name it"):
        step(lambda: None)
    assert step(name="constant")(lambda: None).name == "constant"


def test_what_is_no_step_or_workflow_is_refused_with_a_cure() -> None:
    with pytest.raises(InvalidDefinition, match="it cannot be called"):
        step(3)  # type: ignore[arg-type, call-overload]
    with pytest.raises(InvalidDefinition, match="Write `async def`"):

        @workflow
        def not_async() -> None: ...

    with pytest.raises(UnsupportedType, match=r"[Ll]ock"):

        @step
        async def locking(lock: type(threading.Lock())) -> None: ...  # type: ignore[valid-type]


# --- options ---------------------------------------------------------------------------------------------------------


def test_options_are_whole_milliseconds_and_a_policy() -> None:
    options = compute.options
    assert options.retry == Retry(attempts=5)
    assert (options.timeout_ms, options.total_timeout_ms, options.heartbeat_timeout_ms) == (60_000, 300_000, 1_500)
    assert options.concurrency == 2
    assert search.options.retry.attempts == 3
    assert Shop.count.options.retry is NO_RETRY


def test_one_call_may_have_other_options() -> None:
    """The definition itself stays as it is; what is not named stays too."""
    other = compute.with_options(timeout=None, retry=Retry(attempts=9), concurrency=None)
    assert (other.options.timeout_ms, other.options.retry.attempts, other.options.concurrency) == (None, 9, None)
    assert other.options.total_timeout_ms == 300_000
    assert compute.options.timeout_ms == 60_000
    assert other.name == compute.name

    @workflow
    async def flow() -> int:
        return await compute.with_options(timeout=1)(1)

    assert exactly(drive(flow)).value == 2


@pytest.mark.parametrize(
    "options",
    [
        {"retry": "often"},
        {"retry": True},
        {"retry": 0},
        {"timeout": -1},
        {"timeout": 0},
        {"timeout": "1s"},
        {"total_timeout": float("nan")},
        {"heartbeat_timeout": timedelta(0)},
        {"concurrency": 0},
        {"concurrency": True},
        {"concurrency": "3"},
    ],
    ids=str,
)
def test_bad_options_are_refused_when_decorated(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        step(**options)
    with pytest.raises(InvalidOption):
        search.with_options(**options)


# --- calls inside a workflow -----------------------------------------------------------------------------------------


def test_functions_methods_and_callables_are_awaited_alike() -> None:
    """The instance of a method is no part of the recorded input."""

    @workflow
    async def flow() -> list[Any]:
        shop = Shop(7)
        return [
            await search("a", limit=2),
            await compute(1),
            await shop.price(3),
            await shop.count(),
            await step(Negate())(4),
            await step(name="half")(functools.partial(compute.fn, 1))(),
        ]

    for run in explore(flow, seeds=5):
        assert run.value == [["a", "a"], 2, 21, 7, -4, 2]
        assert [told[2] for told in run.issued[:4]] == ["search", "old-name", "Shop.price", "Shop.count"]
    assert isinstance(Shop.price, Step)


def test_equal_calls_have_equal_digests_however_they_are_written() -> None:
    @workflow
    async def flow() -> None:
        await search("a")
        await search(query="a", limit=10)
        await search("b")

    first, second, third = [told[3] for told in drive(flow).issued[:3]]
    assert first == second != third


def test_wrong_arguments_are_refused_before_anything_is_issued() -> None:
    @workflow
    async def flow() -> list[str]:
        found = []
        for call in (search, lambda: search("a", 1), lambda: search(1)):  # type: ignore[call-arg, arg-type]
            try:
                await call()
            except (WrongArguments, EncodeError) as error:
                found.append(type(error).__name__)
        return found

    run = exactly(drive(flow))
    assert run.value == ["WrongArguments", "WrongArguments", "EncodeError"]
    assert len(run.issued) == 1


def test_the_place_of_a_call_is_the_users_line() -> None:
    """Also through `gather`, a task, a helper and a comprehension; never a line of asyncio or of the engine."""

    async def helper() -> None:
        await echo("in helper")

    @workflow
    async def flow() -> None:
        await echo("direct")
        await asyncio.gather(*[echo(n) for n in range(2)])
        await asyncio.create_task(helper())
        await asyncio.wait_for(echo("wait_for"), 5)
        await asyncio.sleep(1)
        asyncio.get_running_loop().call_later(2, log, "called")
        await asyncio.create_task(asyncio.sleep(3))

    run = exactly(drive(flow, script=[[answers("echo")]] * 5, evict=0))
    places = [told[-1] for told in run.issued[:-1]]
    assert places[-1] == ""  # a bare asyncio.sleep as a task: no line of the user's is running
    assert all(place.startswith("test_definitions.py:") for place in places[:-1])
    assert len(set(places)) == len(places) - 2  # wait_for's step and timer share a line, and the two of gather


# --- outside a workflow ----------------------------------------------------------------------------------------------


def test_outside_a_workflow_a_step_just_runs() -> None:
    """Awaited, always; a plain `def` runs in a thread; the function itself is `.fn`."""

    async def main() -> list[Any]:
        return [await search("a", limit=1), await compute(1), await Shop(3).price(2)]

    assert asyncio.run(main()) == [["a"], 2, 6]
    assert compute.fn(1) == 2


def test_outside_a_workflow_its_functions_say_so() -> None:
    @workflow
    async def flow() -> None: ...

    calls: list[Any] = [
        context.now,
        context.random,
        context.uuid4,
        context.info,
        context.current_step,
        lambda: context.external("x"),
        lambda: messages.receive("x").send(None),
        lambda: context.start_child(flow).send(None),
        flow,
    ]
    for call in calls:
        with pytest.raises(OutsideWorkflow, match="was called outside"):
            call()


def test_two_decorators_on_one_function_are_told_which_to_keep() -> None:
    async def fn() -> None: ...

    for outer in (step, workflow):
        with pytest.raises(InvalidDefinition, match=r"it is a step already. Keep @perdure\.step alone"):
            outer(step(fn))  # type: ignore[arg-type]
        with pytest.raises(InvalidDefinition, match=r"it is a workflow already. Keep @perdure\.workflow alone"):
            outer(workflow(fn))  # type: ignore[arg-type]


@pytest.mark.parametrize(("decorator", "kind"), [(step, "step"), (workflow, "workflow")])
def test_a_name_that_is_given_alone_is_told_how_to_give_it(decorator: Any, kind: str) -> None:
    with pytest.raises(InvalidDefinition, match=rf"A name is given as @perdure\.{kind}\(name='search'\)"):
        decorator("search")


def test_a_workflow_that_yields_is_refused() -> None:
    async def yields() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(InvalidDefinition, match="it is a generator"):
        workflow(yields)  # type: ignore[arg-type]


def test_a_step_inside_a_workflow_is_not_an_attempt() -> None:
    """`current_step` means the attempt that runs; workflow code has none."""

    @workflow
    async def flow() -> str:
        try:
            return context.current_step().name
        except OutsideWorkflow:
            return "none"

    assert drive(flow).value == "none"


@pytest.mark.parametrize("bad", ["", "a\nb", "\ud800", " x", "x" * 201])
def test_ids_and_names_that_no_store_would_take_are_refused_where_they_are_used(bad: str) -> None:
    """Models emit such text: the error comes at the call, not in the middle of a commit."""

    @workflow
    async def flow(bad: str) -> int:
        refused = 0
        for ask in (
            lambda: context.external(bad),
            lambda: context.start_child(flow, "", id=bad).send(None),
            lambda: context.external("x-2").signal(bad).send(None),
        ):
            try:
                ask()
            except InvalidId:
                refused += 1
        return refused

    run = exactly(drive(flow, bad))
    assert run.value == 3
    assert len(run.issued) == 1


def test_a_reason_is_stored_whatever_text_it_is() -> None:
    @workflow
    async def flow() -> None:
        await context.external("x-2").cancel("because \ud800")

    run = exactly(drive(flow))
    assert run.issued[0][5] == "because \\ud800"


def test_an_unknown_policy_for_children_is_refused() -> None:
    @workflow
    async def flow() -> str:
        try:
            await context.start_child(flow, on_parent_close="kill")  # type: ignore[arg-type]
        except InvalidOption as error:
            return str(error)
        return "went through"

    assert "on_parent_close='kill'" in drive(flow).value


def test_annotations_may_name_what_is_defined_below() -> None:
    """The codec is then built at first use."""

    @workflow
    async def flow() -> str:
        return (await later("x")).text

    assert exactly(drive(flow)).value == "x"


@step
async def later(text: str) -> Below:
    return Below(text)


import dataclasses  # noqa: E402 - that is the point


@dataclasses.dataclass
class Below:
    text: str


def test_workflows_are_typed_objects_without_a_registry() -> None:
    assert isinstance(workflow(name="x")(search.fn), Workflow)
