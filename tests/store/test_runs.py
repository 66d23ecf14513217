"""One run after another, in every store: continue-as-new, forks and rewinds, and what becomes of letters meanwhile."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from perdure.core import events as ev
from perdure.store.protocol import Branch, Mail, Outcome, Running, RunRow, Succession

NOTHING = ev.Payload(b"\xc0")
LARGE = ev.Payload(b"\xc6\x00\x06\x00\x00" + bytes(range(256)) * 1536)


def opening(run="second", workflow="research", **fields):
    return [ev.ExecutionStarted(workflow, run, NOTHING, continued_from="run-a", **fields), ev.ExecutionClaimed()]


def following(lab, run="second", *, workflow="research", events=(), **fields):
    begin = [*opening(run, workflow), *events]
    return Succession(run, workflow, [lab.new(each) for each in begin], **fields)


def go_on(lab, name="a", *, run="", then=None, mail=(), **fields):
    batch = lab.batch(name, ev.ContinuedAsNew("second", NOTHING), run=run or f"run-{name}", mail=mail)
    batch.then = then or following(lab, **fields)
    done = lab.commit(batch)
    lab.positions[name] = len(batch.then.events)
    return done


def runs(lab, name="a"):
    return [(each.run, each.status, each.events) for each in lab.store.runs(lab.key(name), None, 100)]


def test_a_run_ends_and_the_next_begins_in_one_commit(lab):
    lab.create("a")
    lab.clock.now_ms += 5_000
    assert go_on(lab).outcomes == [Outcome.COMMITTED]
    row = lab.row("a")
    assert (row.run, row.status, row.position, row.first_run) == ("second", "active", 2, "run-a")
    assert lab.journal("a", "second") == opening()
    assert [type(each).__name__ for each in lab.journal("a")] == [
        "ExecutionStarted",
        "ExecutionClaimed",
        "ContinuedAsNew",
    ]
    began = lab.clock.now_ms
    assert lab.store.runs(lab.key("a"), None, 9)[1] == RunRow(
        1, "run-a", "research", "continued", 3, began - 5_000, began
    )
    assert runs(lab) == [("second", "active", 2), ("run-a", "continued", 3)]


def test_the_next_run_goes_on_as_any_other(lab):
    lab.create("a")
    go_on(lab)
    done = lab.commit(lab.batch("a", ev.TimerFired(1), run="second"))
    assert done.outcomes == [Outcome.COMMITTED]
    lab.reopen()
    assert lab.row("a").recoveries == 1
    assert [row.key for row in lab.store.ready(lab.session, lab.clock.now_ms, None, 9)] == [lab.key("a")]
    assert lab.journal("a", "second")[-1] == ev.TimerFired(1)
    done = lab.commit(lab.batch("a", ev.ExecutionCompleted(NOTHING), run="second", closes="completed"))
    assert done.outcomes == [Outcome.COMMITTED]
    assert runs(lab) == [("second", "completed", 4), ("run-a", "continued", 3)]


def test_the_run_that_ended_takes_nothing_any_more(lab):
    lab.create("a")
    go_on(lab)
    late = lab.batch("a", ev.TimerFired(7), run="run-a", expected=3)
    again = lab.batch("a", ev.ContinuedAsNew("third", NOTHING), run="run-a", expected=2)
    again.then = following(lab, "third")
    assert lab.commit(late, again).outcomes == [Outcome.CONFLICT, Outcome.CONFLICT]
    assert runs(lab) == [("second", "active", 2), ("run-a", "continued", 3)]


def test_a_chain_keeps_the_name_of_its_first_run_and_pages_through_its_past(lab):
    lab.create("a")
    names = ["run-a", *(f"r{i}" for i in range(1, 8))]
    for before, after in itertools.pairwise(names):
        go_on(lab, run=before, then=following(lab, after))
    assert lab.row("a").first_run == "run-a"
    assert [name for name, _, _ in runs(lab)] == names[::-1]
    found, before = [], None
    while page := lab.store.runs(lab.key("a"), before, 3):
        found += [each.run for each in page]
        before = page[-1].n
    assert found == names[::-1]
    assert [len(lab.journal("a", name)) for name in names] == [3] * 7 + [2]


def test_an_execution_may_continue_in_the_very_commit_that_creates_it(lab):
    start = lab.start("a")
    batch = lab.batch("a", start.event, ev.ExecutionClaimed(), ev.ContinuedAsNew("second", NOTHING), create=start)
    batch.then = following(lab)
    assert lab.commit(batch).outcomes == [Outcome.COMMITTED]
    assert runs(lab) == [("second", "active", 2), ("run-a", "continued", 3)]


def test_it_may_continue_as_another_workflow(lab):
    lab.create("a")
    go_on(lab, then=following(lab, workflow="write"))
    assert lab.row("a").workflow == "write"
    assert [each.workflow for each in lab.store.runs(lab.key("a"), None, 9)] == ["write", "research"]
    receipt = lab.store.deposit([lab.start("a", run="other")])[0]
    assert receipt.status == "accepted"  # what it was started with is what counts


def test_what_waits_in_the_inbox_waits_for_the_next_run(lab):
    lab.create("a")
    first, second = lab.mail("a"), lab.mail("a")
    lab.store.deposit([], [first, second])
    done = go_on(lab)
    assert lab.key("a") in done.woken
    assert lab.inbox("a") == [first.event, second.event]
    third = lab.mail("a")
    lab.store.deposit([], [third])
    assert lab.inbox("a") == [first.event, second.event, third.event]
    letters = lab.store.inbox(lab.key("a"), 9)
    assert [each.arrival for each in letters] == sorted({each.arrival for each in letters})


def test_a_start_that_waits_for_the_place_of_one_run_waits_for_that_of_the_next(lab):
    lab.create("a")
    start = msgspec.structs.replace(lab.start("a", run="other"), on_conflict="terminate")
    lab.store.deposit([start])
    go_on(lab)
    assert lab.inbox("a") == [start.event]
    assert [each.event for each in lab.store.requests(lab.key("a"), 9)] == [start.event]


def test_nothing_waits_then_nobody_is_woken(lab):
    lab.create("a")
    assert lab.key("a") not in go_on(lab).woken


def test_what_was_journaled_and_not_received_comes_before_what_waits(lab):
    lab.create("a")
    taken, unread, waiting = lab.mail("a"), lab.mail("a"), lab.mail("a")
    lab.store.deposit([], [taken, unread, waiting])
    letters = lab.store.inbox(lab.key("a"), 2)
    lab.commit(lab.batch("a", taken.event, unread.event, taken=letters))
    ids = [taken.message_id, unread.message_id]
    go_on(lab, carried=[unread], received=ids)
    assert lab.inbox("a") == [unread.event, waiting.event]


def test_what_a_past_run_received_is_not_put_into_the_inbox_again(lab):
    lab.create("a", "b")
    sent, early = lab.mail("a"), lab.mail("a")
    lab.store.deposit([], [sent])
    lab.commit(lab.batch("a", sent.event, taken=lab.store.inbox(lab.key("a"), 9)))
    lab.store.deposit([], [sent, early])  # again, before it continues
    go_on(lab, received=[sent.message_id])
    assert lab.inbox("a") == [early.event]
    assert lab.store.deposit([], [sent])[0].status == "accepted"  # again, afterwards
    assert lab.inbox("a") == [early.event]
    go_on(lab, run="second", then=following(lab, "third"))
    lab.store.deposit([], [sent, Mail(lab.key("b"), sent.message_id, sent.event)])
    assert lab.inbox("a") == [early.event]
    assert lab.inbox("b") == [sent.event]  # another execution's


def test_a_carried_message_is_there_once_even_if_its_sender_repeats_it(lab):
    lab.create("a")
    unread = lab.mail("a")
    lab.store.deposit([], [unread])
    lab.commit(lab.batch("a", unread.event, taken=lab.store.inbox(lab.key("a"), 9)))
    lab.store.deposit([], [unread])
    go_on(lab, carried=[unread], received=[unread.message_id])
    lab.store.deposit([], [unread])
    assert lab.inbox("a") == [unread.event]


def test_a_carried_message_that_nobody_journaled_goes_on_with_the_next_run(lab):
    """It was received by an earlier run, and given back: it is not one that its sender repeats."""
    lab.create("a")
    unread = lab.mail("a")
    lab.store.deposit([], [unread])
    lab.commit(lab.batch("a", unread.event, taken=lab.store.inbox(lab.key("a"), 9)))
    go_on(lab, carried=[unread], received=[unread.message_id])
    go_on(lab, run="second", then=following(lab, "third"))
    assert lab.inbox("a") == [unread.event]
    taken = lab.store.inbox(lab.key("a"), 9)
    lab.commit(lab.batch("a", unread.event, run="third", taken=taken))
    lab.store.deposit([], [unread])
    go_on(lab, run="third", then=following(lab, "fourth"), received=[unread.message_id])
    assert lab.inbox("a") == []


def test_answers_to_the_run_that_ended_are_dropped(lab):
    lab.create("a")
    closed = ev.ChildClosed(1, "child", "completed", NOTHING)
    lab.store.deposit([], [Mail(lab.key("a"), "closed-1", closed, receiver_run="run-a")])
    go_on(lab)
    assert lab.inbox("a") == []
    receipt = lab.store.deposit([], [Mail(lab.key("a"), "closed-2", closed, receiver_run="run-a")])[0]
    assert receipt.status == "closed"
    lab.create("child")
    lab.send("child", Mail(lab.key("a"), "closed-3", closed, receiver_run="run-a"))
    assert (lab.inbox("a"), lab.dead("a")) == ([], [])


def test_requests_to_the_first_run_reach_those_that_followed(lab):
    """As a parent's, that knows its child by the run that it started."""
    lab.create("a", "parent")
    go_on(lab)
    go_on(lab, run="second", then=following(lab, "third"))
    end = ev.TerminateRequested("m-end", "its parent closed")
    lab.send("parent", Mail(lab.key("a"), "m-end", end, receiver_run="run-a"))
    assert lab.inbox("a") == [end]
    lab.send("parent", Mail(lab.key("a"), "m-2", lab.signal(), receiver_run="second"))
    assert lab.inbox("a") == [end]  # neither the first nor the current one


