"""Every error has a page, and every page an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.core.errors import PerdureError, every_error

PAGES = Path(__file__).parents[2] / "docs" / "errors"


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.code)
def test_every_error_has_a_page_that_opens_with_its_code(error: type[PerdureError]) -> None:
    first = (PAGES / f"{error.code}.md").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(f"# {error.code}: ")


def test_no_page_is_left_without_its_error() -> None:
    codes = {error.code for error in every_error()}
    assert {page.stem for page in PAGES.glob("P*.md")} == codes
