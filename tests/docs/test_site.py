"""The site shows every public name. That it builds without a warning is seen by `make docs`, in `.ci/run`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import perdure
import perdure.testing

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("module", "pages"), [(perdure, "api.md errors.md"), (perdure.testing, "testing.md")])
def test_every_public_name_is_in_the_reference(module, pages):
    text = "".join((DOCS / "reference" / page).read_text() for page in pages.split())
    shown = set(re.findall(r"^\.\. auto\w+:: ([\w.]+)", text, re.MULTILINE))
    missing = [name for name in module.__all__ if f"{module.__name__}.{name}" not in shown]
    assert not missing, f"add them to docs/reference/: {pages}"


NEEDED = [
    "why",
    "tutorial",
    "examples",
    "glossary",
    "integrating",
    "exactly-once",
    "howto/retries",
    "howto/effects",
    "howto/humans",
    "howto/long-waits",
    "howto/versions",
    "howto/messages",
    "howto/testing",
    "howto/operating",
    "howto/migrating",
    "discussions/why-replay",
    "discussions/determinism",
    "discussions/group-commit",
    "reference/api",
    "reference/cli",
    "reference/errors",
    "reference/executions",
    "reference/history",
    "reference/lint",
    "reference/messages",
    "reference/testing",
    "reference/values",
]


@pytest.mark.parametrize("page", NEEDED)
def test_a_page_that_strangers_look_for_is_there_and_in_the_index(page):
    assert len((DOCS / f"{page}.md").read_text().splitlines()) > 10
    assert f"\n{page}\n" in (DOCS / "index.md").read_text()


def test_every_page_is_reached_from_an_index():
    listed = (DOCS / "index.md").read_text() + "errors/index decisions/index"
    for page in DOCS.rglob("*.md"):
        name = str(page.relative_to(DOCS).with_suffix(""))
        assert page.parent.name in {"errors", "decisions"} or name == "index" or f"\n{name}\n" in listed


@pytest.mark.parametrize("system", ["Temporal", "DBOS", "LangGraph", "Celery"])
def test_who_comes_from_another_system_has_a_section(system):
    assert f"\n## From {system}\n" in (DOCS / "howto" / "migrating.md").read_text()
