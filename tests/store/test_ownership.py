"""One engine per file: the lock on the side file, seen from this process and from others that really live and die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from perdure.core.errors import OwnershipLost, StoreBusy, StoreError, StoreReplaced
from perdure.store.ownership import Owner, owner_of, side_file
from perdure.store.protocol import Filter
from perdure.store.sqlite import SqliteStore

LANES = ("default",)

ENGINE = """
import sys
from perdure.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
session = store.open_session("other", ("default",), "")
store.announce("/run/other.sock")
print("open", flush=True)
sys.stdin.readline()
store.close_session(session)
store.close()
"""


class Engine:
    """An engine in a process of its own."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", ENGINE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "open\n"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.wait()

    def leave(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.wait()

    def wait(self) -> None:
        self.process.wait()
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture
def engine(path):
    other = Engine(path)
    yield other
    other.kill()


@pytest.fixture
def store(path):
    made = SqliteStore(path)
    yield made
    made.close()


def test_a_second_engine_in_another_process_gets_an_error_that_names_the_first(engine, store):
    with pytest.raises(StoreBusy, match=f"process {engine.process.pid}"):
        store.open_session("worker", LANES, "")


def test_a_second_engine_in_the_same_process_gets_an_error(store, path):
    store.open_session("worker", LANES, "")
    second = SqliteStore(path)
    with pytest.raises(StoreBusy, match="which is this one"):
        second.open_session("worker", LANES, "")
    with pytest.raises(StoreBusy, match="which is this one"):
        store.open_session("worker", LANES, "")
    second.close()


def test_a_killed_engine_frees_the_file_at_once_and_is_fenced(engine, store):
    engine.kill()
    session = store.open_session("worker", LANES, "")
    assert session.session == 2
    assert store.owner().pid == os.getpid()


def test_clients_learn_who_runs_the_engine_and_where_it_listens(engine, store):
    owner = store.owner()
    assert (owner.pid, owner.address) == (engine.process.pid, "/run/other.sock")
    assert owner.started_at_ms > 0
    engine.leave()
    assert store.owner() is None


def test_who_owns_a_file_that_nobody_ever_owned_is_nobody(store):
    assert store.owner() is None


def test_asking_for_the_owner_does_not_drop_the_own_lock(store, path):
    store.open_session("worker", LANES, "")
    for _ in range(3):
        assert store.owner().pid == os.getpid()
    found = subprocess.run([sys.executable, "-c", ENGINE, str(path)], capture_output=True, text=True, check=False)
    assert "StoreBusy" in found.stderr


def test_a_reader_and_a_client_work_beside_an_engine(engine, store):
    assert store.deposit() == []
    assert store.find(Filter("default"), None, 10) == []


def test_a_failed_opening_frees_the_file(store, path, monkeypatch):
    with pytest.raises(UnicodeEncodeError):
        store.open_session("\ud800", LANES, "")
    assert store.owner() is None
    store.open_session("worker", LANES, "")


def test_a_session_is_lost_when_its_lock_file_is_replaced(store, path):
    session = store.open_session("worker", LANES, "")
    store.renew(session)
    side = Path(side_file(str(path)))
    side.unlink()
    with pytest.raises(OwnershipLost, match="lock file"):
        store.renew(session)
    side.touch()
    with pytest.raises(OwnershipLost, match="lock file"):
        store.renew(session)


def test_when_the_lock_file_is_replaced_another_engine_fences_the_first(store, path):
    session = store.open_session("worker", LANES, "")
    Path(side_file(str(path))).unlink()
    other = Engine(path)
    with pytest.raises(OwnershipLost):
        store.commit(session, [])
    other.kill()


def test_a_side_file_that_was_scribbled_on_still_names_the_process(engine, store, path):
    side = Path(side_file(str(path)))
    for text in (b"", b"not json", b"\xff\xfe", json.dumps({"pid": 1}).encode()):
        with side.open("r+b") as file:
            file.truncate()
            file.write(text)
        assert store.owner() == Owner(engine.process.pid)


def test_a_longer_text_that_shows_behind_a_shorter_one_is_ignored(engine, store, path):
    with Path(side_file(str(path))).open("ab") as file:
        file.write(b'"address":"/run/old"}\n')
    assert store.owner().address == "/run/other.sock"


def test_announcing_needs_a_session(store):
    with pytest.raises(OwnershipLost):
        store.announce("/run/me.sock")
    store.open_session("worker", LANES, "")
    store.announce("/run/me.sock")
    assert store.owner().address == "/run/me.sock"
    store.announce("")
    assert store.owner().address == ""


def test_renewing_without_a_session_tells_so(store):
    session = store.open_session("worker", LANES, "")
    store.close_session(session)
    with pytest.raises(OwnershipLost):
        store.renew(session)


def test_a_side_file_that_cannot_be_opened_is_an_error_of_the_store(store, path):
    Path(side_file(str(path))).mkdir()
    with pytest.raises(StoreError):
        store.open_session("worker", LANES, "")


def test_a_store_reached_by_a_link_has_the_same_lock(engine, path, tmp_path):
    link = tmp_path / "link.db"
    link.symlink_to(path)
    assert owner_of(side_file(str(link))).pid == engine.process.pid


def test_a_forked_child_knows_that_it_holds_no_lock(store, path):
    store.open_session("worker", LANES, "")
    pid = os.fork()
    if pid == 0:
        found = owner_of(side_file(str(path)))
        os._exit(0 if found is not None and found.pid == os.getppid() else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_the_file_replaced_under_a_session_is_noticed_when_it_renews(store, path):
    session = store.open_session("worker", LANES, "")
    path.rename(path.with_suffix(".old"))
    with pytest.raises(StoreReplaced):
        store.renew(session)
