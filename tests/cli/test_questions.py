"""`perdure asks` and `perdure answer` beside a real worker, after it was killed, and in the question's whole life."""

from __future__ import annotations

import json
import signal

import pytest
from tests.cli.conftest import Cli, Project, Spawn, until

from perdure.cli.options import Exit

APPROVAL = """
from dataclasses import dataclass
from pathlib import Path
import perdure
from perdure import step, workflow

@dataclass
class Decision:
    verdict: str
    comment: str = ""

class Refused(perdure.Failure):
    comment: str
    cents: int

@step(raises=[Refused], retry=None)
async def pay(whom: str, cents: int) -> str:
    with Path("paid.txt").open("a") as file:
        print(whom, cents, file=file)
    if cents > 5000:
        raise Refused("too much", comment="limit", cents=cents)
    return f"paid {whom}"

@workflow
async def buy(whom: str, cents: int) -> str:
    payment = pay.bind(whom, cents)
    decision = await perdure.ask("Pay this?", Decision, to="finance", about=payment)
    if decision.verdict != "yes":
        return f"no: {decision.comment}"
    try:
        done = await payment()
    except Refused as refused:
        done = f"refused: {refused.comment} {refused.cents}"
    last = await perdure.ask("And now?", str)
    return f"{done}, {last}"
"""


@pytest.fixture
def buying(project: Project) -> Project:
    project.write("buy.py", APPROVAL)
    return project


def asked(cli: Cli, *options: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in cli("asks", "--json", *options).out.splitlines()]


def begin(project: Project, worker: Spawn, spawn: Spawn, *cents: int) -> object:
    first = worker("buy.py")
    for n in cents:
        spawn("run", "buy.py:buy", "--input", f'["ACME", {n}]', "--id", f"b{n}")
        until(lambda n=n: (row := project.row(f"b{n}")) is not None and row.status == "parked", "the question")
    return first


def test_asked_killed_answered_while_nobody_runs_and_gone_on(
    buying: Project, worker: Spawn, spawn: Spawn, cli: Cli
) -> None:
    """SIGKILL while it waits; the answer comes to a store that nobody runs; a new worker goes on with it, twice."""
    first = begin(buying, worker, spawn, 100, 9000)
    for n in (100, 9000):
        first.kill(signal.SIGKILL)
        first.end()
        [question] = [each for each in asked(cli, "--to", "finance") if each["id"] == f"b{n}"]
        [open_now] = [each for each in cli("doctor", "--json").lines() if each["what"] == "Questions"]
        assert (open_now["found"], open_now["cure"]) == ("2 to people, open", "See perdure asks")
        assert question["step"] == "pay"
        told = cli("answer", str(question["token"]), '{"verdict": "yes"}')
        assert (told.code, f"b{n} has its answer" in told.err) == (0, True)
        assert cli("answer", str(question["token"]), '{"verdict": "no"}').code == Exit.REFUSED
        first = worker("buy.py")
        until(
            lambda n=n: [each for each in asked(cli) if (each["id"], each["to"]) == (f"b{n}", "")], "the next question"
        )
    first.kill(signal.SIGKILL)
    first.end()
    for each in asked(cli):
        assert cli("answer", str(each["token"]), '"fine"').code == 0
    worker("buy.py")
    ends = {"b100": "paid ACME, fine", "b9000": "refused: limit 9000, fine"}
    for name, end in ends.items():
        until(lambda name=name: (row := buying.row(name)) is not None and row.status == "completed", "the end")
        assert cli("run", "buy.py:buy", "--id", name).out == f'"{end}"\n'
    assert (buying.path / "paid.txt").read_text("utf-8") == "ACME 100\nACME 9000\n"


def test_a_question_is_shown_to_people_with_what_it_is_about(
    buying: Project, worker: Spawn, spawn: Spawn, cli: Cli
) -> None:
    begin(buying, worker, spawn, 100)
    shown = cli("asks").out
    for part in ("b100", "asks finance", "Pay this?", "about step pay", "ACME", "perdure answer ", "buy.py:"):
        assert part in shown
    assert asked(cli, "--to", "nobody") == []
    assert 'answer with {"verdict": string, "comment"?: string}' in shown
    assert "Nothing is asked of 'nobody'.\n" in cli("asks", "--to", "nobody").err
    assert "Did you mean 'finance'?" in cli("asks", "--to", "finanse").err
    [question] = asked(cli, "--limit", "1")
    assert question["about"] == {"whom": "ACME", "cents": 100}
    assert question["schema"]["$defs"]["Decision"]["required"] == ["verdict"]  # type: ignore[index]
    token = str(question["token"])
    assert "$ lacks 'verdict'" in (told := cli("answer", token, '{"comment": "?"}')).err
    assert told.code == Exit.REFUSED
    assert cli("answer", token, "yes").code == Exit.USAGE
    assert cli("answer", "x" + token, "1").code == Exit.REFUSED
    (buying.path / "answer.json").write_text('{"verdict": "no", "comment": "why"}', "utf-8")
    assert cli("answer", token, "@answer.json", "--by", "x" * 201).code == Exit.USAGE
    assert cli("answer", token, "@answer.json", "--by", "Ada L.").code == 0
    until(lambda: (row := buying.row("b100")) is not None and row.status == "completed", "the end")
    told = spawn("show", "b100").end().out
    for part in ("asked #1", "of finance: Pay this?", "answer to #1", "by Ada L."):
        assert part in told
    assert token not in told
    assert '"by": "Ada L."' in cli("journal", "b100", "--json").out
    assert cli("answer", token, '{"verdict": "no"}').code == Exit.REFUSED


def test_questions_are_listed_in_pages(buying: Project, worker: Spawn, spawn: Spawn, cli: Cli) -> None:
    begin(buying, worker, spawn, 100, 200, 300)
    first = cli("asks", "--json", "--limit", "2", "--to", "finance")
    assert len(first.out.splitlines()) == 2
    cursor = json.loads(first.err)["next"]
    rest = asked(cli, "--to", "finance", "--after", cursor)
    assert {*(json.loads(line)["id"] for line in first.out.splitlines()), rest[0]["id"]} == {"b100", "b200", "b300"}
    assert len(rest) == 1
    assert f"--after {cursor}" in cli("asks", "--limit", "2", "--to", "finance").err
    assert cli("asks", "--after", cursor).code == Exit.USAGE
    assert f"--after {cursor} is no cursor of this list.\n" in cli("asks", "--after", cursor).err
    assert "--cursor x is no cursor of this list.\n" in cli("ls", "--cursor", "x").err
    assert cli("asks", "--limit", "1001").code == Exit.USAGE
