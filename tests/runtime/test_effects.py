"""Steps that are declared once, over a real store: every way into the unknown, and that none of them runs one again."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from tests.runtime.conftest import Lab, kinds, of_kind, status, until

import perdure
from perdure import Retry, UnknownOutcome, step, workflow
from perdure.core import events as ev
from perdure.journal import plain_value
from perdure.runtime import asking, effects
from perdure.runtime import engine as engine_module
from perdure.store.protocol import Filter
from perdure.store.sqlite import SqliteStore

QUICK = Retry(attempts=3, delay=0.01, jitter=0)


class Refused(Exception):
    """The bank says no before it does anything."""


class World:
    """What the steps of one test do, and are told to do."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.asked: list[Any] = []
        self.behave: list[Any] = []  # of each call: an exception to raise, a value to return
        self.answers: list[Any] = []  # of reconcile, in turn; the last for ever
        self.entered = threading.Event()
        self.open = asyncio.Event()
        self.gate = threading.Event()

    def act(self, what: Any) -> Any:
        self.calls.append(what)
        self.entered.set()
        told = self.behave.pop(0) if self.behave else f"did {what}"
        if isinstance(told, BaseException):
            raise told
        return told

    def ask(self, key: str, what: Any) -> Any:
        self.asked.append((key, what))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


world: World


@pytest.fixture(autouse=True)
def fresh_world(monkeypatch: pytest.MonkeyPatch) -> Any:
    global world  # noqa: PLW0603 - steps are module-level, as users write them
    world = World()
    monkeypatch.setattr(asking, "PAUSES", Retry(attempts=3, delay=0.01, jitter=0))
    monkeypatch.setattr(asking, "TOO_EARLY_MS", 10)
    yield world
    world.gate.set()


# --- steps and workflows ----------------------------------------------------------------------------------------------


@step(once=True, not_happened=[Refused], retry=QUICK)
async def pay(what: str) -> str:
    return world.act(what)  # type: ignore[no-any-return]


@step(once=True)
async def slow(what: str) -> str:
    done = world.act(what)
    await world.open.wait()
    return done  # type: ignore[no-any-return]


@step(once=True)
def blocking(what: str) -> str:
    done = world.act(what)
    world.gate.wait(10)
    return done  # type: ignore[no-any-return]


async def ask_async(key: str, what: str) -> Any:
    return world.ask(key, what)


def ask_sync(key: str, what: str) -> Any:
    return world.ask(key, what)


asked = slow.with_options(reconcile=ask_async, retry=QUICK)


@workflow
async def one(what: str) -> str:
    return await pay(what)


@workflow
async def waits(what: str) -> str:
    return await slow(what)


@workflow
async def in_thread(what: str) -> str:
    return await blocking(what)


@workflow
async def reconciled(what: str) -> str:
    return await asked(what)


def unknowns(journal: list[ev.Recorded]) -> list[ev.StepOutcomeUnknown]:
    return of_kind(journal, ev.StepOutcomeUnknown)


async def parked(handle: perdure.Handle[Any]) -> Any:
    """Its row, once it waits for an outcome."""

    async def row() -> Any:
        found = await handle.describe()
        return found if "outcome of step" in found.waits_for else None

    return await until(row)


# --- before and after the call ----------------------------------------------------------------------------------------


async def test_the_intent_with_the_whole_input_is_durable_before_the_function_runs(lab: Lab) -> None:
    seen: list[ev.AnyEvent] = []
    text = "x" * 5_000

    @step(once=True)
    async def look(what: str) -> str:
        store = SqliteStore(lab.path)
        attempt = perdure.current_step()
        row = next(row for row in store.find(Filter("default"), None, 9) if row.key.execution == attempt.execution)
        seen.extend(each.event for each in store.load(row.key, attempt.run, 0, 99))
        store.close()
        return what

    @workflow
    async def flow() -> str:
        return await look(text)

    async with lab.engine(flow) as engine:
        handle = await engine.start(flow, id="x")
        assert await handle.result() == text
        journal = await handle.journal()
    intent = seen[-1]
    assert isinstance(intent, ev.StepIntended)
    assert (intent.seq, intent.attempt, intent.location.split(":")[0]) == (1, 1, "test_effects.py")
    assert intent.input is not None
    assert plain_value(intent.input) == {"what": text}
    assert kinds(journal)[2:] == ["StepIntended", "StepCompleted", "ExecutionCompleted"]


