"""Files that executions are carried in: cut off, damaged, foreign, from pipes, and to places that cannot be written."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import PERDURE, Cli, Project

from perdure.cli.options import Exit
from perdure.core.errors import StoreError
from perdure.store.sqlite import SqliteStore
from perdure.testing import golden


@pytest.fixture
def exported(cli: Cli, project: Project) -> list[str]:
    """The lines of `all.jsonl`, of two greetings with four events each."""
    for name in ("ada", "bob"):
        assert cli("run", "agent.py:greet", "--input", json.dumps(name), "--id", name).code == 0
    assert cli("export", "ada", "bob", "ada", "-o", "all.jsonl").code == 0
    return (project.path / "all.jsonl").read_text("utf-8").splitlines()


FOREIGN = {
    "empty": "",
    "text": "no json\n",
    "no names": '{"kind": "perdure journal"}\n',
    "odd names": '{"kind": "perdure journal", "execution": 5, "workflow": "w"}\n',
    "no start": '{"kind": "perdure journal", "execution": "e", "workflow": "w"}\n',
    "odd kind": '{"kind": 1}\n',
    "no object": "[]\n",
    "deep": "[" * 100_000 + "\n",
}


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_refused_and_no_store_is_made(cli: Cli, project: Project, text: str) -> None:
    project.write("bad.jsonl", text)
    told = cli("import", "bad.jsonl", "--store", "other.db")
    assert told.code == Exit.USAGE
    assert told.err.startswith("Error: bad.jsonl cannot be imported: ")
    assert "Nothing was imported." in told.err
    assert not (project.path / "other.db").exists()


def _with(lines: list[str], at: int, **changed: object) -> list[str]:
    return [*lines[:at], json.dumps(json.loads(lines[at]) | changed), *lines[at + 1 :]]


DAMAGE: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "cut within a line": (lambda lines: [*lines[:8], lines[8][:50]], "damaged at line 9: it is no JSON"),
    "cut within a journal": (lambda lines: lines[:9], "journal of 'bob' ends at line 9, after 3 of 4 events"),
    "cut between journals": (lambda lines: lines[:5], "ends at line 5, and more executions were to follow"),
    "cut after a header": (lambda lines: lines[:6], "journal of 'bob' ends at line 6, after 0 of 4 events"),
    "a line is missing": (lambda lines: [*lines[:2], *lines[3:]], "event 1 is missing"),
    "a line is twice": (lambda lines: [*lines[:2], *lines[1:]], "event 1 is missing"),
    "a field is missing": (lambda lines: [*lines[:8], "{}", *lines[9:]], "damaged at line 9: KeyError('position')"),
    "no base64": (lambda lines: _with(lines, 8, event="?"), "damaged at line 9: "),
    "no event": (lambda lines: _with(lines, 8, event="AAAA"), "cannot be imported: "),
}


@pytest.mark.parametrize(("damage", "told"), DAMAGE.values(), ids=DAMAGE)
def test_of_a_file_that_is_cut_off_or_damaged_nothing_is_imported(
    cli: Cli, project: Project, exported: list[str], damage: Callable[[list[str]], list[str]], told: str
) -> None:
    project.write("bad.jsonl", "".join(line + "\n" for line in damage(exported)))
    answer = cli("import", "bad.jsonl", "--store", "other.db")
    assert answer.code == Exit.USAGE
    assert told in answer.err
    assert not (project.path / "other.db").exists()


def test_a_file_of_a_newer_perdure_and_one_that_is_missing_are_told(
    cli: Cli, project: Project, exported: list[str]
) -> None:
    project.write("new.jsonl", "\n".join(_with(exported, 8, format=999)))
    newer = cli("import", "new.jsonl", "--store", "other.db")
    assert newer.code == Exit.STORE
    assert "format 999" in newer.err
    missing = cli("import", "nowhere.jsonl", "--store", "other.db")
    assert missing.code == Exit.USAGE
    assert missing.err.startswith("Error: nowhere.jsonl cannot be read: No such file or directory.")
    (project.path / "odd.jsonl").write_bytes(b"\xff\xfe")
    assert "odd.jsonl cannot be read: it is not UTF-8." in cli("import", "odd.jsonl", "--store", "other.db").err


def test_blank_lines_and_several_exports_in_one_file_are_fine(cli: Cli, project: Project, exported: list[str]) -> None:
    assert cli("export", "ada", "-o", "one.jsonl").code == 0
    assert cli("export", "bob", "-o", "two.jsonl").code == 0
    both = (project.path / "one.jsonl").read_text("utf-8") + "\n" + (project.path / "two.jsonl").read_text("utf-8")
    project.write("both.jsonl", "\n" + both.replace("\n", "\r\n"))
    assert cli("import", "both.jsonl", "--store", "other.db", "--json").json() == {"imported": 2, "taken": []}


def test_exports_go_through_pipes(project: Project, exported: list[str]) -> None:
    shell = f"{PERDURE} export --all | {PERDURE} import - --store other.db --json"
    piped = subprocess.run(["bash", "-c", shell], cwd=project.path, capture_output=True, check=True)
    assert json.loads(piped.stdout) == {"imported": 2, "taken": []}
    shell = f"{PERDURE} import <({PERDURE} export ada) --store third.db --json"
    substituted = subprocess.run(["bash", "-c", shell], cwd=project.path, capture_output=True, check=True)
    assert json.loads(substituted.stdout) == {"imported": 1, "taken": []}


def test_a_failed_export_leaves_the_file_that_was(cli: Cli, project: Project, exported: list[str]) -> None:
    assert cli("export", "nobody", "-o", "all.jsonl").code == Exit.NOT_FOUND
    assert (project.path / "all.jsonl").read_text("utf-8").splitlines() == exported
    assert not list(project.path.glob("*.part"))


def test_where_an_export_cannot_be_written_is_told(cli: Cli, project: Project, exported: list[str]) -> None:
    for place, why in (("no/such/folder.jsonl", "No such file or directory"), (".", "Is a directory")):
        told = cli("export", "--all", "-o", place)
        assert (told.code, told.err) == (Exit.USAGE, f"Error: {place} cannot be written: {why}.\n")
    os.mkfifo(project.path / "pipe")
    with subprocess.Popen(["cat", "pipe"], cwd=project.path, stdout=subprocess.PIPE) as reader:
        assert cli("export", "ada", "bob", "-o", "pipe").code == 0
        assert reader.communicate()[0].decode().splitlines() == exported


def test_a_journal_is_imported_wholly_or_not_at_all(
    cli: Cli, project: Project, exported: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail the first, the second, … commit: a part of a journal would go on where the other store is long past."""
    assert cli("run", "agent.py:greet", "--input", '{"name": "eve", "times": 1500}', "--id", "eve").code == 0
    assert cli("export", "eve", "-o", "long.jsonl").code == 0
    header, events = golden.load(project.path / "long.jsonl")
    commit, calls = SqliteStore.commit, [0]

    def failing(self: SqliteStore, *arguments: object, **options: object) -> object:
        calls[0] += 1
        if calls[0] == failing_at:
            raise StoreError(path="other.db", detail="as if the disk were full")
        return commit(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(SqliteStore, "commit", failing)
    for failing_at in (1, 2):
        calls[0] = 0
        store = project.path / f"other{failing_at}.db"
        code = cli("import", "long.jsonl", "--store", str(store)).code
        found = len(cli("journal", "eve", "--limit", "9999", "--json", "--store", str(store)).out.splitlines())
        assert (code, found) in {(0, len(events)), (Exit.STORE, 0)}
    assert header["events"] == len(events) == 1_503
    assert failing_at > calls[0], "one commit is all there is"


def test_an_id_that_nothing_can_have_is_refused_before_anything_is_written(
    cli: Cli, project: Project, exported: list[str]
) -> None:
    project.write("bad.jsonl", "\n".join(_with(exported, 5, execution="a\nb")))
    told = cli("import", "bad.jsonl", "--store", "other.db")
    assert told.code == Exit.USAGE
    assert "no valid execution id" in told.err
    assert not (project.path / "other.db").exists()


def test_standard_input_that_is_closed_is_told(project: Project) -> None:
    shell = f"{PERDURE} import - --store other.db <&-"
    told = subprocess.run(["bash", "-c", shell], cwd=project.path, capture_output=True, check=False, text=True)
    assert told.returncode == Exit.USAGE
    assert "standard input is closed" in told.stderr


def test_memory_is_that_of_one_journal_not_of_the_file(exported: list[str], project: Project) -> None:
    """The file is read line by line; what it holds is not kept."""
    from perdure.cli.journals import _parts  # noqa: PLC0415 - only here

    class Counted(io.StringIO):
        read_so_far = 0

        def __next__(self) -> str:
            self.read_so_far += 1
            return super().__next__()

    file = Counted(Path("all.jsonl").read_text("utf-8"))
    parts = _parts("all.jsonl", file)
    assert next(parts)[0]["execution"] == "ada"
    assert file.read_so_far == 6
