"""Guards: workflow code gets the run's time and chance, or a refusal with its line; everybody else the real thing."""

# What these rules warn of is what is tested here, looked up in its module at the call:
# ruff: noqa: ASYNC230, ASYNC251, FBT001, FBT003, PLW0108, PTH123, S605, SIM115, TRY301, UP020

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import http.client
import importlib
import inspect
import io
import logging
import multiprocessing
import os
import pickle
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.workflow.harness import EPOCH_MS, Run, drive, echo, explore, fails, log, replay, replays_alike, signals

from perdure.core import events as ev
from perdure.core.errors import NotDeterministic, PerdureError
from perdure.workflow import context, guards, messages
from perdure.workflow.definitions import step, workflow
from perdure.workflow.loop import DeterministicLoop
from perdure.workflow.values import codec_for

FUTURE = next(n for n, line in enumerate(Path(__file__).read_text("utf-8").splitlines(), 1) if "__future__" in line)
YEAR_MS = 365 * 24 * 3_600_000
EARLIEST = EPOCH_MS / 1000


@pytest.fixture
def unguarded() -> Iterator[None]:
    """The real functions, and the guards again afterwards."""
    guards.uninstall()
    yield
    guards.install()


def read(name: str, *args: Any) -> Any:
    """As a workflow writes it: through the module, looked up at the call."""
    module, _, function = name.rpartition(".")
    return getattr(sys.modules[module], function)(*args)


# --- logical values --------------------------------------------------------------------------------------------------

NOW_S = ["time.time", "time.monotonic", "time.perf_counter"]
NOW_NS = [f"{name}_ns" for name in NOW_S]
NOW_IN_WORDS = ["time.localtime", "time.gmtime", "time.ctime", "time.asctime"]
CHANCE: dict[str, tuple[Any, ...]] = {
    "random.betavariate": (1, 2),
    "random.binomialvariate": (10, 0.5),
    "random.choice": ([1, 2, 3, 4, 5],),
    "random.choices": ([1, 2, 3, 4, 5],),
    "random.expovariate": (1.0,),
    "random.gammavariate": (1, 2),
    "random.gauss": (0, 1),
    "random.getrandbits": (64,),
    "random.getstate": (),
    "random.lognormvariate": (0, 1),
    "random.normalvariate": (0, 1),
    "random.paretovariate": (1,),
    "random.randbytes": (8,),
    "random.randint": (1, 10**9),
    "random.random": (),
    "random.randrange": (10**9,),
    "random.sample": (list(range(1000)), 5),
    "random.triangular": (),
    "random.uniform": (0, 1),
    "random.vonmisesvariate": (0, 1),
    "random.weibullvariate": (1, 2),
    "uuid.uuid1": (),
    "uuid.uuid4": (),
    "uuid.uuid6": (),
    "uuid.uuid7": (),
}
THERE = [name for name in CHANCE if hasattr(sys.modules[name.partition(".")[0]], name.partition(".")[2])]


def test_every_function_of_random_is_guarded_or_a_class() -> None:
    """What a later Python adds to the module must not go unnoticed."""
    functions = {f"random.{name}" for name in random.__all__ if not isinstance(getattr(random, name), type)}
    assert functions <= {*CHANCE, "random.shuffle", "random.seed", "random.setstate"}


@workflow
async def reading(name: str, args: list[Any], branches: int) -> list[str]:
    """Several branches that read the same thing between steps, in whatever order these end."""

    async def branch(number: int) -> str:
        said = []
        for turn in range(3):
            said.append(repr(read(name, *args)))
            log(number, turn, said[-1])
            await echo([number, turn])
        return ",".join(said)

    return await asyncio.gather(*[branch(number) for number in range(branches)])


