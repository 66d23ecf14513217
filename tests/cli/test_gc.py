"""`perdure gc`, and a worker that removes by itself."""

from __future__ import annotations

from tests.cli.conftest import Cli, Project, Spawn, until


def test_gc_removes_what_closed_long_ago_and_says_how_much(cli: Cli, project: Project) -> None:
    for name in ("a", "b"):
        cli("run", "agent.py:greet", "--input", '"x"', "--id", name)
    assert cli("gc", "--older-than", "1h", "--json").json() == {
        "executions": 0,
        "events": 0,
        "runs": 0,
        "dry_run": False,
    }
    told = cli("gc", "--older-than", "0", "--dry-run")
    assert (told.code, told.out) == (0, "")
    assert "2 executions with 8 events would go." in told.err
    assert project.row("a") is not None
    assert cli("gc", "--older-than", "0").code == 0
    assert project.row("a") is project.row("b") is None
    assert cli("show", "a").code == 3


def test_an_age_is_needed_and_must_be_one(cli: Cli) -> None:
    cli("run", "agent.py:greet", "--input", '"x"', "--id", "a")
    assert cli("gc").code == 2
    assert "--runs-older-than" in cli("gc").err
    assert "--runs-older-than wants a length of time" in cli("gc", "--runs-older-than", "soon").err
    assert "Nothing is that old." in cli("gc", "--runs-older-than", "0").err
    assert cli("worker", "agent.py", "--run-retention", "soon").code == 2
    assert "--older-than wants a length of time" in cli("gc", "--older-than", "soon").err
    assert cli("worker", "agent.py", "--retention", "soon").code == 2


def test_a_worker_removes_by_itself(cli: Cli, project: Project, worker: Spawn) -> None:
    cli("run", "agent.py:greet", "--input", '"x"', "--id", "a")
    running = worker("agent.py", "--retention", "0.1s")
    until(lambda: project.row("a") is None, "its removal")
    running.kill(15)
    assert running.end().code == 0