async def test_a_plain_step_intends_nothing(lab: Lab) -> None:
    @workflow
    async def flow() -> str:
        return await pay.with_options(once=False, not_happened=[], retry=1)("x")

    async with lab.engine(flow) as engine:
        handle = await engine.start(flow)
        assert await handle.result() == "did x"
        assert "StepIntended" not in kinds(await handle.journal())


async def test_steps_at_once_are_intended_in_one_commit_and_run_together(lab: Lab) -> None:
    @workflow
    async def flow() -> list[str]:
        return await asyncio.gather(*[slow(f"n{i}") for i in range(5)])

    async with lab.engine(flow) as engine:
        handle = await engine.start(flow)
        await until(lambda: len(world.calls) == 5)
        world.open.set()
        assert await handle.result() == [f"did n{i}" for i in range(5)]
        journal = await handle.journal()
    assert kinds(journal)[2:7] == ["StepIntended"] * 5
    assert len({each.at_ms for each in journal[2:7]}) == 1


# --- exceptions -------------------------------------------------------------------------------------------------------


async def test_a_listed_exception_means_that_it_did_not_happen_and_is_tried_again_with_a_new_intent(lab: Lab) -> None:
    world.behave = [Refused("no"), Refused("still no")]
    async with lab.engine(one) as engine:
        handle = await engine.start(one, "x")
        assert await handle.result() == "did x"
        journal = await handle.journal()
    again = ["StepIntended", "StepAttemptFailed"]
    assert kinds(journal)[2:] == [*again, *again, "StepIntended", "StepCompleted", "ExecutionCompleted"]
    assert [each.attempt for each in of_kind(journal, ev.StepIntended)] == [1, 2, 3]


async def test_when_no_attempt_is_left_a_listed_exception_is_a_failure_of_which_all_is_known(lab: Lab) -> None:
    world.behave = [Refused("no")] * 3
    async with lab.engine(one) as engine:
        handle = await engine.start(one, "x")
        with pytest.raises(perdure.ExecutionFailed, match=r"failed at attempt 3: tests.runtime.test_effects.Refused"):
            await handle.result()
        assert await engine.unresolved() == []


async def test_a_subclass_of_a_listed_exception_counts_as_listed(lab: Lab) -> None:
    class Limit(Refused):
        pass

    world.behave = [Limit("no")]
    async with lab.engine(one) as engine:
        assert await (await engine.start(one, "x")).result() == "did x"


@pytest.mark.parametrize("error", [OSError("gone"), ExceptionGroup("both", [Refused("no")]), KeyError("x")])
async def test_any_other_exception_parks_and_is_never_tried_again(lab: Lab, error: Exception) -> None:
    world.behave = [error]
    async with lab.engine(one) as engine:
        handle = await engine.start(one, "x", id="x")
        assert (await parked(handle)).waits_for == "outcome of step 'pay'"
        [waiting] = await engine.unresolved()
        assert type(error).__name__ in waiting.reason
        assert waiting.failure is not None
        assert waiting.failure.type.endswith(type(error).__name__)
    async with lab.engine(one) as engine:
        await parked(engine.handle("x"))
        assert [each.seq for each in await engine.unresolved()] == [1]
    assert world.calls == ["x"]


async def test_raise_tells_the_code_and_the_step_stays_listed_after_the_end(lab: Lab) -> None:
    @workflow
    async def flow() -> str:
        try:
            return await pay.with_options(on_unknown="raise")("x")
        except UnknownOutcome as unknown:
            return f"{unknown.code} {unknown.fields['name']} {unknown.fields['seq']} {unknown.fields['attempt']}"

    world.behave = [OSError("gone")]
    async with lab.engine(flow) as engine:
        handle = await engine.start(flow)
        assert await handle.result() == "P0608 pay 1 1"
        [waiting] = await engine.unresolved()
        assert (waiting.step, waiting.arguments) == ("pay", {"what": "x"})
        assert unknowns(await handle.journal())[0].raises


