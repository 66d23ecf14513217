"""Steps of which nobody knows what they did: listed until they are settled, by exactly one answer."""

from __future__ import annotations

import msgspec
import pytest

from perdure.core import events as ev
from perdure.store.protocol import Outcome, UnresolvedRow


def unresolved(lab, name, seq=1, run="", **fields):
    told = {"attempt": 1, "intent": 2, "unknown": 3, "since_ms": 1_000} | fields
    return UnresolvedRow(lab.key(name), run or f"run-{name}", seq, **told)


def answer(lab, name, seq=1, *, attempt=1, run="", message_id="a1", outcome="abandoned"):
    event = ev.ResolveRequested(message_id, run or f"run-{name}", seq, attempt, outcome)
    return lab.mail(name, event, message_id=message_id)


def deposit(lab, mail):
    return lab.store.deposit([], [mail])[0].status


def listed(lab, execution="", after=None, limit=100):
    return lab.store.unresolved("default", execution, after, limit)


def begin(lab, *names):
    """An execution each, with one step of which nobody knows."""
    lab.create(*names)
    for name in names:
        lab.commit(lab.batch(name, lab.signal(), unresolved=[unresolved(lab, name)]))


def test_what_is_unresolved_is_listed_until_it_is_resolved(lab):
    begin(lab, "a")
    lab.commit(lab.batch("a", lab.signal(), unresolved=[unresolved(lab, "a", 7, attempt=2)]))
    assert listed(lab) == [unresolved(lab, "a"), unresolved(lab, "a", 7, attempt=2)]
    lab.commit(lab.batch("a", lab.signal(), resolved=[1]))
    lab.reopen()
    assert listed(lab) == [unresolved(lab, "a", 7, attempt=2)]


def test_a_batch_that_is_left_out_lists_nothing(lab):
    lab.create("a")
    batch = lab.batch("a", lab.signal(), expected=9, unresolved=[unresolved(lab, "a")])
    assert lab.commit(batch).outcomes == [Outcome.CONFLICT]
    assert listed(lab) == []


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
    assert [row.key.execution for row in listed(lab, "x3")] == ["x3"]
    assert lab.store.unresolved("other", "", None, 10) == []


def test_an_answer_arrives_once_and_is_marked(lab):
    begin(lab, "a")
    assert deposit(lab, answer(lab, "a")) == "accepted"
    assert [row.message_id for row in listed(lab)] == ["a1"]
    assert deposit(lab, answer(lab, "a")) == "accepted"  # asked again after a lost reply
    assert [event.message_id for event in lab.inbox("a")] == ["a1"]


def test_a_second_answer_is_moot(lab):
    begin(lab, "a")
    deposit(lab, answer(lab, "a"))
    assert deposit(lab, answer(lab, "a", message_id="a2")) == "moot"
    assert [event.message_id for event in lab.inbox("a")] == ["a1"]


@pytest.mark.parametrize("wrong", [{"seq": 2}, {"attempt": 2}, {"run": "run-before"}])
def test_an_answer_to_what_nobody_asks_is_moot(lab, wrong):
    begin(lab, "a")
    assert deposit(lab, answer(lab, "a", **wrong)) == "moot"
    assert lab.inbox("a") == []
    assert listed(lab) == [unresolved(lab, "a")]


def test_an_answer_for_nobody_is_told(lab):
    lab.create("b")
    assert deposit(lab, answer(lab, "nobody")) == "missing"
    assert deposit(lab, answer(lab, "b")) == "moot"


def test_a_refused_answer_makes_room_for_another(lab):
    begin(lab, "a")
    deposit(lab, answer(lab, "a"))
    letters = lab.store.inbox(lab.key("a"), 10)
    refused = unresolved(lab, "a", since_ms=9, refused=True)
    lab.commit(lab.batch("a", taken=letters, unresolved=[refused]))
    assert listed(lab) == [msgspec.structs.replace(refused, since_ms=1_000)]
    assert deposit(lab, answer(lab, "a", message_id="a2")) == "accepted"
    assert [(row.message_id, row.refused) for row in listed(lab)] == [("a2", False)]


def test_what_is_unresolved_outlives_its_execution_and_an_answer_then_is_kept(lab):
    begin(lab, "a")
    lab.close("a")
    assert listed(lab) == [unresolved(lab, "a")]
    assert deposit(lab, answer(lab, "a")) == "accepted"
    assert listed(lab) == []
    assert [event.message_id for event in lab.dead("a")] == ["a1"]
    assert deposit(lab, answer(lab, "a", message_id="a2")) == "moot"


def test_an_answer_that_a_close_overtakes_counts_and_is_kept(lab):
    begin(lab, "a")
    deposit(lab, answer(lab, "a"))
    lab.close("a")
    assert listed(lab) == []
    assert [event.message_id for event in lab.dead("a")] == ["a1"]


def test_what_failed_to_commit_is_as_it_was(lab):
    """In one group with a batch that does not match, and in a transaction that was rolled back."""
    begin(lab, "a", "b")
    wrong = lab.batch("b", lab.signal(), expected=9, resolved=[1])
    done = lab.commit(wrong, lab.batch("a", lab.signal(), resolved=[1]))
    assert done.outcomes == [Outcome.CONFLICT, Outcome.COMMITTED]
    assert listed(lab) == [unresolved(lab, "b")]
