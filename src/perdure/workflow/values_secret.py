"""`Secret`: a value that is shown nowhere, and recorded only where a codec encrypts.

Whether it may be recorded is known where values are encoded by who is at work: a workflow, a step or a client says so
for its store (`secrets_pass`). Without a word it may not.
"""

from __future__ import annotations

import hmac
from asyncio import events as asyncio_events
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Generic, NoReturn, TypeVar, get_args

T_co = TypeVar("T_co", covariant=True)

SHOWN = "<secret>"
NOT_ITS_TYPE = "is a Secret that does not hold what its type says"
_pass: ContextVar[bool] = ContextVar("perdure_secrets_pass", default=False)


class Secret(Generic[T_co]):
    """A value that must not be seen: a password, a token, a patient's name.

    It shows as `<secret>` in logs, messages, previews and on the command line; `reveal()` is what it holds: data of
    any kind that can be annotated, `Secret[str]` for one. It is recorded where an engine's `codec=` encrypts; without
    one it is refused (`SecretInClear`) before anything runs or is recorded.

    Example:
        >>> token = Secret("swordfish")
        >>> print(token, token.reveal())
        <secret> swordfish
    """

    __slots__ = ("_value",)
    _value: T_co

    def __init__(self, value: T_co) -> None:
        object.__setattr__(self, "_value", value)

    def reveal(self) -> T_co:
        """What it holds: for the call that needs it, and for nothing that is kept."""
        return self._value

    def __repr__(self) -> str:
        return SHOWN

    def __format__(self, _spec: str) -> str:
        return SHOWN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        one: Any = self._value
        two: Any = other._value
        if isinstance(one, str) and isinstance(two, str):
            one, two = one.encode("utf-8", "surrogatepass"), two.encode("utf-8", "surrogatepass")
        if isinstance(one, bytes) and isinstance(two, bytes):
            return hmac.compare_digest(one, two)
        return bool(one == two)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Secret does not change: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Secret does not change: {name}")

    def __copy__(self) -> Secret[T_co]:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> Secret[T_co]:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema  # noqa: PLC0415 - only pydantic calls this

        def check(value: Any, validate: Callable[[Any], Any]) -> Secret[Any]:
            return read_secret(value, validate)

        inner = handler(get_args(source)[0]) if get_args(source) else core_schema.any_schema()
        hidden = core_schema.plain_serializer_function_ser_schema(
            lambda value, told: value if told.mode == "python" else SHOWN, info_arg=True
        )
        schema = core_schema.no_info_wrap_validator_function(check, inner, serialization=hidden)
        return schema | {"metadata": {"perdure_secret": True}}


def read_secret(value: Any, read: Callable[[Any], Any]) -> Secret[Any]:
    """A Secret of what `read` makes of a Secret's value, or of a value that comes from outside.

    Raises:
        ValueError: it holds something else. What, is not told.
    """
    try:
        return Secret(read(value.reveal() if isinstance(value, Secret) else value))
    except Exception:  # noqa: BLE001 - messages of decoders quote what they were given
        raise ValueError(NOT_ITS_TYPE) from None


class secrets_pass:  # noqa: N801 - read as a statement; a class, because starts and ends come here often
    """Whether what is encoded within is recorded encrypted."""

    __slots__ = ("_token", "_when")

    def __init__(self, *, when: bool) -> None:
        self._when = when

    def __enter__(self) -> None:
        self._token = _pass.set(self._when)

    def __exit__(self, *_: object) -> None:
        _pass.reset(self._token)


def let_secrets_pass() -> None:
    """What is encoded in this context from now on is recorded encrypted."""
    _pass.set(True)


def do_secrets_pass() -> bool:
    """Whether what is encoded here is recorded encrypted: by context, or because an execution's own code does it."""
    host = getattr(asyncio_events._get_running_loop(), "host", None)
    return _pass.get() or bool(getattr(host, "private", False))
