"""The simulator catches bugs: each rule, once removed, breaks a law within some seeds."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest

from perdure.core import events as ev
from perdure.core.machine import Machine
from perdure.core.patches import Patches
from perdure.core.table import RunState
from perdure.runtime import closing, driver, inbox, lease, pending, timing, worker
from perdure.runtime.driver import Driver
from perdure.runtime.outgoing import Outgoing
from perdure.runtime.pending import Pending
from perdure.runtime.steps import StepRunner
from perdure.store import memory, routing
from perdure.store.memory_runs import MemoryRuns
from perdure.store.memory_tables import MemoryTables
from perdure.store.protocol import AskRow, Outcome
from perdure.testing import deploys, simulation
from perdure.testing.ledger import Broken
from perdure.testing.sim import run_one
from perdure.testing.simulation import Profile, Simulation
from perdure.workflow import ordered
from perdure.workflow.calls import Call
from perdure.workflow.execution import Execution
from perdure.workflow.loop import DeterministicLoop

MOST_SEEDS = 120


@pytest.fixture(autouse=True)
def _quiet(caplog, monkeypatch):
    """Without forks and rewinds, under which some of these bugs show as something else: test_run_mutations.py."""
    caplog.set_level(100, logger="perdure")
    profile_of = simulation.profile_of
    monkeypatch.setattr(simulation, "profile_of", lambda seed, shape="": profile_of(seed, shape)._replace(branches=0))


def laws_broken(start: int = 0, seeds: int = MOST_SEEDS, shape: str = "") -> str:
    """The first law that breaks, or what else fails; empty if none does."""
    for seed in range(start, start + seeds):
        found = run_one(seed, shape)
        if not isinstance(found, Simulation):
            return found.law if isinstance(found, Broken) else f"{type(found).__name__}: {found}"
    return ""


def test_without_the_fence_two_workers_write_one_journal(monkeypatch):
    def unfenced(self, session, batches, advice=()):
        with self._writing() as tables:
            tables._session = session.session
            return routing.Router(tables, direct=self._direct).commit(batches, advice)

    monkeypatch.setattr(memory.MemoryStore, "commit", unfenced)
    monkeypatch.setattr(MemoryTables, "owns", lambda *_: True)
    monkeypatch.setattr(MemoryTables, "holds", lambda *_: True)
    assert laws_broken(seeds=300) in {"the journal only grows", "nothing follows the close"}


def test_starting_what_follows_before_the_commit_is_seen(monkeypatch):
    """As if values were visible first and durable second."""
    hand_over = worker.Worker._hand_over

    def eager(self):
        first = [entry for entry in self._outgoing if entry[0].create is not None]
        rest = [entry for entry in self._outgoing if entry[0].create is None]
        for _, done in rest:
            asyncio.get_running_loop().call_soon(done, Outcome.COMMITTED)
        self._outgoing = first + [(batch, lambda _: None) for batch, _ in rest]
        hand_over(self)

    monkeypatch.setattr(worker.Worker, "_hand_over", eager)
    assert laws_broken(shape="sequence") in {"durable first, visible second", "the journal only grows"}


def test_a_timer_that_does_not_look_into_the_inbox_overtakes_a_message(monkeypatch):
    compose = Pending.compose

    def blind(self, *given):
        batch = compose(self, *given)
        if batch is not None:
            batch.inbox_seen = False
        return batch

    monkeypatch.setattr(Pending, "compose", blind)
    assert laws_broken() == "a timer fires only where the inbox was read"


def test_without_next_expected_numbers_a_message_counts_twice(monkeypatch):
    verdict = inbox._verdict

    def careless(machine, event, received, seen):
        if machine.state is RunState.PAUSED or isinstance(event, inbox._PAUSES):
            return verdict(machine, event, received, seen)
        return not isinstance(event, ev.CommandEvent) or event.seq in machine.open

    monkeypatch.setattr(inbox, "_verdict", careless)
    assert laws_broken() in {"each message once", "order per sender", "nothing stalls"}


def test_a_step_that_runs_again_after_its_result_is_seen(monkeypatch):
    begin = StepRunner.begin

    def twice(self, driver, command):
        begin(self, driver, command)
        self._loop.call_later(0.2, again, self, driver, command)

    def again(self, driver, command):
        if not driver.dead and command.seq not in driver.attempts:
            self._launch(driver, command)

    monkeypatch.setattr(StepRunner, "begin", twice)
    assert laws_broken() == "a journaled step never runs again"


def test_an_answer_that_is_taken_twice_is_seen(monkeypatch):
    """As if tokens worked more than once."""

    def careless(self, key, run, seq, message_id):
        return (key, run, seq) in self._world.asks

    monkeypatch.setattr(MemoryTables, "claim_ask", careless)
    assert laws_broken(shape="asks") == "a question has one answer"


def test_an_answer_that_is_taken_after_its_time_is_seen(monkeypatch):
    """As if a question were closed only when the code has seen that its time is over."""
    monkeypatch.setattr(pending, "expired", lambda *_: [])
    monkeypatch.setattr(AskRow, "is_open", lambda self, _: not self.message_id)
    assert laws_broken(shape="asks", seeds=600) == "a question whose time is over has no answer"


def test_a_question_that_stays_listed_is_seen(monkeypatch):
    monkeypatch.setattr(MemoryTables, "end_asks", lambda *_: None)
    assert laws_broken(shape="asks") == "a question is listed while it is open"


def test_a_call_with_other_arguments_than_were_shown_is_seen(monkeypatch):
    def careless(self):
        self._args = ("something else", 20)
        return self.step(*self._args)

    monkeypatch.setattr(Call, "__call__", careless)
    assert laws_broken(shape="asks") == "a call runs as it was shown"


def test_a_retry_of_a_cancelled_step_is_seen(monkeypatch):
    def forgetful(self, seq):
        self._retries.pop(seq, None)
        if seq in self.attempts:
            self.host.steps.stop(self, seq)

    monkeypatch.setattr(Driver, "_stop", forgetful)
    assert laws_broken(seeds=600) == "nothing stalls"


def test_an_order_that_chance_decides_is_seen(monkeypatch):
    rng = random.Random(5)
    call_soon = DeterministicLoop.call_soon

    def sometimes_first(self, callback, *args, context=None):
        handle = call_soon(self, callback, *args, context=context)
        if rng.random() < 0.2:
            self._ready.rotate(1)
        return handle

    monkeypatch.setattr(DeterministicLoop, "call_soon", sometimes_first)
    assert laws_broken() in {"replay is a fixed point", "nothing stalls", "a command keeps its name, key and arguments"}


def test_commands_taken_before_everything_is_fed_are_seen(monkeypatch):
    monkeypatch.setattr(driver, "EVENTS_PER_TURN", 1)

    def hasty(self):
        self._scheduled = False
        if self.dead or self._committing is not None:
            return
        self._feed_some()
        if self.machine.closed_by is not None:
            self.host.closed(self, self.machine.closed_by)
            return
        start, stop = self.execution.take()
        for command in stop:
            self._stop(command.seq)
        for command in start:
            self._start(command)
        if self._feeding:
            self.poke()
        else:
            self._advance()

    monkeypatch.setattr(Driver, "turn", hasty)
    assert laws_broken() != ""


def test_time_that_goes_back_with_the_clock_is_seen(monkeypatch):
    compose = Driver._compose

    def raw(self):
        batch = compose(self)
        if batch is not None:
            now_ms = self.host.now_ms()
            batch.events = [ev_with(new, now_ms) for new in batch.events]
        return batch

    def ev_with(new, now_ms):
        return msgspec.structs.replace(new, at_ms=now_ms)

    monkeypatch.setattr(Driver, "_compose", raw)
    assert laws_broken() == "logical time never goes back"


def test_a_close_that_forgets_the_inbox_loses_messages(monkeypatch):
    monkeypatch.setattr(routing, "worth_keeping", lambda *_: False)
    assert laws_broken(shape="chatter") in {"no acknowledged message is lost", "no sent message is lost"}


def test_a_child_that_does_not_answer_its_parent_is_seen(monkeypatch):
    end = closing.closing_mail
    for module in (timing, closing):
        monkeypatch.setattr(module, "closing_mail", lambda outgoing, _parent, *rest: end(outgoing, None, *rest))
    assert laws_broken(shape="family", seeds=10) in {"everything terminates", "a parent hears of its child's end"}


def test_a_worker_that_goes_on_after_its_lease_repeats_steps(monkeypatch):
    monkeypatch.setattr(lease.Holding, "lapsed", lambda *_: False)
    monkeypatch.setattr(simulation, "FREEZE_AFTER_COMMIT", 0.3)
    profile = Profile(workers=3, executions=4, shapes=("sequence",), lease_ms=1_500, troubles=("freeze",), signals=0)

    def run_many():
        for seed in range(300):
            Simulation(seed, profile).run()

    with pytest.raises(Broken, match="a journaled step never runs again"):
        run_many()


def test_an_outbox_that_is_overtaken_breaks_the_order(monkeypatch):
    monkeypatch.setattr(MemoryTables, "queued", lambda *_: False)
    monkeypatch.setattr(routing.Router, "post", flaky_post())
    assert laws_broken(shape="chatter") != ""


def flaky_post():
    rng = random.Random(1)

    def post(self, parcel):
        if rng.random() < 0.5:
            self.hand_over(parcel)
        else:
            self.tables.queue(parcel)

    return post


def test_sets_that_iterate_by_chance_are_seen(monkeypatch):
    rng = random.Random(9)
    items = ordered.OrderedSet.__iter__

    def scattered(self):
        found = list(items(self))
        rng.shuffle(found)
        return iter(found)

    monkeypatch.setattr(ordered.OrderedSet, "__iter__", scattered)
    assert laws_broken(shape="harvest") != ""


def test_random_numbers_that_are_not_the_runs_own_are_seen(monkeypatch):
    shared = random.Random(3)
    apply = Execution._apply_run_event

    def reseeded(self, event):
        apply(self, event)
        if isinstance(event, ev.ExecutionStarted):
            self.random.seed(shared.random())

    monkeypatch.setattr(Execution, "_apply_run_event", reseeded)
    assert laws_broken(shape="timers", seeds=20) in {"nothing stalls", "replay is a fixed point"}


def test_a_second_answer_is_refused_by_the_machine_and_seen(monkeypatch):
    monkeypatch.setattr(Machine, "accepts", lambda *_: True)
    assert laws_broken(seeds=300) != ""


def test_terminating_children_that_were_asked_to_cancel(monkeypatch):
    monkeypatch.setattr(Outgoing, "asked_to_cancel", lambda _: set())
    count = Machine._count_message

    def forgetful(self, event):
        count(self, event)
        self.asked_to_cancel.clear()

    monkeypatch.setattr(Machine, "_count_message", forgetful)
    assert laws_broken(shape="breakup") == "who is asked to cancel may clean up"


def test_starting_steps_in_a_pause(monkeypatch):
    advance = Driver._advance

    def careless(self):
        if self.machine.state is RunState.PAUSED and self.machine.fresh:
            self._do(*self.execution.take())
        advance(self)

    monkeypatch.setattr(Driver, "_advance", careless)
    assert laws_broken(shape="sequence") in {"no step begins in a pause", "replay is a fixed point"}


def test_not_looking_for_the_end_of_a_pause(monkeypatch):
    monkeypatch.setattr(Driver, "_pause_or_go_on", lambda self: setattr(self, "paused", not self.paused))
    monkeypatch.setattr(routing, "wakes", lambda receiver, _: receiver.status != "paused")
    assert laws_broken(shape="approvals") == "everything terminates"


def test_a_patch_that_is_taken_where_old_code_has_been(monkeypatch):
    monkeypatch.setattr(Patches, "has", lambda self, name, _: self._answers.get(name, True))
    assert laws_broken(shape="renewed") == "nothing stalls"


def test_a_patch_that_is_not_written_down(monkeypatch):
    monkeypatch.setattr(Pending, "_marks", lambda self: self._machine.facts.patches.unwritten.clear() or [])
    broken = {"nothing stalls", "replay is a fixed point", "a change of code is taken wholly or not at all"}
    assert laws_broken(shape="renewed") in broken


def test_a_patch_that_each_place_answers_for_itself(monkeypatch):
    """Replay is none the wiser: only the law of changes tells."""
    ask = Patches.ask
    monkeypatch.setattr(Patches, "ask", lambda self, name, seq: ask(self, f"{name} {seq}", seq))
    monkeypatch.setattr(deploys, "marks_of", lambda _: {deploys.BRANCHES, deploys.LOOP})
    for seed in range(MOST_SEEDS):
        found = run_one(seed, "renewed")
        if isinstance(found, Broken) and "old" in str(found) and "new" in str(found):
            assert found.law == "a change of code is taken wholly or not at all"
            return
    raise AssertionError("no seed met both ways")


def test_dead_letters_to_nobody_that_stay_for_ever(monkeypatch):
    monkeypatch.setattr(MemoryRuns, "remove_strays", lambda *_: None)
    assert laws_broken(shape="knocker", seeds=20) == "nothing is left of what is removed"


def test_a_child_that_stays_though_its_parent_has_ended(monkeypatch):
    needed = MemoryRuns.is_needed
    monkeypatch.setattr(MemoryRuns, "is_needed", lambda self, row: bool(row.parent_id) or needed(self, row))
    assert laws_broken(shape="family", seeds=5) == "nothing is left of what is removed"


def test_a_past_run_that_takes_the_current_one_with_it(monkeypatch):
    remove = MemoryRuns.remove_run

    def too_much(self, key, run):
        remove(self, key, run)
        self._world.journals[self._world.numbers[key]] = []

    monkeypatch.setattr(MemoryRuns, "remove_run", too_much)
    assert laws_broken(shape="chain", seeds=5) == "the current run stays whole"


def test_a_past_run_that_goes_without_its_events(monkeypatch):
    def too_little(self, key, run):
        self._world.past[key].remove(run)

    monkeypatch.setattr(MemoryRuns, "remove_run", too_little)
    assert laws_broken(shape="chain", seeds=5) == "nothing is left of what is removed"
