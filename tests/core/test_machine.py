"""The machine beside its table: what starts and stops, deadlines, messages, time, attempts."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from perdure.core import events as ev
from perdure.core.commands import AnyCommand, CloseRun, RunStep, SendMessage, StartChild, StartTimer, State
from perdure.core.errors import CorruptJournal, NondeterminismError
from perdure.core.machine import Machine
from perdure.core.table import Effect, RunState

NOTHING = ev.Payload(b"\xc0")


def running(fingerprint: str = "") -> Machine:
    """A machine past the claim."""
    machine = Machine(fingerprint)
    feed(machine, ev.ExecutionStarted(workflow="w", run="r", input=NOTHING), at_ms=5)
    feed(machine, ev.ExecutionClaimed(), at_ms=1_000)
    return machine


def feed(machine: Machine, event: ev.AnyEvent, *, at_ms: int = 0, fingerprint: str = "") -> object:
    return machine.feed(ev.Recorded(machine.position, at_ms, event, fingerprint=fingerprint))


def a_step(name: str = "search", digest: bytes = b"d") -> RunStep:
    return RunStep(name=name, input=NOTHING, digest=digest, target=None, options=None)


def a_child(digest: bytes = b"d") -> StartChild:
    return StartChild(
        workflow="c",
        execution="c-1",
        run="r",
        input=NOTHING,
        on_parent_close="abandon",
        target=None,
        digest=digest,
    )


def a_signal(digest: bytes = b"d") -> SendMessage:
    return SendMessage(kind="signal", receiver="x-2", name="go", digest=digest)


def timer(due_ms: int) -> StartTimer:
    return StartTimer(due_ms=due_ms)


def seqs(commands: object) -> list[int]:
    return [command.seq for command in commands]  # type: ignore[attr-defined]


def test_commands_are_numbered_from_one_in_order_of_issue() -> None:
    machine = running()
    assert [machine.issue(a_step()), machine.issue(timer(5)), machine.issue(a_step())] == [1, 2, 3]
    assert seqs(machine.open_commands()) == [1, 2, 3]


def test_take_hands_out_each_command_once() -> None:
    machine = running()
    machine.issue(a_step())
    start, stop = machine.take()
    assert (seqs(start), seqs(stop)) == ([1], [])
    assert [list(each) for each in machine.take()] == [[], []]


def test_what_was_cancelled_before_it_was_taken_never_starts_and_need_not_stop() -> None:
    machine = running()
    machine.issue(a_step())
    machine.issue(a_step())
    machine.cancel(1)
    machine.cancel(1)  # again changes nothing
    start, stop = machine.take()
    assert (seqs(start), seqs(stop)) == ([2], [])
    assert list(machine.open) == [2]


def test_what_was_answered_before_it_was_taken_never_starts() -> None:
    machine = running()
    machine.issue(a_step())
    feed(machine, ev.StepCompleted(seq=1, name="search"))
    start, _ = machine.take()
    assert not start


def test_what_runs_and_is_no_longer_wanted_is_stopped() -> None:
    machine = running()
    machine.issue(a_step())
    machine.take()
    machine.cancel(1)
    assert machine.open_commands() == []
    start, stop = machine.take()
    assert (seqs(start), seqs(stop)) == ([], [1])
    machine.cancel(1)  # it is gone: nothing happens
    assert [list(each) for each in machine.take()] == [[], []]


def test_an_answer_that_comes_in_the_commit_that_cancels_is_ignored() -> None:
    machine = running()
    machine.issue(a_step())
    machine.take()
    machine.cancel(1)
    answer = feed(machine, ev.StepCompleted(seq=1, name="search"))
    assert answer.effect is Effect.IGNORE  # type: ignore[attr-defined]
    _, stop = machine.take()
    assert not stop


def test_a_child_that_began_cannot_be_dropped() -> None:
    """Only asked to cancel: it exists."""
    machine = running()
    child = a_child()
    machine.issue(child)
    feed(machine, ev.ChildInitiated(seq=1, workflow="c", execution="c-1", run="r", input=NOTHING))
    machine.cancel(1)
    assert machine.open[1].state is State.STARTED
    assert machine.open_commands() == [child]


def test_deadlines_come_in_order_of_time_then_number() -> None:
    machine = running()
    for due_ms in (30, 10, 20, 10):
        machine.issue(timer(due_ms))
    assert machine.next_deadline_ms() == 10
    assert machine.due_timers(9) == []
    assert machine.due_timers(20) == [2, 4, 3]
    machine.cancel(2)
    assert machine.due_timers(20) == [4, 3]
    assert machine.next_deadline_ms() == 10
    feed(machine, ev.TimerFired(4))
    assert machine.next_deadline_ms() == 20
    machine.cancel(3)
    machine.cancel(1)
    assert machine.next_deadline_ms() is None
    assert machine.due_timers(1_000) == []


def test_timeouts_that_were_not_needed_take_no_memory() -> None:
    """A workflow may put a timeout of a day around each of a million steps."""
    machine = running()
    kept = machine.issue(timer(1_000_000))
    for due_ms in range(10_000, 11_000):
        machine.cancel(machine.issue(timer(due_ms)))
        machine.take()
    assert len(machine.timers) < 100
    assert machine.next_deadline_ms() == 1_000_000
    assert machine.due_timers(2_000_000) == [kept]


def test_logical_time_never_goes_back() -> None:
    machine = running()
    assert machine.now_ms == 1_000
    feed(machine, ev.CancelRequested("m"), at_ms=900)
    assert machine.now_ms == 1_000


def test_positions_have_no_holes() -> None:
    machine = running()
    with pytest.raises(CorruptJournal, match="event 7 stands where 2 should"):
        machine.feed(ev.Recorded(7, 0, ev.CancelRequested("m")))


def test_messages_from_outside_are_recognised_by_their_id() -> None:
    machine = running()
    signal = ev.SignalReceived("m-1", "go", NOTHING)
    assert machine.accepts(signal)
    feed(machine, signal)
    assert not machine.accepts(signal)
    assert not machine.accepts(ev.CancelRequested("m-1"))
    assert machine.accepts(ev.CancelRequested("m-2"))


def test_a_run_starts_once() -> None:
    started = ev.ExecutionStarted(workflow="w", run="r", input=NOTHING)
    assert Machine().accepts(started)
    assert not running().accepts(started)


def test_answers_are_accepted_while_their_command_is_known() -> None:
    machine = running()
    machine.issue(a_step())
    assert machine.accepts(ev.StepCompleted(seq=1, name="search"))
    assert not machine.accepts(ev.StepCompleted(seq=2, name="search"))


def test_messages_between_executions_are_counted_both_ways() -> None:
    """The receiver remembers the last number of each sender's run, the sender how many it sent to each receiver."""
    machine = running()
    feed(machine, ev.SignalReceived("m-1", "go", NOTHING, "x-2", "run-2", 1))
    feed(machine, ev.CancelRequested("m-2", "", "run-2", 2))
    feed(machine, ev.SignalReceived("m-3", "go", NOTHING, "x-3", "run-3", 1))
    assert machine.received == {"run-2": 2, "run-3": 1}
    assert machine.seen_messages == set()
    for _ in range(2):
        seq = machine.issue(a_signal())
        feed(machine, ev.MessageSent(seq=seq, kind="signal", receiver="x-2", name="go"))
    assert machine.sent == {"x-2": 2}


