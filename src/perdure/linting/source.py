"""From a function to its syntax tree, its file and what it can name; and the comments that allow a finding."""

from __future__ import annotations

import ast
import inspect
import linecache
import re
from collections.abc import Mapping
from functools import lru_cache, partial
from types import CellType, FunctionType, MappingProxyType
from typing import Any, NamedTuple

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
ALLOWED = re.compile(r"#\s*perdure:\s*allow\s+(L\d{3}(?:\s*,\s*L\d{3})*)")


class Code(NamedTuple):
    """A function that was found in its file."""

    node: FunctionNode
    file: str
    name: str
    namespace: Mapping[str, Any]
    """What its free names mean: its module's globals, and what it closes over."""
    owner: type | None = None
    """The class whose method it is."""


def plain(fn: Any) -> FunctionType | None:
    """The function below decorators, partials and methods; None if there is none that was written in Python."""
    for _ in range(100):
        if isinstance(fn, partial):
            fn = fn.func
        elif isinstance(fn, staticmethod | classmethod) or inspect.ismethod(fn):
            fn = fn.__func__
        elif hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__
        else:
            break
    return fn if isinstance(fn, FunctionType) else None


def code_of(fn: FunctionType, owner: type | None = None) -> Code | None:
    """The function in its file; None if its source is not there, or is not what runs."""
    found = _functions(fn.__code__.co_filename).get((fn.__code__.co_firstlineno, fn.__name__))
    if found is None:
        found = _functions(fn.__code__.co_filename).get((fn.__code__.co_firstlineno, fn.__code__.co_name))
    if found is None:
        return None
    closure = fn.__closure__ or ()
    cells = {name: cell for name, cell in zip(fn.__code__.co_freevars, closure, strict=True) if _is_filled(cell)}
    closed = {name: cell.cell_contents for name, cell in cells.items()}
    name = fn.__qualname__.replace("<locals>.", "")
    return Code(found, fn.__code__.co_filename, name, MappingProxyType({**fn.__globals__, **closed}), owner)


def _is_filled(cell: CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


@lru_cache(maxsize=512)
def _functions(file: str) -> dict[tuple[int, str], FunctionNode]:
    """The functions of a file by the line where a code object says that they begin: that of the first decorator."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return {}
    nodes = [node for node in ast.walk(tree) if isinstance(node, FunctionNode)]
    return {(min([node.lineno, *(each.lineno for each in node.decorator_list)]), node.name): node for node in nodes}


def forget() -> None:
    """Read files anew: they may have changed since the last time."""
    linecache.checkcache()
    _functions.cache_clear()


def is_allowed(code: str, file: str, first: int, last: int) -> bool:
    """Whether a comment on one of these lines says that a finding is meant."""
    lines = (linecache.getline(file, number) for number in range(first, last + 1))
    return any(code in found[1] for line in lines if (found := ALLOWED.search(line)))
