"""Pauses in a store: what is paused stays so whatever arrives, until somebody asks for its end; held by every store."""

from __future__ import annotations

import pytest

from perdure.core import events as ev
from perdure.store.protocol import Outcome, Park

PAUSE, RESUME, TERMINATE = ev.PauseRequested("p"), ev.ResumeRequested("r"), ev.TerminateRequested("t")


def pause(lab, name, position=2):
    lab.commit(advice=[Park(lab.key(name), f"run-{name}", position, "paused", waits_for="resume")])


def ready(lab):
    return [row.key.execution for row in lab.store.ready(lab.session, lab.clock.now_ms, None, 100)]


def test_what_is_paused_is_not_ready_though_letters_arrive(lab):
    lab.create("a")
    pause(lab, "a")
    assert (lab.row("a").status, lab.row("a").waits_for) == ("paused", "resume")
    lab.store.deposit(mail=[lab.mail("a"), lab.mail("a", ev.CancelRequested("c"))])
    lab.create("b")
    lab.send("b", lab.mail("a"))
    assert lab.row("a").status == "paused"
    assert ready(lab) == ["b"]
    assert len(lab.inbox("a")) == 3


@pytest.mark.parametrize("request_", [PAUSE, RESUME, TERMINATE], ids=lambda each: type(each).__name__)
def test_a_request_wakes_it(lab, request_):
    lab.create("a")
    pause(lab, "a")
    lab.store.deposit(mail=[lab.mail("a", request_)])
    assert lab.row("a").status == "active"
    assert ready(lab) == ["a"]


@pytest.mark.parametrize("request_", [PAUSE, RESUME, TERMINATE], ids=lambda each: type(each).__name__)
def test_advice_to_pause_does_not_hide_a_request_that_came_before_it(lab, request_):
    lab.create("a")
    lab.store.deposit(mail=[lab.mail("a"), lab.mail("a", request_)])
    pause(lab, "a")
    assert lab.row("a").status == "active"


def test_an_execution_pauses_while_other_letters_wait(lab):
    lab.create("a")
    lab.store.deposit(mail=[lab.mail("a")])
    pause(lab, "a")
    assert lab.row("a").status == "paused"


def test_advice_to_pause_does_not_hide_a_stall_and_one_at_another_position_is_void(lab):
    lab.create("a", "b")
    lab.commit(advice=[Park(lab.key("a"), "run-a", 2, "stalled", problem="bug")])
    pause(lab, "a")
    pause(lab, "b", position=1)
    assert (lab.row("a").status, lab.row("b").status) == ("stalled", "active")


def test_a_commit_makes_it_active_and_a_close_closes_it(lab):
    lab.create("a", "b")
    pause(lab, "a")
    pause(lab, "b")
    lab.commit(lab.batch("a", ev.TimerFired(1)), lab.batch("b", ev.ExecutionTerminated(), closes="terminated"))
    assert (lab.row("a").status, lab.row("b").status) == ("active", "terminated")


def test_many_letters_do_not_hide_a_request(lab):
    lab.create("a")
    lab.store.deposit(mail=[lab.mail("a") for _ in range(30)])
    lab.store.deposit(mail=[lab.mail("a", each) for each in (PAUSE, RESUME)])
    lab.store.deposit(mail=[lab.mail("a"), lab.mail("a", TERMINATE)])
    assert [each.event for each in lab.store.requests(lab.key("a"), 10)] == [PAUSE, RESUME, TERMINATE]
    assert [each.event for each in lab.store.requests(lab.key("a"), 2)] == [PAUSE, RESUME]
    assert [each.arrival for each in lab.store.requests(lab.key("a"), 10)] == [31, 32, 34]
    assert lab.store.requests(lab.key("b"), 10) == []


def test_resuming_puts_a_request_where_there_may_be_a_pause_to_end(lab):
    lab.create("paused", "active", "parked", "closed")
    pause(lab, "paused")
    lab.commit(advice=[Park(lab.key("parked"), "run-parked", 2)])
    lab.close("closed")
    names = ("paused", "active", "parked", "closed", "nobody")
    found = [lab.store.resume(lab.key(name), "r1") for name in names]
    assert [each.status for each in found] == ["accepted", "accepted", "accepted", "closed", "missing"]
    assert [lab.inbox(name) for name in names] == [[ev.ResumeRequested("r1")]] * 2 + [[]] * 3
    assert [lab.row(name).status for name in names[:4]] == ["active", "active", "parked", "completed"]


def test_resuming_twice_with_one_id_is_once_and_without_an_id_only_a_stall_ends(lab):
    lab.create("a", "b")
    pause(lab, "a")
    pause(lab, "b")
    lab.store.resume(lab.key("a"), "r1")
    lab.store.resume(lab.key("a"), "r1")
    assert lab.inbox("a") == [ev.ResumeRequested("r1")]
    assert lab.store.resume(lab.key("b")).status == "accepted"
    assert (lab.row("b").status, lab.inbox("b")) == ("paused", [])


def test_resuming_what_stalled_in_a_pause_ends_both(lab):
    lab.create("a")
    pause(lab, "a")
    lab.commit(advice=[Park(lab.key("a"), "run-a", 2, "stalled", problem="bug")])
    assert lab.row("a").status == "stalled"
    lab.store.resume(lab.key("a"), "r1")
    assert lab.row("a").status == "active"
    assert lab.inbox("a") == [ev.ResumeRequested("r1")]


def test_requests_that_wait_at_a_close_are_moot(lab):
    lab.create("a")
    lab.store.deposit(mail=[lab.mail("a", each) for each in (PAUSE, RESUME, TERMINATE)])
    lab.close("a")
    assert lab.dead("a") == []


def test_what_is_paused_survives_the_death_of_its_worker(lab):
    lab.create("a", "b")
    pause(lab, "a")
    lab.reopen()
    assert [(lab.row(name).status, lab.row(name).recoveries) for name in "ab"] == [("paused", 0), ("active", 1)]
    assert lab.commit(lab.batch("a", ev.TimerFired(1))).outcomes == [Outcome.COMMITTED]
