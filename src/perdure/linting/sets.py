"""L003: an order that a set decides, where it decides the order of commands or goes into one.

Sets of whole numbers and of tasks iterate alike on every run; so does what was sorted. What cannot be told is let pass.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from perdure.linting import tables
from perdure.linting.calls import Seen, makes_coroutine
from perdure.linting.names import FUNCTIONS, Known, Names, within
from perdure.linting.orders import Kind, kind_of
from perdure.workflow.context import start_child
from perdure.workflow.definitions import Step, Workflow

BY_CHANCE = (Kind.SET, Kind.SHUFFLED, Kind.MAYBE)


def check(node: ast.AST, names: Names) -> Iterator[Seen]:
    """What this rule says of one node."""
    match node:
        case ast.For(iter=source, target=target, body=body) | ast.AsyncFor(iter=source, target=target, body=body):
            kind = kind_of(source, names)
            if kind in BY_CHANCE and commands(body, names) and not (kind is Kind.MAYBE and _are_tasks(target, body)):
                yield _seen(source, "the order of what the loop does")
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            yield from _comprehension(node, names)
        case ast.Call():
            yield from _call(node, names)
        case _:
            pass


def _seen(source: ast.expr, what: str) -> Seen:
    text = ast.unparse(source)
    shown = text if len(text) <= 40 else f"{text[:39]}…"
    return Seen("L003", f"A set ({shown}) decides {what}.", source)


def _comprehension(node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp, names: Names) -> Iterator[Seen]:
    values: list[ast.AST] = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
    inner = names.inside(node)
    for generator in node.generators:
        kind = kind_of(generator.iter, names if generator is node.generators[0] else inner)
        if kind in BY_CHANCE and commands([*values, *generator.ifs], inner):
            if kind is Kind.MAYBE and _are_tasks(generator.target, values):
                continue
            yield _seen(generator.iter, "the order of what is started here")


def _call(call: ast.Call, names: Names) -> Iterator[Seen]:
    known = names.resolve(call.func)
    if known is not None:
        yield from _handed_over(call, known, names)
    match call:
        case ast.Call(func=ast.Name(id="map"), args=[function, *sources]) if makes_coroutine(function, names):
            for source in sources:
                if kind_of(source, names) in {Kind.SET, Kind.SHUFFLED}:
                    yield _seen(source, "the order of what is started here")
        case (
            ast.Call(func=ast.Attribute(value=base, attr="pop"), args=[])
            | ast.Call(func=ast.Name(id="next"), args=[ast.Call(func=ast.Name(id="iter"), args=[base])])
        ):
            if kind_of(base, names) is Kind.SET and _function_commands(names):
                yield _seen(base, "which item comes first")
        case _:
            pass


def _handed_over(call: ast.Call, known: Known, names: Names) -> Iterator[Seen]:
    arguments = [each.value if isinstance(each, ast.Starred) else each for each in call.args]
    if tables.GATHERERS & set(known.names):
        for argument in arguments:
            if _holds_coroutines(argument, names):
                yield _seen(argument, "the order of what is gathered")
    elif _is_command(known.value):
        for argument in [*arguments, *(keyword.value for keyword in call.keywords)]:
            if kind_of(argument, names) is Kind.SHUFFLED:
                yield _seen(argument, "what is handed over")


def _holds_coroutines(expr: ast.expr, names: Names) -> bool:
    """A set of coroutines, which hash by address. What else is gathered are tasks and futures: those iterate alike."""
    match expr:
        case ast.SetComp(elt=item):
            return _is_coroutine(item, names.inside(expr))
        case ast.Set(elts=items):
            return len(items) > 1 and any(_is_coroutine(item, names) for item in items)
        case ast.Call(func=ast.Name(id="set" | "frozenset"), args=[ast.GeneratorExp() | ast.ListComp() as inner]):
            return _is_coroutine(inner.elt, names.inside(inner))
        case ast.Name(id=name):
            layer = names.layer_of(name)
            values = layer.assigned.get(name, ()) if layer is not None else ()
            return any(value is not None and _holds_coroutines(value, names) for value in values)
        case _:
            return False


def _is_coroutine(item: ast.expr, names: Names) -> bool:
    return isinstance(item, ast.Call) and makes_coroutine(item.func, names)


def _is_command(value: object) -> bool:
    return isinstance(value, Step | Workflow) or value is start_child


# --- what asks for something -----------------------------------------------------------------------------------------


def commands(nodes: Sequence[ast.AST], names: Names) -> bool:
    """Whether this awaits, or starts something to be awaited."""
    return any(_commands(node, names) for node in within(nodes))


def _commands(node: ast.AST, names: Names) -> bool:
    match node:
        case ast.Await() | ast.AsyncFor() | ast.AsyncWith():
            return True
        case ast.comprehension(is_async=1):
            return True
        case ast.Call(func=ast.Attribute(attr=attr)) if attr in tables.TASK_MAKERS:
            return True
        case ast.Call(func=func):
            return makes_coroutine(func, names)
        case _:
            return False


def _function_commands(names: Names) -> bool:
    function = next(layer.node for layer in reversed(names.layers) if isinstance(layer.node, FUNCTIONS))
    body = function.body if isinstance(function.body, list) else [function.body]
    return commands(body, names)


def _are_tasks(target: ast.expr, body: Sequence[ast.AST]) -> bool:
    """Whether the items themselves are awaited or cancelled: then they are tasks, which iterate alike."""
    if not isinstance(target, ast.Name):
        return False
    return any(_is_of_a_task(node, target.id) for node in within(body))


def _is_of_a_task(node: ast.AST, wanted: str) -> bool:
    match node:
        case (
            ast.Await(value=ast.Name(id=name))
            | ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="cancel" | "result" | "done" | "exception"))
        ):
            return name == wanted
        case _:
            return False
