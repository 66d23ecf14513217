"""The demo's processes: a model that lives through everything, and workers that do not.

Each ends when its standard input closes, which the system does even if the demo itself is killed: nothing is left over.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from examples.research import model, model_server, witness
from examples.research.model import Endpoint

READY_TIMEOUT = 90.0
STOP_TIMEOUT = 5.0


def spawn(module: str, arguments: list[str], *, log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a module of these examples as a process; what it says on standard error goes to the log."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            env={**os.environ, **environment},
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Let a process end by closing its input; by force where that is not enough."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


def tail(log: Path, lines: int = 12) -> str:
    """The end of a log, for error messages."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


@dataclass
class Model:
    """Where the demo's model answers; `why` says why it is not a real one, if it is not."""

    endpoint: Endpoint
    kind: str
    why: str = ""
    process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process)


def start_model(folder: Path, url: str | None, *, scripted: bool) -> Model:
    """The model to use: the one that is named, else a local one, else a script.

    Raises:
        ModelBusy, ModelRefused: no model answers at the endpoint that was named.
    """
    named = Endpoint.from_environment({**os.environ, **({"PERDURE_MODEL_URL": url} if url else {})})
    if named is not None and not scripted:
        return Model(with_model(named), f"at {named.url}")
    why = "as you asked"
    if not scripted:
        try:
            model_server.model_file()
            endpoint, process = start_server(folder, [])
            return Model(endpoint, "on this machine, with llama.cpp", process=process)
        except (ModuleNotFoundError, RuntimeError) as error:
            why = str(error)
    endpoint, process = start_server(folder, ["--scripted"])
    return Model(endpoint, "a script in the place of a model", why, process)


def with_model(endpoint: Endpoint) -> Endpoint:
    """The endpoint with its first model, where the user named none; the question also shows that it answers."""
    names = model.models(endpoint)
    if endpoint.model == "default" and names:
        return Endpoint(endpoint.url, names[0], endpoint.key)
    return endpoint


def start_server(folder: Path, arguments: list[str]) -> tuple[Endpoint, subprocess.Popen[bytes]]:
    """Start a model server and wait until it answers.

    Raises:
        RuntimeError: it ended, or said nothing in time.
    """
    log = folder / "model.log"
    process = spawn("examples.research.model_server", arguments, log=log, environment={})
    assert process.stdout is not None
    said = first_line(process.stdout)
    if not said:
        stop(process)
        raise RuntimeError(f"the local model did not start (exit code {process.returncode}; see {log})")
    answer = json.loads(said)
    endpoint = Endpoint(answer["url"], answer["model"])
    model.models(endpoint)
    return endpoint, process


def first_line(stream: IO[bytes]) -> bytes:
    """The first line of a stream; nothing if it ends before, or takes too long."""
    lines: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=lambda: lines.put(stream.readline()), daemon=True).start()
    try:
        return lines.get(timeout=READY_TIMEOUT)
    except queue.Empty:
        return b""


class Worker:
    """The worker's process: the same command each time, killed or not."""

    def __init__(self, folder: Path, topic: str, execution_id: str, environment: dict[str, str]) -> None:
        self.log = folder / "worker.log"
        ledger = {witness.LEDGER: str(folder / "ledger.jsonl"), "PERDURE_STORE": str(folder / "perdure.db")}
        self.began = time.time()
        self._process = spawn(
            "examples.research.worker", [topic, execution_id], log=self.log, environment={**environment, **ledger}
        )
        self.pid = self._process.pid

    def kill(self) -> None:
        """End it as a power cut would: no handler runs, nothing is written any more."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        stop(self._process)

    def stop(self) -> None:
        stop(self._process)

    def exit_code(self) -> int | None:
        """How it ended, if it has."""
        return self._process.poll()


def end_with_parent() -> None:
    """Have this process end as soon as the other end of its standard input does."""
    threading.Thread(target=model_server.wait_for_end_of_input, daemon=True).start()
