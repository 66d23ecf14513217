"""The core touches nothing: what it may load, and that it runs with the world taken away."""

from __future__ import annotations

import builtins
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from perdure.core import events as ev
from perdure.core.commands import CloseRun, RunStep, StartTimer
from perdure.core.errors import NondeterminismError
from perdure.core.format import FORMAT, decode_event, encode_event
from perdure.core.identity import derived_id, noise
from perdure.core.machine import Machine
from perdure.core.retry import Retry

CORE = Path(__file__).parents[2] / "src" / "perdure" / "core"

# Of the standard library; what msgspec and these load themselves is theirs.
ALLOWED = "__future__ collections collections.abc dataclasses datetime enum functools hashlib heapq math types typing"


def test_core_loads_only_what_is_allowed() -> None:
    """Seen from a fresh interpreter: every module that importing the core adds."""
    program = """
import importlib, sys
for name in sys.argv[2].split(): importlib.import_module(name)
import msgspec
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
import types
package = types.ModuleType("perdure"); package.__path__ = [sys.argv[1]]; sys.modules["perdure"] = package
for name in sys.argv[3].split(): importlib.import_module(f"perdure.core.{name}")
print(*sorted(set(sys.modules) - before - {"perdure"}))
"""
    paths = [path.relative_to(CORE).with_suffix("") for path in CORE.rglob("*.py")]
    modules = sorted({".".join(path.parts).removesuffix("__init__").rstrip(".") for path in paths} - {""})
    done = subprocess.run(
        [sys.executable, "-c", program, str(CORE.parent), ALLOWED, " ".join(modules)],
        capture_output=True,
        text=True,
        check=True,
    )
    added = done.stdout.split()
    assert {name for name in added if not name.startswith("perdure.core")} == set()
    assert len(added) == len(modules) + 1


def test_the_machine_runs_with_the_world_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """No clock, no chance, no network, no files, no threads: a pure function of commands and events."""

    def taken(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("core touched the world")

    world = [
        *((time, name) for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "sleep")),
        *((random, name) for name in ("random", "randint", "choice", "getrandbits", "seed")),
        *((os, name) for name in ("urandom", "open", "getpid", "stat", "listdir")),
        (socket, "socket"),
        (threading.Thread, "start"),
        (builtins, "open"),
        (builtins, "print"),
    ]
    for place, name in world:
        monkeypatch.setattr(place, name, taken)
    nothing = ev.Payload(b"\xc0")
    machine = Machine("code")
    events: list[ev.AnyEvent] = [
        ev.ExecutionStarted(workflow="w", run="r", input=nothing),
        ev.ExecutionClaimed(),
        ev.StepAttemptFailed(seq=1, name="a"),
        ev.StepCompleted(seq=1, name="a"),
        ev.SignalReceived("m", "go", nothing),
        ev.TimerFired(2),
        ev.ExecutionCompleted(nothing),
    ]
    for position, event in enumerate(events):
        body = encode_event(event)
        machine.feed(ev.Recorded(position, position, decode_event(body, FORMAT), fingerprint="code"))
        if position == 1:
            machine.issue(RunStep(name="a", input=nothing, digest=b"", target=None, options=None))
            machine.issue(StartTimer(due_ms=1))
            machine.issue(CloseRun(result=nothing))
        machine.take()
        machine.due_timers(10)
    broken = Machine()
    broken.feed(ev.Recorded(0, 0, events[0]))
    broken.feed(ev.Recorded(1, 0, events[1]))
    with pytest.raises(NondeterminismError):
        broken.feed(ev.Recorded(2, 0, events[2]))
    assert derived_id("step", "x", "r", 1)
    assert 0 <= noise("r", 1, 1) < 1
    assert Retry().pause_ms(1, ValueError(), 0.5)
    monkeypatch.undo()
