"""What is known of the order in which an expression iterates: whether a set has decided it, and of what."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from enum import Enum
from typing import get_args

from perdure.linting import tables
from perdure.linting.names import COMPREHENSIONS, Layer, Names, parsed
from perdure.linting.source import Code, code_of, plain


class Kind(Enum):
    """What is known of an expression's order."""

    OTHER = "not known to depend on a set"
    FIXED = "a set that iterates alike on every run"
    SET = "a set that does not"
    MAYBE = "a set of who knows what"
    SHUFFLED = "an order taken from a set"


SET_TYPES = (set, frozenset)
SETS = frozenset({"set", "frozenset", "Set", "FrozenSet", "AbstractSet", "MutableSet"})
FIXED_ITEMS = frozenset({"int", "bool", "Task", "Future"})
COMBINING = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy"})
KEEPING_ORDER = frozenset({"list", "tuple", "iter", "enumerate", "reversed", "zip", "map", "filter", "chain", "dict"})


def kind_of(expr: ast.expr, names: Names, depth: int = 0) -> Kind:
    """What is known of the order in which an expression iterates."""
    if depth > 20:
        return Kind.OTHER
    match expr:
        case ast.Name(id=name):
            return _of_name(name, names, depth)
        case ast.Attribute(value=base, attr=attr):
            owner = names.type_of(base)
            return Kind.OTHER if owner is None else _of_attribute(owner, attr, depth)
        case ast.Call():
            return _of_call(expr, names, depth)
        case ast.BinOp(left=left, right=right, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor()):
            return _of_sides(left, right, names, depth)
        case ast.IfExp(body=one, orelse=other):
            return _together([kind_of(one, names, depth + 1), kind_of(other, names, depth + 1)])
        case ast.Starred(value=value) | ast.NamedExpr(value=value):
            return kind_of(value, names, depth + 1)
        case _:
            return _of_display(expr, names, depth)


def _of_display(expr: ast.expr, names: Names, depth: int) -> Kind:
    """`{a, b}`, and comprehensions."""
    match expr:
        case ast.Set(elts=items):
            return _of_items(items, names)
        case ast.SetComp(elt=item):
            return Kind.FIXED if _is_fixed(item, names.inside(expr)) else Kind.SET
        case ast.ListComp() | ast.GeneratorExp() | ast.DictComp():
            return _kept([expr.generators[0].iter], names, depth)
        case _:
            return Kind.OTHER


def _together(kinds: Sequence[Kind]) -> Kind:
    """Of several possibilities: only what is true of all."""
    found = set(kinds) - {Kind.FIXED}
    if not found:
        return Kind.FIXED if kinds else Kind.OTHER
    return found.pop() if len(found) == 1 else Kind.OTHER


def _of_items(items: Sequence[ast.expr], names: Names) -> Kind:
    alone = len(items) == 1 and not isinstance(items[0], ast.Starred)
    return Kind.FIXED if alone or all(_is_fixed(item, names) for item in items) else Kind.SET


def _is_fixed(item: ast.expr, names: Names) -> bool:
    """A whole number, or a task: they hash alike on every run."""
    match item:
        case ast.Constant(value=value):
            return isinstance(value, int)
        case ast.Call(func=ast.Attribute(attr=attr)) if attr in tables.TASK_MAKERS:
            return True
        case ast.Call(func=ast.Name(id="int" | "len" | "ord" | "round")):
            return True
        case ast.Name(id=name):
            layer = names.layer_of(name)
            return layer is not None and _is_fixed_local(name, layer, names)
        case _:
            return False


def _is_fixed_local(name: str, layer: Layer, names: Names) -> bool:
    if name in layer.annotations:
        return _last_name(parsed(layer.annotations[name])) in FIXED_ITEMS
    values = layer.assigned.get(name, [])
    if values and all(value is not None and _is_fixed(value, names) for value in values):
        return True
    return isinstance(layer.node, COMPREHENSIONS) and any(
        isinstance(generator.target, ast.Name) and generator.target.id == name and _counts(generator.iter)
        for generator in getattr(layer.node, "generators", ())
    )


def _counts(source: ast.expr) -> bool:
    return isinstance(source, ast.Call) and isinstance(source.func, ast.Name) and source.func.id == "range"


def _of_sides(left: ast.expr, right: ast.expr, names: Names, depth: int) -> Kind:
    kinds = {kind_of(left, names, depth + 1), kind_of(right, names, depth + 1)}
    if Kind.SET in kinds or _is_view(left) or _is_view(right):
        return Kind.SET
    if Kind.MAYBE in kinds:
        return Kind.MAYBE
    return Kind.FIXED if Kind.FIXED in kinds else Kind.OTHER


def _is_view(expr: ast.expr) -> bool:
    """`d.keys()`: what is combined of them is a set."""
    match expr:
        case ast.Call(func=ast.Attribute(attr="keys" | "items"), args=[]):
            return True
        case _:
            return False