@pytest.mark.parametrize("name", [*NOW_S, *NOW_NS, *NOW_IN_WORDS, *THERE])
def test_it_answers_alike_on_every_replay_over_interleavings(name: str) -> None:
    runs = explore(reading, name, list(CHANCE.get(name, ())), 3, seeds=12)
    assert all(run.stalled is None for run in runs)
    if name in THERE:  # what is drawn is another thing each time
        assert all(len(set(run.trace)) == len(run.trace) for run in runs)
        assert len({run.trace[0] for run in runs}) == 1  # seeded by the run, which here is the same
    else:
        assert any(len({entry[2] for entry in run.trace}) > 1 for run in runs)  # time passes


def test_clocks_tell_logical_time() -> None:
    @workflow
    async def clocks() -> None:
        for _ in range(4):
            now_ms = round(context.now().timestamp() * 1000)
            assert [read(name) for name in NOW_S] == [now_ms / 1000] * 3
            assert [read(name) for name in NOW_NS] == [now_ms * 1_000_000] * 3
            assert asyncio.get_running_loop().time() == now_ms / 1000
            assert time.localtime() == time.localtime(now_ms / 1000)
            assert time.gmtime() == time.gmtime(now_ms / 1000) != time.gmtime(0)
            assert time.ctime() == time.ctime(now_ms / 1000) == time.asctime()
            assert time.asctime(time.gmtime(0)) == "Thu Jan  1 00:00:00 1970"
            assert time.strftime("%s") == str(now_ms // 1000)
            assert time.strftime("%Y", time.gmtime(0)) == "1970"
            log(now_ms)
            await asyncio.sleep(0.5)

    for run in explore(clocks, seeds=10):
        assert run.outcome[0] == "completed"
        assert [later - sooner >= 500 for (sooner,), (later,) in zip(run.trace, run.trace[1:], strict=False)] == [
            True
        ] * 3


def test_random_is_the_runs_generator() -> None:
    """One stream: what the module's functions draw, and what `perdure.random()` draws."""

    @workflow
    async def mixed() -> list[float]:
        again = random.Random()
        again.setstate(random.getstate())
        drawn = [random.random(), context.random().random(), random.uniform(0, 1), context.random().random()]
        items = list(range(20))
        random.shuffle(items)
        assert drawn == [again.random() for _ in range(4)]
        again.shuffle(expected := list(range(20)))
        assert items == expected
        return drawn

    one, other = drive(mixed, execution_id="x-1"), drive(mixed, execution_id="x-2")
    assert one.value != other.value
    assert drive(mixed, seed=9, execution_id="x-1").value == one.value


def test_ids_stay_unique_whatever_is_done_to_the_generator() -> None:
    @workflow
    async def seeded() -> list[str]:
        ids = []
        for _ in range(3):
            context.random().seed(0)
            ids += [str(uuid.uuid4()), str(context.uuid4()), str(uuid.uuid1())]
            await echo(1)
        return ids

    found = [each for number in range(3) for each in drive(seeded, execution_id=f"x-{number}").value]
    assert len(set(found)) == 27


def test_uuids_are_what_their_versions_say() -> None:
    @workflow
    async def made() -> None:
        now_ms = time.time_ns() // 1_000_000
        one = [uuid.uuid1() for _ in range(300)]
        assert len({each.clock_seq for each in one}) > 200
        assert len(set(one)) == 300
        for each in one:
            assert (each.version, each.variant) == (1, uuid.RFC_4122)
            assert (each.time - guards.GREGORIAN) // 10_000 == now_ms
            assert each.node >> 40 & 1  # multicast: no machine's
        mine = uuid.uuid1(0x0000_DEAD_BEEF, 0x1234)
        assert (mine.node, mine.clock_seq) == (0x0000_DEAD_BEEF, 0x1234)
        four = uuid.uuid4()
        assert (four.version, four.variant) == (4, uuid.RFC_4122)

    assert drive(made, evict=0).outcome[0] == "completed"


def test_uuids_of_later_pythons_are_laid_out_as_the_rfc_has_them() -> None:
    """Examples of RFC 9562, appendix A: the same moment in versions 1, 6 and 7."""
    now_ms, node, sequence = 1645557742000, 0x9F6BDECED846, 0x33C8
    assert uuid.UUID(int=guards._uuid1(None, now_ms, node, sequence)) == uuid.UUID(
        "C232AB00-9414-11EC-B3C8-9F6BDECED846"
    )
    assert uuid.UUID(int=guards._uuid6(None, now_ms, node, sequence)) == uuid.UUID(
        "1EC9414C-232A-6B00-B3C8-9F6BDECED846"
    )
    drawn = {12: 0xCC3, 62: 0x18C4DC0C0C07398F}
    assert uuid.UUID(int=guards._uuid7(drawn.__getitem__, now_ms)) == uuid.UUID("017F22E2-79B0-7CC3-98C4-DC0C0C07398F")


@dataclass
class OldNote:
    text: str


@dataclass
class Note(OldNote):
    """A journal of the day before does not have what the factories make."""

    at: float = field(default_factory=lambda: time.time())
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    number: float = field(default_factory=lambda: random.random())


def test_what_decoding_an_old_value_makes_up_is_the_runs_as_well() -> None:
    """Values are decoded on every replay, and validators and factories are the user's code."""

    @step
    async def take_note() -> Note:
        return Note("today")

    @workflow
    async def noting(first: Note) -> None:
        log(first, await take_note(), random.random())

    written = drive(noting, Note("today"), evict=0)
    journal = []
    for recorded in written.journal:
        event = recorded.event
        if isinstance(event, ev.ExecutionStarted):
            old, _ = workflow(old_noting).arguments.encode((OldNote("yesterday"),), {}, "the input")
            recorded = msgspec.structs.replace(recorded, event=msgspec.structs.replace(event, input=old))  # noqa: PLW2901
        if isinstance(event, ev.StepCompleted):
            old = codec_for(OldNote, "it").encode(OldNote("yesterday"), "it")
            recorded = msgspec.structs.replace(recorded, event=msgspec.structs.replace(event, result=old))  # noqa: PLW2901
        journal.append(recorded)
    first, again = (replay(noting, journal[:-1]) for _ in range(2))
    assert first.trace == again.trace  # type: ignore[attr-defined]
    ((argument, result, _),) = first.trace  # type: ignore[attr-defined]
    assert argument.text == result.text == "yesterday"
    assert argument.id != result.id
    assert result.at == first.now_ms / 1000
    first.evict()
    again.evict()


async def old_noting(first: OldNote) -> None: ...


# --- refusals --------------------------------------------------------------------------------------------------------

IDLE = concurrent.futures.ThreadPoolExecutor(1)
IDLE.submit(int).result()  # it has its thread: nothing needs to start

STEP = "Move this into a step"
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "builtins.open": (lambda: open("notes.txt"), "when the module is imported"),
    "open for writing": (lambda: open(__file__, "a"), STEP),
    "open of a descriptor": (lambda: open(0), STEP),
    "io.open": (lambda: io.open("notes.txt"), STEP),
    "os.open": (lambda: os.open("notes.txt", os.O_RDONLY), STEP),
    "Path.read_text": (lambda: Path("notes.txt").read_text("utf-8"), STEP),
    "Path.write_text": (lambda: Path("notes.txt").write_text("x", "utf-8"), STEP),
    "tempfile": (lambda: tempfile.TemporaryFile(), STEP),
    "builtins.input": (lambda: input("sure?"), "perdure.receive"),
    "subprocess.run": (lambda: subprocess.run(["true"], check=False), STEP),
    "os.popen": (lambda: os.popen("true"), STEP),
    "os.system": (lambda: os.system("true"), STEP),
    "os.fork": (lambda: os.fork(), STEP),
    "os.forkpty": (lambda: os.forkpty(), STEP),
    "os.posix_spawn": (lambda: os.posix_spawn("/bin/true", ["true"], {}), STEP),
    "os.posix_spawnp": (lambda: os.posix_spawnp("true", ["true"], {}), STEP),
    "multiprocessing": (lambda: multiprocessing.get_context("fork").Process(target=int).start(), STEP),
    "socket.socket": (lambda: socket.socket(), STEP),
    "socket.socketpair": (lambda: socket.socketpair(), STEP),
    "socket.create_connection": (lambda: socket.create_connection(("127.0.0.1", 9)), STEP),
    "socket.getaddrinfo": (lambda: socket.getaddrinfo("localhost", 9), STEP),
    "socket.gethostbyname": (lambda: socket.gethostbyname("localhost"), STEP),
    "socket.gethostbyname_ex": (lambda: socket.gethostbyname_ex("localhost"), STEP),
    "socket.gethostbyaddr": (lambda: socket.gethostbyaddr("127.0.0.1"), STEP),
    "socket.getnameinfo": (lambda: socket.getnameinfo(("127.0.0.1", 9), 0), STEP),
    "urllib": (lambda: urllib.request.urlopen("http://127.0.0.1:9/"), STEP),
    "http.client": (lambda: http.client.HTTPConnection("127.0.0.1", 9).request("GET", "/"), STEP),
    "threading.Thread": (lambda: threading.Thread(target=int).start(), STEP),
    "threading.Timer": (lambda: threading.Timer(0, int).start(), STEP),
    "executor": (lambda: IDLE.submit(int), STEP),
    "asyncio.new_event_loop": (lambda: asyncio.new_event_loop(), STEP),
    "time.sleep": (lambda: time.sleep(0), "await asyncio.sleep"),
    "time.process_time": (lambda: time.process_time(), "measure inside a step"),
    "time.process_time_ns": (lambda: time.process_time_ns(), "measure inside a step"),
    "time.thread_time": (lambda: time.thread_time(), "measure inside a step"),
    "time.thread_time_ns": (lambda: time.thread_time_ns(), "measure inside a step"),
    "time.clock_gettime": (lambda: time.clock_gettime(time.CLOCK_REALTIME), "measure inside a step"),
    "time.clock_gettime_ns": (lambda: time.clock_gettime_ns(time.CLOCK_REALTIME), "measure inside a step"),
    "random.seed": (lambda: random.seed(1), "random.Random(seed)"),
    "random.setstate": (lambda: random.setstate(()), "random.Random(seed)"),  # type: ignore[arg-type]
    "os.urandom": (lambda: os.urandom(8), "perdure.uuid4()"),
    "os.getrandom": (lambda: os.getrandom(8), "perdure.uuid4()"),
    "secrets.choice": (lambda: secrets.choice([1, 2]), "in a step"),
    "secrets.randbelow": (lambda: secrets.randbelow(9), "in a step"),
    "secrets.randbits": (lambda: secrets.randbits(9), "in a step"),
    "secrets.token_bytes": (lambda: secrets.token_bytes(), "in a step"),
    "secrets.token_hex": (lambda: secrets.token_hex(), "in a step"),
    "secrets.token_urlsafe": (lambda: secrets.token_urlsafe(), "in a step"),
}


