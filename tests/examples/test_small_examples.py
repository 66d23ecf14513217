"""The small examples: run as their first lines say, and tested as users test theirs, on virtual time."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest

from perdure.testing import TestEngine, replies, steps_of

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(place: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(place).stem, EXAMPLES / place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run(place: str, *arguments: str, folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PERDURE_STORE"}
    command = [sys.executable, str(EXAMPLES / place), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


FOLDERS = sorted(path.name for path in EXAMPLES.iterdir() if any(path.glob("*.py")))


@pytest.mark.parametrize("name", FOLDERS)
def test_every_example_says_how_it_is_run_is_tested_and_stands_on_the_page(name):
    files = list((EXAMPLES / name).glob("*.py"))
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text("utf-8")
    assert any(f"../{file.relative_to(EXAMPLES.parent)}" in page for file in files)
    readme = EXAMPLES / name / "README.md"
    said = readme.read_text("utf-8") if readme.exists() else files[0].read_text("utf-8").split('"""')[1]
    assert f"python examples/{name}/" in said or "make demo" in said
    tests = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert f"{name}/" in tests or f"examples.{name}" in tests


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "arguments", "said"),
    [
        ("approval/expense.py", [], "transfer"),
        ("saga/trip.py", ["Lisbon"], "3 bookings for Lisbon"),
        ("saga/trip.py", ["Atlantis"], "no trip to Atlantis: no hotel in Atlantis"),
        ("pipeline/translate.py", [], "CHAPTER 8 [a picture of chapter 8]"),
        ("parallel/sources.py", ["tides"], "3 sources: encyclopedia on tides"),
    ],
)
def test_an_example_runs_and_again_gives_the_same_without_doing_it_again(tmp_path, place, arguments, said):
    first = run(place, *arguments, folder=tmp_path)
    assert said in first
    if "approval" not in place:  # whose people answer once
        assert run(place, *arguments, folder=tmp_path).splitlines()[-1] == first.splitlines()[-1]


async def test_an_expense_goes_up_after_three_days_and_is_refused_after_six():
    expense = load("approval/expense.py")
    told = []

    def notify(person: str, text: str) -> None:
        told.append(person)

    steps = {"notify": notify, "pay_out": "paid"}
    async with TestEngine([expense.expense], steps=steps) as engine:
        what = expense.Expense("eve", "lunch", 100)
        handle = await engine.start(expense.expense, what, ["ada", "bob"], id="e1")
        await engine.advance(timedelta(days=4))
        assert await engine.asks(to="ada") == []
        [asked] = await engine.asks(to="bob")
        assert asked.shown["expense"]["cents"] == 100
        await engine.answer(asked.token, expense.Decision(approved=True))
        assert await handle.result() == "paid"
        assert told == ["ada", "ada", "bob"]
        late = await engine.start(expense.expense, what, ["ada", "bob"], id="e2")
        assert await late.result() == "refused"
        assert told[-1] == "eve"


async def test_a_trip_gives_back_what_was_booked_in_reverse():
    trip = load("saga/trip.py")
    booked = replies("flight-1", "hotel-1", trip.NotAvailable("no car"))
    async with TestEngine([trip.trip], steps={"book": booked, "give_back": None}) as engine:
        handle = await engine.start(trip.trip, "Rome")
        assert await handle.result() == ["no trip to Rome: no car"]
        given = [call.arguments["booking"] for call in steps_of(await handle.journal()) if call.name == "give_back"]
        assert given == ["hotel-1", "flight-1"]
