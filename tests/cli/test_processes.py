"""The command line in processes of its own, on a real file, beside workers that stop, crash, and lose their store."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from tests.cli.conftest import PERDURE, Cli, Project, Spawn, until

import perdure.cli.run

pytestmark = pytest.mark.slow

STATUS_OPEN = {"active", "parked"}


def position(project: Project, execution: str) -> int:
    if not project.store.exists():
        return 0
    row = project.row(execution)
    return row.position if row is not None else 0


def test_run_prints_the_result_and_a_second_run_the_recorded_one(spawn: Spawn, project: Project) -> None:
    line = ("run", "agent.py:greet", "--input", '"ada"', "--id", "g1")
    assert spawn(*line).end()[:2] == (0, '["ADA"]\n')
    assert spawn(*line).end()[:2] == (0, '["ADA"]\n')
    assert spawn(*line[:2], "--id", "g1").end()[:2] == (0, '["ADA"]\n')
    assert len(project.ledger()) == 1


def test_beside_a_worker_run_lets_the_worker_do_the_work(spawn: Spawn, worker: Spawn, project: Project) -> None:
    started = worker()
    told = spawn("run", "agent.py:greet", "--input", '["bob"]').end()
    assert (told.code, told.out) == (0, '["BOB"]\n')
    assert "it does the work" in told.err
    assert project.ledger() == [f"look_up bob {started.process.pid}"]


def test_sigterm_lets_the_worker_finish_running_steps(spawn: Spawn, worker: Spawn, project: Project) -> None:
    started = worker()
    spawn("run", "agent.py:patient", "--input", '"w"', "--id", "p1")
    until((project.path / "holding-w").exists, "the step to run")
    started.kill(signal.SIGTERM)
    started.until_it_says("Stopping")
    assert started.process.poll() is None
    (project.path / "w").touch()
    told = started.end()
    assert told.code == 0
    assert "Stopped." in told.err
    names = [getattr(each.event, "name", "") for each in project.journal("p1")]
    assert names.count("hold") == 1, "the step that ran was recorded before the worker ended"


def test_a_second_signal_stops_the_worker_at_once(spawn: Spawn, worker: Spawn, project: Project) -> None:
    started = worker()
    spawn("run", "agent.py:patient", "--input", '"w"', "--id", "p1")
    until((project.path / "holding-w").exists, "the step to run")
    started.kill(signal.SIGTERM)
    started.until_it_says("Stopping")
    started.kill(signal.SIGTERM)
    assert started.end().code == 143


def test_after_sigkill_another_worker_goes_on_and_show_says_so(spawn: Spawn, worker: Spawn, project: Project) -> None:
    first = worker()
    waiting = spawn("run", "agent.py:ask", "--input", '"sqlite"', "--id", "a1")
    until(lambda: position(project, "a1") >= 4, "both steps to be recorded")
    first.kill(signal.SIGKILL)
    assert first.end().code == -signal.SIGKILL
    assert "no worker runs" in spawn("show", "a1").end().out
    worker()
    sent = spawn("signal", "a1", "approval", '{"approved": true, "note": "fine"}').end()
    assert (sent.code, sent.err) == (0, "Sent signal approval to a1.\n")
    told = waiting.end()
    assert (told.code, told.json()) == (0, {"found": "SQLITE, SQLITE AGAIN", "note": "fine"})
    assert len(project.ledger()) == 2
    assert "the worker died; another went on" in spawn("show", "a1").end().out


def test_a_second_worker_is_refused_or_waits_for_its_turn(spawn: Spawn, worker: Spawn) -> None:
    first = worker()
    refused = spawn("worker", "agent.py").end()
    assert refused.code == 4
    assert "perdure worker --wait" in refused.err
    patient = spawn("worker", "agent.py", "--wait")
    first.kill(signal.SIGTERM)
    assert first.end().code == 0
    patient.until_it_says("Serving ")
    patient.kill(signal.SIGINT)
    assert patient.end().code == 0


def test_a_worker_that_waits_for_its_turn_can_be_stopped(spawn: Spawn, worker: Spawn) -> None:
    worker()
    patient = spawn("worker", "agent.py", "--wait", "--json")
    until(lambda: _listens_for_sigterm(patient.process.pid), "its signal handler")
    patient.kill(signal.SIGTERM)
    assert patient.end().code == 0


def _listens_for_sigterm(pid: int) -> bool:
    try:
        found = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text("ascii"))
    except FileNotFoundError:
        pytest.skip("needs /proc")
    assert found is not None
    return bool(int(found[1], 16) & (1 << (signal.SIGTERM - 1)))


def test_a_worker_whose_lock_file_is_replaced_ends_with_an_exit_code(worker: Spawn, project: Project) -> None:
    started = worker()
    (project.path / "perdure.db-owner").unlink()
    told = started.end()
    assert told.code == 6
    assert "Traceback" not in told.err


def test_a_stalled_execution_goes_on_after_the_module_was_fixed(spawn: Spawn, worker: Spawn, project: Project) -> None:
    code = (
        "import asyncio\nfrom perdure import workflow\n@workflow\nasync def wf() -> str:\n    {}\n    return 'fixed'\n"
    )
    project.write("broken.py", code.format("await asyncio.Event().wait()"))
    first = worker("broken.py")
    told = spawn("run", "broken.py:wf", "--id", "s1").end()
    assert told.code == 5
    assert "broken.py:5" in told.err
    assert "perdure resume s1" in told.err
    first.kill(signal.SIGTERM)
    assert first.end().code == 0
    assert "stalled" in spawn("ls", "--status", "stalled").end().out
    project.write("broken.py", code.format("pass"))
    resumed = spawn("resume", "s1").end()
    assert resumed.code == 0
    assert "No worker runs" in resumed.err
    worker("broken.py")
    assert spawn("run", "broken.py:wf", "--id", "s1").end()[:2] == (0, '"fixed"\n')


def test_an_execution_is_paused_resumed_and_terminated_by_hand(spawn: Spawn, worker: Spawn, project: Project) -> None:
    worker()
    asking = spawn("run", "agent.py:ask", "--input", '"t"', "--id", "a1")
    until(lambda: (row := project.row("a1")) and row.status == "parked", "it waits")
    assert spawn("pause", "a1", "--reason", "lunch").end().code == 0
    until(lambda: project.row("a1").status == "paused", "the pause")
    listed = spawn("ls", "--status", "paused").end().out
    assert "‖ paused" in listed
    assert "waits for resume (lunch)" in listed
    assert "‖" in spawn("show", "a1").end().out
    assert spawn("signal", "a1", "approval", '{"approved": true}').end().code == 0
    assert project.row("a1").status == "paused"
    told = spawn("resume", "a1", "--json").end()
    assert (told.code, told.json()["was"]) == (0, "paused")
    assert asking.end().code == 0

    asking = spawn("run", "agent.py:ask", "--input", '"t"', "--id", "a2")
    until(lambda: (row := project.row("a2")) and row.status == "parked", "it waits")
    assert spawn("pause", "a2").end().code == 0
    assert spawn("terminate", "a2", "--reason", "no more").end().code == 0
    told = asking.end()
    assert told.code == 1
    assert "no more" in told.err
    again = spawn("pause", "a2").end()
    assert again.code == 7
    assert "is closed (terminated)" in again.err


def test_ctrl_c_stops_run_and_the_printed_command_goes_on(spawn: Spawn, project: Project) -> None:
    started = spawn("run", "agent.py:ask", "--input", '"t"', "--store", "other place.db")
    started.until_it_says("Execution ")
    until((project.path / "ledger.txt").exists, "its first step")
    started.kill(signal.SIGINT)
    told = started.end()
    assert (told.code, told.out) == (130, "")
    again = shlex.split(told.err.strip().splitlines()[-1])
    assert again[:3] == ["perdure", "run", "agent.py:ask"]
    assert again[-2:] == ["--store", "other place.db"]
    execution = again[again.index("--id") + 1]
    sent = spawn("signal", execution, "approval", '{"approved": true}', "--store", "other place.db").end()
    assert sent.code == 0
    assert spawn(*again[1:]).end()[:2] == (0, '{"found": "T, T AGAIN", "note": ""}\n')
    assert len(project.ledger()) == 2


def test_a_second_ctrl_c_stops_run_at_once_and_says_how_to_go_on(spawn: Spawn, project: Project) -> None:
    started = spawn("run", "agent.py:patient", "--input", '"w"', "--id", "p1")
    until((project.path / "holding-w").exists, "the step to run")
    started.kill(signal.SIGINT)
    started.until_it_says("Again to stop at once")
    started.kill(signal.SIGINT)
    told = started.end()
    assert (told.code, told.out) == (130, "")
    assert told.err.strip().splitlines()[-1].strip() == "perdure run agent.py:patient --id p1"
    (project.path / "w").touch()
    assert spawn("run", "agent.py:patient", "--id", "p1").end()[:2] == (0, '"Ww"\n')
    assert len(project.ledger()) == 1


def test_ctrl_c_while_the_module_is_imported_says_that_nothing_was_started(spawn: Spawn, project: Project) -> None:
    project.write("heavy.py", "import time, pathlib\npathlib.Path('importing').touch()\ntime.sleep(60)\n")
    started = spawn("run", "heavy.py:wf", "--id", "h1")
    until((project.path / "importing").exists, "the import")
    started.kill(signal.SIGINT)
    assert started.end() == (130, "", "Stopped before anything was started.\n")
    assert not project.store.exists()


def test_a_signal_without_a_worker_is_kept_until_one_runs(spawn: Spawn, worker: Spawn, project: Project) -> None:
    first = worker()
    spawn("run", "agent.py:ask", "--input", '"x"', "--id", "a1")
    until(lambda: position(project, "a1") >= 4, "both steps to be recorded")
    first.kill(signal.SIGTERM)
    first.end()
    told = spawn("signal", "a1", "approval", '{"approved": false, "note": "kept"}').end()
    assert "kept until one does" in told.err
    worker()
    assert spawn("run", "agent.py:ask", "--id", "a1").end().json()["note"] == "kept"


def test_run_takes_over_when_the_worker_does_not_come_back(
    cli: Cli, worker: Spawn, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perdure.cli.run, "TAKE_OVER_S", 0.5)
    started = worker()

    def kill_and_let_go() -> None:
        until((project.path / "holding-w").exists, "the step to run")
        started.kill(signal.SIGKILL)
        (project.path / "w").touch()

    thread = threading.Thread(target=kill_and_let_go)
    thread.start()
    told = cli("run", "agent.py:patient", "--input", '"w"')
    thread.join()
    assert (told.code, told.out) == (0, '"Ww"\n')
    assert "going on here" in told.err
    assert len(project.ledger()) == 1


def test_cancel_ends_the_execution_and_run_says_why(spawn: Spawn, worker: Spawn, project: Project) -> None:
    worker()
    waiting = spawn("run", "agent.py:ask", "--input", '"x"', "--id", "a1", "--json")
    until(lambda: position(project, "a1") >= 4, "both steps to be recorded")
    assert spawn("cancel", "a1", "--reason", "too late").end().code == 0
    told = waiting.end()
    assert told.code == 1
    assert told.json()["status"] == "cancelled"
    assert "too late" in told.json()["message"]


def test_a_reader_that_has_enough_is_no_error(spawn: Spawn, project: Project) -> None:
    for number in range(3):
        assert spawn("run", "agent.py:greet", "--input", f'"{number}"').end().code == 0
    line = f"{PERDURE} ls --json | head -n 1"
    told = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], cwd=project.path, capture_output=True, text=True, check=True
    )
    assert told.stdout.count("\n") == 1
    assert told.stderr == ""