def refused_line(run: Run) -> str:
    """The text of the source line that the refusal names."""
    where = re.search(r"\(([\w.]+):(\d+)\)", run.value)
    assert where is not None, run.value
    assert where[1] == "test_guards.py"
    return Path(__file__).read_text("utf-8").splitlines()[int(where[2]) - 1]


@workflow
async def touching(what: str) -> str:
    await echo(1)
    try:
        REFUSED[what][0]()
    except NotDeterministic as error:
        return str(error)
    return "went through"


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_with_the_users_line_and_the_cure(what: str) -> None:
    """Also where the standard library stands between."""
    run = drive(touching, what)
    replays_alike(run)
    assert REFUSED[what][1] in run.value
    assert f'"{what}": (lambda' in refused_line(run)


def test_all_guards_are_tested() -> None:
    names = {f"{getattr(owner, '__name__', owner)}.{name}" for owner, name, _, _ in guards._installed}
    through = {"socket.__init__", "Popen.__init__", "Thread.start", "ThreadPoolExecutor.submit"}
    above = {"asyncio.events.new_event_loop", "random.shuffle", "time.strftime"}
    assert names - through - above <= {*NOW_S, *NOW_NS, *NOW_IN_WORDS, *THERE, *REFUSED}
    assert through < names


def test_a_refusal_that_ends_the_workflow_stalls_it() -> None:
    """Fixed code goes on from the same journal; a failure would be for ever."""

    async def member() -> None:
        socket.socket()

    @workflow
    async def stuck(how: str) -> None:
        await echo(1)
        match how:
            case "plainly":
                time.sleep(1)
            case "in a group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(fails("beside it"))
                    group.create_task(member())
            case "at the loop":
                await asyncio.to_thread(print)

    for how in ("plainly", "in a group", "at the loop"):
        for run in explore(stuck, how, seeds=5):
            assert run.outcome == ("stalled", "NotDeterministic"), how


