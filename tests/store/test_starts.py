"""Starts that wait, that meet one with their id, that come after one, and what they are found by; for every store."""

from __future__ import annotations

import threading

import msgspec
import pytest

from perdure.core import events as ev
from perdure.store.protocol import Batch, Outcome, Start

NOTHING = ev.Payload(b"\xc0")
ACME = {"customer": ev.Attribute("text", "acme"), "cents": ev.Attribute("number", 1_250)}
ALL_KINDS = {
    "big": ev.Attribute("number", 2**63 - 1),
    "due": ev.Attribute("time", 1_700_000_000_000_001),
    "half": ev.Attribute("number", 0.5),
    "one": ev.Attribute("number", 1.0),
    "paid": ev.Attribute("bool", False),  # noqa: FBT003 - the value
    "tags": ev.Attribute("text", ("b", "a", "")),
    "text": ev.Attribute("text", "1"),
}


def deposit(lab, start):
    return lab.store.deposit([start])[0]


def options(start, **fields):
    return msgspec.structs.replace(start, **fields)


def ready(lab):
    return [row.key.execution for row in lab.store.ready(lab.session, lab.clock.now_ms, None, 100)]


# --- later ---


def test_a_start_that_is_put_off_is_ready_when_it_is_due(lab):
    due = lab.clock.now_ms + 60_000
    assert deposit(lab, lab.start("a", start_at_ms=due)).created
    assert (lab.row("a").status, lab.row("a").wake_at_ms, ready(lab)) == ("parked", due, [])
    assert lab.store.next_wake_ms(lab.session, 0) == due
    lab.clock.now_ms = due
    assert ready(lab) == ["a"]


def test_a_start_whose_time_has_come_is_ready_at_once(lab):
    deposit(lab, lab.start("a", start_at_ms=lab.clock.now_ms))
    assert (lab.row("a").status, ready(lab)) == ("active", ["a"])


def test_only_requests_to_end_it_wake_what_has_not_begun(lab):
    due = lab.clock.now_ms + 60_000
    for name in ("a", "b", "c", "d"):
        deposit(lab, lab.start(name, start_at_ms=due))
    mail = [
        lab.mail("a"),
        lab.mail("b", ev.PauseRequested("p")),
        lab.mail("c", ev.CancelRequested("c")),
        lab.mail("d", ev.TerminateRequested("t")),
    ]
    assert [each.status for each in lab.store.deposit(mail=mail)] == ["accepted"] * 4
    assert [lab.row(name).status for name in "abcd"] == ["parked", "parked", "active", "active"]
    lab.clock.now_ms = due
    assert sorted(ready(lab)) == ["a", "b", "c", "d"]
    assert [type(event).__name__ for event in lab.inbox("a")] == ["ExecutionStarted", "SignalReceived"]


def test_what_has_not_begun_can_be_closed(lab):
    deposit(lab, lab.start("a", start_at_ms=lab.clock.now_ms + 60_000))
    end = ev.ExecutionCancelled("no")
    found = lab.commit(lab.batch("a", lab.start("a").event, end, closes="cancelled"))
    assert found.outcomes == [Outcome.COMMITTED]
    assert (lab.row("a").status, lab.row("a").wake_at_ms) == ("cancelled", None)


# --- while one is open ---


def test_by_default_the_same_start_finds_the_one_there_is(lab):
    deposit(lab, lab.start("a"))
    again = deposit(lab, lab.start("a", run="other"))
    assert (again.status, again.created, again.row.run) == ("accepted", False, "run-a")
    assert deposit(lab, lab.start("a", run="other", digest=b"else")).status == "exists"


def test_a_start_may_insist_on_being_the_first(lab):
    deposit(lab, lab.start("a"))
    assert deposit(lab, options(lab.start("a", run="other"), on_conflict="fail")).status == "exists"
    assert lab.row("a").run == "run-a"


def test_whoever_sends_the_same_start_again_is_not_told_that_it_exists(lab):
    start = options(lab.start("a"), on_conflict="fail")
    assert deposit(lab, start).created
    again = deposit(lab, start)
    assert (again.status, again.created) == ("accepted", False)


def test_a_start_that_terminates_waits_in_the_inbox_of_the_one_that_it_ends(lab):
    lab.create("a")
    instead = options(lab.start("a", run="other", digest=b"else"), on_conflict="terminate")
    for _ in range(2):
        assert deposit(lab, instead).status == "accepted"
    assert lab.row("a").run == "run-a"
    assert lab.inbox("a") == [instead.event]
    assert [each.event for each in lab.store.requests(lab.key("a"), 10)] == [instead.event]


