"""The promises of `Store`'s docstrings, held by every store."""

from __future__ import annotations

import pytest

from perdure.core import events as ev
from perdure.core.errors import OwnershipLost
from perdure.store.protocol import Letter, Outcome, Park, Running

COMMITTED, CONFLICT, MAIL = Outcome.COMMITTED, Outcome.CONFLICT, Outcome.MAIL
TIMER = ev.TimerFired(1)


def completed(seq: int, nothing: ev.Payload) -> ev.StepCompleted:
    return ev.StepCompleted(seq, "search", result=nothing)


# --- commit: compare and append ---


def test_a_new_execution_has_its_row_and_its_first_events(lab):
    lab.create("a")
    row = lab.row("a")
    assert (row.run, row.workflow, row.lane, row.status, row.position) == ("run-a", "research", "default", "active", 2)
    assert (row.start_digest, row.created_at_ms, row.closed_at_ms) == (b"digest", lab.clock.now_ms, None)
    assert lab.journal("a") == [lab.start("a").event, ev.ExecutionClaimed()]


def test_an_event_comes_back_with_its_header(lab, nothing):
    lab.create("a")
    usage = ev.Usage(input_tokens=10, output_tokens=20, cost_micros=30)
    batch = lab.batch("a")
    batch.events = [lab.new(completed(1, nothing), at_ms=2**42 + 5, trace_parent="00-trace", usage=usage)]
    lab.commit(batch)
    [recorded] = lab.store.load(lab.key("a"), "run-a", 2, 10)
    assert recorded == ev.Recorded(
        2, 2**42 + 5, completed(1, nothing), lab.session.session, "code-1", "00-trace", usage
    )


def test_the_fingerprint_of_an_event_is_that_of_the_code_that_wrote_it(lab):
    lab.create("a")
    lab.reopen()
    lab.commit(lab.batch("a", TIMER))
    found = lab.store.load(lab.key("a"), "run-a", 0, 10)
    assert [each.fingerprint for each in found] == ["code-1", "code-1", "code-2"]


def test_one_batch_that_does_not_match_is_left_out_and_its_neighbours_commit(lab):
    lab.create("a", "b", "c")
    found = lab.commit(lab.batch("a", TIMER), lab.batch("b", TIMER, expected=1), lab.batch("c", TIMER))
    assert found.outcomes == [COMMITTED, CONFLICT, COMMITTED]
    assert [lab.row(name).position for name in "abc"] == [3, 2, 3]
    assert [len(lab.journal(name)) for name in "abc"] == [3, 2, 3]


@pytest.mark.parametrize("wrong", [None, 0, 5, 20, 44])
def test_a_large_commit_leaves_out_just_the_batch_that_does_not_match(lab, wrong):
    names = [f"e{n}" for n in range(45)]
    lab.create(*names)
    parked = [Park(lab.key(name), f"run-{name}", 2, wake_at_ms=5) for name in names[3:30:2]]
    lab.commit(advice=[*parked, Park(lab.key("e20"), "run-e20", 2, "stalled", problem="bug")])
    batches = [lab.batch(name, TIMER, expected=1 if n == wrong else 2) for n, name in enumerate(names)]
    outcomes = lab.commit(*batches).outcomes
    assert [n for n, outcome in enumerate(outcomes) if outcome is not COMMITTED] == ([] if wrong is None else [wrong])
    for n, name in enumerate(names):
        assert len(lab.journal(name)) == lab.row(name).position == (2 if n == wrong else 3)
        assert lab.row(name).status == "active" or n == wrong


@pytest.mark.parametrize("expected", [0, 1, 3, 100])
def test_a_batch_at_another_position_is_a_conflict(lab, expected):
    lab.create("a")
    assert lab.commit(lab.batch("a", TIMER, expected=expected)).outcomes == [CONFLICT]
    assert len(lab.journal("a")) == 2


def test_a_batch_for_another_run_is_a_conflict(lab):
    lab.create("a")
    assert lab.commit(lab.batch("a", TIMER, expected=2, run="other")).outcomes == [CONFLICT]


def test_a_batch_for_nobody_is_a_conflict(lab):
    assert lab.commit(lab.batch("nobody", TIMER, expected=0)).outcomes == [CONFLICT]
    assert lab.row("nobody") is None


