"""Steps of which nobody knows what they did: how they are shown, and settled, at the command line."""

from __future__ import annotations

import signal

import pytest
from tests.cli.conftest import Cli, Project, Spawn, until

from perdure.journal import StepCompleted

AGENT = """
from dataclasses import dataclass
from pathlib import Path
import perdure
from perdure import step, workflow

@dataclass
class Receipt:
    number: int
    note: str = ""

@step(once=True)
async def charge(card: str, cents: int, items: list[str]) -> Receipt:
    with Path("ledger.txt").open("a") as ledger:
        print(card, cents, file=ledger)
    if cents < 1000:
        raise OSError("the line is dead")
    return Receipt(cents)

@workflow
async def buy(cents: int) -> Receipt:
    return await charge("4242", cents, ["a pen " * 30, "ink"])

@workflow
async def careless(cents: int) -> str:
    try:
        return str(await charge.with_options(on_unknown="raise")("4242", cents, []))
    except perdure.UnknownOutcome:
        return "who knows"
"""


@pytest.fixture
def shop(project: Project, spawn: Spawn) -> Project:
    """A worker, and an execution whose charge has an unknown outcome."""
    project.write("agent.py", AGENT)
    worker = spawn("worker", "agent.py")
    worker.until_it_says("Serving ")
    bought = spawn("run", "agent.py:buy", "--input", "500", "--id", "order-7")
    until(lambda: (row := project.row("order-7")) and "outcome" in row.waits_for, "the charge to be unknown")
    bought.kill(signal.SIGTERM)
    bought.end()
    return project


def test_it_is_listed_with_its_whole_input_and_the_command_that_settles_it(shop: Project, cli: Cli) -> None:
    told = cli("unresolved")
    assert told.code == 0
    assert "order-7  #1 charge  agent.py:" in told.out
    assert "it raised OSError, which is not among not_happened" in told.out
    assert "OSError: the line is dead" in told.out
    assert f'items = ["{"a pen " * 30}", "ink"]' in told.out.replace("\n", "")
    assert "perdure resolve order-7 1 --happened JSON | --did-not-happen | --abandon" in told.out
    assert "1 unresolved." in told.err
    [listed] = cli("unresolved", "--json").lines()
    assert listed["input"] == {"card": "4242", "cents": 500, "items": ["a pen " * 30, "ink"]}
    assert (listed["id"], listed["seq"], listed["step"], listed["attempt"]) == ("order-7", 1, "charge", 1)
    assert shop.ledger() == ["4242 500"]


def test_doctor_says_that_a_person_is_needed(shop: Project, cli: Cli) -> None:
    told = cli("doctor", "--json")
    [steps] = [each for each in told.lines() if each["what"] == "Steps"]
    assert (told.code, steps["well"]) == (0, True)
    assert steps["found"] == "1 of which nobody knows whether they happened"
    assert steps["cure"] == "See perdure unresolved"


def test_ls_and_show_say_what_is_waited_for(shop: Project, cli: Cli) -> None:
    assert "waits for outcome of step 'charge'" in cli("ls").out
    shown = cli("show", "order-7").out
    assert "? charge" in shown
    assert 'card = "4242"' in shown
    assert f'items = ["{"a pen " * 30}", "ink"]'.replace(" ", "") in shown.replace("\n", "").replace(" ", "")
    assert "perdure resolve order-7 1" in shown


def test_a_value_of_another_type_is_refused_with_its_place_and_nothing_is_recorded(shop: Project, cli: Cli) -> None:
    before = len(shop.journal("order-7"))
    told = cli("resolve", "order-7", "1", "--happened", '{"number": "seven"}')
    assert told.code == 2
    assert "$.number" in told.err
    assert "P0509" in told.err
    assert len(shop.journal("order-7")) == before
    assert len(cli("unresolved", "--json").lines()) == 1


def test_it_happened_with_a_value_and_a_note(shop: Project, cli: Cli) -> None:
    told = cli("resolve", "order-7", "1", "--happened", '{"number": 5}', "--note", "on the statement", "--json")
    assert told.json() == {"id": "order-7", "seq": 1, "outcome": "happened", "worker_runs": True}
    until(lambda: shop.row("order-7").status == "completed", "the end")  # type: ignore[union-attr]
    assert cli("run", "agent.py:buy", "--id", "order-7").json() == {"number": 5}
    assert "happened, says a person (on the statement)" in cli("show", "order-7").out
    [done] = [each.event for each in shop.journal("order-7") if isinstance(each.event, StepCompleted)]
    assert done.resolved is not None
    assert (done.resolved.by, done.resolved.note) == ("person", "on the statement")
    assert cli("unresolved").err.strip() == "Nothing is unresolved."
    assert shop.ledger() == ["4242 500"]


