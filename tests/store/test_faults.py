"""What can happen to a file, really done to it: a clear error each, nothing lost, going on when the cause is gone."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw
import pytest

from perdure.core import errors
from perdure.core import events as ev
from perdure.store import faults, sqlite_tables
from perdure.store.protocol import Filter, Outcome
from perdure.store.sqlite import SqliteStore

COMMITTED = Outcome.COMMITTED
ROOT = os.geteuid() == 0
TIMER = ev.TimerFired(1)


@pytest.fixture
def lab(sqlite_lab):
    sqlite_lab.create("a", "b")
    return sqlite_lab


@pytest.fixture
def path(lab):
    return Path(lab.store.path)


def big():
    return ev.SignalReceived("m", "big", ev.Payload(os.urandom(300_000)))


def refused(lab, error, **fields):
    """A commit and a deposit raise the error and leave nothing."""
    before = lab.journal("a"), lab.inbox("b")
    lab.store._files_checked_at = 0.0
    with pytest.raises(error) as commit:
        lab.commit(lab.batch("a", big(), expected=2, **fields))
    assert type(commit.value) is error
    with pytest.raises(error):
        lab.store.deposit(mail=[lab.mail("b", big())])
    return before


def goes_on(lab, before):
    """After the cause is gone, on the same connection."""
    assert (lab.journal("a"), lab.inbox("b")) == before
    assert lab.commit(lab.batch("a", TIMER, expected=2)).outcomes == [COMMITTED]
    assert lab.store.deposit(mail=[lab.mail("b")])[0].status == "accepted"
    assert lab.journal("a")[2:] == [TIMER]
    assert lab.store._writer.pragma("integrity_check") == "ok"


# --- full ---


def test_a_full_database_is_refused_and_goes_on_when_there_is_room(lab):
    writer = lab.store._writer
    writer.pragma("max_page_count", writer.pragma("page_count") + 5)
    before = refused(lab, errors.StoreFull)
    writer.pragma("max_page_count", 2**31)
    goes_on(lab, before)


@pytest.fixture
def small_disk():
    """A disk of one megabyte."""
    if not ROOT:
        pytest.skip("only root may mount")
    directory = Path(tempfile.mkdtemp())
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "perdure-test", str(directory)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        directory.rmdir()
        pytest.skip("this machine lets nobody mount")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)
    directory.rmdir()


def test_a_full_disk_is_refused_and_goes_on_when_there_is_room(small_disk, make_lab):
    lab = make_lab("sqlite", small_disk)
    lab.create("a", "b")
    ballast = small_disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    before = refused(lab, errors.StoreFull)
    ballast.unlink()
    goes_on(lab, before)
    lab.store.close()


def test_a_read_only_disk_is_told_as_such(small_disk, make_lab):
    lab = make_lab("sqlite", small_disk)
    lab.create("a", "b")
    lab.store.close_session(lab.session)
    lab.store.close()
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)
    with pytest.raises(errors.StoreReadOnly):
        SqliteStore(lab.store.path)


# --- read-only ---


@contextmanager
def unprivileged():
    """Root may do everything: be somebody else for a while."""
    if not ROOT:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def public(make_lab):
    """A store that everybody can reach, closed."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o777)
    lab = make_lab("sqlite", directory)
    lab.create("a")
    lab.store.close_session(lab.session)
    lab.store.close()
    for each in directory.iterdir():
        each.chmod(0o666)
    yield Path(lab.store.path)
    directory.chmod(0o777)
    shutil.rmtree(directory)


