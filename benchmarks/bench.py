"""Perdure beside DBOS, LangGraph and the bare store: the same work, taking turns, in one run on one machine.

bench.py [--rounds 3] [--only 500x10,1x500] [--sides perdure,limit] [--folder .cache/bench]
Prints the medians and their ratios, and writes every single figure to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
DBOS_PYTHON = HERE.parent / ".venv-dbos" / "bin" / "python"
LANGGRAPH_PYTHON = HERE.parent / ".venv-langgraph" / "bin" / "python"
BUSY = 0.5  # load average before the first run
Figures = dict[str, Any]


class Work(NamedTuple):
    executions: int
    steps: int
    rows_per_commit: int  # of the limit: what a group commit could gather at best
    fan: bool = False  # all steps of an execution at once
    elsewhere: int = 1  # by how much the work is cut for the other systems, which would take too long

    @property
    def name(self) -> str:
        return f"fan-{self.steps}" if self.fan else f"{self.executions}x{self.steps}"

    @property
    def title(self) -> str:
        """For people."""
        shown = f"{self.executions:,} executions x {self.steps:,} steps"
        return f"{shown}, all at once" if self.fan else shown

    def size(self, cut: int = 1) -> list[object]:
        """As options of a side."""
        executions, steps = (self.executions, self.steps // cut) if self.fan else (self.executions // cut, self.steps)
        return ["--executions", executions, "--steps", steps, *(["--fan"] if self.fan else [])]


WORKS = [
    Work(500, 10, 100),
    Work(1, 500, 1),
    Work(5000, 1, 100, elsewhere=10),
    Work(1, 5000, 100, fan=True, elsewhere=10),
]


def commands(work: Work, folder: Path) -> dict[str, list[object]]:
    size, cut = work.size(), work.size(work.elsewhere)
    rows = ["--rows", work.executions * work.steps, "--per-commit", work.rows_per_commit]
    dbos = [DBOS_PYTHON, HERE / "dbos_side" / "run.py", folder, *cut]
    return {
        "perdure": [sys.executable, HERE / "perdure_side.py", folder, *size],
        "limit": [sys.executable, HERE / "limit.py", folder, *rows],
        "dbos": dbos,
        "dbos-wal": [*dbos, "--journal-mode", "wal"],
        "langgraph": [LANGGRAPH_PYTHON, HERE / "langgraph_side" / "run.py", folder, *cut],
    }


def run(side: str, work: Work, folder: Path) -> Figures:
    """One side, once, in a process and a folder of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [str(word) for word in commands(work, folder)[side]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    shutil.rmtree(folder)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    figures["rate"] = figures["steps"] / figures["seconds"]
    figures["cpu_us"] = 1e6 * figures["cpu_seconds"] / figures["steps"]
    return figures


def measure(work: Work, sides: Sequence[str], rounds: int, folder: Path) -> dict[str, list[Figures]]:
    """Every side in each round, beginning with another one each time: what disturbs the machine disturbs all."""
    measured: dict[str, list[Figures]] = {side: [] for side in sides}
    for turn in range(rounds):
        first = turn % len(sides)
        for side in [*sides[first:], *sides[:first]]:
            figures = run(side, work, folder)
            measured[side].append(figures)
            told = f"{figures['seconds']:8.3f} s  {figures['rate']:8.0f} steps/s"
            print(f"{work.name}  round {turn + 1}  {side:9} {told}", flush=True)
    return measured


def median(figures: Sequence[Figures], what: str) -> float:
    return float(statistics.median(one[what] for one in figures))


def table(work: Work, measured: dict[str, list[Figures]]) -> Table:
    """Medians, and how many times the first side's rate is that of each other."""
    shown = Table(title=work.title, title_justify="left")
    for heading in ("side", "steps/s", "slowest-fastest", "ms/step", "CPU µs/step", f"{next(iter(measured))} is"):
        shown.add_column(heading, justify="left" if heading == "side" else "right")
    base = median(next(iter(measured.values())), "rate")
    for side, figures in measured.items():
        rate = median(figures, "rate")
        rates = sorted(one["rate"] for one in figures)
        shown.add_row(
            side,
            f"{rate:,.0f}",
            f"{rates[0]:,.0f}-{rates[-1]:,.0f}",
            f"{1000 / rate:.3f}",
            f"{median(figures, 'cpu_us'):.0f}",
            f"{base / rate:,.2f} x",
        )
    return shown


def machine() -> Figures:
    revision = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True)  # noqa: PLW1510 (a tarball has none)
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load_before": os.getloadavg(),
        "revision": revision.stdout.strip(),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(work.name for work in WORKS))
    parser.add_argument("--sides", default="perdure,limit,dbos,dbos-wal,langgraph")
    parser.add_argument("--folder", type=Path, default=HERE.parent / ".cache" / "bench", help="on the disk to measure")
    options = parser.parse_args()
    sides = options.sides.split(",")

    started = datetime.now(UTC)
    results: Figures = {"at": started.isoformat(timespec="seconds"), "machine": machine(), "works": {}}
    tables = []
    for work in WORKS:
        if work.name in options.only.split(","):
            measured = measure(work, sides, options.rounds, options.folder)
            results["works"][work.name] = measured
            tables.append(table(work, measured))
    for shown in tables:
        Console().print(shown)
    busy = results["machine"]["load_before"][0]
    if busy > BUSY:
        print(f"The machine was busy with other work (load {busy:.1f}): compare nothing finer than factors.")

    file = HERE / "results" / f"{started:%Y-%m-%d-%H%M}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"Every figure: {file}")


if __name__ == "__main__":
    main()
