"""check, stalled, journal, export, import and doctor: what one who looks after executions uses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import Cli, Project

from perdure.cli.options import Exit

CHANGED = """
import perdure
from perdure import step, workflow

@step
async def shout(word: str) -> str:
    return word.upper()

@workflow
async def greet(name: str, *, times: int = 1) -> list[str]:
    return [await shout(name) for _ in range(times)]
"""

EMPTY = """
from perdure import step, workflow

@step
async def find(what: str) -> list[str]:
    return []

@step
async def tell() -> None:
    pass

@workflow
async def search() -> str:
    await find("")
    await tell()
    return ""
"""


def greeted(cli: Cli, *names: str) -> None:
    for name in names:
        assert cli("run", "agent.py:greet", "--input", json.dumps(name), "--id", name).code == 0


def test_check_passes_unchanged_code_and_tells_why_changed_code_would_disagree(cli: Cli, project: Project) -> None:
    greeted(cli, "ada", "bob")
    fine = cli("check", "agent.py", "--json")
    assert fine.code == Exit.OK
    assert sorted((told["id"], told["goes_on"]) for told in fine.lines()) == [("ada", True), ("bob", True)]
    project.write("changed.py", CHANGED)
    bad = cli("check", "changed.py", "--json")
    assert bad.code == Exit.FAILED
    assert {(told["id"], told["goes_on"], told["code"]) for told in bad.lines()} == {
        ("ada", False, "P0101"),
        ("bob", False, "P0101"),
    }
    shown = cli("check", "changed.py")
    assert "does not replay" in shown.out
    assert "look_up" in shown.out
    assert "2 disagree" in shown.err


def test_check_looks_at_no_more_closed_ones_than_asked_and_needs_a_workflow(cli: Cli, project: Project) -> None:
    greeted(cli, "ada", "bob")
    assert len(cli("check", "agent.py", "--closed", "1", "--json").lines()) == 1
    project.write("empty.py", "x = 1\n")
    assert cli("check", "empty.py").code == Exit.USAGE


def test_a_journal_is_printed_event_by_event(cli: Cli) -> None:
    greeted(cli, "ada")
    told = cli("journal", "ada", "--json").lines()
    assert [each["type"] for each in told] == [
        "ExecutionStarted",
        "ExecutionClaimed",
        "StepCompleted",
        "ExecutionCompleted",
    ]
    part = cli("journal", "ada", "--from", "2", "--limit", "1")
    assert "StepCompleted" in part.out
    assert "1 more: --from 3" in part.err
    assert cli("journal", "nobody").code == Exit.NOT_FOUND


def test_a_printed_journal_shows_what_came_out_also_where_that_is_nothing_or_empty(cli: Cli, project: Project) -> None:
    project.write("empty.py", EMPTY)
    assert cli("run", "empty.py:search", "--id", "nothing").code == 0
    shown = cli("journal", "nothing").out
    for told in ('"result": []', '"result": null', '"result": ""'):
        assert told in shown
    assert '"parent"' not in shown


def test_executions_are_carried_to_another_store_and_are_the_same_there(cli: Cli, project: Project) -> None:
    greeted(cli, "ada", "bob")
    assert cli("export", "--all", "-o", "all.jsonl").code == 0
    here = cli("journal", "ada", "--json").lines()
    brought = cli("import", "all.jsonl", "--store", "other.db", "--json")
    assert (brought.code, brought.json()) == (0, {"imported": 2, "taken": []})
    there = cli("journal", "ada", "--json", "--store", "other.db").lines()
    unlike = {"session", "fingerprint"}
    assert [{k: v for k, v in each.items() if k not in unlike} for each in there] == [
        {k: v for k, v in each.items() if k not in unlike} for each in here
    ]
    again = cli("import", "all.jsonl", "--store", "other.db", "--json")
    assert (again.code, sorted(again.json()["taken"])) == (Exit.REFUSED, ["ada", "bob"])
    assert cli("run", "agent.py:greet", "--id", "ada", "--store", "other.db").json() == ["ADA"]
    assert len(project.ledger()) == 2  # nothing ran again


def test_export_wants_ids_or_all(cli: Cli) -> None:
    greeted(cli, "ada")
    assert cli("export").code == Exit.USAGE
    assert cli("export", "ada", "--all").code == Exit.USAGE
    [header, *events] = cli("export", "ada").lines()
    assert (header["execution"], len(events)) == ("ada", 4)


def test_stalled_tells_why_and_how_to_go_on(cli: Cli, project: Project) -> None:
    project.write("stuck.py", "import perdure\n@perdure.workflow\nasync def stuck() -> None:\n    open('x')\n")
    assert cli("run", "stuck.py:stuck", "--id", "s").code == Exit.STALLED
    told = cli("stalled")
    assert "Move this into a step" in told.out
    assert "perdure resume s" in told.out
    assert cli("stalled", "--json").json()["id"] == "s"


def test_doctor_is_content_with_a_sound_store_and_finds_a_damaged_one(cli: Cli, project: Project) -> None:
    greeted(cli, "ada")
    told = cli("doctor", "--json")
    assert told.code == 0
    found = {each["what"]: each for each in told.lines()}
    assert found["File"]["found"].endswith("sound")
    assert found["Executions"]["found"] == "1 completed"
    assert cli("doctor", "--store", "missing.db").code == Exit.STORE
    file = Path("perdure.db")
    data = bytearray(file.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    file.write_bytes(data)
    for log in Path().glob("perdure.db-*"):
        log.unlink()
    broken = cli("doctor")
    assert broken.code == Exit.STORE
    assert "Restore" in broken.out


SECRETIVE = """
import perdure
from perdure import Secret, step, workflow
from perdure.encryption import KeyRing

