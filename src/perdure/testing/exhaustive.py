"""Exhaustive faults: fail the 1st, 2nd, ... n-th store call of a simulation, in each way, until a run meets none.

`python -m perdure.testing.exhaustive [SHAPE ...]` does so for the whole corpus, or some of it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Literal, NamedTuple, TextIO, TypeAlias

from perdure.core.errors import StoreError
from perdure.testing.kernel import Crash
from perdure.testing.shapes import SHAPES
from perdure.testing.sim import report
from perdure.testing.simulation import Profile, Simulation

Way: TypeAlias = Literal["error", "crash before", "crash after"]
WAYS: tuple[Way, ...] = ("error", "crash before", "crash after")
ROUTINE = frozenset({"changes", "next_wake_ms"})  # asked all the time; what they answer is a hint


class NthCall:
    """Fails one call of the workers, once; with `again`, that call and every one after it for a while."""

    def __init__(self, nth: int, way: Way, repeats: int = 1) -> None:
        self.nth = nth
        self.way = way
        self.left = repeats
        self.calls = 0
        self.hit = ""

    def _is_it(self, process: str, call: str) -> bool:
        if process.startswith("client") or call in ROUTINE:
            return False
        self.calls += 1
        if self.calls < self.nth or not self.left:
            return False
        self.left -= 1
        self.hit = self.hit or call
        return True

    def before(self, process: str, call: str) -> None:
        """See `Plan.before`."""
        if self.way == "crash after" or not self._is_it(process, call):
            return
        if self.way == "error":
            raise StoreError(path="memory", detail=f"call {self.nth}")
        raise Crash

    def after(self, process: str, call: str) -> None:
        """See `Plan.after`."""
        if self.way == "crash after" and self._is_it(process, call):
            raise Crash


class Case(NamedTuple):
    """One run, and what came of it."""

    nth: int
    way: Way
    call: str  # that failed; empty if the run made fewer calls
    error: Exception | None


def profile(shape: str, *, direct: bool = True, pauses: int = 0, branches: int = 0) -> Profile:
    """Small, so that every call can be reached; all prefixes of what it leaves are replayed."""
    return Profile(
        direct=direct,
        pauses=pauses,
        branches=branches,
        workers=1,
        executions=1,
        shapes=(shape,),
        safety_ms=1_000,
        lease_ms=15_000,
        trouble_s=0.0,
        signals=4,
        rude=False,
        tick_s=20.0,
        all_prefixes=True,
    )


def explore(
    shape: str,
    *,
    seed: int = 1,
    ways: tuple[Way, ...] = WAYS,
    repeats: int = 1,
    direct: bool = True,
    pauses: int = 0,
    branches: int = 0,
    stride: int = 1,
) -> Iterator[Case]:
    """Every case of a shape, up to the first run that meets no fault; not `direct`: all mail goes by the outbox.

    With a `stride`, only every so many calls; each way then begins at another of the first ones.
    """
    for number, way in enumerate(ways):
        nth = 1 + number % stride
        while True:
            plan = NthCall(nth, way, repeats)
            simulation = Simulation(seed, profile(shape, direct=direct, pauses=pauses, branches=branches), plan)
            error: Exception | None = None
            try:
                simulation.run()
            except Exception as raised:  # noqa: BLE001 - the finding
                raised.simulation = simulation  # type: ignore[attr-defined]
                error = raised
            yield Case(nth, way, plan.hit, error)
            if not plan.hit:
                break
            nth += stride


def main(shapes: list[str], out: TextIO = sys.stdout) -> int:
    """Returns the exit code: 1 if a case failed."""
    logging.getLogger("perdure").setLevel(logging.CRITICAL + 1)
    total = failed = 0
    for shape in shapes or SHAPES:
        cases = 0
        for case in explore(shape):
            cases += 1
            if case.error is not None:
                failed += 1
                out.write(
                    f"{shape}: {case.way} of store call {case.nth} ({case.call})\n{report(1, shape, case.error)}\n"
                )
                break
        out.write(f"{shape}: {cases} cases\n")
        total += cases
    out.write(f"{total} cases, {failed} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
