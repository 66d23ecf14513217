"""Journals are read for ever: golden bytes of every event type, versions, and what is no event at all."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.samples import EVENT_TYPES, SAMPLES

from perdure.core import events as ev
from perdure.core import format as journal_format
from perdure.core.errors import CorruptJournal, JournalFromTheFuture
from perdure.core.format import FORMAT, decode_event, encode_event

GOLDEN = Path(__file__).parent / "golden" / "format0.json"


def golden() -> dict[str, str]:
    """Hexadecimal bytes by sample, as they were written when the format was fixed."""
    found: dict[str, str] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return found


def render_golden() -> str:
    """The file's text, for a format that is not released yet."""
    return json.dumps({name: encode_event(event).hex() for name, event in SAMPLES.items()}, indent=1) + "\n"


def test_every_event_type_has_golden_bytes() -> None:
    """A new type needs a sample in tests/core/samples.py and its bytes in the golden file, from its first day."""
    assert {kind.__name__ for kind in EVENT_TYPES} == {name.removesuffix(", bare") for name in golden()}
    assert set(golden()) == set(SAMPLES)


def test_samples_set_every_field() -> None:
    """Otherwise a renamed field with a default would go unnoticed."""
    for event in SAMPLES.values():
        full = SAMPLES[type(event).__name__]
        for field in msgspec.structs.fields(type(event)):
            if field.name == "sealed":
                continue  # stands for all others: tests/store/test_sealed_golden.py
            assert getattr(full, field.name) != field.default, f"{type(event).__name__}.{field.name}"


@pytest.mark.parametrize("name", SAMPLES)
def test_golden_bytes_decode_to_the_same_event_for_ever(name: str) -> None:
    """If this fails, old journals mean something else: give the change a new FORMAT and an upcaster."""
    assert decode_event(bytes.fromhex(golden()[name]), 0) == SAMPLES[name]


@pytest.mark.parametrize("name", SAMPLES)
def test_events_are_written_as_the_golden_bytes(name: str) -> None:
    """What is written now is what the format's golden file holds (before its release: see `render_golden`)."""
    assert FORMAT == 0, "add a golden file for the new format and test against it; keep this one for decoding"
    assert encode_event(SAMPLES[name]).hex() == golden()[name]


def test_defaults_are_left_out() -> None:
    """A journal of a million steps does not repeat what is not there."""
    assert len(encode_event(ev.TimerFired(seq=1))) < 25
    assert encode_event(ev.ExecutionClaimed()) == msgspec.msgpack.encode({"type": "ExecutionClaimed"})


# --- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [encode_event(ev.ExecutionClaimed()), b"not even msgpack"])
def test_a_journal_from_the_future_is_refused_whatever_it_holds(body: bytes) -> None:
    with pytest.raises(JournalFromTheFuture, match=f"format {FORMAT + 1}.*up to {FORMAT}"):
        decode_event(body, FORMAT + 1)


def test_upcasters_lead_an_old_event_through_every_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 0 called it SignalGot, version 1 had no name: each step knows only the next."""

    def from_0(fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "type": "SignalReceived"} if fields["type"] == "SignalGot" else fields

    def from_1(fields: dict[str, Any]) -> dict[str, Any]:
        fields = dict(fields)
        if "title" in fields:
            fields["name"] = fields.pop("title")
        return fields

    monkeypatch.setattr(journal_format, "FORMAT", 2)
    monkeypatch.setattr(journal_format, "UPCASTERS", {0: from_0, 1: from_1})
    old = {"type": "SignalGot", "message_id": "m", "title": "approval", "value": [b"\x07", "msgpack", ""]}
    expected = ev.SignalReceived("m", "approval", ev.Payload(b"\x07"))
    assert decode_event(msgspec.msgpack.encode(old), 0) == expected
    assert decode_event(msgspec.msgpack.encode({**old, "type": "SignalReceived"}), 1) == expected
    assert decode_event(encode_event(expected), 2) == expected
    with pytest.raises(JournalFromTheFuture):
        decode_event(encode_event(expected), 3)
    for damaged in (b"\x07", b"\x90", b"\xc1", msgspec.msgpack.encode({"type": "Unheard"})):
        with pytest.raises(CorruptJournal):
            decode_event(damaged, 1)


def test_every_older_version_has_an_upcaster() -> None:
    assert set(journal_format.UPCASTERS) == set(range(FORMAT))


# --- damage -----------------------------------------------------------------------------------------------------------


def test_negative_versions_are_damage() -> None:
    with pytest.raises(CorruptJournal):
        decode_event(encode_event(ev.ExecutionClaimed()), -1)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_truncated_event_is_damage(name: str) -> None:
    body = encode_event(SAMPLES[name])
    for end in range(len(body)):
        with pytest.raises(CorruptJournal):
            decode_event(body[:end], FORMAT)


def test_unknown_types_and_fields_are_damage_because_versions_say_what_is_known() -> None:
    for fields in ({"type": "Unheard"}, {"type": "TimerFired", "seq": 1, "extra": 1}, {"seq": 1}, [], 1, None):
        with pytest.raises(CorruptJournal):
            decode_event(msgspec.msgpack.encode(fields), FORMAT)


def test_bottomless_nesting_is_damage_and_no_crash() -> None:
    body = b"\x82\xa4type\xafExecutionFailed\xa7failure" + b"\x81\xa5cause" * 100_000
    with pytest.raises(CorruptJournal):
        decode_event(body, FORMAT)


@given(st.sampled_from(sorted(SAMPLES)), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4))
def test_flipped_bits_are_an_event_or_damage_and_nothing_else(name: str, flips: list[tuple[int, int]]) -> None:
    body = bytearray(encode_event(SAMPLES[name]))
    for position, value in flips:
        body[position % len(body)] ^= value
    with contextlib.suppress(CorruptJournal):
        assert isinstance(decode_event(bytes(body), FORMAT), ev.Event)


@given(st.binary(max_size=200), st.integers(-2, 3))
def test_any_bytes_are_an_event_damage_or_the_future(body: bytes, version: int) -> None:
    with contextlib.suppress(CorruptJournal, JournalFromTheFuture):
        assert isinstance(decode_event(body, version), ev.Event)
