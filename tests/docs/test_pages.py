"""Every block of code in README and docs is played, in a fresh interpreter and folder for each page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from tests.docs.play import RUN, SHOWN, WORDS, Block, Player, blocks_of

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MINUTE_S = 60


def blocks(page: Path) -> list[Block]:
    return list(blocks_of(page.read_text(encoding="utf-8")))


def runs(block: Block) -> bool:
    return block.language in RUN and "skip" not in block.words


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


INNER = re.compile(r"^\s*(?:from|import) perdure\.(?:core|runtime|workflow|store|linting|cli)\b", re.MULTILINE)


def test_pages_and_examples_import_nothing_that_may_change_without_notice() -> None:
    code = [(name(page), block.text) for page in PAGES for block in blocks(page) if block.language == "python"]
    code += [(name(file), file.read_text("utf-8")) for file in (ROOT / "examples").rglob("*.py")]
    assert len(code) > 100
    assert not [where for where, text in code if INNER.search(text)]


WITH_CODE = [page for page in PAGES if any(map(runs, blocks(page)))]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=name)
def test_the_code_of_the_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    """As a reader would, with what this environment has installed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PERDURE_", "PYTEST_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONWARNINGS": "error::DeprecationWarning:__main__",
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "100",
    }
    if not entry_points(group="pytest11", name="perdure"):  # installed before there was one
        environment["PYTEST_PLUGINS"] = "perdure.testing.pytest_plugin"
    command = [sys.executable, str(ROOT / "tests" / "docs" / "play.py"), str(page)]
    played = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=2 * MINUTE_S, check=False
    )
    assert played.returncode == 0, played.stderr


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_fence_says_what_it_is(page: Path) -> None:
    for block in blocks(page):
        where = f"{name(page)}, line {block.line}"
        assert block.language in RUN | SHOWN, f"{where}: {block.language!r} is nothing that is run or shown"
        unknown = set(block.words) - set(WORDS) if block.language[:1] != "{" else ()
        assert not unknown, f"{where}: {unknown}; there are {WORDS}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_not_run_has_a_reason(page: Path) -> None:
    for block in blocks(page):
        reason = block.words.get("skip")
        assert reason is None or len(reason.split()) >= 3, f"{name(page)}, line {block.line}: skip='the reason'"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_code_hides_in_an_indented_block(page: Path) -> None:
    """It would not be run."""
    hidden = [
        line
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith(("    import ", "    from ", "    @", "    async ", "    def ", "    await ", "    with "))
    ]
    inside = {line for block in blocks(page) for line in block.text.splitlines()}
    assert not set(hidden) - inside


# --- the player ---


@pytest.mark.parametrize(
    "text",
    [
        "```python\nassert False\n```\n",
        "```python raises=KeyError\nx = 1\n```\n",
        "```python\nawait sleep(0)\n```\n",
        "```sh\nfalse\n```\n",
        "```sh exit=3\ntrue\n```\n",
        "```python\nprint('one')\n```\n```output\ntwo\n```\n",
        "```sh\necho one 1\n```\n```output like\ntwo 1\n```\n",
        "```python file=x.py\n1 +\n```\n",
    ],
)
def test_a_page_that_says_what_is_not_so_is_found(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    with pytest.raises((AssertionError, NameError, SyntaxError)):
        Player(page).play()


def test_a_page_that_is_right_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nimport asyncio\nx = 1\n```\n"
        "```python\nawait asyncio.sleep(0)\nprint('took', x + 1, 'or so')\n```\n```output\ntook ... or so\n```\n"
        "```sh\necho took 3.14s\n```\n```output like\ntook   2.71s\n```\n"
        "```python raises=ZeroDivisionError\nx / 0\n```\n"
        "```python skip='it needs a paid model'\nnonsense(\n```\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    Player(page).play()