def test_what_the_journal_tells_of_attempts_reaches_the_command() -> None:
    """Whoever runs the step next continues its count, its back-off and its progress."""
    machine = running()
    command = a_step()
    machine.issue(command)
    progress = ev.Payload(b"\x05")
    feed(
        machine,
        ev.StepAttemptFailed(seq=1, name="search", attempt=2, retry_at_ms=77, spent_ms=60, progress=progress),
    )
    assert (command.attempt, command.retry_at_ms, command.spent_ms, command.progress) == (2, 77, 60, progress)
    assert machine.open_commands() == [command]


def test_the_end_that_is_recorded_must_be_the_end_that_the_code_reached() -> None:
    closes: list[tuple[CloseRun, ev.AnyEvent]] = [
        (CloseRun(result=NOTHING), ev.ExecutionCompleted(NOTHING)),
        (CloseRun(failure=ev.FailureInfo("E", "")), ev.ExecutionFailed(ev.FailureInfo("E", ""))),
        (CloseRun(cancelled=True), ev.ExecutionCancelled()),
    ]
    for close, _ in closes:
        for other, event in closes:
            machine = running()
            machine.issue(msgspec.structs.replace(close))
            machine.issue(a_step())  # of a background task, behind it
            if type(close) is type(other) and close == other:
                feed(machine, event)
                assert machine.state is RunState.CLOSED
                assert machine.closed_by is event
            else:
                with pytest.raises(NondeterminismError):
                    feed(machine, event)


def test_terminating_needs_no_agreement_of_the_code() -> None:
    machine = running()
    machine.issue(a_step())
    feed(machine, ev.ExecutionTerminated("now"))
    assert machine.state is RunState.CLOSED


