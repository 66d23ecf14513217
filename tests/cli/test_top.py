"""`perdure top`: beside a worker, without one, in pipes, as JSON and in a terminal."""

from __future__ import annotations

import io
import re
import signal
import sys

import pytest
from rich.console import Console
from tests.cli.conftest import Cli, Project, Spawn, until
from tests.cli.terminal import in_a_terminal

import perdure
from perdure.cli.top_view import Reading, line, lines

PAGE_FIELDS = {"at_ms", "executions", "worker", "per_second", "total", "commit_ms", "in_memory", "running", "queues"}


def test_without_a_worker_it_counts_executions_and_says_that_none_runs(cli: Cli) -> None:
    cli("run", "agent.py:greet", "--input", '"x"')
    cli("run", "agent.py:doomed", "--input", '"x"')
    assert cli("top", "--once", "--interval", "0.1").out == "1 completed, 1 failed; no worker runs\n"
    told = cli("top", "--count", "2", "--interval", "0.1", "--json").lines()
    assert [each["executions"] for each in told] == [{"completed": 1, "failed": 1}] * 2
    assert [each["worker"] for each in told] == [None, None]


@pytest.mark.slow
def test_beside_a_worker_it_tells_what_that_does_and_has_done(
    project: Project, cli: Cli, worker: Spawn, spawn: Spawn
) -> None:
    started = worker()
    assert spawn("run", "agent.py:greet", "--input", '{"name": "ada", "times": 30}').end().code == 0
    spawn("run", "agent.py:patient", "--input", '"w"')
    until((project.path / "holding-w").exists, "the step to run")
    told = cli("top", "--once", "--interval", "0.1", "--json").json()
    assert set(told) == PAGE_FIELDS
    assert told["executions"] == {"active": 1, "completed": 1}
    assert told["total"]["steps"] == 31
    assert told["total"]["commits"] > 0
    assert told["running"] == 1
    assert told["queues"] == {"steps": 0, "commits": 0, "loading": 0, "starts": 0}
    assert told["worker"]["name"].endswith(f":{started.process.pid}")
    assert told["worker"]["uptime_ms"] > 0
    plain = cli("top", "--once", "--interval", "0.1").out
    assert re.match(r"1 active, 1 completed; 0 steps/s; 1 running; 0 commits/s \(none lately\); waiting: 0", plain)


@pytest.mark.slow
def test_it_is_drawn_in_place_in_a_terminal(project: Project, cli: Cli, worker: Spawn) -> None:
    worker()
    drawn = in_a_terminal(project, sys.executable, "-m", "perdure", "top", "--count", "3", "--interval", "0.1")
    assert drawn.count("executions") >= 3
    assert "\x1b[1A" in drawn, "the cursor goes up"
    assert "up " in drawn


@pytest.mark.slow
def test_ctrl_c_ends_it_without_a_complaint(project: Project, cli: Cli, spawn: Spawn) -> None:
    cli("run", "agent.py:greet", "--input", '"x"')
    started = spawn("top", "--interval", "0.1")
    assert started.process.stdout is not None
    started.process.stdout.readline()
    started.kill(signal.SIGINT)
    told = started.end()
    assert (told.code, told.err) == (0, "")


def reading(**figures: int) -> Reading:
    now = perdure.Figures(worker="host:1", uptime_ms=60_000, latencies=(0,) * 40 + (90,) + (0,) * 10 + (10,), **figures)
    then = perdure.Figures(worker="host:1", uptime_ms=58_000)
    return Reading("perdure.db", 0, {"active": 3, "stalled": 1}, now, now.since(then))


def test_rates_are_per_second_of_the_engines_own_clock() -> None:
    told = line(reading(steps=500, commits=100, input_tokens=4_000, output_tokens=400, running=7, waiting=2))
    assert told == (
        "3 active, 1 stalled; 250 steps/s; 7 running; 50 commits/s (p50 2.56 ms, p99 16.4 ms); "
        "waiting: 2 steps, 0 commits, 0 loading, 0 starts; 2200 tokens/s"
    )


@pytest.mark.parametrize("width", [40, 80, 160])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    out = Console(width=width)
    told = lines(reading(steps=10**9, commits=10**9, cost_micros=1_500_000, resting=10**9), [1.0, 2.0] * 200, out)
    assert max(len(each) for each in told) <= width
    assert any("1.50 spent" in each.plain for each in told) or width == 40
    assert len(told) < 16


def test_rates_are_drawn_as_bars_the_newest_at_the_right() -> None:
    class Old(io.StringIO):
        encoding = "ascii"

    out = Console(file=io.StringIO(), width=80)
    assert lines(reading(), [0.0, 5.0, 10.0], out)[-1].plain.strip() == "▁▅█"
    assert lines(reading(), [*[9.0] * 200, 0.0], out)[-1].plain.strip() == "█" * 66 + "▁"
    assert "executions  > 3 active" in lines(reading(), [1.0], Console(file=Old(), width=80))[1].plain