def test_a_batch_for_a_closed_execution_is_a_conflict(lab):
    lab.create("a")
    lab.close("a")
    assert lab.commit(lab.batch("a", TIMER)).outcomes == [CONFLICT]
    assert len(lab.journal("a")) == 3


def test_creating_an_execution_whose_id_is_taken_is_a_conflict(lab):
    lab.create("a")
    again = lab.batch("a", lab.start("a").event, expected=0, create=lab.start("a"))
    assert lab.commit(again).outcomes == [CONFLICT]
    assert lab.row("a").position == 2


def test_an_execution_can_be_created_and_closed_in_one_batch(lab, nothing):
    done = ev.ExecutionCompleted(nothing)
    lab.commit(lab.batch("a", lab.start("a").event, done, create=lab.start("a"), closes="completed"))
    assert (lab.row("a").status, lab.row("a").position) == ("completed", 2)
    assert lab.journal("a") == [lab.start("a").event, done]


def test_batches_of_one_execution_follow_each_other_within_a_commit(lab):
    lab.create("a")
    first, second = lab.batch("a", TIMER), lab.batch("a", ev.TimerFired(2), ev.TimerFired(3))
    assert lab.commit(first, second).outcomes == [COMMITTED, COMMITTED]
    assert [each.seq for each in lab.journal("a")[2:]] == [1, 2, 3]


def test_a_batch_without_events_only_checks_the_position(lab):
    lab.create("a")
    assert lab.commit(lab.batch("a"), lab.batch("a", expected=7)).outcomes == [COMMITTED, CONFLICT]


def test_if_a_commit_raises_nothing_of_it_happened(lab):
    lab.create("a", "b")
    lab.store.deposit(mail=[lab.mail("a")])
    [letter] = lab.store.inbox(lab.key("a"), 10)
    unencodable = ev.SignalReceived("m", "\ud800", ev.Payload(b""))
    good = lab.batch(
        "a",
        TIMER,
        expected=2,
        taken=[letter],
        mail=[lab.mail("b"), lab.mail("nobody", seq=1)],
        starts=[lab.start("child")],
        closes="completed",
    )
    note = Running(lab.key("b"), "run-b", 1, "search", 1, 5)
    with pytest.raises(UnicodeEncodeError):
        lab.commit(good, lab.batch("new", create=lab.start("new")), lab.batch("b", unencodable), advice=[note])
    assert [lab.row(name) and lab.row(name).position for name in ("a", "b", "child", "new")] == [2, 2, None, None]
    assert lab.store.inbox(lab.key("a"), 10) == [letter]
    assert lab.inbox("b") == lab.dead("nobody") == lab.store.running(lab.key("b")) == []
    assert lab.row("a").status == "active"
    assert lab.deliver() == []
    assert [len(lab.store.tail(lab.key(name).shard, 0, 10)) for name in "ab"] == [2, 2]
    good.closes = None
    lab.positions["a"] = 3
    assert lab.commit(good).outcomes == [COMMITTED]  # and the same can be tried again


def test_after_a_commit_a_row_is_active_whatever_it_was(lab):
    lab.create("a", "b")
    parked = Park(lab.key("a"), "run-a", 2, wake_at_ms=5, waits_for="a timer")
    stalled = Park(lab.key("b"), "run-b", 2, "stalled", problem="no code")
    lab.commit(advice=[parked, stalled])
    lab.commit(lab.batch("a", TIMER), lab.batch("b", TIMER))
    for row in (lab.row("a"), lab.row("b")):
        assert (row.status, row.wake_at_ms, row.waits_for, row.problem) == ("active", None, "", "")


# --- closing ---


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "terminated"])
def test_a_batch_that_closes_leaves_the_row_closed_at_its_last_event(lab, status):
    lab.create("a")
    lab.clock.now_ms += 1000
    assert lab.commit(lab.batch("a", ev.ExecutionTerminated(), closes=status)).outcomes == [COMMITTED]
    assert (lab.row("a").status, lab.row("a").closed_at_ms) == (status, lab.clock.now_ms)