ring = KeyRing({"k1": b"k" * 32}, current="k1")

@step
async def log_in(password: Secret[str]) -> int:
    return len(password.reveal())

@workflow
async def visit(user: str) -> int:
    done = await log_in(Secret(f"password of {user}"))
    await perdure.receive("leave")
    return done
"""


BEGIN = """
import asyncio, importlib, sys
import perdure

async def main(module, codec):
    code = importlib.import_module(module)
    async with perdure.Engine("perdure.db", workflows=[code.visit], codec=getattr(code, codec, None)) as engine:
        handle = await engine.start(code.visit, "ada", id="v")
        while (await handle.describe()).status != "parked":
            await asyncio.sleep(0.01)

sys.path.insert(0, "")
asyncio.run(main(*sys.argv[1:]))
"""


def begun(project: Project, module: str, codec: str = "") -> None:
    """Execution v waits in the project's store."""
    command = [sys.executable, "-c", BEGIN, module, codec]
    subprocess.run(command, check=True, cwd=project.path, timeout=60)


def test_check_knows_which_executions_may_hold_secrets(cli: Cli, project: Project) -> None:
    project.write("visits.py", SECRETIVE)
    codec = ("--codec", "visits.py:ring")
    begun(project, "visits", "ring")
    told = cli("check", "visits.py", "--json", *codec)
    assert (told.code, [each["goes_on"] for each in told.lines()]) == (Exit.OK, [True])


def test_what_no_module_defines_would_stall_unless_it_is_somebody_elses(cli: Cli, project: Project) -> None:
    project.write(
        "before.py", SECRETIVE.replace("Secret(f", "(f").replace("Secret[str]", "str").replace(".reveal()", "")
    )
    begun(project, "before")
    told = cli("check", "agent.py", "--json")
    assert told.code == Exit.FAILED
    assert [(each["id"], each["goes_on"], each["code"]) for each in told.lines()] == [("v", False, "P0303")]
    assert "No workflow is named 'visit' here" in cli("check", "agent.py").out
    assert cli("check", "agent.py", "--ignore", "visit").code == Exit.OK


def test_encrypted_values_are_exported_only_when_told_and_brought_only_where_they_are_encrypted_again(
    cli: Cli, project: Project
) -> None:
    project.write("visits.py", SECRETIVE)
    codec = ("--codec", "visits.py:ring")
    begun(project, "visits", "ring")
    refused = cli("export", "v", *codec)
    assert refused.code == Exit.USAGE
    assert "--decrypted" in refused.err
    assert not refused.out
    assert cli("export", "v", "--decrypted", "-o", "v.jsonl", *codec).code == Exit.OK
    bare = cli("import", "v.jsonl", "--store", "bare.db")
    assert bare.code == Exit.USAGE
    assert "codec" in bare.err
    assert cli("import", "v.jsonl", "--store", "other.db", *codec).code == Exit.OK
    kept = b"".join(path.read_bytes() for path in project.path.glob("other.db*") if path.is_file())
    assert b"password of" not in kept
    assert b'"ada"' not in kept
    assert cli("journal", "v", "--store", "other.db", *codec).code == Exit.OK
