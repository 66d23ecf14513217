"""Who may import whom: the table of docs/design.md, as data. What it does not allow is not imported."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "perdure"
PARTS = sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py")))

# Whoever is written on the public names alone imports `perdure` itself, as a user would.
PUBLIC = "perdure"

# A part may import itself and these: modules of ours, by prefix. The part "" is the modules at the package's root.
MAY_IMPORT = {
    "": [
        PUBLIC,
        "perdure.cli",
        "perdure.core",
        "perdure.workflow",
        "perdure.runtime",
        "perdure.store",
        "perdure.linting",
    ],
    "core": [],
    "workflow": ["perdure.core"],
    "runtime": [
        "perdure.core",
        "perdure.workflow",
        "perdure.store.codec",
        "perdure.store.open",
        "perdure.store.protocol",
        "perdure.store.sealing",
    ],
    "store": ["perdure.core"],
    "linting": ["perdure.core", "perdure.workflow"],
    "rpc": [PUBLIC],
    # The simulator drives the production code itself, not what users see of it.
    "testing": [PUBLIC, "perdure.core", "perdure.workflow", "perdure.runtime", "perdure.store"],
    "integrations": [PUBLIC],
    "dashboard": [PUBLIC, "perdure.store.reader"],
    "cli": [PUBLIC, "perdure.store.reader", "perdure.testing.golden"],
}

# Beside ours: what core may import at all (it is pure), and who may import which third-party package.
CORE_MAY_IMPORT = {
    "__future__",
    "collections",
    "collections.abc",
    "dataclasses",
    "datetime.timedelta",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "operator",
    "math",
    "msgspec",
    "re",
    "types",
    "typing",
}
CORE_MAY_NOT_CALL = {"breakpoint", "input", "open", "print"}
THIRD_PARTY = {
    "msgspec": {"", "core", "workflow", "runtime", "store", "linting", "testing", "cli"},
    "apsw": {"store"},
    "cryptography": {""},  # perdure.encryption, when it is used
    "click": {"cli"},
    "rich": {"cli"},
    "pydantic": {"workflow", "integrations"},
    "pydantic_core": {"workflow"},  # when pydantic asks a Secret for its schema
    "sqlalchemy": {""},  # transactions; only loaded where there is a datasource (test_imports.py)
    "pytest": {"testing"},  # the plugin, which pytest itself imports
    "anyio": {"testing"},  # some of the simulator's shapes; left out where it is not installed
}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every import of a file, wherever it stands, as (line, dotted name of what is imported)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(level=0, module=str(module), names=names):
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in names)
            case ast.ImportFrom():
                yield node.lineno, "." * node.level + (node.module or "")


def all_imports(part: str) -> list[tuple[str, str]]:
    """(where, imported name) of a part; the package's root modules are the part ''."""
    files = (PACKAGE / part).rglob("*.py") if part else PACKAGE.glob("*.py")
    return [
        (f"src/perdure/{path.relative_to(PACKAGE)}:{line}", name)
        for path in sorted(files)
        for line, name in imports(path)
    ]


def under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def is_public(name: str) -> bool:
    """`perdure` itself, or what stands at its root: nothing inside one of its parts."""
    root, _, rest = name.partition(".")
    return root == PUBLIC and rest.split(".")[0] not in PARTS


def allowed(part: str, name: str) -> bool:
    return any(
        is_public(name) if prefix == PUBLIC else under(name, prefix)
        for prefix in [f"perdure.{part}", *MAY_IMPORT[part]]
    )


def test_every_part_stands_in_the_table() -> None:
    assert set(PARTS) <= set(MAY_IMPORT), "a new part of the package: add its row here and in docs/design.md"


@pytest.mark.parametrize("part", ["", *PARTS])
def test_a_part_imports_only_what_the_table_allows(part: str) -> None:
    offences = [
        f"{where} imports {name}; {part or 'the root'} may import {MAY_IMPORT[part] or 'nothing of ours'}: "
        "move what is shared down a layer, or let it be passed in"
        for where, name in all_imports(part)
        if under(name, "perdure") and not allowed(part, name)
    ]
    assert not offences, "\n".join(["", *offences])


def test_imports_are_absolute() -> None:
    offences = [
        f"{where} imports {name}: write the whole name, which says what layer it is of"
        for part in ["", *PARTS]
        for where, name in all_imports(part)
        if name.startswith(".")
    ]
    assert not offences, "\n".join(["", *offences])


@pytest.mark.parametrize("part", ["", *PARTS])
def test_third_parties_stay_where_they_belong(part: str) -> None:
    offences = [
        f"{where} imports {name}: only {sorted(THIRD_PARTY.get(package, []))} may; "
        "ask the part that owns it, or give the package its row here and its reason in docs/decisions/"
        for where, name in all_imports(part)
        if (package := name.partition(".")[0]) not in {"", "perdure", *sys.stdlib_module_names}
        and part not in THIRD_PARTY.get(package, ())
    ]
    assert not offences, "\n".join(["", *offences])


def test_core_is_pure() -> None:
    offences = [
        f"{where} imports {name}: core has no I/O, clock, randomness, asyncio or logging; "
        "let the caller pass in what it yields"
        for where, name in all_imports("core")
        if not under(name, "perdure.core") and not any(under(name, prefix) for prefix in CORE_MAY_IMPORT)
    ]
    offences += [
        f"src/perdure/core/{path.name}:{node.lineno} calls {node.func.id}: core has no I/O"
        for path in sorted((PACKAGE / "core").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CORE_MAY_NOT_CALL
    ]
    assert not offences, "\n".join(["", *offences])


def test_only_the_environment_reads_the_clock_and_entropy() -> None:
    sources = {"time", "random", "secrets", "uuid", "datetime.datetime"}
    offences = [
        f"{where} imports {name}: runtime/environment.py alone reads clock, entropy and ids; take it from there"
        for where, name in all_imports("runtime")
        if "runtime/environment.py" not in where and any(under(name, source) for source in sources)
    ]
    assert not offences, "\n".join(["", *offences])
