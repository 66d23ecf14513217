"""Determinism guards: what workflow code calls through modules of the standard library is the run's, or refused.

Clocks, `random` and `uuid` answer with logical values. Entropy, files, sockets, processes, threads and blocking sleep
raise, with the line and the cure. Everywhere else, threads and steps included, the real functions answer.
docs/discussions/determinism.md says what this does not see.
"""

from __future__ import annotations

import asyncio
import builtins
import functools
import gc
import io
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from threading import get_ident
from types import CodeType, ModuleType
from typing import Any

from perdure.workflow.location import MOVE_INTO_A_STEP, frames_of_the_workflow, is_installed, refusal
from perdure.workflow.loop import RUNNING, DeterministicLoop

Function = Callable[..., Any]
Bits = Callable[[int], int]

# Modules below which everything sees the world: they run inside workflows, but are no part of what replay repeats.
# An import happens once in a process; a log tells the real time; a debugger asks a person.
WORLDLY = frozenset(
    {"importlib", "linecache", "logging", "mimetypes", "tokenize", "warnings", "weakref", "zoneinfo"}
    | {"bdb", "debugpy", "_pydev_bundle", "_pydevd_bundle"}
)
# Modules which see the world themselves, but not what they call in turn: it may be the workflow, wrapped for tracing.
OBSERVERS = frozenset(
    {"asyncio.base_events", "ddtrace", "langfuse", "langsmith", "loguru", "newrelic", "opentelemetry", "posthog"}
    | {"prometheus_client", "sentry_sdk", "structlog"}
)

SLEEP = "Write `await asyncio.sleep(...)`, a durable timer: this would stop every execution of the worker."
MEASURE = "It would be another on every replay: measure inside a step."
OWN_SEED = "The run's generator stays as its run id seeded it; for a sequence of your own use random.Random(seed)."
COMPUTABLE = (
    "What a run can compute again is no secret. For an id use perdure.uuid4(), for a number perdure.random(); "
    "make a key or a token in a step."
)
READ_EARLY = f"{MOVE_INTO_A_STEP} What never changes may also be read when the module is imported."
ASYNC = "Write `await perdure.receive(...)` to wait for a person."


# --- who asks --------------------------------------------------------------------------------------------------------


def _workflow() -> DeterministicLoop | None:
    """The loop whose code called a guarded function; None if that code may see the world."""
    loop = RUNNING.get(get_ident())
    if loop is None:
        return None
    direct = sys._getframe(2)
    name = direct.f_globals.get("__name__", "")
    if name in OBSERVERS or name.partition(".")[0] in OBSERVERS:
        return None
    for frame in frames_of_the_workflow(direct):
        # A finaliser runs wherever the garbage collector happens to: what it cleans up is not this workflow's.
        if frame.f_code.co_name == "__del__" or _is_worldly(frame.f_globals.get("__name__", "")):
            return None
        if gc.callbacks and frame.f_code in _codes(gc.callbacks):
            return None
    return loop


@lru_cache(maxsize=4096)
def _is_worldly(module: str) -> bool:
    return module.partition(".")[0] in WORLDLY or module.startswith("_frozen_importlib")


def _is_in_a_signal_handler() -> bool:
    """Python runs them on top of whatever is running. Asked only before a refusal, which would hit the wrong one."""
    if threading.current_thread() is not threading.main_thread():
        return False
    codes = _codes(signal.getsignal(number) for number in signal.valid_signals())
    return any(frame.f_code in codes for frame in frames_of_the_workflow(sys._getframe(1)))


def _codes(functions: Iterable[Any]) -> set[CodeType]:
    """Of those that are Python functions, or methods."""
    codes = (getattr(getattr(function, "__func__", function), "__code__", None) for function in functions)
    return {code for code in codes if code is not None}


# --- kinds of guards: each makes the function that stands in for a real one ------------------------------------------


def _tells(value: Function, real: Function) -> Function:
    """Without arguments: what is called most."""

    @functools.wraps(real)
    def guarded() -> Any:
        if RUNNING:
            loop = _workflow()
            if loop is not None:
                return value(loop)
        return real()

    return guarded