def test_abandon_tells_the_workflow(shop: Project, cli: Cli) -> None:
    assert cli("resolve", "order-7", "1", "--abandon").code == 0
    until(lambda: shop.row("order-7").status == "failed", "the end")  # type: ignore[union-attr]
    assert "UnknownOutcome" in cli("show", "order-7").out
    assert shop.ledger() == ["4242 500"]


def test_did_not_happen_runs_it_again(shop: Project, cli: Cli) -> None:
    assert cli("resolve", "order-7", "1", "--did-not-happen").code == 0
    until(lambda: len(shop.ledger()) == 2, "the second charge")
    until(lambda: cli("unresolved", "--json").out, "it to be unknown again")
    [listed] = cli("unresolved", "--json").lines()
    assert listed["attempt"] == 2


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("resolve order-7 1", 2, "Say what came of it, once: --happened JSON | --did-not-happen | --abandon."),
        ("resolve order-7 1 --abandon --did-not-happen", 2, "Say what came of it, once"),
        ("resolve order-7 9 --abandon", 7, "no step that is declared once has this number"),
        ("resolve order-8 1 --abandon", 3, "Did you mean 'order-7'?"),
        ("resolve order-7 1 --happened seven", 2, "Text needs its quotes: --happened '\"seven\"'"),
        ("resolve order-7 x --abandon", 2, "'x' is no whole number"),
    ],
)
def test_what_makes_no_sense_is_told(shop: Project, cli: Cli, line: str, code: int, said: str) -> None:
    told = cli(*line.split())
    assert told.code == code
    assert said in told.err
    assert len(cli("unresolved", "--json").lines()) == 1


def test_a_second_answer_is_told_that_there_was_one(shop: Project, cli: Cli) -> None:
    assert cli("resolve", "order-7", "1", "--happened", '{"number": 5}').code == 0
    until(lambda: shop.row("order-7").status == "completed", "the end")  # type: ignore[union-attr]
    told = cli("resolve", "order-7", "1", "--abandon")
    assert told.code == 7
    assert "it was settled: happened, says a person" in told.err


def test_without_a_worker_an_answer_waits_and_a_wrong_one_is_refused_by_who_takes_it(
    project: Project, cli: Cli, spawn: Spawn
) -> None:
    """Where no code is at hand nobody can look at the value. It must not stall the run later."""
    project.write("agent.py", AGENT)
    bought = spawn("run", "agent.py:buy", "--input", "500", "--id", "order-7")
    until(lambda: (row := project.row("order-7")) and "outcome" in row.waits_for, "the charge to be unknown")
    bought.kill(signal.SIGKILL)
    bought.end()
    told = cli("resolve", "order-7", "1", "--happened", '"seven"')
    assert told.code == 0
    assert "No worker runs on this store" in told.err
    assert cli("unresolved", "--json").lines()[0]["answered"]
    assert "an answer is on its way already" in cli("resolve", "order-7", "1", "--abandon").err
    spawn("worker", "agent.py").until_it_says("Serving ")
    until(lambda: cli("unresolved", "--json").lines()[0]["refused"], "the refusal")
    assert cli("resolve", "order-7", "1", "--happened", '{"number": 7}').code == 0
    until(lambda: project.row("order-7").status == "completed", "the end")  # type: ignore[union-attr]


def test_what_raised_and_went_on_stays_listed_after_the_end(project: Project, cli: Cli) -> None:
    project.write("agent.py", AGENT)
    assert cli("run", "agent.py:careless", "--input", "500", "--id", "order-9").json() == "who knows"
    [listed] = cli("unresolved", "--json").lines()
    assert listed["id"] == "order-9"
    told = cli("resolve", "order-9", "1", "--abandon", "--json")
    assert (told.code, told.json()["worker_runs"]) == (0, False)
    assert cli("unresolved", "--json").out == ""
    assert "it was settled after the execution had ended" in cli("resolve", "order-9", "1", "--abandon").err
