"""Questions to people, as workflow code has them: `ask`, and calls of steps that run only as they were shown."""

from __future__ import annotations

import contextlib
from asyncio import timeout as asyncio_timeout
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import msgspec

from perdure.core.ask_events import answer_name
from perdure.core.commands import AskQuestion, CloseQuestion
from perdure.core.errors import AskTimeout, DecodeError, InvalidOption
from perdure.core.identity import checked_id, storable
from perdure.core.retry import Seconds, to_ms
from perdure.workflow.calls import Call
from perdure.workflow.context import current_execution
from perdure.workflow.location import caller
from perdure.workflow.values import codec_for, digest, encode_untyped

if TYPE_CHECKING:
    from perdure.core.events import AskOutcome, Payload
    from perdure.workflow.execution import Execution
    from perdure.workflow.values import Codec

T = TypeVar("T")
D = TypeVar("D")

MAX_QUESTION_CHARS: Final = 16 * 1024
MAX_SCHEMA_BYTES: Final = 64 * 1024


class _Raise:
    """No default: a timeout raises."""

    def __repr__(self) -> str:
        return "<AskTimeout>"


_RAISE: Final = _Raise()


@overload
async def ask(
    question: str,
    /,
    *,
    to: str = "",
    about: Any = None,
    timeout: Seconds | None = None,
    default: Any = _RAISE,
    escalate_to: str = "",
    escalate_after: Seconds | None = None,
) -> Any: ...
@overload
async def ask(
    question: str,
    type_: type[T],
    /,
    *,
    to: str = "",
    about: Any = None,
    timeout: Seconds | None = None,
    default: D,
    escalate_to: str = "",
    escalate_after: Seconds | None = None,
) -> T | D: ...
@overload
async def ask(
    question: str,
    type_: type[T],
    /,
    *,
    to: str = "",
    about: Any = None,
    timeout: Seconds | None = None,
    escalate_to: str = "",
    escalate_after: Seconds | None = None,
) -> T: ...
async def ask(
    question: str,
    type_: Any = Any,
    /,
    *,
    to: str = "",
    about: Any = None,
    timeout: Seconds | None = None,
    default: Any = _RAISE,
    escalate_to: str = "",
    escalate_after: Seconds | None = None,
) -> Any:
    """Ask a person, and wait for the answer: exactly one, of this type.

    The question is listed (`client.asks()`, `perdure asks`) until it is answered (`client.answer`, `perdure answer`),
    whether a worker runs or not. Each has a token of its own, which works once, for this question of this run.

    Args:
        question: for people, at most 16 Ki characters.
        type_: what the answer is decoded as.
        to: who is asked: a name, a role, an address. Open questions are found by it; it is not encrypted.
        about: what they are shown: data, or the call that they decide on, `step.bind(...)`, which runs afterwards only
            with the very arguments that were shown.
        timeout: seconds or timedelta, downtime included. An answer that is stored before counts, however late the
            worker runs; a later one is refused.
        default: what a timeout returns, instead of raising.
        escalate_to: who is asked instead of `to`, once `escalate_after` has passed without an answer. The token stays.
        escalate_after: seconds or timedelta.

    Raises:
        AskTimeout: nobody answered in time.
        InvalidOption, InvalidId, UnsupportedType, EncodeError: nothing was asked.

    Example:
        payment = pay.bind("ACME", 1_200)
        if await perdure.ask("Pay this?", bool, to="finance", about=payment, timeout=timedelta(days=3)):
            await payment()
    """
    execution = current_execution("ask")
    codec = codec_for(type_, f"the answer to {str(question)[:80]!r}")
    escalation = _escalation(escalate_to, escalate_after, timeout)
    command = _question(execution.now_ms, question, type_, to, about, timeout, escalation)
    command.location = caller()
    limit_ms = None if timeout is None else to_ms(timeout, "timeout")
    answers = await _wait(execution, command, codec, limit_ms)
    if answers:
        if isinstance(about, Call):
            about.answered(command, execution)
        return answers[0]
    if not isinstance(default, _Raise):
        return default
    assert limit_ms is not None
    whom = command.to or "nobody in particular"
    raise AskTimeout(question=command.question, to=whom, seconds=limit_ms / 1000)


