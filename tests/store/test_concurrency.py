"""Many threads on one store, and other processes beside it."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from perdure.core import events as ev
from perdure.store.protocol import Outcome

DEPOSITOR = """
import sys
from perdure.core import events as ev
from perdure.core.identity import Key
from perdure.store.protocol import Mail
from perdure.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
for n in range(int(sys.argv[4])):
    event = ev.SignalReceived(f"{sys.argv[3]}-{n}", "go", ev.Payload(b""))
    key = Key(int(sys.argv[2]), "default", "a")
    assert store.deposit(mail=[Mail(key, event.message_id, event)])[0].status == "accepted"
store.close()
"""


def test_reading_does_not_wait_for_a_commit_and_sees_what_was_before(sqlite_lab):
    lab = sqlite_lab
    lab.create("a")
    with lab.store._writing(lab.session) as tables:
        batch = lab.batch("a", ev.TimerFired(1))
        assert tables.advance(batch)
        tables.append(batch)
        tables.flush()
        assert (lab.row("a").position, len(lab.journal("a"))) == (2, 2)
        assert lab.inbox("a") == []
        assert len(lab.store.ready(lab.session, 0, None, 10)) == 1
        lab.store.changes()
        lab.store.owner()
    assert (lab.row("a").position, len(lab.journal("a"))) == (3, 3)


def test_threads_commit_deposit_and_read_at_once(lab):
    names = [f"e{n}" for n in range(4)]
    lab.create(*names)
    done = threading.Event()

    def write(name):
        for n in range(30):
            batch = lab.batch(name, ev.TimerFired(n), mail=[lab.mail(names[0])])
            assert lab.commit(batch).outcomes == [Outcome.COMMITTED]

    def deposit(name):
        for _ in range(30):
            assert lab.store.deposit(mail=[lab.mail(name)])[0].status == "accepted"

    def read():
        while not done.is_set():
            for name in names:
                row = lab.row(name)
                assert len(lab.journal(name)) >= row.position
                lab.inbox(name)
            lab.store.ready(lab.session, 0, None, 10)
            lab.store.changes()

    with ThreadPoolExecutor(10) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        writers = [pool.submit(work, name) for name in names for work in (write, deposit)]
        try:
            for each in writers:
                each.result()
        finally:
            done.set()
        for each in readers:
            each.result()
    lab.deliver()
    assert [len(lab.journal(name)) for name in names] == [32] * 4
    assert [len(lab.inbox(name)) for name in names] == [30 + 4 * 30, 30, 30, 30]


def test_other_processes_deposit_while_the_engine_commits(sqlite_lab):
    lab = sqlite_lab
    lab.create("a", "b")
    arguments = [sys.executable, "-c", DEPOSITOR, lab.store.path, str(lab.key("a").shard)]
    before = lab.store.changes()
    processes = [subprocess.Popen([*arguments, str(n), "40"]) for n in range(2)]
    while any(each.poll() is None for each in processes):
        assert lab.commit(lab.batch("b", ev.TimerFired(1))).outcomes == [Outcome.COMMITTED]
    assert [each.returncode for each in processes] == [0, 0]
    assert lab.store.changes() != before
    letters = [each.message_id for each in lab.store.inbox(lab.key("a"), 1000)]
    assert len(letters) == 80
    for n in range(2):
        assert [each for each in letters if each.startswith(f"{n}-")] == [f"{n}-{m}" for m in range(40)]
