"""`Secret`: shown nowhere, refused where nothing encrypts, and otherwise a value like any other."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import json
import pickle
from collections.abc import Iterator
from typing import Any

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.values.grammar import LEAVES, MSGSPEC_MAKERS, PYDANTIC_LEAVES, PYDANTIC_MAKERS, identical

from perdure import Secret
from perdure.cli.output import jsonable
from perdure.core.errors import DecodeError, EncodeError, SecretInClear
from perdure.core.events import Payload, SignalReceived
from perdure.workflow.values import Arguments, codec_for, encode_untyped, failure_info, preview, render, secrets_pass

WORD = "swordfish"


@pytest.fixture
def encrypted() -> Iterator[None]:
    with secrets_pass(when=True):
        yield


@dataclasses.dataclass
class Login:
    user: str
    password: Secret[str]


class Account(msgspec.Struct):
    token: Secret[bytes]
    spare: Secret[int] | None = None


@attrs.define
class Badge:
    code: Secret[str]


class Card(pydantic.BaseModel):
    number: Secret[str]
    holder: Login
    more: list[Secret[int]] = []


VALUES: list[tuple[Any, Any]] = [
    (Secret[str], Secret(WORD)),
    (Secret, Secret({"a": [1, WORD]})),
    (Any, [Secret(WORD), {"x": Secret(b"y")}]),
    (Secret[str], Secret("\ud800")),
    (Secret[int], Secret(2**70)),
    (Secret[Login], Secret(Login("me", Secret(WORD)))),
    (Secret[Card], Secret(Card(number=Secret(WORD), holder=Login("me", Secret(WORD))))),
    (Secret[dt.datetime], Secret(dt.datetime(2026, 1, 2, tzinfo=dt.UTC))),
    (Login, Login("me", Secret(WORD))),
    (Account, Account(Secret(WORD.encode()), Secret(7))),
    (Account, Account(Secret(b""))),
    (Badge, Badge(Secret(WORD))),
    (Card, Card(number=Secret(WORD), holder=Login("me", Secret(WORD)), more=[Secret(1)])),
    (dict[str, Secret[str]], {"a": Secret(WORD)}),
    (list[Secret[str] | None], [Secret(WORD), None]),
    (set[Secret[str]], {Secret(WORD), Secret("b")}),
    (tuple[int, Secret[str]], (1, Secret(WORD))),
    (Secret[str] | int, Secret(WORD)),
    (Secret[tuple[int, ...]], Secret((1, 2))),
]
WITH_WORD = [case for case in VALUES if WORD in repr(case[1].reveal() if isinstance(case[1], Secret) else case[1])]


def opened(value: Any) -> Any:
    """All that is hidden in a value, for comparison."""
    match value:
        case Secret():
            return "secret", opened(value.reveal())
        case list() | tuple() | set():
            return type(value), sorted(map(opened, value), key=repr)
        case dict():
            return {key: opened(item) for key, item in value.items()}
        case msgspec.Struct() | Login() | Badge() | Card():
            return type(value), {name: opened(getattr(value, name)) for name in type(value).__annotations__}
        case _:
            return value


@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=range(len(VALUES)))
def test_where_a_codec_encrypts_a_secret_comes_back(encrypted: None, annotation: Any, value: Any) -> None:
    codec = codec_for(annotation, "it")
    payload = codec.encode(value, "it")
    decoded = codec.decode(payload, "it")
    assert opened(decoded) == opened(value)
    assert codec.encode(decoded, "it") == payload
    assert codec.digest(payload) == codec.digest(codec.encode(decoded, "it"))


@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=range(len(VALUES)))
def test_without_one_it_is_refused_and_the_error_does_not_tell_it(annotation: Any, value: Any) -> None:
    with pytest.raises(SecretInClear, match=r"the input .* is a Secret, and nothing encrypts here") as caught:
        codec_for(annotation, "it").encode(value, "the input of step 'pay'")
    assert caught.value.code == "P0207"
    assert "codec=" in str(caught.value)
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert not any(WORD in str(error) for error in chain)


def test_the_path_of_a_refused_secret_is_told() -> None:
    def pay(login: Login, amount: int) -> None: ...

    with pytest.raises(SecretInClear, match=r"\$\.login\.password"):
        Arguments(pay).encode((Login("me", Secret(WORD)), 3), {}, "the input of step 'pay'")
    for value in (Secret(WORD), {"a": Secret(WORD)}, Login("me", Secret(WORD)), [Login("me", Secret(WORD))]):
        with pytest.raises(SecretInClear):
            encode_untyped(value, "signal 'go'")


def test_a_type_that_may_hold_a_secret_and_does_not_needs_no_codec() -> None:
    codec = codec_for(Secret[str] | None, "it")
    assert codec.decode(codec.encode(None, "it"), "it") is None


@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=range(len(VALUES)))
def test_it_is_not_shown(encrypted: None, annotation: Any, value: Any) -> None:
    payload = codec_for(annotation, "it").encode(value, "it")
    shown = preview(payload)
    assert shown is not None
    plain = codec_for(Any, "it").decode(payload, "it")
    told = [render(payload), shown.data.decode("utf-8", "replace"), repr(value), str(value), f"{value!s:>30}"]
    told += [json.dumps(jsonable(plain)), "%s" % (value,), format([value])]  # noqa: UP031 - as loggers do
    assert not any(WORD in text for text in told)
    if "secret" in render(payload):
        assert shown.content_type == "text"


def test_a_preview_of_other_values_is_not_changed_by_looking_for_secrets() -> None:
    for value in ("a\x0eb", b"\x0e\xc7\x0e", [14, 2**70, (14,)], {"\x0e": 14}):
        payload = codec_for(Any, "it").encode(value, "it")
        assert preview(payload) is payload
    for data in (b"\x0e\xc1", b"\xc7\x0e", b"\x91" * 5000 + b"\x0e"):
        assert preview(Payload(data), 10_000) is not None


def test_in_exceptions_and_dumps_it_stays_hidden() -> None:
    login = Login("me", Secret(WORD))
    assert WORD not in repr(failure_info(ValueError(f"cannot log in as {login}", login)))
    card = Card(number=Secret(WORD), holder=login)
    assert WORD not in card.model_dump_json()
    assert WORD not in repr(card.model_dump())
    with pytest.raises(TypeError):
        json.dumps(Secret(WORD))
    with pytest.raises(TypeError):
        pickle.dumps(Secret(WORD))
    assert WORD not in repr(dataclasses.asdict(login))


def test_it_is_a_value() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret(b"a") != Secret("a")
    assert Secret("a") != "a"
    assert Secret(1) == Secret(1)
    assert Secret("\ud800") == Secret("\ud800")
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    secret = Secret([1])
    assert copy.copy(secret) is copy.deepcopy(secret) is secret
    with pytest.raises(AttributeError):
        secret._value = 2
    with pytest.raises(AttributeError):
        del secret._value


WRONG: list[tuple[Any, Any]] = [
    (Secret[int], Secret(WORD)),
    (Login, Login("me", Secret(5))),  # type: ignore[arg-type]
    (Card, Card.model_construct(number=Secret(5), holder=Login("me", Secret(WORD)))),
    (Secret[str], Secret(object())),
    (Any, Secret({1, WORD, object()})),
]


@pytest.mark.parametrize(("annotation", "value"), WRONG, ids=range(len(WRONG)))
def test_a_secret_of_another_type_is_refused_without_being_told(encrypted: None, annotation: Any, value: Any) -> None:
    with pytest.raises(EncodeError) as caught:
        codec_for(annotation, "it").encode(value, "it")
    error: BaseException | None = caught.value
    while error is not None:
        assert WORD not in str(error)
        error = error.__cause__


def test_what_was_recorded_as_another_type_is_refused_without_being_told(encrypted: None) -> None:
    payload = codec_for(Secret[str], "it").encode(Secret(WORD), "it")
    for annotation in (Secret[int], Secret[Card], int, str):
        with pytest.raises(DecodeError) as caught:
            codec_for(annotation, "it").decode(payload, "it")
        assert WORD not in str(caught.value)


def test_a_value_from_outside_becomes_a_secret() -> None:
    def pay(login: Login, card: Card | None = None) -> None: ...

    given = {
        "login": {"user": "me", "password": WORD},
        "card": {"number": "1", "holder": {"user": "a", "password": "b"}},
    }
    args, _ = Arguments(pay).decode(Payload(json.dumps(given).encode(), "json"), "it")
    assert args[0].password.reveal() == WORD
    assert args[1].number.reveal() == "1"


def test_secrets_of_one_value_have_one_digest_and_others_another(encrypted: None) -> None:
    def pay(login: Login) -> None: ...

    one, two, three = (Arguments(pay).encode((Login("me", Secret(word)),), {}, "it")[1] for word in ("a", "a", "b"))
    assert one == two != three


def test_what_holds_a_secret_does_not_show_it_when_it_is_logged(encrypted: None) -> None:
    """Events, questions and steps that wait for a person are logged as what they are."""
    payload = codec_for(Secret[str], "it").encode(Secret(WORD), "it")
    assert WORD.encode() in payload.data
    assert WORD not in f"{payload} {payload!r} {SignalReceived('m', 'n', payload)!r}"


@settings(max_examples=150, deadline=None)
@given(data=st.data(), makers=st.sampled_from(["msgspec", "pydantic"]))
def test_a_secret_of_any_type_comes_back_in_any_model(data: st.DataObject, makers: str) -> None:
    leaves, make = (LEAVES, MSGSPEC_MAKERS) if makers == "msgspec" else (PYDANTIC_LEAVES, PYDANTIC_MAKERS)
    annotation, values = data.draw(st.sampled_from(leaves))
    model = data.draw(st.sampled_from(make))({"first": Secret[annotation], "second": int})
    value = model(first=Secret(data.draw(values)), second=1)
    with secrets_pass(when=True):
        codec = codec_for(model, "it")
        decoded = codec.decode(codec.encode(value, "it"), "it")
    assert identical(decoded.first.reveal(), value.first.reveal())
    assert type(decoded) is type(value)
