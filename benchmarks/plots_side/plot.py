"""Draws what the newest results files hold: throughput, latency, growth, as SVGs beside them. Needs matplotlib alone.

plot.py [FOLDER]      by default benchmarks/results
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import RESULTS, SIDES, WORKS, medians, newest_bench, newest_scale, read

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

COLOURS = {"perdure": "#1b7f5c", "limit": "#9aa5a1", "dbos": "#c0603a", "dbos-wal": "#dfa184", "langgraph": "#4a6fa5"}
mpl.rcParams.update(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "perdure",
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)


def save(figure: Figure, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = "\n".join(line.rstrip() for line in file.read_text("utf-8").splitlines()) + "\n"
    file.write_text(text, "utf-8")
    print(file.name)


def throughput(results: dict[str, Any], file: Path) -> None:
    """Bars by work and side, on a logarithmic scale; whiskers from the slowest to the fastest round."""
    works = [name for name in WORKS if name in results["works"]]
    found = [medians(results["works"][name]) for name in works]
    sides = [side for side in SIDES if any(side in each for each in found)]
    figure, axes = plt.subplots(figsize=(9, 4.2))
    width = 0.8 / len(sides)
    for number, side in enumerate(sides):
        rows = [(place, each[side]) for place, each in enumerate(found) if side in each]
        left = [place + (number - (len(sides) - 1) / 2) * width for place, _ in rows]
        rates = [each.rate for _, each in rows]
        whiskers = [[each.rate - each.slowest for _, each in rows], [each.fastest - each.rate for _, each in rows]]
        bars = axes.bar(
            left, rates, width * 0.92, yerr=whiskers, label=SIDES[side], color=COLOURS[side], ecolor="#444", capsize=2
        )
        axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=3, fontsize=7)
    axes.set_yscale("log")
    axes.set_ylabel("steps per second (logarithmic)")
    axes.set_xticks(range(len(works)), [WORKS[name].replace(" of ", "\nof ").replace(", ", ",\n") for name in works])
    axes.legend(frameon=False, ncols=len(sides), loc="upper center", bbox_to_anchor=(0.5, 1.15), fontsize=8)
    save(figure, file)


def latency(measure: dict[str, Any], file: Path) -> None:
    """The share of answers that came within so many milliseconds."""
    took = sorted(measure["ms"])
    shares = [100 * (number + 1) / len(took) for number in range(len(took))]
    figure, axes = plt.subplots(figsize=(6, 3.6))
    axes.step(took, shares, where="post", color=COLOURS["perdure"])
    for share, name in ((50, "p50_ms"), (95, "p95_ms")):
        axes.plot([measure[name]], [share], "o", color=COLOURS["perdure"])
        axes.annotate(f"p{share}: {measure[name]:.1f} ms", (measure[name], share), (8, -12), textcoords="offset points")
    axes.set_xlim(left=0)
    axes.set_xlabel("ms from a signal sent by another process to its answer there")
    axes.set_ylabel(f"% of {len(took):,}")
    save(figure, file)


def growth(measure: dict[str, Any], file: Path) -> None:
    """Steps per second in an empty file, and in one full of closed executions: each round, and the median."""
    figure, axes = plt.subplots(figsize=(6, 3.6))
    for place, (name, title) in enumerate([("empty", "empty file"), ("full", f"{measure['closed']:,} closed in it")]):
        rates = sorted(measure["rates"][name])
        axes.bar([place], [rates[len(rates) // 2]], 0.5, color=COLOURS["perdure" if name == "full" else "limit"])
        axes.plot([place] * len(rates), rates, "_", color="#222", markersize=14)
        axes.text(place, 0, f"{title}\n", ha="center", va="bottom", color="white")
    axes.set_xticks([])
    axes.set_ylabel("steps per second")
    axes.set_title(
        f"{measure['full_beside_empty']:.2f} x as fast with a file of {measure['file_mb']:,.0f} MB", fontsize=10
    )
    save(figure, file)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    bench, scale = newest_bench(folder), newest_scale(folder)
    if bench is not None:
        throughput(read(bench), folder / "throughput.svg")
    for measure in read(scale)["measures"] if scale is not None else ():
        draw = {"signals": latency, "growth": growth}.get(measure["measure"])
        if draw is not None:
            draw(measure, folder / f"{draw.__name__}.svg")


if __name__ == "__main__":
    main()
