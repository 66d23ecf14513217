"""Large values kept apart: who puts them, what keeps them, what is collected. Held by every store."""

from __future__ import annotations

import pytest

from perdure.core import events as ev
from perdure.core.errors import StoreError
from perdure.store.protocol import Blob, Outcome

TIMER = ev.TimerFired(1)
BIG = b"\x00\xff" * 200_000


def blob(lab, name: str, address: bytes = b"one", data: bytes = BIG) -> Blob:
    return Blob(lab.key(name), address, data)


def test_a_blob_is_read_as_it_was_put(lab):
    lab.store.put_blobs([blob(lab, "a"), blob(lab, "a", b"two", b""), blob(lab, "b", b"one", b"other")])
    assert lab.store.blob(lab.key("a"), b"one") == BIG
    assert lab.store.blob(lab.key("a"), b"two") == b""
    assert lab.store.blob(lab.key("b"), b"one") == b"other"
    assert lab.store.blob(lab.key("b"), b"two") is lab.store.blob(lab.key("c"), b"one") is None


def test_a_blob_that_is_there_is_kept_as_it_is(lab):
    lab.store.put_blobs([blob(lab, "a"), blob(lab, "a", data=b"of the same address, so the same")])
    assert lab.store.blob(lab.key("a"), b"one") == BIG


def test_blobs_outlive_the_process(lab):
    lab.store.put_blobs([blob(lab, "a")])
    lab.reopen()
    assert lab.store.blob(lab.key("a"), b"one") == BIG


def test_what_nothing_refers_to_is_collected_in_bounded_batches_the_oldest_first(lab):
    lab.create("a")
    for n in range(5):
        lab.store.put_blobs([blob(lab, "a", b"%d" % n)])
        lab.clock.now_ms += 10
    assert lab.store.collect_blobs(lab.clock.now_ms - 20, 2) == 2
    left = [n for n in range(5) if lab.store.blob(lab.key("a"), b"%d" % n)]
    assert left == [2, 3, 4]
    assert lab.store.collect_blobs(lab.clock.now_ms - 20, 2) == 1
    assert lab.store.collect_blobs(lab.clock.now_ms - 20, 2) == 0
    assert lab.store.collect_blobs(lab.clock.now_ms + 1, 100) == 2


def collected(lab) -> int:
    lab.clock.now_ms += 1
    return lab.store.collect_blobs(lab.clock.now_ms, 100)


def test_a_committed_batch_keeps_its_blobs(lab):
    lab.create("a")
    lab.store.put_blobs([blob(lab, "a"), blob(lab, "a", b"two")])
    batch = lab.batch("a", TIMER)
    batch.blobs = [b"one"]
    assert inner(lab).commit(lab.session, [batch]).outcomes == [Outcome.COMMITTED]
    assert collected(lab) == 1
    assert lab.store.blob(lab.key("a"), b"one") == BIG


def inner(lab):
    """Below the wrapper that would find its own blobs."""
    return getattr(lab.store, "inner", lab.store)


def test_a_batch_that_is_left_out_keeps_nothing(lab):
    lab.create("a")
    lab.store.put_blobs([blob(lab, "a")])
    batch = lab.batch("a", TIMER, expected=7)
    batch.blobs = [b"one"]
    assert inner(lab).commit(lab.session, [batch]).outcomes == [Outcome.CONFLICT]
    assert collected(lab) == 1


def test_what_refers_to_a_blob_that_is_gone_is_not_written(lab):
    lab.create("a", "b")
    batch = lab.batch("a", TIMER)
    batch.blobs = [b"one"]
    with pytest.raises(StoreError, match="missing"):
        inner(lab).commit(lab.session, [lab.batch("b", TIMER), batch])
    assert [lab.row(name).position for name in "ab"] == [2, 2]


def test_mail_and_starts_keep_the_blobs_of_who_gets_them(lab):
    lab.create("a", "b")
    lab.store.put_blobs([blob(lab, name) for name in ("a", "b", "child", "nobody")])
    mail, start = lab.mail("b", blobs=(b"one",)), lab.start("child")
    start = type(start)(start.key, start.event, start.digest, (b"one",))
    inner(lab).commit(lab.session, [lab.batch("a", mail=[mail], starts=[start])])
    lab.deliver()
    assert collected(lab) == 2
    assert lab.store.blob(lab.key("b"), b"one") == lab.store.blob(lab.key("child"), b"one") == BIG


def test_deposits_keep_blobs_only_if_they_are_accepted(lab):
    lab.create("a", "closed")
    lab.close("closed")
    lab.store.put_blobs([blob(lab, name) for name in ("a", "closed", "nobody", "new")])
    start = lab.start("new")
    start = type(start)(start.key, start.event, start.digest, (b"one",))
    mail = [lab.mail(name, blobs=(b"one",)) for name in ("a", "closed", "nobody")]
    receipts = inner(lab).deposit([start], mail)
    assert [each.status for each in receipts] == ["accepted", "accepted", "closed", "missing"]
    assert collected(lab) == 2
    assert lab.store.blob(lab.key("a"), b"one") == lab.store.blob(lab.key("new"), b"one") == BIG


def test_a_blob_that_is_put_again_is_fresh_again(lab):
    """Whoever put it may be about to commit what refers to it, while somebody collects."""
    lab.store.put_blobs([blob(lab, "a")])
    lab.clock.now_ms += 1000
    lab.store.put_blobs([blob(lab, "a")])
    assert lab.store.collect_blobs(lab.clock.now_ms, 100) == 0
    assert collected(lab) == 1