def test_digests_are_compared_only_under_the_same_code() -> None:
    event = ev.StepCompleted(seq=1, name="search", digest=b"other")
    same, other = running("code-1"), running("code-2")
    for machine in (same, other):
        machine.issue(a_step())
    with pytest.raises(NondeterminismError, match="input digest"):
        feed(same, event, fingerprint="code-1")
    feed(other, event, fingerprint="code-1")
    assert len(other.drifts) == 1


@pytest.mark.parametrize(
    ("command", "event"),
    [
        (a_child, ev.ChildInitiated(1, "c", "c-1", "r", NOTHING, digest=b"other")),
        (a_signal, ev.MessageSent(1, "signal", "x-2", "go", NOTHING, digest=b"other")),
    ],
)
def test_digests_of_children_and_messages_are_compared_likewise(
    command: Callable[[], AnyCommand], event: ev.AnyEvent
) -> None:
    same, other, unknown = running("code-1"), running("code-2"), running("code-1")
    for machine in (same, other, unknown):
        machine.issue(command())
    with pytest.raises(NondeterminismError, match="input digest"):
        feed(same, event, fingerprint="code-1")
    feed(other, event, fingerprint="code-1")
    assert len(other.drifts) == 1
    feed(unknown, msgspec.structs.replace(event, digest=b""), fingerprint="code-1")
    assert unknown.drifts == []


def test_unknown_numbers_are_nondeterminism_and_answered_ones_damage() -> None:
    machine = running()
    machine.issue(a_step())
    feed(machine, ev.StepCompleted(seq=1, name="search"))
    with pytest.raises(CorruptJournal, match="a second time"):
        feed(machine, ev.StepCompleted(seq=1, name="search"))
    with pytest.raises(NondeterminismError):
        feed(machine, ev.StepCompleted(seq=2, name="search"))


def test_commands_that_are_alike_are_told_apart_by_what_they_name() -> None:
    """A different step, child, receiver, kind or name of a message is a disagreement."""
    sent = ev.MessageSent(seq=1, kind="signal", receiver="x-2", name="go")
    child = ev.ChildInitiated(seq=1, workflow="c", execution="c-1", run="r", input=NOTHING)
    start = StartChild(workflow="c", execution="c-1", run="r", input=NOTHING, on_parent_close="cancel", target=None)
    others: list[tuple[AnyCommand, ev.AnyEvent]] = [
        (a_step("find"), ev.StepCompleted(seq=1, name="search")),
        (SendMessage(kind="cancel", receiver="x-2", name="go"), sent),
        (SendMessage(kind="signal", receiver="x-3", name="go"), sent),
        (SendMessage(kind="signal", receiver="x-2", name="stop"), sent),
        (msgspec.structs.replace(start, workflow="d"), child),
        (msgspec.structs.replace(start, execution="c-2"), child),
    ]
    for command, event in others:
        machine = running()
        machine.issue(command)
        with pytest.raises(NondeterminismError):
            feed(machine, event)


def test_in_a_pause_steps_may_end_and_nothing_else_happens() -> None:
    machine = running()
    machine.issue(a_step())
    machine.issue(timer(2_000))
    feed(machine, ev.PauseRequested("m-1", "too dear"), at_ms=1_500)
    for event in (ev.TimerFired(2), ev.SignalReceived("m-2", "go", NOTHING), ev.StepIntended(1, "search")):
        with pytest.raises(CorruptJournal, match="when the run was paused"):
            feed(machine, event)
    answer = feed(machine, ev.StepCompleted(1, "search", digest=b"d"), at_ms=1_600)
    assert answer.effect is Effect.RESOLVE  # type: ignore[attr-defined]
    feed(machine, ev.ResumeRequested("m-3"), at_ms=3_000)
    assert machine.due_timers(3_000) == [2]
    assert not machine.accepts(ev.PauseRequested("m-1"))
    assert not machine.accepts(ev.ResumeRequested("m-3"))
    assert machine.accepts(ev.PauseRequested("m-4"))


def test_a_run_that_never_began_may_be_cancelled_without_its_code() -> None:
    machine = Machine()
    feed(machine, ev.ExecutionStarted(workflow="w", run="r", input=NOTHING, start_at_ms=9_000))
    feed(machine, ev.ExecutionCancelled("not needed"))
    assert machine.state is RunState.CLOSED


