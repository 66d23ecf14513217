"""The developer documentation names what exists, and its diagram is the table."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from perdure.core.table import COMMANDS, RUN

ROOT = Path(__file__).parents[2]
DESIGN = ROOT / "docs" / "design.md"
ONE_STEP = ROOT / "docs" / "one-step.md"
HOP = re.compile(r"^\| (\d+) \| `([\w.]+)` \| `([\w/]+\.py)` \|", re.MULTILINE)
MOST_FUNCTIONS = 10
MOST_FILES = 7


def functions_of(path: Path) -> set[str]:
    """`function` and `Class.method` of a file."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            inner = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            names.update(f"{node.name}.{each.name}" for each in inner)
    return names


HOPS = HOP.findall(ONE_STEP.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("number", "function", "file"), HOPS)
def test_every_function_on_the_way_of_one_step_exists(number: str, function: str, file: str) -> None:
    assert function in functions_of(ROOT / "src" / "perdure" / file)


def names_in_code() -> tuple[set[str], set[str]]:
    """All classes of the package, and all `Class.method`s."""
    classes, methods = set[str](), set[str]()
    for path in (ROOT / "src" / "perdure").rglob("*.py"):
        classes |= {node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.ClassDef)}
        methods |= {name for name in functions_of(path) if "." in name}
    return classes, methods


@pytest.mark.parametrize("page", [DESIGN, ONE_STEP], ids=lambda page: page.stem)
def test_what_the_text_names_exists(page: Path) -> None:
    """Classes, their methods, and files, wherever they are named in the prose."""
    text = page.read_text(encoding="utf-8")
    classes, methods = names_in_code()
    package = ROOT / "src" / "perdure"
    missing = set(re.findall(r"`([A-Z]\w*[a-z]\w*)`", text)) - classes
    missing |= set(re.findall(r"`([A-Z]\w+\.\w+)`", text)) - methods
    for file in set(re.findall(r"`([\w/]+\.py)`", text)):
        if not (ROOT / file).exists() and not any(path.match(file) for path in package.rglob("*.py")):
            missing.add(file)
    assert not missing


@pytest.mark.parametrize("part", ["workflow", "runtime", "store", "testing"])
def test_the_map_has_every_file_once(part: str) -> None:
    """Which files belong together: a package's rows go on until the next package is named."""
    rows = re.findall(r"^\| (`\w+/`)? ?\| .* \| (.*\.py`.*) \|$", DESIGN.read_text(encoding="utf-8"), re.MULTILINE)
    found, package = list[str](), ""
    for named, files in rows:
        package = named.strip("`/") or package
        found += re.findall(r"`(\w+\.py)`", files) if package == part else []
    there = {path.name for path in (ROOT / "src" / "perdure" / part).glob("*.py")} - {"__init__.py"}
    missing, too_many = there - set(found), [name for name in found if name not in there or found.count(name) > 1]
    assert not missing, f"say in docs/design.md, in the table below the packages, with what they belong: {missing}"
    assert not too_many, f"not there, or named twice, in docs/design.md: {too_many}"


def test_one_step_stays_short() -> None:
    assert [int(number) for number, _, _ in HOPS] == list(range(1, len(HOPS) + 1))
    assert len(HOPS) <= MOST_FUNCTIONS
    assert len({file for _, _, file in HOPS}) <= MOST_FILES


def diagram() -> str:
    """The transition table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2"]
    for (run_state, event), becomes in RUN.items():
        lines.append(f"    {run_state.value} --> {becomes.value}: {event.__name__}")
    for (command, state, event), (after, effect) in COMMANDS.items():
        name = command.__name__
        lines.append(f"    {name}_{state.value} --> {name}_{after.value}: {event.__name__} ({effect.value})")
    return "\n".join(lines)


def test_the_diagram_in_the_design_is_the_table() -> None:
    text = DESIGN.read_text(encoding="utf-8")
    inside = text.partition("<!-- diagram: begin -->\n")[2].partition("<!-- diagram: end -->")[0]
    wanted = f"```mermaid\n{diagram()}\n```\n"
    assert inside == wanted, f"put this between the two markers:\n\n{wanted}"