def _answers(answer: Function, real: Function) -> Function:
    @functools.wraps(real)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if RUNNING:
            loop = _workflow()
            if loop is not None:
                return answer(loop, real, *args, **kwargs)
        return real(*args, **kwargs)

    return guarded


def _refuses(what: str, fix: str = MOVE_INTO_A_STEP, unless: Function | None = None) -> Function:
    def answer(loop: DeterministicLoop, real: Function, *args: Any, **kwargs: Any) -> Any:
        if (unless is not None and unless(*args, **kwargs)) or _is_in_a_signal_handler():
            return real(*args, **kwargs)
        raise refusal(what, loop.waiting_tasks(), fix)

    return partial(_answers, answer)


# --- clocks ----------------------------------------------------------------------------------------------------------


def _seconds(loop: DeterministicLoop) -> float:
    return loop.host.now_ms / 1000


def _nanoseconds(loop: DeterministicLoop) -> int:
    return loop.host.now_ms * 1_000_000


def _at(loop: DeterministicLoop, real: Function, seconds: float | None = None) -> Any:
    """`localtime`, `gmtime`, `ctime`: of now, unless told."""
    return real(_seconds(loop) if seconds is None else seconds)


def _asctime(loop: DeterministicLoop, real: Function, at: Any = None) -> Any:
    return real(time.localtime(_seconds(loop)) if at is None else at)


def _strftime(loop: DeterministicLoop, real: Function, form: str, at: Any = None) -> Any:
    return real(form, time.localtime(_seconds(loop)) if at is None else at)


def _clocks() -> Iterator[tuple[Any, str, Function]]:
    for clock in ("time", "monotonic", "perf_counter"):
        yield time, clock, partial(_tells, _seconds)
        yield time, f"{clock}_ns", partial(_tells, _nanoseconds)
    for name in ("localtime", "gmtime", "ctime"):
        yield time, name, partial(_answers, _at)
    yield time, "asctime", partial(_answers, _asctime)
    yield time, "strftime", partial(_answers, _strftime)
    for clock in ("process_time", "thread_time", "clock_gettime"):
        yield time, clock, _refuses(f"time.{clock}", MEASURE)
        yield time, f"{clock}_ns", _refuses(f"time.{clock}_ns", MEASURE)
    yield time, "sleep", _refuses("time.sleep", SLEEP)


# --- chance ----------------------------------------------------------------------------------------------------------


def _from_runs_generator(name: str) -> Function:
    def answer(loop: DeterministicLoop, _: Function, *args: Any, **kwargs: Any) -> Any:
        return getattr(loop.host.random, name)(*args, **kwargs)

    return partial(_answers, answer)


def _uuid(make: Function) -> Function:
    def answer(loop: DeterministicLoop, _: Function, *args: Any, **kwargs: Any) -> uuid.UUID:
        return uuid.UUID(int=make(loop.host.entropy.getrandbits, loop.host.now_ms, *args, **kwargs))

    return partial(_answers, answer)


GREGORIAN = 0x01B21DD213814000  # 100 ns intervals from 1582, where the time of UUIDs begins, to 1970
VARIANT = 0x8000_0000_0000_0000


def _uuid1(bits: Bits, now_ms: int, node: int | None = None, clock_seq: int | None = None) -> int:
    """Logical time does not move between two calls: the clock sequence tells them apart, as RFC 9562 has it."""
    ticks = now_ms * 10_000 + GREGORIAN
    low, middle, high = ticks & 0xFFFF_FFFF, ticks >> 32 & 0xFFFF, ticks >> 48 & 0xFFF
    return low << 96 | middle << 80 | 1 << 76 | high << 64 | VARIANT | _place(bits, node, clock_seq)


def _uuid6(bits: Bits, now_ms: int, node: int | None = None, clock_seq: int | None = None) -> int:
    ticks = now_ms * 10_000 + GREGORIAN
    return ticks >> 12 << 80 | 6 << 76 | (ticks & 0xFFF) << 64 | VARIANT | _place(bits, node, clock_seq)


