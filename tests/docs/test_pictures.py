"""The pictures are whole, fetch nothing, are of this program, and can be taken anew."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
SVGS = sorted(PICTURES.glob("*.svg"))
IMAGE = re.compile(r"!\[[^\]]+\]\(([^)]+)\)")


def words(svg: Path) -> str:
    """What can be read on it."""
    return " ".join("".join(ET.parse(svg).getroot().itertext()).replace("\xa0", " ").split())  # noqa: S314 - ours


@pytest.mark.parametrize("svg", SVGS, ids=lambda svg: svg.stem)
def test_a_picture_fetches_nothing_and_tells_nothing_of_the_machine(svg: Path) -> None:
    text = svg.read_text("utf-8")
    assert "perdure" in words(svg).casefold()
    assert not re.search(r"(href|url\()\s*=?\s*['\"(]*https?:", text)
    assert "@font-face" not in text
    assert not re.search(r"/(home|root|tmp|work|Users)/", words(svg))


def test_every_picture_is_shown_and_every_one_that_is_shown_is_there() -> None:
    shown = {(page.parent / place).resolve() for page in PAGES for place in IMAGE.findall(page.read_text("utf-8"))}
    assert {path for path in shown if path.suffix == ".svg"} >= set(SVGS)
    assert all(path.exists() for path in shown)


def test_the_recording_of_the_demo_is_of_a_run_with_two_kills_and_no_repetition() -> None:
    head, *events = [json.loads(line) for line in (PICTURES / "demo.cast").read_text("utf-8").splitlines()]
    assert (head["version"], head["width"]) == (2, 100)
    times = [at for at, _, _ in events]
    assert times == sorted(times)
    assert times[-1] < 120, "at most two minutes"
    said = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", "".join(text for _, kind, text in events if kind == "o"))
    assert said.count("kill -9: worker") == 2
    assert re.search(r" 0 +recorded steps repeated", said)
    assert "SmolLM2" in said
    assert not re.search(r"/(home|root|tmp|work|Users|opt)/", said)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
def test_pictures_are_taken_of_real_runs_at_both_widths(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "pictures.py"), "ls", "show", "show-wide", "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=110, capture_output=True)
    assert "stalled import-3" in words(tmp_path / "ls.svg")
    for name in ("show", "show-wide"):
        assert "the worker died; another went on" in words(tmp_path / f"{name}.svg")
        assert "attempt 1: ConnectionError: the search engine is busy" in words(tmp_path / f"{name}.svg")
    wide, narrow = (ET.parse(tmp_path / f"{name}.svg").getroot() for name in ("show-wide", "show"))  # noqa: S314 - likewise
    widths = [float(each.attrib["viewBox"].split()[2]) for each in (wide, narrow)]
    assert widths[0] > 1.9 * widths[1]