def _of_call(call: ast.Call, names: Names, depth: int) -> Kind:
    match call.func:
        case ast.Name(id=name) if names.layer_of(name) is None:
            if name in {"set", "frozenset"}:
                return _of_constructor(call, names)
            if name in KEEPING_ORDER:
                return _kept(call.args, names, depth)
        case ast.Attribute(attr="join" | "fromkeys" | "chain" | "from_iterable"):
            return _kept(call.args, names, depth)
        case ast.Attribute(value=base, attr=attr) if attr in COMBINING:
            return kind_of(base, names, depth + 1)
        case _:
            pass
    return Kind.OTHER


def _kept(arguments: Sequence[ast.expr], names: Names, depth: int) -> Kind:
    kinds = {kind_of(argument, names, depth + 1) for argument in arguments}
    return Kind.SHUFFLED if kinds & {Kind.SET, Kind.SHUFFLED} else Kind.OTHER


def _of_constructor(call: ast.Call, names: Names) -> Kind:
    """`set(...)`."""
    match call.args:
        case []:
            return Kind.MAYBE
        case [ast.Call(func=ast.Name(id="range"))]:
            return Kind.FIXED
        case [ast.List(elts=items) | ast.Tuple(elts=items)]:
            return _of_items(items, names)
        case [ast.GeneratorExp(elt=item) | ast.ListComp(elt=item) as inner]:
            return Kind.FIXED if _is_fixed(item, names.inside(inner)) else Kind.SET
        case [ast.Name(id=name)]:
            return Kind.FIXED if _item_name(_annotation(name, names)) in FIXED_ITEMS else Kind.SET
        case _:
            return Kind.SET


def _annotation(name: str, names: Names) -> ast.expr | None:
    layer = names.layer_of(name)
    annotation = layer.annotations.get(name) if layer is not None else None
    return None if annotation is None else parsed(annotation)


# --- names -----------------------------------------------------------------------------------------------------------


def _of_name(name: str, names: Names, depth: int) -> Kind:
    layer = names.layer_of(name)
    if layer is None:
        known = names.resolve(ast.Name(id=name, ctx=ast.Load()))
        return _of_value(known.value) if known is not None else Kind.OTHER
    annotation = _annotation(name, names)
    if _last_name(annotation) in SETS:
        return _of_annotation(annotation)
    kinds = [Kind.OTHER if value is None else kind_of(value, names, depth + 1) for value in layer.assigned[name]]
    kind = _together(kinds)
    return _filled(name, layer, names) if kind is Kind.MAYBE else kind


def _of_annotation(annotation: ast.expr | None) -> Kind:
    if _last_name(annotation) not in SETS:
        return Kind.OTHER
    return Kind.FIXED if _item_name(annotation) in FIXED_ITEMS else Kind.SET


def _of_attribute(owner: type, attr: str, depth: int) -> Kind:
    """A field of a class, by its annotation there, or by what `__init__` makes it."""
    for each in owner.__mro__:
        annotation = inspect.get_annotations(each).get(attr)
        if annotation is not None:
            is_plain = isinstance(annotation, type) and not get_args(annotation)
            return _of_annotation(parsed(ast.Constant(annotation.__name__ if is_plain else str(annotation))))
    init = plain(vars(owner).get("__init__"))
    code = code_of(init, owner) if init is not None else None
    kinds = [_of_assignment(node, attr, code, depth) for node in ast.walk(code.node)] if code is not None else []
    return next((kind for kind in kinds if kind is not None), Kind.OTHER)


def _of_assignment(node: ast.AST, attr: str, code: Code, depth: int) -> Kind | None:
    match node:
        case ast.AnnAssign(target=ast.Attribute(attr=found), annotation=annotation) if found == attr:
            return _of_annotation(parsed(annotation))
        case ast.Assign(targets=[ast.Attribute(attr=found)], value=value) if found == attr:
            return kind_of(value, Names(code), depth + 1)
        case _:
            return None


def _of_value(value: object) -> Kind:
    """A set that exists: a constant of the module."""
    if not isinstance(value, SET_TYPES):
        return Kind.OTHER
    return Kind.FIXED if len(value) < 2 or all(isinstance(item, int) for item in value) else Kind.SET


def _filled(name: str, layer: Layer, names: Names) -> Kind:
    """Of a set that begins empty, by what is added to it."""
    added: list[ast.expr] = []
    for node in ast.walk(layer.node):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=found), attr="add"), args=[item]) if found == name:
                added.append(item)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=found), attr="update")) if found == name:
                return Kind.MAYBE
            case _:
                pass
    if added and all(_is_fixed(item, names) for item in added):
        return Kind.FIXED
    return Kind.SET if any(_is_text(item) for item in added) else Kind.MAYBE


def _is_text(item: ast.expr) -> bool:
    return isinstance(item, ast.JoinedStr) or (isinstance(item, ast.Constant) and isinstance(item.value, str | bytes))


def _last_name(annotation: ast.expr | None) -> str:
    """`set` of `set[int]` and `collections.abc.Set[int]`."""
    match annotation:
        case ast.Subscript(value=value):
            return _last_name(value)
        case ast.Attribute(attr=attr):
            return attr
        case ast.Name(id=name):
            return name
        case _:
            return ""


def _item_name(annotation: ast.expr | None) -> str:
    match annotation:
        case ast.Subscript(slice=item):
            return _last_name(item)
        case _:
            return ""
