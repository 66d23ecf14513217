"""From workflows to findings: through the user's own functions, never into steps or libraries."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from types import FunctionType
from typing import Any

from perdure.linting import calls, names, queries, sets, signatures, source, state
from perdure.linting.calls import Seen
from perdure.linting.findings import RULES, Finding
from perdure.linting.names import SCOPES, Names
from perdure.linting.source import Code, FunctionNode, code_of, plain
from perdure.workflow.definitions import Step, Workflow
from perdure.workflow.location import is_installed

CHECKS: tuple[calls.Check, ...] = (calls.check, state.check, sets.check)
OURS = ("perdure.core", "perdure.workflow", "perdure.runtime", "perdure.linting")


def findings_in(definitions: Iterable[Workflow[..., Any] | Step[..., Any]]) -> list[Finding]:
    """Of these and everything that can be reached from them, in the order of files and lines."""
    source.forget()
    names.forget()
    walk = _Walk()
    for each in definitions:
        walk.begin(each)
    walk.go()
    return sorted(walk.findings, key=lambda found: (found.file, found.line, found.column, found.code))


class _Walk:
    """Through everything that can be reached from where it began, each function once."""

    def __init__(self) -> None:
        self.findings: set[Finding] = set()
        self._seen: set[object] = set()
        self._todo: list[Code] = []
        self._home = ""

    def begin(self, definition: Workflow[..., Any] | Step[..., Any]) -> None:
        """A workflow with all its code; of a step, its annotations."""
        kind = "Workflow" if isinstance(definition, Workflow) else "Step"
        fn = plain(definition.fn)
        if fn is None or fn in self._seen:
            return
        self._seen.add(fn)
        self._home = self._home or fn.__module__.partition(".")[0]
        owner = definition.cls if isinstance(definition, Workflow) else None
        code = code_of(fn, owner)
        if code is None:
            self._unreadable(fn)
            return
        self._report(signatures.check(code, kind), code)
        if kind == "Workflow":
            self._todo.append(code)
        if owner is not None:
            self._methods(owner)

    def _methods(self, owner: type) -> None:
        """Of a workflow that is a class: whoever calls them, they run within the run."""
        for each in owner.__mro__:
            for value in vars(each).values():
                if not isinstance(value, Step | type):
                    self._reach(value, owner)

    def go(self) -> None:
        """Until nothing new is reached."""
        while self._todo:
            code = self._todo.pop()
            self._handler(code.node, Names(code), code)
            for node, known in _nodes(code):
                for check in CHECKS:
                    self._report(check(node, known), code)
                self._follow(node, known)
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    self._handler(node, known, code)

    def _handler(self, node: FunctionNode, known: Names, code: Code) -> None:
        kind = signatures.handler(node, known)
        if kind:
            name = code.name if node is code.node else f"{code.name}.{node.name}"
            self._report(signatures.check(code._replace(node=node, name=name), kind), code)
            self._lookers(node, known, code, kind)

    def _lookers(self, node: FunctionNode, known: Names, code: Code, kind: str) -> None:
        """What may only look: a query, and the validator of an update."""
        owner = code.owner if node is code.node else None
        around = () if node is code.node else known.layers
        if kind == "Query":
            self._report(queries.check(node, kind, around, is_method=owner is not None), code)
        for name in signatures.validators(node):
            if owner is None:
                self._report(queries.validator(name, around), code)
                continue
            fn = plain(vars(owner).get(name))
            found = None if fn is None else code_of(fn, owner)
            if found is not None:
                self._report(queries.check(found.node, "Validator", (), is_method=True), found)

    def _follow(self, node: ast.AST, known: Names) -> None:
        if not isinstance(node, ast.Name | ast.Attribute) or not isinstance(node.ctx, ast.Load):
            return
        found = known.resolve(node)
        if found is None:
            return
        if isinstance(found.value, Step):
            self.begin(found.value)
        elif isinstance(found.value, type) and self._is_users(found.value.__module__, None):
            for name in ("__new__", "__init__", "__post_init__"):
                self._reach(vars(found.value).get(name), found.value)
        else:
            self._reach(found.value, found.owner)

    def _reach(self, value: object, owner: type | None) -> None:
        fn = plain(value)
        if fn is None or fn in self._seen or not self._is_users(fn.__module__, fn):
            return
        self._seen.add(fn)
        code = code_of(fn, owner)
        if code is not None:
            self._todo.append(code)

    def _is_users(self, module: str | None, fn: FunctionType | None) -> bool:
        """The user's own: neither Python's, nor an installed package's (unless that is where we began), nor ours."""
        if module is None or module.startswith(OURS) or module == "perdure":
            return False
        if module.partition(".")[0] == self._home:
            return True
        return fn is None or not (is_installed(fn.__code__.co_filename) or fn.__code__.co_filename.startswith("<"))

    def _unreadable(self, fn: FunctionType) -> None:
        code = Code(ast.parse("def f(): ...").body[0], fn.__code__.co_filename, fn.__qualname__, {})  # type: ignore[arg-type]
        place = ast.Pass(lineno=fn.__code__.co_firstlineno, col_offset=0)
        self._report([Seen("L000", f"The source of {fn.__qualname__} is not there, or is not what runs.", place)], code)

    def _report(self, seen: Any, code: Code) -> None:
        for each in seen:
            line, last = each.node.lineno, each.node.end_lineno or each.node.lineno
            if not source.is_allowed(each.code, code.file, line, last):
                cure = each.cure or RULES[each.code].cure
                column = each.node.col_offset + 1
                self.findings.add(Finding(each.code, each.message, code.file, line, column, code.name, cure))


def _nodes(code: Code) -> Iterator[tuple[ast.AST, Names]]:
    """Every node of a function with the names that hold there; what nested steps do is not the workflow's."""
    todo: list[tuple[ast.AST, Names]] = [(node, Names(code)) for node in reversed(code.node.body)]
    while todo:
        node, known = todo.pop()
        yield node, known
        if isinstance(node, SCOPES):
            inner = known.inside(node)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if not _is_step(node, known):
                    todo.extend((each, inner) for each in reversed(node.body))
                continue
            todo.extend((each, inner) for each in reversed(list(ast.iter_child_nodes(node))))
        else:
            todo.extend((each, known) for each in reversed(list(ast.iter_child_nodes(node))))


def _is_step(node: ast.FunctionDef | ast.AsyncFunctionDef, known: Names) -> bool:
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        found = known.resolve(called)
        if found is not None and any(name.endswith(("definitions.step", "perdure.step")) for name in found.names):
            return True
    return False