def test_a_parked_or_stalled_execution_can_be_closed(lab):
    lab.create("a", "b")
    lab.commit(advice=[Park(lab.key("a"), "run-a", 2), Park(lab.key("b"), "run-b", 2, "stalled", problem="bug")])
    end = ev.ExecutionTerminated()
    lab.commit(lab.batch("a", end, closes="terminated"), lab.batch("b", end, closes="terminated"))
    assert {lab.row(name).status for name in "ab"} == {"terminated"}
    assert lab.row("b").problem == ""


def test_what_waits_at_a_close_becomes_a_dead_letter_unless_it_is_moot(lab):
    lab.create("a")
    signal, other = lab.signal(), lab.signal()
    moot = [ev.CancelRequested("c"), ev.TerminateRequested("t"), ev.MessageDelivered(1), ev.ChildStartFailed(2, "no")]
    lab.store.deposit(mail=[lab.mail("a", each) for each in (signal, *moot, other)])
    lab.close("a")
    assert lab.inbox("a") == []
    assert lab.dead("a") == [signal, other]


def test_a_letter_taken_by_the_closing_batch_is_no_dead_letter(lab, nothing):
    lab.create("a")
    lab.store.deposit(mail=[lab.mail("a"), lab.mail("a")])
    taken, left = lab.store.inbox(lab.key("a"), 10)
    end = ev.ExecutionCompleted(nothing)
    lab.commit(lab.batch("a", taken.event, end, taken=[taken], closes="completed"))
    assert lab.dead("a") == [left.event]


# --- inbox ---


def test_letters_wait_in_order_of_arrival_until_they_are_taken(lab):
    lab.create("a")
    mail = [lab.mail("a") for _ in range(5)]
    lab.store.deposit(mail=mail[:3])
    lab.store.deposit(mail=mail[3:])
    letters = lab.store.inbox(lab.key("a"), 10)
    assert [each.event for each in letters] == [each.event for each in mail]
    assert [each.arrival for each in letters] == sorted({each.arrival for each in letters})
    assert lab.store.inbox(lab.key("a"), 2) == letters[:2]
    lab.commit(lab.batch("a", letters[0].event, letters[2].event, taken=[letters[0], letters[2]]))
    assert lab.store.inbox(lab.key("a"), 10) == [letters[1], *letters[3:]]


def test_at_most_one_letter_with_an_id_waits(lab):
    lab.create("a", "b")
    mail = lab.mail("a")
    assert [each.status for each in lab.store.deposit(mail=[mail, mail])] == ["accepted", "accepted"]
    lab.send("b", mail)
    assert lab.inbox("a") == [mail.event]


def test_the_same_id_may_wait_for_two_receivers(lab):
    lab.create("a", "b")
    lab.store.deposit(mail=[lab.mail("a", message_id="same"), lab.mail("b", message_id="same")])
    assert len(lab.inbox("a")) == len(lab.inbox("b")) == 1


def test_a_batch_that_would_overtake_a_stored_letter_is_left_out(lab):
    lab.create("a", "b")
    lab.store.deposit(mail=[lab.mail("a")])
    found = lab.commit(lab.batch("a", TIMER, expected=2, inbox_seen=True), lab.batch("b", TIMER, inbox_seen=True))
    assert found.outcomes == [MAIL, COMMITTED]
    assert lab.row("a").position == 2


def test_a_batch_that_takes_all_letters_overtakes_none(lab):
    lab.create("a")
    lab.store.deposit(mail=[lab.mail("a"), lab.mail("a")])
    letters = lab.store.inbox(lab.key("a"), 10)
    some = lab.batch("a", letters[0].event, TIMER, expected=2, taken=letters[:1], inbox_seen=True)
    all_ = lab.batch("a", *(each.event for each in letters), TIMER, taken=letters, inbox_seen=True)
    assert lab.commit(some, all_).outcomes == [MAIL, COMMITTED]
    assert lab.inbox("a") == []


def test_a_letter_of_an_earlier_batch_of_the_same_commit_is_not_overtaken(lab):
    lab.create("a", "b")
    found = lab.commit(lab.batch("b", mail=[lab.mail("a")]), lab.batch("a", TIMER, expected=2, inbox_seen=True))
    lab.deliver()
    assert len(lab.inbox("a")) == 1
    assert found.outcomes in ([COMMITTED, MAIL], [COMMITTED, COMMITTED])  # by way of the outbox it is not there yet