# --- limits in time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{"timeout": 0.05}, {"total_timeout": 0.05}, {"heartbeat_timeout": 0.05}])
async def test_a_time_limit_leaves_it_unknown_even_if_timeouts_are_listed(lab: Lab, limit: dict[str, float]) -> None:
    @workflow
    async def flow() -> str:
        return await slow.with_options(not_happened=[TimeoutError], **limit)("x")

    async with lab.engine(flow) as engine:
        handle = await engine.start(flow)
        await parked(handle)
        [waiting] = await engine.unresolved()
        assert waiting.reason == f"it took longer than its {next(iter(limit))} of 50 ms"
    assert world.calls == ["x"]


async def test_a_thread_that_outlives_its_timeout_leaves_it_unknown(lab: Lab) -> None:
    @workflow
    async def flow() -> str:
        return await blocking.with_options(timeout=0.05)("x")

    async with lab.engine(flow, shutdown_timeout=0) as engine:
        handle = await engine.start(flow)
        await parked(handle)
        world.gate.set()
    assert world.calls == ["x"]


async def test_a_time_limit_before_any_thread_was_free_is_no_call(lab: Lab) -> None:
    @workflow
    async def flow() -> str:
        first = asyncio.create_task(blocking("first"))
        await asyncio.sleep(0.02)
        try:
            await blocking.with_options(timeout=0.05)("second")
        except perdure.StepFailed as failed:
            world.gate.set()
            return f"{failed.failure.type.rpartition('.')[2]} {await first}"
        return "?"

    async with lab.engine(flow, step_threads=1) as engine:
        assert await (await engine.start(flow)).result() == "StepTimeout did first"
        assert await engine.unresolved() == []
    assert world.calls == ["first"]


# --- the code stops waiting -------------------------------------------------------------------------------------------


@workflow
async def impatient(what: str) -> str:
    try:
        async with asyncio.timeout(0.05):
            return await slow(what)
    except TimeoutError:
        return "gave up"


async def test_a_cancelled_step_that_had_begun_stays_an_open_matter(lab: Lab) -> None:
    async with lab.engine(impatient) as engine:
        handle = await engine.start(impatient, "x")
        assert await handle.result() == "gave up"
        [waiting] = await engine.unresolved()
        assert waiting.reason == "it was cancelled while it ran"
        journal = await handle.journal()
    assert kinds(journal)[2:] == ["StepIntended", "TimerFired", "StepOutcomeUnknown", "ExecutionCompleted"]
    assert not unknowns(journal)[0].raises


async def test_a_cancelled_step_that_ends_well_nevertheless_is_known(lab: Lab) -> None:
    @step(once=True)
    async def thorough() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "done before I noticed"
        return "?"

    @workflow
    async def flow() -> str:
        try:
            async with asyncio.timeout(0.05):
                return await thorough()
        except TimeoutError:
            return "gave up"

    async with lab.engine(flow) as engine:
        handle = await engine.start(flow)
        assert await handle.result() == "gave up"
        assert await engine.unresolved() == []
        assert kinds(await handle.journal())[-2:] == ["StepCompleted", "ExecutionCompleted"]


async def test_a_cancelled_step_that_says_it_did_not_happen_is_known_too(lab: Lab) -> None:
    @step(once=True, not_happened=[Refused])
    async def careful() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise Refused("not sent yet") from None
        return "?"

    @workflow
    async def flow() -> str:
        try:
            async with asyncio.timeout(0.05):
                return await careful()
        except TimeoutError:
            return "gave up"

    async with lab.engine(flow) as engine:
        handle = await engine.start(flow)
        assert await handle.result() == "gave up"
        assert await engine.unresolved() == []
        assert kinds(await handle.journal())[-2:] == ["StepAttemptFailed", "ExecutionCompleted"]


async def test_a_cancelled_step_that_waited_for_its_turn_never_begins_and_is_no_matter(lab: Lab) -> None:
    narrow = slow.with_options(concurrency=1)

    @workflow
    async def flow() -> str:
        first = asyncio.create_task(narrow("first"))
        second = asyncio.create_task(narrow("second"))
        await perdure.receive("go")
        second.cancel()
        await perdure.receive("go")
        return await first

    async with lab.engine(flow) as engine:
        handle = await engine.start(flow)
        await until(lambda: world.calls)
        await handle.signal("go")

        async def told() -> bool:
            return "StepFailed" in kinds(await handle.journal())

        await until(told)
        world.open.set()
        await handle.signal("go")
        assert await handle.result() == "did first"
        assert await engine.unresolved() == []
        [failed] = of_kind(await handle.journal(), ev.StepFailed)
        assert (failed.seq, failed.failure.type) == (2, "NotBegun")
    assert world.calls == ["first"]


