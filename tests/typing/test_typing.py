"""The public API as a type checker sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_strict_type_checker_sees_the_results_of_steps_workflows_and_messages(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--cache-dir", str(tmp_path)),
            *("--config-file", str(ROOT / "pyproject.toml"), "--follow-imports", "silent"),
            str(Path(__file__).with_name("public_api.py")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
