"""A simulation that failed, on one screen."""

from __future__ import annotations

import traceback

from perdure.testing.ledger import Broken
from perdure.testing.simulation import Simulation

LAST = 28


def told(seed: int, error: Exception, simulation: Simulation | None, again: str) -> str:
    """Seed, law, last events, and `again`, which is what reproduces it."""
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
    return "\n".join([*lines, "reproduce it with:", again, ""])
