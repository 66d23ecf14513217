"""Handlers, updates and published state in the deterministic world: every interleaving replays alike."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from tests.workflow.harness import (
    Live,
    Run,
    answers,
    cancels,
    drive,
    echo,
    explore,
    fails,
    fires,
    log,
    replay,
    replays_alike,
    running_execution,
    signals,
    updates,
    writes,
)

import perdure
from perdure.core import events as ev
from perdure.core.errors import (
    DeadlockError,
    DecodeError,
    DuplicateName,
    InvalidDefinition,
    InvalidOption,
    NondeterminismError,
    NotDeterministic,
    OutsideWorkflow,
    PayloadTooLarge,
    QueryFailed,
    ReadOnlyHandler,
    UnknownHandler,
    UnsupportedType,
    WrongArguments,
)
from perdure.workflow.definitions import workflow
from perdure.workflow.handlers import _forms
from perdure.workflow.values import Arguments, codec_for


def events_of(run: Run, kind: type) -> list[Any]:
    return [each.event for each in run.journal if isinstance(each.event, kind)]


def value_of(payload: ev.Payload) -> Any:
    return codec_for(Any, "it").decode(payload, "it")


def ask(execution: Any, name: str, *args: Any) -> Any:
    """A query of code in memory."""
    return value_of(execution.handlers.answer(name, Arguments.encode_by_position(args, "the query")))


async def until(condition: Callable[[], bool]) -> None:
    """A workflow that looks again every second of logical time."""
    while not condition():  # noqa: ASYNC110 - in a workflow this is a durable timer
        await asyncio.sleep(1)


# --- signals ---


@workflow
async def collecting(wanted: int) -> list[Any]:
    """A sync and an async handler, and a receiver of another name."""
    got: list[Any] = []
    enough = asyncio.Event()

    def take(what: Any) -> None:
        log("got", what)
        got.append(what)
        if len(got) >= wanted:
            enough.set()

    @perdure.on_signal
    def quick(n: int) -> None:
        take(n)

    @perdure.on_signal("slow")
    async def after_a_step(n: int) -> None:
        take(await echo(-n))

    await echo("begun")
    take(await perdure.receive("plain"))
    await enough.wait()
    await perdure.all_handlers_finished()
    return got


def test_signals_reach_their_handlers_and_receivers_in_any_interleaving() -> None:
    sent = [("slow", 1), ("quick", 2), ("plain", 3), ("quick", 4), ("slow", 5)]
    for run in explore(collecting, 5, signals=sent, seeds=40):
        assert sorted(run.value) == [-5, -1, 2, 3, 4]
        assert run.value.index(2) < run.value.index(4)


def test_signals_that_came_before_their_handler_are_handled_first_and_in_order() -> None:
    @workflow
    async def late(n: int) -> list[int]:
        got: list[int] = []
        await echo("wait")

        @perdure.on_signal
        def item(number: int) -> None:
            got.append(number)

        await until(lambda: len(got) == n)
        return got

    for run in explore(late, 4, signals=[("item", n) for n in range(4)]):
        assert run.value == [0, 1, 2, 3]


def test_async_handlers_begin_in_the_order_of_their_signals() -> None:
    @workflow
    async def concurrent() -> list[int]:
        begun: list[int] = []

        @perdure.on_signal
        async def item(number: int) -> None:
            begun.append(number)
            await asyncio.sleep(10 - number)

        await until(lambda: len(begun) == 5)
        await perdure.all_handlers_finished()
        return begun

    for run in explore(concurrent, signals=[("item", n) for n in range(5)]):
        assert run.value == [0, 1, 2, 3, 4]


def test_a_signal_that_its_handler_cannot_take_is_dropped_and_the_run_goes_on() -> None:
    """It does not decode; or the handler raises, at once or after a step."""

    @workflow
    async def picky() -> list[int]:
        got: list[int] = []

        @perdure.on_signal
        def small(n: int) -> None:
            if n > 9:
                raise ValueError("too big")
            got.append(n)

        @perdure.on_signal
        async def checked(n: int) -> None:
            got.append(n)
            await fails("no")

        await until(lambda: len(got) == 3)
        await perdure.all_handlers_finished()
        return sorted(got)

    for run in explore(picky, signals=[("small", 1), ("small", "x"), ("small", 10), ("checked", 7), ("small", 2)]):
        assert run.value == [1, 2, 7]
        dropped = {each.message_id: each.failure for each in events_of(run, ev.MessageDropped)}
        assert sorted(dropped) == ["m-2", "m-3", "m-4"]
        assert dropped["m-2"].message == "signal 'small' cannot be decoded as int: $ Expected `int`, got `str`."
        assert (dropped["m-3"].type, dropped["m-3"].message) == ("ValueError", "too big")
        assert dropped["m-4"].type.endswith("StepFailed")


def test_a_handler_without_parameters_takes_any_value() -> None:
    @workflow
    async def bell() -> int:
        rings = 0

        @perdure.on_signal
        def ring() -> None:
            nonlocal rings
            rings += 1

        await until(lambda: rings == 2)
        return rings

    assert {run.value for run in explore(bell, signals=[("ring", None), ("ring", {"any": "thing"})])} == {2}


def test_iteration_yields_one_signal_after_the_other_and_passes_over_misfits() -> None:
    @workflow
    async def chat() -> list[str]:
        heard: list[str] = []
        async for word in perdure.messages("word", str):
            heard.append(await echo(word))
            if word == "end":
                return heard
        return []

    for run in explore(chat, signals=[("word", "a"), ("word", 7), ("word", "b"), ("word", "end")]):
        assert run.value == ["a", "b", "end"]


def test_iteration_can_be_given_up_after_a_silence() -> None:
    @workflow
    async def patient() -> list[int]:
        heard: list[int] = []
        try:
            async for n in perdure.messages("n", int, timeout=5):
                await echo(n)
                heard.append(n)
        except TimeoutError:
            heard.append(-1)
        return heard

    run = drive(patient, script=[[signals("n", 1)], [answers("echo")], [fires()]], evict=0)
    assert run.value == [1, -1]
    replays_alike(run)


def test_a_timeout_counts_over_misfits() -> None:
    """What does not decode does not prolong the wait."""

    @workflow
    async def waits() -> Any:
        try:
            return await perdure.receive("n", int, timeout=5)
        except TimeoutError:
            return perdure.now().timestamp()

    run = drive(waits, script=[[signals("n", "x")], [writes(), fires()]], evict=0)
    assert run.value == pytest.approx(run.journal[1].at_ms / 1000 + 5)
    replays_alike(run)


def test_a_name_has_a_handler_or_a_receiver_and_not_both() -> None:
    @workflow
    async def handler_first() -> str:
        perdure.on_signal("n")(lambda: None)
        try:
            await perdure.receive("n")
        except InvalidDefinition as error:
            return str(error)
        return ""

    assert "of 'n': it has a handler" in drive(handler_first).value

    @workflow
    async def receiver_first() -> str:
        waiting = asyncio.create_task(perdure.receive("n"))
        await asyncio.sleep(0)
        try:
            perdure.on_signal("n")(lambda: None)
        except InvalidDefinition as error:
            waiting.cancel()
            return str(error)
        return ""

    assert "perdure.receive waits for it" in drive(receiver_first).value


def test_waiting_for_what_a_handler_does_is_no_deadlock_but_for_a_query_it_is() -> None:
    @workflow
    async def by_signal() -> None:
        done = asyncio.Event()
        perdure.on_signal("done")(done.set)
        await done.wait()

    assert drive(by_signal, signals=[("done", None)]).outcome[0] == "completed"

    @workflow
    async def by_query() -> None:
        perdure.on_query("done")(lambda: 1)
        await asyncio.Event().wait()

    assert isinstance(drive(by_query).stalled, DeadlockError)


def test_what_guards_refuse_a_handler_stalls_the_run_instead_of_dropping_the_message() -> None:
    @workflow
    async def careless() -> None:
        @perdure.on_signal
        def look() -> None:
            asyncio.get_running_loop().run_in_executor(None, print)

        await asyncio.Event().wait()

    run = drive(careless, signals=[("look", None)])
    assert isinstance(run.stalled, NotDeterministic)
    replays_alike(run)


# --- updates ---


@workflow
async def counting(end: int) -> int:
    """Updates of a sync and an async handler change a number; one has a validator."""
    total = 0
    done = asyncio.Event()

    def not_over(n: int) -> None:
        if total + n > end:
            raise ValueError(f"{total} + {n} is over {end}")

    @perdure.on_update(validator=not_over)
    def add(n: int) -> int:
        nonlocal total
        total += n
        log("added", n, total)
        if total == end:
            done.set()
        return total

    @perdure.on_update("add later")
    async def later(n: int) -> int:
        return add(await echo(n))

    await done.wait()
    return total


def test_updates_replay_alike_whatever_happens_around_them() -> None:
    asked = [("add", (2,)), ("add later", (3,)), ("add", (1,))]
    for run in explore(counting, 6, updates=asked, signals=[("noise", 1)] * 3, seeds=40):
        assert run.value == 6
        accepted, completed = events_of(run, ev.UpdateAccepted), events_of(run, ev.UpdateCompleted)
        assert len(accepted) == 3
        assert {each.update_id for each in completed} == {each.update_id for each in accepted}
        assert max(value_of(each.result) for each in completed) == 6


def test_an_update_that_its_validator_rejects_leaves_the_journal_as_it_is() -> None:
    live = Live(counting, (6,), evict=0)
    live.commit([live.first, ev.ExecutionClaimed()])
    live.take()
    before = len(live.journal), live.execution.machine.next_seq
    found = live.judged("add", (7,))
    assert isinstance(found, ev.FailureInfo)
    assert (found.type, found.message) == ("ValueError", "0 + 7 is over 6")
    for args, reason in [(("x",), "Expected `int`"), ((), "is missing"), ((1, 2), "takes 1")]:
        found = live.judged("add", args)
        assert isinstance(found, ev.FailureInfo)
        assert reason in found.message
    found = live.judged("sub", (1,))
    assert isinstance(found, ev.FailureInfo)
    assert "no handler for update 'sub' now; it has: add, add later" in found.message
    live.take()
    assert (len(live.journal), live.execution.machine.next_seq) == before
    live.execution.evict()


def test_two_updates_that_are_valid_alone_and_not_together_are_not_both_accepted() -> None:
    live = Live(counting, (6,), evict=0)
    live.commit([live.first, ev.ExecutionClaimed()])
    first = live.judged("add", (4,))
    assert isinstance(first, ev.UpdateAccepted)
    live.commit([first])
    assert isinstance(live.judged("add", (4,)), ev.FailureInfo)
    assert isinstance(live.judged("add", (2,)), ev.UpdateAccepted)
    live.execution.evict()


def test_what_a_handler_raises_goes_to_the_caller_and_the_run_goes_on() -> None:
    @workflow
    async def fragile() -> str:
        @perdure.on_update
        async def risky(text: str) -> str:
            if text == "bad":
                raise ValueError("bad text")
            if text == "cancelled":
                raise asyncio.CancelledError("gave up")
            return await fails(text)

        @perdure.on_update
        def wrong() -> int:
            return "text"  # type: ignore[return-value]

        return await perdure.receive("end", str)

    asked = [("risky", ("bad",)), ("risky", ("step",)), ("wrong", ()), ("risky", ("cancelled",))]
    run = drive(
        fragile,
        script=[[updates(name, *args)] for name, args in asked] + [[writes()]] * 3,
        evict=0.2,
        signals=[("end", "x")],
    )
    assert run.value == "x"
    failures = [each.failure for each in events_of(run, ev.UpdateCompleted)]
    assert [each.type.rpartition(".")[2] for each in failures if each] != []
    replays_alike(run)


def test_an_accepted_update_whose_handler_is_gone_or_takes_other_arguments_stalls() -> None:
    def make(handler: Any) -> Any:
        @workflow(name="changing")
        async def changing() -> None:
            if handler is not None:
                perdure.on_update("set")(handler)
            await asyncio.sleep(1)

        return changing

    def setter(n: int) -> None: ...

    def renamed(text: str, other: int) -> None: ...

    run = drive(make(setter), script=[[updates("set", 1)], [writes(), fires()]], evict=0)
    with pytest.raises(UnknownHandler, match="no handler for update 'set' now; it has: none"):
        replay(make(None), run.journal)
    with pytest.raises(DecodeError, match="the input of update 'set' cannot be decoded as str: argument 'text'"):
        replay(make(renamed), run.journal)


def test_an_update_that_is_answered_otherwise_than_it_was_keeps_its_recorded_answer() -> None:
    """As a result does: the journal has it. An answer where there was none, or to another, is a disagreement."""

    def make(answer: int, *, at_once: bool = True) -> Any:
        @workflow(name="answering")
        async def answering() -> None:
            @perdure.on_update
            async def ask() -> int:
                if not at_once:
                    await asyncio.sleep(5)
                return answer

            await asyncio.sleep(10)

        return answering

    run = drive(make(1), script=[[updates("ask")], [writes()], [fires()]], evict=0)
    assert replay(make(2), run.journal).is_closed
    with pytest.raises(NondeterminismError, match="recorded: #2 the answer to update 'ask'"):
        replay(make(1, at_once=False), run.journal)


# --- queries and validators only look ---


@workflow
async def watched() -> None:
    """Queries that look, and such that do more."""
    event, queue, lines = asyncio.Event(), asyncio.Queue[int](), deque(["a", "b"])
    waiting = asyncio.create_task(event.wait(), name="waiting")
    getting = asyncio.create_task(queue.get())
    perdure.publish({"lines": 2})

    def bad(name: str, fn: Any) -> None:
        def query() -> Any:
            return fn()

        def caught() -> str:
            try:
                fn()
            except Exception:  # noqa: BLE001 - that is the trap
                return "as if nothing had happened"
            return ""

        perdure.on_query(name)(query)
        perdure.on_query(f"{name}, caught")(caught)

    async def nothing() -> None: ...

    bad("step", lambda: echo(1))
    bad("publish", lambda: perdure.publish(1))
    bad("random", lambda: perdure.random().random())
    bad("uuid4", perdure.uuid4)
    bad("task", lambda: asyncio.get_running_loop().create_task(nothing()))
    bad("call_soon", lambda: asyncio.get_running_loop().call_soon(print))
    bad("call_later", lambda: asyncio.get_running_loop().call_later(5, print))
    bad("at once", lambda: asyncio.get_running_loop().call_later(0, print))
    bad("event", event.set)
    bad("queue", lambda: queue.put_nowait(1))
    bad("cancel", waiting.cancel)
    bad("register", lambda: perdure.on_signal("late")(print))
    bad("hash", lambda: hash(asyncio.get_running_loop().create_future()))

    @perdure.on_query
    def good() -> list[Any]:
        return [list(lines), perdure.now().timestamp(), perdure.info().id, waiting.done(), len(asyncio.all_tasks())]

    @perdure.on_query
    def broken() -> None:
        raise KeyError("nowhere")

    await asyncio.sleep(100)
    getting.cancel()


BAD = "step publish random uuid4 task call_soon call_later,at once,event queue cancel register hash"
BAD_QUERIES = [name for part in BAD.split(" ") for name in part.split(",")]


def fresh_watched() -> Live:
    live = Live(watched, evict=0)
    live.commit([live.first, ev.ExecutionClaimed()])
    live.take()
    return live


def test_a_query_that_looks_sees_everything_and_changes_nothing() -> None:
    live = fresh_watched()
    machine = live.execution.machine
    before = machine.next_seq, machine.now_ms, live.execution.loop._numbers
    lines, now, name, done, tasks = ask(live.execution, "good")
    assert (lines, now, name, done, tasks) == (["a", "b"], machine.now_ms / 1000, "x-1", False, 3)
    with pytest.raises(QueryFailed, match="Query 'broken' of execution 'x-1' failed: KeyError: 'nowhere'"):
        ask(live.execution, "broken")
    with pytest.raises(UnknownHandler, match="no handler for query 'nothing' now; it has: at once"):
        ask(live.execution, "nothing")
    with pytest.raises(WrongArguments, match=r"good.* were given by position"):
        ask(live.execution, "good", 1)
    assert (machine.next_seq, machine.now_ms, live.execution.loop._numbers) == before
    live.execution.evict()


@pytest.mark.parametrize("name", ["at once" if name == "at" else name for name in BAD_QUERIES if name != "once"])
def test_a_query_that_does_more_than_look_is_refused_even_if_it_catches_that(name: str) -> None:
    for query in (name, f"{name}, caught"):
        live = fresh_watched()
        with pytest.raises(
            ReadOnlyHandler, match=f"The handler of query '{query}' may only look, but it used"
        ) as caught:
            ask(live.execution, query)
        assert "test_handlers.py" in str(caught.value) or name in ("at once", "hash")
        live.execution.evict()


def test_a_validator_that_does_more_than_look_is_the_codes_fault() -> None:
    @workflow
    async def rash() -> None:
        def check(n: int) -> None:
            perdure.publish(n)

        @perdure.on_update(validator=check)
        def set_to(n: int) -> None: ...

        await asyncio.sleep(1)

    live = Live(rash, evict=0)
    live.commit([live.first, ev.ExecutionClaimed()])
    with pytest.raises(
        ReadOnlyHandler, match=r"validator of update 'set_to' may only look, but it used perdure\.publish"
    ):
        live.judged("set_to", (1,))
    live.execution.evict()


# --- the end of a run with handlers at work ---


def handling(ending: str, policy: Any = "finish") -> Any:
    @workflow(name=f"ends {ending} {policy}", unfinished_handlers=policy)
    async def ends() -> str:
        begun = asyncio.Event()

        @perdure.on_update
        async def work(n: int) -> int:
            begun.set()
            try:
                return await echo(n)
            except asyncio.CancelledError:
                await echo("tidy")
                raise

        @perdure.on_signal
        async def slowly() -> None:
            begun.set()
            await asyncio.sleep(50)
            log("slept")

        await begun.wait()
        if ending == "raises":
            raise ValueError("it went wrong")
        if ending == "waits":
            await asyncio.sleep(1_000)
        return "done"

    return ends


def test_a_workflow_that_returns_waits_for_its_handlers() -> None:
    for run in explore(handling("returns"), signals=[("slowly", None)]):
        assert run.value == "done"
        assert run.trace == [("slept",)]
    for run in explore(handling("returns"), updates=[("work", (7,))]):
        assert run.value == "done"
        assert [value_of(each.result) for each in events_of(run, ev.UpdateCompleted)] == [7]


def test_no_handler_begins_once_the_workflow_has_ended() -> None:
    live = Live(handling("returns"), evict=0)
    live.commit([live.first, ev.ExecutionClaimed()])
    live.take()
    live.commit([live.signal("slowly", None)])
    live.take()
    execution = live.execution
    assert not execution.is_closed
    assert len(execution.handlers.at_work) == 1
    assert execution.judge(ev.UpdateRequested("u", "work", Arguments.encode_by_position((1,), "it"))) is None
    live.commit([live.signal("slowly", None)])
    assert [each.message_id for each in execution.mailbox.unread()] == ["m-2"]
    live.commit([live.fire()])
    live.take()
    assert live.close is not None
    execution.evict()


def test_a_workflow_that_fails_or_is_cancelled_cancels_its_handlers_and_lets_them_tidy_up() -> None:
    for run in explore(handling("raises"), updates=[("work", (7,))]):
        assert run.outcome[:2] == ("failed", "ValueError")
        assert [value_of(each.result) for each in events_of(run, ev.StepCompleted)] == ["tidy"]
        assert not events_of(run, ev.UpdateCompleted)
    run = drive(handling("waits"), script=[[updates("work", 7)], [cancels("enough")], [answers("echo")]], evict=0)
    assert run.outcome == ("cancelled", "enough")
    assert not events_of(run, ev.UpdateCompleted)
    replays_alike(run)


def test_abandoned_handlers_do_not_keep_a_run_open() -> None:
    for run in explore(handling("returns", "abandon"), updates=[("work", (7,))]):
        assert run.value == "done"
        assert not events_of(run, ev.StepCompleted)


def test_all_handlers_finished_waits_for_the_others_and_not_for_itself() -> None:
    @workflow
    async def orderly() -> list[str]:
        said: list[str] = []

        @perdure.on_signal
        async def work(n: int) -> None:
            await asyncio.sleep(n)
            said.append(f"{n}")

        @perdure.on_update
        async def flush() -> str:
            await perdure.all_handlers_finished()
            said.append("flushed")
            return "ok"

        await perdure.receive("end")
        await perdure.all_handlers_finished()
        return said

    sent = [[signals("work", 3), signals("work", 5)], [updates("flush")], [fires()], [fires()], [signals("end")]]
    run = drive(orderly, script=sent, evict=0)
    assert run.value == ["3", "5", "flushed"]
    replays_alike(run)


# --- classes ---


class Base:
    """Handlers may be inherited."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.open = True

    @perdure.on_query("log")
    def whole_log(self) -> list[Any]:
        return self.log


