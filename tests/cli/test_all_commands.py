"""What holds for every command: JSON where it is asked for, exit codes, no colours where nobody looks."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from tests.cli.conftest import PERDURE, Cli, Project, Spawn, until
from tests.cli.terminal import in_a_terminal
from tests.cli.test_messages import CART

from perdure.cli import look
from perdure.cli.app import cli as commands
from perdure.cli.options import Exit

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text("utf-8")
NAMES = commands.list_commands(click.Context(commands))

# For each command, a line that does its work, in a store with the cart c1 (which a worker runs), the greeting g1 that
# has ended, the failed d1, and s1 that stalled. An empty answer stands where there is nothing to list.
LINES = {
    "run": "run agent.py:greet --id g1",
    "ls": "ls",
    "show": "show g1",
    "journal": "journal g1",
    "top": "top --once --interval 0.1",
    "stalled": "stalled",
    "unresolved": "unresolved",
    "signal": "signal c1 hello",
    "update": "update c1 add 2",
    "query": "query c1 total",
    "state": "state c1",
    "stack": "stack c1",
    "cancel": "cancel c1",
    "terminate": "terminate c1",
    "pause": "pause c1",
    "resume": "resume c1",
    "fork": "fork g1 --at 3 --new-id f1",
    "diff": "diff g1 f1",
    "rewind": "rewind d1 --at 2",
    "resolve": "resolve c1 1 --abandon",  # refused: nobody asks
    "asks": "asks",
    "answer": "answer never-given true",  # refused: no such token
    "lint": "lint stuck.py",
    "check": "check agent.py",
    "export": "export g1",
    "import": "import exported.jsonl --store other.db",
    "gc": "gc --older-than 99d",
    "doctor": "doctor",
    "explain": "explain P0202",
    "completion": "completion bash",
}
NOTHING_TO_LIST = {"unresolved", "asks"}
STUCK = "import perdure\n@perdure.workflow\nasync def stuck() -> None:\n    open('x')\n"


@pytest.fixture
def busy(project: Project, worker: Spawn, spawn: Spawn, cli: Cli) -> Project:
    """See `LINES`."""
    project.write("cart.py", CART.replace("item: str, times", "item: int, times").replace("pack(item)", "pack('x')"))
    project.write("stuck.py", STUCK)
    assert cli("run", "agent.py:greet", "--input", '"ada"', "--id", "g1").code == 0
    assert cli("run", "agent.py:doomed", "--input", '"x"', "--id", "d1").code == Exit.FAILED
    assert cli("run", "stuck.py:stuck", "--id", "s1").code == Exit.STALLED
    assert cli("export", "g1", "--output", "exported.jsonl").code == 0
    worker("cart.py")
    spawn("run", "cart.py:Cart", "--input", "4", "--id", "c1")
    until(lambda: (row := project.row("c1")) is not None and row.status == "parked", "the cart to wait")
    return project


def test_every_command_has_its_line() -> None:
    assert sorted([*LINES, "worker"]) == sorted(NAMES), "tests/cli/test_all_commands.py: give the new command a line"
    assert all(line.split()[0] == name for name, line in LINES.items())


@pytest.mark.slow
def test_every_command_prints_json_and_nothing_else_where_it_is_asked_for(busy: Project, cli: Cli) -> None:
    for name, line in LINES.items():
        told = cli(*line.split(), "--json")
        documents = [json.loads(each) for each in told.out.splitlines()]
        errors = [json.loads(each) for each in told.err.splitlines() if each.startswith("{")]
        if told.code in {Exit.OK, Exit.FAILED}:
            assert documents or name in NOTHING_TO_LIST, line
            assert not errors, line
        else:
            assert errors[0]["error"]["exit_code"] == told.code, line
            assert not documents, line
        assert "\x1b" not in told.out + told.err


@pytest.mark.slow
def test_a_worker_tells_json_too(project: Project, worker: Spawn, spawn: Spawn) -> None:
    started = spawn("worker", "agent.py", "--json")
    assert started.process.stdout is not None
    assert json.loads(started.process.stdout.readline())["event"] == "serving"
    started.kill(signal.SIGTERM)
    rest = [json.loads(each)["event"] for each in started.end().out.splitlines()]
    assert rest == ["stopping", "stopped"]


# --- exit codes: a table, and what brings each about ---

Way = Callable[[Project, Cli, Spawn], int]


def _stalls(project: Project, cli: Cli, spawn: Spawn) -> int:
    project.write("stuck.py", STUCK)
    return cli("run", "stuck.py:stuck").code


def _loses_the_store(project: Project, cli: Cli, spawn: Spawn) -> int:
    started = spawn("worker", "agent.py")
    started.until_it_says("Serving ")
    (project.path / "perdure.db-owner").unlink()
    return started.end().code


def _is_refused(project: Project, cli: Cli, spawn: Spawn) -> int:
    assert cli("run", "agent.py:greet", "--input", '"x"', "--id", "g1").code == 0
    return cli("signal", "g1", "late").code


def _has_no_answer(project: Project, cli: Cli, spawn: Spawn) -> int:
    assert cli("run", "agent.py:greet", "--input", '"x"', "--id", "g1").code == 0
    return cli("query", "g1", "total").code


def _has_a_bug(project: Project, cli: Cli, spawn: Spawn) -> int:
    assert cli("run", "agent.py:greet", "--input", '"x"', "--id", "g1").code == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(look, "Listing", lambda *_: 1 / 0)
        told = cli("ls")
    assert "ZeroDivisionError" in told.err
    assert "Please report it." in told.err
    return told.code


def _is_stopped_by(number: signal.Signals) -> Way:
    def way(project: Project, cli: Cli, spawn: Spawn) -> int:
        started = spawn("run", "agent.py:patient", "--input", '"w"')
        until((project.path / "holding-w").exists, "the step to run")
        started.kill(number)
        started.until_it_says("Stopping")
        (project.path / "w").touch()
        return started.end().code

    return way


WAYS: dict[Exit, Way] = {
    Exit.OK: lambda _, cli, __: cli("run", "agent.py:greet", "--input", '"x"').code,
    Exit.FAILED: lambda _, cli, __: cli("run", "agent.py:doomed", "--input", '"x"').code,
    Exit.USAGE: lambda _, cli, __: cli("ls", "--frob").code,
    Exit.NOT_FOUND: lambda _, cli, __: cli("import", "--help").code or _missing_id(cli),
    Exit.STORE: lambda _, cli, __: cli("ls").code,
    Exit.STALLED: _stalls,
    Exit.OWNERSHIP_LOST: _loses_the_store,
    Exit.REFUSED: _is_refused,
    Exit.NO_ANSWER: _has_no_answer,
    Exit.BUG: _has_a_bug,
    Exit.INTERRUPTED: _is_stopped_by(signal.SIGINT),
    Exit.TERMINATED: _is_stopped_by(signal.SIGTERM),
}


def _missing_id(cli: Cli) -> int:
    assert cli("run", "agent.py:greet", "--input", '"x"').code == 0
    return cli("show", "nobody").code


@pytest.mark.slow
@pytest.mark.parametrize("expected", list(Exit))
def test_each_exit_code_has_what_brings_it_about(expected: Exit, project: Project, cli: Cli, spawn: Spawn) -> None:
    assert WAYS[expected](project, cli, spawn) == expected


def test_the_page_lists_every_exit_code_once() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \|", PAGE.split("## Exit codes")[1].split("\n## ")[0], re.MULTILINE)
    assert [int(code) for row in rows for code in row.split(",")] == [int(code) for code in Exit]


# --- colours ---


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 160])
def test_a_terminal_gets_colours_unless_no_color_is_set_and_nothing_is_wider(
    busy: Project, cli: Cli, columns: int
) -> None:
    for line in ("ls", "show g1", "top --once --interval 0.1", "doctor", "shwo"):
        coloured = in_a_terminal(busy, str(PERDURE), *line.split(), columns=columns)
        plain = in_a_terminal(busy, str(PERDURE), *line.split(), columns=columns, NO_COLOR="1")
        assert re.search(r"\x1b\[[\d;]*3\d", coloured), line
        assert not re.search(r"\x1b\[[\d;]*[34]\d[;m]", plain), line
        if line != "doctor":  # which tells whole paths
            bare = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", plain)
            assert max(map(len, bare.splitlines())) <= columns, line


def test_in_a_pipe_there_are_no_colours(cli: Cli) -> None:
    cli("run", "agent.py:greet", "--input", '"x"', "--id", "g1")
    for line in ("ls", "show g1", "doctor", "shwo", "top --once --interval 0.1"):
        told = cli(*line.split())
        assert "\x1b" not in told.out + told.err, line


# --- slips ---


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("show --ful g1", "Did you mean '--full'?"),
        ("ls --limt 3", "Did you mean '--limit'?"),
        ("ls --status stall", "Did you mean 'stalled'?"),
        ("completion zhs", "Did you mean 'zsh'?"),
        ("tpo", "Did you mean 'top'?"),
        ("resume", "Usage: perdure resume [OPTIONS] ID"),
        ("top --interval 0", "0.1"),
    ],
)
def test_a_slip_in_an_option_or_a_choice_gets_the_nearest_one(cli: Cli, line: str, hint: str) -> None:
    told = cli(*line.split())
    assert told.code == Exit.USAGE
    assert hint in told.err


def test_explain_shows_its_page_as_a_person_reads_it(project: Project) -> None:
    shown = in_a_terminal(project, str(PERDURE), "explain", "P0202", NO_COLOR="1")
    assert "perdure resume ID" in shown
    assert "`" not in shown
    assert "Changing types (docs/reference/values.md)" in " ".join(shown.split())
