"""The README's first example, run as a reader would: killed with SIGKILL, run again, and once more."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
RESULT = "\n".join(f"what is known about durable execution, part {part}" for part in (1, 2, 3))


def example() -> str:
    """The first block of Python."""
    found = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_first_example_survives_a_kill_and_repeats_nothing_that_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "research.py").write_text(example(), encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "PERDURE_STORE"}
    command = [sys.executable, "-u", "research.py"]
    options = {"cwd": tmp_path, "env": environment, "text": True}

    first = subprocess.Popen(command, stdout=subprocess.PIPE, **options)  # type: ignore[call-overload]
    assert first.stdout.readline().startswith("searching")
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=30)

    second = subprocess.run(command, capture_output=True, timeout=60, check=True, **options)  # type: ignore[call-overload]
    assert second.stdout.endswith(f"{RESULT}\n")

    third = subprocess.run(command, capture_output=True, timeout=60, check=True, **options)  # type: ignore[call-overload]
    assert third.stdout == f"{RESULT}\n"
