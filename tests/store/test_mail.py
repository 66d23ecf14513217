"""What goes from one execution to another, or comes from outside: delivery, order, bounces, dead letters, children."""

from __future__ import annotations

import pytest

from perdure.core import events as ev
from perdure.store.protocol import Outcome, Park

COMMITTED = Outcome.COMMITTED


def park(lab, name, status="parked"):
    position = lab.row(name).position
    lab.commit(advice=[Park(lab.key(name), f"run-{name}", position, status, wake_at_ms=10**14, problem="")])


# --- delivery ---


def test_mail_arrives_and_wakes_its_receiver(lab):
    lab.create("a", "b")
    park(lab, "b")
    mail = lab.mail("b")
    assert lab.send("a", mail) == [lab.key("b")]
    assert lab.inbox("b") == [mail.event]
    assert lab.row("b").status == "active"


def test_an_active_receiver_is_told_of_too(lab):
    lab.create("a", "b")
    assert lab.send("a", lab.mail("b")) == [lab.key("b")]


def test_a_stalled_receiver_keeps_its_mail_and_is_not_woken(lab):
    lab.create("a", "b")
    park(lab, "b", "stalled")
    assert lab.send("a", lab.mail("b")) == []
    assert (len(lab.inbox("b")), lab.row("b").status) == (1, "stalled")


def test_a_delivered_message_answers_its_sender(lab):
    lab.create("a", "b")
    woken = lab.send("a", lab.mail("b", seq=3))
    assert lab.inbox("a") == [ev.MessageDelivered(3)]
    assert set(woken) == {lab.key("a"), lab.key("b")}


def test_mail_that_nobody_waits_for_an_answer_of_is_not_answered(lab):
    lab.create("a", "b")
    lab.send("a", lab.mail("b"), lab.mail("nobody"))
    assert lab.inbox("a") == []


def test_messages_of_one_sender_arrive_in_the_order_of_sending(lab):
    lab.create("a", "b")
    mail = [lab.mail("b") for _ in range(20)]
    lab.commit(lab.batch("a", mail=mail[:5]), lab.batch("a", mail=mail[5:10]))
    while lab.store.deliver(lab.session, 3):
        pass
    lab.commit(lab.batch("a", mail=mail[10:]))
    lab.deliver()
    assert lab.inbox("b") == [each.event for each in mail]


def test_deliver_moves_no_more_than_it_is_told(lab):
    lab.create("a", "b")
    lab.commit(lab.batch("a", mail=[lab.mail("b") for _ in range(5)]))
    before = len(lab.inbox("b"))
    lab.store.deliver(lab.session, 2)
    assert len(lab.inbox("b")) == min(5, before + 2)


def test_mail_to_an_execution_created_earlier_in_the_commit_arrives(lab):
    lab.create("a")
    create = lab.batch("b", lab.start("b").event, create=lab.start("b"))
    mail = lab.mail("b")
    lab.commit(create, lab.batch("a", mail=[mail]))
    lab.deliver()
    assert lab.inbox("b") == [mail.event]


def test_an_execution_may_write_to_itself(lab):
    lab.create("a")
    mail = lab.mail("a", seq=1)
    lab.send("a", mail)
    assert lab.inbox("a") == [mail.event, ev.MessageDelivered(1)]


def test_mail_finds_the_receiver_as_an_earlier_batch_of_the_commit_left_it(lab):
    lab.create("a", "b")
    park(lab, "b", "stalled")
    found = lab.commit(lab.batch("b", ev.TimerFired(1)), lab.batch("a", mail=[lab.mail("b")]))
    assert lab.key("b") in [*found.woken, *lab.deliver()]
    assert lab.row("b").status == "active"


# --- bounces ---


def test_a_signal_to_nobody_bounces_and_is_kept_as_a_dead_letter(lab):
    lab.create("a")
    mail = lab.mail("nobody", seq=4)
    assert lab.send("a", mail) == [lab.key("a")]
    assert lab.inbox("a") == [ev.MessageFailed(4, "no execution has this id")]
    assert lab.dead("nobody") == [mail.event]


def test_a_signal_to_a_closed_execution_bounces_and_is_kept_as_a_dead_letter(lab):
    lab.create("a", "b")
    lab.close("b")
    mail = lab.mail("b", seq=4)
    lab.send("a", mail)
    assert lab.inbox("a") == [ev.MessageFailed(4, "the execution is closed (completed)")]
    assert (lab.inbox("b"), lab.dead("b")) == ([], [mail.event])


