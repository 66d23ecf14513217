"""Crash at every commit: run a scenario in a process of its own, kill it there, let another go on, check what holds.

Exhaustive instead of lucky: the first store call is the last one of the first process, then the second, and so on,
before it is written and after. What a workflow does to the world outside its journal shows in the invariant.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Literal, NamedTuple, TypeAlias

from perdure.core.errors import EngineMisused, InvalidOption
from perdure.core.retry import Seconds, to_ms
from perdure.runtime.engine import Engine
from perdure.store.sqlite import SqliteStore
from perdure.workflow.definitions import Workflow

Moment: TypeAlias = Literal["before", "after"]
Scenario: TypeAlias = Callable[[Engine], Awaitable[Any]]
Invariant: TypeAlias = Callable[[Path], None]

MOMENTS: tuple[Moment, ...] = ("before", "after")
MOST_CALLS = 1_000
MOST_ANSWER_BYTES = 60_000  # a pipe takes them at once


class Finding(NamedTuple):
    """A crash after which something did not hold."""

    crash: str
    problem: str


class Exploration(NamedTuple):
    """What `explore_crashes` did."""

    crashes: int
    findings: list[Finding]


class CrashesFound(AssertionError):
    """Some crashes broke the invariant; the message lists them."""


def explore_crashes(
    scenario: Scenario,
    *,
    check: Invariant | None = None,
    timeout: Seconds = 60.0,
    jobs: int | None = None,
    moments: Sequence[Moment] = MOMENTS,
) -> Exploration:
    """Kill a scenario at every store call, go on in a fresh process, and check what must hold at the end.

    Each crash has a folder of its own: it is the working directory of the steps, and what `check` is given. The
    scenario is run again by the second process, so its starts and signals need ids of their own, as after a real crash.

    Args:
        scenario: a module-level `async def` that is given an engine: start, signal, await; it may assert.
        check: looks at the folder afterwards, and raises AssertionError if something does not hold.
        timeout: of one process, in seconds or as timedelta.
        jobs: processes at once; by default one for each core.
        moments: kill before the write, after it, or both.

    Returns:
        How many crashes were tried; `findings` is empty.

    Raises:
        CrashesFound: something did not hold after some crash, or without any.
        InvalidOption: the scenario is no module-level function.

    Example:
        async def pays(engine):
            handle = await engine.start(pay, "ada", 100, id="pay-1")
            await handle.result()

        def one_charge(folder):
            assert (folder / "charges").read_text().count("ada") == 1

        def test_a_payment_survives_every_crash():
            explore_crashes(pays, check=one_charge)
    """
    place, timeout_s = _place(scenario), to_ms(timeout, "timeout") / 1000
    with ExitStack() as stack:
        nurseries = [_Nursery(place, timeout_s) for _ in range(jobs or os.cpu_count() or 1)]
        for nursery in nurseries:
            stack.callback(nursery.close)
        crashes, findings = _explore(_Explorer(nurseries, check), len(nurseries), moments)
    if findings:
        told = "\n".join(f"  {each.crash}: {each.problem}" for each in findings[:20])
        raise CrashesFound(f"{len(findings)} of {max(crashes, 1)} runs broke what must hold:\n{told}")
    return Exploration(crashes, findings)


def _explore(explorer: _Explorer, jobs: int, moments: Sequence[Moment]) -> tuple[int, list[Finding]]:
    whole = explorer.without_crash()
    if whole is not None:
        return 0, [whole]
    wanted = [(call, moment) for call in range(1, explorer.calls + 1) for moment in moments]
    with ThreadPoolExecutor(jobs) as pool:
        return len(wanted), [each for each in pool.map(explorer.with_crash, wanted) if each is not None]


def _place(scenario: Scenario) -> tuple[str, str, str]:
    """Module, file and name of the scenario, for another process to find it."""
    name = getattr(scenario, "__qualname__", "<locals>")
    if not isinstance(scenario, FunctionType) or not inspect.iscoroutinefunction(scenario) or "<locals>" in name:
        raise InvalidOption(option="scenario", value=repr(scenario), expected="a module-level `async def`")
    return scenario.__module__, inspect.getfile(scenario), name


class _Explorer:
    """Runs the scenario in processes, as many at once as there are nurseries."""

    def __init__(self, nurseries: Sequence[_Nursery], check: Invariant | None) -> None:
        self.check = check
        self.calls = 0
        self._free: queue.SimpleQueue[_Nursery] = queue.SimpleQueue()
        for nursery in nurseries:
            self._free.put(nursery)

    def without_crash(self) -> Finding | None:
        """Also counts the store's calls."""
        with tempfile.TemporaryDirectory() as folder:
            problem, self.calls = self._run(folder)
            if self.calls > MOST_CALLS:
                raise InvalidOption(
                    option="scenario", value=f"{self.calls} store calls", expected=f"at most {MOST_CALLS} of them"
                )
            return self._checked("without a crash", folder, problem)

    def with_crash(self, wanted: tuple[int, Moment]) -> Finding | None:
        """Die at that call, go on, check."""
        call, moment = wanted
        with tempfile.TemporaryDirectory() as folder:
            problem, _ = self._run(folder, call, moment)
            problem = problem or self._run(folder)[0]
            return self._checked(f"killed {moment} write {call}", folder, problem)

    def _checked(self, name: str, folder: str, problem: str) -> Finding | None:
        if problem:
            return Finding(name, problem)
        try:
            if self.check is not None:
                self.check(Path(folder))
        except AssertionError as error:
            return Finding(name, f"{error}".strip() or "the check failed")
        return None

    def _run(self, folder: str, call: int = 0, moment: Moment = "before") -> tuple[str, int]:
        nursery = self._free.get()
        try:
            return nursery.run(folder, call, moment)
        finally:
            self._free.put(nursery)