@workflow
class Ledger(Base):
    async def run(self, wanted: int) -> list[Any]:
        await until(lambda: len(self.log) >= wanted)
        return self.log

    def is_open(self, n: int, why: str = "") -> None:
        if n < 0:
            raise ValueError(f"{n} {why}".strip())

    @perdure.on_update(validator=is_open)
    async def put(self, n: int, why: str = "none") -> int:
        self.log.append([await echo(n), why])
        return len(self.log)

    @perdure.on_signal
    def add(self, n: int) -> None:
        self.log.append(n)


def test_a_class_has_its_state_in_self_and_its_handlers_as_methods() -> None:
    asked = [("put", (1, "one")), ("put", (-2, "two")), ("put", (3,))]
    for run in explore(Ledger, 4, updates=asked, signals=[("add", 4), ("add", 5)], seeds=30):
        assert sorted(map(str, run.value)) == ["4", "5", "[1, 'one']", "[3, 'none']"]


def test_a_class_is_asked_by_inherited_queries_and_each_run_has_its_own_state() -> None:
    lives = [Live(Ledger, (2,), evict=0, execution_id=f"x-{n}") for n in range(2)]
    for n, live in enumerate(lives):
        live.commit([live.first, ev.ExecutionClaimed()])
        live.commit([live.signal("add", n)])
    assert [ask(live.execution, "log") for live in lives] == [[0], [1]]
    for live in lives:
        live.execution.evict()


