"""The site builds without a warning, and shows every public name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import perdure
import perdure.testing

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("module", "pages"), [(perdure, "api.md errors.md"), (perdure.testing, "testing.md")])
def test_every_public_name_is_in_the_reference(module, pages):
    text = "".join((DOCS / "reference" / page).read_text() for page in pages.split())
    shown = set(re.findall(r"^\.\. auto\w+:: ([\w.]+)", text, re.MULTILINE))
    missing = [name for name in module.__all__ if f"{module.__name__}.{name}" not in shown]
    assert not missing, f"add them to docs/reference/: {pages}"
