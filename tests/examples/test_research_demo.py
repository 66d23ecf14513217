"""The demo as people run it, with the scripted model: killed for real, twice, and nothing recorded is done again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from examples.research import witness

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "examples.research.demo", "--scripted"]


def demo(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *options], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that hold files of the folder open, as worker and model do with their logs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(folder) in str(file.readlink()) for file in (process / "fd").iterdir()):
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_two_kills_repeat_nothing_that_was_recorded_and_the_report_has_its_sources(tmp_path):
    ran = demo("--seed", "11", "--out", str(tmp_path))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(re.findall(r"✗ kill -9: worker \d is dead", ran.stdout)) == 2
    assert re.search(r" 2 +kills", ran.stdout)
    assert re.search(r" 0 +recorded steps repeated", ran.stdout)
    report = (tmp_path / "report.md").read_text()
    assert re.search(r"^1\. `[\w/]+\.py:\d+`: \S+", report, re.MULTILINE)
    assert "Which errors and exceptions does it raise?" in report

    ledger = witness.read(tmp_path / "ledger.jsonl")
    assert len({line.pid for line in ledger}) > 1
    finished = [line.seq for line in ledger if line.what == "finished"]
    cut_short = int(re.search(r"(\d+) +steps cut short", ran.stdout)[1])
    recorded = int(re.search(r"(\d+) +steps recorded", ran.stdout)[1])
    assert recorded == len(set(finished))
    assert sum(line.what == "started" for line in ledger) == recorded + cut_short


@pytest.mark.slow
def test_a_folder_of_text_without_kills_and_with_a_topic_of_ones_own(tmp_path):
    library = tmp_path / "library"
    library.mkdir()
    (library / "bees.md").write_text("# Bees\n\nBees make honey from nectar, and they store it in combs of wax.\n")
    ran = demo("--kills", "0", "--corpus", str(library), "--topic", "honey", "--out", str(tmp_path / "out"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1. `bees.md:3`: bees.md § Bees" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.slow
def test_a_demo_that_is_itself_killed_leaves_no_process_behind(tmp_path):
    with subprocess.Popen([*COMMAND, "--out", str(tmp_path)], cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        ledger = tmp_path / "ledger.jsonl"
        deadline = time.monotonic() + 60
        while not ledger.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(processes_of(tmp_path)) == 3 or sys.platform != "linux"
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while processes_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(tmp_path) == []
    assert json.loads(ledger.read_text().splitlines()[0])["what"] == "started"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corpus", "no-such-folder"], "must be a folder of text"),
        (["--model", "http://127.0.0.1:9"], "No answer from http://127.0.0.1:9/v1"),
        (["--model", "nonsense"], "begins with http:// or https://"),
        (["--kills", "99"], "invalid choice"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(tmp_path, options, message):
    command = [part for part in COMMAND if part != "--scripted" or "--model" not in options]
    ran = subprocess.run(
        [*command, *options, "--out", str(tmp_path)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if "MODEL" not in name},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode != 0
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_folder_that_holds_an_earlier_run_is_not_written_over(tmp_path):
    (tmp_path / "perdure.db").touch()
    ran = demo("--out", str(tmp_path))
    assert ran.returncode != 0
    assert "holds an earlier run" in ran.stderr
