"""What a name in a function's source stands for: a live object where it can be resolved, else a dotted name.

Nothing is called, and no attribute of an instance read: classes are looked at statically, modules in their dictionary.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

from perdure.linting.source import Code, FunctionNode
from perdure.workflow.definitions import Step

MISSING: Any = type("Missing", (), {"__repr__": lambda _: "MISSING"})()
Scope = FunctionNode | ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
SCOPES = (*FUNCTIONS, *COMPREHENSIONS)
# Functions that say of themselves another name than the one that people write.
BY_IDENTITY = {
    "builtins": ("open", "input"),
    "os": ("environ", "environb", "urandom", "getrandom", "open", "system", "listdir", "scandir", "remove", "getpid"),
    "os.path": ("exists", "isfile", "isdir", "getsize", "getmtime", "getatime", "getctime"),
    "random": ("*",),
    "secrets": ("*",),
}


class Known(NamedTuple):
    """What an expression was resolved to."""

    names: tuple[str, ...]
    """Dotted names: as written, and as the object says of itself."""
    value: Any = MISSING
    owner: type | None = None
    """Of a method: the class through which it was reached."""
    captured: bool = False
    """A function of the standard library by a name of one's own: bound when the module was imported."""


class Layer:
    """What is bound in one scope, and how."""

    def __init__(self, node: Scope) -> None:
        self.node = node
        self.bound: set[str] = set()
        self.imports: dict[str, str] = {}
        self.assigned: dict[str, list[ast.expr | None]] = {}
        self.annotations: dict[str, ast.expr] = {}
        self.functions: dict[str, FunctionNode] = {}
        self.outer: set[str] = set()
        if isinstance(node, COMPREHENSIONS):
            for generator in node.generators:
                self._bind_all(generator.target)
        else:
            self._arguments(node.args)
            for child in _own_nodes(node):
                self._take(child)
        self.bound -= self.outer

    def _arguments(self, arguments: ast.arguments) -> None:
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        for argument in every:
            if argument is not None:
                self._bind(argument.arg, None)
                if argument.annotation is not None and argument not in {arguments.vararg, arguments.kwarg}:
                    self.annotations[argument.arg] = argument.annotation

    def _take(self, node: ast.AST) -> None:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.NamedExpr(target=ast.Name(id=name), value=value)
            ):
                self._bind(name, value)
            case ast.AnnAssign(target=ast.Name(id=name), value=value, annotation=annotation):
                self.annotations[name] = annotation
                self._bind(name, value)
            case ast.AugAssign(target=ast.Name(id=name)):
                self.bound.add(name)  # it stays what it was
            case ast.Assign(targets=targets):
                for target in targets:
                    self._bind_all(target)
            case ast.For(target=target) | ast.AsyncFor(target=target):
                self._bind_all(target)
            case ast.withitem(optional_vars=ast.expr() as target):
                self._bind_all(target)
            case _:
                self._take_statement(node)

    def _take_statement(self, node: ast.AST) -> None:
        match node:
            case ast.Import() | ast.ImportFrom():
                self._take_import(node)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                self.functions[name] = node
                self._bind(name, None)
            case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar() | ast.ClassDef():
                if node.name is not None:
                    self._bind(node.name, None)
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                self.outer.update(names)
            case _:
                pass

    def _take_import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if isinstance(node, ast.ImportFrom) and node.level:
                self._bind(alias.asname or alias.name, None)
            elif isinstance(node, ast.ImportFrom):
                self._import(alias.asname or alias.name, f"{node.module}.{alias.name}")
            else:
                root = alias.name.partition(".")[0]
                self._import(alias.asname or root, alias.name if alias.asname else root)

    def _import(self, name: str, dotted: str) -> None:
        self.imports[name] = dotted
        self._bind(name, None)

    def _bind(self, name: str, value: ast.expr | None) -> None:
        self.bound.add(name)
        self.assigned.setdefault(name, []).append(value)

    def _bind_all(self, target: ast.expr) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self._bind(node.id, None)


def _own_nodes(node: FunctionNode | ast.Lambda) -> Iterator[ast.AST]:
    """What stands in a function itself, in the order of the source; of what is nested, only that it is there."""
    body = node.body if isinstance(node.body, list) else [node.body]
    todo: list[ast.AST] = list(reversed(body))
    while todo:
        each = todo.pop()
        yield each
        if not isinstance(each, (*SCOPES, ast.ClassDef)):
            todo.extend(reversed(list(ast.iter_child_nodes(each))))
        elif isinstance(each, COMPREHENSIONS):
            todo.extend(inner for inner in ast.walk(each) if isinstance(inner, ast.NamedExpr))