def test_a_set_in_no_order_stalls_too() -> None:
    @workflow
    async def unordered() -> None:
        await asyncio.wait({asyncio.Future(), asyncio.Future()})

    (run, *_) = explore(unordered, seeds=3)
    assert run.outcome == ("stalled", "UnorderedSet")


def test_a_refusal_that_is_handled_is_the_codes_own_affair() -> None:
    @workflow
    async def careful() -> str:
        try:
            return Path("template.txt").read_text("utf-8")
        except NotDeterministic:
            return await echo("from a step")

    assert {run.value for run in explore(careful)} == {"from a step"}


# --- who sees the real thing -----------------------------------------------------------------------------------------


def is_real(seconds: float) -> bool:
    """Read from the system's clock, and not from the harness's, which stands in 2023."""
    return abs(seconds - guards_free_time()) < 3600


def guards_free_time() -> float:
    """The clock of a file system: no function of Python's that anybody could have replaced."""
    with tempfile.NamedTemporaryFile() as file:
        return Path(file.name).stat().st_mtime


def test_outside_workflows_everything_is_as_it_was() -> None:
    assert is_real(time.time())
    assert time.monotonic() != time.time()
    assert len({random.random() for _ in range(9)} | {uuid.uuid4() for _ in range(9)}) == 18
    random.seed(4)
    first = [random.random(), random.choice("abc")]
    random.seed(4)
    assert [random.random(), random.choice("abc")] == first
    time.sleep(0)
    assert len(os.urandom(4)) == len(secrets.token_bytes(4)) == 4
    assert subprocess.run([sys.executable, "-c", ""], check=False).returncode == 0
    with socket.socket() as one, open(__file__, encoding="utf-8") as other:
        assert one.fileno() != other.fileno()


