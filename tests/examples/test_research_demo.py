"""The demo as people run it, with the scripted model: killed for real, twice, and nothing recorded is done again."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from examples.research import prompts, witness

import perdure
from perdure.journal import Recorded

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


class GoodModel(BaseHTTPRequestHandler):
    """An OpenAI-compatible endpoint whose model writes well."""

    prompts: ClassVar[list[tuple[str, int]]] = []
    PARAGRAPHS = "Bees are keepers of sugar.\n\nThey dry what they bring, and seal it.\n\nWax is what they build with."

    def do_GET(self) -> None:
        self.answer({"object": "list", "data": [{"id": "good-1"}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = asked["messages"][-1]["content"]
        self.prompts.append((text, asked["max_tokens"]))
        said = self.PARAGRAPHS if "Summarize" in text else "Sweet stores of the hive, told anew."
        self.answer(
            {"choices": [{"message": {"content": said}}], "usage": {"prompt_tokens": 50, "completion_tokens": 9}}
        )

    def answer(self, told: object) -> None:
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.mark.slow
def test_a_good_model_gets_room_is_believed_and_survives_three_kills(tmp_path):
    library = tmp_path / "library"
    library.mkdir()
    for name in ("honey", "wax", "nectar", "combs"):
        (library / f"{name}.md").write_text(
            f"# {name}\n\nBees make {name} for the hive, and they store it for winter.\n"
        )
    with ThreadingHTTPServer(("127.0.0.1", 0), GoodModel) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        options = ["--model", url, "--corpus", str(library), "--topic", "bees and honey", "--kills", "3"]
        command = [part for part in COMMAND if part != "--scripted"]
        ran = subprocess.run(
            [*command, *options, "--out", str(tmp_path / "out")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        server.shutdown()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(re.findall(r"✗ kill -9: worker \d is dead", ran.stdout)) == 3
    assert re.search(r" 0 +recorded steps repeated", ran.stdout)
    report = (tmp_path / "out" / "report.md").read_text()
    assert report.startswith(f"# Bees and honey\n\n{GoodModel.PARAGRAPHS}\n")
    assert "Sweet stores of the hive, told anew." in report
    assert "good-1" in report
    assert max(limit for _, limit in GoodModel.prompts) == prompts.LONG.summary_tokens
    journal = asyncio.run(journal_of(tmp_path / "out" / "perdure.db"))
    spent = [each.usage.input_tokens for each in journal if each.usage is not None]
    assert len(spent) > 4
    assert set(spent) == {50}


async def journal_of(store: Path) -> list[Recorded]:
    async with perdure.Client(str(store)) as client:
        handle: perdure.Handle[object] = client.handle("report-1")
        return await handle.journal()


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