def within(nodes: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """What stands in these themselves, comprehensions included; not what is inside nested functions and classes."""
    todo = list(nodes)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            todo.extend(ast.iter_child_nodes(node))


class Names:
    """Resolves expressions where they stand: innermost scope first, then what is closed over, globals, builtins."""

    def __init__(self, code: Code, layers: tuple[Layer, ...] = ()) -> None:
        self.code = code
        self.layers = layers or (Layer(code.node),)

    def inside(self, node: Scope) -> Names:
        """The names within a nested function or comprehension."""
        return Names(self.code, (*self.layers, Layer(node)))

    def layer_of(self, name: str) -> Layer | None:
        """Where a local name is bound; None for names from outside the function."""
        return next((layer for layer in reversed(self.layers) if name in layer.bound), None)

    def resolve(self, expr: ast.expr) -> Known | None:
        """What an expression stands for; None if it cannot be said."""
        match expr:
            case ast.Name(id=name):
                return self._name(name)
            case ast.Attribute(value=base, attr=attr):
                return self._attribute(base, attr)
            case ast.Call(func=ast.Attribute(value=base, attr="with_options")):
                known = self.resolve(base)
                return known if known is not None and isinstance(known.value, Step) else None
            case _:
                return None

    def _name(self, name: str) -> Known | None:
        layer = self.layer_of(name)
        if layer is not None:
            return _imported(layer.imports[name]) if name in layer.imports else None
        value = self.code.namespace.get(name, getattr(builtins, name, MISSING))
        if value is MISSING:
            return None
        return Known(names_of(value) or (name,), value, captured=not isinstance(value, ModuleType | type))

    def _attribute(self, base: ast.expr, attr: str) -> Known | None:
        known = self.resolve(base)
        if known is None:
            kind = self.type_of(base)
            return None if kind is None else _method(kind, names_of(kind), attr)
        if isinstance(known.value, ModuleType):
            value = vars(known.value).get(attr, MISSING)
            written = [f"{name}.{attr}" for name in (known.value.__name__, *known.names)]
            own = names_of(value) if value is not MISSING else ()
            return Known(tuple(dict.fromkeys([*written, *own])), value, captured=bool(own) and own[0] not in written)
        if isinstance(known.value, type):
            return _member(known.value, known.names, attr)
        if known.value is MISSING:
            return Known(tuple(f"{name}.{attr}" for name in known.names))
        return _method(type(known.value), (), attr)

    def type_of(self, expr: ast.expr) -> type | None:
        """The class of a value, from its annotation or from the one call that it comes from."""
        match expr:
            case ast.Call(func=func):
                known = self.resolve(func)
                return known.value if known is not None and isinstance(known.value, type) else None
            case ast.Name(id=name):
                return self._type_of_local(name)
            case _:
                return None

    def _type_of_local(self, name: str) -> type | None:
        layer = self.layer_of(name)
        if layer is None:
            return None
        if layer is self.layers[0] and self.code.owner is not None and name == _first_parameter(self.code.node):
            return self.code.owner
        annotation = layer.annotations.get(name)
        if annotation is not None:
            known = self.resolve(parsed(annotation))
            return known.value if known is not None and isinstance(known.value, type) else None
        values = layer.assigned.get(name, [])
        return self.type_of(values[0]) if len(values) == 1 and isinstance(values[0], ast.Call) else None


def _first_parameter(node: FunctionNode) -> str:
    """`self`, as a rule."""
    return next((argument.arg for argument in (*node.args.posonlyargs, *node.args.args)), "")


def parsed(annotation: ast.expr) -> ast.expr:
    """An annotation that is written as a string, as the expression in it."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            return ast.parse(annotation.value, mode="eval").body
        except SyntaxError:
            return annotation
    return annotation


def _imported(dotted: str) -> Known:
    """A name imported within a function: at run time it is what the module holds then, hence a guard."""
    module, _, attr = dotted.rpartition(".")
    if dotted in sys.modules:
        return Known((dotted,), sys.modules[dotted])
    value = vars(sys.modules[module]).get(attr, MISSING) if module in sys.modules else MISSING
    return Known(tuple(dict.fromkeys([dotted, *(names_of(value) if value is not MISSING else ())])), value)


def _member(owner: type, names: tuple[str, ...], attr: str) -> Known:
    value = inspect.getattr_static(owner, attr, MISSING)
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    return Known(tuple(f"{name}.{attr}" for name in names), value, owner)


def _method(owner: type, names: tuple[str, ...], attr: str) -> Known:
    """Of an instance: data that stands in its class may be hidden by its own."""
    known = _member(owner, names, attr)
    return known if callable(known.value) and not isinstance(known.value, type) else known._replace(value=MISSING)


def names_of(value: Any) -> tuple[str, ...]:
    """What an object is called, by itself."""
    if isinstance(value, ModuleType):
        return (value.__name__,)
    known = _by_identity().get(id(value)) or _by_identity().get(id(getattr(value, "__wrapped__", None)))
    if known is not None:
        return (known,)
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    return (f"{module}.{name}",) if isinstance(module, str) and isinstance(name, str) else ()


@cache
def _by_identity() -> Mapping[int, str]:
    """The functions of `BY_IDENTITY`, and the real ones below the guards."""
    found: dict[int, str] = {}
    for module, listed in BY_IDENTITY.items():
        namespace = vars(sys.modules[module]) if module in sys.modules else {}
        for name in namespace.get("__all__", ()) if listed == ("*",) else listed:
            value = namespace.get(name)
            if value is not None:
                found[id(value)] = found[id(getattr(value, "__wrapped__", value))] = f"{module}.{name}"
    return found


def forget() -> None:
    """Look anew at what modules hold: guards may have been put in place since."""
    _by_identity.cache_clear()
