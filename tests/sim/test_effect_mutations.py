"""The simulator catches bugs about effects: each rule, once removed, breaks a law within some seeds."""

from __future__ import annotations

import pytest
from tests.sim.test_mutations import laws_broken

from perdure.core import machine
from perdure.core.commands import State
from perdure.core.machine import Machine
from perdure.runtime.asking import Asking
from perdure.runtime.attempt import StepRun
from perdure.runtime.effects import Effects
from perdure.runtime.steps import StepRunner
from perdure.store.memory_tables import MemoryTables

TWICE = "what is declared once happens at most once"
TRUE = "what is recorded of an effect is what happened"
LISTED = "what nobody knows is listed until it is settled"


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(100, logger="perdure")


def test_a_begun_step_that_is_run_again_blindly_happens_twice(monkeypatch):
    def blind(self, command, _doubt):
        self.host.steps.begin(self.owner, command)

    monkeypatch.setattr(Effects, "_wonder", blind)
    assert laws_broken(shape="payments", seeds=300) == TWICE


def test_a_call_before_its_intent_is_durable_is_seen(monkeypatch):
    intend = Effects._intend

    def hasty(self, command):
        intend(self, command)
        self._intended.discard(command.seq)
        self.host.steps.begin(self.owner, command)

    monkeypatch.setattr(Effects, "_intend", hasty)
    assert laws_broken(shape="payments") in {"an effect is intended before it happens", "nothing stalls"}


def test_an_exception_that_is_not_listed_proves_nothing(monkeypatch):
    monkeypatch.setattr(StepRun, "surely_not", lambda *_: True)
    assert laws_broken(shape="payments") in {TWICE, TRUE}


def test_did_not_happen_that_is_believed_too_early_lets_it_happen_twice(monkeypatch):
    """The worker died, or was frozen, with an order on its way; another one asks before it arrives, and repeats it."""
    monkeypatch.setattr(Asking, "_is_over", lambda _: True)
    assert laws_broken(shape="reconciled") in {TWICE, TRUE}


def test_a_cancelled_step_whose_end_nobody_hears_is_seen(monkeypatch):
    def silent(self, driver, seq):
        self.stop(driver, seq)
        return True

    monkeypatch.setattr(StepRunner, "leave", silent)
    assert laws_broken(shape="hurried") == "everything terminates"


def test_a_cancelled_step_that_is_forgotten_vanishes(monkeypatch):
    def forgetful(self, seq):
        command = self.open.get(seq)
        if command is not None and command.state in (State.OPEN, State.STARTED, State.UNKNOWN):
            command.state = State.CANCELLED
            self.dropped.append(command)

    monkeypatch.setattr(Machine, "cancel", forgetful)
    assert laws_broken(shape="hurried") != ""


def test_begun_steps_that_replay_does_not_hand_out_are_seen(monkeypatch):
    monkeypatch.setattr(machine, "_BEGUN", frozenset())
    assert laws_broken(shape="payments") == "everything terminates"


def test_what_is_not_listed_is_seen(monkeypatch):
    monkeypatch.setattr(MemoryTables, "put_unresolved", lambda *_: None)
    assert laws_broken(shape="payments") in {LISTED, "everything terminates"}


def test_what_is_listed_for_ever_is_seen(monkeypatch):
    monkeypatch.setattr(MemoryTables, "end_unresolved", lambda *_: None)
    assert laws_broken(shape="payments") != ""


def test_a_termination_that_does_not_tell_what_was_running_is_seen(monkeypatch):
    monkeypatch.setattr(Effects, "last_words", lambda *_: [])
    assert laws_broken(shape="payments", seeds=400) == "what had begun does not vanish"


def test_an_answer_for_another_attempt_is_no_answer(monkeypatch):
    """As if people's answers were not about an attempt, but about a step."""
    claim = MemoryTables.claim_unresolved

    def careless(self, key, answer):
        known = self._world.unresolved.get((key, answer.run, answer.seq))
        attempt = answer.attempt if known is None else known.attempt
        return claim(self, key, type(answer)(**{**_fields(answer), "attempt": attempt}))

    monkeypatch.setattr(MemoryTables, "claim_unresolved", careless)
    monkeypatch.setattr(Effects, "_waits_for", lambda _self, _answer, command: "unknown" in command.state.value)
    assert laws_broken(shape="payments", seeds=600) != ""


def _fields(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__}