def test_threads_see_the_real_functions_while_a_workflow_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `def` step runs in one, at the same time as workflows do."""
    at_work = threading.Event()
    run_ready = DeterministicLoop._run_ready

    def watched(loop: DeterministicLoop, *args: Any) -> None:
        at_work.set()
        run_ready(loop, *args)
        at_work.clear()

    monkeypatch.setattr(DeterministicLoop, "_run_ready", watched)
    seen: list[tuple[float, bytes, int]] = []
    overlaps = 0
    enough = threading.Event()

    def elsewhere() -> None:
        nonlocal overlaps
        while not enough.is_set():
            overlaps += at_work.is_set()
            seen.append((time.time(), os.urandom(4), random.getrandbits(64)))
            with open(os.devnull, "rb") as file:
                file.read(1)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    try:
        for seed in range(200):
            run = drive(reading, "random.random", [], 3, seed=seed)
            assert run.outcome[0] == "completed"
            if overlaps > 20:
                break
    finally:
        enough.set()
        thread.join()
    assert overlaps > 0, "the thread never ran while a workflow did: this test showed nothing"
    assert all(is_real_and_recent for is_real_and_recent in (each[0] > EARLIEST + YEAR_MS / 2000 for each in seen))
    assert len({each[2] for each in seen}) == len(seen)


def test_what_a_worker_does_between_two_drains_is_outside() -> None:
    """Async steps run on the same thread as workflows, and in between."""
    seen: list[float] = []

    @step
    async def real() -> float:
        seen.append(time.time())
        return time.time()

    @workflow
    async def asking() -> list[bool]:
        return [is_other for _ in range(3) for is_other in [await real() - time.time() > YEAR_MS / 2000]]

    for run in explore(asking, seeds=5):
        assert run.value == [True] * 3
    assert all(map(is_real, seen))


def test_modules_imported_by_a_workflow_read_what_they_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import happens once in a process, on whichever replay: it must not draw from the run."""
    (tmp_path / "lazy_part.py").write_text("import time\nNOW = time.time()\n", "utf-8")
    (tmp_path / "lazy.py").write_text(
        "import os, pathlib, random, socket, threading, time, uuid\n"
        "import lazy_part\n"
        "NOW, IDS = time.time(), [uuid.uuid4(), random.random(), os.urandom(4), time.process_time()]\n"
        "TEXT = pathlib.Path(__file__).read_text('utf-8')\n"
        "SOCKET = socket.socket(); SOCKET.close()\n"
        "THREAD = threading.Thread(target=int); THREAD.start()\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)

    @workflow
    async def importing(fresh: bool) -> list[float]:
        before = await echo(random.random())
        if fresh:
            sys.modules.pop("lazy", None)
        lazy = importlib.import_module("lazy")
        return [before, random.random(), lazy.NOW, lazy.lazy_part.NOW]

    first = drive(importing, False, evict=0)
    again = drive(importing, False, evict=0)
    afresh = drive(importing, True, evict=0)
    assert first.value[:2] == again.value[:2] == afresh.value[:2]
    assert is_real(first.value[2])
    assert is_real(first.value[3])


def test_a_log_tells_the_real_time_and_may_open_its_file(tmp_path: Path) -> None:
    made: list[float] = []

    class Noting(logging.FileHandler):
        def emit(self, record: logging.LogRecord) -> None:
            made.append(record.created)
            made.append(time.time())  # a handler is a user's code, too
            super().emit(record)

    logger = logging.getLogger("a workflow's")
    handler = Noting(tmp_path / "log", delay=True)
    logger.addHandler(handler)

    @workflow
    async def logging_() -> str:
        before = random.getstate()
        logger.warning("hello")
        assert "annotations" in warnings.formatwarning("look out", UserWarning, __file__, FUTURE)
        try:
            raise ValueError("with its line of source")
        except ValueError:
            text = traceback.format_exc()
        assert random.getstate() == before
        return text

    try:
        run = drive(logging_)
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert 'raise ValueError("with its line of source")' in run.value
    assert "hello" in (tmp_path / "log").read_text("utf-8")
    assert all(map(is_real, made))


def test_telemetry_sees_the_world_but_not_what_it_wraps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracer's own ids and times are real; a function that it wraps is the workflow's still."""
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("", "utf-8")
    (tmp_path / "opentelemetry" / "tracer.py").write_text(
        "import random, time\ndef wrapped(fn):\n    return [time.time(), random.getrandbits(64)], fn()\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    tracer = importlib.import_module("opentelemetry.tracer")
    spans = []

    @workflow
    async def traced() -> float:
        before = random.getstate()
        span, value = tracer.wrapped(lambda: time.time())
        spans.append(span)
        assert random.getstate() == before
        return value

    assert drive(traced).value < EARLIEST + YEAR_MS / 2000
    assert is_real(spans[0][0])


def test_a_finaliser_that_happens_to_run_in_a_workflow_sees_the_world(tmp_path: Path) -> None:
    """What the garbage collector cleans up may be anybody's."""
    ends: list[float] = []

    class Resource:
        def __init__(self) -> None:
            self.me = self
            self.file = tmp_path / f"{id(self)}"

        def __del__(self) -> None:
            self.file.write_text("closed", "utf-8")
            ends.append(time.time())

    @workflow
    async def collecting() -> None:
        gc.collect()

    Resource()
    folder = tempfile.TemporaryDirectory()
    folder.me = folder  # type: ignore[attr-defined]
    name = folder.name
    del folder
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        run = drive(collecting, evict=0)
    assert run.outcome[0] == "completed"
    assert [path.read_text("utf-8") for path in tmp_path.iterdir()] == ["closed"]
    assert is_real(ends[0])
    assert not Path(name).exists()


def test_what_is_told_of_collections_sees_the_world_and_draws_no_number_of_the_run(tmp_path: Path) -> None:
    """They come whenever the collector does: anywhere, and not again on replay."""
    told: list[float] = []

    class Watch:
        def method(self, phase: str, _: object) -> None:
            told.append(time.time() + random.random())
            (tmp_path / phase).write_text(str(time.process_time()), "utf-8")

    @workflow
    async def collecting() -> float:
        gc.collect()
        return random.random()

    undisturbed = drive(collecting).value
    watch = Watch().method
    gc.callbacks.append(watch)
    try:
        run = drive(collecting, evict=0)
    finally:
        gc.callbacks.remove(watch)
    assert run.value == undisturbed
    assert all(is_real(each - 1) for each in told)
    assert {path.name for path in tmp_path.iterdir()} == {"start", "stop"}


def test_a_signal_handler_that_runs_on_top_of_a_workflow_sees_the_world(tmp_path: Path) -> None:
    """A refusal would hit the workflow that happened to run."""

    class Handler:
        def __init__(self) -> None:
            self.file = tmp_path / "method"

        def method(self, *_: object) -> None:
            self.file.write_text("was here", "utf-8")

    def function(*_: object) -> None:
        (tmp_path / "function").write_text("was here", "utf-8")

    @workflow
    async def interrupted() -> str:
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
        try:
            (tmp_path / "workflow").write_text("was here", "utf-8")
        except NotDeterministic:
            return "refused"
        return "went through"

    before = [signal.signal(signal.SIGUSR1, function), signal.signal(signal.SIGUSR2, Handler().method)]
    try:
        assert drive(interrupted, evict=0).value == "refused"
    finally:
        signal.signal(signal.SIGUSR1, before[0])
        signal.signal(signal.SIGUSR2, before[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["function", "method"]


def test_what_is_installed_may_be_read() -> None:
    """Data that comes with a package changes no more often than its code; time zones are such data."""

    @workflow
    async def reading_data() -> list[Any]:
        with open(asyncio.__file__, encoding="utf-8") as source:
            first = source.readline()
        descriptor = os.open(asyncio.__file__, os.O_RDONLY)
        os.close(descriptor)
        with contextlib.suppress(NotDeterministic):
            open(asyncio.__file__, "a").close()
            return ["appended"]
        return [first, "pytest" in Path(pytest.__file__).read_text("utf-8")]

    assert drive(reading_data).value == ['"""The asyncio package, tracking PEP 3156."""\n', True]


ZONED = """
import sys, asyncio, datetime, perdure

@perdure.workflow
async def zoned() -> str:
    for name in [name for name in sys.modules if "zoneinfo" in name]:
        del sys.modules[name]
    from zoneinfo import ZoneInfo
    return str(ZoneInfo("Europe/Berlin").utcoffset(datetime.datetime(2026, 7, 1)))

print(perdure.run(zoned, store=sys.argv[1]))
"""


def test_a_time_zone_is_found_although_its_module_is_imported_late(tmp_path: Path) -> None:
    """The C module of zoneinfo keeps the `open` that it finds."""
    (tmp_path / "zoned.py").write_text(ZONED, "utf-8")
    command = [sys.executable, "zoned.py", "zoned.db"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "2:00:00", done.stderr


def test_cleaning_up_while_evicted_is_guarded_as_well() -> None:
    """A `finally` block of discarded code must not touch the world either."""
    said: list[str] = []

    @workflow
    async def cleaning() -> None:
        try:
            await messages.receive("never")
        finally:
            said.append(f"{time.time():.3f}")
            try:
                open("notes.txt")
            except NotDeterministic as error:
                said.append(str(error.fields["where"]))

    drive(cleaning, script=[[signals("never")]])
    before = list(said)
    run = drive(cleaning, script=[[signals("other")], [signals("never")]], evict=1)
    assert run.evictions
    assert len(said) > len(before)
    assert {said[0], *said[2::2]} >= {f"{EPOCH_MS / 1000:.3f}"}
    assert all(each.startswith("test_guards.py:") for each in said[1::2])


# --- putting them in place -------------------------------------------------------------------------------------------

COUNT = """
import builtins, io, os, random, socket, subprocess, threading, time, uuid
def found():
    places = (builtins, io, os, random, time, uuid, socket, socket.socket, subprocess.Popen, threading.Thread)
    return {(place.__name__, name): value for place in places for name, value in vars(place).items()}
before = found()
import perdure
from perdure.workflow import guards
assert found() == before, "an import is no reason to replace anything"
guards.install()
installed = found()
assert installed != before
assert open is io.open
guards.install()
assert found() == installed, "twice is once"
guards.uninstall()
assert found() == before, {key for key in before if found()[key] is not before[key]}
"""


def test_an_import_replaces_nothing_and_uninstalling_puts_everything_back() -> None:
    subprocess.run([sys.executable, "-c", COUNT], check=True)


def test_guards_leave_alone_what_somebody_else_put_there(unguarded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    guards.install()
    monkeypatch.setattr(time, "time", lambda: 1.0)
    guards.uninstall()
    assert time.time() == 1.0


def test_a_replaced_function_looks_like_the_real_one(unguarded: None) -> None:
    real = {name: read("builtins.getattr", time, name) for name in ("time", "sleep", "strftime")}
    guards.install()
    for name, function in real.items():
        guarded = getattr(time, name)
        assert guarded is not function
        assert (guarded.__name__, guarded.__doc__, guarded.__wrapped__) == (name, function.__doc__, function)
    with pytest.raises(TypeError):
        time.time(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        time.sleep()  # type: ignore[call-arg]


def test_replaced_functions_are_pickled_by_name_as_the_real_ones() -> None:
    """A step may hand them to a process of its own."""
    functions = [each for owner, _, _, each in guards._installed if inspect.ismodule(owner)]
    assert len(functions) > 60
    for each in functions:
        assert pickle.loads(pickle.dumps(each)) is each  # noqa: S301 - our own


@workflow
async def forking() -> int:
    """No workflow may fork; a library below it that got hold of the real function can."""
    child = inspect.unwrap(os.fork)()
    if child == 0:
        os._exit(int(abs(time.time() - inspect.unwrap(time.time)()) > 60))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])  # noqa: ASYNC222 - it ends at once


def test_a_forked_child_begins_outside() -> None:
    """Whatever ran in its parent: there is no replay in the child."""
    assert drive(forking, evict=0).value == 0


def test_without_guards_the_tests_above_would_find_out(unguarded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same workflow, unguarded: replay does not lead to the same."""
    monkeypatch.setattr(guards, "install", lambda: None)
    run = drive(reading, "random.random", [], 2, evict=0)
    with pytest.raises((AssertionError, PerdureError)):
        replays_alike(run)