def test_a_stale_batch_is_a_conflict_even_if_there_is_mail(lab):
    lab.create("a")
    lab.store.deposit(mail=[lab.mail("a")])
    assert lab.commit(lab.batch("a", TIMER, expected=1, inbox_seen=True)).outcomes == [CONFLICT]


# --- parking ---


def test_an_idle_execution_is_parked_with_what_it_waits_for(lab):
    lab.create("a")
    lab.commit(advice=[Park(lab.key("a"), "run-a", 2, wake_at_ms=77, waits_for="approval")])
    row = lab.row("a")
    assert (row.status, row.wake_at_ms, row.waits_for, row.position) == ("parked", 77, "approval", 2)


def test_advice_rides_with_the_batch_that_it_follows(lab):
    lab.create("a")
    lab.commit(lab.batch("a", TIMER), advice=[Park(lab.key("a"), "run-a", 3)])
    assert (lab.row("a").status, lab.row("a").position) == ("parked", 3)


@pytest.mark.parametrize(("position", "run"), [(1, "run-a"), (3, "run-a"), (2, "other")])
def test_advice_that_no_longer_holds_changes_nothing(lab, position, run):
    lab.create("a")
    before = lab.row("a")
    lab.commit(advice=[Park(lab.key("a"), run, position), Park(lab.key("a"), run, position, "stalled", problem="x")])
    assert lab.row("a") == before


def test_advice_for_nobody_or_a_closed_execution_changes_nothing(lab):
    lab.create("a")
    lab.close("a")
    before = lab.row("a")
    lab.commit(
        advice=[Park(lab.key(name), f"run-{name}", 3, status) for name in "ab" for status in ("parked", "stalled")]
    )
    assert lab.row("a") == before
    assert lab.row("b") is None


def test_nothing_parks_while_a_letter_waits(lab):
    lab.create("a")
    lab.store.deposit(mail=[lab.mail("a")])
    lab.commit(advice=[Park(lab.key("a"), "run-a", 2)])
    assert lab.row("a").status == "active"


def test_an_execution_stalls_even_while_a_letter_waits_and_says_why(lab):
    lab.create("a")
    lab.store.deposit(mail=[lab.mail("a")])
    lab.commit(advice=[Park(lab.key("a"), "run-a", 2, "stalled", problem="lone \ud800 surrogate")])
    assert (lab.row("a").status, lab.row("a").problem) == ("stalled", "lone \\ud800 surrogate")


def test_late_advice_to_park_does_not_hide_that_it_stalled(lab):
    lab.create("a")
    lab.commit(advice=[Park(lab.key("a"), "run-a", 2, "stalled", problem="bug")])
    lab.commit(advice=[Park(lab.key("a"), "run-a", 2)])
    assert (lab.row("a").status, lab.row("a").problem) == ("stalled", "bug")


def test_parking_again_replaces_what_was_told(lab):
    lab.create("a")
    lab.commit(advice=[Park(lab.key("a"), "run-a", 2, wake_at_ms=5, waits_for="x")])
    lab.commit(advice=[Park(lab.key("a"), "run-a", 2, wake_at_ms=None, waits_for="y")])
    assert (lab.row("a").wake_at_ms, lab.row("a").waits_for) == (None, "y")


def test_a_letter_wakes_a_parked_execution(lab):
    lab.create("a")
    lab.commit(advice=[Park(lab.key("a"), "run-a", 2, wake_at_ms=5, waits_for="x")])
    lab.store.deposit(mail=[lab.mail("a")])
    assert (lab.row("a").status, lab.row("a").wake_at_ms, lab.row("a").waits_for) == ("active", None, "")


def test_a_letter_waits_for_a_stalled_execution_without_waking_it(lab):
    lab.create("a")
    lab.commit(advice=[Park(lab.key("a"), "run-a", 2, "stalled", problem="bug")])
    assert lab.store.deposit(mail=[lab.mail("a")])[0].status == "accepted"
    assert (lab.row("a").status, lab.row("a").problem, len(lab.inbox("a"))) == ("stalled", "bug", 1)


