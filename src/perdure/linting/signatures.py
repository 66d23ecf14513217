"""L004: parameters and results of steps and workflows without an annotation."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from perdure.linting.calls import Seen
from perdure.linting.source import Code


def check(code: Code, kind: str) -> Iterator[Seen]:
    """Of one step's or workflow's function."""
    bare = [each.arg for each in _parameters(code) if each.annotation is None]
    place = ast.copy_location(ast.Pass(), code.node)
    place.end_lineno = code.node.body[0].lineno - 1
    if bare:
        plural = "s" if len(bare) > 1 else ""
        yield Seen("L004", f"{kind} {code.name} has no annotation for its parameter{plural} {', '.join(bare)}.", place)
    if code.node.returns is None:
        yield Seen("L004", f"{kind} {code.name} has no annotation for its result.", place)


def _parameters(code: Code) -> Iterator[ast.arg]:
    arguments = code.node.args
    for number, each in enumerate([*arguments.posonlyargs, *arguments.args]):
        if number or "." not in code.name or each.arg not in {"self", "cls"}:
            yield each
    yield from arguments.kwonlyargs
    yield from (each for each in (arguments.vararg, arguments.kwarg) if each is not None)