async def test_cancelling_the_execution_leaves_the_step_listed(lab: Lab) -> None:
    async with lab.engine(waits) as engine:
        handle = await engine.start(waits, "x")
        await until(lambda: world.calls)
        await handle.cancel("enough")
        with pytest.raises(perdure.ExecutionCancelled):
            await handle.result()
        [waiting] = await engine.unresolved()
        assert (waiting.step, waiting.execution) == ("slow", handle.id)


async def test_a_workflow_that_ends_first_waits_for_what_its_steps_did(lab: Lab) -> None:
    """The code does not wait for the step; its execution does, until it is known or declared unknown."""

    @workflow
    async def flow() -> str:
        task = asyncio.create_task(slow("x"))
        await perdure.receive("go")
        return f"done: {task.done()}"

    async with lab.engine(flow) as engine:
        handle = await engine.start(flow)
        await until(lambda: world.calls)
        await handle.signal("go")
        assert await handle.result() == "done: False"
        [waiting] = await engine.unresolved()
        assert waiting.reason == "it was cancelled while it ran"
        assert kinds(await handle.journal())[-2:] == ["StepOutcomeUnknown", "ExecutionCompleted"]


async def test_an_attempt_that_will_not_end_does_not_hold_the_execution_for_ever(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects, "CLOSE_AFTER_MS", 50)

    @step(once=True)
    async def deaf() -> str:
        while not world.open.is_set():
            try:
                await world.open.wait()
            except asyncio.CancelledError:
                world.calls.append("cancelled")
                if len(world.calls) > 9:
                    raise
        return "?"

    @workflow
    async def flow() -> str:
        task = asyncio.create_task(deaf())
        await asyncio.sleep(0.02)
        return f"done: {task.done()}"

    async with lab.engine(flow, shutdown_timeout=0) as engine:
        handle = await engine.start(flow)
        assert await handle.result() == "done: False"
        [waiting] = await engine.unresolved()
        world.open.set()
        assert waiting.reason == "it went on when its execution closed"


async def test_terminating_lists_what_was_running(lab: Lab) -> None:
    async with lab.engine(waits) as engine:
        handle = await engine.start(waits, "x")
        await until(lambda: world.calls)
        await handle.terminate("now")
        with pytest.raises(perdure.ExecutionTerminated):
            await handle.result()
        [waiting] = await engine.unresolved()
        assert (waiting.step, waiting.arguments) == ("slow", {"what": "x"})
        assert kinds(await handle.journal())[-2:] == ["StepOutcomeUnknown", "ExecutionTerminated"]


async def test_terminating_what_stalled_lists_what_was_running(lab: Lab) -> None:
    """No code can run it any more: the journal alone tells what had begun, fed or not."""

    @workflow(name="flow")
    async def flow() -> str:
        second = asyncio.create_task(slow("second"))
        await asyncio.sleep(0)
        await pay("first")
        return await second

    @workflow(name="flow")
    async def other() -> str:
        await asyncio.sleep(1)
        return "?"

    async with lab.doomed(flow) as engine:
        await engine.start(flow, id="x")
        await until(lambda: "second" in world.calls)

        async def paid() -> bool:
            return "StepCompleted" in kinds(await engine.handle("x").journal())

        await until(paid)
    async with lab.engine(other) as engine:
        handle = engine.handle("x")
        await status(handle, "stalled")
        await handle.terminate()
        await status(handle, "terminated")
        [waiting] = await engine.unresolved()
        assert (waiting.step, waiting.arguments) == ("slow", {"what": "second"})


# --- what it returned -------------------------------------------------------------------------------------------------


