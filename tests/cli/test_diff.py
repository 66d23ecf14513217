"""`perdure diff` in pipes, at 80 and 160 columns, and as JSON."""

from __future__ import annotations

import pytest
from rich.cells import cell_len
from tests.cli.conftest import Cli

from perdure.cli.options import Exit


@pytest.fixture
def forked(cli: Cli) -> None:
    """g1, g4 that did the same, and a fork g2 with another first word that nobody has run."""
    for name in ("g1", "g4"):
        assert cli("run", "agent.py:greet", "--input", '{"name": "ann", "times": 3}', "--id", name).code == Exit.OK
    cli("fork", "g1", "--replace", '2="BOB"', "--new-id", "g2", "--module", "agent.py")


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("width", [80, 160])
def test_it_fits_the_width_and_tells_both_sides(cli: Cli, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    told = cli("diff", "g1", "g2")
    assert told.code == Exit.OK
    lines = told.out.splitlines()
    assert max(cell_len(line) for line in lines) <= width
    assert lines[0].split() == ["g1", "✓", "completed", "g2", "▸", "active"]
    [differs] = [line for line in lines if "≠" in line]
    left, right = differs.split("≠")
    assert '"ANN"' in left
    assert '"BOB" (repl' in right
    assert "1 the same" in told.out
    assert sum(" < " in f"{line} " for line in lines) == 3
    assert "They part after 1 event." in told.err


@pytest.mark.usefixtures("forked")
def test_what_it_is_a_fork_of_goes_without_saying(cli: Cli) -> None:
    assert cli("diff", "g2").out == cli("diff", "g1", "g2").out
    cli("rewind", "g4", "--at", "3")
    assert "an earlier run" in cli("diff", "g4").out


@pytest.mark.usefixtures("forked")
def test_what_says_the_same_is_counted(cli: Cli) -> None:
    told = cli("diff", "g1", "g4")
    assert "5 the same" in told.out
    assert "They say the same, in 5 events." in told.err
    assert cli("diff", "g1", "g4", "--json").lines()[1:] == [{"relation": "same", "events": 5}]


@pytest.mark.usefixtures("forked")
def test_json_has_the_differences_whole_and_the_rest_counted(cli: Cli) -> None:
    head, same, differs, *rest = cli("diff", "g1", "g2", "--json").lines()
    assert (head["left"]["id"], head["right"]["id"]) == ("g1", "g2")
    assert same == {"relation": "same", "events": 1}
    assert (differs["relation"], differs["left"]["result"], differs["right"]["result"]) == ("differs", "ANN", "BOB")
    assert [(each["relation"], each["right"]) for each in rest] == [("left", None)] * 3
    assert len(cli("diff", "g1", "g2", "--json", "--limit", "1").lines()) == 3
    assert "There is more" in cli("diff", "g1", "g2", "--limit", "1").err


@pytest.mark.usefixtures("forked")
def test_bad_input_says_what_to_do(cli: Cli) -> None:
    for arguments, code, text in [
        (("diff", "g1"), Exit.USAGE, "is no fork, and has one run only"),
        (("diff", "g1", "g1"), Exit.USAGE, "compared with itself"),
        (("diff", "g0", "g1"), Exit.NOT_FOUND, "Did you mean"),
        (("diff", "g1", "g0"), Exit.NOT_FOUND, "Did you mean"),
        (("diff", "g1", "g2", "--run", "x"), Exit.NOT_FOUND, "no run 'x'"),
    ]:
        told = cli(*arguments)
        assert (told.code, text in told.err) == (code, True), (arguments, told.err)
