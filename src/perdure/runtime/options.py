"""How an execution is started: when, until when, instead of which other one, and what it can be found by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import msgspec

from perdure.core.errors import InvalidOption
from perdure.core.events import Payload
from perdure.core.retry import Seconds, to_ms
from perdure.store.protocol import OnConflict, Reuse
from perdure.workflow.attributes import AttributeValue, Moment, checked_name, encode_attributes, moment_ms
from perdure.workflow.definitions import Workflow
from perdure.workflow.values import encode_untyped

MAX_MEMO_BYTES = 16_384
DEFAULT_GRACE_MS = 30_000


class StartOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of `start`, as given; see there."""

    on_conflict: OnConflict = "use"
    reuse: Reuse = "never"
    start_at: Moment | None = None
    delay: Seconds | None = None
    deadline: Moment | Seconds | None = None
    grace: Seconds | None = None
    memo: Mapping[str, Any] | None = None
    attributes: Mapping[str, AttributeValue] | None = None

    def check(self, workflow: Workflow[..., Any]) -> None:
        """Raises `InvalidOption` for what means nothing, or might mean an argument of the workflow."""
        if self == DEFAULT:
            return
        _one_of("on_conflict", self.on_conflict, get_args(OnConflict))
        _one_of("reuse", self.reuse, get_args(Reuse))
        if self.start_at is not None and self.delay is not None:
            raise InvalidOption(option="delay", value=repr(self.delay), expected="either start_at or delay, not both")
        if self.grace is not None and self.deadline is None:
            raise InvalidOption(option="grace", value=repr(self.grace), expected="a deadline beside it")
        for name in self.__struct_fields__:
            given = getattr(self, name)
            if given != getattr(DEFAULT, name) and name in workflow.arguments.signature.parameters:
                expected = f"arguments of {workflow.name!r} with the name of an option of start to be given by position"
                raise InvalidOption(option=name, value=repr(given), expected=expected)

    def facts(self, now_ms: int) -> dict[str, Any]:
        """What of it is journaled with the start: fields of `ExecutionStarted`.

        Raises:
            InvalidOption, EncodeError: nothing was started.
        """
        if self == DEFAULT:
            return {}
        start_at_ms = self._start_at_ms(now_ms)
        found: dict[str, Any] = {}
        if start_at_ms > now_ms:
            found["start_at_ms"] = start_at_ms
        if self.deadline is not None:
            found["deadline_ms"] = self._deadline_ms(max(start_at_ms, now_ms))
            found["grace_ms"] = DEFAULT_GRACE_MS if self.grace is None else to_ms(self.grace, "grace")
        if self.memo:
            found["memo"] = _encode_memo(self.memo)
        if self.attributes:
            found["attributes"] = encode_attributes(self.attributes)
        return found

    def _start_at_ms(self, now_ms: int) -> int:
        if self.start_at is not None:
            return moment_ms(self.start_at, "start_at")
        return 0 if self.delay is None else now_ms + to_ms(self.delay, "delay")

    def _deadline_ms(self, begins_ms: int) -> int:
        if isinstance(self.deadline, Moment):
            return max(1, moment_ms(self.deadline, "deadline"))
        assert self.deadline is not None
        return begins_ms + to_ms(self.deadline, "deadline")


DEFAULT = StartOptions()


def _one_of(option: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        expected = ", ".join(map(repr, known[:-1])) + f" or {known[-1]!r}"
        raise InvalidOption(option=option, value=repr(value), expected=expected)


def _encode_memo(memo: Mapping[str, Any]) -> dict[str, Payload]:
    found = {checked_name(name, "memo"): encode_untyped(value, f"memo {name!r}") for name, value in memo.items()}
    size = sum(len(name) + len(payload.data) for name, payload in found.items())
    if size > MAX_MEMO_BYTES:
        raise InvalidOption(option="memo", value=f"({size:,} bytes)", expected=f"at most {MAX_MEMO_BYTES:,} bytes")
    return found