def _place(bits: Bits, node: int | None, clock_seq: int | None) -> int:
    sequence = bits(14) if clock_seq is None else clock_seq & 0x3FFF
    return sequence << 48 | (bits(48) | 1 << 40 if node is None else node)  # the bit of a node that is no machine


def _uuid4(bits: Bits, _: int) -> int:
    return bits(128) & ~(0xF << 76) & ~(0b11 << 62) | 4 << 76 | VARIANT


def _uuid7(bits: Bits, now_ms: int) -> int:
    return now_ms << 80 | 7 << 76 | bits(12) << 64 | VARIANT | bits(62)


def _chance() -> Iterator[tuple[Any, str, Function]]:
    generator = random.random.__self__  # type: ignore[attr-defined]
    yield random, "random", partial(_tells, lambda loop: loop.host.random.random())
    for name in random.__all__:
        if getattr(getattr(random, name), "__self__", None) is generator and name not in {"random", "seed", "setstate"}:
            yield random, name, _from_runs_generator(name)
    yield random, "seed", _refuses("random.seed", OWN_SEED)
    yield random, "setstate", _refuses("random.setstate", OWN_SEED)
    for name, make in (("uuid1", _uuid1), ("uuid4", _uuid4), ("uuid6", _uuid6), ("uuid7", _uuid7)):
        yield uuid, name, _uuid(make)
    for name in ("urandom", "getrandom"):
        yield os, name, _refuses(f"os.{name}", COMPUTABLE)
    for name in ("choice", "randbelow", "randbits", "token_bytes", "token_hex", "token_urlsafe"):
        yield secrets, name, _refuses(f"secrets.{name}", COMPUTABLE)


# --- the world -------------------------------------------------------------------------------------------------------


def _reads_what_is_installed(file: Any, mode: str = "r", *_: Any, **__: Any) -> bool:
    return not set("wax+") & set(mode) and _is_installed_file(file)


def _reads_what_is_installed_too(file: Any, flags: int, *_: Any, **__: Any) -> bool:
    return not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND) and _is_installed_file(file)


def _is_installed_file(file: Any) -> bool:
    return not isinstance(file, int) and is_installed(str(Path(os.fsdecode(file)).absolute()))


def _the_world() -> Iterator[tuple[Any, str, Function]]:
    for module in (builtins, io):
        yield module, "open", _refuses("Opening a file", READ_EARLY, _reads_what_is_installed)
    yield os, "open", _refuses("Opening a file", READ_EARLY, _reads_what_is_installed_too)
    yield builtins, "input", _refuses("input()", ASYNC)
    yield subprocess.Popen, "__init__", _refuses("Starting a process")
    for name in ("system", "fork", "forkpty", "posix_spawn", "posix_spawnp"):
        yield os, name, _refuses(f"os.{name}")
    yield socket.socket, "__init__", _refuses("Opening a socket")
    for name in ("socketpair", "getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo"):
        yield socket, name, _refuses(f"socket.{name}")
    for loops in (asyncio, asyncio.events):
        yield loops, "new_event_loop", _refuses("Another event loop")
    yield threading.Thread, "start", _refuses("Starting a thread")
    yield ThreadPoolExecutor, "submit", _refuses("Handing work to a thread")


# --- putting them in place -------------------------------------------------------------------------------------------

_installed: list[tuple[Any, str, Function, Function]] = []


def install() -> None:
    """Put the guards in place, once in a process."""
    if _installed:
        return
    made: dict[Function, Function] = {}  # `open` stands in two modules, and stays one function
    for owner, name, make in (*_clocks(), *_chance(), *_the_world()):
        real = getattr(owner, name, None)
        if real is not None:  # not every system and version has all of them
            guarded = made.setdefault(real, made.get(real) or make(real))
            if isinstance(owner, ModuleType):  # as methods of a hidden instance are not: so that it can be pickled
                guarded.__module__, guarded.__qualname__ = owner.__name__, name
            setattr(owner, name, guarded)
            _installed.append((owner, name, real, guarded))


def uninstall() -> None:
    """Put the real functions back; for tests."""
    for owner, name, real, guarded in _installed:
        if getattr(owner, name) is guarded:
            setattr(owner, name, real)
    _installed.clear()
