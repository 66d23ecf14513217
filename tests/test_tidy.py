"""The rules of the code that no linter knows: sizes, complexity, honest files. Each message names the cure."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import perdure

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "perdure"
CORE = PACKAGE / "core"

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Limits(NamedTuple):
    function_lines: int
    complexity: int
    file_lines: int


EVERYWHERE = Limits(function_lines=70, complexity=10, file_lines=600)
IN_CORE = Limits(function_lines=40, complexity=10, file_lines=300)

HEADER_LINES = 5
BANNED_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle"}
BANNED_CALLS = {"eval", "exec", "compile", "__import__"}
SQL_CALLS = {"execute", "executemany", "executescript"}

# Written in pieces, so that this file does not offend against itself.
LATER = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX"]))
NO_REASON = re.compile(r"# no" + r"qa(?!: [A-Z0-9, ]+(?: - | \().{4})")
REGISTRY = re.compile(
    "|".join([r"py" + r"pi\.org", r"python" + r"hosted\.org", r"registry\.npm" + r"js", r"deb\.deb" + r"ian\."])
)
MACHINE = re.compile(r"(?<![\w.])/(" + r"root/|work/main|work/\.|(home|Users)/(?!me/|you/)\w+/)")


def limits(path: Path) -> Limits:
    return IN_CORE if CORE in path.parents else EVERYWHERE


def sources(folder: Path = PACKAGE) -> list[Path]:
    return sorted(folder.rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def at(path: Path, line: int = 1) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """What stands in a function itself: a nested function has a number of its own."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        if not isinstance(node, Function):
            yield node
            todo.extend(ast.iter_child_nodes(node))


def complexity(function: Function) -> int:
    """McCabe's number: one, and one for each decision; each `and` and `or` is one."""
    total = 1
    for node in own_nodes(function):
        match node:
            case ast.If() | ast.IfExp() | ast.For() | ast.AsyncFor() | ast.While() | ast.ExceptHandler():
                total += 1
            case ast.comprehension(ifs=conditions):
                total += 1 + len(conditions)
            case ast.BoolOp(values=values):
                total += len(values) - 1
            case ast.match_case(pattern=ast.MatchAs(pattern=None), guard=None):
                pass  # `case _`: the way left when no decision was taken
            case ast.match_case():
                total += 1
    return total


def complain(complaints: Iterable[str]) -> None:
    found = list(complaints)
    assert not found, "\n".join(["", *found])


def test_no_function_is_long() -> None:
    complain(
        f"{at(path, f.lineno)} {f.name} has {lines} lines, {limits(path).function_lines} are allowed: "
        "find the step in it that deserves a name, and make it a function"
        for path in sources()
        for f in functions(path)
        if (lines := (f.end_lineno or 0) - f.lineno + 1) > limits(path).function_lines
    )


def test_no_function_is_complex() -> None:
    complain(
        f"{at(path, f.lineno)} {f.name} has complexity {number}, {limits(path).complexity} is allowed: "
        "return early, turn the branches into a table or a match, or split what it decides from what it does"
        for path in sources()
        for f in functions(path)
        if (number := complexity(f)) > limits(path).complexity
    )


def test_no_file_is_long() -> None:
    complain(
        f"{at(path)} has {lines} lines, {limits(path).file_lines} are allowed: "
        "find the seam where one half needs the other only through a few names, and make it two files"
        for path in sources()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > limits(path).file_lines
    )


def test_every_file_opens_with_its_contract() -> None:
    def lines(path: Path) -> int:
        return len([line for line in (ast.get_docstring(tree(path)) or "").splitlines() if line.strip()])

    complain(
        f"{at(path)} opens with a docstring of {lines(path)} lines: "
        f"say in one to {HEADER_LINES} what it owns and promises; more belongs in docs/design.md"
        for path in sources()
        if not 1 <= lines(path) <= HEADER_LINES
    )


def test_every_public_name_has_a_docstring() -> None:
    complain(
        f"perdure.{name} has no docstring: say what it does for the user, and how it fails"
        for name in getattr(perdure, "__all__", ())
        if callable(public := getattr(perdure, name)) and not (public.__doc__ or "").strip()
    )


def test_nothing_is_left_for_later() -> None:
    complain(
        f"{at(path, number)} {found[0]}: do it now, or write it down as an issue and say here what holds today"
        for path in sources(ROOT / "src") + sources(ROOT / "tests") + sources(ROOT / "examples")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (found := LATER.search(line))
    )


def test_every_exception_to_a_lint_rule_has_its_reason() -> None:
    complain(
        f"{at(path, number)} makes an exception and does not say why: mend it, or put the reason after the code"
        for path in sources(ROOT / "src") + sources(ROOT / "examples")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if NO_REASON.search(line)
    )
    ignored = re.compile(r' {4}"[A-Z]+\d*",(?! +# \S)')
    complain(
        f"pyproject.toml:{number} ignores a rule for all, and not why: write its reason beside it"
        for number, line in enumerate((ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines(), 1)
        if ignored.match(line)
    )


def test_no_bytes_are_ever_run_as_code() -> None:
    def offences(path: Path) -> Iterator[tuple[int, str]]:
        for node in ast.walk(tree(path)):
            match node:
                case ast.Import(names=names):
                    yield from ((node.lineno, a.name) for a in names if a.name.split(".")[0] in BANNED_MODULES)
                case ast.ImportFrom(module=str(module)) if module.split(".")[0] in BANNED_MODULES:
                    yield node.lineno, module
                case ast.Call(func=ast.Name(id=name)) if name in BANNED_CALLS:
                    yield node.lineno, name

    complain(
        f"{at(path, line)} uses {name}: decode to the annotated type with the codec, never to what the bytes name"
        for path in sources()
        for line, name in offences(path)
    )


def test_sql_is_never_put_together_from_strings() -> None:
    def is_made_up(argument: ast.expr) -> bool:
        return isinstance(argument, ast.JoinedStr | ast.BinOp) or (
            isinstance(argument, ast.Call)
            and isinstance(argument.func, ast.Attribute)
            and argument.func.attr == "format"
        )

    complain(
        f"{at(path, node.lineno)} makes up SQL: write a named query in store/sql/*.sql, and bind its values"
        for path in sources(PACKAGE / "store")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in SQL_CALLS
        and any(is_made_up(argument) for argument in node.args[:1])
    )


def test_no_file_names_a_registry_or_somebodys_machine() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    def lines() -> Iterator[tuple[Path, int, str]]:
        for path in (ROOT / name for name in tracked.split("\0") if name):
            if path.is_file():
                text = path.read_bytes().decode("utf-8", errors="replace")
                yield from ((path, number, line) for number, line in enumerate(text.splitlines(), 1))

    complain(
        f"{at(path, number)} names {found[0]}: leave registries to the installer's settings, make paths relative"
        for path, number, line in lines()
        if (found := REGISTRY.search(line) or MACHINE.search(line))
    )
