"""Questions to people: listed while they are open, answered once, closed with their run."""

from __future__ import annotations

import pytest

from perdure.core import events as ev
from perdure.core.ask_events import answer_name
from perdure.core.identity import shard_of
from perdure.store.protocol import AskRow, Branch, Mail, Outcome, Succession
from perdure.store.queries import SQL

NOW = 1_700_000_000_000
NOTHING = ev.Payload(b"\xc0")


def ask(lab, name, seq=1, *, run="", to="ada", escalate=("", 0), expires=0):
    return AskRow(lab.key(name), run or f"run-{name}", seq, 2, to, *escalate, NOW, expires)


def answer(lab, name, seq=1, *, run="", message_id="a1"):
    event = ev.SignalReceived(message_id, answer_name(seq), NOTHING)
    mail = Mail(lab.key(name), message_id, event, receiver_run=run or f"run-{name}")
    return lab.store.deposit([], [mail])[0].status


def listed(lab, *, execution="", to="", now_ms=NOW, after=None, limit=100):
    return lab.store.asks("default", execution, to, now_ms, after, limit)


def begin(lab, *names, **fields):
    lab.create(*names)
    for name in names:
        lab.commit(lab.batch(name, lab.signal(), asks=[ask(lab, name, **fields)]))


def test_a_question_is_listed_until_it_is_closed(lab):
    begin(lab, "a")
    lab.commit(lab.batch("a", lab.signal(), asks=[ask(lab, "a", 7)]))
    lab.reopen()
    assert listed(lab) == [ask(lab, "a"), ask(lab, "a", 7)]
    lab.commit(lab.batch("a", lab.signal(), closed_asks=[1]))
    assert listed(lab) == [ask(lab, "a", 7)]


def test_what_one_batch_asks_and_closes_is_never_listed(lab):
    lab.create("a")
    lab.commit(lab.batch("a", lab.signal(), asks=[ask(lab, "a")], closed_asks=[1]))
    assert listed(lab, now_ms=0) == []


def test_a_batch_that_is_left_out_asks_nothing(lab):
    lab.create("a")
    batch = lab.batch("a", lab.signal(), expected=9, asks=[ask(lab, "a")])
    assert lab.commit(batch).outcomes == [Outcome.CONFLICT]
    assert listed(lab, now_ms=0) == []


def test_the_list_comes_in_pages_and_by_execution(lab):
    names = [f"x{n}" for n in range(7)]
    begin(lab, *names)
    whole = listed(lab)
    assert {row.key.execution for row in whole} == set(names)
    pages, after = [], None
    while page := listed(lab, after=after, limit=3):
        pages += page
        after = page[-1]
    assert pages == whole
    assert [row.key.execution for row in listed(lab, execution="x3")] == ["x3"]
    assert lab.store.asks("other", "", "", NOW, None, 10) == []


def test_it_is_found_by_whom_is_asked_then(lab):
    begin(lab, "a", escalate=("boss", NOW + 10))
    begin(lab, "b", to="")
    found = [
        [row.key.execution for row in listed(lab, to=to, now_ms=NOW + t)] for t in (9, 10) for to in ("ada", "boss")
    ]
    assert found == [["a"], [], [], ["a"]]
    assert len(listed(lab)) == 2


def test_those_to_somebody_come_in_pages_too_before_and_after_they_escalate(lab):
    for n in range(12):
        begin(lab, f"x{n}", to="ada" if n % 2 else "boss", escalate=("boss", NOW + 10) if n % 3 else ("", 0))
    for now_ms in (NOW, NOW + 10, 0):
        for to in ("ada", "boss"):
            whole = [row for row in listed(lab, now_ms=now_ms) if row.asked_of(now_ms) == to]
            assert len(whole) > 1
            pages, after = [], None
            while page := listed(lab, to=to, now_ms=now_ms, after=after, limit=2):
                pages, after = pages + page, page[-1]
            assert pages == whole
    assert [row.key.execution for row in listed(lab, to="boss", execution="x0")] == ["x0"]


def test_those_to_somebody_are_found_by_an_index_in_order(sqlite_lab):
    query = "EXPLAIN QUERY PLAN " + SQL["asks_of"]
    plan = [
        row[3]
        for row in sqlite_lab.store._reader.execute(query, (5, "default", "a", "r", 1, "default", "", "ada", NOW, 9))
    ]
    assert [each for each in plan if "TEMP B-TREE" in each or "SCAN ask" in each] == []
    assert any("ask_addressee (namespace=? AND addressee=? AND (shard,execution,run,seq)>" in each for each in plan), (
        plan
    )
    assert any(
        "ask_escalated (namespace=? AND escalate_to=? AND (shard,execution,run,seq)>" in each for each in plan
    ), plan


