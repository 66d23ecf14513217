"""Where the engine's thread spends its CPU in the hot path: a sample every millisecond of CPU, by module and function.

hot_path.py [--executions 500] [--steps 60] [--folder .cache/bench]
Samples are taken by the kernel's profiling timer, so that functions cost what they cost without a profiler. C code is
counted for the Python function that called it.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import perdure

sys.path.insert(0, str(Path(__file__).parent))
from perdure_side import chain, run_all  # type: ignore[import-not-found]

EVERY_S = 0.001
Counts = collections.Counter[str]

OWN = Path(perdure.__file__).parent
# What a function is counted for: the first of these whose files it, or who called it, stands in.
PARTS = {
    "core/": "the machine",
    "workflow/values": "encoding and decoding values",
    "workflow/": "the deterministic loop, and the workflow itself",
    "runtime/steps.py": "running attempts",
    "runtime/shared_tasks.py": "running attempts",
    "runtime/attempt.py": "running attempts",
    "store/": "the store, where it is called on this thread",
    "runtime/": "driver and worker: what to start, what to write",
}


class Sampler:
    """Counts where the thread is, each time the timer fires."""

    def __init__(self) -> None:
        self.samples = 0
        self.parts: Counts = collections.Counter()
        self.functions: Counts = collections.Counter()

    def __call__(self, _: int, frame: FrameType | None) -> None:
        self.samples += 1
        self.functions[_name(frame)] += 1
        while frame is not None and _part(frame) is None:
            frame = frame.f_back
        self.parts[(frame and _part(frame)) or "asyncio's loop, and who started it all"] += 1


def _inside(frame: FrameType) -> str | None:
    path = Path(frame.f_code.co_filename)
    return str(path.relative_to(OWN)) if path.is_relative_to(OWN) else None


def _part(frame: FrameType) -> str | None:
    where = _inside(frame)
    return None if where is None else next((part for start, part in PARTS.items() if where.startswith(start)), None)


def _name(frame: FrameType | None) -> str:
    if frame is None:
        return "?"
    return f"{_inside(frame) or Path(frame.f_code.co_filename).name} {frame.f_code.co_qualname}"


async def profile(file: Path, executions: int, steps: int) -> tuple[Sampler, float]:
    """The samples, and microseconds of this thread's CPU a step."""
    sampler = Sampler()
    signal.signal(signal.SIGPROF, sampler)
    async with perdure.Engine(str(file), workflows=[chain]) as engine:
        await run_all(engine, chain, "warm", 1, 0)
        began = time.thread_time()
        signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
        await run_all(engine, chain, "bench", executions, steps)
        signal.setitimer(signal.ITIMER_PROF, 0, 0)
        spent_s = time.thread_time() - began
    return sampler, spent_s / (executions * steps) * 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=500)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / ".cache" / "bench")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    sampler, us = asyncio.run(profile(options.folder / "profile.db", options.executions, options.steps))
    print(f"{us:.0f} microseconds of the engine's thread a step, {sampler.samples} samples")
    for title, counts in (("part", sampler.parts), ("function", sampler.functions)):
        print(f"\n| {title} | share |\n|---|---|")
        for name, count in counts.most_common(16):
            print(f"| {name} | {100 * count / sampler.samples:.1f} % |")
    shutil.rmtree(options.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
