"""Exceptions as data: bounded, encodable, and never the cause of another exception."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.core.errors import StepFailed
from perdure.core.events import FailureInfo
from perdure.workflow.values import codec_for, failure_info


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Liar(Exception):
    __notes__ = 5  # type: ignore[assignment]

    @property
    def __traceback__(self) -> Any:  # type: ignore[override]
        raise ValueError("no past")


class LyingGroup(ExceptionGroup[Exception]):
    @property
    def exceptions(self) -> Any:
        raise ValueError("no members")


def caught(raise_it: Any) -> BaseException:
    try:
        raise_it()
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError


def deep(depth: int, message: str = "bottom") -> None:
    if depth:
        deep(depth - 1, message)
    raise ValueError(message)


def test_type_message_and_traceback_are_kept() -> None:
    error = caught(lambda: deep(3))
    info = failure_info(error)
    assert (info.type, info.message, info.cause, info.members) == ("ValueError", "bottom", None, ())
    assert "test_failures.py" in info.traceback
    assert "in deep" in info.traceback
    assert failure_info(Hostile()).type.endswith("test_failures.Hostile")


def test_frames_of_perdure_are_left_out() -> None:
    error = caught(lambda: codec_for(int, "it").encode("x", "it"))
    traceback = failure_info(error).traceback
    assert "test_failures.py" in traceback
    assert "perdure/workflow" not in traceback


def test_causes_and_contexts_are_kept_unless_suppressed() -> None:
    def with_cause() -> None:
        try:
            deep(0, "cause")
        except ValueError as error:
            raise KeyError("effect") from error

    def with_context() -> None:
        try:
            deep(0, "context")
        except ValueError:
            raise KeyError("effect")  # noqa: B904

    def suppressed() -> None:
        try:
            deep(0)
        except ValueError:
            raise KeyError("effect") from None

    causes = [failure_info(caught(fn)).cause for fn in (with_cause, with_context, suppressed)]
    assert [cause and cause.message for cause in causes] == ["cause", "context", None]


def test_chains_are_bounded_and_may_be_circles() -> None:
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    info = failure_info(first)
    assert info.cause is not None
    assert (info.message, info.cause.message, info.cause.cause) == ("1", "2", None)

    chain = ValueError("0")
    for n in range(1, 50):
        error = ValueError(str(n))
        error.__cause__ = chain
        chain = error
    depth = 0
    link: FailureInfo | None = failure_info(chain)
    while link is not None:
        link, depth = link.cause, depth + 1
    assert depth == 9


def test_members_of_groups_are_kept_up_to_a_number() -> None:
    info = failure_info(ExceptionGroup("many", [ValueError(str(n)) for n in range(100)]))
    assert [member.message for member in info.members] == [*map(str, range(32)), "and 68 more, not kept"]
    nested = failure_info(BaseExceptionGroup("outer", [ExceptionGroup("inner", [KeyError("k")]), KeyboardInterrupt()]))
    assert nested.members[0].members[0].type == "KeyError"
    assert nested.members[1].type == "KeyboardInterrupt"


def test_groups_of_groups_do_not_multiply() -> None:
    group: Exception = ValueError("leaf")
    for _ in range(8):
        group = ExceptionGroup("g", [ExceptionGroup("h", [group]), *(ValueError("x") for _ in range(30))])
    assert len(msgspec.msgpack.encode(failure_info(group))) < 20_000


def test_an_exception_that_cannot_say_what_it_is_does_no_harm() -> None:
    assert failure_info(Hostile()).message == "<str() of this exception raised RuntimeError>"
    assert failure_info(Liar("x")).message == "x"
    assert failure_info(LyingGroup("g", [ValueError()])).type.endswith("LyingGroup")


def test_lone_surrogates_become_escapes() -> None:
    info = failure_info(ValueError("bad \ud800 text"))
    assert info.message == r"bad \ud800 text"
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(info), type=FailureInfo) == info


def test_long_messages_and_tracebacks_keep_head_and_tail() -> None:
    info = failure_info(ValueError("a" * 50_000 + "the end"), limit=1000)
    assert len(info.message) == 1000
    assert info.message.startswith("aaa")
    assert "characters left out" in info.message
    info = failure_info(caught(lambda: deep(150)), limit=1000)
    assert len(info.traceback) <= 1000
    assert info.traceback.rstrip().endswith(("raise ValueError(message)", "^"))
    assert len(failure_info(ValueError("a" * 50), limit=10).message) == 10


def test_the_failure_of_a_step_goes_on_being_told() -> None:
    recorded = FailureInfo("builtins.OSError", "no route", "somewhere")
    error = StepFailed(failure=recorded, name="fetch", attempts=3)
    assert failure_info(error).cause == recorded


def test_notes_are_kept() -> None:
    error = ValueError("x")
    error.add_note("while reading page 3")
    assert "while reading page 3" in failure_info(error).traceback