def test_a_request_to_terminate_wakes_a_stalled_execution(lab):
    lab.create("a")
    lab.commit(advice=[Park(lab.key("a"), "run-a", 2, "stalled", problem="bug")])
    lab.store.deposit(mail=[lab.mail("a", ev.TerminateRequested("t"))])
    assert lab.row("a").status == "active"


def test_resume_makes_a_stalled_execution_active_and_is_idempotent(lab):
    lab.create("a", "b")
    lab.commit(advice=[Park(lab.key("a"), "run-a", 2, "stalled", problem="bug"), Park(lab.key("b"), "run-b", 2)])
    for _ in range(2):
        receipt = lab.store.resume(lab.key("a"))
        assert (receipt.status, receipt.row) == ("accepted", lab.row("a"))
        assert (lab.row("a").status, lab.row("a").problem) == ("active", "")
    assert lab.store.resume(lab.key("b")).status == "accepted"
    assert lab.row("b").status == "parked"
    lab.close("b")
    assert lab.store.resume(lab.key("b")).status == "closed"
    assert lab.store.resume(lab.key("nobody")).status == "missing"


# --- running steps ---


def test_running_steps_are_told_until_an_event_ends_them(lab, nothing):
    lab.create("a")
    notes = [Running(lab.key("a"), "run-a", seq, "search", 1, 50, ev.Payload(b"half")) for seq in (1, 2, 3, 4)]
    lab.commit(advice=notes)
    assert lab.store.running(lab.key("a")) == notes
    lab.commit(lab.batch("a", completed(1, nothing), ev.StepAttemptFailed(2, "search"), ev.StepFailed(3, "search")))
    assert lab.store.running(lab.key("a")) == notes[3:]


def test_a_note_is_replaced_by_a_later_one(lab):
    lab.create("a")
    for attempt in (1, 2):
        lab.commit(advice=[Running(lab.key("a"), "run-a", 1, "search", attempt, 50)])
    assert [each.attempt for each in lab.store.running(lab.key("a"))] == [2]


def test_a_note_of_a_step_that_ends_in_the_same_commit_leaves_nothing(lab, nothing):
    lab.create("a")
    lab.commit(lab.batch("a", completed(1, nothing)), advice=[Running(lab.key("a"), "run-a", 1, "search", 1, 50)])
    assert lab.store.running(lab.key("a")) == []


def test_notes_of_closed_or_other_runs_are_ignored_and_a_close_drops_them(lab):
    lab.create("a")
    lab.commit(advice=[Running(lab.key("a"), "run-a", 1, "search", 1, 50)])
    lab.commit(advice=[Running(lab.key("a"), "other", 2, "search", 1, 50), Running(lab.key("b"), "r", 1, "s", 1, 50)])
    assert len(lab.store.running(lab.key("a"))) == 1
    lab.close("a")
    lab.commit(advice=[Running(lab.key("a"), "run-a", 1, "search", 1, 50)])
    assert lab.store.running(lab.key("a")) == lab.store.running(lab.key("b")) == []


# --- sessions ---


def test_a_session_that_was_taken_over_records_nothing_any_more(lab):
    lab.create("a")
    old = lab.session
    lab.reopen()
    with pytest.raises(OwnershipLost):
        lab.store.commit(old, [lab.batch("a", TIMER, expected=2)])
    with pytest.raises(OwnershipLost):
        lab.store.deliver(old, 10)
    with pytest.raises(OwnershipLost):
        lab.store.renew(old)
    assert lab.row("a").position == 2


def test_a_closed_session_records_nothing_any_more(lab):
    lab.create("a")
    lab.store.close_session(lab.session)
    with pytest.raises(OwnershipLost):
        lab.commit(lab.batch("a", TIMER, expected=2))


def test_closing_a_session_is_idempotent_and_never_closes_another(lab):
    first = lab.session
    lab.store.close_session(first)
    lab.store.close_session(first)
    lab.session = lab.store.open_session("worker", ("default",), "code-1")
    lab.store.close_session(first)
    lab.create("a")