def test_a_read_only_file_can_be_read_and_says_that_it_cannot_be_written(public, sqlite_lab):
    public.chmod(0o444)
    with unprivileged():
        store = SqliteStore(public)
        assert [row.key.execution for row in store.find(Filter("default"), None, 10)] == ["a"]
        with pytest.raises(errors.StoreReadOnly):
            store.deposit(mail=[sqlite_lab.mail("a")])
        with pytest.raises(errors.StoreReadOnly):
            store.open_session("worker", ("default",), "")
        store.close()
    for each in public.parent.iterdir():
        each.chmod(0o666)
    with unprivileged():
        store = SqliteStore(public)
        store.open_session("worker", ("default",), "")
        assert store.deposit(mail=[sqlite_lab.mail("a")])[0].status == "accepted"
        store.close()


def test_a_read_only_directory_is_told_as_such(public):
    public.parent.chmod(0o555)
    with unprivileged(), pytest.raises(errors.StoreReadOnly):
        SqliteStore(public)
    with unprivileged(), pytest.raises(errors.StoreReadOnly):
        SqliteStore(public.parent / "new.db")


def test_a_lock_file_that_cannot_be_written_is_told_as_such(public):
    Path(f"{public}-owner").chmod(0o444)
    with unprivileged():
        store = SqliteStore(public)
        with pytest.raises(errors.StoreReadOnly, match="-owner"):
            store.open_session("worker", ("default",), "")
        store.close()


# --- where no store can be ---


def _make_directory(path):
    path.mkdir()


def _make_pipe(path):
    os.mkfifo(path)


def _below_a_file(path):
    path.parent.rmdir()
    path.parent.write_text("")


def _below_nothing(path):
    path.parent.rmdir()


def _linked_to_itself(path):
    path.symlink_to(path)


