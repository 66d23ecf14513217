"""Inputs, problems, suggestions, JSON shapes, the reference page: the command line in this process."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import pytest
from click.testing import CliRunner
from hatchling.builders.wheel import WheelBuilder
from tests.cli.conftest import Cli, Project

import perdure
from perdure.cli.app import cli as commands
from perdure.cli.options import Exit
from perdure.cli.output import jsonable
from perdure.cli.problems import tidy
from perdure.cli.times import duration
from perdure.cli.words import GLYPHS

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text("utf-8")


# --- inputs ---


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ('"ada"', ["ADA"]),
        ('["ada"]', ["ADA"]),
        ('{"name": "ada", "times": 2}', ["ADA", "ADA"]),
        (' {"times": 0, "name": "ada"} ', []),
    ],
)
def test_input_is_one_value_an_array_or_an_object(cli: Cli, given: str, result: list[str]) -> None:
    told = cli("run", "agent.py:greet", "--input", given)
    assert (told.code, told.json()) == (0, result)


def test_json_becomes_the_annotated_types(cli: Cli) -> None:
    given = '{"day": "2026-07-01", "price": "1.10", "decision": {"approved": true}, "raw": "aGk="}'
    told = cli("run", "agent.py:typed", "--input", given)
    assert (told.code, told.json()) == (0, ["date", "Decimal", "Decision", "hi", "True"])


def test_input_comes_from_a_file_or_standard_input(cli: Cli, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write("input.json", '{"name": "file"}')
    assert cli("run", "agent.py:greet", "--input", "@input.json").json() == ["FILE"]
    monkeypatch.setattr("sys.stdin", io.StringIO('{"name": "pipe"}'))
    assert cli("run", "agent.py:greet", "--input", "-").json() == ["PIPE"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("ada", "Text needs its quotes: --input '\"ada\"'"),
        ("{'name': 1}", "JSON has double quotes"),
        ('["a"', "no JSON"),
        ("5", "argument 'name': $ Expected `str`, got `int`"),
        ('{"nam": "x"}', "missing a required"),
        ('["x", 2]', "too many positional arguments"),
        ('[{"a": 1}]', "Expected `str`, got `object`"),
        ("@missing.json", "@missing.json cannot be read"),
    ],
)
def test_input_that_does_not_fit_says_why_and_starts_nothing(cli: Cli, project: Project, given: str, said: str) -> None:
    told = cli("run", "agent.py:greet", "--input", given, "--id", "never")
    assert told.code == 2
    assert said.replace("object", "dict") in told.err.replace("object", "dict")
    assert project.row("never") is None


def test_missing_input_names_the_signature(cli: Cli) -> None:
    told = cli("run", "agent.py:greet")
    assert told.code == 2
    assert "greet(name: str, *, times: int = 1) -> list[str]" in told.err


# --- names ---


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("shwo x", "Did you mean 'show'?"),
        ("zzz", "perdure --help lists them."),
        ("run agent.py:gret", "Did you mean 'greet'?"),
        ("run agent:GREET", "Did you mean 'greet'?"),
        ("run agnet:greet", "Did you mean 'agent'?"),
        ("run agnet.py:greet", "Did you mean 'agent.py'?"),
        ("run agent.py", "Say which: agent.py:greet"),
        ("run :greet", "Write MODULE:WORKFLOW"),
        ("worker empty.py", "Put @perdure.workflow above an async def."),
        ("run empty.py:x", "Put @perdure.workflow above an async def."),
    ],
)
def test_a_slip_gets_the_nearest_name(cli: Cli, project: Project, line: str, hint: str) -> None:
    project.write("empty.py", "")
    told = cli(*line.split())
    assert told.code == 2
    assert hint in told.err


def test_an_unknown_id_gets_the_nearest_one(cli: Cli) -> None:
    assert cli("run", "agent.py:greet", "--input", '"x"', "--id", "report-1").code == 0
    for command in (
        ["show", "reprot-1"],
        ["signal", "report-2", "x"],
        ["cancel", "report"],
        ["resume", "REPORT-1"],
        ["pause", "repor"],
        ["terminate", "eport-1"],
    ):
        told = cli(*command)
        assert told.code == 3
        assert "Did you mean 'report-1'?" in told.err


def test_a_module_that_fails_shows_the_users_own_lines(cli: Cli, project: Project) -> None:
    project.write("bad.py", "def f():\n    return 1 / 0\n\nf()\n")
    told = cli("worker", "bad.py")
    assert told.code == 2
    assert 'File "bad.py", line 2, in f' in told.err
    assert "ZeroDivisionError" in told.err
    assert str(project.path) not in told.err
    assert "perdure/cli" not in told.err


def test_a_file_in_a_package_is_that_packages_module(cli: Cli, project: Project) -> None:
    (project.path / "shop").mkdir()
    project.write("shop/__init__.py", "")
    project.write("shop/words.py", "HELLO = 'hello'\n")
    text = "from perdure import workflow\nfrom .words import HELLO\n@workflow\nasync def wf() -> str: return HELLO\n"
    project.write("shop/agents.py", text)
    assert cli("run", "shop/agents.py").json() == "hello"
    assert cli("run", "shop.agents:wf").json() == "hello"


def test_a_file_named_like_a_library_module_is_itself(cli: Cli, project: Project) -> None:
    project.write("queue.py", "from perdure import workflow\n@workflow\nasync def wf() -> str: return 'mine'\n")
    assert cli("run", "queue.py:wf").json() == "mine"


# --- ends ---


def test_failures_have_their_exit_codes(cli: Cli, project: Project) -> None:
    told = cli("run", "agent.py:doomed", "--input", '"x"', "--id", "d1")
    assert told.code == Exit.FAILED
    assert "ConnectionError: no answer for x" in told.err
    assert "perdure show d1" in told.err
    assert "Traceback" not in told.err
    assert cli("signal", "d1", "x").code == Exit.REFUSED
    assert cli("run", "agent.py:greet", "--id", "d1").code == Exit.REFUSED
    assert cli("run", "agent.py:doomed", "--input", '"y"', "--id", "d1").code == Exit.REFUSED
    assert cli("run", "agent.py:doomed", "--input", '"x"', "--id", "").code == Exit.USAGE
    assert cli("ls", "--limit", "many").code == Exit.USAGE
    assert cli("ls", "--frob").code == Exit.USAGE


@pytest.mark.parametrize("line", ["ls", "show x", "signal x y", "cancel x", "terminate x", "pause x", "resume x"])
def test_commands_that_need_a_store_do_not_make_one(cli: Cli, project: Project, line: str) -> None:
    told = cli(*line.split(), "--store", "nowhere.db")
    assert told.code == Exit.STORE
    assert "There is no store at nowhere.db" in told.err
    assert not list(project.path.glob("nowhere.db*"))


@pytest.mark.parametrize("command", [("ls",), ("run", "agent.py:greet", "--input", '"ada"')])
def test_a_directory_instead_of_a_store_says_what_to_name(cli: Cli, project: Project, command: tuple[str, ...]) -> None:
    (project.path / "data").mkdir()
    told = cli(*command, "--store", "data")
    assert told.code == 4
    assert "data cannot be opened: it is a directory. Name a file in it: data/perdure.db" in told.err


def test_a_file_that_is_no_store_is_told_and_left_alone(cli: Cli, project: Project) -> None:
    project.write("notes.txt", "these are notes, and no database\n" * 100)
    before = (project.path / "notes.txt").read_bytes()
    told = cli("ls", "--store", "notes.txt")
    assert told.code == Exit.STORE
    assert "P0406" in told.err
    assert str(project.path) not in told.err
    assert (project.path / "notes.txt").read_bytes() == before


def test_the_store_is_named_before_or_after_the_command_or_by_the_environment(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("--store", "one.db", "run", "agent.py:greet", "--input", '"x"', "--id", "in-one").code == 0
    assert cli("run", "agent.py:greet", "--input", '"x"', "--id", "in-two", "--store", "two.db").code == 0
    assert [row["id"] for row in cli("ls", "--json", "--store", "one.db").lines()] == ["in-one"]
    monkeypatch.setenv("PERDURE_STORE", "two.db")
    assert [row["id"] for row in cli("--json", "ls").lines()] == ["in-two"]


def test_help_is_given_without_a_command_and_for_each(cli: Cli) -> None:
    assert "Commands:" in cli().out
    for name in commands.list_commands(click.Context(commands)):
        told = CliRunner().invoke(commands, [name, "--help"])
        assert told.exit_code == 0
        assert f"Usage: cli {name}" in told.output
        assert "..." not in next(line for line in cli("--help").out.splitlines() if line.startswith(f"  {name} "))


# --- JSON ---


def test_errors_are_json_where_it_was_asked_for(cli: Cli) -> None:
    told = cli("run", "agent.py:greet", "--input", '"x"', "--id", "g1", "--json")
    assert told.json() == {"id": "g1", "workflow": "greet", "status": "completed", "result": ["X"]}
    error = json.loads(cli("show", "g2", "--json").err)["error"]
    assert error["exit_code"] == 3
    assert error["code"] == "P0501"
    assert error["hint"] == "Did you mean 'g1'?"


def test_a_failed_run_is_told_as_json(cli: Cli) -> None:
    told = cli("run", "agent.py:doomed", "--input", '"x"', "--id", "d1", "--json")
    assert told.code == Exit.FAILED
    assert told.json()["status"] == "failed"
    assert told.json()["code"] == "P0602"


def test_show_as_json_has_the_documented_fields(cli: Cli) -> None:
    cli("run", "agent.py:parent", "--input", '"x"', "--id", "p1")
    told = cli("show", "p1", "--json").json()
    child = next(row for row in cli("ls", "--json").lines() if row["parent"] == "p1")
    assert child["workflow"] == "greet"
    assert told["status"] == "completed"
    assert [event["type"] for event in told["journal"]] == [
        "ExecutionStarted",
        "ExecutionClaimed",
        "ChildInitiated",
        "ChildClosed",
        "ExecutionCompleted",
    ]
    assert told["journal"][0]["input"] == {"word": "x"}
    assert told["journal"][-1]["result"] == ["X"]
    fields = set(re.findall(r"`(\w+)`", PAGE.split("## ls")[1].split("## signal")[0]))
    assert set(told) <= fields
    assert {"position", "at_ms", "type", "session", "fingerprint"} <= set(told["journal"][0]) & fields


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (10**30, 10**30),
        (b"hi", "aGk="),
        (datetime(2026, 7, 1, tzinfo=UTC), "2026-07-01T00:00:00+00:00"),
        (date(2026, 7, 1), "2026-07-01"),
        (timedelta(minutes=1), 60.0),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({(1, 2): {3}}, {"[1, 2]": [3]}),
        ("\ud800", "\ud800"),
    ],
)
def test_plain_data_has_a_json_form(value: Any, shown: Any) -> None:
    assert jsonable(value) == shown


# --- the list ---


def test_ls_shows_the_newest_first_and_says_what_it_left_out(cli: Cli) -> None:
    for number in range(3):
        cli("run", "agent.py:greet", "--input", '"x"', "--id", f"g{number}")
    cli("run", "agent.py:doomed", "--input", '"x"', "--id", "d1")
    assert [row["id"] for row in cli("ls", "--json").lines()] == ["d1", "g2", "g1", "g0"]
    assert [row["id"] for row in cli("ls", "--json", "--status", "failed").lines()] == ["d1"]
    assert cli("ls", "--json", "--status", "open").lines() == []
    assert len(cli("ls", "--json", "--status", "closed", "--workflow", "greet").lines()) == 3
    told = cli("ls", "--limit", "2")
    assert told.out.splitlines()[0].split() == ["STATUS", "ID", "WORKFLOW", "AGE", "TOOK"]
    assert "The newest 2. There are more" in told.err
    cursor = told.err.rsplit("--cursor ", 1)[1].split()[0]
    assert [row["id"] for row in cli("ls", "--json", "--cursor", cursor).lines()] == ["g1", "g0"]
    assert json.loads(cli("ls", "--json", "--limit", "2").err) == {"next": cursor}
    assert "Did you mean 'greet'?" in cli("ls", "--workflow", "gret").err


def test_ls_finds_by_what_is_known_of_executions(cli: Cli) -> None:
    for name, team, cents in (("a-1", "search", "500"), ("a-2", "search", "2000"), ("b-1", "mail", "3000")):
        told = ("--attribute", f"team={team}", "--attribute", f"cents={cents}")
        cli("run", "agent.py:greet", "--input", '"x"', "--id", name, *told)
    cli("run", "agent.py:parent", "--input", '"x"', "--id", "p")

    def found(*filters: str) -> list[str]:
        return sorted(row["id"] for row in cli("ls", "--json", *filters).lines())

    assert found("--where", "team=search", "--where", "cents > 500") == ["a-2"]
    assert found("--where", "cents>=2000") == ["a-2", "b-1"]
    assert found("--where", "team!=search") == ["b-1"]
    assert found("--where", 'team="search"', "--prefix", "a-") == ["a-1", "a-2"]
    assert found("--prefix", "b-") == ["b-1"]
    assert len(found("--since", "1h")) == 5
    assert found("--before", "1h") == found("--since", "2999-01-01T00:00:00Z") == []
    [child] = found("--parent", "p")
    assert "child of p" in next(line for line in cli("ls").out.splitlines() if child in line)
    for bad in (["--where", "team"], ["--where", "A-B=1"], ["--cursor", "x"], ["--since", "soon"]):
        assert cli("ls", *bad).code == Exit.USAGE


def test_ids_are_never_cut(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    name = "a-name-that-is-longer-than-the-terminal-" + "x" * 100
    cli("run", "agent.py:greet", "--input", '"x"', "--id", name)
    assert name in cli("ls").out
    assert name not in cli("show", name).err


# --- words ---


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0ms"),
        (999, "999ms"),
        (1_000, "1.00s"),
        (9_994, "9.99s"),
        (9_995, "10.0s"),
        (59_949, "59.9s"),
        (59_999, "60.0s"),
        (60_000, "1m00s"),
        (3_599_000, "59m59s"),
        (11_520_000, "3h12m"),
        (183_600_000, "2d03h"),
    ],
)
def test_durations_have_two_figures_that_matter(milliseconds: int, text: str) -> None:
    assert duration(milliseconds) == text


def test_no_directory_of_this_machine_is_told(project: Project) -> None:
    here = str(project.path)
    assert tidy(f"{here}/perdure.db is gone") == "perdure.db is gone"
    assert tidy(f'File "{here}/agent.py", line 3') == 'File "agent.py", line 3'
    assert tidy('File "/usr/lib/python3/json/decoder.py", line 3') == 'File "decoder.py", line 3'


# --- lint ---

HASTY = """
import perdure
from datetime import datetime

