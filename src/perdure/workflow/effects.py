"""What a step may do to the world: options of steps that must not be repeated blindly, and answers what came of one."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args

import msgspec

from perdure.core.errors import InvalidDefinition, InvalidOption

T = TypeVar("T")

OnUnknown: TypeAlias = Literal["park", "raise"]


class Happened(msgspec.Struct, Generic[T], frozen=True):
    """It happened, and this is what the step would have returned.

    Args:
        value: of the step's result type.

    Example:
        async def look_up(key: str, card: str, cents: int) -> perdure.Happened[Receipt] | perdure.StillUnknown:
            found = await payments.find(idempotency_key=key)
            return perdure.Happened(Receipt(found.id)) if found else perdure.StillUnknown()
    """

    value: T = None  # type: ignore[assignment]  # for steps that return nothing


class DidNotHappen(msgspec.Struct, frozen=True):
    """It did not happen, *and can no longer happen*: the step may run again.

    Say so only when nobody can still do it. Best because you made it so: by voiding the key where the effect would take
    place. It is void then for the next attempt as well: send `f"{step.idempotency_key}-{step.attempt}"` of `step =
    perdure.current_step()`, which tells `reconcile` the same. Where nothing can be voided, let what you send expire
    with the step's `timeout`: until that and a lease are over, the answer does not count, and is asked for again.
    """


class StillUnknown(msgspec.Struct, frozen=True):
    """The world cannot tell yet: `reconcile` is asked again later."""


class Abandoned(msgspec.Struct, frozen=True):
    """Nobody will ever know, or it does not matter any more: the step's await raises `UnknownOutcome`."""


Answer: TypeAlias = Happened[T] | DidNotHappen | StillUnknown
Reconcile: TypeAlias = Callable[..., Answer[Any] | Awaitable[Answer[Any]]]
Decision: TypeAlias = Happened[Any] | DidNotHappen | Abandoned


def effect_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of effects among those that were given, checked one by one.

    Raises:
        InvalidOption: naming the option, and what it may be.
    """
    found = {name: given[name] for name in _EXPECTED if name in given}
    for name, value in found.items():
        is_right, expected = _EXPECTED[name]
        if not is_right(value):
            raise InvalidOption(option=name, value=repr(value), expected=expected)
    if "not_happened" in found:
        found["not_happened"] = tuple(found["not_happened"])
    return found


def _are_exceptions(given: Any) -> bool:
    kinds = isinstance(given, list | tuple | set | frozenset)
    return kinds and all(isinstance(kind, type) and issubclass(kind, Exception) for kind in given)


_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "once": (lambda value: isinstance(value, bool), "True or False"),
    "on_unknown": (lambda value: value in get_args(OnUnknown), "'park' or 'raise'"),
    "reconcile": (
        lambda value: value is None or callable(value),
        "a function of the idempotency key and the step's arguments",
    ),
    "not_happened": (
        _are_exceptions,
        "a list of exception classes (no CancelledError, no KeyboardInterrupt: after these nobody knows)",
    ),
}


def check_together(options: Any, given: Mapping[str, Any]) -> None:
    """Whether options fit each other, of which some were given just now.

    Raises:
        InvalidOption: one of them has no meaning beside, or without, another.
    """
    if not options.once:
        for name, nothing in (("not_happened", ()), ("on_unknown", "park"), ("reconcile", None)):
            value = getattr(options, name)
            if value != nothing or given.get(name):
                expected = "once=True beside it: a step without it is simply tried again"
                raise InvalidOption(option=name, value=repr(value), expected=expected)
    elif "retry" in given and options.retry.attempts != 1 and not (options.not_happened or options.reconcile):
        expected = (
            "not_happened=[...] or reconcile=f beside it: with once=True alone no attempt that failed is tried again"
        )
        raise InvalidOption(option="retry", value=repr(given["retry"]), expected=expected)


def check_reconcile(reconcile: Reconcile, fn: Callable[..., Any], signature: inspect.Signature, name: str) -> None:
    """Whether it can be called with a key and the arguments that the step takes.

    Raises:
        InvalidDefinition: it cannot.
    """
    try:
        takes = inspect.signature(reconcile)
    except (TypeError, ValueError):
        return  # of builtins nobody knows
    parameters = list(signature.parameters.values())
    owner = getattr(fn, "__qualname__", "").rpartition(".")[0]
    without_self = parameters[1:] if owner and not owner.endswith("<locals>") else parameters
    if not (_fits(takes, parameters) or _fits(takes, without_self)):
        raise InvalidDefinition(
            name=repr(name),
            kind="step",
            reason=f"reconcile{takes} cannot be called with the key and the arguments of the step, {signature}",
            fix="Write: def reconcile(key, *args), or with the step's own parameters after the key.",
        )


def _fits(takes: inspect.Signature, parameters: list[inspect.Parameter]) -> bool:
    by_name = {each.name: None for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}
    stars = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    by_place = [None for each in parameters if each.kind not in stars and each.name not in by_name]
    try:
        takes.bind("key", *by_place, **by_name)
    except TypeError:
        return False
    return True