def _linked_to_nowhere(path):
    path.symlink_to(path.parent / "missing" / "store.db")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_make_directory, r"store.db cannot be opened: it is a directory\. Name a file in it: .*/perdure\.db"),
        (_make_pipe, "it is no regular file. Name another file"),
        (_below_a_file, "folder is no directory. Name a file elsewhere"),
        (_below_nothing, r"the directory .*folder does not exist\. Make it \(mkdir -p .*folder\)"),
        (_linked_to_itself, "(?i)symbolic links.* Name another file"),
        (_linked_to_nowhere, "the directory .*missing does not exist"),
    ],
)
def test_a_place_where_no_store_can_be_is_refused_with_what_to_do(tmp_path, make, told):
    path = tmp_path / "folder" / "store.db"
    path.parent.mkdir()
    make(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(errors.StoreNotOpened, match=told) as caught:
        SqliteStore(path)
    assert "tries again" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before, "nothing is made where it was refused"


def test_a_link_to_a_file_that_does_not_exist_yet_makes_it(tmp_path):
    (tmp_path / "link.db").symlink_to(tmp_path / "store.db")
    SqliteStore(tmp_path / "link.db").close()
    assert (tmp_path / "store.db").is_file()


def test_a_directory_that_may_not_be_looked_into_is_told_as_such(public):
    public.parent.chmod(0o000)
    with unprivileged(), pytest.raises(errors.StoreReadOnly, match="Permission denied"):
        SqliteStore(public)


def test_what_sqlite_cannot_open_for_another_reason_is_not_said_to_be_tried_again(tmp_path):
    path = tmp_path / "store.db"
    (tmp_path / "store.db-wal").mkdir()
    with pytest.raises(errors.StoreNotOpened) as caught:
        SqliteStore(path)
    assert "tries again" not in str(caught.value)


def test_a_missing_file_is_not_made_for_who_only_looks(tmp_path):
    with pytest.raises(errors.StoreMissing):
        SqliteStore(tmp_path / "store.db", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [{"path": ":memory:"}, {"path": ""}, {"durability": "none"}, {"shards": 0}, {"shards": 10**6}]
)
def test_options_that_make_no_sense_are_refused(tmp_path, wrong):
    with pytest.raises(errors.InvalidOption):
        SqliteStore(**{"path": tmp_path / "store.db", **wrong})


# --- locked ---

BROWSER = """
import sqlite3, sys
browser = sqlite3.connect(sys.argv[1])
for statement in sys.argv[2:]:
    browser.execute(statement)
print("locked", flush=True)
sys.stdin.readline()
browser.rollback()
browser.close()
print("free", flush=True)
"""


@contextmanager
def browser(path, *statements):
    """Another program with the file open."""
    command = [sys.executable, "-c", BROWSER, str(path), *statements]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == "free\n"


def test_another_programs_transaction_is_waited_for_then_told(lab, path):
    lab.store._writer.set_busy_timeout(20)
    with browser(path, "BEGIN IMMEDIATE"):
        before = refused(lab, errors.StoreLocked)
        assert lab.row("a").position == 2  # reading goes on
    goes_on(lab, before)


def test_a_file_that_another_program_locked_wholly_is_told_as_such(public):
    with browser(public, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"), pytest.raises(errors.StoreLocked):
        SqliteStore(public, busy_ms=20)
    SqliteStore(public).close()


# --- deleted or replaced ---


def test_a_deleted_file_is_noticed_within_a_tenth_of_a_second_of_commits(lab, path):
    path.unlink()
    lab.store._files_checked_at = 0.0
    with pytest.raises(errors.StoreReplaced):
        lab.commit(lab.batch("a", TIMER))
    with pytest.raises(errors.StoreReplaced):
        lab.store.deposit(mail=[lab.mail("a")])


def test_a_replaced_file_is_noticed_and_the_right_one_put_back_goes_on(lab, path):
    away = path.with_suffix(".away")
    path.rename(away)
    shutil.copy(away, path)
    before = refused(lab, errors.StoreReplaced)
    away.rename(path)
    goes_on(lab, before)


def test_a_deleted_write_ahead_log_is_noticed(lab, path):
    Path(f"{path}-wal").unlink()
    with pytest.raises(errors.StoreReplaced):
        lab.store.renew(lab.session)
    lab.store._files_checked_at = 0.0
    with pytest.raises(errors.StoreReplaced):
        lab.commit(lab.batch("a", TIMER))


def test_a_store_reached_by_a_link_is_watched_at_its_place(public):
    link = public.with_name("link.db")
    link.symlink_to(public)
    store = SqliteStore(link)
    session = store.open_session("worker", ("default",), "")
    store.renew(session)
    Path(f"{public}-wal").unlink()
    with pytest.raises(errors.StoreReplaced):
        store.renew(session)
    store.close()


# --- no store of ours ---


def test_a_text_file_is_no_store_and_stays_as_it_was(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary. " * 1000)
    before = path.read_bytes()
    with pytest.raises(errors.StoreCorrupt):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_database_of_another_program_stays_as_it_was(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE recipes (name)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(errors.StoreCorrupt, match="another program"):
        SqliteStore(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["other.db"]


def test_an_empty_file_becomes_a_store(tmp_path):
    path = tmp_path / "store.db"
    path.touch()
    store = SqliteStore(path)
    assert store.shards == 256
    store.close()


def test_a_newer_schema_is_refused_and_stays_as_it_was(lab, path):
    lab.store.close()
    with sqlite3.connect(path) as future:
        future.execute("PRAGMA user_version = 99")
    future.close()
    before = path.read_bytes()
    with pytest.raises(errors.SchemaFromTheFuture, match="schema 99"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_store_without_its_meta_data_is_damaged(lab, path):
    lab.store.close()
    change(path, "DELETE FROM meta WHERE name = 'shards'")
    with pytest.raises(errors.StoreCorrupt, match="meta"):
        SqliteStore(path)


def test_the_number_of_shards_is_that_of_the_creation(tmp_path):
    SqliteStore(tmp_path / "store.db", shards=4).close()
    store = SqliteStore(tmp_path / "store.db", shards=16)
    assert store.shards == 4
    store.close()


def test_durability_is_what_was_asked_for(tmp_path):
    for durability, synchronous in (("full", 2), ("process", 1)):
        store = SqliteStore(tmp_path / "store.db", durability=durability)
        assert store._writer.pragma("synchronous") == synchronous
        assert store._writer.pragma("journal_mode") == "wal"
        store.close()


# --- network file systems ---

MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
23 22 0:30 / /mnt/my\040share rw - nfs4 server:/export rw
24 22 0:31 / /mnt/local rw,relatime shared:3 master:1 - xfs /dev/vdb rw
25 24 0:32 / /mnt/local/deep rw - fuse.sshfs me@host:/ rw
26 23 0:33 / /mnt/covered rw - ext4 /dev/vdc rw
27 23 0:34 / /mnt/covered rw - cifs //server/share rw
a line without the mark
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/store.db", None),
        ("/mnt/my share/store.db", "nfs4"),
        ("/mnt/my share", "nfs4"),
        ("/mnt/my sharefile.db", None),
        ("/mnt/local/store.db", None),
        ("/mnt/local/deep/a/b/store.db", "fuse.sshfs"),
        ("/mnt/covered/store.db", "cifs"),
    ],
)
def test_a_network_file_system_is_found_in_the_table_of_mounts(tmp_path, path, kind):
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)
    assert faults.network_type(path, table) == kind


def test_where_there_is_no_table_of_mounts_nothing_is_refused(tmp_path):
    assert faults.network_type("/anything", tmp_path / "missing") is None


def test_a_store_on_a_network_file_system_is_refused_unless_it_is_allowed(tmp_path, monkeypatch):
    kinds = {line.split(" - ")[1].split()[0] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    monkeypatch.setattr(faults, "NETWORK", frozenset(kinds))  # as if this machine's disk were one
    with pytest.raises(errors.NetworkFileSystem):
        SqliteStore(tmp_path / "store.db")
    SqliteStore(tmp_path / "store.db", allow_network=True).close()


# --- damage ---


def change(path, statement, *bindings):
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(statement, bindings).rowcount != 0
    connection.close()


DAMAGE = {
    "a flipped bit in a body": "UPDATE event SET body = CAST(substr(body, 1, 9) || x'00' || substr(body, 11) AS BLOB) "
    "WHERE position = 1 AND number = 1",
    "another time": "UPDATE event SET at_ms = at_ms + 1 WHERE position = 1 AND number = 1",
    "a flipped checksum": "UPDATE event SET checksum = checksum + 1 WHERE position = 1 AND number = 1",
    "no map": "UPDATE event SET body = x'c1', checksum = 0 WHERE position = 1 AND number = 1",
    "a missing event": "DELETE FROM event WHERE position = 1 AND number = 1",
    "a missing first event": "DELETE FROM event WHERE position = 0 AND number = 1",
    "a truncated journal": "DELETE FROM event WHERE position >= 2 AND number = 1",
    "more events than the row knows": "UPDATE execution SET position = 2 WHERE number = 1",
    "an unknown session": "UPDATE event SET session = 77 WHERE position = 2 AND number = 1",
    "an event of another execution": "UPDATE event SET number = 1, position = 3 WHERE number = 2 AND position = 0",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_journal_is_found_when_it_is_read(lab, path, damage):
    lab.commit(lab.batch("a", lab.signal()))
    good = lab.journal("b")
    lab.store.close()
    change(path, DAMAGE[damage])
    store = lab.store = SqliteStore(path)
    with pytest.raises(errors.CorruptJournal, match=r"'a'|session 77"):
        store.load(lab.key("a"), "run-a", 0, 100)
    if "another execution" not in damage:
        assert lab.journal("b") == good


def test_an_event_of_a_newer_format_is_refused(lab, path):
    lab.store.close()
    change(path, "UPDATE event SET format = 1 WHERE number = 1 AND position = 1")
    lab.store = SqliteStore(path)
    with pytest.raises(errors.JournalFromTheFuture):
        lab.journal("a")


def test_a_damaged_letter_is_found_when_it_is_read(lab, path):
    lab.store.deposit(mail=[lab.mail("a")])
    lab.store.close()
    change(path, "UPDATE inbox SET body = x'80'")
    lab.store = SqliteStore(path)
    with pytest.raises(errors.CorruptJournal, match="message m1"):
        lab.inbox("a")


def test_a_damaged_letter_does_not_stop_its_receiver_from_closing(lab, path):
    lab.store.deposit(mail=[lab.mail("a"), lab.mail("a", ev.CancelRequested("moot"))])
    lab.store.close_session(lab.session)
    lab.store.close()
    change(path, "UPDATE inbox SET checksum = 0")
    lab.store = SqliteStore(path)
    lab.session = lab.store.open_session("worker", ("default",), "code")
    lab.close("a")
    with pytest.raises(errors.CorruptJournal):
        lab.dead("a")
    assert lab.inbox("a") == []


def test_pages_written_over_are_an_error_and_never_other_events(lab, path):
    """Single flipped bits anywhere in the file: what is read is what was written, is missing, or is an error."""
    names = [f"e{n}" for n in range(30)]
    lab.create(*names)
    journals = {name: lab.journal(name) for name in names}
    lab.store.close()
    whole = path.read_bytes()
    dice = random.Random(1)
    told = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(dice.choice((1, 1, 1, 200))):
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        told += read_damaged(path, bytes(damaged), lab, journals)
    assert told > 5
    for length in (0, 100, 4096, 5000, len(whole) // 2, len(whole) - 4096):
        read_damaged(path, whole[:length], lab, journals)


def read_damaged(path, content, lab, journals):
    """How many readings ended in an error."""
    for each in path.parent.iterdir():
        each.unlink()
    path.write_bytes(content)
    try:
        store = SqliteStore(path)
    except errors.StoreError:
        return 1
    told = 0
    for name, journal in journals.items():
        try:
            found = store.load(lab.key(name), f"run-{name}", 0, 100)
            assert [each.event for each in found] in (journal, [])
        except (errors.StoreError, errors.CorruptJournal, errors.JournalFromTheFuture):
            told += 1
    with suppress(errors.StoreError):
        store.open_session("worker", ("default",), "")
    store.close()
    return told


# --- what is kept in memory is only a cache ---


def test_more_executions_than_are_remembered_are_looked_up(lab, monkeypatch):
    monkeypatch.setattr(sqlite_tables, "_MOST_NUMBERS", 2)
    lab.create("c", "d", "e")
    for name in "abcdeabcde":
        assert lab.commit(lab.batch(name, TIMER)).outcomes == [COMMITTED]
    assert len(lab.store._tables._numbers) <= 2


def test_a_transaction_that_could_not_be_rolled_back_is_rolled_back_by_the_next(lab):
    lab.store._writer.execute("BEGIN; DELETE FROM event")
    assert lab.commit(lab.batch("a", TIMER)).outcomes == [COMMITTED]
    assert len(lab.journal("a")) == 3


# --- what SQLite says, by name ---


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (apsw.FullError, errors.StoreFull),
        (apsw.ReadOnlyError, errors.StoreReadOnly),
        (apsw.BusyError, errors.StoreLocked),
        (apsw.CorruptError, errors.StoreCorrupt),
        (apsw.NotADBError, errors.StoreCorrupt),
        (apsw.IOError, errors.StoreError),
        (apsw.ConnectionClosedError, errors.StoreError),
    ],
)
def test_every_error_of_sqlite_has_its_class(tmp_path, error, kind):
    assert type(faults.translate(error("why"), str(tmp_path / "x"))) is kind


def test_a_closed_store_says_so(lab):
    lab.store.close()
    with pytest.raises(errors.StoreError):
        lab.row("a")
    with pytest.raises(errors.StoreError):
        lab.commit()
    with pytest.raises(errors.StoreError):
        lab.store.changes()
