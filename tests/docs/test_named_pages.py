"""Pages that the code names are there, for whoever follows a docstring or an error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"docs/[\w./-]+\.md")
FILES = [path for kind in ("py", "sql") for path in sorted((ROOT / "src").rglob(f"*.{kind}"))]
NAMES = sorted({(page, str(path.relative_to(ROOT))) for path in FILES for page in NAMED.findall(path.read_text())})


@pytest.mark.parametrize(("page", "where"), NAMES)
def test_a_page_that_the_code_names_exists(page: str, where: str) -> None:
    assert (ROOT / page).is_file(), f"{where} sends its reader to {page}"


def test_the_code_names_pages() -> None:
    assert {"docs/reference/values.md", "docs/decisions/0008-encryption.md"} <= {page for page, _ in NAMES}
