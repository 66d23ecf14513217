"""Payloads as text: always one printable line, always within the limit."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from grammar import plain_data
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perdure.core.events import Payload
from perdure.workflow.values import codec_for, preview, render


def payload_of(value: Any) -> Payload:
    return codec_for(Any, "it").encode(value, "it")


RENDERED: list[tuple[Any, str]] = [
    (None, "null"),
    (
        [True, False, 0, 127, 128, -1, -33, 2**16, 2**32, -(2**31) - 1, 1.5, -0.0],
        "[true, false, 0, 127, 128, -1, -33, 65536, 4294967296, -2147483649, 1.5, -0.0]",
    ),
    ([float("nan"), float("-inf")], "[nan, -inf]"),
    ({"a": {"b": []}, "c": {}}, '{"a": {"b": []}, "c": {}}'),
    ('say "hi"\n\x1b[31m\\ é 你', r'"say \"hi\"\n\x1b[31m\\ é 你"'),
    ("a\ud800", r'"a\ud800"'),
    ("x" * 40, '"' + "x" * 40 + '"'),
    (b"\x00\xff", "<2 bytes: 00ff>"),
    (b"a" * 40, "<40 bytes: " + "61" * 32 + "…>"),
    ((1, {2}, frozenset({3})), "(1, {2}, {3})"),
    ({1: 2}, "{1: 2}"),
    (2**70, "1180591620717411303424"),
    (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "2026-01-02 00:00:00+00:00"),
    (dt.datetime(2026, 1, 2), "2026-01-02 00:00:00"),  # noqa: DTZ001
    ([dt.date(2026, 1, 2), dt.time(3), dt.timedelta(days=1, seconds=1)], "[2026-01-02, 03:00:00, 1 day, 0:00:01]"),
    ([Decimal("1.10"), UUID(int=1)], "[1.10, 00000000-0000-0000-0000-000000000001]"),
    (list(range(20)), str(list(range(20)))),
    ({str(n): n for n in range(20)}, str({str(n): n for n in range(20)}).replace("'", '"')),
]


@pytest.mark.parametrize("case", RENDERED, ids=[str(n) for n in range(len(RENDERED))])
def test_a_value_reads_like_json(case: tuple[Any, str]) -> None:
    value, text = case
    assert render(payload_of(value)) == text


def test_other_contents_are_shown_as_they_are() -> None:
    assert render(Payload(b'{"a":\n1}', "json")) == '{"a":\\n1}'
    assert render(Payload("é…".encode(), "text")) == "é…"
    assert render(Payload(b"secret", "msgpack", "k1")) == "<encrypted with key k1, 6 bytes>"
    assert render(Payload(b"\xd4\x63\x00")) == "<extension 99, 1 bytes>"
    assert render(Payload(b"\xd4\x06\x00")) == "<extension 6, 1 bytes>"


DAMAGED = [
    b"",
    b"\x92\x01",
    b"\xa5ab",
    b"\xdc",
    b"\xc1",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xffa",
    b"\x91" * 5000,
    b"\xd9",
    b"\x81\xa1a",
    b"\xc7\xff\x03\x91",
]


@pytest.mark.parametrize("data", DAMAGED, ids=[str(n) for n in range(len(DAMAGED))])
def test_damaged_bytes_show_as_far_as_they_can_be_read(data: bytes) -> None:
    assert render(Payload(data)).endswith(("…", ">", '"'))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["msgpack", "json", "text", "?"]), st.integers(0, 40))
@example(b"\xdc\xff\xff" + b"\xa1\xff" * 9, "msgpack", 7)
def test_no_bytes_make_it_fail(data: bytes, content_type: str, limit: int) -> None:
    payload = Payload(data, content_type)
    assert render(payload).isprintable()
    shown = preview(payload, limit)
    assert shown is None or len(shown.data) <= limit


@settings(max_examples=300, deadline=None)
@given(plain_data, st.integers(0, 60))
def test_a_preview_is_the_value_itself_or_the_beginning_of_its_text(value: Any, limit: int) -> None:
    payload = payload_of(value)
    shown = preview(payload, limit)
    if len(payload.data) <= limit:
        assert shown is payload
    elif limit < 3:
        assert shown is None
    else:
        assert shown is not None
        text = shown.data.decode()
        assert shown.content_type == "text"
        assert len(shown.data) <= limit
        assert text == render(payload) or (text.endswith("…") and render(payload).startswith(text[:-1]))


def test_a_large_value_is_cut_at_a_character_of_its_text() -> None:
    shown = preview(payload_of(["héllo wörld 你好" * 1000] * 10))
    assert shown is not None
    assert 2040 < len(shown.data) <= 2048
    assert shown.data.decode().startswith('["héllo wörld 你好héllo')
    assert shown.data.decode().endswith("…")


def test_nothing_of_an_encrypted_value_is_shown() -> None:
    assert preview(Payload(b"x" * 3000, "msgpack", "k1")) is None


def test_a_preview_of_much_data_reads_only_its_beginning() -> None:
    """A large input is previewed at every step: the work must not grow with it."""
    import time  # noqa: PLC0415

    large = payload_of([{"role": "user", "content": "x" * 100}] * 100_000)
    start = time.perf_counter()
    assert preview(large) is not None
    assert time.perf_counter() - start < 0.1