class _Nursery:
    """A process that has imported the scenario and nothing more; each run is a fork of it, as fresh as it can be."""

    def __init__(self, place: tuple[str, str, str], timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._process = subprocess.Popen(  # noqa: S603 - this very interpreter and module
            [sys.executable, "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._ask({"place": place, "path": sys.path})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise EngineMisused(
                what="The scenario's module cannot be imported in another process",
                fix="Its own message is above, on standard error.",
            )
        found: dict[str, Any] = json.loads(answer)
        return found

    def run(self, folder: str, call: int, moment: Moment) -> tuple[str, int]:
        """What went wrong, if anything, and how many store calls there were."""
        told = self._ask({"folder": folder, "call": call, "moment": moment, "timeout_s": self._timeout_s})
        if told["signal"] == signal.SIGKILL and call:
            return "", 0
        if told["signal"] == signal.SIGALRM:
            return f"it did not end within {self._timeout_s:g} s", 0
        if told["problem"] or told["signal"]:
            return told["problem"] or f"it died of signal {told['signal']}", 0
        return "", told["calls"]

    def close(self) -> None:
        """End."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


# --- in the other process --------------------------------------------------------------------------------------------


class _Dying(SqliteStore):
    """Counts the writes; dies at one of them."""

    calls = 0
    call = 0
    moment: Moment = "before"

    def commit(self, *args: Any, **kwargs: Any) -> Any:
        """See `Store.commit`."""
        with self._perilous():
            return super().commit(*args, **kwargs)

    def deposit(self, *args: Any, **kwargs: Any) -> Any:
        """See `Store.deposit`."""
        with self._perilous():
            return super().deposit(*args, **kwargs)

    @contextmanager
    def _perilous(self) -> Iterator[None]:
        self.calls += 1
        due = self.calls == self.call
        if due and self.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        yield
        if due:
            os.kill(os.getpid(), signal.SIGKILL)


def _module(name: str, file: str) -> ModuleType:
    """The scenario's module: by name where that is its file, else from the file."""
    with suppress(ImportError, ValueError):
        found = None if name == "__main__" else importlib.util.find_spec(name)
        if found is not None and found.origin is not None and Path(found.origin) == Path(file):
            return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name if name != "__main__" else "__mp_main__", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _play(scenario: Scenario, workflows: Sequence[Workflow[..., Any]], request: dict[str, Any]) -> dict[str, Any]:
    """Run it in this folder; what a user would see of an error, in one line."""
    store = _Dying("perdure.db")
    store.call, store.moment = request["call"], request["moment"]

    async def whole() -> None:
        async with Engine(store, workflows=workflows) as engine:
            await scenario(engine)

    problem = ""
    try:
        asyncio.run(whole())
    except Exception as error:  # noqa: BLE001 - whatever it raises is what it found
        problem = f"{type(error).__name__}: {error}"
    store.close()
    return {"problem": problem, "calls": store.calls}


def _fork(scenario: Scenario, workflows: Sequence[Workflow[..., Any]], request: dict[str, Any]) -> dict[str, Any]:
    """Play it in a child; how the child ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.chdir(request["folder"])
        os.dup2(os.open("output", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)  # what it prints is no answer
        signal.alarm(math.ceil(request["timeout_s"]))
        answer = _play(scenario, workflows, request)
        os.write(writing, json.dumps(answer).encode()[:MOST_ANSWER_BYTES])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        told = answers.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"signal": os.WTERMSIG(status), "problem": "", "calls": 0}
    found: dict[str, Any] = json.loads(told) if told else {"problem": "it ended without a word", "calls": 0}
    return found | {"signal": 0}


def main() -> None:
    """The nursery: import what the first line names, then play it once for each further line."""
    first = json.loads(sys.stdin.readline())
    sys.path[:] = first["path"]
    name, file, qualname = first["place"]
    module = _module(name, file)
    scenario: Any = module
    for part in qualname.split("."):
        scenario = getattr(scenario, part)
    workflows = [each for each in vars(module).values() if isinstance(each, Workflow)]
    _answer({})
    for line in sys.stdin:
        _answer(_fork(scenario, workflows, json.loads(line)))


def _answer(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
