"""The pictures of the documentation, from real runs in a real terminal: `make pictures`, or with names for some.

Each command runs in tmux, in a terminal of its own size; what is on its screen then becomes an SVG. `demo` is recorded
in a pseudo-terminal as an asciicast, and its last screen drawn. Needs tmux, and the development environment.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import fcntl
import json
import os
import pty
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
PATIENCE_S = 60
LOOK_S = 0.1
ROWS = 60

AGENT = """\
import asyncio

import perdure
from perdure import Retry, step, workflow

tried = 0


@step(retry=Retry(attempts=5, delay=0.2, jitter=0))
async def search(query: str) -> str:
    global tried
    await asyncio.sleep(0.2 + len(query) % 3 * 0.2)
    tried += 1
    if tried == 2:
        raise ConnectionError("the search engine is busy")
    return f"12 pages on {query}"


@step
async def ask_model(prompt: str) -> str:
    await asyncio.sleep(0.4)
    perdure.current_step().spent(input_tokens=len(prompt) * 8, output_tokens=60)
    return "Durable execution lets a program outlive its process."


@workflow
async def research(topic: str) -> str:
    found = await asyncio.gather(*[search(f"{topic}, {part}") for part in ("history", "how", "costs")])
    draft = await ask_model(f"Write about {topic}: {found}")
    await asyncio.sleep(1)
    if not await perdure.receive("approval", bool):
        return "rejected"
    return draft


@workflow
async def digest(pages: int) -> int:
    for page in range(pages):
        await asyncio.gather(*[ask_model(f"Sum up page {page}, part {part}") for part in range(4)])
    return pages


@workflow
async def broken(path: str) -> str:
    return open(path).read()
"""


class Scene(NamedTuple):
    """A picture: what is shown, and in how wide a terminal."""

    name: str
    command: str
    columns: int = 80
    live: bool = False  # it is caught in the act, and does not end by itself


SCENES = [
    Scene("ls", "perdure ls"),
    Scene("show", "perdure show report-1"),
    Scene("show-wide", "perdure show report-1", 160),
    Scene("stalled", "perdure stalled"),
    Scene("slip", "perdure shwo report-1"),
    Scene("top", "perdure top --interval 0.5", live=True),
]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--out", type=Path, default=PICTURES)
    options = parser.parse_args()
    unknown = set(options.names) - {scene.name for scene in SCENES} - {"demo"}
    if unknown:
        parser.error(f"there is no picture {', '.join(sorted(unknown))}")
    wanted = [scene for scene in SCENES if not options.names or scene.name in options.names]
    options.out.mkdir(parents=True, exist_ok=True)
    if wanted:
        with tempfile.TemporaryDirectory() as folder, store(Path(folder)):
            for scene in wanted:
                write(options.out / f"{scene.name}.svg", photograph(scene, Path(folder)), scene.command, scene.columns)
    if "demo" in options.names:
        record(options.out)


# --- a store with something to see ---


def environment() -> dict[str, str]:
    """As a reader's, with the commands of this environment first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERDURE_", "TMUX"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm-256color", "LANG": "C.UTF-8"}


