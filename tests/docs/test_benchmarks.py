"""The figures that the README quotes are those of the newest results file, and are drawn from it."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks import figures

ROOT = Path(__file__).parents[2]
PLOTS_PYTHON = ROOT / ".venv-plots" / "bin" / "python"
CAN_PLOT = PLOTS_PYTHON.exists() or importlib.util.find_spec("matplotlib") is not None


def one(side: str, seconds: float, cpu_seconds: float = 0.5) -> dict[str, Any]:
    return {"side": side, "executions": 500, "steps": 5_000, "seconds": seconds, "cpu_seconds": cpu_seconds}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two runs, of which the later counts, and what many executions cost."""
    machine = {"python": "3.11.7", "cores": 2, "load_before": [0.12, 0, 0], "system": "x", "revision": "y"}
    work = {
        "dbos": [one("dbos", 60), one("dbos", 50), one("dbos", 40)],
        "perdure": [one("perdure", 1.0), one("perdure", 0.5, 0.25), one("perdure", 0.25)],
    }
    early = {"at": "2026-01-01T00:00:00+00:00", "machine": machine, "works": {"500x10": {"perdure": [one("p", 99)]}}}
    late = {"at": "2026-01-02T00:00:00+00:00", "machine": machine, "works": {"500x10": work}}
    measures = [
        {"measure": "asleep", "asleep": 1_000, "grown_mb": 3.2, "started_s": 1, "due": 10, "awake_s": 0.123},
        {"measure": "signals", "count": 4, "p50_ms": 2.5, "p95_ms": 4.0, "ms": [1.0, 2.0, 3.0, 4.0]},
        {
            "measure": "growth",
            "closed": 9_000,
            "file_mb": 5,
            "rates": {"empty": [9, 10], "full": [8, 9]},
            "full_beside_empty": 0.9,
        },
        {"measure": "something later"},
    ]
    scale = {"at": late["at"], "machine": machine, "measures": measures}
    for name, told in {"2026-01-01-0000": early, "2026-01-02-0000": late, "2026-01-02-0100-scale": scale}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(told))
    return tmp_path


def test_the_table_is_of_the_newest_run_its_medians_and_ratios(results: Path) -> None:
    readme = results / "README.md"
    readme.write_text("before\n<!-- benchmarks/figures.py -->\nold\n<!-- end -->\nafter\n")
    figures.write(results, readme)
    row = "| 500 executions of 10 steps | **10,000**, 100 µs CPU a step | 100 (100 x) |"
    assert row in (results / "table.md").read_text()
    assert "Of `2026-01-02-0000.json` and `2026-01-02-0100-scale.json`" in (results / "table.md").read_text()
    page = readme.read_text()
    assert page.startswith("before\n<!-- benchmarks/figures.py -->\n| steps per second | Perdure | DBOS |")
    assert row in page
    assert "* 1,000 asleep: a worker grows by 3 MB; 10 due ones awake in 0.12 s" in page
    assert "* a signal from another process and its answer: p50 2.5 ms" in page
    assert "* 9,000 closed executions in the file: 0.90 x the steps per second of an empty one" in page
    assert page.endswith("<!-- end -->\nafter\n")


def test_nothing_measured_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make bench"):
        figures.write(tmp_path)


def test_the_readme_quotes_the_newest_results() -> None:
    quoted = figures.MARKS.search(figures.README.read_text("utf-8"))
    assert quoted is not None
    bench = figures.newest_bench()
    assert bench is not None
    assert figures.table(figures.read(bench)) in quoted[0], "run `make plots`"
    assert bench.name in (figures.RESULTS / "table.md").read_text("utf-8"), "run `make plots`"
    assert (figures.RESULTS / "throughput.svg").exists()


@pytest.mark.slow
@pytest.mark.skipif(not CAN_PLOT, reason="`make plots` sets up what it draws with")
def test_plots_are_drawn_and_are_the_same_again(results: Path) -> None:
    python = PLOTS_PYTHON if PLOTS_PYTHON.exists() else Path(sys.executable)
    command = [python, ROOT / "benchmarks" / "plots_side" / "plot.py", results]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    drawn = {name: (results / f"{name}.svg").read_text("utf-8") for name in ("throughput", "latency", "growth")}
    assert "10,000" in drawn["throughput"]
    assert "p95: 4.0 ms" in drawn["latency"]
    assert "9,000 closed in it" in drawn["growth"]
    assert not any(re.search("<dc:date>", text) for text in drawn.values())
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    assert drawn["throughput"] == (results / "throughput.svg").read_text("utf-8")
