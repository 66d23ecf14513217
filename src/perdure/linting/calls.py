"""L001, L002, L005, L006, L007, L010, and a `receive` without a type: what a workflow's code names and calls."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from typing import NamedTuple

from perdure.linting import tables
from perdure.linting.names import Known, Names
from perdure.workflow.asks import ask
from perdure.workflow.definitions import Step, Workflow
from perdure.workflow.messages import messages, receive


class Seen(NamedTuple):
    """A finding before it has its place in a file."""

    code: str
    message: str
    node: ast.expr | ast.stmt
    cure: str = ""  # where the rule's is too general


Check = Callable[[ast.AST, Names], Iterator[Seen]]


def check(node: ast.AST, names: Names) -> Iterator[Seen]:
    """What these rules say of one node."""
    match node:
        case ast.Call():
            yield from _call(node, names)
        case ast.Expr(value=ast.Call() as call):
            yield from _not_awaited(call, names)
        case ast.Name(ctx=ast.Load()) | ast.Attribute(ctx=ast.Load()):
            known = names.resolve(node)
            name = _listed(known, tables.ENVIRONMENT)
            if name is not None:
                yield Seen("L006", f"{name} differs between machines and over time.", node)
        case _:
            pass


def _listed(known: Known | None, table: frozenset[str]) -> str | None:
    return None if known is None else next((name for name in known.names if name in table), None)


RULES: list[tuple[str, frozenset[str], str, str]] = [
    ("L001", tables.CLOCKS, "{} reads the wall clock, which no guard can see.", ""),
    ("L002", tables.CHANCE, "{} is refused inside a workflow.", ""),
    ("L005", tables.FILES, "{} touches files.", ""),
    ("L005", tables.NETWORK, "{} talks to the network.", ""),
    ("L005", tables.PROCESSES, "{} starts or ends processes.", ""),
    ("L005", tables.BLOCKING, "{} blocks every execution of the worker.", "Write `await asyncio.sleep(...)`."),
    ("L007", tables.THREADS, "{} leaves the workflow's loop.", ""),
]
CAPTURED: list[tuple[str, frozenset[str], str]] = [
    ("L001", tables.GUARDED_CLOCKS, "perdure.now()"),
    ("L002", tables.GUARDED_CHANCE, "perdure.random() or perdure.uuid4()"),
]


def _call(call: ast.Call, names: Names) -> Iterator[Seen]:
    known = names.resolve(call.func)
    if known is None:
        yield from _method_of_something(call, names)
        return
    for code, table, message, cure in RULES:
        name = _listed(known, table)
        if name is not None:
            yield Seen(code, message.format(_shown(name)), call, cure)
            return
    yield from _captured(call, known)
    if _listed(known, tables.UNSEEDED) and not call.args and not call.keywords:
        yield Seen("L002", "random.Random() without a seed seeds itself.", call)
    if known.value is receive or known.value is messages or known.value is ask:
        yield from _receive(call)
    yield from _method_of_something(call, names)


def _shown(name: str) -> str:
    return f"{name.removeprefix('builtins.')}()"


def _captured(call: ast.Call, known: Known) -> Iterator[Seen]:
    for code, table, instead in CAPTURED:
        name = _listed(known, table)
        if name is not None and known.captured:
            module = name.partition(".")[0]
            message = f"{ast.unparse(call.func)} is {name}, bound when this module was imported: guards do not see it."
            yield Seen(code, message, call, f"Write `import {module}` and `{name}(...)`, or use {instead}.")


def _method_of_something(call: ast.Call, names: Names) -> Iterator[Seen]:
    match call.func:
        case ast.Attribute(attr=attr) if attr in tables.EXECUTOR_METHODS:
            yield Seen("L007", f".{attr}() leaves the workflow's loop.", call)
        case ast.Attribute(attr=attr, value=base) if attr in tables.PATH_METHODS:
            kind = names.type_of(base)
            if attr in tables.PATH_METHODS_OF_ANYTHING or (kind is not None and _is_path(kind)):
                yield Seen("L005", f".{attr}() touches files.", call)
        case _:
            pass


def _is_path(kind: type) -> bool:
    return any(each.__module__.partition(".")[0] == "pathlib" and not _is_pure(each) for each in kind.__mro__)


def _is_pure(kind: type) -> bool:
    return kind.__name__.startswith("Pure") or kind is object


def _receive(call: ast.Call) -> Iterator[Seen]:
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg is None)]
    if len(given) < 2 and not any(isinstance(each, ast.Starred) for each in call.args):
        cure = "Write the type after the name or the question; where any data is meant, `# perdure: allow L004`."
        yield Seen("L004", "A message is received without a type: it arrives as plain data.", call, cure)


def _not_awaited(call: ast.Call, names: Names) -> Iterator[Seen]:
    if makes_coroutine(call.func, names):
        yield Seen("L010", f"{ast.unparse(call.func)}(...) is not awaited: it never runs.", call)


def makes_coroutine(func: ast.expr, names: Names) -> bool:
    """Whether calling it gives something to await: a step, a workflow, an `async def`."""
    if isinstance(func, ast.Name):
        layer = names.layer_of(func.id)
        if layer is not None:
            return isinstance(layer.functions.get(func.id), ast.AsyncFunctionDef) and len(layer.assigned[func.id]) == 1
    known = names.resolve(func)
    if known is None:
        return False
    return isinstance(known.value, Step | Workflow) or _is_async(known.value)


def _is_async(value: object) -> bool:
    return inspect.iscoroutinefunction(value)