def test_a_dead_letter_is_kept_once(lab):
    lab.create("a")
    mail = lab.mail("nobody")
    lab.send("a", mail)
    lab.send("a", mail)
    assert lab.dead("nobody") == [mail.event]


@pytest.mark.parametrize(
    "moot", [ev.TerminateRequested("t"), ev.CancelRequested("c"), ev.ChildClosed(1, "x", "failed")]
)
def test_requests_and_answers_to_a_closed_execution_are_moot(lab, moot):
    lab.create("a", "b")
    lab.close("b")
    lab.send("a", lab.mail("b", moot))
    assert lab.inbox("b") == lab.dead("b") == []


def test_mail_for_another_run_is_dropped_and_its_sender_told(lab):
    lab.create("a", "b")
    lab.send("a", lab.mail("b", receiver_run="older", seq=1), lab.mail("b", receiver_run="older"))
    assert lab.inbox("b") == lab.dead("b") == []
    assert lab.inbox("a") == [ev.MessageFailed(1, "that run is over")]


def test_mail_for_the_current_run_arrives(lab):
    lab.create("a", "b")
    lab.send("a", lab.mail("b", receiver_run="run-b"))
    assert len(lab.inbox("b")) == 1


def test_an_answer_to_a_sender_that_has_closed_is_moot(lab, nothing):
    lab.create("a", "b")
    mail = [lab.mail("b", seq=1), lab.mail("nobody", seq=2)]
    lab.send("a", *mail, closes="completed")
    assert lab.inbox("a") == lab.dead("a") == []
    assert lab.inbox("b") == [mail[0].event]


def test_a_receiver_that_closes_in_the_same_commit_gets_no_letter(lab, nothing):
    lab.create("a", "b")
    closing = lab.batch("b", ev.ExecutionCompleted(nothing), closes="completed")
    mail = lab.mail("b", seq=1)
    lab.commit(closing, lab.batch("a", mail=[mail]))
    lab.deliver()
    assert (lab.dead("b"), [type(each) for each in lab.inbox("a")]) == ([mail.event], [ev.MessageFailed])


# --- children ---


def child(lab, parent, name, seq=1, **fields):
    return lab.start(name, parent=ev.Parent(parent, f"run-{parent}", seq), **fields)


def test_a_child_starts_with_its_beginning_in_the_inbox(lab):
    lab.create("a")
    start = child(lab, "a", "b")
    assert lab.send("a", starts=[start]) == [lab.key("b")]
    row = lab.row("b")
    assert (row.status, row.position, row.run, row.parent) == ("active", 0, "run-b", "a/run-a/1")
    assert (lab.inbox("b"), lab.journal("b")) == ([start.event], [])
    assert [each.key for each in lab.store.ready(lab.session, 0, None, 10)] == sorted([lab.key("a"), lab.key("b")])


def test_mail_to_a_child_does_not_overtake_its_start(lab):
    lab.create("a")
    start, mail = child(lab, "a", "b"), lab.mail("b", seq=2)
    lab.send("a", mail, starts=[start])
    assert lab.inbox("b") == [start.event, mail.event]


def test_a_child_whose_id_is_taken_is_not_started(lab):
    lab.create("a", "b")
    lab.send("a", starts=[child(lab, "a", "b", seq=7)])
    [answer] = lab.inbox("a")
    assert isinstance(answer, ev.ChildStartFailed)
    assert (answer.seq, "'b' is taken" in answer.reason) == (7, True)
    assert lab.inbox("b") == []


def test_starting_the_same_child_again_changes_nothing(lab):
    lab.create("a")
    for _ in range(2):
        lab.send("a", starts=[child(lab, "a", "b")])
    assert (len(lab.inbox("b")), lab.inbox("a")) == (1, [])
    lab.send("a", starts=[child(lab, "a", "b", seq=2)])
    assert [type(each) for each in lab.inbox("a")] == [ev.ChildStartFailed]


# --- from outside ---


def test_a_deposited_start_is_a_row_with_its_beginning_in_the_inbox(lab):
    start = lab.start("a")
    [receipt] = lab.store.deposit([start])
    assert (receipt.status, receipt.created, receipt.row) == ("accepted", True, lab.row("a"))
    assert (lab.row("a").status, lab.row("a").position, lab.inbox("a")) == ("active", 0, [start.event])


def test_the_owner_journals_a_deposited_start(lab):
    lab.store.deposit([lab.start("a")])
    letters = lab.store.inbox(lab.key("a"), 10)
    batch = lab.batch("a", letters[0].event, ev.ExecutionClaimed(), taken=letters, inbox_seen=True)
    assert lab.commit(batch).outcomes == [COMMITTED]
    assert (lab.inbox("a"), lab.row("a").position) == ([], 2)