def perdure(folder: Path, *words: str) -> str:
    """What a command prints."""
    done = subprocess.run(
        ["perdure", *words], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    return done.stdout


@contextlib.contextmanager
def store(folder: Path) -> Iterator[None]:
    """A worker that has done some things, and goes on with others."""
    (folder / "agent.py").write_text(AGENT, "utf-8")
    first = serving(folder)
    runs = [spawn(folder, "run", "agent.py:research", "--input", json.dumps("tides"), "--id", "report-1")]
    until(folder, "report-1", "parked")
    first.kill()  # as power failures do
    first.wait()
    worker = serving(folder)
    starts = {"report-2": ("research", "bees"), "digest-7": ("digest", 500), "import-3": ("broken", "prices.csv")}
    for execution, (workflow, given) in starts.items():
        runs.append(spawn(folder, "run", f"agent.py:{workflow}", "--input", json.dumps(given), "--id", execution))
    until(folder, "import-3", "stalled")
    until(folder, "report-2", "parked")
    perdure(folder, "signal", "report-1", "approval", "true")
    until(folder, "report-1", "completed")
    try:
        yield
    finally:
        for process in (*runs, worker):
            process.kill()
            process.wait()


def spawn(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """A command that goes on."""
    with (folder / f"{words[0]}.log").open("ab") as log:
        return subprocess.Popen(["perdure", *words], cwd=folder, env=environment(), stdout=log, stderr=log)


def serving(folder: Path) -> subprocess.Popen[bytes]:
    """A worker that has begun to work."""
    log, before = folder / "worker.log", time.monotonic()
    said = log.read_text("utf-8").count("Serving") if log.exists() else 0
    worker = spawn(folder, "worker", "agent.py")
    while log.read_text("utf-8").count("Serving") == said:
        if worker.poll() is not None or time.monotonic() > before + PATIENCE_S:
            raise TimeoutError(log.read_text("utf-8"))
        time.sleep(LOOK_S)
    return worker


def until(folder: Path, execution: str, status: str) -> None:
    """Wait for an execution to come that far."""
    before = time.monotonic()
    while f'"status": "{status}"' not in perdure(folder, "show", execution, "--json"):
        if time.monotonic() > before + PATIENCE_S:
            raise TimeoutError(f"{execution} does not become {status}")
        time.sleep(LOOK_S)


# --- a terminal ---


class Terminal:
    """A tmux of its own, with one pane."""

    def __init__(self, columns: int, rows: int, folder: Path, command: str) -> None:
        self._socket = f"perdure-{os.getpid()}-{time.monotonic_ns()}"
        self._tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), "-c", str(folder), command
        )

    def _tmux(self, *words: str) -> str:
        line = ["tmux", "-L", self._socket, *words]
        done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        return done.stdout

    def wait(self, event: str) -> None:
        """Until the command says so."""
        self._tmux("wait-for", event)

    def screen(self) -> str:
        """What is on it, with its colours."""
        return self._tmux("capture-pane", "-e", "-p", "-S", "-").rstrip().replace(socket.gethostname(), "host")

    def close(self) -> None:
        """End it, and what runs in it."""
        self._tmux("kill-server")


def photograph(scene: Scene, folder: Path) -> str:
    """The screen of a terminal in which the scene's command was typed."""
    script = f"printf '\\033[2m$\\033[0m %s\\n' {shlex.quote(scene.command)}; {scene.command}"
    script += "; tmux wait-for -S done; sleep 60" if not scene.live else ""
    terminal = Terminal(scene.columns, ROWS, folder, f"bash -c {shlex.quote(script)}")
    try:
        if scene.live:
            time.sleep(6)  # long enough for a few bars
        else:
            terminal.wait("done")
        return terminal.screen()
    finally:
        terminal.close()


# --- drawing ---


def write(file: Path, screen: str, title: str, columns: int) -> None:
    """The screen as an SVG that fetches nothing."""
    console = Console(record=True, width=columns, file=Path(os.devnull).open("w"), force_terminal=True)  # noqa: SIM115
    for line in screen.splitlines():
        console.print(Text.from_ansi(line), no_wrap=True, overflow="crop", soft_wrap=True)
    svg = console.export_svg(title=title, unique_id=file.stem)
    svg = re.sub(r"\s*@font-face \{.*?\n\s*\}", "", svg, flags=re.DOTALL)
    file.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", "utf-8")
    print(file.name, f"{columns} columns, {len(screen.splitlines())} lines")


# --- the demo ---


def record(out: Path, columns: int = 100, rows: int = 50) -> None:
    """Record `make demo`, and draw how it ends."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    env = environment() | {"COLUMNS": str(columns), "LINES": str(rows)}
    running = subprocess.Popen(["make", "-s", "demo"], cwd=ROOT, env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    signal.signal(signal.SIGINT, lambda *_: running.send_signal(signal.SIGINT))
    cast = out / "demo.cast"
    head = {"version": 2, "width": columns, "height": rows, "title": "make demo", "env": {"TERM": "xterm-256color"}}
    began, whole = time.monotonic(), ""
    with cast.open("w", encoding="utf-8") as file:
        print(json.dumps(head), file=file)
        for part in read(master):
            print(json.dumps([round(time.monotonic() - began, 3), "o", part]), file=file)
            whole += part
    os.close(master)
    if running.wait():
        raise SystemExit(f"the demo failed: see {cast}")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as played:
        played.write(whole)
        played.flush()
        done = f"cat {shlex.quote(played.name)}; tmux wait-for -S done; sleep 60"
        terminal = Terminal(columns, rows, ROOT, f"bash -c {shlex.quote(done)}")
        try:
            terminal.wait("done")
            write(out / "demo.svg", f"\033[2m$\033[0m make demo\n{terminal.screen()}", "make demo", columns)
        finally:
            terminal.close()


def read(master: int) -> Iterator[str]:
    """What comes from the other end, until that is closed; whole characters only."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while True:
        try:
            data = os.read(master, 65_536)
        except OSError:
            return
        if not data:
            return
        yield decoder.decode(data)


if __name__ == "__main__":
    main()