def test_an_unclean_death_counts_a_recovery_of_what_was_active(lab):
    lab.create("active", "parked", "closed", "stalled")
    lab.store.deposit([lab.start("fresh")])
    lab.close("closed")
    lab.commit(
        advice=[
            Park(lab.key("parked"), "run-parked", 2),
            Park(lab.key("stalled"), "run-stalled", 2, "stalled", problem="bug"),
        ]
    )
    lab.reopen()
    names = ("active", "parked", "closed", "stalled", "fresh")
    assert [lab.row(name).recoveries for name in names] == [1, 0, 0, 0, 0]
    lab.reopen()
    assert lab.row("active").recoveries == 2
    lab.commit(lab.batch("active", TIMER))
    assert lab.row("active").recoveries == 0


def test_an_unclean_death_counts_a_recovery_of_what_was_parked_and_is_due(lab):
    """A retried attempt writes nothing when it begins: it may be what killed the worker."""
    lab.create("due", "later", "never")
    now = lab.clock.now_ms
    wakes = (("due", now + 10), ("later", now + 11), ("never", None))
    lab.commit(advice=[Park(lab.key(name), f"run-{name}", 2, wake_at_ms=at) for name, at in wakes])
    lab.store.deposit([lab.start("put-off", start_at_ms=now + 10)])
    lab.clock.now_ms = now + 10
    lab.reopen()
    assert [lab.row(name).recoveries for name in ("due", "later", "never", "put-off")] == [1, 0, 0, 0]
    lab.commit(advice=[Running(lab.key("due"), "run-due", 0, "(runs alone)", 3, 0)])
    lab.create("bystander")
    lab.reopen()
    assert [lab.row(name).recoveries for name in ("due", "bystander")] == [2, 0]


def test_a_step_that_nobody_waits_for_any_more_is_told_of_no_more(lab):
    lab.create("a")
    told = [Running(lab.key("a"), "run-a", seq, "search", 1, 5) for seq in (1, 2)]
    lab.commit(advice=told)
    lab.commit(advice=[Running(lab.key("a"), "run-a", 1, "search", 0, 5)])
    assert lab.store.running(lab.key("a")) == told[1:]


def test_an_unclean_death_while_one_ran_alone_counts_for_that_one_only(lab):
    lab.create("suspect", "bystander")
    lab.commit(advice=[Running(lab.key("suspect"), "run-suspect", 0, "(runs alone)", 3, 0)])
    lab.reopen()
    assert [lab.row(name).recoveries for name in ("suspect", "bystander")] == [1, 0]
    lab.commit(advice=[Running(lab.key("suspect"), "run-suspect", 0, "(runs alone)", -1, 0)])
    lab.reopen()
    assert [lab.row(name).recoveries for name in ("suspect", "bystander")] == [2, 1]


def test_a_resumed_execution_begins_to_count_recoveries_anew(lab):
    lab.create("a")
    lab.reopen()
    lab.commit(advice=[Park(lab.key("a"), "run-a", 2, "stalled", problem="kills its worker")])
    assert lab.row("a").recoveries == 1
    lab.store.resume(lab.key("a"))
    assert lab.row("a").recoveries == 0


def test_a_clean_end_counts_no_recovery(lab):
    lab.create("a")
    lab.store.close_session(lab.session)
    lab.session = lab.store.open_session("worker", ("default",), "code-1")
    assert lab.row("a").recoveries == 0


def test_a_lone_session_owns_every_shard(lab):
    assert lab.store.renew(lab.session).shards == frozenset(range(lab.store.shards))


def test_sessions_have_numbers_of_their_own(lab):
    first = lab.session
    lab.reopen()
    assert lab.session.session != first.session


# --- reading ---


def test_a_journal_is_read_in_pages(lab):
    lab.create("a")
    lab.commit(lab.batch("a", *(ev.TimerFired(n) for n in range(7))))
    whole = lab.store.load(lab.key("a"), "run-a", 0, 100)
    assert [each.position for each in whole] == list(range(9))
    paged = [each for start in range(0, 12, 3) for each in lab.store.load(lab.key("a"), "run-a", start, 3)]
    assert paged == whole
    assert lab.store.load(lab.key("a"), "run-a", 9, 5) == lab.store.load(lab.key("a"), "run-a", 50, 5) == []