def test_mail_in_the_last_commit_may_go_to_itself(lab):
    lab.create("a")
    note = lab.mail("a")
    go_on(lab, mail=[note])
    lab.deliver()
    assert lab.inbox("a") == [note.event]


def test_running_steps_end_with_their_run(lab):
    lab.create("a")
    lab.commit(advice=[Running(lab.key("a"), "run-a", 3, "search", 1, 5)])
    go_on(lab)
    assert lab.store.running(lab.key("a")) == []


def test_the_state_of_the_next_run_is_its_own(lab):
    lab.create("a")
    batch = lab.batch("a", ev.StatePublished(NOTHING, 1))
    batch.state_at = 2
    lab.commit(batch)
    go_on(lab, run="run-a", then=following(lab, "second"))
    assert lab.row("a").state_position is None
    go_on(lab, run="second", then=following(lab, "third", events=[ev.StatePublished(NOTHING, 0)]))
    assert lab.row("a").state_position == 2


def test_large_values_of_the_next_run_are_kept(lab):
    lab.create("a")
    unread = lab.mail("a", ev.SignalReceived("m-large", "go", LARGE))
    go_on(lab, then=following(lab, events=[], carried=[unread]))
    assert lab.inbox("a") == [unread.event]


def test_the_shards_feed_tells_of_past_runs_too(lab):
    lab.create("a")
    go_on(lab)
    key = lab.key("a")
    told = [
        (run, type(found.event).__name__) for _, where, run, found in lab.store.tail(key.shard, 0, 99) if where == key
    ]
    assert told == [
        ("run-a", "ExecutionStarted"),
        ("run-a", "ExecutionClaimed"),
        ("run-a", "ContinuedAsNew"),
        ("second", "ExecutionStarted"),
        ("second", "ExecutionClaimed"),
    ]