@perdure.workflow
async def hasty() -> str:
    return str(datetime.now())

@perdure.workflow
async def calm() -> str:
    return perdure.now().isoformat()
"""


def test_lint_tells_the_place_and_the_cure_and_ends_with_1(cli: Cli, project: Project) -> None:
    project.write("hasty.py", HASTY)
    told = cli("lint", "hasty.py")
    assert told.code == 1
    assert told.out.startswith("hasty.py:7:16: L001 datetime.datetime.now() reads the wall clock")
    assert "Use perdure.now(), or take the time in a step." in told.out
    assert told.err == "1 finding in 1 file.\n"
    assert cli("lint", "hasty.py:calm").code == 0
    assert cli("lint", "hasty:hasty").code == 1
    assert cli("lint", "agent.py", "hasty.py").err == "1 finding in 1 file.\n"
    clean = cli("lint", "agent.py")
    assert (clean.code, clean.out, clean.err) == (0, "", "Nothing found.\n")


def test_lint_as_json_is_a_finding_a_line_with_the_documented_fields(cli: Cli, project: Project) -> None:
    project.write("hasty.py", HASTY)
    told = cli("lint", "hasty.py", "--json")
    (finding,) = told.lines()
    assert told.code == 1
    assert {key: finding[key] for key in ("code", "file", "line", "column", "function")} == {
        "code": "L001",
        "file": "hasty.py",
        "line": 7,
        "column": 16,
        "function": "hasty",
    }
    assert [name for name in finding if f"`{name}`" not in section("lint")] == []
    assert cli("lint", "agent.py", "--json").out == ""


def test_lint_of_what_holds_nothing_or_cannot_be_imported_is_wrong_use(cli: Cli, project: Project) -> None:
    project.write("empty.py", "")
    for target, said in {"empty.py": "no workflow", "nowhere.py": "no file", "agent.py:gret": "Did you mean"}.items():
        told = cli("lint", target)
        assert told.code == 2
        assert said in told.err
    assert not list(project.path.glob("*.db*")), "it needs no store"


# --- the reference page ---


def section(name: str) -> str:
    return PAGE.split(f"\n## {name}\n")[1].split("\n## ")[0]


def test_every_option_is_documented_and_every_documented_option_exists() -> None:
    shared = {"--store", "--codec", "--json", "--help", "--version"}
    ctx = click.Context(commands)
    for name in commands.list_commands(ctx):
        command = commands.get_command(ctx, name)
        assert command is not None
        real = {opt for param in command.params for opt in param.opts if opt.startswith("--")} - shared
        told = set(re.findall(r"^\| `(--[\w-]+)", section(name), re.MULTILINE))
        assert told == real, f"docs/reference/cli.md, {name}"
        assert all(isinstance(param, click.Argument) or param.help for param in command.params if param.opts)  # type: ignore[attr-defined]
    assert set(re.findall(r"`(--\w+)", section("Options of every command"))) == shared


def test_every_command_exit_code_and_sign_is_documented() -> None:
    listed = re.findall(r"^\| \[`(\w+)`\]", PAGE, re.MULTILINE)
    assert listed == commands.list_commands(click.Context(commands))
    rows = re.findall(r"^\| ([\d, ]+) \|", section("Exit codes"), re.MULTILINE)
    assert {int(code) for row in rows for code in row.split(",")} == {int(code) for code in Exit}
    told = set(re.findall(r"^\| (\S) \| (\S) \|", section("show"), re.MULTILINE))
    assert told == {(pretty, plain) for mark, (pretty, plain, _) in GLYPHS.items() if mark not in {"note", "start"}}


# --- explain ---


def test_explain_prints_the_page_of_an_error(cli: Cli) -> None:
    told = cli("explain", "P0202")
    assert (told.code, told.err) == (0, "")
    assert told.out == (Path(__file__).parents[2] / "docs" / "errors" / "P0202.md").read_text("utf-8")
    assert cli("explain", "[p0202:").out == told.out, "as it is copied from a message"
    document = json.loads(cli("explain", "P0202", "--json").out)
    assert document == {"code": "P0202", "page": told.out}


def test_what_a_message_says_to_type_works(cli: Cli) -> None:
    pointer = re.search(
        r"\[P\d{4}: perdure (explain P\d{4})\]$",
        str(perdure.errors.OutsideWorkflow(what="perdure.receive", place="a workflow", fix="")),
    )
    assert pointer is not None
    assert cli(*pointer[1].split()).out.startswith("# P0307")


def test_explain_of_what_is_no_code_says_what_codes_look_like(cli: Cli) -> None:
    told = cli("explain", "nonsense")
    assert (told.code, told.out) == (2, "")
    assert "No error has the code or name 'nonsense'" in told.err
    assert "Codes look like P0202" in told.err
    assert "Did you mean" in cli("explain", "P0200").err
    assert "Did you mean 'StepFailed'" in cli("explain", "StepFailled").err


@pytest.mark.parametrize("name", ["StepFailed", "perdure.errors.StepFailed:", "stepfailed"])
def test_explain_takes_the_name_of_an_error_as_tracebacks_show_it(cli: Cli, name: str) -> None:
    assert cli("explain", name).out.startswith("# P0601: StepFailed")
    assert json.loads(cli("explain", name, "--json").out)["code"] == "P0601"


def test_the_pages_of_errors_are_installed_with_the_package() -> None:
    root = Path(__file__).parents[2]
    built = {file.distribution_path for file in WheelBuilder(str(root)).recurse_included_files()}
    assert {f"perdure/error_pages/{page.name}" for page in (root / "docs" / "errors").glob("P*.md")} <= built
