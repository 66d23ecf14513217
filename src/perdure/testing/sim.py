"""`python -m perdure.testing.sim --seeds N [--start S] [--shape NAME]`: the first failure fills one screen."""

from __future__ import annotations

import argparse
import gc
import hashlib
import logging
import sys
import time
from typing import TextIO

from perdure.testing.report import told
from perdure.testing.simulation import Simulation, simulate


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
    again = f"  python -m perdure.testing.sim --seeds 1 --start {seed}{f' --shape {shape}' if shape else ''}"
    return told(seed, error, getattr(error, "simulation", None), again)


if __name__ == "__main__":
    sys.exit(main())
