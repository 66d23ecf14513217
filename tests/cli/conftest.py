"""A folder with a user's modules in it, and the command line at work there: in this process, or in real ones."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import perdure
from perdure.cli.app import invoke
from perdure.journal import Recorded, Row

PERDURE = Path(sys.executable).with_name("perdure")
PATIENCE_S = 60

AGENT = '''
import asyncio, os
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
import perdure
from perdure import step, workflow

@dataclass
class Decision:
    approved: bool
    note: str = ""

@step
async def look_up(word: str) -> str:
    with Path("ledger.txt").open("a") as ledger:
        print("look_up", word, os.getpid(), file=ledger)
    return word.upper()

@step
async def hold(word: str) -> str:
    """Goes on when the file is there."""
    Path(f"holding-{word}").touch()
    while not Path(word).exists():
        await asyncio.sleep(0.01)
    return word

@step(retry=perdure.Retry(attempts=3, delay=0.001))
async def unlucky(word: str) -> str:
    raise ConnectionError(f"no answer for {word}")

@workflow
async def greet(name: str, *, times: int = 1) -> list[str]:
    return [await look_up(name) for _ in range(times)]

@workflow
async def typed(day: date, price: Decimal, decision: Decision, raw: bytes = b"") -> list[str]:
    return [type(day).__name__, type(price).__name__, type(decision).__name__, raw.decode(), str(decision.approved)]

@workflow
async def ask(topic: str) -> dict[str, str]:
    found = await asyncio.gather(look_up(topic), look_up(topic + " again"))
    decision = await perdure.receive("approval", Decision)
    return {"found": ", ".join(found), "note": decision.note}

@workflow
async def patient(word: str) -> str:
    first = await look_up(word)
    return first + await hold(word)

@workflow
async def doomed(word: str) -> str:
    return await unlucky(word)

@workflow
async def parent(word: str) -> list[str]:
    return await greet(word)
'''


class Project(NamedTuple):
    """The folder, and what is asked about its store without the command line."""

    path: Path
    store: Path

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text, "utf-8")

    def ledger(self) -> list[str]:
        file = self.path / "ledger.txt"
        return file.read_text("utf-8").splitlines() if file.exists() else []

    def row(self, execution: str) -> Row | None:
        async def look() -> Row:
            async with perdure.Client(str(self.store)) as client:
                handle: perdure.Handle[Any] = client.handle(execution)
                return await handle.describe()

        try:
            return asyncio.run(look())
        except perdure.ExecutionNotFound:
            return None

    def journal(self, execution: str) -> list[Recorded]:
        async def look() -> list[Recorded]:
            async with perdure.Client(str(self.store)) as client:
                handle: perdure.Handle[Any] = client.handle(execution)
                return await handle.journal()

        return asyncio.run(look())


def until(condition: Callable[[], Any], what: str) -> Any:
    """What the condition yields, as soon as it is true."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"in vain waited for: {what}")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """The current directory, with `agent.py` in it; imports and logging are put back afterwards."""
    monkeypatch.chdir(tmp_path)
    for name in ("PERDURE_STORE", "COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before, log = set(sys.modules), logging.getLogger("perdure")
    handlers = list(log.handlers)
    made = Project(tmp_path, tmp_path / "perdure.db")
    made.write("agent.py", AGENT)
    yield made
    log.handlers = handlers
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


class Told(NamedTuple):
    """What one command line printed, and its exit code."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Told]


@pytest.fixture
def cli(project: Project, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line in this process."""

    def call(*arguments: str) -> Told:
        capsys.readouterr()
        code = invoke(list(arguments))
        out, err = capsys.readouterr()
        return Told(code, out, err)

    return call


class Process:
    """A `perdure` of its own."""

    def __init__(self, project: Project, *arguments: str) -> None:
        self.errors = project.path / f"stderr-{time.monotonic_ns()}"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [PERDURE, *arguments], cwd=project.path, stdout=subprocess.PIPE, stderr=errors, text=True
            )

    def err(self) -> str:
        return self.errors.read_text("utf-8")

    def until_it_says(self, text: str) -> None:
        until(lambda: text in self.err() or self.process.poll() is not None, text)
        assert text in self.err()

    def kill(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> Told:
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        return Told(self.process.returncode, out, self.err())


Spawn = Callable[..., Process]


@pytest.fixture
def spawn(project: Project) -> Iterator[Spawn]:
    """Real processes, ended with the test."""
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        started.append(Process(project, *arguments))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


@pytest.fixture
def worker(spawn: Spawn) -> Spawn:
    """A worker that serves already."""

    def start(*arguments: str) -> Process:
        started = spawn("worker", *(arguments or ("agent.py",)))
        started.until_it_says("Serving ")
        return started

    return start
