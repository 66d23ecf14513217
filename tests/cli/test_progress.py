"""How far long work is: what is told, in how much room, and where nothing is told."""

from __future__ import annotations

import re
import sys

import pytest
from tests.cli.conftest import Cli, Project
from tests.cli.terminal import in_a_terminal

from perdure.cli.progress import Progress

SOON = "import perdure.cli.progress as p; p.APPEARS_AFTER_S = 0.02; import perdure.cli as cli; cli.main()"
AT_ONCE = """
import threading
import perdure.cli

class Timer:
    def __init__(self, _, start):
        self.start = start
    def cancel(self): ...
    def join(self): ...

threading.Timer = Timer
perdure.cli.main()
"""

LINES = [
    ("check slow.py", r"replaying  \d of 2 executions"),
    ("export --all -o all.jsonl", r"exporting  \d of 2 executions"),
    ("import all.jsonl --store other.db", r"(reading|importing)  \d"),
    ("gc --older-than 0 --dry-run", r"counting  \d executions"),
    ("gc --older-than 0 --store other.db", r"removing  \d executions"),
    ("doctor", r"looking|checking"),
]

# A workflow that takes a while to replay, so that the line is drawn whatever else the machine does.
SLOW = """
import perdure

@perdure.workflow
async def slow() -> int:
    total = 0
    for i in range(3_000_000):
        total += i
    return total
"""


@pytest.mark.parametrize(
    ("done", "total", "took_s", "width", "expected"),
    [
        (1_234, 50_000, 2.0, 80, "replaying  1,234 of 50,000 executions  617/s  0:02  1:19 left"),
        (1_234, 50_000, 2.0, 40, "replaying  1,234 of 50,000 executions"),
        (1_234, 50_000, 2.0, 12, "replaying"),
        (1_234, 50_000, 2.0, 5, "repla"),
        (3, 0, 6.0, 80, "replaying  3 executions  0.5/s  0:06"),
        (0, 9, 6.0, 80, "replaying  0 of 9 executions  0:06"),
        (10, 9, 6.0, 80, "replaying  10 executions  1.7/s  0:06"),  # some more came meanwhile
        (1, 9, 0.1, 80, "replaying  1 of 9 executions  0:00"),  # too early for a rate
        (9, 9, 4_000.0, 80, "replaying  9 of 9 executions  0.0/s  1:06:40  0:00 left"),
    ],
)
def test_the_line_says_what_how_many_how_fast_how_long_as_far_as_there_is_room(
    done: int, total: int, took_s: float, width: int, expected: str
) -> None:
    told = Progress("replaying", "executions", total)
    told.advance(done)
    assert told.text(took_s, width) == expected


def test_what_cannot_be_counted_is_timed() -> None:
    told = Progress("replaying", "executions", 9)
    told.reach(4)
    told.begin("checking 21.0 MiB")
    assert told.text(65, 80) == "checking 21.0 MiB  1:05"


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 80])
def test_long_work_is_told_on_a_terminal_and_short_work_is_not(cli: Cli, project: Project, columns: int) -> None:
    project.write("slow.py", SLOW)
    for name in ("a", "b"):
        assert cli("run", "slow.py:slow", "--id", name).code == 0
    for line, told in LINES:
        long = in_a_terminal(project, sys.executable, "-c", AT_ONCE, *line.split(), columns=columns)
        assert re.search(told, long), line
        assert long.count("\x1b[?25l") == long.count("\x1b[?25h") == 1, "the cursor comes back"
        drawn = [re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", each) for each in re.split(r"[\r\n]+", long)]
        assert max(len(each) for each in drawn if re.match(told, each)) < columns
    check = (sys.executable, "-c", AT_ONCE, "check", "slow.py")
    assert "replaying" not in in_a_terminal(project, *check, columns=columns, TERM="dumb")
    plain = in_a_terminal(project, *check, columns=columns, NO_COLOR="1")
    assert "replaying" in plain
    assert not re.search(r"\x1b\[[\d;]*[34]\d[;m]", plain)
    mixed = in_a_terminal(project, sys.executable, "-c", AT_ONCE, "export", "--all", columns=columns)
    assert "exporting" not in mixed, "the result is on this terminal"
    waited = in_a_terminal(project, sys.executable, "-c", SOON, "check", "slow.py", columns=columns)
    assert "replaying" in waited
    short = in_a_terminal(project, sys.executable, "-m", "perdure", "gc", "--older-than", "0", "--dry-run")
    assert "counting" not in short
    assert "2 executions with" in short


def test_in_pipes_and_as_json_nothing_is_told(cli: Cli, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.cli.progress.APPEARS_AFTER_S", 0)
    project.write("slow.py", SLOW)
    for name in ("a", "b"):
        assert cli("run", "slow.py:slow", "--id", name).code == 0
    for line, told in LINES:
        plain = cli(*line.split())
        assert not re.search(told, plain.out + plain.err.replace("2 executions imported", "")), line
    as_json = in_a_terminal(project, sys.executable, "-c", AT_ONCE, "check", "slow.py", "--json")
    assert "replaying" not in as_json
    assert as_json.count('"goes_on": true') == 2