async def _wait(execution: Execution, command: AskQuestion, codec: Codec[T], limit_ms: int | None) -> list[T]:
    """The answer; empty if none came in time."""
    seq = execution.issue(command)
    execution.asks[seq] = command
    outcome: AskOutcome = "cancelled"
    try:
        async with contextlib.nullcontext() if limit_ms is None else asyncio_timeout(limit_ms / 1000):
            answers = [await _answer(execution, seq, codec)]
        outcome = "answered"
    except TimeoutError:
        answers, outcome = [], "timed_out"
    finally:
        if not execution.loop.closing:
            execution.asks.pop(seq, None)
            execution.issue(CloseQuestion(location=command.location, asked=seq, outcome=outcome))
    return answers


async def _answer(execution: Execution, seq: int, codec: Codec[T]) -> T:
    """The first answer that is one: what does not decode is dropped, and the question is open again."""
    while True:
        event = await execution.mailbox.next(answer_name(seq))
        try:
            return execution.value_of(event, codec.decode, f"the answer to question #{seq}")
        except DecodeError as error:
            execution.drop(event, error)


def _question(
    now_ms: int,
    question: str,
    type_: Any,
    to: str,
    about: Any,
    timeout: Seconds | None,
    escalation: tuple[str, int],
) -> AskQuestion:
    if not isinstance(question, str) or not question.strip() or len(question) > MAX_QUESTION_CHARS:
        shown = repr(question)[:80]
        raise InvalidOption(option="question", value=shown, expected=f"text, at most {MAX_QUESTION_CHARS:,} characters")
    payload, name, shown_digest = _shown(about)
    escalate_to, after_ms = escalation
    return AskQuestion(
        question=storable(question),
        to=checked_id(to, "addressee") if to else "",
        schema=_schema(type_),
        about=payload,
        name=name,
        digest=shown_digest,
        expires_at_ms=0 if timeout is None else now_ms + to_ms(timeout, "timeout"),
        escalate_to=escalate_to,
        escalate_at_ms=now_ms + after_ms if escalate_to else 0,
    )


def _escalation(to: str, after: Seconds | None, timeout: Seconds | None) -> tuple[str, int]:
    """Whom to ask instead, and after how many milliseconds."""
    if not to and after is None:
        return "", 0
    if not to or after is None:
        value = repr(to or after)
        raise InvalidOption(option="escalate_to", value=value, expected="escalate_to and escalate_after together")
    after_ms = to_ms(after, "escalate_after")
    if timeout is not None and after_ms >= to_ms(timeout, "timeout"):
        expected = "less than the timeout: after that nobody is asked"
        raise InvalidOption(option="escalate_after", value=repr(after), expected=expected)
    return checked_id(to, "addressee"), after_ms


def _shown(about: Any) -> tuple[Payload | None, str, bytes]:
    """What people are shown, of which step it is the input, and its digest."""
    if about is None:
        return None, "", b""
    if isinstance(about, Call):
        payload, shown_digest = about.encode()
        return payload, about.step.name, shown_digest
    payload = encode_untyped(about, "what a question is about")
    return payload, "", digest(payload)


def _schema(type_: Any) -> Payload | None:
    """The type as JSON Schema, for forms and for who answers without code; None if there is none, or a huge one."""
    try:
        try:
            schema = msgspec.json.schema(type_)
        except TypeError:
            from pydantic import TypeAdapter  # noqa: PLC0415 - only where its types are used

            schema = TypeAdapter(type_).json_schema()
        data = msgspec.json.encode(schema)
    except Exception:  # noqa: BLE001 - whatever it is, answers are looked at by code alone then
        return None
    return codec_for(Any, "a schema").encode(schema, "a schema") if len(data) <= MAX_SCHEMA_BYTES else None