def test_the_machine_knows_its_deadline_and_its_attributes() -> None:
    machine, acme, other = Machine(), ev.Attribute("text", "acme"), ev.Attribute("number", 2)
    started = ev.ExecutionStarted("w", "r", NOTHING, deadline_ms=5_000, grace_ms=100, attributes={"customer": acme})
    feed(machine, started)
    feed(machine, ev.ExecutionClaimed())
    assert (machine.facts.deadline_ms, machine.facts.overdue) == (5_000, False)
    feed(machine, ev.AttributesSet({"cents": other, "stage": acme}, ("customer",)))
    feed(machine, ev.AttributesSet(removed=("stage", "unknown")))
    assert machine.facts.attributes == {"cents": other}
    assert started.attributes == {"customer": acme}
    feed(machine, ev.DeadlinePassed(5_000, 5_250))
    assert (machine.facts.deadline_ms, machine.facts.overdue) == (5_250, True)
    assert running().facts.deadline_ms is None


# --- steps that are declared once ---


def intended(machine: Machine, seq: int = 1, attempt: int = 1) -> None:
    feed(machine, ev.StepIntended(seq=seq, name="search", attempt=attempt), at_ms=2_000)


def test_a_begun_step_is_handed_out_on_replay_as_whoever_began_it_may_be_gone() -> None:
    machine = running()
    machine.issue(a_step())
    intended(machine)
    start, _ = machine.take()
    assert [(command.seq, command.state) for command in start] == [(1, State.STARTED)]


def test_who_intended_a_step_itself_is_not_handed_it_a_second_time() -> None:
    machine = running()
    machine.issue(a_step())
    machine.take()
    intended(machine)
    assert [list(each) for each in machine.take()] == [[], []]


def test_what_is_unknown_is_not_handed_out() -> None:
    machine = running()
    machine.issue(a_step())
    intended(machine)
    feed(machine, ev.StepOutcomeUnknown(seq=1, name="search"))
    start, _ = machine.take()
    assert not start
    assert [command.state for command in machine.open_commands()] == [State.UNKNOWN]


def test_a_begun_step_that_is_cancelled_is_left_and_stays_until_it_is_known_what_it_did() -> None:
    machine = running()
    machine.issue(a_step())
    machine.take()
    intended(machine)
    machine.cancel(1)
    machine.cancel(1)  # again changes nothing
    start, stop = machine.take()
    assert (list(start), seqs(stop)) == ([], [1])
    assert (list(machine.open), [each.state for each in machine.left.values()]) == ([], [State.LEFT])
    feed(machine, ev.StepOutcomeUnknown(seq=1, name="search"))
    assert [each.state for each in machine.left.values()] == [State.LEFT_UNKNOWN]
    feed(machine, ev.StepCompleted(seq=1, name="search"))
    assert not machine.left


def test_a_left_step_is_handed_out_on_replay_and_not_stopped() -> None:
    machine = running()
    machine.issue(a_step())
    intended(machine)
    machine.cancel(1)
    start, stop = machine.take()
    assert (seqs(start), list(stop)) == ([1], [])


def test_an_unknown_step_that_is_cancelled_needs_no_stop() -> None:
    machine = running()
    machine.issue(a_step())
    machine.take()
    intended(machine)
    feed(machine, ev.StepOutcomeUnknown(seq=1, name="search"))
    machine.cancel(1)
    assert [list(each) for each in machine.take()] == [[], []]
    assert [each.state for each in machine.left.values()] == [State.LEFT_UNKNOWN]


def test_an_intent_that_came_with_its_cancellation_began_nothing() -> None:
    machine = running()
    machine.issue(a_step())
    machine.take()
    machine.cancel(1)
    intended(machine)
    _, stop = machine.take()
    assert seqs(stop) == [1]
    assert (machine.open, machine.left) == ({}, {})


def test_what_did_not_happen_is_started_again_even_if_it_was_unknown_before_this_process_came() -> None:
    machine = running()
    seq = machine.issue(a_step())
    intended(machine)
    feed(machine, ev.StepOutcomeUnknown(seq=seq, name="search"))
    machine.take()
    feed(machine, ev.StepAttemptFailed(seq=seq, name="search", attempt=1))
    command = machine.open[seq]
    assert isinstance(command, RunStep)
    assert (command.state, command.taken, command.attempt) == (State.OPEN, True, 1)


def test_a_step_remembers_where_its_intent_stands() -> None:
    machine = running()
    machine.issue(a_step())
    intended(machine)
    command = machine.open[1]
    assert isinstance(command, RunStep)
    assert command.intent is not None
    assert (command.intent.position, command.intent.at_ms) == (2, 2_000)


def test_a_child_that_has_begun_is_not_left_but_stays() -> None:
    machine = running()
    machine.issue(
        StartChild(workflow="w", execution="x", run="r", input=NOTHING, on_parent_close="cancel", target=None)
    )
    machine.take()
    feed(machine, ev.ChildInitiated(seq=1, workflow="w", execution="x", run="r", input=NOTHING))
    machine.cancel(1)
    assert (list(machine.open), machine.left) == ([1], {})