def test_a_class_that_can_be_no_workflow_is_refused_when_it_is_decorated() -> None:
    with pytest.raises(InvalidDefinition, match="it has no `async def run"):

        @workflow
        class Empty: ...

    with pytest.raises(InvalidDefinition, match="it has no `async def run"):

        @workflow
        class Sync:
            def run(self) -> None: ...

    with pytest.raises(InvalidDefinition, match="cannot be made without arguments: missing a required argument: 'n'"):

        @workflow
        class Picky:
            def __init__(self, n: int) -> None: ...

            async def run(self) -> None: ...

    with pytest.raises(DuplicateName, match="Two different query handlers are named 'one'"):

        @workflow
        class Twice:
            async def run(self) -> None: ...

            @perdure.on_query
            def one(self) -> None: ...

            @perdure.on_query("one")
            def two(self) -> None: ...

    with pytest.raises(InvalidOption, match="unfinished_handlers='wait'"):
        workflow(unfinished_handlers="wait")(watched.fn)  # type: ignore[arg-type]


async def _async(n: int) -> None: ...


def _two(a: int, b: int) -> None: ...


def _stars(*args: int) -> None: ...


class Odd:
    """No msgspec and no pydantic knows it."""

    def __init__(self, thing: object) -> None:
        self.thing = thing


