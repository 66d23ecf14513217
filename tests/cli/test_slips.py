"""The clumsy and the hostile: what they are told, with which exit code. No slip makes a store, none ends in a bug."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest
from tests.cli.conftest import PERDURE, Cli, Project, Spawn, until
from tests.cli.test_messages import CART

import perdure
from perdure.cli.options import Exit
from perdure.cli.problems import nearest

DEEP = "[" * 100_000


@pytest.fixture
def greeted(cli: Cli, project: Project) -> Project:
    """A store with the greeting `ada`, and `doomed`, which failed."""
    assert cli("run", "agent.py:greet", "--input", '"ada"', "--id", "ada").code == 0
    assert cli("run", "agent.py:doomed", "--input", '"x"', "--id", "doomed").code == Exit.FAILED
    return project


@pytest.fixture
def cart(project: Project, worker: Spawn, spawn: Spawn) -> Project:
    """A cart, `c1`, that a worker runs, and that waits."""
    project.write("cart.py", CART)
    worker("cart.py")
    spawn("run", "cart.py:Cart", "--input", "4", "--id", "c1")
    until(lambda: (row := project.row("c1")) is not None and row.status == "parked", "the cart to wait")
    return project


# --- before there is a store ---


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("run agent.py:greet --input @deep.json", Exit.USAGE, "The value of --input is nested too deeply."),
        ("run agent.py:greet --input @/dev/zero", Exit.USAGE, "@/dev/zero is larger than 64 MiB: no value may be."),
        ("run agent.py:greet --input @empty", Exit.USAGE, "The value of --input is empty, which is no JSON."),
        ("run agent.py:greet --input @odd", Exit.USAGE, "@odd cannot be read: it is not UTF-8."),
        ("run agent.py:greet --input \udcff", Exit.USAGE, "The value of --input is no JSON: it is not UTF-8."),
        ("run agent.py:greet --input ada", Exit.USAGE, "Text needs its quotes: --input '\"ada\"'\n"),
        ("run agent.py:greet --input o'hara", Exit.USAGE, "Text needs its quotes: --input '\"o'\"'\"'hara\"'\n"),
        ("run agent.py:greet --input True", Exit.USAGE, "In JSON that is true.\n"),
        ('run agent.py:greet --input {"nam":"x"}', Exit.USAGE, "It has no parameter 'nam'. Did you mean 'name'?\n"),
        ('run agent.py:greet --input {"x":"x"}', Exit.USAGE, "An object holds arguments by name."),
        ("run agent.py:greet", Exit.USAGE, "missing a required argument: 'name'"),
        ('run agent.py:greet --input "a" --start-at 2027-01-01 --delay 5', Exit.USAGE, "--start-at or --delay.\n"),
        ('run agent.py:greet --input "a" --codec agent.py:greet', Exit.USAGE, "agent.py:greet does not make a codec:"),
        ('run agent.py:greet --input "a" --codec agent.py:Path', Exit.USAGE, "agent.py:Path is no codec: it has no"),
        ('run agent.py:greet --input "a" --codec agent.py:asyncio', Exit.USAGE, "agent.py:asyncio is no codec"),
        ("worker agent.py:greet", Exit.USAGE, "names a workflow, where a module is wanted.\nWrite agent.py\n"),
        ("worker json", Exit.USAGE, "Error: json defines no workflow.\n"),
        ("worker agent.py --shutdown-timeout nan", Exit.USAGE, "'nan' is no number of seconds."),
        ("check agent.py:greet", Exit.USAGE, "names a workflow, where a module is wanted.\nWrite agent.py\n"),
        ("top --interval nan", Exit.USAGE, "'nan' is no number of seconds."),
        ("top --interval inf", Exit.USAGE, "'inf' is no number of seconds."),
        ("update c1 add --timeout soon", Exit.USAGE, "'soon' is no number of seconds."),
        ("resolve c1 x --abandon", Exit.USAGE, "'x' is no whole number."),
        (f"fork c1 --at {10**30}", Exit.USAGE, "is not in the range"),
        (f"resolve c1 {10**30} --abandon", Exit.USAGE, "is not in the range"),
        (f"journal c1 --from {10**30}", Exit.USAGE, "is not in the range"),
        ("fork c1 --replace 2=x", Exit.USAGE, "Text needs its quotes: --replace 2='\"x\"'\n"),
        ("greet", Exit.USAGE, "There is no command 'greet'.\nperdure --help lists them.\n"),
        (" ls", Exit.USAGE, "There is no command ''.\nperdure --help lists them.\n"),
        ("completion tcsh", Exit.USAGE, "'tcsh' is not one of 'bash', 'zsh', 'fish'.\nUsage:"),
        ("ls", Exit.STORE, "There is no store at perdure.db."),
        ("signal c1 go", Exit.STORE, "There is no store at perdure.db."),
        ("doctor", Exit.STORE, ""),
    ],
)
def test_a_slip_is_told_and_makes_no_store(cli: Cli, project: Project, line: str, code: Exit, told: str) -> None:
    project.write("deep.json", DEEP)
    project.write("empty", "\n")
    (project.path / "odd").write_bytes(b'"\xff"')
    answer = cli(*line.split(" "))
    assert answer.code == code
    assert told in answer.err
    assert not project.store.exists()


def test_the_nearest_is_near(project: Project) -> None:
    assert nearest("shwo", ["show", "ls"]) == "Did you mean 'show'?"
    assert nearest("greet", ["resume", "resolve"]) == ""
    assert nearest("", ["show"]) == ""
    assert nearest("g2", ["g1", "zz"]) == "Did you mean 'g1'?"


# --- executions that are not what was thought ---


def test_a_taken_id_is_told_with_what_is_different_and_the_options_that_help(cli: Cli, greeted: Project) -> None:
    options = "\nChoose another --id, or say what to do about the one there is: --on-conflict, --reuse.\n"
    other_input = cli("run", "agent.py:greet", "--input", '"bob"', "--id", "ada")
    assert other_input.err.endswith(f"workflow 'greet', and this start has another input.{options}")
    for given in ([], ["--input", '"bob"']):
        other = cli("run", "agent.py:patient", "--id", "ada", *given)
        assert (other.code, other.out) == (Exit.REFUSED, "")
        assert other.err.endswith(f"workflow 'greet', and this start is of 'patient'.{options}")
    fork = cli("fork", "ada", "--new-id", "doomed")
    assert fork.code == Exit.REFUSED
    assert fork.err.endswith("and it is not this fork.\nChoose another --new-id.\n")


@pytest.mark.parametrize("command", ["signal {} go", "update {} add 1", "cancel {}", "terminate {}", "pause {}"])
def test_what_goes_to_a_closed_or_an_unknown_execution_is_refused(cli: Cli, greeted: Project, command: str) -> None:
    for name, code, told in (("ada", Exit.REFUSED, "closed (completed)"), ("adda", Exit.NOT_FOUND, "mean 'ada'?")):
        answer = cli(*command.format(name).split())
        assert (answer.code, answer.out) == (code, "")
        assert told in answer.err
        as_json = json.loads(cli(*command.format(name).split(), "--json").err)
        assert as_json["error"]["exit_code"] == code


def test_events_that_there_are_not(cli: Cli, greeted: Project) -> None:
    beyond = cli("journal", "ada", "--from", "99")
    assert (beyond.code, beyond.out, beyond.err) == (0, "", "ada has 4 events, the last of them 3.\n")
    assert cli("fork", "ada", "--at", "99").code == Exit.REFUSED


async def test_no_event_has_a_number_that_no_store_can_hold(tmp_path: object) -> None:
    async with perdure.Client(f"{tmp_path}/perdure.db") as client:
        with pytest.raises(perdure.errors.InvalidOption, match="number of an event"):
            await client.fork("any", at=2**63)


def test_an_answer_to_no_question_is_told_as_such(cli: Cli, greeted: Project) -> None:
    told = cli("answer", "token", "true")
    assert (told.code, told.out) == (Exit.REFUSED, "")
    assert told.err.startswith("Error: This answers no question: the token is no question's")
    assert "In JSON that is true." in cli("answer", "token", "yes").err


@pytest.mark.slow
def test_messages_that_miss_are_told_with_what_was_meant(cli: Cli, cart: Project) -> None:
    misspelt = cli("signal", "c1", "pai")
    assert misspelt.code == 0
    assert misspelt.err.endswith("c1 waits for signal pay; pai is kept until it is received. Did you mean 'pay'?\n")
    assert "Did you mean" not in cli("signal", "c1", "something else").err
    assert "Did you mean 'total'?" in cli("query", "c1", "totl").err
    rejected = cli("update", "c1", "ad", "1")
    assert rejected.code == Exit.REFUSED
    assert "was rejected: UnknownHandler: Execution 'c1' has no handler for update 'ad' now; it has: " in rejected.err
    assert rejected.err.count("perdure explain") == 1
    assert "perdure.core" not in rejected.err
    wrong = cli("update", "c1", "add")
    assert "argument 'item' is missing, and has no default" in wrong.err
    rests = cli("resume", "c1")
    assert rests.err.endswith(", neither paused nor stalled: it is left as it is.\n")


@pytest.mark.slow
def test_an_update_that_is_not_waited_for_tells_how_to_ask_for_its_answer(
    cli: Cli, cart: Project, spawn: Spawn
) -> None:
    late = cli("update", "c1", "add", '"red apple"', "2", "--timeout", "0")
    assert late.code == Exit.NO_ANSWER
    command = late.err.splitlines()[-1].strip()
    asked = subprocess.run(
        ["bash", "-c", command.replace("perdure", str(PERDURE), 1)], cwd=cart.path, capture_output=True, check=True
    )
    again = cli("update", "c1", "add", '"red apple"', "2", "--update-id", command.split()[-1])
    assert again.json() == json.loads(asked.stdout)


@pytest.mark.slow
def test_ctrl_c_while_an_update_is_waited_for_tells_the_same(cli: Cli, greeted: Project, spawn: Spawn) -> None:
    held = spawn("run", "agent.py:ask", "--input", '"x"', "--id", "held")
    until(lambda: (row := greeted.row("held")) is not None and row.status == "parked", "it to wait")
    held.kill(signal.SIGINT)
    held.end()
    asking = spawn("update", "held", "add", "1")
    asking.until_it_says("No worker runs")
    until(lambda: _has_update(greeted), "the update to be kept")
    asking.kill(signal.SIGINT)
    told = asking.end()
    assert told.code == Exit.INTERRUPTED
    assert "perdure update held add 1 --update-id " in told.err


def _has_update(project: Project) -> bool:
    row = project.row("held")
    return row is not None and row.status == "active"


@pytest.mark.slow
def test_an_import_says_that_it_needs_the_store_for_itself(cli: Cli, greeted: Project, worker: Spawn) -> None:
    assert cli("export", "ada", "-o", "ada.jsonl").err == "1 execution exported.\n"
    worker("agent.py")
    told = cli("import", "ada.jsonl")
    assert told.code == Exit.STORE
    assert told.err.endswith("\nStop it first: an import needs the store for itself.\n")


def test_a_damaged_store_is_told_by_doctor_with_the_page_about_it(cli: Cli, project: Project) -> None:
    project.write("bad.db", "no store\n" * 1000)
    told = cli("doctor", "--store", "bad.db", "--json")
    [file] = [each for each in told.lines() if each["what"] == "File"]
    assert (told.code, file["well"]) == (Exit.STORE, False)
    assert "perdure explain P0406" in file["cure"]


# --- outputs ---

COMMANDS = ["ls", "ls --json", "show ada", "journal ada", "export --all", "doctor", "top --once --interval 0.1", "-h"]


def shell(project: Project, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], cwd=project.path, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "code", "told"),
    [
        ("{} >&-", 0, ""),
        ("{} 2>&-", 0, ""),
        ("{} >&- 2>&- <&-", 0, ""),
        ("{} > /dev/full", Exit.USAGE, "Error: The output cannot be written: No space left on device."),
        ("{} | head -c 1 > /dev/null; exit ${{PIPESTATUS[0]}}", 0, ""),
        ("{} | true; exit ${{PIPESTATUS[0]}}", 0, ""),
    ],
)
def test_outputs_that_are_closed_full_or_left_early_are_no_bugs(
    greeted: Project, form: str, code: int, told: str
) -> None:
    for command in COMMANDS:
        done = shell(greeted, form.format(f"{PERDURE} {command}"))
        plain = done.stderr.replace('{"error": {"exit_code": 2, "code": "", "message": "', "Error: ")
        assert done.returncode == code, (command, done.stderr)
        assert told in plain, command
        assert "Traceback" not in plain
        assert "Exception" not in plain


@pytest.mark.slow
def test_an_error_that_nobody_reads_keeps_its_exit_code(greeted: Project) -> None:
    for form in ("{} 2>&-", "{} 2>/dev/full", "{} 2>&1 >/dev/null | true; exit ${{PIPESTATUS[0]}}"):
        assert shell(greeted, form.format(f"{PERDURE} show nobody")).returncode == Exit.NOT_FOUND
        assert shell(greeted, form.format(f"{PERDURE} shwo")).returncode == Exit.USAGE


def test_a_list_in_a_narrow_terminal_has_no_empty_lines(
    cli: Cli, greeted: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert all(cli("ls").out.splitlines())
    assert len(cli("ls").out.splitlines()) == 3


RUNS_AT_IMPORT = """
import perdure
from perdure import workflow

@workflow
async def doomed() -> str:
    raise ValueError("no")

perdure.run(doomed)
"""


def test_a_module_that_runs_its_workflow_as_it_is_imported_is_told_of_the_guard(cli: Cli, project: Project) -> None:
    project.write("eager.py", RUNS_AT_IMPORT)
    told = cli("run", "eager.py:doomed").err
    assert told.startswith("Error: eager.py cannot be imported:\neager.py:9: Execution ")
    assert told.endswith("put that below `if __name__ == '__main__':`.\n")


def test_a_definition_that_is_refused_is_told_with_its_line(cli: Cli, project: Project) -> None:
    project.write("wrong.py", "import perdure\n\n\n@perdure.workflow\ndef sync() -> None: ...\n")
    assert "wrong.py:4: 'sync' is no valid workflow" in cli("run", "wrong.py:sync").err


def test_names_that_fit_are_not_said_to_be_meant_otherwise(cli: Cli, project: Project) -> None:
    project.write("two.py", "import perdure\n\n\n@perdure.workflow\nasync def two(a: int, b: int) -> None: ...\n")
    told = cli("run", "two.py:two", "--input", '{"a": 1}').err
    assert "missing a required argument: 'b'" in told
    assert "An object holds" not in told