# --- forks and rewinds ---


def branch(lab, name, *, at, run="forked", origin="a", **fields):
    copied = lab.store.load(lab.key(origin), f"run-{origin}", 0, at)
    forked = ev.RunForked(run, name, origin, f"run-{origin}")
    last = ev.Recorded(at, lab.clock.now_ms, forked)
    lab.positions[name] = at + 1
    told = f"{origin}/run-{origin}/{at}"
    return Branch(lab.key(name), run, "research", "default", told, [*copied, last], **fields)


def story(lab, name="a"):
    lab.create(name)
    lab.commit(lab.batch(name, ev.TimerFired(1)))
    lab.commit(lab.batch(name, ev.StatePublished(NOTHING, 1), ev.TimerFired(2), state_at=3))


def test_a_fork_is_a_new_execution_that_begins_with_copied_events(lab):
    story(lab)
    receipt = lab.store.branch(branch(lab, "b", at=3, digest=b"this fork"))
    assert (receipt.status, receipt.created) == ("accepted", True)
    row = lab.row("b")
    assert (row.run, row.status, row.position, row.state_position) == ("forked", "active", 4, None)
    assert (row.parent, row.first_run, row.start_digest) == ("", "", b"this fork")
    copied = lab.store.load(lab.key("b"), "forked", 0, 99)
    assert copied[:3] == lab.store.load(lab.key("a"), "run-a", 0, 3)  # with their moments and workers
    assert (copied[3].event, copied[3].fingerprint) == (ev.RunForked("forked", "b", "a", "run-a"), "")
    [only] = lab.store.runs(lab.key("b"), None, 9)
    assert (only.origin, only.status, only.events) == ("a/run-a/3", "active", 4)
    assert lab.commit(lab.batch("b", ev.TimerFired(2), run="forked")).outcomes == [Outcome.COMMITTED]
    assert len(lab.journal("a")) == 5