def test_the_close_and_the_new_run_are_one_commit(lab):
    lab.create("a")
    lab.commit(lab.batch("a", attributes=ACME))
    instead = options(lab.start("a", run="other", digest=b"else", attributes={"n": ev.Attribute("number", 2)}))
    lab.store.deposit(mail=[lab.mail("a"), lab.mail("a", ev.CancelRequested("c"))])
    last = ev.ExecutionTerminated("replaced")
    done = lab.commit(lab.batch("a", last, closes="terminated", successor=instead))
    row = lab.row("a")
    assert done.woken == [lab.key("a")]
    assert (row.run, row.status, row.position, row.closed_at_ms) == ("other", "active", 0, None)
    assert (row.start_digest, row.first_run) == (b"else", "")
    assert lab.inbox("a") == [instead.event]
    assert lab.journal("a", "run-a")[-1] == last
    assert len(lab.dead("a")) == 1
    assert lab.store.attributes(lab.key("a")) == {"n": ev.Attribute("number", 2)}
    assert [(each.run, each.status) for each in lab.store.runs(lab.key("a"), None, 10)] == [
        ("other", "active"),
        ("run-a", "terminated"),
    ]


def test_what_closes_without_the_start_that_waits_for_its_place_is_left_out(lab):
    """That start is acknowledged, and would be lost with the inbox."""
    lab.create("a")
    lab.store.deposit(mail=[lab.mail("a", message_id="start:signal")])
    first, second = (options(lab.start("a", run=run), on_conflict="terminate") for run in ("first", "second"))
    last = lab.batch("a", ev.ExecutionCompleted(NOTHING), closes="completed")
    deposit(lab, first)
    assert lab.commit(last).outcomes == [Outcome.MAIL]
    waiting = [each for each in lab.store.inbox(lab.key("a"), 10) if isinstance(each.event, ev.ExecutionStarted)]
    deposit(lab, second)
    last.taken, last.successor = waiting, first
    assert lab.commit(last).outcomes == [Outcome.MAIL]
    last.taken, last.successor = lab.store.inbox(lab.key("a"), 10), second
    assert lab.commit(last).outcomes == [Outcome.COMMITTED]
    assert lab.row("a").run == "second"


# --- after one has closed ---


def closed(lab, name, status):
    lab.create(name)
    assert lab.commit(lab.batch(name, ev.ExecutionTerminated(), closes=status)).outcomes == [Outcome.COMMITTED]


@pytest.mark.parametrize(
    ("reuse", "status", "begins"),
    [
        ("never", "failed", False),
        ("never", "completed", False),
        ("if_failed", "completed", False),
        ("if_failed", "failed", True),
        ("if_failed", "cancelled", True),
        ("if_failed", "terminated", True),
        ("always", "completed", True),
    ],
)
@pytest.mark.parametrize("by", ["deposit", "commit"])
def test_the_id_of_what_has_closed_may_be_used_again_where_that_is_asked_for(lab, reuse, status, begins, by):
    closed(lab, "a", status)
    lab.clock.now_ms += 5_000
    start = options(lab.start("a", run="other", digest=b"else"), reuse=reuse)
    if by == "deposit":
        assert deposit(lab, start).created is begins
        assert lab.inbox("a") == ([start.event] if begins else [])
    else:
        batch = Batch(start.key, "other", 0, [lab.new(start.event)], create=start)
        assert lab.commit(batch).outcomes == [Outcome.COMMITTED if begins else Outcome.CONFLICT]
        assert lab.journal("a", "other") == ([start.event] if begins else [])
    row = lab.row("a")
    assert row.run == ("other" if begins else "run-a")
    assert row.status == ("active" if begins else status)
    if begins:
        assert (row.closed_at_ms, row.created_at_ms, row.parent) == (None, lab.clock.now_ms, "")
        assert len(lab.journal("a", "run-a")) == 3


def test_what_is_not_reused_is_found_by_the_same_start(lab):
    closed(lab, "a", "completed")
    same = options(lab.start("a", run="other"), reuse="if_failed")
    assert (deposit(lab, same).status, lab.row("a").run) == ("accepted", "run-a")
    assert deposit(lab, options(same, digest=b"else")).status == "exists"