def test_the_journal_of_nobody_or_of_another_run_is_empty(lab):
    lab.create("a")
    assert lab.store.load(lab.key("a"), "other", 0, 10) == lab.store.load(lab.key("b"), "run-b", 0, 10) == []


def test_ready_pages_through_active_and_due_rows_by_key(lab):
    names = [f"e{n}" for n in range(40)]
    lab.create(*names)
    parked = [Park(lab.key(name), f"run-{name}", 2, wake_at_ms=n) for n, name in enumerate(names) if n % 2]
    forever = Park(lab.key("e0"), "run-e0", 2)
    lab.commit(advice=[*parked, forever])
    expected = sorted(lab.key(name) for n, name in enumerate(names) if n and (n % 2 == 0 or n <= 20))
    found, after = [], None
    while page := lab.store.ready(lab.session, 20, after, 7):
        assert len(page) <= 7
        found += [row.key for row in page]
        after = page[-1].key
    assert found == expected


def test_ready_is_silent_on_stalled_and_closed_rows_and_on_other_lanes(lab):
    lab.create("a", "b")
    lab.commit(advice=[Park(lab.key("a"), "run-a", 2, "stalled", problem="bug", wake_at_ms=1)])
    lab.close("b")
    lab.store.deposit([lab.start("c", lane="gpu")])
    assert lab.store.ready(lab.session, 10**15, None, 10) == []


def test_the_next_wake_is_the_earliest_of_the_parked(lab):
    lab.create("a", "b", "c")
    assert lab.store.next_wake_ms(lab.session, 0) is None
    lab.commit(advice=[Park(lab.key(name), f"run-{name}", 2, wake_at_ms=at) for name, at in (("a", 70), ("b", 50))])
    lab.commit(advice=[Park(lab.key("c"), "run-c", 2)])
    assert lab.store.next_wake_ms(lab.session, 0) == 50
    assert [lab.store.next_wake_ms(lab.session, at) for at in (49, 50, 69, 70)] == [50, 70, 70, None]
    lab.commit(lab.batch("b", TIMER))
    assert lab.store.next_wake_ms(lab.session, 0) == 70


def test_reading_about_nobody_finds_nothing(lab):
    key = lab.key("nobody")
    assert lab.store.row(key) is None
    assert lab.store.inbox(key, 9) == lab.store.running(key) == lab.store.dead_letters(key, 9) == []


def test_the_feed_of_a_shard_holds_all_its_events_in_order(lab, nothing):
    names = [f"e{n}" for n in range(10)]
    lab.create(*names)
    lab.commit(*(lab.batch(name, completed(1, nothing)) for name in names))
    lab.reopen()
    lab.commit(*(lab.batch(name, TIMER) for name in names))
    seen = []
    for shard in {lab.key(name).shard for name in names}:
        feed = lab.store.tail(shard, 0, 1000)
        positions = [each[0] for each in feed]
        assert positions == sorted(set(positions))
        assert min(positions) > 0
        assert lab.store.tail(shard, positions[0], 2) == feed[1:3]
        assert lab.store.tail(shard, positions[-1], 10) == []
        seen += [(key, run, recorded) for _, key, run, recorded in feed]
    for name in names:
        mine = [recorded for key, run, recorded in seen if (key, run) == (lab.key(name), f"run-{name}")]
        assert mine == lab.store.load(lab.key(name), f"run-{name}", 0, 100)


def test_changes_differ_when_another_connection_has_written(lab):
    other = lab.connect()
    before = lab.store.changes()
    lab.create("a")
    assert lab.store.changes() == before
    other.deposit(mail=[lab.mail("a")])
    assert lab.store.changes() != before
    other.close()


def test_the_clock_of_the_store_is_the_injected_one(lab):
    lab.clock.now_ms += 5
    assert lab.store.now_ms() == lab.clock.now_ms


def test_closing_a_store_twice_is_one_close(lab):
    lab.store.close()
    lab.store.close()


def test_letters_are_values(lab):
    lab.create("a")
    lab.store.deposit(mail=[lab.mail("a", message_id="m")])
    [letter] = lab.store.inbox(lab.key("a"), 1)
    assert letter == Letter(1, "m", letter.event)