async def test_a_result_that_cannot_be_recorded_is_kept_and_never_a_reason_to_run_it_again(lab: Lab) -> None:
    world.behave = [object()]
    async with lab.engine(one) as engine:
        handle = await engine.start(one, "x", id="x")
        await parked(handle)
        [waiting] = await engine.unresolved()
        assert waiting.reason.startswith("it returned <object object at 0x")
        assert "cannot be recorded" in waiting.reason
    async with lab.engine(one) as engine:
        await parked(engine.handle("x"))
    assert world.calls == ["x"]


async def test_reconcile_is_not_asked_about_what_surely_happened(lab: Lab) -> None:
    @workflow
    async def flow() -> str:
        return await pay.with_options(reconcile=ask_async)("x")

    world.behave, world.answers = [object()], [perdure.DidNotHappen()]
    async with lab.engine(flow) as engine:
        await parked(await engine.start(flow))
    assert (world.calls, world.asked) == (["x"], [])


# --- deaths -----------------------------------------------------------------------------------------------------------


async def test_what_was_running_when_its_worker_died_is_unknown(lab: Lab) -> None:
    async with lab.doomed(waits) as engine:
        await engine.start(waits, "x", id="x")
        await until(lambda: world.calls)
    async with lab.engine(waits) as engine:
        await parked(engine.handle("x"))
        [waiting] = await engine.unresolved()
        assert waiting.reason == "the worker that ran it is gone"
    assert world.calls == ["x"]


async def test_that_the_worker_died_is_told_to_code_that_wants_to_know(lab: Lab) -> None:
    @workflow
    async def flow() -> str:
        try:
            return await slow.with_options(on_unknown="raise")("x")
        except UnknownOutcome as unknown:
            return str(unknown.fields["reason"])

    async with lab.doomed(flow) as engine:
        await engine.start(flow, id="x")
        await until(lambda: world.calls)
    async with lab.engine(flow) as engine:
        assert await engine.handle("x").result() == "the worker that ran it is gone"


async def test_what_waited_for_its_turn_at_a_graceful_stop_surely_did_not_begin(lab: Lab) -> None:
    @workflow
    async def flow() -> list[str]:
        return await asyncio.gather(*[slow.with_options(concurrency=1)(f"n{i}") for i in range(3)])

    async with lab.engine(flow, shutdown_timeout=5) as engine:
        handle = await engine.start(flow, id="x")
        await until(lambda: world.calls)
        asyncio.get_running_loop().call_later(0.05, world.open.set)
    async with lab.engine(flow) as engine:
        handle = engine.handle("x")
        assert await handle.result() == ["did n0", "did n1", "did n2"]
        assert await engine.unresolved() == []
        failed = of_kind(await handle.journal(), ev.StepAttemptFailed)
    assert [(each.seq, each.failure.type) for each in failed] == [(2, "NotBegun"), (3, "NotBegun")]
    assert world.calls == ["n0", "n1", "n2"]


async def test_code_that_no_longer_says_once_does_not_run_again_what_had_begun(lab: Lab) -> None:
    @workflow(name="flow")
    async def before() -> str:
        return await slow("x")

    @workflow(name="flow")
    async def after() -> str:
        return await slow.with_options(once=False)("x")

    async with lab.doomed(before) as engine:
        await engine.start(before, id="x")
        await until(lambda: world.calls)
    async with lab.engine(after) as engine:
        await parked(engine.handle("x"))
    assert world.calls == ["x"]


async def test_a_lapsed_lease_between_intent_and_call_is_no_call(lab: Lab) -> None:
    """This process knows that it did not begin, and says so; with the lease renewed, the next attempt runs."""
    async with lab.engine(one) as engine:
        worker = engine._running()
        check, lapsed = worker.steps._lapsed, [True]
        worker.steps._lapsed = lambda: lapsed.pop() if lapsed else check()
        handle = await engine.start(one, "x")
        assert await handle.result() == "did x"
        journal = await handle.journal()
        assert await engine.unresolved() == []
    [failed] = of_kind(journal, ev.StepAttemptFailed)
    assert (failed.failure.type, failed.attempt) == ("NotBegun", 1)
    assert "the lease had lapsed" in failed.failure.message
    assert world.calls == ["x"]


# --- reconcile --------------------------------------------------------------------------------------------------------