def test_a_start_that_is_sent_again_after_its_end_does_not_begin_again(lab):
    closed(lab, "a", "completed")
    start = options(lab.start("a", run="second"), reuse="always")
    assert deposit(lab, start).created
    end = ev.ExecutionTerminated()
    lab.commit(Batch(start.key, "second", 0, [lab.new(start.event), lab.new(end)], closes="terminated"))
    assert deposit(lab, start).created is False
    third = options(lab.start("a", run="third"), reuse="always")
    assert deposit(lab, third).created
    assert [deposit(lab, each).created for each in (start, third)] == [False, False]
    assert [each.run for each in lab.store.runs(lab.key("a"), None, 10)] == ["third", "second", "run-a"]


def test_answers_and_messages_for_the_run_before_do_not_reach_the_new_one(lab):
    closed(lab, "a", "failed")
    deposit(lab, options(lab.start("a", run="other"), reuse="always"))
    lab.create("b")
    lab.send("b", lab.mail("a", ev.ChildClosed(1, "b", "completed"), receiver_run="run-a"))
    assert deposit_mail(lab, lab.mail("a", receiver_run="run-a")) == "closed"
    assert len(lab.inbox("a")) == 1
    assert lab.dead("a") == []


def deposit_mail(lab, mail):
    return lab.store.deposit(mail=[mail])[0].status


def test_an_update_of_the_new_run_may_have_the_id_of_one_of_the_run_before(lab):
    lab.create("a")
    update = ev.UpdateRequested("u", "rename", NOTHING)
    assert deposit_mail(lab, lab.mail("a", update)) == "accepted"
    lab.commit(lab.batch("a", ev.ExecutionTerminated(), closes="terminated"))
    assert lab.store.update(lab.key("a"), "u").status == "closed"
    deposit(lab, options(lab.start("a", run="other"), reuse="always"))
    assert lab.store.update(lab.key("a"), "u") is None
    deposit_mail(lab, lab.mail("a", update))
    assert update in lab.inbox("a")


def test_of_many_who_reuse_an_id_at_once_exactly_one_begins(lab):
    closed(lab, "a", "failed")
    receipts = []

    def begin(n):
        start = options(lab.start("a", run=f"run-{n}", digest=bytes([n])), reuse="if_failed", on_conflict="fail")
        receipts.extend(lab.store.deposit([start]))

    threads = [threading.Thread(target=begin, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.status for each in receipts) == ["accepted"] + ["exists"] * 7
    assert len(lab.store.runs(lab.key("a"), None, 10)) == 2


# --- what it is found by ---


def test_attributes_come_with_the_start_and_as_they_were_set(lab):
    deposit(lab, lab.start("a", attributes=ALL_KINDS))
    found = lab.store.attributes(lab.key("a"))
    assert found == ALL_KINDS
    assert [type(each.value) for each in found.values()] == [type(each.value) for each in ALL_KINDS.values()]
    assert lab.store.attributes(lab.key("nobody")) == {}


def test_a_batch_replaces_all_of_them(lab):
    start = lab.start("a", attributes=ALL_KINDS)
    lab.commit(lab.batch("a", start.event, create=start))
    assert lab.store.attributes(lab.key("a")) == ALL_KINDS
    lab.commit(lab.batch("a", ev.AttributesSet(ACME), attributes=ACME))
    assert lab.store.attributes(lab.key("a")) == ACME
    lab.commit(lab.batch("a", ev.TimerFired(1)))
    assert lab.store.attributes(lab.key("a")) == ACME
    lab.commit(lab.batch("a", expected=99, attributes={}))
    assert lab.store.attributes(lab.key("a")) == ACME
    lab.commit(lab.batch("a", ev.AttributesSet(removed=("cents",)), closes="completed", attributes={}))
    assert lab.store.attributes(lab.key("a")) == {}


def test_if_a_commit_raises_attributes_stay(lab):
    start = lab.start("a", attributes=ACME)
    lab.commit(lab.batch("a", start.event, create=start))
    unencodable = ev.SignalReceived("m", "\ud800", NOTHING)
    new = lab.start("b", attributes=ACME)
    with pytest.raises(UnicodeEncodeError):
        lab.commit(lab.batch("a", attributes={}), Batch(new.key, "run-b", 0, [lab.new(unencodable)], create=new))
    assert lab.store.attributes(lab.key("a")) == ACME
    assert lab.store.attributes(lab.key("b")) == {}


def test_a_child_comes_with_its_attributes(lab):
    lab.create("a")
    child = Start(lab.key("child"), lab.start("child", attributes=ACME).event, b"d")
    lab.commit(lab.batch("a", ev.ChildInitiated(1, "w", "child", "run-child", NOTHING), starts=[child]))
    lab.deliver()
    assert lab.store.attributes(lab.key("child")) == ACME
