"""What a shell completes: commands, options, choices, files and ids; asked as its script asks, and in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess

import click
import pytest
from tests.cli.conftest import PERDURE, Cli, Project

from perdure.cli.app import cli as commands
from perdure.cli.completion import SHELLS, ExecutionIds, Files

pytestmark = pytest.mark.slow


def completed(project: Project, line: str, shell: str = "fish") -> list[str]:
    """What is offered for the last word of the line."""
    words = line.split(" ")
    env = {
        **os.environ,
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_PERDURE_COMPLETE": f"{shell}_complete",
    }
    if shell == "fish":
        env |= {"COMP_CWORD": words[-1]}
    done = subprocess.run([PERDURE], cwd=project.path, env=env, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [each for each in done.stdout.splitlines() if each]


@pytest.fixture
def three(project: Project, cli: Cli) -> Project:
    for name in ("report-1", "report-2", "other"):
        assert cli("run", "agent.py:greet", "--input", '"x"', "--id", name).code == 0
    return project


def test_commands_options_and_choices_are_completed(project: Project) -> None:
    assert {"plain,state", "plain,stalled"} <= {each.split("\t")[0] for each in completed(project, "perdure st")}
    assert "plain,--limit" in "\n".join(completed(project, "perdure ls --l"))
    assert "plain,stalled" in "\n".join(completed(project, "perdure ls --status st"))


def test_ids_are_completed_with_what_they_are(three: Project) -> None:
    assert completed(three, "perdure show report-") == [
        "plain,report-2\tgreet, completed",
        "plain,report-1\tgreet, completed",
    ]
    assert len(completed(three, "perdure export other ")) == 3
    assert completed(three, "perdure --store nowhere.db show ") == []
    assert not (three.path / "nowhere.db").exists()


def test_the_store_that_the_line_names_is_asked(three: Project, cli: Cli) -> None:
    assert cli("run", "agent.py:greet", "--input", '"x"', "--id", "elsewhere", "--store", "two.db").code == 0
    assert completed(three, "perdure --store two.db show ") == ["plain,elsewhere\tgreet, completed"]


def test_files_are_left_to_the_shell(project: Project) -> None:
    assert completed(project, "perdure worker ag") == ["file,ag"]
    assert completed(project, "perdure ls --store per") == ["file,per"]


def test_every_argument_that_is_an_id_or_a_file_is_completed() -> None:
    ctx = click.Context(commands)
    for name in commands.list_commands(ctx):
        command = commands.get_command(ctx, name)
        assert command is not None
        for param in command.params:
            if isinstance(param, click.Argument) and (param.metavar or "").strip("[].") == "ID":
                assert isinstance(param.type, ExecutionIds), f"{name}: call it execution_id"
            if (param.metavar or "").startswith(("MODULE...", "FILE")):
                assert isinstance(param.type, Files), f"{name}: {param.name}"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_what_that_shell_reads(shell: str, cli: Cli) -> None:
    told = cli("completion", shell)
    assert told.code == 0
    assert f"_PERDURE_COMPLETE={shell}_complete" in told.out
    found = shutil.which(shell)
    if found is not None:
        subprocess.run([found, "-n"], input=told.out, text=True, check=True)  # its own syntax check


def test_a_real_bash_completes_with_it(three: Project) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    script = """
        eval "$(perdure completion bash)"
        COMP_WORDS=(perdure show report-) COMP_CWORD=2
        _perdure_completion perdure
        echo "${COMPREPLY[@]}"
    """
    env = {**os.environ, "PATH": f"{PERDURE.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([bash, "-c", script], cwd=three.path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "report-2 report-1\n"