async def after_a_death(lab: Lab, flow: perdure.Workflow[..., Any] = reconciled) -> perdure.Engine:
    """An engine over an execution whose step was running when its worker died."""
    async with lab.doomed(flow) as engine:
        await engine.start(flow, "x", id="x")
        await until(lambda: world.calls)
    return perdure.Engine(lab.path, workflows=[flow], durability="process")


@pytest.mark.parametrize("ask", [ask_async, ask_sync])
async def test_reconcile_is_asked_with_the_key_and_the_arguments_and_its_value_counts(lab: Lab, ask: Any) -> None:
    keys: list[str] = []

    @step(once=True, reconcile=ask)
    async def noted(what: str) -> str:
        keys.append(perdure.current_step().idempotency_key)
        world.act(what)
        await world.open.wait()
        return "?"

    @workflow
    async def flow(what: str) -> str:
        return await noted(what)

    world.answers = [perdure.Happened("found it")]
    async with await after_a_death(lab, flow) as engine:
        handle = engine.handle("x", flow)
        assert await handle.result() == "found it"
        [done] = of_kind(await handle.journal(), ev.StepCompleted)
        assert await engine.unresolved() == []
    assert world.asked == [(keys[0], "x")]
    assert done.resolved == ev.Resolution("happened", "reconcile")


