"""Published state, updates and what a close does to them; mail that begins its receiver; letters left on purpose."""

from __future__ import annotations

import msgspec

from perdure.core import events as ev
from perdure.store.protocol import Outcome, UpdateRow
from perdure.store.rules import REJECTIONS

FAILURE = ev.FailureInfo("ValueError", "sold out: ü", "Traceback …", cause=ev.FailureInfo("KeyError", "'x'"))


def request(lab, name, update_id="u1", **fields):
    event = ev.UpdateRequested(update_id, "add", ev.Payload(b"\x90"))
    return lab.mail(name, event, message_id=f"update:{update_id}", **fields)


def known(lab, name, update_id="u1"):
    return lab.store.update(lab.key(name), update_id)


def row_of(name, status, update_id="u1", **fields):
    return UpdateRow(update_id, f"run-{name}", status, **fields)


# --- state ---


def test_the_row_tells_where_the_last_published_state_stands(lab):
    lab.create("a", "b")
    assert lab.row("a").state_position is None
    for n in (1, 2):
        state = ev.StatePublished(ev.Payload(b"\x07"), n)
        lab.commit(lab.batch("a", lab.signal(), state, state_at=2 * n + 1), lab.batch("b", lab.signal()))
        row = lab.row("a")
        assert lab.store.load(row.key, row.run, row.state_position, 1)[0].event == state
    lab.commit(lab.batch("a", lab.signal()))
    lab.close("a")
    assert lab.row("a").state_position == 5
    assert lab.row("b").state_position is None


def test_a_state_that_is_published_in_a_runs_first_commit_is_found(lab):
    start = lab.start("a")
    batch = lab.batch("a", start.event, ev.ExecutionClaimed(), ev.StatePublished(ev.Payload(b"\x07")), create=start)
    lab.commit(msgspec.structs.replace(batch, state_at=2))
    assert lab.row("a").state_position == 2


def test_a_batch_that_is_left_out_publishes_nothing(lab):
    lab.create("a")
    state = ev.StatePublished(ev.Payload(b"\x07"))
    assert lab.commit(lab.batch("a", state, expected=9, state_at=9)).outcomes == [Outcome.CONFLICT]
    assert lab.row("a").state_position is None


# --- updates ---


def test_what_became_of_an_update_is_known_for_ever(lab):
    lab.create("a", "b")
    assert known(lab, "a") is None
    for told in (row_of("a", "accepted", position=4), row_of("a", "completed", position=7)):
        lab.commit(lab.batch("a", updates=[told]))
        assert known(lab, "a") == told
    assert known(lab, "b") is None
    assert known(lab, "a", "u2") is None
    lab.close("a")
    lab.reopen()
    assert known(lab, "a") == row_of("a", "completed", position=7)


def test_a_rejection_is_known_with_its_reason(lab):
    lab.create("a")
    lab.commit(lab.batch("a", updates=[row_of("a", "rejected", failure=FAILURE)]))
    found = known(lab, "a")
    assert (found.status, found.failure) == ("rejected", FAILURE)
    assert len(lab.journal("a")) == 2


def test_of_a_storm_of_rejections_the_last_are_remembered_and_nothing_else_is_forgotten(lab):
    lab.create("a", "b")
    lab.commit(lab.batch("a", updates=[row_of("a", "completed", "kept", position=1)]))
    lab.commit(lab.batch("b", updates=[row_of("b", "rejected", "other", failure=FAILURE)]))
    for start in range(0, REJECTIONS + 20, 204):
        rejected = [row_of("a", "rejected", f"u{start + n}", failure=FAILURE) for n in range(204)]
        lab.commit(lab.batch("a", updates=rejected))
    assert [known(lab, "a", f"u{n}") for n in range(20)] == [None] * 20
    assert all(known(lab, "a", f"u{n}") for n in range(20, REJECTIONS + 20))
    assert known(lab, "a", "kept").status == "completed"
    assert known(lab, "b", "other").status == "rejected"


