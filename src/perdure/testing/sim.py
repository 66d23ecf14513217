"""`python -m perdure.testing.sim --seeds N [--start S] [--shape NAME]`: the first failure fills one screen."""

from __future__ import annotations

import argparse
import gc
import hashlib
import logging
import sys
import time
import traceback
from typing import TextIO

from perdure.testing.ledger import Broken
from perdure.testing.simulation import Simulation, simulate

LAST = 28


def main(arguments: list[str] | None = None, out: TextIO = sys.stdout) -> int:
    """Returns the exit code: 1 if a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m perdure.testing.sim")
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--shape", default="")
    parser.add_argument("--keep-going", action="store_true")
    options = parser.parse_args(arguments)
    logging.getLogger("perdure").setLevel(logging.CRITICAL + 1)
    began, failed, events = time.monotonic(), [], 0
    for seed in range(options.start, options.start + options.seeds):
        error = run_one(seed, options.shape)
        if isinstance(error, Simulation):
            events += error.ledger.events
        else:
            failed.append(seed)
            out.write(report(seed, options.shape, error))
            if not options.keep_going:
                break
        if seed % 50 == 49:
            gc.collect()
    seconds = time.monotonic() - began
    ran = seed - options.start + 1
    out.write(
        f"{ran} seeds, {events} events, {seconds:.1f} s, {ran / seconds:.0f} seeds/s; failed: {failed or 'none'}\n"
    )
    return 1 if failed else 0


def run_one(seed: int, shape: str) -> Simulation | Exception:
    """The simulation, or what went wrong."""
    try:
        return simulate(seed, shape)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is the finding
        return error


def fingerprint(simulation: Simulation) -> str:
    """Of everything that happened: the same seed must give the same in every process."""
    return hashlib.blake2b(repr(simulation.ledger.trace).encode(), digest_size=8).hexdigest()


def report(seed: int, shape: str, error: Exception) -> str:
    """One screen: seed, law, last events, and the line to paste."""
    simulation: Simulation | None = getattr(error, "simulation", None)
    lines = [f"seed {seed} failed"]
    if isinstance(error, Broken):
        lines += [f"law broken: {error.law}", f"  {error.detail[:600]}"]
    else:
        lines += ["unexpected error:", *traceback.format_exception(error)[-6:]]
    if simulation is not None:
        lines += [f"  {simulation.profile}", "last events:"]
        key = getattr(error, "key", None)
        about = "" if key is None else key.execution
        trace = [each for each in simulation.ledger.trace if not about or each[2] in ("", about)]
        lines += [
            f"  {ms / 1000:9.3f}  {process:12} {name[:12]:12} {what[:80]}" for ms, process, name, what in trace[-LAST:]
        ]
    again = f"python -m perdure.testing.sim --seeds 1 --start {seed}{f' --shape {shape}' if shape else ''}"
    return "\n".join([*lines, "reproduce it with:", f"  {again}", ""])


if __name__ == "__main__":
    sys.exit(main())
