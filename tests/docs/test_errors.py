"""Every error has a page, and every page an error."""

from __future__ import annotations

from pathlib import Path

import pytest

import perdure
import perdure.testing
from perdure.core.errors import PerdureError, every_error

PAGES = Path(__file__).parents[2] / "docs" / "errors"


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.code)
def test_every_error_has_a_page_that_opens_with_its_code(error: type[PerdureError]) -> None:
    first = (PAGES / f"{error.code}.md").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(f"# {error.code}: ")


def test_no_page_is_left_without_its_error() -> None:
    codes = {error.code for error in every_error()}
    assert {page.stem for page in PAGES.glob("P*.md")} == codes


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.code)
def test_every_error_can_be_caught_by_a_public_name(error: type[PerdureError]) -> None:
    assert getattr(perdure.errors, error.__name__) is error
    assert error.__name__ in perdure.errors.__all__


def test_what_is_caught_by_its_short_name_is_the_same_class() -> None:
    short = {name for name, it in vars(perdure).items() if isinstance(it, type) and issubclass(it, BaseException)}
    short.remove("Failure")  # the base of users' own
    assert {"StepFailed", "ExecutionStalled"} <= short
    assert all(getattr(perdure, name) is getattr(perdure.errors, name) for name in short)


def test_an_assertion_of_the_testing_package_can_be_caught() -> None:
    assert issubclass(perdure.testing.CrashesFound, AssertionError)
