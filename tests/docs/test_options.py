"""What a program can set is told where its reader looks: in the docstring that the reference shows, or on a page."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import perdure
import perdure.encryption
import perdure.testing
from perdure.testing import golden

ROOT = Path(__file__).parents[2]
MODULES = (perdure, perdure.testing, golden, perdure.encryption)
MADE_BY_DECORATORS = (perdure.Step, perdure.Workflow)
VARIABLE = re.compile(r"\bPERDURE_[A-Z]+\b")


def options() -> Iterator[tuple[str, str, str]]:
    """Every keyword-only parameter of a public function, class or method, with the docstring that should tell of it."""
    for module in MODULES:
        for name in getattr(module, "__all__", None) or _own(module):
            thing = getattr(module, name)
            if inspect.isfunction(thing) or isinstance(thing, type):
                yield from _of(f"{module.__name__}.{name}", thing)


def _own(module: ModuleType) -> list[str]:
    return [
        name for name, it in vars(module).items() if getattr(it, "__module__", "") == module.__name__ and name[0] != "_"
    ]


def _of(name: str, thing: Any) -> Iterator[tuple[str, str, str]]:
    if isinstance(thing, type) and issubclass(thing, BaseException):
        return  # raised, not made
    docstring = inspect.getdoc(thing) or ""
    is_made = not isinstance(thing, type) or "__init__" in vars(thing) or "__struct_fields__" in vars(thing)
    if is_made and thing not in MADE_BY_DECORATORS:
        yield from ((name, option, docstring) for option in _parameters(thing))
    for part, method in inspect.getmembers(thing, inspect.isfunction) if isinstance(thing, type) else ():
        if not part.startswith("_") and method.__module__.startswith("perdure"):
            found = inspect.getdoc(method) or ""
            yield from ((f"{name}.{part}", option, found) for option in _parameters(method))


def _parameters(thing: Any) -> list[str]:
    """Those that are given by name."""
    return [each.name for each in inspect.signature(thing).parameters.values() if each.kind is each.KEYWORD_ONLY]


OPTIONS = list(options())


@pytest.mark.parametrize(
    ("name", "option", "docstring"), OPTIONS, ids=[f"{name}({option})" for name, option, _ in OPTIONS]
)
def test_every_option_is_told_of(name: str, option: str, docstring: str) -> None:
    assert re.search(rf"\b{option.rstrip('_')}\b", docstring), f"{name}: say what {option} is"


def test_the_options_that_count_are_among_them() -> None:
    found = {(name, option) for name, option, _ in OPTIONS}
    assert {("perdure.Engine", "durability"), ("perdure.step", "retry"), ("perdure.Handle.signal", "id")} <= found


def test_every_setting_of_the_environment_is_told_of() -> None:
    code = (path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    settings = {name for text in code for name in VARIABLE.findall(text)}
    pages = "\n".join(path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.md"))
    assert "PERDURE_STORE" in settings
    assert settings <= set(VARIABLE.findall(pages))