def test_what_is_too_late_is_listed_only_when_asked_for(lab):
    begin(lab, "a", expires=NOW + 5)
    assert len(listed(lab, now_ms=NOW + 4)) == 1
    assert listed(lab, now_ms=NOW + 5) == []
    assert len(listed(lab, now_ms=0)) == 1


def test_one_answer_is_taken(lab):
    begin(lab, "a")
    assert answer(lab, "a") == "accepted"
    assert answer(lab, "a") == "accepted"  # sent again after a lost reply
    assert answer(lab, "a", message_id="a2") == "moot"
    assert [event.message_id for event in lab.inbox("a")] == ["a1"]
    assert listed(lab) == []
    assert [row.message_id for row in listed(lab, now_ms=0)] == ["a1"]


@pytest.mark.parametrize("wrong", [{"seq": 2}, {"run": "run-0"}])
def test_an_answer_to_another_question_or_run_is_not_taken(lab, wrong):
    begin(lab, "a")
    assert answer(lab, "a", **wrong) in ("moot", "closed")
    assert lab.inbox("a") == []


def test_a_question_that_is_open_again_takes_another_answer(lab):
    begin(lab, "a")
    answer(lab, "a")
    lab.commit(lab.batch("a", lab.signal(), taken=lab.store.inbox(lab.key("a"), 10), reopened_asks=[1]))
    [row] = listed(lab)
    assert (row.message_id, row.refused) == ("", True)
    assert answer(lab, "a", message_id="a2") == "accepted"


def test_a_rollback_brings_back_what_was_listed(lab):
    begin(lab, "a", "b")
    inner = getattr(lab.store, "inner", lab.store)
    with pytest.raises(Exception, match="blob"):
        inner.commit(lab.session, [lab.batch("a", lab.signal(), closed_asks=[1], blobs=[b"none"])])
    assert len(listed(lab)) == 2


@pytest.mark.parametrize("status", ["completed", "failed", "terminated"])
def test_the_questions_of_a_run_close_with_it(lab, status):
    begin(lab, "a", "b")
    lab.commit(lab.batch("a", ev.ExecutionTerminated(), closes=status, asks=[ask(lab, "a", 9)]))
    assert [row.key.execution for row in listed(lab, now_ms=0)] == ["b"]
    assert answer(lab, "a") == "closed"


def test_the_next_run_asks_anew_and_gets_no_answer_of_the_one_before(lab):
    begin(lab, "a")
    answer(lab, "a")
    then = Succession("run-2", "w", [lab.new(ev.ExecutionStarted("w", "run-2", NOTHING))])
    lab.commit(lab.batch("a", ev.ContinuedAsNew("run-2", NOTHING, "w"), then=then))
    assert listed(lab, now_ms=0) == []
    assert lab.store.inbox(lab.key("a"), 10) == []
    assert [letter.message_id for letter in lab.store.dead_letters(lab.key("a"), 10)] == ["a1"]


def test_a_branch_asks_what_is_open_at_its_cut(lab):
    lab.create("a")
    questions = [ev.QuestionAsked(seq, f"q{seq}", "ada", expires_at_ms=NOW + seq) for seq in (1, 2, 3)]
    got = ev.SignalReceived("m", answer_name(2), NOTHING)
    lab.commit(lab.batch("a", *questions, ev.QuestionClosed(4, 1, "answered"), got))
    copied = lab.store.load(lab.key("a"), "run-a", 0, 100)
    key = lab.key("f")._replace(shard=shard_of("default", "f", lab.store.shards))
    fork = ev.RunForked("run-f", "f", "a", "run-a")
    events = [*copied, ev.Recorded(len(copied), NOW, fork)]
    assert lab.store.branch(Branch(key, "run-f", "w", "default", "a/run-a/9", events, b"d")).status == "accepted"
    [row] = listed(lab, now_ms=0)
    assert (row.key, row.run, row.seq, row.to, row.expires_at_ms) == (key, "run-f", 3, "ada", NOW + 3)
    assert lab.store.load(key, "run-f", row.position, 1)[0].event.question == "q3"