def _odd(thing: Odd) -> None: ...


@pytest.mark.parametrize(
    ("decorate", "error", "reason"),
    [
        (lambda: perdure.on_query(_async), InvalidDefinition, "it is async. A query only looks"),
        (lambda: perdure.on_signal("s")(_two), InvalidDefinition, "a signal has one value"),
        (lambda: perdure.on_update("u")(_stars), InvalidDefinition, "not all positional"),
        (lambda: perdure.on_update(validator=_async)(_two), InvalidDefinition, "its validator is async"),  # type: ignore[arg-type]
        (lambda: perdure.on_update(validator=print)(_async), None, ""),
        (lambda: perdure.on_update(validator=_two)(_async), InvalidDefinition, "does not take the same arguments"),
        (lambda: perdure.on_signal(_odd), UnsupportedType, "Odd"),
        (lambda: perdure.on_query("a\nb")(_two), InvalidDefinition, "printable"),
        (lambda: perdure.on_query("q")(7), InvalidDefinition, "it is no function"),  # type: ignore[type-var]
    ],
    ids=[str(number) for number in range(9)],
)
def test_what_can_be_no_handler_is_refused_where_it_is_registered(decorate: Any, error: Any, reason: str) -> None:
    @workflow
    async def registering() -> str:
        try:
            decorate()
        except perdure.PerdureError as problem:
            return f"{type(problem).__name__}: {problem}"
        return ""

    told = drive(registering).value
    assert reason in told
    assert told.startswith(error.__name__ if error is not None else "")
    assert bool(told) == (error is not None)


