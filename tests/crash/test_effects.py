"""Steps that are declared once, and real SIGKILLs before, during and after the call: at most one effect, and no lie."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.crash.effects import BEGUN, HAPPENED, MODES, POINTS

ROOT = Path(__file__).parents[2]


def run(folder: Path, mode: str, point: str = "") -> Any:
    """What the process printed; None if it died as it should."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.effects", str(folder / "x.db"), str(folder / "ledger"), mode, point],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    if point:
        assert done.returncode == -signal.SIGKILL
        return None
    assert done.returncode == 0
    return json.loads(done.stdout)


def effects(folder: Path) -> list[str]:
    return (folder / "ledger").read_text().split()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_it_happens_at_most_once_and_nobody_claims_to_know_what_he_does_not(
    tmp_path: Path, point: str, mode: str
) -> None:
    (tmp_path / "ledger").touch()
    run(tmp_path, mode, point)
    happened = point in HAPPENED
    assert effects(tmp_path) == ["x"] * happened
    found = run(tmp_path, mode)
    unknown = ["x", "the worker that ran it is gone"]
    if point not in BEGUN:
        assert found == {"result": "did x", "unresolved": []}
        assert effects(tmp_path) == ["x"]
    elif mode == "reconcile":
        assert found == {"result": "found x" if happened else "did x", "unresolved": []}
        assert effects(tmp_path) == ["x"]
    else:
        step = "pay_in_thread" if mode == "thread" else "pay"
        assert found["unresolved"] == [[step, {"what": "x"}, unknown[1]]]
        assert found["result"] == (f"unknown: {unknown[1]}" if mode == "raise" else None)
        assert effects(tmp_path) == ["x"] * happened


def test_killed_again_and_again_while_it_is_unknown_it_stays_so(tmp_path: Path) -> None:
    (tmp_path / "ledger").touch()
    run(tmp_path, "park", "in the call, after the effect")
    first = run(tmp_path, "park")
    assert [run(tmp_path, "park") for _ in range(3)] == [first] * 3
    assert effects(tmp_path) == ["x"]
