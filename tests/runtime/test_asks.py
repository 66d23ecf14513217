"""Questions to people: asked, listed, answered once, too late, wrongly; beside an engine, and while none runs."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pydantic
import pytest
from tests.runtime.conftest import Lab, ShiftedClock, kinds, of_kind, status, until

import perdure
from perdure import step, workflow
from perdure.core import events as ev
from perdure.core.ask_events import answer_name
from perdure.encryption import KeyRing
from perdure.errors import AskTimeout, InvalidOption, NotAsked, NotAsShown, WrongAnswer
from perdure.runtime import engine as engine_module
from perdure.store.open import open_store
from perdure.testing import TestEngine
from perdure.testing.golden import Restoring

paid: list[Any] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    paid.clear()


@dataclass
class Decision:
    verdict: Literal["approve", "reject"]
    comment: str = ""


@dataclass
class Order:
    items: list[str] = field(default_factory=list)


@step
async def pay(whom: str, order: Order, *, cents: int = 100) -> str:
    paid.append((whom, list(order.items), cents))
    return f"paid {whom}"


@workflow
async def buy(item: str) -> str:
    call = pay.bind("ACME", Order([item]), cents=1200)
    decision = await perdure.ask("Pay this?", Decision, to="finance", about=call)
    if decision.verdict == "approve":
        return await call()
    return f"rejected: {decision.comment}"


@workflow
async def simple(question: str, seconds: float) -> str:
    try:
        answer = await perdure.ask(question, int, to="ada", timeout=seconds)
    except AskTimeout as late:
        return f"late: {late.fields['to']}"
    return f"answered {answer}"


async def one(asker: Any, **options: Any) -> perdure.OpenQuestion:
    """The only open question, once there is one."""

    async def only() -> Any:
        found = await asker.asks(**options)
        return found[0] if found else None

    return await until(only)  # type: ignore[no-any-return]


async def nothing_of(handle: perdure.Handle[Any], before: list[Any]) -> None:
    assert kinds(await handle.journal()) == kinds(before), "no trace in the journal"


# --- the usual ---


async def test_a_question_is_listed_with_what_it_is_about_and_answered_once(lab: Lab) -> None:
    async with lab.engine(buy) as engine:
        handle = await engine.start(buy, "pears", id="b")
        asked = await one(engine)
        assert (asked.execution, asked.question, asked.to, asked.step) == ("b", "Pay this?", "finance", "pay")
        assert asked.shown == {"whom": "ACME", "order": {"items": ["pears"]}, "cents": 1200}
        assert asked.location.startswith("test_asks.py:")
        assert (await status(handle, "parked")).waits_for == "answer of finance"
        assert [each.token for each in await handle.asks()] == [asked.token]
        await engine.answer(asked.token, Decision("approve"))
        assert await handle.result() == "paid ACME"
        assert paid == [("ACME", ["pears"], 1200)]
        assert await engine.asks() == []
        with pytest.raises(NotAsked, match="it was answered"):
            await engine.answer(asked.token, Decision("reject"))
        journal = await handle.journal()
        assert [each.outcome for each in of_kind(journal, ev.QuestionClosed)] == ["answered"]
        asked_event, done = of_kind(journal, ev.QuestionAsked)[0], of_kind(journal, ev.StepCompleted)[0]
        assert asked_event.digest == done.digest, "what ran is what was shown"


async def test_an_answer_is_taken_while_nobody_runs_and_after_a_crash(lab: Lab) -> None:
    async with lab.doomed(buy) as engine:
        await status(await engine.start(buy, "pears", id="b"), "parked")
    async with lab.client() as client:
        asked = await one(client, to="finance")
        assert asked.schema["$defs"]["Decision"]["required"] == ["verdict"]
        await client.answer(asked.token, {"verdict": "reject", "comment": "too dear"})
        assert await client.asks() == []
        with pytest.raises(NotAsked, match="it is answered"):
            await client.answer(asked.token, {"verdict": "approve"})
    async with lab.engine(buy) as engine:
        assert await engine.handle("b", buy).result() == "rejected: too dear"


async def test_a_client_answers_beside_a_running_engine(lab: Lab) -> None:
    async with lab.engine(buy) as engine, lab.client() as client:
        handle = await engine.start(buy, "figs", id="b")
        await one(client)
        await client.handle("b").answer(Decision("approve"))
        assert await handle.result() == "paid ACME"


@workflow
async def several() -> list[int]:
    return await asyncio.gather(*(perdure.ask(f"number {n}?", int, to=f"p{n % 2}") for n in range(5)))


async def test_of_several_questions_each_gets_its_own_answer_and_pages_go_on(lab: Lab) -> None:
    async with lab.engine(several) as engine:
        handle = await engine.start(several, id="s")
        await status(handle, "parked")
        first = await engine.asks(limit=3)
        rest = await engine.asks(cursor=first.next, limit=3)
        assert (bool(first.next), rest.next) == (True, "")
        assert [each.question for each in (*first, *rest)] == [f"number {n}?" for n in range(5)]
        assert [each.question for each in await engine.asks(to="p1")] == ["number 1?", "number 3?"]
        assert await engine.asks(to="nobody") == []
        with pytest.raises(NotAsked, match="5 questions, #1, #2"):
            await handle.answer(1)
        for each in reversed((*first, *rest)):
            await handle.answer(int(each.question[7]) * 10, seq=each.seq)
        assert await handle.result() == [0, 10, 20, 30, 40]


async def test_who_asks_needs_no_memory(lab: Lab) -> None:
    """Out of memory while it waits; the answer brings it back."""
    async with lab.engine(buy, cache=0) as engine:
        handles = [await engine.start(buy, f"item {n}", id=f"b{n}") for n in range(5)]
        for handle in handles:
            await status(handle, "parked")
            await handle.answer(Decision("approve"))
        assert [await handle.result() for handle in handles] == ["paid ACME"] * 5


async def test_an_answer_is_kept_in_a_pause(lab: Lab) -> None:
    async with lab.engine(buy) as engine:
        handle = await engine.start(buy, "x", id="b")
        await one(engine)
        await handle.pause()
        await status(handle, "paused")
        await engine.answer((await one(engine)).token, Decision("approve"))
        assert await engine.asks() == []
        assert paid == []
        await handle.resume()
        assert await handle.result() == "paid ACME"


@workflow
async def asked_by_a_handler() -> str:
    said: list[str] = []

    @perdure.on_update
    async def consult(question: str) -> str:
        said.append(await perdure.ask(question, str))
        return said[-1]

    await perdure.receive("end")
    return ", ".join(said)


async def test_a_handler_asks_too(lab: Lab) -> None:
    async with lab.engine(asked_by_a_handler) as engine:
        handle = await engine.start(asked_by_a_handler, id="h")
        update = asyncio.create_task(handle.update("consult", "What now?", returns=str))
        await engine.answer((await one(engine)).token, "wait")
        assert await update == "wait"
        await handle.signal("end")
        assert await handle.result() == "wait"


# --- what is refused ---


@pytest.mark.parametrize("running", [True, False])
async def test_an_answer_of_another_type_is_refused_and_the_question_stays_open(lab: Lab, *, running: bool) -> None:
    async with lab.doomed(buy) as engine:
        await status(await engine.start(buy, "x", id="b"), "parked")
    async with lab.engine(buy) if running else lab.client() as port:
        handle = port.handle("b")
        before = await handle.journal()
        asked = await one(port)
        for wrong in (
            True,
            "approve",
            None,
            {"comment": "?"},
            {"verdict": "maybe"},
            {"verdict": "reject", "comment": 5},
        ):
            with pytest.raises(WrongAnswer, match=r"\$"):
                await port.answer(asked.token, wrong)
        await nothing_of(handle, before)
        assert [each.token for each in await port.asks()] == [asked.token]


class Strict(pydantic.BaseModel):
    """What its schema does not tell."""

    even: int

    @pydantic.field_validator("even")
    @classmethod
    def is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("odd")
        return value


@workflow
async def picky() -> int:
    return (await perdure.ask("An even number?", Strict)).even


async def test_what_only_code_can_refuse_is_dropped_and_the_question_is_open_again(lab: Lab) -> None:
    async with lab.engine(picky) as engine:
        handle = await engine.start(picky, id="p")
        token = (await one(engine)).token
        await engine.answer(token, {"even": 3})
        again = await one(engine)
        assert (again.token, again.was_refused, again.refused_by) == (token, True, "")
        [dropped] = of_kind(await handle.journal(), ev.MessageDropped)
        assert "odd" in dropped.failure.message
        await engine.answer(token, {"even": 5}, by="Ada L.")

        async def refused_again() -> bool:
            return [each.refused_by for each in await engine.asks()] == ["Ada L."]

        await until(refused_again)
        await engine.answer(token, {"even": 4})
        assert await handle.result() == 4


# --- who answers ---


async def test_who_answered_is_in_the_journal_if_it_was_said(lab: Lab) -> None:
    async with lab.engine(simple) as engine:
        for name, said in (("a", "ada@example.org"), ("b", "")):
            handle = await engine.start(simple, name, 60, id=name)
            await engine.answer((await one(engine)).token, 1, by=said)
            assert await handle.result() == "answered 1"
            [answer] = of_kind(await handle.journal(), ev.SignalReceived)
            assert answer.by == said
        handle = await engine.start(simple, "c", 60, id="c")
        await one(engine)
        await handle.answer(2, by="bob")
        assert await handle.result() == "answered 2"
        assert [each.by for each in of_kind(await handle.journal(), ev.SignalReceived)] == ["bob"]


@pytest.mark.parametrize("by", ["x" * 201, "two\nlines", "\ud800", "\x1b[31m", None, 7])
async def test_what_is_no_name_is_refused_and_the_question_stays_open(lab: Lab, by: Any) -> None:
    async with lab.engine(simple) as engine:
        handle = await engine.start(simple, "q", 60, id="x")
        asked = await one(engine)
        with pytest.raises(InvalidOption, match="by="):
            await engine.answer(asked.token, 1, by=by)
        await engine.answer(asked.token, 1, by="x" * 200)
        assert await handle.result() == "answered 1"


# --- pages ---


async def test_a_list_goes_on_where_it_ended_though_what_it_ended_with_is_answered(lab: Lab) -> None:
    async with lab.engine(several) as engine:
        for name in ("s", "t"):
            await status(await engine.start(several, id=name), "parked")
        whole = [(each.execution, each.seq) for each in await engine.asks()]
        page = await engine.asks(limit=4)
        await engine.answer(page[-1].token, 1)

        async def is_closed() -> bool:
            return len(await engine.asks()) == len(whole) - 1

        await until(is_closed)
        rest = await engine.asks(cursor=page.next)
        assert [(each.execution, each.seq) for each in (*page, *rest)] == whole
        to_p1 = await engine.asks(to="p1", limit=1)
        others = await engine.asks(to="p1", cursor=to_p1.next)
        assert {each.to for each in (*to_p1, *others)} == {"p1"}
        row = page[-1].row
        assert row.run not in page.next
        for bad in ("nonsense", to_p1.next, page.next[:-3], "é"):
            with pytest.raises(InvalidOption, match="cursor="):
                await engine.asks(cursor=bad)
        for limit in (0, 1_001, True):
            with pytest.raises(InvalidOption, match="limit="):
                await engine.asks(limit=limit)


async def test_a_cursor_into_a_run_that_is_over_lists_all_that_the_next_one_asks(lab: Lab) -> None:
    async with lab.engine(several) as engine:
        handle = await engine.start(several, id="s")
        await status(handle, "parked")
        page = await engine.asks(limit=3)
        await handle.rewind(at=2)

        async def asks_anew() -> Any:
            found = await engine.asks(cursor=page.next)
            return found if len(found) == 5 else None

        again = await until(asks_anew)
        assert {each.token for each in again}.isdisjoint(each.token for each in page)


async def test_unknown_and_broken_tokens_are_refused(lab: Lab) -> None:
    async with lab.engine(simple, buy) as engine:
        handle = await engine.start(simple, "Well?", 60, id="s")
        other = await engine.start(buy, "x", id="other")
        asked, theirs = await one(engine, to="ada"), await one(engine, to="finance")
        before = await handle.journal()
        for token in ("", "x", asked.token[:-3], asked.token[3:], "é" * 50, "A" * 5000):
            with pytest.raises(NotAsked):
                await engine.answer(token, 1)
        with pytest.raises(NotAsked, match="no question of it has this token"):
            await handle.answer(1, token=theirs.token)
        with pytest.raises(NotAsked, match="not open"):
            await handle.answer(1, seq=77)
        with pytest.raises(perdure.ExecutionNotFound):
            await engine.handle("nobody").answer(1)
        await nothing_of(handle, before)
        await other.terminate()
        await handle.terminate()


async def test_a_signal_is_no_way_around_the_token(lab: Lab) -> None:
    async with lab.engine(simple) as engine:
        handle = await engine.start(simple, "Well?", 60, id="s")
        asked = await one(engine)
        with pytest.raises(InvalidOption, match="`handle"):
            await handle.signal(answer_name(asked.seq), 5)
        await handle.answer(7)
        assert await handle.result() == "answered 7"


async def test_of_many_answers_at_once_one_counts(lab: Lab) -> None:
    async with lab.engine(simple) as engine, lab.client() as client:
        handle = await engine.start(simple, "Well?", 60, id="s")
        token = (await one(engine)).token
        given = [port.answer(token, n) for n, port in enumerate([engine, client] * 10)]
        ends = await asyncio.gather(*given, return_exceptions=True)
        [accepted] = [n for n, end in enumerate(ends) if end == "s"]
        assert all(isinstance(end, NotAsked) for n, end in enumerate(ends) if n != accepted)
        assert await handle.result() == f"answered {accepted}"


# --- time ---


async def test_a_question_that_nobody_answers_times_out_and_late_answers_are_refused(lab: Lab) -> None:
    async with lab.engine(simple) as engine:
        handle = await engine.start(simple, "Well?", 0.05, id="s")
        token = (await one(engine)).token
        assert await handle.result() == "late: ada"
        with pytest.raises(NotAsked, match="its time is over"):
            await engine.answer(token, 1)
        assert [each.outcome for each in of_kind(await handle.journal(), ev.QuestionClosed)] == ["timed_out"]


async def test_too_late_is_too_late_though_no_engine_has_seen_it(lab: Lab) -> None:
    async with lab.doomed(simple) as engine:
        await status(await engine.start(simple, "Well?", 3600, id="s"), "parked")
        token = (await one(engine)).token
    late = ShiftedClock(2 * 3600 * 1000)
    async with perdure.Client(lab.path, environment=late) as client:
        assert await client.asks() == []
        with pytest.raises(NotAsked, match="its time is over"):
            await client.answer(token, 1)
    async with lab.client() as client:
        await client.answer(token, 5)  # of this hour
    async with lab.engine(simple, environment=late) as engine:
        assert await engine.handle("s", simple).result() == "answered 5", "it was stored in time"


@workflow
async def escalates() -> str:
    return await perdure.ask(
        "Restart it?",
        str,
        to="on-call",
        timeout=timedelta(hours=2),
        default="nobody",
        escalate_to="boss",
        escalate_after=timedelta(hours=1),
    )


async def test_another_one_is_asked_after_a_time_with_the_same_token() -> None:
    async with TestEngine([escalates], skip_time=False) as engine:
        handle = await engine.start(escalates, id="e")
        await engine.advance(1)
        [asked] = await engine.asks(to="on-call")
        assert await engine.asks(to="boss") == []
        await engine.advance(timedelta(hours=1))
        [later] = await engine.asks(to="boss")
        assert (later.token, later.to) == (asked.token, "boss")
        assert await engine.asks(to="on-call") == []
        await engine.answer(asked.token, "yes")
        assert await handle.result() == "yes"


async def test_a_default_instead_of_an_error() -> None:
    async with TestEngine([escalates]) as engine:
        assert await (await engine.start(escalates)).result() == "nobody"
        assert await engine.asks() == []


# --- what was shown ---


@workflow
async def changes(how: str) -> str:
    order = Order(["pears"])
    call = pay.bind("ACME", order)
    if how != "unasked":
        await perdure.ask("Pay?", bool, about=call)
    if how == "changed":
        order.items.append("gold")
    try:
        told = await call()
        return await call() if how == "twice" else told
    except NotAsShown as refused:
        return str(refused.fields["reason"])


@pytest.mark.parametrize(
    ("how", "end", "times"),
    [
        ("as shown", "paid ACME", 1),
        ("changed", "its arguments are not those that were shown", 0),
        ("twice", "made already", 1),
        ("unasked", "nobody was asked", 0),
    ],
)
async def test_a_call_is_made_as_it_was_shown_once_or_not_at_all(lab: Lab, how: str, end: str, times: int) -> None:
    async with lab.engine(changes) as engine:
        handle = await engine.start(changes, how, id="c")
        if how != "unasked":
            await engine.answer((await one(engine)).token, value=True)
        assert end in await handle.result()
    assert len(paid) == times


@pytest.mark.parametrize("how", [pay, pay.with_options(once=True)], ids=["plain", "once"])
async def test_what_was_agreed_to_is_not_made_otherwise_by_other_code(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    cents = 100

    @workflow
    async def agreed() -> str:
        call = how.bind("ACME", Order(["pears"]), cents=cents)
        await perdure.ask("Pay?", bool, about=call)
        return await call()

    async with lab.engine(agreed, shutdown_timeout=0) as engine:
        await engine.start(agreed, id="a")
        asked = await one(engine)
    cents, was = 120, cents
    monkeypatch.setattr(engine_module, "fingerprint_of", lambda _: "of other code")
    async with lab.engine(agreed) as engine:
        await engine.answer(asked.token, value=True)
        row = await status(engine.handle("a"), "stalled")
        assert "P0810" in row.problem
        assert "'pay' was not made: other code asked about it, and showed other arguments" in row.problem
    cents = was
    async with lab.engine(agreed) as engine:
        await engine.handle("a").resume()
        assert await engine.handle("a").result() == "paid ACME"
    assert [each for _, _, each in paid] == [100]


async def test_what_was_made_as_agreed_to_replays_though_other_code_would_do_it_otherwise(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    cents = 100

    @workflow
    async def agreed() -> str:
        call = pay.bind("ACME", Order(["pears"]), cents=cents)
        await perdure.ask("Pay?", bool, about=call)
        told = await call()
        await perdure.receive("go")
        return told

    async with lab.engine(agreed) as engine:
        handle = await engine.start(agreed, id="a")
        await engine.answer((await one(engine)).token, value=True)
        await until(lambda: paid)
        await status(handle, "parked")
    cents = 120
    monkeypatch.setattr(engine_module, "fingerprint_of", lambda _: "of other code")
    async with lab.engine(agreed) as engine:
        await engine.handle("a").signal("go")
        assert await engine.handle("a").result() == "paid ACME"
    assert [each for _, _, each in paid] == [100]


@workflow
async def like_the_default() -> str:
    call = pay.bind("ACME", Order(["pears"]))
    decided = await perdure.ask("Pay?", bool, about=call, timeout=timedelta(days=1), default=True)
    return await call() if decided else "not paid"


async def test_an_answer_that_is_what_the_default_would_be_is_an_answer(lab: Lab) -> None:
    async with lab.engine(like_the_default) as engine:
        handle = await engine.start(like_the_default, id="d")
        await engine.answer((await one(engine)).token, value=True)
        assert await handle.result() == "paid ACME"


@workflow
async def about_data() -> bool:
    return await perdure.ask("Publish?", bool, about={"title": "Tea", "words": 900})


async def test_a_question_may_be_about_any_data(lab: Lab) -> None:
    async with lab.engine(about_data) as engine:
        handle = await engine.start(about_data, id="a")
        asked = await one(engine)
        assert (asked.step, asked.shown) == ("", {"title": "Tea", "words": 900})
        await handle.answer(value=False)
        assert await handle.result() is False


# --- the end of what asks ---


@workflow
async def races() -> str:
    asking = asyncio.create_task(perdure.ask("Go on?", str))
    await perdure.receive("enough")
    asking.cancel()
    await perdure.receive("end")
    return "ended"


async def test_a_question_that_the_workflow_drops_is_open_no_more(lab: Lab) -> None:
    async with lab.engine(races) as engine:
        handle = await engine.start(races, id="r")
        token = (await one(engine)).token
        await handle.signal("enough")

        async def dropped() -> bool:
            return not await engine.asks()

        await until(dropped)
        with pytest.raises(NotAsked, match="stopped waiting"):
            await engine.answer(token, "yes")
        await handle.signal("end")
        assert await handle.result() == "ended"


@pytest.mark.parametrize("end", ["cancel", "terminate"])
async def test_the_questions_of_what_has_ended_are_closed(lab: Lab, end: str) -> None:
    async with lab.engine(simple) as engine:
        handle = await engine.start(simple, "Well?", 3600, id="s")
        token = (await one(engine)).token
        await getattr(handle, end)("enough")
        with pytest.raises((perdure.ExecutionCancelled, perdure.ExecutionTerminated)):
            await handle.result()
        assert await engine.asks() == []
        with pytest.raises(NotAsked):
            await engine.answer(token, 1)


@workflow
async def again(round_: int) -> str:
    asking = asyncio.create_task(perdure.ask(f"round {round_}?", str))
    await perdure.receive("next")
    if round_ < 2:
        perdure.continue_as_new(round_ + 1)
    return await asking


async def test_a_token_is_of_one_run(lab: Lab) -> None:
    async with lab.engine(again) as engine:
        handle = await engine.start(again, 1, id="a")
        first = (await one(engine)).token
        await handle.signal("next")

        async def second() -> Any:
            found = await engine.asks()
            return found[0] if found and found[0].question == "round 2?" else None

        asked = await until(second)
        assert asked.token != first
        with pytest.raises(NotAsked, match="of an earlier run"):
            await engine.answer(first, "old")
        await engine.answer(asked.token, "new")
        await handle.signal("next")
        assert await handle.result() == "new"


async def test_a_rewound_run_asks_under_a_new_token_and_a_fork_under_its_own(lab: Lab) -> None:
    async with lab.engine(buy) as engine:
        handle = await engine.start(buy, "x", id="b")
        before = await one(engine)
        await status(handle, "parked")
        await handle.rewind(at=len(await handle.journal()))
        after = await one(engine)
        assert after.token != before.token
        with pytest.raises(NotAsked, match="of an earlier run"):
            await engine.answer(before.token, Decision("approve"))
        fork = await engine.fork("b", new_id="copy", workflow=buy)
        tokens = {each.execution: each.token for each in await engine.asks()}
        assert tokens.keys() == {"b", "copy"}
        assert len(set(tokens.values())) == 2
        await engine.answer(tokens["copy"], Decision("reject", "copy"))
        assert await fork.result() == "rejected: copy"
        await engine.answer(after.token, Decision("approve"))
        assert await handle.result() == "paid ACME"


async def test_an_answer_before_a_rewind_counts_for_the_run_that_asked_only(lab: Lab) -> None:
    async with lab.engine(simple) as engine:
        handle = await engine.start(simple, "Well?", 3600, id="s")
        await engine.answer((await one(engine)).token, 1)
        assert await handle.result() == "answered 1"
        journal = await handle.journal()
        at = kinds(journal).index("QuestionAsked") + 1
        await handle.rewind(at=at)
        await engine.answer((await one(engine)).token, 2)
        assert await handle.result() == "answered 2"


async def test_an_imported_execution_asks_what_it_asked(lab: Lab, tmp_path: Path) -> None:
    """The list is made again from the journal."""
    async with lab.doomed(buy) as engine:
        handle = await engine.start(buy, "x", id="b")
        before = await one(engine)
        await status(handle, "parked")
        journal = await handle.journal()
    other = Lab(tmp_path / "other.db")
    with Restoring(str(other.path)) as restoring:
        assert restoring.restore("b", journal)
    async with other.client() as client:
        [asked] = await client.asks(to="finance")
        assert (asked.token, asked.shown) == (before.token, before.shown)
        await client.answer(asked.token, Decision("approve"))
    async with other.engine(buy) as engine:
        assert await engine.handle("b", buy).result() == "paid ACME"


# --- secrets and logs ---


async def test_questions_are_encrypted_and_still_listed(lab: Lab, tmp_path: Path) -> None:
    codec = KeyRing({"k1": bytes(range(32))}, current="k1")
    async with lab.engine(buy, codec=codec) as engine:
        await status(await engine.start(buy, "canary-7Qx", id="b"), "parked")
        assert (await one(engine)).shown["order"] == {"items": ["canary-7Qx"]}
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert not re.search(b"canary-7Qx|Pay this", held)
    async with lab.client() as client:  # without the key: shape only
        [asked] = await client.asks(to="finance")
        assert (asked.execution, asked.to) == ("b", "finance")
        assert "k1" in asked.question
    async with perdure.Client(lab.path, codec=codec) as client:
        [asked] = await client.asks()
        assert asked.question == "Pay this?"
        await client.answer(asked.token, Decision("reject", "canary-7Qx"))
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert not re.search(b"canary-7Qx|Pay this", held)
    async with lab.engine(buy, codec=codec) as engine:
        assert await engine.handle("b", buy).result() == "rejected: canary-7Qx"


async def test_no_log_and_no_journal_has_the_token(lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with lab.engine(simple) as engine:
        handle = await engine.start(simple, "Well?", 60, id="s")
        token = (await one(engine)).token
        await engine.answer(token, 1)
        await handle.result()
        with pytest.raises(NotAsked) as refused:
            await engine.answer(token, 1)
    assert token not in str(refused.value)
    assert token not in caplog.text
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert token.encode() not in held


# --- bad questions ---


@workflow
async def bad(how: str) -> None:
    match how:
        case "empty":
            await perdure.ask("  ")
        case "long":
            await perdure.ask("x" * 20_000)
        case "half":
            await perdure.ask("?", escalate_to="boss")
        case "late":
            await perdure.ask("?", timeout=1, escalate_to="boss", escalate_after=2)
        case "name":
            await perdure.ask("?", to="a\nb")
        case "data":
            await perdure.ask("?", about=object())
        case _:
            await perdure.ask("?", perdure.Client)


@pytest.mark.parametrize("how", ["empty", "long", "half", "late", "name", "data", "type"])
async def test_a_bad_question_is_refused_before_anybody_is_asked(lab: Lab, how: str) -> None:
    async with lab.engine(bad) as engine:
        handle = await engine.start(bad, how, id="b")
        with pytest.raises(perdure.ExecutionFailed):
            await handle.result()
        assert "QuestionAsked" not in kinds(await handle.journal())


async def test_outside_a_workflow_nobody_is_asked() -> None:
    with pytest.raises(perdure.errors.OutsideWorkflow):
        await perdure.ask("?")


async def test_an_older_store_gets_the_table(lab: Lab) -> None:
    store = open_store(str(lab.path))
    assert store.asks("default", "", "", 0, None, 10) == []
    store.close()
