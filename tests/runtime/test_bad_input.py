"""Bad input over a real store: each a clear error, and nothing that one caller sends can stop the engine for others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.runtime.conftest import Lab, kinds, status, until

import perdure
from perdure import Retry, step, workflow
from perdure.core import events as ev
from perdure.core.errors import (
    DecodeError,
    DuplicateName,
    EncodeError,
    InvalidDefinition,
    InvalidId,
    InvalidOption,
    PayloadTooLarge,
    UnsupportedType,
    WrongArguments,
)
from perdure.runtime import driver, loading
from perdure.store.memory import MemoryStore
from perdure.workflow.execution import Execution

HOSTILE = ["\ud800", "a\x00b", "x\ny", "\x1b[2J", "\u202etxt"]


@step
async def identity(value: Any) -> Any:
    return value


@workflow
async def plain(value: dict[str, list[int]]) -> dict[str, list[int]]:
    return value


@workflow
async def listens() -> Any:
    return await perdure.receive("go")


@workflow
async def returns(kind: str) -> list[int]:
    return ["not a number"] if kind == "text" else [object()]  # type: ignore[list-item]


# --- values ---


async def test_arguments_that_do_not_fit_are_refused_with_their_path_and_nothing_starts(lab: Lab) -> None:
    async with lab.engine(plain) as engine:
        with pytest.raises(EncodeError, match=r"\$.*a.*\[1\]"):
            await engine.start(plain, {"a": [1, "two"]}, id="x")  # type: ignore[list-item]
        with pytest.raises(WrongArguments, match="missing"):
            await engine.start(plain, id="x")  # type: ignore[call-arg]
        with pytest.raises(WrongArguments):
            await engine.start(plain, {}, id="x", other=1)  # type: ignore[call-arg]
        assert await engine.list() == []


async def test_step_arguments_that_cannot_be_encoded_are_refused_before_the_step_runs(lab: Lab) -> None:
    @workflow(name="passes")
    async def passes() -> str:
        try:
            await identity({"deep": [1, object()]})
        except EncodeError as error:
            return str(error)
        return ""

    async with lab.engine(passes) as engine:
        handle = await engine.start(passes)
        told = await handle.result(timeout=30)
        assert "$" in told
        assert "deep" in told
        assert kinds(await handle.journal()) == ["ExecutionStarted", "ExecutionClaimed", "ExecutionCompleted"]


async def test_a_workflows_result_that_does_not_fit_its_annotation_stalls_with_its_path(lab: Lab) -> None:
    async with lab.engine(returns) as engine:
        for kind in ("text", "object"):
            with pytest.raises(perdure.ExecutionStalled, match=r"\$\[0\]"):
                await (await engine.start(returns, kind)).result(timeout=30)


async def test_input_that_the_code_can_no_longer_decode_stalls_with_its_path(lab: Lab) -> None:
    @workflow(name="changes")
    async def before(value: dict[str, Any]) -> None: ...

    @workflow(name="changes")
    async def after(value: dict[str, int]) -> None: ...

    async with lab.client() as client:
        await client.start(before, {"a": {"b": 1}}, id="c")
    async with lab.engine(after) as engine:
        with pytest.raises(perdure.ExecutionStalled, match="P0202"):
            await engine.handle("c").result(timeout=30)
    async with lab.engine(before) as engine:
        await engine.handle("c").resume()
        assert await engine.handle("c").result(timeout=30) is None


async def test_a_result_that_the_caller_cannot_decode_says_so(lab: Lab) -> None:
    @workflow(name="plain")
    async def wants_text(value: dict[str, list[int]]) -> str:
        return ""

    async with lab.engine(plain) as engine:
        handle = await engine.start(plain, {"a": [1]}, id="p")
        await handle.result(timeout=30)
        with pytest.raises(DecodeError, match="the result of execution 'p'"):
            await engine.handle("p", wants_text).result()


async def test_a_payload_over_the_limit_is_refused_where_it_is_passed(lab: Lab) -> None:
    huge = b"x" * (64 * 2**20 + 1)

    @step(name="grows")
    async def grows() -> bytes:
        return huge

    @workflow(name="huge")
    async def uses() -> bytes:
        return await grows()

    async with lab.engine(uses, listens) as engine:
        handle = await engine.start(listens)
        with pytest.raises(PayloadTooLarge, match="the limit is"):
            await handle.signal("go", huge)
        await handle.signal("go", 1)
        assert await handle.result(timeout=30) == 1
        with pytest.raises(perdure.ExecutionStalled, match="P0205"):
            await (await engine.start(uses)).result(timeout=40)


# --- definitions and options ---


class Bare:
    async def run(self) -> None: ...


@pytest.mark.parametrize("given", [identity, plain, Bare, "identity", None], ids=repr)
def test_workflows_that_are_no_list_are_told_to_be_one(lab: Lab, given: Any) -> None:
    with pytest.raises(InvalidOption, match=r"Option workflows=.* Expected a list of workflows\."):
        perdure.Engine(lab.path, workflows=given)


async def test_a_reason_that_is_no_text_is_refused(lab: Lab) -> None:
    async with lab.engine() as engine:
        handle: Any = engine.handle("any")
        for ask in (handle.cancel, handle.terminate, handle.pause):
            with pytest.raises(InvalidOption, match="Option reason=3"):
                await ask(3)


@pytest.mark.parametrize("url", ["postgresql://user:secret@host/db", "sqlite:///perdure.db"])
def test_a_store_that_is_a_url_is_refused_and_makes_no_file(url: str) -> None:
    with pytest.raises(InvalidOption, match="Expected the path of a SQLite file") as caught:
        perdure.run(plain, {}, store=url)
    assert "secret" not in str(caught.value)


async def test_what_is_no_workflow_is_refused_by_name(lab: Lab) -> None:
    with pytest.raises(InvalidDefinition, match="async def"):
        workflow(lambda: 1)  # type: ignore[arg-type,return-value]
    async with lab.engine() as engine:
        with pytest.raises(InvalidDefinition, match="'identity' is no valid workflow: it is a step"):
            await engine.start(identity)  # type: ignore[arg-type]
        with pytest.raises(InvalidDefinition, match="it is text"):
            await engine.start("identity")  # type: ignore[arg-type]
        with pytest.raises(InvalidDefinition, match="was not decorated"):
            engine.handle("any", Bare)  # a type checker cannot tell it from a decorated class
        with pytest.raises(InvalidDefinition, match="was not decorated"):
            await engine.signal_with_start(Bare, id="any", signal="go")
        with pytest.raises(InvalidDefinition, match="was not decorated"):
            await engine.fork("any", workflow=Bare)

        @workflow
        async def starts_it() -> None:
            await perdure.start_child(Bare)

        with pytest.raises(perdure.ExecutionFailed, match="was not decorated"):
            await (await engine.start(starts_it)).result()
    with pytest.raises(InvalidDefinition, match="was not decorated"):
        perdure.Engine(lab.path, workflows=[plain.fn])  # type: ignore[list-item]


async def test_two_workflows_of_one_name_are_refused_with_both_places(lab: Lab) -> None:
    @workflow(name="plain")
    async def twin() -> None: ...

    with pytest.raises(DuplicateName, match=r"test_bad_input:\d+ and .*test_bad_input:\d+"):
        perdure.Engine(lab.path, workflows=[plain, twin])
    async with lab.engine(plain) as engine:
        with pytest.raises(DuplicateName):
            await engine.start(twin)


@pytest.mark.parametrize(
    ("option", "make"),
    [
        ("timeout", lambda: step(timeout=-1)),
        ("maximum", lambda: Retry(maximum=float("inf"))),
        ("total_timeout", lambda: step(total_timeout=float("nan"))),
        ("heartbeat_timeout", lambda: step(heartbeat_timeout="5")),  # type: ignore[call-overload]
        ("concurrency", lambda: step(concurrency=0)),
        ("retry", lambda: step(retry="often")),  # type: ignore[call-overload]
        ("attempts", lambda: step(retry=0)),
        ("delay", lambda: Retry(delay=-1)),
        ("jitter", lambda: Retry(jitter=2)),
        ("factor", lambda: Retry(factor=0.5)),
        ("shutdown_timeout", lambda: perdure.Engine("x.db", shutdown_timeout=-1)),
        ("max_active", lambda: perdure.Engine("x.db", max_active=0)),
        ("max_steps", lambda: perdure.Engine("x.db", max_steps=0)),
        ("step_threads", lambda: perdure.Engine("x.db", step_threads=0)),
        ("cache", lambda: perdure.Engine("x.db", cache=-1)),
    ],
)
def test_an_option_out_of_range_is_named_with_what_is_expected(option: str, make: Callable[[], Any]) -> None:
    with pytest.raises(InvalidOption, match=f"Option {option}=.*Expected"):
        make()


def test_a_type_that_cannot_be_encoded_is_refused_at_import_by_name() -> None:
    with pytest.raises(UnsupportedType, match="Lab"):

        @step
        async def takes(lab: Lab) -> None: ...


async def test_negative_timeouts_are_refused_where_they_are_given(lab: Lab) -> None:
    @workflow(name="negative")
    async def negative() -> str:
        try:
            await perdure.receive("x", timeout=-1)
        except InvalidOption as error:
            return str(error)
        return ""

    async with lab.engine(negative) as engine:
        handle = await engine.start(negative)
        assert "timeout=-1" in await handle.result(timeout=30)
        with pytest.raises(InvalidOption, match="timeout=-1"):
            await handle.result(timeout=-1)


# --- ids and texts from outside ---


@pytest.mark.parametrize("bad", ["", "x" * 201, " a", 5, *HOSTILE])
async def test_ids_that_are_empty_too_long_or_hostile_are_refused(lab: Lab, bad: Any) -> None:
    async with lab.engine(listens) as engine:
        with pytest.raises(InvalidId):
            await engine.start(listens, id=bad)
        with pytest.raises(InvalidId):
            engine.handle(bad)
        handle = await engine.start(listens, id="good")
        with pytest.raises(InvalidId):
            await handle.signal(bad)
        with pytest.raises(InvalidId):
            await handle.signal("go", id=bad)
        await handle.signal("go", "still works")
        assert await handle.result(timeout=30) == "still works"


@pytest.mark.parametrize("bad", HOSTILE)
async def test_hostile_reasons_do_no_harm(lab: Lab, bad: str) -> None:
    async with lab.engine(listens) as engine:
        for index, end in enumerate(("cancel", "terminate")):
            handle = await engine.start(listens, id=f"h{index}")
            await status(handle, "parked")
            await getattr(handle, end)(bad)
            with pytest.raises((perdure.ExecutionCancelled, perdure.ExecutionTerminated)):
                await handle.result(timeout=30)
        assert engine.failure is None


@pytest.mark.parametrize("bad", ["", "x" * 201, *HOSTILE])
async def test_hostile_ids_and_names_inside_a_workflow_are_its_own_error(lab: Lab, bad: str) -> None:
    @workflow(name="careless")
    async def careless() -> list[str]:
        found = []
        for call in (
            lambda: perdure.start_child(listens, id=bad),
            lambda: perdure.external(bad).signal("go"),
            lambda: perdure.external("friend").signal(bad),
        ):
            try:
                await call()  # type: ignore[operator]
            except InvalidId:
                found.append("refused")
        return found

    async with lab.engine(careless, listens) as engine:
        await engine.start(listens, id="friend")
        assert await (await engine.start(careless)).result(timeout=30) == ["refused"] * 3
        assert engine.failure is None


@pytest.mark.parametrize("bad", HOSTILE)
async def test_hostile_signal_names_and_errors_inside_a_workflow_stay_there(lab: Lab, bad: str) -> None:
    @workflow(name="odd")
    async def odd() -> None:
        try:
            await perdure.receive(bad, timeout=1.5)
        except (TimeoutError, InvalidId):
            raise ValueError(bad) from None

    async with lab.engine(odd, listens) as engine:
        handle = await engine.start(odd)
        with pytest.raises(perdure.ExecutionFailed):
            await handle.result(timeout=30)
        assert engine.failure is None


async def test_hostile_text_in_a_steps_error_and_result_round_trips_or_is_escaped(lab: Lab) -> None:
    @step(name="hostile", retry=None)
    async def hostile() -> None:
        raise ValueError("\ud800" + "x" * 100_000)

    @workflow(name="meets")
    async def meets() -> str:
        try:
            await hostile()
        except perdure.StepFailed as error:
            return await identity("\udfff" + error.failure.message[:5])
        return ""

    async with lab.engine(meets) as engine:
        assert (await (await engine.start(meets)).result(timeout=30)).startswith("\udfff")


# --- damaged and foreign journals ---


def damage(path: Path, statement: str) -> None:
    connection = apsw.Connection(str(path))
    try:
        connection.execute(statement)
    finally:
        connection.close()


DAMAGE = {
    "a truncated row": ("UPDATE event SET body = substr(body, 1, length(body) - 3) WHERE position = 1", "P0102"),
    "a flipped bit": (
        "UPDATE event SET body = CAST(substr(body, 1, 4) || x'ff' || substr(body, 6) AS BLOB) WHERE position = 0",
        "P0102",
    ),
    "a missing row": ("DELETE FROM event WHERE position = 1", "P0102"),
    "a journal from the future": ("UPDATE event SET format = 99", "P0103"),
}


@pytest.mark.parametrize("kind", list(DAMAGE))
async def test_a_damaged_journal_stalls_its_execution_alone_and_can_be_terminated(lab: Lab, kind: str) -> None:
    statement, code = DAMAGE[kind]
    async with lab.engine(listens) as engine:
        await status(await engine.start(listens, id="damaged"), "parked")
    damage(lab.path, statement)
    async with lab.engine(listens) as engine:
        sound = await engine.start(listens, id="sound")
        handle = engine.handle("damaged")
        await handle.signal("go", 1)
        with pytest.raises(perdure.ExecutionStalled, match=code):
            await handle.result(timeout=30)
        await sound.signal("go", "fine")
        assert await sound.result(timeout=30) == "fine"
        await handle.terminate("beyond repair")
        await status(handle, "terminated")


@pytest.mark.parametrize("when", ["before it stalls", "when it has stalled"])
async def test_a_broken_execution_can_be_terminated_behind_many_letters(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    for module in (loading, driver):
        monkeypatch.setattr(module, "INBOX_PAGE", 10)
    async with lab.engine(listens) as engine:
        await status(await engine.start(listens, id="damaged"), "parked")
    damage(lab.path, DAMAGE["a missing row"][0])
    async with lab.client() as client:
        for number in range(35):
            await client.handle("damaged").signal("go", number, id=f"m{number}")
        if when == "before it stalls":
            await client.handle("damaged").terminate("beyond repair")
    async with lab.engine(listens) as engine:
        handle = engine.handle("damaged")
        if when == "when it has stalled":
            with pytest.raises(perdure.ExecutionStalled):
                await handle.result(timeout=30)
            await handle.terminate("beyond repair")
        row = await status(handle, "terminated")
        assert row.closed_at_ms is not None


async def test_the_parent_of_a_damaged_child_hears_that_it_was_terminated(lab: Lab) -> None:
    @workflow(name="guardian")
    async def guardian() -> str:
        try:
            await (await perdure.start_child(listens, id="a/b")).result()
        except perdure.ExecutionTerminated as error:
            return str(error)
        return ""

    async with lab.engine(guardian, listens) as engine:
        handle = await engine.start(guardian, id="g")
        await until(lambda: engine._worker is not None and len(engine._worker.resting) == 2)
        await status(handle, "parked")
        await status(engine.handle("a/b"), "parked")
    damage(lab.path, "UPDATE event SET body = x'00' WHERE number = (SELECT max(number) FROM execution)")
    async with lab.engine(guardian, listens) as engine:
        await engine.handle("a/b").terminate("unreadable")
        assert "unreadable" in await engine.handle("g", guardian).result(timeout=30)


async def test_what_nobodys_code_can_run_any_more_can_be_terminated(lab: Lab) -> None:
    @workflow(name="lost")
    async def before() -> None:
        await perdure.start_child(listens, id="kid")
        await perdure.receive("a")

    @workflow(name="lost")
    async def after() -> None:
        await identity(1)

    @workflow(name="parent")
    async def parent() -> str:
        try:
            await (await perdure.start_child(before, id="lost")).result()
        except perdure.ExecutionTerminated as error:
            return str(error)
        return ""

    async with lab.engine(parent, before, listens) as engine:
        await engine.start(parent, id="p")
        await until(lambda: engine._worker is not None and len(engine._worker.drivers) == 3)
        await status(engine.handle("lost"), "parked")
    async with lab.engine(parent, after, listens) as engine:
        handle = engine.handle("lost")
        await handle.signal("a")
        with pytest.raises(perdure.ExecutionStalled, match="P0101"):
            await handle.result(timeout=30)
        await handle.terminate("its code is gone")
        with pytest.raises(perdure.ExecutionTerminated, match="its code is gone"):
            await handle.result(timeout=30)
        assert "its code is gone" in await engine.handle("p", parent).result(timeout=30)


async def test_an_unexpected_error_of_the_engine_itself_stalls_one_execution_only(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Execution.feed

    def breaks(self: Execution, recorded: ev.Recorded) -> None:
        if self.id == "victim" and isinstance(recorded.event, ev.SignalReceived):
            raise AttributeError("a bug of ours")
        feed(self, recorded)

    monkeypatch.setattr(Execution, "feed", breaks)
    async with lab.engine(listens) as engine:
        victim, other = await engine.start(listens, id="victim"), await engine.start(listens, id="other")
        for handle in (victim, other):
            await handle.signal("go", 1)
        assert await other.result(timeout=30) == 1
        with pytest.raises(perdure.ExecutionStalled, match="a bug of ours"):
            await victim.result(timeout=30)


async def test_an_engine_over_a_store_object_works_and_leaves_it_open() -> None:
    store = MemoryStore()
    async with perdure.Engine(store, workflows=[listens]) as engine:
        handle = await engine.start(listens, id="m")
        await handle.signal("go", "memory")
        assert await handle.result(timeout=30) == "memory"
    async with perdure.Engine(store, workflows=[listens]) as engine:
        assert await engine.handle("m").result(timeout=30) == "memory"


async def test_outside_its_block_an_engine_says_that_it_does_not_run(lab: Lab) -> None:
    async with lab.engine(listens) as engine:
        handle = await engine.start(listens)
    for call in (lambda: handle.signal("go"), handle.result, lambda: engine.start(listens), handle.describe):
        with pytest.raises(perdure.PerdureError, match="P0505"):
            await call()  # type: ignore[operator]
    await asyncio.sleep(0)
