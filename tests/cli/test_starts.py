"""`perdure run` with the options of a start, and `perdure show` telling of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.cli.conftest import Cli, Project, Spawn, until

from perdure.cli.attributes import attribute_of
from perdure.cli.problems import Problem
from perdure.cli.times import moment_of, span_of

OPTIONS = ["--deadline=2h", "--grace=10s", "--delay=0", "--memo=who=ada", "--memo=plan=[1]"]
FOUND_BY = ["--attribute=team=search", "--attribute=cents=125"]


def test_what_is_said_with_a_start_is_recorded_and_shown(cli: Cli) -> None:
    told = cli("run", "agent.py:greet", "--input", '"ada"', "--id", "g", *OPTIONS, *FOUND_BY)
    assert (told.code, told.json()) == (0, ["ADA"])
    shown = cli("show", "g", "--json").json()
    assert shown["memo"] == {"who": "ada", "plan": [1]}
    assert shown["attributes"] == {"team": "search", "cents": 125}
    assert datetime.fromisoformat(shown["deadline"]) > datetime.now(UTC) + timedelta(hours=1)
    assert shown["journal"][0]["grace_ms"] == 10_000
    text = cli("show", "g").out
    assert "found by  cents=125, team=search" in text
    assert 'memo      plan=[1], who="ada"' in text


def test_a_deadline_ends_what_runs_too_long(cli: Cli) -> None:
    told = cli("run", "agent.py:ask", "--input", '"x"', "--id", "late", "--deadline", "0.2s")
    assert told.code == 1
    assert "its deadline passed" in told.err


def test_a_start_that_is_put_off_is_kept_for_a_worker(cli: Cli, project: Project, spawn: Spawn) -> None:
    later = spawn("run", "agent.py:greet", "--input", '"ada"', "--id", "later", "--start-at", "2999-01-01T00:00:00Z")
    until(lambda: project.row("later"), "the start")
    later.kill(2)
    assert later.end().code == 130
    text = cli("show", "later").out
    assert "begins    2999-01-01" in text or "begins    2998-12-31" in text  # in the zone of this machine
    assert cli("show", "later", "--json").json()["start_at"].startswith("2999-01-01T00:00:00")


def test_an_id_is_used_again_where_that_is_said(cli: Cli, project: Project) -> None:
    for times in (1, 2):
        told = cli("run", "agent.py:greet", "--input", '"ada"', "--id", "again", "--reuse", "always")
        assert told.code == 0
        assert len(project.ledger()) == times
    assert cli("run", "agent.py:greet", "--id", "again").json() == ["ADA"]
    assert len(project.ledger()) == 2, "without --reuse the recorded result is printed"
    assert cli("run", "agent.py:doomed", "--input", '"x"', "--id", "again").code == 7


def test_one_that_is_open_is_in_the_way_or_makes_room(cli: Cli, worker: Spawn) -> None:
    running = worker()
    ask = ("run", "agent.py:ask", "--input", '"x"', "--id", "one")
    assert cli(*ask, "--deadline", "0.3s").code == 1
    held = cli("run", "agent.py:parent", "--input", '"b"', "--id", "one", "--on-conflict", "fail")
    assert held.code == 7, "it has closed, and is another workflow"
    replaced = cli("run", "agent.py:parent", "--input", '"b"', "--id", "one", "--reuse", "if-failed")
    assert replaced.json() == ["B"]
    running.kill(15)
    assert running.end().code == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--delay", "soon"], "--delay wants a length of time"),
        (["--delay", "9" * 40], "--delay wants a length of time"),
        (["--start-at", "tomorrow"], "--start-at wants a moment"),
        (["--start-at", "2027-01-01T00:00:00Z", "--delay", "5"], "--start-at or --delay"),
        (["--grace", "5"], "a deadline beside it"),
        (["--memo", "plain"], "--memo wants NAME=VALUE"),
        (["--attribute", "a=1", "--attribute", "a=2"], "'a' is given twice"),
        (["--attribute", "A-B=1"], "names of a-z"),
        (["--attribute", "a={}"], ""),
        (["--reuse", "sometimes"], "sometimes"),
    ],
)
def test_options_that_mean_nothing_start_nothing(cli: Cli, project: Project, given: list[str], said: str) -> None:
    told = cli("run", "agent.py:greet", "--input", '"ada"', "--id", "never", *given)
    if said:
        assert told.code == 2, told
        assert said in told.err
        assert project.row("never") is None
    else:
        assert told.code == 0, "what is no value of an attribute but text is text"


def test_an_option_that_is_an_argument_too_is_refused(cli: Cli, project: Project) -> None:
    project.write(
        "clash.py", "import perdure\n@perdure.workflow\nasync def clash(*, delay: int) -> int:\n    return delay\n"
    )
    told = cli("run", "clash.py:clash", "--input", '{"delay": 5}', "--delay", "1s")
    assert told.code == 2
    assert "'delay' is an argument of 'clash'" in told.err


def test_values_are_typed_as_they_look() -> None:
    typed = [attribute_of(text) for text in ("7", "0.5", "true", "search", '"7"', '["a", "b"]', "null", "")]
    assert typed == [7, 0.5, True, "search", "7", ["a", "b"], "null", ""]
    assert attribute_of("2027-01-31T09:00:00Z") == datetime(2027, 1, 31, 9, tzinfo=UTC)
    assert attribute_of("2027-01-31T99:00:00Z") == "2027-01-31T99:00:00Z"


def test_times_as_people_type_them() -> None:
    spans = [span_of(text, "--delay").total_seconds() for text in ("90", "1.5s", "15m", "12h", "30d")]
    assert spans == [90, 1.5, 900, 43_200, 2_592_000]
    assert moment_of("2027-01-31", "--start-at").utcoffset() is not None
    for text in ("", "-5", "5 weeks", "1e9", "٣"):
        with pytest.raises(Problem):
            span_of(text, "--delay")