def test_outside_of_workflows_messages_mean_nothing() -> None:
    with pytest.raises(OutsideWorkflow, match=r"perdure\.publish"):
        perdure.publish(1)
    with pytest.raises(OutsideWorkflow, match=r"perdure\.messages"):
        perdure.messages("n")
    with pytest.raises(OutsideWorkflow, match="all_handlers_finished"):
        asyncio.run(perdure.all_handlers_finished())


def test_forms_of_local_functions_are_kept_and_keep_no_run_alive() -> None:
    class Big:
        """A run's state."""

    held: list[weakref.ref[Big]] = []

    @workflow
    async def holding(n: int) -> int:
        big = Big()
        held.append(weakref.ref(big))

        @perdure.on_query
        def about() -> str:
            return f"{big}"

        return n

    before = len(_forms)
    for n in range(3):
        assert drive(holding, n, evict=0).value == n
    assert len(_forms) == before + 1
    gc.collect()
    assert [each() for each in held] == [None] * 3


# --- published state ---


def published(run: Run) -> list[tuple[int, Any]]:
    return [(each.number, value_of(each.state)) for each in events_of(run, ev.StatePublished)]


def test_several_states_between_two_commits_are_one_and_the_last_one_is_told() -> None:
    @workflow
    async def busy(n: int) -> None:
        for i in range(n):
            perdure.publish({"done": i})
        await asyncio.gather(*[echo(i) for i in range(3)])
        perdure.publish("gathered")
        perdure.publish("done")

    for run in explore(busy, 100):
        told = published(run)
        assert told[0] == (100, {"done": 99})
        assert told[-1] == (102, "done")
        assert run.names()[-2:] == ["StatePublished", "ExecutionCompleted"]
        assert len(told) == 2


