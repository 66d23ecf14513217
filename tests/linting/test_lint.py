"""`perdure.lint` beside its rules: what it is given, how far it looks, what it gives back; and our own workflows."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.linting.samples import l001_clock, l005_io, reach

import perdure
from perdure.linting.findings import RULES
from perdure.testing import shapes

ROOT = Path(__file__).parents[2]


def test_one_workflow_is_looked_through_alone() -> None:
    (finding,) = perdure.lint(l001_clock.allowed_something_else)
    line = Path(l001_clock.__file__).read_text("utf-8").splitlines()[finding.line - 1]
    assert finding.code == "L001"
    assert finding.message == "datetime.datetime.now() reads the wall clock, which no guard can see."
    assert finding.cure == "Use perdure.now(), or take the time in a step."
    assert finding.file == l001_clock.__file__
    assert line[finding.column - 1 :].startswith("datetime.now()")
    assert finding.function == "allowed_something_else"
    assert perdure.lint(l001_clock.good) == []


def test_findings_come_in_the_order_of_files_and_lines_and_once() -> None:
    found = perdure.lint(reach)
    assert found == sorted(found, key=lambda each: (each.file, each.line, each.column))
    assert len(found) == len(set(found))
    assert perdure.lint(reach) == found


@pytest.mark.parametrize("target", ["agent.py", None, len, l005_io.look])
def test_other_targets_are_refused(target: object) -> None:
    with pytest.raises(perdure.PerdureError, match="Expected a workflow"):
        perdure.lint(target)  # type: ignore[arg-type]


def module(path: Path, text: str) -> ModuleType:
    """A file of its own, imported."""
    path.write_text(text, "utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)  # type: ignore[union-attr]
    return made


WORKFLOW = "import perdure\n@perdure.workflow\nasync def wf() -> None:\n    open('x')\n"


def test_source_that_changed_since_the_import_is_not_mistaken_for_what_runs(tmp_path: Path) -> None:
    made = module(tmp_path / "changing.py", WORKFLOW)
    assert [each.code for each in perdure.lint(made)] == ["L005"]
    (tmp_path / "changing.py").write_text("# a line more\n" + WORKFLOW, "utf-8")
    (finding,) = perdure.lint(made)
    assert (finding.code, finding.line) == ("L000", 2)
    (tmp_path / "changing.py").write_text("def (", "utf-8")
    assert [each.code for each in perdure.lint(made)] == ["L000"]
    (tmp_path / "changing.py").unlink()
    assert [each.code for each in perdure.lint(made)] == ["L000"]


def test_code_without_a_file_is_told_of(tmp_path: Path) -> None:
    namespace: dict[str, object] = {"__name__": "typed_in"}
    exec(WORKFLOW, namespace)  # noqa: S102 - as an interactive session does
    (finding,) = perdure.lint(namespace["wf"])  # type: ignore[arg-type]
    assert finding.code == "L000"


def test_an_application_in_site_packages_is_followed_and_its_neighbours_are_not(tmp_path: Path) -> None:
    """Deployed applications are installed, too: the package where the workflow stands is the user's own."""
    folder = tmp_path / "site-packages"
    for package in ("shop", "library"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("", "utf-8")
        (folder / package / "parts.py").write_text("def part():\n    return open('x')\n", "utf-8")
    text = "import perdure\nfrom shop import parts\nfrom library import parts as other\n"
    text += "@perdure.workflow\nasync def wf() -> None:\n    parts.part()\n    other.part()\n"
    (folder / "shop" / "agent.py").write_text(text, "utf-8")
    program = "import perdure, shop.agent as a; print([f.file[-13:] for f in perdure.lint(a)])"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['shop/parts.py']"


def test_guards_that_are_in_place_change_nothing(tmp_path: Path) -> None:
    """Names captured after an engine began are guarded here, and not in the next process."""
    program = (
        "from perdure.workflow import guards\n"
        "guards.install()\n"
        "import perdure\n"
        "from tests.linting.samples import l001_clock, l002_chance\n"
        "guards.uninstall() if {} else None\n"
        "print([(f.code, f.line, f.message) for m in (l001_clock, l002_chance) for f in perdure.lint(m)])\n"
    )
    told = {
        subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for text in (program.format(0), program.format(1), program.replace("guards.install()", "").format(0))
    }
    assert len(told) == 1
    assert told.pop().count("L00") > 20


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.py")), ids=lambda path: path.stem)
def test_the_examples_are_clean(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    if name.endswith(("__init__", "model_server")):
        return
    assert perdure.lint(importlib.import_module(name)) == []


def test_the_simulators_shapes_are_clean() -> None:
    assert perdure.lint(shapes) == []


def test_the_readmes_example_is_clean(tmp_path: Path) -> None:
    text = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert text is not None
    assert perdure.lint(module(tmp_path / "readme.py", text[1])) == []


def test_the_reference_lists_the_rules() -> None:
    page = (ROOT / "docs" / "reference" / "lint.md").read_text("utf-8")
    assert re.findall(r"^\| (L\d{3}) \|", page, re.MULTILINE) == list(RULES)
