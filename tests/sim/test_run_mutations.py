"""The simulator catches bugs of runs that follow each other, of forks and of rewinds: two of these it found itself."""

from __future__ import annotations

import msgspec
import pytest

from perdure.core import events as ev
from perdure.core.commands import CloseRun
from perdure.core.identity import derived_id
from perdure.core.machine import Machine
from perdure.runtime import branching, closing, succession
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


def test_children_that_go_on_beside_the_successor_of_their_run(monkeypatch):
    monkeypatch.setattr(branching, "_depends", lambda *_, **__: False)
    assert laws_broken("family") == "no child goes on beside a successor"


def test_children_whose_start_is_on_its_way_when_their_run_is_replaced(monkeypatch):
    """As it was: they were not there yet, and began beside those of the successor."""
    depends = branching._depends
    monkeypatch.setattr(branching, "_depends", lambda *given, **_: depends(*given, has_ended=True))
    assert laws_broken("deserter") == "no child goes on beside a successor"


def test_children_that_nobody_sees_to_when_their_parent_ends(monkeypatch):
    end = closing._last_mail
    monkeypatch.setattr(closing, "_last_mail", lambda *given: end(*given[:3], (), given[4]))
    assert laws_broken("deserter", branches=0) == "children are seen to"


def test_children_that_are_told_to_end_otherwise_than_was_said(monkeypatch):
    end = closing._end_child

    def harsh(outgoing, child, sender_run, number):
        earlier = ev.EarlierChild(child.execution, child.run, "terminate")
        return end(outgoing, earlier, sender_run, number)

    monkeypatch.setattr(closing, "_end_child", harsh)
    assert laws_broken("deserter", branches=0) == "children are seen to"


def test_children_that_are_forgotten_when_a_run_continues(monkeypatch):
    monkeypatch.setattr(succession, "_left", lambda *_: [])
    assert laws_broken("relay", branches=0) == "a run that continues hands its children on"


def test_messages_that_are_given_back_out_of_order(monkeypatch):
    """When a run continues, they stand in order in the journal of the one before: only that of the next one tells."""
    carried = succession._carried
    monkeypatch.setattr(succession, "_carried", lambda *given: carried(*given)[::-1])
    assert laws_broken("chain", branches=0) == "order per sender"


def test_messages_of_which_a_rewind_brings_back_only_the_latest(monkeypatch):
    """The others are dead letters, hence not lost; but no end left them behind."""
    move = MemoryRuns._move_letters

    def careless(self, key, before, received, carried):
        move(self, key, before, received, carried[-1:])
        for mail in carried[:-1]:
            self.bury(key, mail.message_id, mail.event)

    monkeypatch.setattr(MemoryRuns, "_move_letters", careless)
    assert laws_broken("approvals") == "order per sender"
