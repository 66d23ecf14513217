"""`perdure fork`, `rewind` and `stack`: beside a real worker, and without one."""

from __future__ import annotations

import signal

import pytest
from tests.cli.conftest import Cli, Project, Spawn, until

from perdure.cli.options import Exit


@pytest.fixture
def greeted(cli: Cli) -> None:
    """Execution g1: Started, Claimed, look_up, look_up, Completed."""
    assert cli("run", "agent.py:greet", "--input", '{"name": "ann", "times": 2}', "--id", "g1").code == Exit.OK


def journal(cli: Cli, name: str) -> list[str]:
    return [each["type"] for each in cli("journal", name, "--json").lines()]


@pytest.mark.usefixtures("greeted")
def test_a_fork_without_a_worker_is_there_and_the_next_one_runs_it(cli: Cli, worker: Spawn, project: Project) -> None:
    told = cli("fork", "g1", "--at", "3", "--new-id", "g2")
    assert told.code == Exit.OK
    assert "g2 begins as g1 before event 3." in told.err
    assert "No worker runs" in told.err
    assert "perdure diff g1 g2" in told.err
    worker("agent.py")
    until(lambda: (row := project.row("g2")) and row.status == "completed", "g2")
    assert [line.split()[0] for line in project.ledger()] == ["look_up"] * 3
    shown = cli("show", "g2")
    assert "fork of g1, before event 3 of run " in shown.out
    assert "forked from g1" in shown.out
    assert "the worker died" not in shown.out
    origin = cli("show", "g2", "--json").json()["origin"]
    assert (origin["execution"], origin["at"]) == ("g1", 3)
    assert cli("show", "g1", "--json").json()["origin"] is None


@pytest.mark.usefixtures("greeted")
def test_a_replaced_result_is_converted_to_the_steps_type_and_shown_as_replaced(cli: Cli, project: Project) -> None:
    refused = cli("fork", "g1", "--replace", '2="BOB"')
    assert refused.code == Exit.REFUSED
    assert "no code is at hand" in refused.err
    wrong = cli("fork", "g1", "--replace", "2=7", "--module", "agent.py")
    assert wrong.code == Exit.USAGE
    told = cli("fork", "g1", "--replace", '2="BOB"', "--module", "agent.py", "--new-id", "g2", "--json")
    assert told.json() == {"id": "g2", "fork_of": "g1", "at": 3, "worker_runs": False}
    project.write("bob.json", '"BOB"')
    assert cli("fork", "g1", "--replace", "2=@bob.json", "--module", "agent.py", "--new-id", "g2").code == Exit.OK
    assert "replaced: not what it returned" in cli("show", "g2").out
    event = cli("journal", "g2", "--json").lines()[2]
    assert (event["result"], event["replaced"]) == ("BOB", True)
    assert '"replaced"' not in cli("journal", "g1").out


def test_a_rewind_beside_a_worker_goes_on_at_once(cli: Cli, worker: Spawn, spawn: Spawn, project: Project) -> None:
    worker("agent.py")
    spawn("run", "agent.py:ask", "--input", '"x"', "--id", "a1")
    until(lambda: (row := project.row("a1")) and row.waits_for == "signal approval", "a1 waits")
    told = cli("rewind", "a1", "--replace", '2="other"')
    assert told.code == Exit.OK, told.err
    assert "a1 goes on from before event 3." in told.err
    until(lambda: len(project.ledger()) == 3, "the other step again")
    cli("signal", "a1", "approval", '{"approved": true, "note": "fine"}')
    until(lambda: (row := project.row("a1")) and row.status == "completed", "a1")
    assert "other" in cli("show", "a1").out
    assert "rewound to event 3" in cli("show", "a1").out


@pytest.mark.usefixtures("greeted")
def test_bad_input_says_what_to_do(cli: Cli) -> None:
    for arguments, code, text in [
        (("fork", "g1", "--at", "99"), Exit.REFUSED, "its journal has 5 events"),
        (("fork", "g1", "--at", "-1"), Exit.USAGE, "0<=x"),
        (("fork", "g1", "--replace", "1=2"), Exit.REFUSED, "not a step's result"),
        (("fork", "g1", "--replace", "x"), Exit.USAGE, "is not N=JSON"),
        (("fork", "g1", "--replace", "2=bob"), Exit.USAGE, "--replace 2"),
        (("fork", "g1", "--at", "3", "--new-id", "g1"), Exit.USAGE, "rewind"),
        (("fork", "g1", "--at", "3", "--module", "json"), Exit.USAGE, "has no workflow 'greet'"),
        (("fork", "g0", "--at", "3"), Exit.NOT_FOUND, "Did you mean 'g1'?"),
        (("rewind", "g1"), Exit.USAGE, "--at N, or --replace"),
        (("rewind", "g1", "--at", "1"), Exit.REFUSED, "has not begun there"),
        (("stack", "nobody"), Exit.NOT_FOUND, "nobody"),
    ]:
        told = cli(*arguments)
        assert (told.code, text in told.err) == (code, True), (arguments, told.err)
    assert cli("fork", "g1", "--at", "3", "--new-id", "g2").code == Exit.OK
    assert cli("fork", "g1", "--at", "4", "--new-id", "g2").code == Exit.REFUSED


def test_the_stack_is_told_by_the_worker_and_by_nobody_else(
    cli: Cli, worker: Spawn, spawn: Spawn, project: Project
) -> None:
    process = worker("agent.py")
    spawn("run", "agent.py:patient", "--input", '"x"', "--id", "p1")
    until((project.path / "holding-x").exists, "the step runs")
    told = cli("stack", "p1")
    assert told.code == Exit.OK
    assert "main  awaits step 'hold' #2" in told.out
    assert "agent.py:" in told.out
    assert "in patient" in told.out
    found = cli("stack", "p1", "--json").json()
    assert (found["waiting"][0]["awaits"], found["waiting"][0]["seq"], found["more"]) == ("step 'hold'", 2, 0)
    (project.path / "x").touch()
    until(lambda: (row := project.row("p1")) and row.status == "completed", "p1")
    assert "is completed: nothing of it waits" in cli("stack", "p1").err
    process.kill(signal.SIGKILL)
    process.end()
    cli("fork", "p1", "--at", "3", "--new-id", "p2")
    assert cli("stack", "p2").code == Exit.NO_ANSWER
