"""Fail the 1st, 4th, 7th ... write, sync and truncation of the file, until a run passes without a failure.

Whatever fails, and however: what was acknowledged is there, what was not is there wholly or not at all, in the running
process (which tries again and goes on) as in the copy that a crash right after the failure would leave.
Each way to fail begins at another of the first three; `PERDURE_FAULT_STRIDE=1` takes all of them (`make faults`).
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure.core import events as ev
from perdure.core.errors import StoreError
from perdure.core.identity import ExecutionId, Key, Namespace
from perdure.store.protocol import Batch, Mail, NewEvent, Outcome, Park, Start
from perdure.store.sqlite import SqliteStore

DATA = ev.Payload(b"x" * 3000)  # a few of them fill a page
RUN = "0123456789abcdef0123456789abcdef"
STRIDE = int(os.environ.get("PERDURE_FAULT_STRIDE", "3"))


class Faults:
    """Which I/O call fails, and how. Counts calls until then."""

    def __init__(self, nth: int, error: type[apsw.Error], when: str, *, forever: bool) -> None:
        self.left = nth
        self.error = error
        self.when = when
        self.forever = forever
        self.hit = False

    def around(self, call: Callable[..., None], data: bytes = b"") -> None:
        self.left -= 1
        if self.left == 0 or (self.forever and self.hit):
            self.hit = True
            if self.when == "after":
                call()
            if self.when == "torn" and data:
                call(data[: len(data) // 2])
            raise self.error("injected")
        call()


class FaultyFile(apsw.VFSFile):
    def __init__(self, faults: Faults, name: Any, flags: list[int]) -> None:
        self.faults = faults
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - apsw names it
        self.faults.around(lambda part=data: super(FaultyFile, self).xWrite(part, offset), data)

    def xSync(self, flags: int) -> None:  # noqa: N802 - apsw names it
        self.faults.around(lambda: super(FaultyFile, self).xSync(flags))

    def xTruncate(self, size: int) -> None:  # noqa: N802 - apsw names it
        self.faults.around(lambda: super(FaultyFile, self).xTruncate(size))


class FaultyVfs(apsw.VFS):
    _numbers = itertools.count(1)

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.vfs_name = f"faulty-{next(self._numbers)}"
        super().__init__(self.vfs_name, "")

    def xOpen(self, name: Any, flags: list[int]) -> FaultyFile:  # noqa: N802 - apsw names it
        return FaultyFile(self.faults, name, flags)


# --- a story: every kind of write, each step acknowledged or not ---


def key(name: str) -> Key:
    return Key(len(name), Namespace("default"), ExecutionId(name))


def start(name: str) -> Start:
    return Start(key(name), ev.ExecutionStarted("research", RUN, DATA), b"digest")


class Story:
    """Runs against a store that fails once or for ever, tries again, and knows what was acknowledged."""

    def __init__(self, path: Path, faults: Faults) -> None:
        self.path = path
        self.faults = faults
        self.acknowledged: list[str] = []
        self.attempted: list[str] = []
        self.crashes = 0

    def do(self, name: str, act: Callable[[], object], expected: object = None) -> object:
        """One step of the story: at once, or again after the failure."""
        self.attempted.append(name)
        try:
            found = act()
        except StoreError:
            self.check_crash()
            if self.faults.forever:
                raise
            found = act()
        assert expected is None or found == expected
        self.acknowledged.append(name)
        return found

    def tell(self) -> None:
        vfs = FaultyVfs(self.faults)
        store: Any = None
        try:
            store = self.do("open", lambda: SqliteStore(self.path, vfs=vfs.vfs_name, shards=8))
            session: Any = self.do("session", lambda: store.open_session("worker", ("default",), "code"))
            self.steps(store, session)
            self.do("close_session", lambda: store.close_session(session))
        except StoreError:
            assert self.faults.forever
        finally:
            if store is not None:
                store.close()
            vfs.unregister()

    def steps(self, store: SqliteStore, session: Any) -> None:
        def commit(name: str, *batches: Batch, advice: Any = ()) -> None:
            outcomes = [Outcome.COMMITTED] * len(batches)
            self.do(name, lambda: store.commit(session, batches, advice).outcomes, outcomes)

        def batch(name: str, position: int, *events: Any, **more: Any) -> Batch:
            return Batch(key(name), RUN, position, [NewEvent(each, 1) for each in events], **more)

        done = ev.StepCompleted(1, "search", result=DATA)
        commit("create", *(batch(name, 0, start(name).event, create=start(name)) for name in ("a", "bb")))
        commit("steps", batch("a", 1, done), batch("bb", 1, done))
        mail = Mail(key("bb"), "m1", ev.SignalReceived("m1", "go", DATA), seq=2)
        store._direct = False
        commit("mail", batch("a", 2, ev.TimerFired(2), mail=[mail]))
        self.do("deliver", lambda: store.deliver(session, 10))
        store._direct = True
        self.do("deposit", lambda: [each.status for each in store.deposit([start("ccc")])], ["accepted"])
        commit("stall", advice=[Park(key("ccc"), RUN, 0, "stalled", problem="bug")])
        self.do("resume", lambda: store.resume(key("ccc")).status, "accepted")
        commit("close", batch("bb", 2, ev.ExecutionCompleted(DATA), closes="completed"))
        self.do("checkpoint", lambda: checkpoint(store))
        commit("more", batch("a", 3, done, done))

    # --- what must be there ---

    def check_crash(self) -> None:
        """The files as they are now, taken elsewhere: what a crash at this moment leaves."""
        self.crashes += 1
        copy = self.path.parent / f"crash-{self.crashes}" / "store.db"
        copy.parent.mkdir()
        for suffix in ("", "-wal"):
            if Path(f"{self.path}{suffix}").exists():
                shutil.copy(f"{self.path}{suffix}", f"{copy}{suffix}")
        self.check(copy)
        shutil.rmtree(copy.parent)

    def check(self, path: Path) -> None:
        store = SqliteStore(path, shards=8)
        assert store._writer.pragma("integrity_check") == "ok"
        found = told(store)
        store.close()
        last = len(self.attempted)
        allowed = [expected(self.acknowledged)]
        if last > len(self.acknowledged):
            allowed.append(expected(self.attempted))  # not acknowledged, and wholly there
        assert found in allowed, f"{found} after {self.acknowledged}, of {self.attempted}"


def checkpoint(store: SqliteStore) -> None:
    try:
        store._writer.pragma("wal_checkpoint", "TRUNCATE")
    except apsw.Error as error:
        raise StoreError(path=store.path, detail=str(error)) from error


def told(store: SqliteStore) -> dict[str, Any]:
    """What the story has left in a store."""
    result: dict[str, Any] = {}
    for name in ("a", "bb", "ccc"):
        row = store.row(key(name))
        if row is not None:
            journal = store.load(key(name), RUN, 0, 100)
            assert len(journal) == row.position
            letters = [type(each.event).__name__ for each in store.inbox(key(name), 10)]
            result[name] = (row.status, row.position, letters, len(store.dead_letters(key(name), 10)))
    result["outbox"] = store._reader.execute("SELECT count(*) FROM outbox").fetchone()[0]
    return result


def expected(steps: list[str]) -> dict[str, Any]:
    """What these steps leave in a store."""
    has = set(steps).__contains__
    result: dict[str, Any] = {"outbox": int(has("mail") and not has("deliver"))}
    if has("create"):
        a = 1 + has("steps") + has("mail") + 2 * has("more")
        result["a"] = ("active", a, ["MessageDelivered"] if has("deliver") else [], 0)
        b = ("completed", 3, [], 1) if has("close") else ("active", 1 + has("steps"), ["SignalReceived"], 0)
        result["bb"] = b if has("deliver") else (*b[:2], [], 0)
    if has("deposit"):
        stalled = has("stall") and not has("resume")
        result["ccc"] = ("stalled" if stalled else "active", 0, ["ExecutionStarted"], 0)
    return result


@pytest.fixture
def fast_path(tmp_path):
    """In memory where there is such a disk: thousands of syncs, none of which has to reach a platter."""
    shm = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it
    if not os.access(shm, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shm) as directory:
        yield Path(directory)


WAYS = {
    "an I/O error before": (apsw.IOError, "before", False),
    "an I/O error after": (apsw.IOError, "after", False),
    "a torn write": (apsw.IOError, "torn", False),
    "a full disk": (apsw.FullError, "before", False),
    "a disk that is full for ever": (apsw.FullError, "before", True),
    "a disk that tears its last write": (apsw.IOError, "torn", True),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_whatever_write_or_sync_fails_nothing_acknowledged_is_lost_and_nothing_is_half_there(fast_path, way):
    error, when, forever = WAYS[way]
    for nth in itertools.count(1 + list(WAYS).index(way) % STRIDE, STRIDE):
        directory = fast_path / str(nth)
        directory.mkdir()
        faults = Faults(nth, error, when, forever=forever)
        story = Story(directory / "store.db", faults)
        story.tell()
        story.check(story.path)
        shutil.rmtree(directory)
        if not faults.hit:
            assert story.acknowledged == story.attempted
            assert nth > 50, "the story must have passed through the faulty file system"
            return
