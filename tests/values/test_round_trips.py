"""What is encoded comes back as it was, to every eye, for every type that a codec is given out for."""

from __future__ import annotations

import datetime as dt
import enum
from collections import Counter, OrderedDict
from typing import Any

import pytest
from grammar import (
    MSGSPEC_MAKERS,
    NATIVE_LEAVES,
    PYDANTIC_LEAVES,
    PYDANTIC_MAKERS,
    deepened,
    grammar,
    identical,
    plain_data,
)
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from perdure.core.errors import EncodeError, UnsupportedType
from perdure.workflow.values import codec_for, preview, render

ENCODERS = {"msgspec": (NATIVE_LEAVES, MSGSPEC_MAKERS), "pydantic": (PYDANTIC_LEAVES, PYDANTIC_MAKERS)}
PLAIN = {name: grammar(*parts) for name, parts in ENCODERS.items()}
WITH_UNIONS = {name: grammar(*parts, unions=True) for name, parts in ENCODERS.items()}

thorough = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def check(annotation: Any, value: Any) -> None:
    codec = codec_for(annotation, "it")
    payload = codec.encode(value, "it")
    decoded = codec.decode(payload, "it")
    assert identical(decoded, value), (value, decoded, payload)
    assert codec.encode(decoded, "it") == payload
    assert codec.digest(codec.encode(decoded, "it")) == codec.digest(payload)
    assert isinstance(render(payload), str)
    shown = preview(payload, 16)
    assert shown is not None
    assert len(shown.data) <= 16


@thorough
@given(plain_data)
def test_plain_data_needs_no_annotation(value: Any) -> None:
    check(Any, value)


@pytest.mark.parametrize("encoder", PLAIN)
@thorough
@given(data=st.data())
def test_a_value_of_its_annotation_comes_back_as_it_was(encoder: str, data: st.DataObject) -> None:
    annotation, values = data.draw(PLAIN[encoder])
    check(annotation, data.draw(values))


@pytest.mark.parametrize("encoder", PLAIN)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), depth=st.integers(5, 24))
def test_a_deeply_nested_type_is_as_any_other(encoder: str, data: st.DataObject, depth: int) -> None:
    leaves, makers = ENCODERS[encoder]
    annotation, values = deepened(data.draw(st.sampled_from(leaves)), depth, data.draw(st.permutations(makers)))
    check(annotation, data.draw(values))


@pytest.mark.parametrize("encoder", WITH_UNIONS)
@thorough
@given(data=st.data())
def test_a_value_of_a_union_comes_back_as_it_was_or_is_refused(encoder: str, data: st.DataObject) -> None:
    """Some unions are refused when decorating, others where a value fits two members alike: `str | Colour`."""
    annotation, values = data.draw(WITH_UNIONS[encoder])
    try:
        check(annotation, data.draw(values))
    except (UnsupportedType, EncodeError):
        reject()


class Berlin(dt.tzinfo):
    """A tzinfo of a library that we do not know."""

    def utcoffset(self, _: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(hours=1)

    def dst(self, _: dt.datetime | None) -> dt.timedelta | None:
        return None


class Level(enum.IntEnum):
    LOW = 1


@pytest.mark.parametrize(
    ("annotation", "value", "kind"),
    [
        (Any, [OrderedDict(a=1)], list),
        (list[Any], [Level.LOW, Counter("aab")], list),
        (int, Level.LOW, int),
        (dt.datetime, dt.datetime(2026, 1, 2, tzinfo=Berlin()), dt.datetime),
        (Any, dt.datetime(2026, 1, 2, tzinfo=Berlin()), dt.datetime),
    ],
    ids=range(5),
)
def test_what_comes_back_as_another_class_equals_what_was_given(annotation: Any, value: Any, kind: type) -> None:
    """The exceptions that `codec_for` tells of."""
    codec = codec_for(annotation, "it")
    decoded = codec.decode(codec.encode(value, "it"), "it")
    assert (type(decoded), decoded) == (kind, value)
    if isinstance(decoded, dt.datetime):
        assert decoded.utcoffset() == value.utcoffset()
