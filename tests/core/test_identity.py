"""Names of things are functions of what they name: pinned, because journals and other systems hold them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.core.errors import InvalidId
from perdure.core.identity import checked_id, derived_id, noise, shard_of, storable

RUN = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("namespace", "execution", "shard"),
    [("default", "report-1", 45), ("default", "report-2", 27), ("other", "report-1", 118), ("", "", 72)],
)
def test_shards_never_change(namespace: str, execution: str, shard: int) -> None:
    """An execution is looked for where it was put."""
    assert shard_of(namespace, execution, 256) == shard


@pytest.mark.parametrize(
    ("purpose", "seq", "extra", "expected"),
    [
        ("step", 1, "", "9b1f1d37fd9ac46e63850ca6aed06c9c"),
        ("step", 2, "", "58e9f388cca72bad56f75e93adc3cb6f"),
        ("child", 1, "", "7caa068b7669ec452ce2983849c730c9"),
        ("message", 1, "x", "321ec6a58a4172c7b71bda370ba46f1b"),
        ("hash", 0, "", "41672971e87c9fdedadeb2acb4d3d32f"),
    ],
)
def test_derived_ids_never_change(purpose: str, seq: int, extra: str, expected: str) -> None:
    """Idempotency keys that a provider has seen, children that run."""
    assert derived_id(purpose, "report-1", RUN, seq, extra) == expected


@pytest.mark.parametrize(
    ("seq", "attempt", "expected"),
    [(1, 1, 0.9397190120071173), (1, 2, 0.4150872591417283), (2, 1, 0.40385573264211416)],
)
def test_noise_never_changes(seq: int, attempt: int, expected: float) -> None:
    assert noise(RUN, seq, attempt) == expected


def test_shards_are_evenly_filled() -> None:
    counts = Counter(shard_of("default", f"report-{n}", 256) for n in range(25_600))
    assert set(counts) == set(range(256))
    assert max(counts.values()) < 160
    assert min(counts.values()) > 50


TEXT = st.text(st.characters(exclude_characters="\0"), max_size=20)


@given(TEXT, TEXT, TEXT, st.integers(0, 10**9), TEXT)
def test_derived_ids_are_128_bits_and_never_clash(purpose: str, execution: str, run: str, seq: int, extra: str) -> None:
    """Also for ids that no store would accept, such as lone surrogates."""
    found = derived_id(purpose, execution, run, seq, extra)
    assert len(bytes.fromhex(found)) == 16
    others = {
        derived_id(f"{purpose}!", execution, run, seq, extra),
        derived_id(purpose, f"{execution}!", run, seq, extra),
        derived_id(purpose, execution, f"{run}!", seq, extra),
        derived_id(purpose, execution, run, seq + 1, extra),
        derived_id(purpose, execution, run, seq, f"{extra}!"),
    }
    assert found not in others
    assert len(others) == 5


def test_idempotency_keys_are_compatibility_data_and_another_run_has_others() -> None:
    """Payment servers remember them for weeks: continue-as-new, fork and rewind begin a run, and with it new keys."""
    one, other = (derived_id("step", "order-1", run * 32, 3) for run in "ab")
    assert one == "c1e7f6f8de3a395fdac08ebd174fc1ae"
    assert other != one


@given(st.integers(1, 10**9), st.integers(1, 10**6))
def test_noise_is_below_one(seq: int, attempt: int) -> None:
    assert 0 <= noise(RUN, seq, attempt) < 1


def test_noise_is_spread() -> None:
    found = [noise(RUN, seq, 1) for seq in range(1_000)]
    assert 0.45 < sum(found) / len(found) < 0.55


@pytest.mark.parametrize("value", ["a", "report-1", "Bericht für Ärzte", "x" * 200, "é" * 100, "研究"])
def test_printable_text_up_to_200_bytes_is_an_id(value: str) -> None:
    assert checked_id(value) == value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "it is empty"),
        (None, "it is NoneType, not text"),
        (7, "it is int, not text"),
        ("x" * 201, "longer than 200 bytes"),
        ("é" * 101, "longer than 200 bytes"),
        ("a\ud800", "a lone surrogate"),
        ("a\nb", "cannot be printed"),
        ("a\x00", "cannot be printed"),
        ("a\u202eb", "cannot be printed"),
        (" a", "a space"),
        ("é ", "a space"),
    ],
)
def test_everything_else_is_refused_with_the_reason(value: Any, reason: str) -> None:
    with pytest.raises(InvalidId, match=reason) as caught:
        checked_id(value, "signal name")
    assert "signal name" in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.text())
def test_any_text_can_be_made_storable(text: str) -> None:
    stored = storable(text)
    assert stored.encode().decode() == stored
    assert stored == text or any("\ud800" <= char <= "\udfff" for char in text)