async def test_reconcile_is_asked_about_what_was_done_though_other_code_would_do_something_else(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it could say, truly, that this did not happen: and both would."""
    price = "100"

    @workflow
    async def flow(_what: str) -> str:
        return await asked(price)

    world.answers = [perdure.Happened("found it")]
    async with lab.doomed(flow) as engine:
        await engine.start(flow, "x", id="x")
        await until(lambda: world.calls)
    price = "120"
    monkeypatch.setattr(engine_module, "fingerprint_of", lambda _: "of other code")
    async with lab.engine(flow) as engine:
        assert await engine.handle("x", flow).result() == "found it"
    assert [what for _, what in world.asked] == world.calls == ["100"]


async def test_what_did_not_happen_is_tried_again(lab: Lab) -> None:
    world.answers = [perdure.DidNotHappen()]
    world.open.set()

    @workflow
    async def flow(what: str) -> str:
        return await pay.with_options(reconcile=ask_async)(what)

    world.behave = [OSError("the line is dead")]
    async with lab.engine(flow) as engine:
        handle = await engine.start(flow, "x")
        assert await handle.result() == "did x"
        journal = await handle.journal()
    assert world.calls == ["x", "x"]
    [failed] = of_kind(journal, ev.StepAttemptFailed)
    assert failed.resolved == ev.Resolution("did_not_happen", "reconcile")
    assert kinds(journal)[2:6] == ["StepIntended", "StepAttemptFailed", "StepIntended", "StepCompleted"]


async def test_what_did_not_happen_is_tried_again_only_as_often_as_its_retry_allows(lab: Lab) -> None:
    world.answers = [perdure.DidNotHappen()]
    world.behave = [OSError(f"no {n}") for n in range(9)]

    @workflow
    async def flow(what: str) -> str:
        return await pay.with_options(reconcile=ask_async)(what)

    async with lab.engine(flow) as engine:
        handle = await engine.start(flow, "x")
        with pytest.raises(perdure.ExecutionFailed, match=r"failed at attempt 3: DidNotHappen"):
            await handle.result()
        assert await engine.unresolved() == []
    assert world.calls == ["x"] * 3


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (perdure.StillUnknown(), "StillUnknown"),
        (OSError("the bank is closed"), "OSError: the bank is closed"),
        ("yes", "TypeError: it returned 'yes', not Happened"),
        (None, "TypeError: it returned None"),
        (perdure.Happened(5), "int"),
    ],
    ids=["still unknown", "raises", "no answer", "nothing", "wrong type"],
)
async def test_reconcile_is_asked_again_but_not_for_ever(lab: Lab, answer: Any, told: str) -> None:
    world.answers = [answer]
    async with await after_a_death(lab) as engine:
        await parked(engine.handle("x"))
        [waiting] = await engine.unresolved()
    assert len(world.asked) == 3
    assert waiting.reason.startswith("the worker that ran it is gone; reconcile was asked 3 times and could not tell")
    assert told in waiting.reason
    assert world.calls == ["x"]


async def test_reconcile_may_know_later(lab: Lab) -> None:
    world.answers = [perdure.StillUnknown(), OSError("busy"), perdure.Happened("in the end")]
    async with await after_a_death(lab) as engine:
        assert await engine.handle("x").result() == "in the end"


async def test_reconcile_that_hangs_is_given_up(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    options = asking.OPTIONS.__class__(retry=asking.OPTIONS.retry, timeout_ms=30)
    monkeypatch.setattr(asking, "OPTIONS", options)

    async def hang(key: str, what: str) -> Any:
        world.asked.append((key, what))
        await world.open.wait()

    @workflow
    async def flow(what: str) -> str:
        return await slow.with_options(reconcile=hang)(what)

    async with await after_a_death(lab, flow) as engine:
        await parked(engine.handle("x"))
    assert len(world.asked) == 3


async def test_a_worker_that_dies_while_it_asks_asks_again(lab: Lab) -> None:
    world.answers = [perdure.StillUnknown()]
    async with await after_a_death(lab):
        await until(lambda: world.asked)
    world.answers = [perdure.Happened("found")]
    async with lab.engine(reconciled) as engine:
        assert await engine.handle("x").result() == "found"


async def test_did_not_happen_counts_only_once_the_attempt_can_no_longer_run(lab: Lab) -> None:
    """Its timeout has not passed since this worker came: of what may still run one asks again."""

    @workflow
    async def flow(what: str) -> str:
        return await asked.with_options(timeout=0.6)(what)

    world.answers = [perdure.DidNotHappen()]
    async with await after_a_death(lab, flow) as engine:
        handle = engine.handle("x")
        world.open.set()
        assert await handle.result() == "did x"
        journal = await handle.journal()
    first, _ = of_kind_at(journal, ev.StepIntended)
    [failed] = of_kind_at(journal, ev.StepAttemptFailed)
    assert failed >= first + 600
    assert len(world.asked) >= 2
    assert world.calls == ["x", "x"]


def of_kind_at(journal: list[ev.Recorded], kind: type) -> list[int]:
    return [each.at_ms for each in journal if isinstance(each.event, kind)]


async def test_did_not_happen_does_not_count_while_the_attempts_own_thread_still_runs(lab: Lab) -> None:
    @workflow
    async def flow(what: str) -> str:
        return await blocking.with_options(reconcile=ask_sync, timeout=0.05, retry=QUICK)(what)

    world.answers = [perdure.DidNotHappen()]
    async with lab.engine(flow, shutdown_timeout=0) as engine:
        handle = await engine.start(flow, "x")
        await parked(handle)
        [waiting] = await engine.unresolved()
        assert "the thread of the attempt still runs" in waiting.reason
        assert world.calls == ["x"]
        world.gate.set()


async def test_a_cancelled_step_is_reconciled_before_its_execution_ends_and_not_tried_again(lab: Lab) -> None:
    @workflow
    async def flow(what: str) -> str:
        try:
            async with asyncio.timeout(0.05):
                return await asked(what)
        except TimeoutError:
            return "gave up"

    for n, (answer, last) in enumerate(
        [(perdure.Happened("it did"), "StepCompleted"), (perdure.DidNotHappen(), "StepFailed")]
    ):
        world.answers = [answer]
        async with lab.engine(flow) as engine:
            handle = await engine.start(flow, "x", id=f"x{n}")
            assert await handle.result() == "gave up"
            assert kinds(await handle.journal())[-2:] == [last, "ExecutionCompleted"]
            assert await engine.unresolved() == []
    assert world.calls == ["x", "x"]


async def test_reconcile_of_a_method_gets_the_arguments_without_the_instance(lab: Lab) -> None:
    class Bank:
        @step(once=True, reconcile=ask_async)
        async def transfer(self, what: str) -> str:
            return world.act(what)  # type: ignore[no-any-return]

    bank = Bank()

    @workflow
    async def flow() -> str:
        return await bank.transfer("x")

    world.behave, world.answers = [OSError("gone")], [perdure.Happened("found")]
    async with lab.engine(flow) as engine:
        assert await (await engine.start(flow)).result() == "found"
    assert [what for _, what in world.asked] == ["x"]
