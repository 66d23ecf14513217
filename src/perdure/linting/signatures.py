"""L004: parameters and results of steps, workflows and handlers without an annotation."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from perdure.linting.calls import Seen
from perdure.linting.names import Names
from perdure.linting.source import Code, FunctionNode

SIGNAL = "Signal"  # what its handler returns goes nowhere
HANDLERS = {
    "perdure.workflow.messages.on_query": "Query",
    "perdure.workflow.messages.on_signal": SIGNAL,
    "perdure.workflow.messages.on_update": "Update",
}


def check(code: Code, kind: str) -> Iterator[Seen]:
    """Of one function: a step's, a workflow's, or a handler's."""
    bare = [each.arg for each in _parameters(code) if each.annotation is None]
    place = ast.copy_location(ast.Pass(), code.node)
    place.end_lineno = code.node.body[0].lineno - 1
    if bare:
        plural = "s" if len(bare) > 1 else ""
        yield Seen("L004", f"{kind} {code.name} has no annotation for its parameter{plural} {', '.join(bare)}.", place)
    if code.node.returns is None and kind != SIGNAL:
        yield Seen("L004", f"{kind} {code.name} has no annotation for its result.", place)


def handler(node: FunctionNode, names: Names) -> str:
    """What a function handles, by its decorators: "Query", "Update", "Signal"; or nothing."""
    for decorator in node.decorator_list:
        known = names.resolve(decorator.func if isinstance(decorator, ast.Call) else decorator)
        kinds = [HANDLERS[name] for name in known.names if name in HANDLERS] if known is not None else []
        if kinds:
            return kinds[0]
    return ""


def validators(node: FunctionNode) -> list[str]:
    """Names of the functions that a handler gives as its validator."""
    calls = [each for each in node.decorator_list if isinstance(each, ast.Call)]
    given = [keyword.value for call in calls for keyword in call.keywords if keyword.arg == "validator"]
    return [each.id for each in given if isinstance(each, ast.Name)]


def _parameters(code: Code) -> Iterator[ast.arg]:
    arguments = code.node.args
    for number, each in enumerate([*arguments.posonlyargs, *arguments.args]):
        if number or "." not in code.name or each.arg not in {"self", "cls"}:
            yield each
    yield from arguments.kwonlyargs
    yield from (each for each in (arguments.vararg, arguments.kwarg) if each is not None)
