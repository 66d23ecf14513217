"""The simulator catches bugs of runs that follow each other, of forks and of rewinds: two of these it found itself."""

from __future__ import annotations

import msgspec
import pytest

from perdure.core import events as ev
from perdure.core.commands import CloseRun
from perdure.core.identity import derived_id
from perdure.core.machine import Machine
from perdure.runtime import branching, succession
from perdure.store.memory_runs import MemoryRuns
from perdure.testing.ledger import Broken
from perdure.testing.simulation import Simulation, profile_of
from perdure.workflow.context import Attempt
from perdure.workflow.execution import Execution

MOST_SEEDS = 200


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(100, logger="perdure")


def laws_broken(shape: str, *, branches: int = 5, signals: int = 8) -> str:
    """The first law that breaks, or what else fails; empty if none does."""
    for seed in range(MOST_SEEDS):
        try:
            Simulation(seed, profile_of(seed, shape)._replace(branches=branches, signals=signals)).run()
        except Broken as broken:
            return broken.law
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the finding
            return f"{type(error).__name__}: {error}"
    return ""


def test_messages_that_a_run_leaves_behind(monkeypatch):
    monkeypatch.setattr(succession, "_carried", lambda *_: [])
    assert laws_broken("chain", branches=0) == "what was not received goes on"


def test_messages_that_a_rewind_leaves_behind(monkeypatch):
    monkeypatch.setattr(branching, "_carried", lambda *_: iter(()))
    assert laws_broken("approvals") == "no acknowledged message is lost"


def test_messages_that_were_received_before_and_given_back(monkeypatch):
    """As it was: a run that ended before it journaled them passed them by."""
    move = MemoryRuns._move_letters

    def forgetful(self, key, before, received, carried):
        earlier = [message_id for of, message_id in self._world.received if of == key]
        move(self, key, before, [*received, *earlier], carried)

    monkeypatch.setattr(MemoryRuns, "_move_letters", forgetful)
    assert laws_broken("chain") in {"no acknowledged message is lost", "what was not received goes on"}


def test_the_next_run_of_a_copy_that_was_named_before_the_cut(monkeypatch):
    """As it was: it had the id of the run that followed the original."""
    become = Execution._become

    def stubborn(self, event):
        close = [command for command in self.machine.open.values() if isinstance(command, CloseRun)]
        named = [command.continues for command in close]
        become(self, event)
        for command, continues in zip(close, named, strict=True):
            command.continues = continues

    monkeypatch.setattr(Execution, "_become", stubborn)
    assert laws_broken("relay", signals=0) != ""


def test_keys_that_do_not_tell_runs_apart(monkeypatch):
    by_execution = property(lambda self: derived_id("step", self.execution, "", self.seq))
    monkeypatch.setattr(Attempt, "idempotency_key", by_execution)
    assert laws_broken("sequence") == "a key is of one step of one run"
    assert laws_broken("chain", branches=0) == "a key is of one step of one run"


def test_a_copy_in_which_a_child_is_still_awaited(monkeypatch):
    monkeypatch.setattr(branching, "_open", lambda _: {})
    assert laws_broken("family") != ""


def test_a_copy_that_is_not_one(monkeypatch):
    copy = branching._as_copied

    def sloppy(asked, recorded, result):
        recorded = copy(asked, recorded, result)
        if isinstance(recorded.event, ev.StepCompleted):
            event = msgspec.structs.replace(recorded.event, location="elsewhere")
            recorded = msgspec.structs.replace(recorded, event=event)
        return recorded

    monkeypatch.setattr(branching, "_as_copied", sloppy)
    assert laws_broken("sequence") == "a copy is what it is a copy of"


def test_numbers_of_senders_that_are_kept_over_a_rewind(monkeypatch):
    count = Machine._count_message
    monkeypatch.setattr(
        Machine, "_count_message", lambda self, event: None if isinstance(event, ev.RunForked) else count(self, event)
    )
    assert laws_broken("knocker") != ""
