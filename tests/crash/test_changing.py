"""A class is changed on disk so that what was recorded does not fit it: executions stall, say where, and go on later.

Three processes over one file: the first is killed, the second runs code that cannot read, the third code that can.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PROGRAM = Path(__file__).with_name("changing.py")
ORDER = "import dataclasses\n\n@dataclasses.dataclass\nclass Order:\n    item: str\n    cents: {cents}\n"
MODEL = "import pydantic\n\nclass Order(pydantic.BaseModel):\n    item: str\n    cents: {cents}\n"
MODEL += "    def __init__(self, *args, **given):\n"
MODEL += "        super().__init__(**(dict(zip(('item', 'cents'), args)) | given))\n"
RATE = "import perdure\n\nclass Rate(perdure.Failure):\n    per_hour: {kind}\n"
WHAT = {
    "a_result": "the result of step 'makes'",
    "a_childs_result": "the result of child",
    "a_signal": "signal 'order'",
    "a_signal_of_late": "signal 'order'",
    "a_handled_signal": "signal 'order'",
    "an_update": "the input of update 'order'",
    "an_open_question": "the answer to question #1",
    "an_answer": "the answer to question #1",
    "a_snapshot": "the snapshot",
    "an_input": "the input of workflow 'an_input'",
}


class Told(NamedTuple):
    """What became of each execution, by name."""

    broken: dict[str, Any]
    fixed: dict[str, Any]


@pytest.fixture(scope="module", params=["dataclass", "pydantic"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp(request.param)
    template = ORDER if request.param == "dataclass" else MODEL

    def run(how: str, cents: str, per_hour: str) -> subprocess.CompletedProcess[str]:
        (folder / "order.py").write_text(template.format(cents=cents))
        (folder / "rate.py").write_text(RATE.format(kind=per_hour))
        command = [sys.executable, "-B", str(PROGRAM), str(folder / "store.db"), str(folder), how]
        environment = os.environ | ({"SLOW": "1"} if how == "begin" else {})
        return subprocess.run(command, capture_output=True, text=True, timeout=50, env=environment, check=False)

    begun = run("begin", "int", "int")
    assert begun.returncode == -signal.SIGKILL, begun.stderr
    found = []
    for how, cents, per_hour in (("broken", "list[int]", "list[int]"), ("fixed", "int | list[int]", "int | None")):
        ended = run(how, cents, per_hour)
        assert ended.returncode == 0, ended.stderr
        found.append({each["name"]: each for each in map(json.loads, ended.stdout.splitlines())})
    return Told(*found)


@pytest.mark.parametrize("name", WHAT)
def test_it_stalls_and_names_type_and_place(told: Told, name: str) -> None:
    broken = told.broken[name]
    assert broken["status"] == "stalled"
    expected = rf"{re.escape(WHAT[name])}.* cannot be decoded as .*Order.*: (argument '\w+': )?\$\.cents .*P0202"
    assert re.match(expected, broken["problem"], re.DOTALL), broken["problem"]


@pytest.mark.parametrize("name", [*WHAT, "a_failure"])
def test_nothing_is_lost_and_with_code_that_can_read_it_completes(told: Told, name: str) -> None:
    assert not any("Dropped" in kind for kind in told.broken[name]["events"] + told.fixed[name]["events"])
    assert told.fixed[name]["status"] == "completed", told.fixed[name]["problem"]
    assert re.search(r"item='tea',? cents=5|per_hour=3", told.fixed[name]["result"])
    before = told.broken[name]["events"]
    assert told.fixed[name]["events"][: len(before)] == before


def test_a_failure_that_cannot_be_read_stalls_and_names_its_place(told: Told) -> None:
    problem = told.broken["a_failure"]["problem"]
    assert re.match(r"failure 'Rate' cannot be decoded as .*\$\.per_hour .*P0202", problem, re.DOTALL), problem


def test_what_was_dropped_stays_dropped_though_other_code_could_take_it(told: Told) -> None:
    for each in (told.broken, told.fixed):
        assert each["a_dropped_signal"]["status"] == "completed"
        assert each["a_dropped_signal"]["result"] == "end"
