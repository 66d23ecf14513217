"""Type aliases that name themselves: `Json = Union[dict[str, "Json"], list["Json"], str, int, float, bool, None]`.

Python leaves the inner name unresolved, and neither msgspec nor pydantic takes that. Here each such alias becomes a
class that stands for it, whose pydantic schema refers to itself.
"""

from __future__ import annotations

import functools
import inspect
import operator
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, ForwardRef

_OURS = "perdure."


def tied(annotation: Any) -> Any:
    """The annotation with every alias that names itself as a class of its own; as it is where there is none.

    The names are those of the functions and modules that are at work: where it was annotated, or used.

    Raises:
        NameError: a name that nobody has defined.
    """
    names = set(_names_in(annotation))
    if not names:
        return annotation
    found: dict[str, Any] = {}
    while names:
        name = names.pop()
        found[name] = _look_up(name)
        names |= set(_names_in(found[name])) - found.keys()
    stand_ins: dict[str, Any] = {
        name: type(name, (_StandIn,), {"means": None}) if typing.get_args(value) else value
        for name, value in found.items()
    }
    tie = functools.partial(_tied, names=stand_ins)
    meanings = [(stand_ins[name], tie(value)) for name, value in found.items() if stand_ins[name] is not value]
    for stand_in, meaning in meanings:
        stand_in.means = meaning
    return _folded(tie(annotation), meanings)


class _StandIn:
    """Stands for an alias within itself."""

    means: ClassVar[Any]
    _open: ClassVar[bool] = False

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema  # noqa: PLC0415 - only pydantic calls this

        ref = f"{cls.__name__}:{id(cls)}"
        itself = core_schema.definition_reference_schema(ref)
        if cls._open:
            return itself
        cls._open = True
        try:
            meaning = handler.generate_schema(cls.means)
        finally:
            cls._open = False
        return core_schema.definitions_schema(itself, [meaning | {"ref": ref}])


def _parts(annotation: Any) -> tuple[Any, ...]:
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return ()
    args = typing.get_args(annotation)
    return args[:1] if origin is typing.Annotated else args


def _names_in(annotation: Any) -> Iterator[str]:
    for part in _parts(annotation):
        if isinstance(part, str | ForwardRef):
            yield part if isinstance(part, str) else part.__forward_arg__
        else:
            yield from _names_in(part)


def _tied(annotation: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(annotation, str | ForwardRef):
        return names[annotation if isinstance(annotation, str) else annotation.__forward_arg__]
    return _rebuilt(annotation, [_tied(part, names) for part in _parts(annotation)])


def _folded(annotation: Any, meanings: list[tuple[Any, Any]]) -> Any:
    """With each place that spells out what an alias means as that alias."""
    folded = _rebuilt(annotation, [_folded(part, meanings) for part in _parts(annotation)])
    return next((stand_in for stand_in, meaning in meanings if meaning == folded), folded)


def _rebuilt(annotation: Any, parts: list[Any]) -> Any:
    if parts == list(_parts(annotation)):
        return annotation
    origin: Any = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return functools.reduce(lambda made, fact: typing.Annotated[made, fact], annotation.__metadata__, parts[0])
    if origin is types.UnionType:
        return functools.reduce(operator.or_, parts)
    if origin is typing.Union:
        return typing.Union[tuple(parts)]  # noqa: UP007 - of as many as there are
    return origin[tuple(parts)]


def _look_up(name: str) -> Any:
    frame = inspect.currentframe()
    while frame is not None:
        if not str(frame.f_globals.get("__name__", "")).startswith(_OURS):
            for names in (frame.f_locals, frame.f_globals):
                if name in names:
                    return names[name]
        frame = frame.f_back
    raise NameError(f"name {name!r} is not defined")