def test_an_update_that_is_known_is_not_put_into_the_inbox_again(lab):
    lab.create("a")
    assert [each.status for each in lab.store.deposit([], [request(lab, "a"), request(lab, "a")])] == ["accepted"] * 2
    assert len(lab.inbox("a")) == 1
    for status in ("accepted", "completed", "rejected"):
        lab.commit(lab.batch("a", updates=[row_of("a", status, f"{status}-1")]))
        assert lab.store.deposit([], [request(lab, "a", f"{status}-1")])[0].status == "accepted"
    assert len(lab.inbox("a")) == 1
    lab.close("a")
    assert lab.store.deposit([], [request(lab, "a", "completed-1")])[0].status == "accepted"
    assert lab.store.deposit([], [request(lab, "a", "new")])[0].status == "closed"


def test_a_close_answers_the_updates_that_are_not_answered(lab):
    lab.create("a", "b")
    lab.store.deposit([], [request(lab, "a", "waits"), request(lab, "b", "waits")])
    told = [row_of("a", "accepted", "begun", position=3), row_of("a", "completed", "done", position=4)]
    lab.commit(lab.batch("a", updates=told), lab.batch("b", updates=[row_of("b", "accepted", "begun", position=3)]))
    last = row_of("a", "completed", "last", position=5)
    lab.commit(lab.batch("a", ev.ExecutionCompleted(ev.Payload(b"\xc0")), closes="completed", updates=[last]))
    statuses = {name: known(lab, "a", name).status for name in ("waits", "begun", "done", "last")}
    assert statuses == {"waits": "closed", "begun": "closed", "done": "completed", "last": "completed"}
    assert lab.dead("a") == []
    assert known(lab, "b", "waits") is None
    assert known(lab, "b", "begun").status == "accepted"


def test_a_batch_that_is_left_out_says_nothing_of_updates_and_buries_nothing(lab):
    lab.create("a")
    batch = lab.batch("a", expected=9, updates=[row_of("a", "accepted")], buried=[lab.signal()])
    assert lab.commit(batch).outcomes == [Outcome.CONFLICT]
    assert (known(lab, "a"), lab.dead("a")) == (None, [])


# --- dead letters that a run names ---


def test_signals_that_a_run_buries_are_dead_letters_once(lab):
    lab.create("a")
    signals = [lab.signal() for _ in range(3)]
    lab.commit(lab.batch("a", *signals, buried=signals[:2]))
    lab.commit(lab.batch("a", buried=signals[1:]))
    assert lab.dead("a") == signals


# --- mail that begins its receiver ---


def test_mail_with_a_start_begins_its_receiver_and_both_wait_for_it_in_order(lab):
    start, signal = lab.start("a"), lab.signal()
    receipt = lab.store.deposit([], [lab.mail("a", signal, start=start)])[0]
    assert (receipt.status, receipt.created, receipt.row.run) == ("accepted", True, "run-a")
    assert lab.inbox("a") == [start.event, signal]


def test_mail_with_the_same_start_again_is_mail_alone(lab):
    start, signals = lab.start("a"), [lab.signal(), lab.signal()]
    mails = [lab.mail("a", each, start=start) for each in (*signals, signals[0])]
    assert [each.created for each in lab.store.deposit([], mails)] == [True, False, False]
    assert lab.inbox("a") == [start.event, *signals]


def test_mail_whose_start_is_refused_is_not_delivered(lab):
    lab.create("a")
    receipt = lab.store.deposit([], [lab.mail("a", start=lab.start("a", digest=b"other"))])[0]
    assert (receipt.status, receipt.row.run) == ("exists", "run-a")
    assert lab.inbox("a") == []


def test_mail_with_a_start_for_a_closed_execution_is_refused(lab):
    lab.create("a")
    lab.close("a")
    assert lab.store.deposit([], [lab.mail("a", start=lab.start("a"))])[0].status == "closed"
    assert lab.inbox("a") == []


# --- letters that are left on purpose ---


def test_a_timer_may_pass_a_letter_that_is_left_on_purpose_and_no_other(lab):
    lab.create("a")
    lab.store.deposit([], [request(lab, "a"), lab.mail("a")])
    update, signal = lab.store.inbox(lab.key("a"), 9)
    fired = ev.TimerFired(1)
    first = lab.batch("a", fired, expected=2, inbox_seen=True, left=[update])
    assert lab.commit(first).outcomes == [Outcome.MAIL]
    second = lab.batch("a", signal.event, fired, inbox_seen=True, left=[update], taken=[signal])
    assert lab.commit(second).outcomes == [Outcome.COMMITTED]
    assert lab.inbox("a") == [update.event]
