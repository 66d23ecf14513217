"""Ctrl-C on a script that calls `perdure.run`: a short end that says how to go on. Real signals, real processes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import perdure

SCRIPT = """
import asyncio, sys
from pathlib import Path
import perdure
from perdure import step, workflow

@step
async def count() -> None:
    with Path("count").open("a") as file:
        file.write("x")

@step
async def hold() -> str:
    Path("holding").touch()
    while not Path("let go").exists():
        await asyncio.sleep(0.01)
    return "held"

@step
async def fall_asleep() -> None:
    Path("asleep").touch()

@workflow
async def counted_then_held() -> str:
    await count()
    return await hold()

@workflow
async def counted_then_asleep() -> None:
    await count()
    await fall_asleep()
    await asyncio.sleep(3600)

if __name__ == "__main__":
    print(perdure.run(globals()[sys.argv[1]], id=sys.argv[2] if sys.argv[2:] else None))
"""

Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def spawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spawn]:
    """The script in processes of its own, ended with the test."""
    monkeypatch.delenv("PERDURE_STORE", raising=False)
    (tmp_path / "script.py").write_text(SCRIPT, "utf-8")
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        line = [sys.executable, "script.py", *arguments]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(line, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for each in started:
        if each.poll() is None:
            each.kill()
        each.communicate()


def until_there(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, f"in vain waited for {path.name}"
        time.sleep(0.01)


def assert_short(err: str, execution: str) -> None:
    """What a person sees: the line that was interrupted, our function, and how to go on."""
    assert err.splitlines()[-1] == (
        f"KeyboardInterrupt: stopped; nothing recorded is lost: the same call with id={execution!r} goes on"
    )
    assert [Path(name).name for name in re.findall(r'File "([^"]+)"', err)] == ["script.py", "entry.py"]
    assert "During handling" not in err


async def test_ctrl_c_ends_run_with_a_short_message_that_names_the_id(spawn: Spawn, tmp_path: Path) -> None:
    first = spawn("counted_then_asleep")
    until_there(tmp_path / "asleep")
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=20)
    async with perdure.Client(tmp_path / "perdure.db") as client:
        [row] = await client.list()
    assert_short(err, row.key.execution)
    assert (first.returncode, out) == (-signal.SIGINT, "")
    assert row.status in {"active", "parked"}


def test_ctrl_c_lets_a_running_step_finish_and_says_that_it_waits(spawn: Spawn, tmp_path: Path) -> None:
    first = spawn("counted_then_held", "h")
    until_there(tmp_path / "holding")
    first.send_signal(signal.SIGINT)
    assert first.stderr is not None
    assert first.stderr.readline().startswith("stopping: 1 running step(s) may finish, within 10 s")
    (tmp_path / "let go").touch()
    assert_short(first.communicate(timeout=20)[1], "h")

    (tmp_path / "holding").unlink()
    second = spawn("counted_then_held", "h")
    assert second.communicate(timeout=20) == ("held\n", "")
    assert not (tmp_path / "holding").exists(), "what finished was recorded"


def test_a_second_ctrl_c_does_not_wait_for_the_running_step(spawn: Spawn, tmp_path: Path) -> None:
    first = spawn("counted_then_held", "h")
    until_there(tmp_path / "holding")
    first.send_signal(signal.SIGINT)
    assert first.stderr is not None
    first.stderr.readline()
    first.send_signal(signal.SIGINT)
    assert_short(first.communicate(timeout=5)[1], "h")
    (tmp_path / "let go").touch()
    assert spawn("counted_then_held", "h").communicate(timeout=20) == ("held\n", "")
    assert (tmp_path / "count").read_text() == "x"