def test_a_start_is_idempotent_by_workflow_and_input(lab):
    lab.store.deposit([lab.start("a")])
    [again] = lab.store.deposit([lab.start("a", run="another")])
    assert (again.status, again.created, again.row.run) == ("accepted", False, "run-a")
    assert len(lab.inbox("a")) == 1
    [clash] = lab.store.deposit([lab.start("a", digest=b"other input")])
    assert (clash.status, clash.created, clash.row) == ("exists", False, lab.row("a"))


def test_a_start_of_another_workflow_under_a_taken_id_clashes_even_with_the_same_digest(lab, nothing):
    lab.store.deposit([lab.start("a")])
    other = type(lab.start("a"))(lab.key("a"), ev.ExecutionStarted("other", "r", nothing), b"digest")
    assert lab.store.deposit([other])[0].status == "exists"


def test_starting_what_has_closed_returns_its_row(lab):
    lab.create("a")
    lab.close("a")
    [receipt] = lab.store.deposit([lab.start("a")])
    assert (receipt.status, receipt.created, receipt.row.status) == ("accepted", False, "completed")


def test_receipts_come_in_order_starts_first(lab):
    lab.create("closed")
    lab.close("closed")
    mail = [lab.mail("new"), lab.mail("nobody"), lab.mail("closed"), lab.mail("new", receiver_run="older")]
    receipts = lab.store.deposit([lab.start("new")], mail)
    assert [each.status for each in receipts] == ["accepted", "accepted", "missing", "closed", "closed"]
    assert [each.row and each.row.status for each in receipts] == ["active", "active", None, "completed", "active"]
    assert lab.inbox("new") == [lab.start("new").event, mail[0].event]
    assert lab.dead("nobody") == lab.dead("closed") == []  # whoever deposits is told at once


def test_a_deposit_needs_no_session(lab):
    lab.create("a")
    lab.store.close_session(lab.session)
    assert lab.store.deposit([lab.start("b")], [lab.mail("a")])[1].status == "accepted"
    assert len(lab.inbox("a")) == 1


def test_a_deposit_that_raises_leaves_nothing(lab):
    lab.create("a")
    with pytest.raises(UnicodeEncodeError):
        lab.store.deposit([lab.start("b")], [lab.mail("a"), lab.mail("a", ev.CancelRequested("c", "\ud800"))])
    assert (lab.row("b"), lab.inbox("a")) == (None, [])


def test_an_empty_deposit_is_nothing(lab):
    assert lab.store.deposit() == []


# --- the outbox ---


@pytest.mark.parametrize("lab", ["sqlite-outbox", "memory-outbox"], indirect=True)
def test_mail_survives_in_the_outbox_until_it_is_delivered(lab):
    lab.create("a", "b")
    mail = lab.mail("b", seq=1)
    lab.commit(lab.batch("a", mail=[mail], starts=[child(lab, "a", "c", seq=2)]))
    assert lab.inbox("b") == []
    lab.reopen()
    assert set(lab.deliver()) == {lab.key("a"), lab.key("b"), lab.key("c")}
    assert (lab.inbox("b"), lab.inbox("a")) == ([mail.event], [ev.MessageDelivered(1)])
    assert lab.row("c").parent == "a/run-a/2"
    assert lab.deliver() == []


@pytest.mark.parametrize("lab", ["sqlite-outbox", "memory-outbox"], indirect=True)
def test_direct_mail_does_not_overtake_what_waits_in_the_outbox(lab):
    lab.create("a", "b", "c")
    queued, later, other = lab.mail("b"), lab.mail("b"), lab.mail("c")
    lab.commit(lab.batch("a", mail=[queued]))
    lab.store._direct = True
    lab.commit(lab.batch("a", mail=[later, other]))
    assert (lab.inbox("b"), lab.inbox("c")) == ([], [other.event])
    lab.deliver()
    assert lab.inbox("b") == [queued.event, later.event]


@pytest.mark.parametrize("lab", ["sqlite-outbox", "memory-outbox"], indirect=True)
def test_a_sender_that_has_closed_still_sends_what_it_left(lab, nothing):
    lab.create("a", "b")
    mail = lab.mail("b")
    lab.commit(lab.batch("a", ev.ExecutionCompleted(nothing), mail=[mail], closes="completed"))
    lab.deliver()
    assert lab.inbox("b") == [mail.event]