def test_calls_of_publish_may_come_and_go_between_two_versions_of_the_code() -> None:
    """They are no commands: replay does not mind, and what follows is told as the new code says."""

    def make(before: int, after: int) -> Any:
        @workflow(name="telling")
        async def telling() -> None:
            for i in range(before):
                perdure.publish(f"before {i}")
            await echo(1)
            for i in range(after):
                perdure.publish(f"after {i}")
            await echo(2)

        return telling

    run = drive(make(1, 1), script=[[], [answers("echo")], [answers("echo")]], evict=0)
    for other in (make(0, 0), make(5, 0), make(0, 7), make(3, 3)):
        execution = replay(other, run.journal)
        assert execution.is_closed
        execution.evict()
    unfinished = [each for each in run.journal if each.position < 3]  # start, claim, the first state
    assert type(unfinished[-1].event) is ev.StatePublished
    execution = replay(make(0, 1), unfinished)
    assert execution.take_state() is None
    execution.evict()
    execution = replay(make(5, 1), unfinished)
    state = execution.take_state()
    assert state is not None
    assert (state.number, value_of(state.state)) == (5, "before 4")
    execution.evict()


def test_a_state_that_is_overtaken_by_a_newer_one_before_it_is_fed_does_not_hide_it() -> None:
    """A crash between two commits may lead to that order in a journal."""

    @workflow
    async def telling() -> None:
        perdure.publish("first")
        await perdure.receive("go")
        perdure.publish("second")
        await asyncio.sleep(1)

    live = Live(telling, evict=0)
    live.commit([live.first, ev.ExecutionClaimed()])
    live.take()
    first, live.state = live.state, None
    assert first is not None
    live.commit([live.signal("go", None), first])
    live.take()
    assert live.state is not None
    assert value_of(live.state.state) == "second"
    live.execution.evict()


def test_a_state_is_bounded_in_size_and_takes_models() -> None:
    @workflow
    async def large(size: int) -> str:
        try:
            perdure.publish("x" * size)
        except PayloadTooLarge as error:
            return str(error)
        return "told"

    assert drive(large, 1_000_000).value == "told"
    assert "the published state takes 1100005 bytes encoded; the limit is 1048576" in drive(large, 1_100_000).value


def test_running_code_is_where_publish_belongs() -> None:
    @workflow
    async def simple() -> str:
        host = running_execution()
        perdure.publish(1)
        assert host.unpublished is not None
        await echo(1)
        assert host.unpublished is None
        return "ok"

    assert drive(simple, evict=0).value == "ok"
