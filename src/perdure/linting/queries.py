"""L011: a query, or an update's validator, that changes what the workflow knows.

Only what stands in the function itself is looked at, not what it calls.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from perdure.linting.calls import Seen
from perdure.linting.names import SCOPES, Layer
from perdure.linting.source import FunctionNode
from perdure.linting.state import MUTATORS

SETTERS = frozenset({"setattr", "delattr"})
MOST_NAMES = 20  # that one after the other stand for the same


def check(node: FunctionNode, kind: str, around: tuple[Layer, ...], *, is_method: bool) -> Iterator[Seen]:
    """Of a function that may only look: `around` are the scopes that it stands in, which its workflow shares."""
    state = _State(node, around, is_method=is_method)
    for each in ast.walk(ast.Module(node.body, [])):
        what = state.changed_by(each)
        if what and isinstance(each, ast.expr | ast.stmt):
            yield Seen("L011", f"{kind} {node.name} changes {what}: no journal knows, and replay forgets it.", each)


def validator(name: str, around: tuple[Layer, ...]) -> Iterator[Seen]:
    """Of a validator of this name, if it is a function in these scopes."""
    nested = [layer.functions[name] for layer in around if name in layer.functions]
    for each in nested[-1:]:
        yield from check(each, "Validator", around, is_method=False)


class _State:
    """What in such a function is the workflow's: its `self`, and names of the scopes around."""

    def __init__(self, node: FunctionNode, around: tuple[Layer, ...], *, is_method: bool) -> None:
        self._own = Layer(node)
        self._bound = set(self._own.bound)
        for each in ast.walk(ast.Module(node.body, [])):
            if isinstance(each, SCOPES):
                self._bound |= Layer(each).bound
        parameters = [*node.args.posonlyargs, *node.args.args]
        self._self = parameters[0].arg if is_method and parameters else ""
        self._shared = {
            name for layer in around for name in layer.bound - layer.imports.keys() - layer.functions.keys()
        }

    def changed_by(self, node: ast.AST) -> str:
        """What a node changes, as it is written; empty: nothing that is known."""
        match node:
            case ast.Nonlocal(names=names) | ast.Global(names=names):
                return ", ".join(name for name in names if name not in self._own.bound)
            case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
                return ast.unparse(node) if self._is_shared(node.value) else ""
            case ast.Call():
                return self._changed_by_call(node)
            case _:
                return ""

    def _changed_by_call(self, call: ast.Call) -> str:
        match call:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name))) if name == self._self:
                return ""  # a method of its own
            case ast.Call(func=ast.Attribute(value=base, attr=attr)) if attr in MUTATORS and self._is_shared(base):
                return f"{ast.unparse(base)} by .{attr}()"
            case ast.Call(func=ast.Name(id=name), args=[base, *_]) if name in SETTERS and self._is_shared(base):
                return f"{ast.unparse(base)} by {name}()"
            case _:
                return ""

    def _is_shared(self, expr: ast.expr) -> bool:
        """Whether this, or what it is a part of, is the workflow's. What calls return, and slices, are not."""
        for _ in range(MOST_NAMES):
            match expr:
                case ast.Attribute(value=base):
                    expr = base
                case ast.Subscript(value=base, slice=part) if not isinstance(part, ast.Slice):
                    expr = base
                case ast.Name(id=name) if name == self._self:
                    return True
                case ast.Name(id=name) if name not in self._bound:
                    return name in self._shared
                case ast.Name(id=name) if (alias := self._alias(name)) is not None:
                    expr = alias
                case _:
                    return False
        return False

    def _alias(self, name: str) -> ast.expr | None:
        """What a name of its own stands for, if it is given one thing only."""
        values = self._own.assigned.get(name, [])
        return values[0] if len(values) == 1 else None
