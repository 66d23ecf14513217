"""From results files to tables: medians of the newest run, as Markdown beside the files and in the README.

figures.py            writes results/table.md, and the README's part between its two marks
"""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
RESULTS = HERE / "results"
README = HERE.parent / "README.md"
MARKS = re.compile(r"(<!-- benchmarks/figures.py -->\n).*?(<!-- end -->\n)", re.DOTALL)
SIDES = {  # in the order of tables and plots
    "perdure": "Perdure",
    "limit": "bare SQLite",
    "dbos": "DBOS",
    "dbos-wal": "DBOS, WAL",
    "langgraph": "LangGraph",
}
WORKS = {
    "500x10": "500 executions of 10 steps",
    "1x500": "500 steps, one after the other",
    "5000x1": "5,000 executions of one step",
    "fan-5000": "5,000 steps at once",
}
Results = dict[str, Any]


class Median(NamedTuple):
    """Of the rounds of a side."""

    rate: float  # steps per second
    slowest: float
    fastest: float
    cpu_us: float  # per step


def newest(pattern: str, folder: Path = RESULTS) -> Path | None:
    """The results file that was written last: names begin with the time."""
    return max((path for path in folder.glob("*.json") if re.fullmatch(pattern, path.name)), default=None)


def newest_bench(folder: Path = RESULTS) -> Path | None:
    """Of bench.py."""
    return newest(r"[\d-]+\.json", folder)


def newest_scale(folder: Path = RESULTS) -> Path | None:
    """Of scale.py."""
    return newest(r"[\d-]+-scale\.json", folder)


def read(file: Path) -> Results:
    """What a run wrote."""
    results: Results = json.loads(file.read_text("utf-8"))
    return results


def medians(work: dict[str, list[dict[str, Any]]]) -> dict[str, Median]:
    """Of each side that took part, in the order of `SIDES`."""
    found = {}
    for side in [each for each in SIDES if each in work]:
        rates = sorted(one["steps"] / one["seconds"] for one in work[side])
        cpu_us = statistics.median(1e6 * one["cpu_seconds"] / one["steps"] for one in work[side])
        found[side] = Median(statistics.median(rates), rates[0], rates[-1], cpu_us)
    return found


def two_figures(number: float) -> str:
    """As much of a ratio as means something."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def table(results: Results) -> str:
    """Markdown: steps per second by work and side, and how many times Perdure's rate is each other's."""
    works = {name: medians(results["works"][name]) for name in WORKS if name in results["works"]}
    sides = [side for side in SIDES if any(side in found for found in works.values())]
    lines = [f"| steps per second | {' | '.join(SIDES[side] for side in sides)} |", f"|---|{'---|' * len(sides)}"]
    for name, found in works.items():
        cells = [_cell(found, side) for side in sides]
        lines.append(f"| {WORKS[name]} | {' | '.join(cells)} |")
    machine = results["machine"]
    told = f"{machine['cores']} shared cores, Python {machine['python']}, load {machine['load_before'][0]:.1f} before"
    rounds = max(len(figures) for found in results["works"].values() for figures in found.values())
    lines += [
        "",
        f"Medians of {rounds} rounds in which sides take turns, {results['at'][:10]}, {told}; every side durable.",
    ]
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, Median], side: str) -> str:
    if side not in found:
        return "-"
    rate = f"{found[side].rate:,.0f}"
    if side == "perdure" or "perdure" not in found:
        return f"**{rate}**, {found[side].cpu_us:.0f} µs CPU a step" if side == "perdure" else rate
    return f"{rate} ({two_figures(found['perdure'].rate / found[side].rate)} x)"


def scale_lines(results: Results) -> list[str]:
    """What scale.py found, a sentence each."""
    told = []
    for one in results["measures"]:
        match one["measure"]:
            case "asleep":
                grown = f"a worker grows by {one['grown_mb']:.0f} MB"
                told.append(
                    f"{one['asleep']:,} asleep: {grown}; {one['due']:,} due ones awake in {one['awake_s']:.2f} s"
                )
            case "signals":
                told.append(f"a signal from another process and its answer: p50 {one['p50_ms']:.1f} ms")
            case "growth":
                beside = f"{one['full_beside_empty']:.2f} x the steps per second of an empty one"
                told.append(f"{one['closed']:,} closed executions in the file: {beside}")
            case _:
                pass  # a later measure
    return told


def write(folder: Path = RESULTS, readme: Path = README) -> None:
    """The table beside the results, and in the README.

    Raises:
        FileNotFoundError: nothing was measured yet.
    """
    bench, scale = newest_bench(folder), newest_scale(folder)
    if bench is None:
        raise FileNotFoundError(f"no results in {folder}: run `make bench`")
    text = table(read(bench))
    if scale is not None:
        text += "\n" + "".join(f"* {line}\n" for line in scale_lines(read(scale)))
    (folder / "table.md").write_text(f"Of `{bench.name}`{f' and `{scale.name}`' if scale else ''}:\n\n{text}", "utf-8")
    page = readme.read_text("utf-8")
    readme.write_text(MARKS.sub(lambda found: f"{found[1]}{text}{found[2]}", page), "utf-8")


if __name__ == "__main__":
    write()
