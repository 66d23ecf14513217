"""L008: state outside the run. L009: cancellation that is swallowed."""

from __future__ import annotations

import ast
import collections
from collections.abc import Iterator
from contextvars import ContextVar
from types import ModuleType

from perdure.linting.calls import Seen
from perdure.linting.names import MISSING, Names, within

MUTABLE = (list, dict, set, bytearray, collections.deque)
MUTATORS = frozenset(
    [
        "add",
        "append",
        "appendleft",
        "clear",
        "difference_update",
        "discard",
        "extend",
        "extendleft",
        "insert",
        "intersection_update",
        "pop",
        "popitem",
        "popleft",
        "remove",
        "reverse",
        "rotate",
        "setdefault",
        "sort",
        "subtract",
        "symmetric_difference_update",
        "update",
    ]
)


def check(node: ast.AST, names: Names) -> Iterator[Seen]:
    """What these rules say of one node."""
    match node:
        case ast.Global(names=listed):
            yield Seen("L008", f"global {', '.join(listed)}: it is forgotten in a crash, and shared by all.", node)
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            for target in targets:
                yield from _target(target, names)
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
            yield from _target(target, names)
        case ast.Call(func=ast.Attribute(value=base, attr=attr)) if attr in MUTATORS:
            yield from _mutated(node, base, attr, names)
        case ast.Try() | ast.TryStar():
            yield from _handlers(node, names)
        case ast.With(items=items):
            for item in items:
                yield from _suppressed(item.context_expr, node, names)
        case _:
            pass


# --- state outside ---------------------------------------------------------------------------------------------------


def _target(target: ast.expr, names: Names) -> Iterator[Seen]:
    match target:
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            for element in elements:
                yield from _target(element, names)
        case ast.Subscript(value=base) | ast.Attribute(value=base):
            known = names.resolve(base)
            if known is not None and known.value is not MISSING and not isinstance(known.value, ContextVar):
                what = "A module" if isinstance(known.value, ModuleType) else ast.unparse(base)
                yield Seen("L008", f"{what} lives outside the run, and is changed here.", target)
        case _:
            pass


def _mutated(call: ast.expr, base: ast.expr, attr: str, names: Names) -> Iterator[Seen]:
    known = names.resolve(base)
    if known is not None and isinstance(known.value, MUTABLE):
        yield Seen("L008", f"{ast.unparse(base)} lives outside the run, and .{attr}() changes it.", call)


# --- cancellation ----------------------------------------------------------------------------------------------------


def _handlers(node: ast.Try | ast.TryStar, names: Names) -> Iterator[Seen]:
    if not _awaits(node.body):
        return
    for handler in node.handlers:
        if _catches_all(handler.type, names) and not _raises(handler.body):
            what = "`except:`" if handler.type is None else "`except BaseException`"
            yield Seen(
                "L009", f"{what} also catches cancellation, and what ends a workflow in memory.", _first(handler)
            )
            return


def _first(handler: ast.ExceptHandler) -> ast.expr | ast.stmt:
    """A handler is no statement, but has a line: that of its `except`."""
    place = ast.Pass()
    return ast.copy_location(place, handler) if handler.type is None else handler.type


def _catches_all(kind: ast.expr | None, names: Names) -> bool:
    if kind is None:
        return True
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any((known := names.resolve(each)) is not None and known.value is BaseException for each in kinds)


def _suppressed(expr: ast.expr, node: ast.With, names: Names) -> Iterator[Seen]:
    match expr:
        case ast.Call(func=func, args=kinds):
            known = names.resolve(func)
            is_suppress = known is not None and "contextlib.suppress" in known.names
            if is_suppress and _awaits(node.body) and any(_catches_all(kind, names) for kind in kinds):
                yield Seen("L009", "suppress(BaseException) also swallows cancellation.", expr)
        case _:
            pass


def _awaits(body: list[ast.stmt]) -> bool:
    return any(isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith) for node in within(body))


def _raises(body: list[ast.stmt]) -> bool:
    return any(isinstance(node, ast.Raise) for node in within(body))