def test_a_fork_may_be_asked_for_again_but_its_id_is_taken_for_others(lab):
    story(lab)
    lab.store.branch(branch(lab, "b", at=3, digest=b"this fork"))
    again = lab.store.branch(branch(lab, "b", at=3, run="again", digest=b"this fork"))
    assert (again.status, again.created, again.row.run) == ("accepted", False, "forked")
    other = lab.store.branch(branch(lab, "b", at=2, run="other", digest=b"another"))
    assert (other.status, other.row.run) == ("exists", "forked")
    assert [name for name, _, _ in runs(lab, "b")] == ["forked"]


def rewound(lab, *, at, expected=5, run="again", **fields):
    return branch(lab, "a", at=at, run=run, instead_of="run-a", expected=expected, **fields)


def test_a_rewind_puts_another_run_in_the_place_of_an_open_one(lab):
    story(lab)
    assert lab.store.branch(rewound(lab, at=4)).status == "accepted"
    assert runs(lab) == [("again", "active", 5), ("run-a", "abandoned", 5)]
    assert (lab.row("a").first_run, lab.row("a").state_position) == ("run-a", 3)
    assert len(lab.journal("a")) == 5
    assert [each.origin for each in lab.store.runs(lab.key("a"), None, 9)] == ["a/run-a/4", ""]
    late = lab.batch("a", ev.TimerFired(3), run="run-a", expected=5)
    now = lab.batch("a", ev.TimerFired(2), run="again")
    assert lab.commit(late, now).outcomes == [Outcome.CONFLICT, Outcome.COMMITTED]


def test_a_rewind_opens_what_was_closed(lab):
    story(lab)
    lab.close("a")
    closed_at_ms = lab.row("a").closed_at_ms
    lab.clock.now_ms += 60_000
    assert lab.store.branch(rewound(lab, at=3, expected=6)).status == "accepted"
    assert (lab.row("a").status, lab.row("a").closed_at_ms) == ("active", None)
    past = lab.store.runs(lab.key("a"), None, 9)[1]
    assert (past.status, past.ended_at_ms) == ("completed", closed_at_ms)


def test_a_rewind_of_what_has_gone_on_changes_nothing(lab):
    story(lab)
    for wrong in (rewound(lab, at=3, expected=4), branch(lab, "a", at=3, instead_of="elsewhere", expected=5)):
        assert lab.store.branch(wrong).status == "moved"
    assert lab.store.branch(branch(lab, "nobody", at=3, instead_of="run-a", expected=5)).status == "missing"
    assert runs(lab) == [("run-a", "active", 5)]


def test_a_rewind_keeps_the_messages(lab):
    story(lab)
    journaled, waiting = lab.mail("a"), lab.mail("a")
    lab.store.deposit([], [waiting])
    answer = Mail(lab.key("a"), "closed-1", ev.ChildClosed(1, "child", "completed", NOTHING), receiver_run="run-a")
    lab.store.deposit([], [answer])
    assert lab.store.branch(rewound(lab, at=3, carried=[journaled])).status == "accepted"
    assert lab.inbox("a") == [journaled.event, waiting.event]


def test_what_has_begun_once_is_there_after_a_crash(lab):
    story(lab)
    lab.store.branch(branch(lab, "b", at=3, digest=b"f"))
    lab.store.branch(rewound(lab, at=3))
    lab.reopen()
    keys = [row.key for row in lab.store.ready(lab.session, lab.clock.now_ms, None, 9)]
    assert keys == sorted([lab.key("a"), lab.key("b")])
    more = lab.start("c")
    assert lab.commit(lab.batch("c", more.event, create=more)).outcomes == [Outcome.COMMITTED]
    everything = [n for shard in range(lab.store.shards) for n, *_ in lab.store.tail(shard, 0, 99)]
    assert len(everything) == 5 + 4 + 4 + 1


@pytest.mark.parametrize("lab", ["sqlite", "memory"], indirect=True)
def test_a_transaction_that_fails_leaves_nothing_of_a_succession(lab, monkeypatch):
    lab.create("a")
    waiting = lab.mail("a")
    lab.store.deposit([], [waiting])

    def broken(*_):
        raise RuntimeError("in the middle")

    tables = type(lab.store._tables) if hasattr(lab.store, "_tables") else _memory_tables()
    with monkeypatch.context() as patch:
        patch.setattr(tables, "_move_letters", broken)
        with pytest.raises(RuntimeError):
            go_on(lab)
    lab.positions["a"] = 2
    assert runs(lab) == [("run-a", "active", 2)]
    assert lab.inbox("a") == [waiting.event]
    assert go_on(lab).outcomes == [Outcome.COMMITTED]


def _memory_tables():
    from perdure.store.memory_runs import MemoryRuns  # noqa: PLC0415 - only for this

    return MemoryRuns
