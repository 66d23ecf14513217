"""Every rule on real source files: lines of samples/ that a rule should tell of say so, and no others are told of."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

import perdure
from perdure.linting.findings import RULES

SAMPLES = Path(__file__).parent / "samples"
MODULES = sorted(path.stem for path in SAMPLES.glob("*.py") if path.stem != "helpers")
EXPECTED = re.compile(r"#((?: L\d{3})+)")


def expected(file: Path) -> Counter[tuple[str, int, str]]:
    """(file, line, code), as the comments have it."""
    found: Counter[tuple[str, int, str]] = Counter()
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        marker = EXPECTED.search(line)
        if marker is not None:
            found.update((file.name, number, code) for code in marker[1].split())
    return found


def found(module: str) -> Counter[tuple[str, int, str]]:
    findings = perdure.lint(importlib.import_module(f"tests.linting.samples.{module}"))
    return Counter((Path(each.file).name, each.line, each.code) for each in findings)


@pytest.mark.parametrize("module", MODULES)
def test_what_is_marked_is_found_and_nothing_else(module: str) -> None:
    told = found(module)
    own = Counter({place: count for place, count in told.items() if place[0] == f"{module}.py"})
    assert own == expected(SAMPLES / f"{module}.py")
    assert set(told) - set(own) <= set(expected(SAMPLES / "helpers.py"))


def test_what_is_called_in_other_files_is_found_there() -> None:
    told = found("l001_clock") + found("reach")
    assert set(expected(SAMPLES / "helpers.py")) <= set(told)


def test_every_rule_has_samples() -> None:
    told = {code for module in MODULES for _, _, code in expected(SAMPLES / f"{module}.py")}
    assert told == set(RULES) - {"L000"}
