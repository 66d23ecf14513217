"""What people say of steps of which nobody knew: it counts once, is of the step's type, and never stalls the run."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from tests.runtime.conftest import Lab, kinds, of_kind, status, until

import perdure
from perdure import Abandoned, DidNotHappen, Happened, UnknownOutcome, step, workflow
from perdure.core import events as ev
from perdure.core.errors import EncodeError, InvalidOption
from perdure.journal import Payload


@dataclasses.dataclass
class Receipt:
    number: int
    note: str = ""


calls: list[str] = []
told: list[Any] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    calls.clear()
    told.clear()


@step(once=True)
async def buy(what: str) -> Receipt:
    calls.append(what)
    if told:
        return told.pop(0)  # type: ignore[no-any-return]
    raise OSError("the line is dead")


@step(once=True)
async def notify(what: str) -> None:
    calls.append(what)
    raise OSError("the line is dead")


@workflow
async def shop(what: str) -> Receipt:
    return await buy(what)


@workflow
async def careful(what: str) -> str:
    try:
        return str(await buy(what))
    except UnknownOutcome as unknown:
        return str(unknown.fields["reason"])


@workflow
async def raises(what: str) -> str:
    try:
        return str(await buy.with_options(on_unknown="raise")(what))
    except UnknownOutcome:
        await perdure.receive("go")
        return "who knows"


@workflow
async def news(what: str) -> str:
    await notify(what)
    return "sent"


async def unknown(engine: perdure.Engine, flow: perdure.Workflow[..., Any], id: str = "x") -> perdure.Handle[Any]:
    """A handle of an execution whose step has an unknown outcome."""
    await engine.start(flow, "pen", id=id)
    handle = engine.handle(id, flow)
    await until(handle.unresolved)
    return handle


async def test_it_happened_and_the_workflow_gets_the_value(lab: Lab) -> None:
    async with lab.engine(shop) as engine:
        handle = await unknown(engine, shop)
        [waiting] = await handle.unresolved()
        assert (waiting.execution, waiting.seq, waiting.attempt, waiting.step) == ("x", 1, 1, "buy")
        assert waiting.arguments == {"what": "pen"}
        await handle.resolve(1, Happened(Receipt(7)), note="on the statement")
        assert await handle.result() == Receipt(7)
        assert await engine.unresolved() == []
        [done] = of_kind(await handle.journal(), ev.StepCompleted)
    assert (done.resolved.outcome, done.resolved.by, done.resolved.note) == ("happened", "person", "on the statement")
    assert calls == ["pen"]


async def test_a_step_that_returns_nothing_just_happened(lab: Lab) -> None:
    async with lab.engine(news) as engine:
        handle = await unknown(engine, news)
        await handle.resolve(1, Happened())
        assert await handle.result() == "sent"


async def test_it_did_not_happen_and_runs_again(lab: Lab) -> None:
    async with lab.engine(shop) as engine:
        handle = await unknown(engine, shop)
        told.append(Receipt(8))
        await handle.resolve(1, DidNotHappen())
        assert await handle.result() == Receipt(8)
        journal = await handle.journal()
    assert [each.attempt for each in of_kind(journal, ev.StepIntended)] == [1, 2]
    assert calls == ["pen", "pen"]


async def test_abandoned_it_raises_unknown_outcome_where_it_is_awaited(lab: Lab) -> None:
    async with lab.engine(careful) as engine:
        handle = await unknown(engine, careful)
        await handle.resolve(1, Abandoned(), note="it is only a pen")
        assert await handle.result() == "it was given up: it is only a pen"
        assert await engine.unresolved() == []


@pytest.mark.parametrize("decision", [Happened(Receipt(1)), DidNotHappen(), Abandoned()])
async def test_what_the_code_no_longer_waits_for_is_settled_without_it(lab: Lab, decision: Any) -> None:
    async with lab.engine(raises) as engine:
        handle = await unknown(engine, raises)
        await handle.resolve(1, decision)
        await until_settled(engine)
        await handle.signal("go")
        assert await handle.result() == "who knows"
        assert "StepAttemptFailed" not in kinds(await handle.journal())
    assert calls == ["pen"]


async def until_settled(engine: perdure.Engine) -> None:
    async def settled() -> bool:
        return not await engine.unresolved()

    await until(settled)


@pytest.mark.parametrize("decision", [Happened(Receipt(1)), DidNotHappen(), Abandoned()])
async def test_after_the_end_an_answer_is_kept_as_a_dead_letter(lab: Lab, decision: Any) -> None:
    async with lab.engine(raises) as engine:
        handle = await unknown(engine, raises)
        await handle.signal("go")
        await handle.result()
        await handle.resolve(1, decision, note="late")
        assert await engine.unresolved() == []
        [letter] = engine.store.dead_letters(handle.key, 9)
        assert isinstance(letter.event, ev.ResolveRequested)
        assert letter.event.note == "late"
        with pytest.raises(perdure.NotUnresolved, match="it was settled after the execution had ended"):
            await handle.resolve(1, Abandoned())


# --- what is refused --------------------------------------------------------------------------------------------------


async def test_a_value_of_another_type_is_refused_with_its_place_before_anything_is_recorded(lab: Lab) -> None:
    async with lab.engine(shop) as engine:
        handle = await unknown(engine, shop)
        before = await handle.journal()
        with pytest.raises(EncodeError, match=r"\$\.number"):
            await handle.resolve(1, Happened(Receipt("seven")))  # type: ignore[arg-type]
        with pytest.raises(perdure.AnswerRefused, match=r"\$\.number"):
            await engine.handle("x").resolve(1, Happened(Payload(b'{"number": "seven"}', "json")))
        assert await handle.journal() == before
        assert not (await handle.unresolved())[0].is_answered


async def test_the_engine_checks_what_it_does_not_have_in_memory(lab: Lab) -> None:
    async with lab.engine(shop, cache=0) as engine:
        handle = await unknown(engine, shop)
        await until(lambda: handle.key not in engine._running().drivers)
        with pytest.raises(EncodeError, match=r"\$\.number"):
            await handle.resolve(1, Happened(Receipt("seven")))  # type: ignore[arg-type]
        await handle.resolve(1, Happened(Receipt(7)))
        assert await handle.result() == Receipt(7)


async def test_a_client_asks_the_engine_beside_it(lab: Lab) -> None:
    async with lab.engine(shop) as engine, lab.client() as client:
        await unknown(engine, shop)
        with pytest.raises(perdure.AnswerRefused, match=r"\$\.number"):
            await client.handle("x").resolve(1, Happened({"number": "seven"}))
        await client.handle("x").resolve(1, Happened({"number": 7}))
        assert await client.handle("x", shop).result() == Receipt(7)


async def test_without_any_engine_the_value_is_looked_at_when_it_is_taken(lab: Lab) -> None:
    """Refused then, listed again, and the run does not stall."""
    async with lab.engine(shop) as engine:
        await unknown(engine, shop)
    async with lab.client() as client:
        handle = client.handle("x")
        await handle.resolve(1, Happened("seven"))
        [waiting] = await handle.unresolved()
        assert waiting.is_answered
    async with lab.engine(shop) as engine:
        handle = engine.handle("x", shop)

        async def refused() -> bool:
            [waiting] = await handle.unresolved()
            return waiting.was_refused and not waiting.is_answered

        await until(refused)
        await status(handle, "parked")
        await handle.resolve(1, Happened(Receipt(7)))
        assert await handle.result() == Receipt(7)


async def test_a_client_that_knows_the_workflow_checks_by_itself(lab: Lab) -> None:
    async with lab.engine(shop) as engine:
        await unknown(engine, shop)
    async with lab.client() as client:
        with pytest.raises(EncodeError, match=r"\$\.number"):
            await client.handle("x", shop).resolve(1, Happened(Receipt("seven")))  # type: ignore[arg-type]


async def test_only_one_answer_counts(lab: Lab) -> None:
    async with lab.engine(shop) as engine:
        handle = await unknown(engine, shop)
        answers = [handle.resolve(1, Happened(Receipt(n))) for n in range(5)]
        found = await asyncio.gather(*answers, return_exceptions=True)
        lost = [each for each in found if each is not None]
        assert len(lost) == 4
        assert all(isinstance(each, perdure.NotUnresolved) for each in lost)
        assert await handle.result() == Receipt(found.index(None))


async def test_an_answer_about_an_older_attempt_does_not_settle_the_next(lab: Lab) -> None:
    async with lab.engine(shop) as engine:
        handle = await unknown(engine, shop)
        [waiting] = await handle.unresolved()
        await handle.resolve(1, DidNotHappen())

        async def again() -> bool:
            return [each.attempt for each in await handle.unresolved()] == [2]

        await until(again)
        late = ev.ResolveRequested("late", waiting.run, 1, 1, "abandoned")
        receipt = await engine.deposit(perdure.store.protocol.Mail(handle.key, "late", late))  # type: ignore[attr-defined]
        assert receipt.status == "moot"
        assert len(await handle.unresolved()) == 1


@pytest.mark.parametrize(
    ("seq", "state"),
    [(2, "no step that is declared once has this number"), (1, "it was settled: happened, says a person")],
)
async def test_what_nobody_asks_is_told(lab: Lab, seq: int, state: str) -> None:
    async with lab.engine(shop) as engine:
        handle = await unknown(engine, shop)
        if seq == 1:
            await handle.resolve(1, Happened(Receipt(1)))
            await handle.result()
        with pytest.raises(perdure.NotUnresolved, match=state):
            await handle.resolve(seq, Abandoned())


async def test_a_step_that_completed_or_failed_or_runs_does_not_wait_for_an_answer(lab: Lab) -> None:
    gate = asyncio.Event()

    class Refused(Exception):
        pass

    @step(once=True, not_happened=[Refused], retry=1)
    async def act(what: str) -> str:
        if what == "fails":
            raise Refused
        if what == "runs":
            await gate.wait()
        return what

    @workflow
    async def flow() -> None:
        await act("completes")
        with_failure = await asyncio.gather(act("fails"), return_exceptions=True)
        assert isinstance(with_failure[0], perdure.StepFailed)
        await act("runs")

    async with lab.engine(flow) as engine:
        handle = await engine.start(flow)

        async def runs() -> bool:
            return kinds(await handle.journal()).count("StepIntended") == 3

        await until(runs)
        for seq, state in [(1, "it completed"), (2, "failed, and surely did nothing"), (3, "it runs")]:
            with pytest.raises(perdure.NotUnresolved, match=state):
                await handle.resolve(seq, Abandoned())
        gate.set()
        await handle.result()


async def test_nonsense_is_told(lab: Lab) -> None:
    async with lab.engine(shop) as engine:
        handle = await unknown(engine, shop)
        with pytest.raises(InvalidOption, match=r"perdure\.Happened\(value\)"):
            await handle.resolve(1, "yes")  # type: ignore[arg-type]
        with pytest.raises(perdure.ExecutionNotFound):
            await engine.handle("y").resolve(1, Abandoned())


# --- while it rests, pauses, stalls -----------------------------------------------------------------------------------


async def test_an_answer_wakes_what_was_evicted(lab: Lab) -> None:
    async with lab.engine(shop, cache=0) as engine:
        handles = [await unknown(engine, shop, f"x{n}") for n in range(5)]
        assert len(await engine.unresolved()) == 5
        assert [each.execution for each in await engine.unresolved(limit=2)] != []
        for n, handle in enumerate(handles):
            await handle.resolve(1, Happened(Receipt(n)))
        assert [await handle.result() for handle in handles] == [Receipt(n) for n in range(5)]


async def test_the_list_goes_on_after_a_page(lab: Lab) -> None:
    async with lab.engine(shop) as engine:
        for n in range(5):
            await unknown(engine, shop, f"x{n}")
        seen: list[str] = []
        last = None
        while page := await engine.unresolved(after=last, limit=2):
            seen += [each.execution for each in page]
            last = page[-1]
        assert sorted(seen) == [f"x{n}" for n in range(5)]
        assert len(seen) == 5


async def test_in_a_pause_an_answer_waits(lab: Lab) -> None:
    async with lab.engine(shop) as engine:
        handle = await unknown(engine, shop)
        await handle.pause()
        await status(handle, "paused")
        await handle.resolve(1, Happened(Receipt(7)))
        assert (await handle.unresolved())[0].is_answered
        await handle.resume()
        assert await handle.result() == Receipt(7)


async def test_a_pause_between_intent_and_turn_is_no_call(lab: Lab) -> None:
    gate = asyncio.Event()

    @step(once=True, concurrency=1)
    async def turn(what: str) -> str:
        calls.append(what)
        await gate.wait()
        return what

    @workflow
    async def flow() -> list[str]:
        return await asyncio.gather(turn("a"), turn("b"))

    async with lab.engine(flow) as engine:
        handle = await engine.start(flow)
        await until(lambda: calls)
        await handle.pause()
        await status(handle, "paused", "active")

        async def held() -> bool:
            return "StepAttemptFailed" in kinds(await handle.journal())

        await until(held)
        gate.set()

        async def ended() -> bool:
            return "StepCompleted" in kinds(await handle.journal())

        await until(ended)
        assert calls == ["a"]
        await handle.resume()
        assert await handle.result() == ["a", "b"]
        assert await engine.unresolved() == []
    assert calls == ["a", "b"]
