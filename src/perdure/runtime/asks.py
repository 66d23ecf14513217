"""Questions to people, from outside: listed and answered from any process, with or without code or a running engine.

What was asked is in the journal; the store only lists where. A token names one question of one run.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from perdure.core import events as ev
from perdure.core.ask_events import answer_name
from perdure.core.errors import InvalidOption, NotAsked, WrongAnswer
from perdure.core.identity import ExecutionId, Key, Namespace, derived_id, shard_of
from perdure.runtime.schemas import mismatch
from perdure.store.protocol import AskRow, Mail, Store
from perdure.workflow.values import codec_for, encode_untyped

PAGE = 1_000
MAX_TOKEN = 2_000
MAX_BY = 200
"""Characters of the name of who answers."""
EARLIER = "the token is of an earlier run, which is over"
_token_of = msgspec.msgpack.Decoder(tuple[str, int, bytes]).decode


class OpenQuestion(msgspec.Struct, frozen=True):
    """A question that is open."""

    row: AskRow
    """Where the store lists it: `after=` of the next page."""
    question: str
    to: str
    """Who is asked now."""
    about: ev.Payload | None
    step: str
    """The step whose arguments `shown` is; empty if it is other data."""
    schema: dict[str, Any]
    """JSON Schema of the answer; empty if there is none."""
    location: str
    refused_by: str = ""
    """Who gave the last answer, which was not of the type that is asked for, if that was said."""

    @property
    def execution(self) -> str:
        """The id of the execution that asks."""
        return self.row.key.execution

    @property
    def seq(self) -> int:
        """The question's number in its run."""
        return self.row.seq

    @property
    def asked_at_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        return self.row.asked_at_ms

    @property
    def expires_at_ms(self) -> int | None:
        """Until when an answer is taken: milliseconds since 1970, UTC. None: as long as it takes."""
        return self.row.expires_at_ms or None

    @property
    def was_refused(self) -> bool:
        """Whether the last answer was: it was not of the type that is asked for."""
        return self.row.refused

    @property
    def token(self) -> str:
        """Answers this question, once: `client.answer(token, value)`. Whoever has it may answer: do not log it."""
        row = self.row
        encoded = msgspec.msgpack.encode((row.key.execution, row.seq, _tag(row.key, row.run, row.seq)))
        return urlsafe_b64encode(encoded).decode().rstrip("=")

    @property
    def shown(self) -> Any:
        """What it is about, as plain data: of a call its arguments by name; None if it is about nothing.

        Raises:
            DecodeError: it is encrypted, and this process lacks the key.
        """
        return None if self.about is None else codec_for(Any, "what is asked about").decode(self.about, "what is shown")


def _tag(key: Key, run: str, seq: int) -> bytes:
    """Not to be guessed without the run's id, which is 128 random bits."""
    return bytes.fromhex(derived_id("ask", key.execution, run, seq))


class QuestionPage(list[OpenQuestion]):
    """Open questions. `next` is the cursor of the page that follows; empty: there is none."""

    def __init__(self, found: Iterable[OpenQuestion] = (), cursor: str = "") -> None:
        super().__init__(found)
        self.next = cursor


class _Place(msgspec.Struct, array_like=True):
    """What a cursor says. No run's id, which tokens are made of: a hash of it."""

    to: str
    execution: str
    run: bytes
    seq: int


def read_page(
    store: Store, namespace: str, execution: str, to: str, now_ms: int, cursor: str, limit: int
) -> QuestionPage:
    """Open questions, with what the journal tells of them. Blocks. Raises `InvalidOption`: it is no such cursor."""
    after = _after(store, namespace, to, cursor)
    rows = store.asks(namespace, execution, to, now_ms, after, limit + 1)
    page = QuestionPage(_listed(store, row, now_ms) for row in rows[:limit])
    if len(rows) > limit:
        last = rows[limit - 1]
        place = _Place(to, last.key.execution, _hash(last.run), last.seq)
        page.next = urlsafe_b64encode(msgspec.msgpack.encode(place)).decode().rstrip("=")
    return page


def _after(store: Store, namespace: str, to: str, cursor: str) -> AskRow | None:
    """Where the page begins: behind a question, or at its execution if another run asks there by now."""
    if cursor == "":
        return None
    try:
        place = _place_of(b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, TypeError):
        place = None
    if place is None or place.to != to:
        expected = "`next` of a page of this very list: with the same `to`"
        raise InvalidOption(option="cursor", value=repr(cursor), expected=expected)
    key = Key(shard_of(namespace, place.execution, store.shards), Namespace(namespace), ExecutionId(place.execution))
    row = store.row(key)
    is_same = row is not None and _hash(row.run) == place.run
    run, seq = (row.run, place.seq) if row is not None and is_same else ("", 0)
    return AskRow(key, run, seq, 0, "", "", 0, 0, 0)


_place_of = msgspec.msgpack.Decoder(_Place).decode


def _hash(run: str) -> bytes:
    return hashlib.blake2b(run.encode(), digest_size=8).digest()


def _listed(store: Store, row: AskRow, now_ms: int) -> OpenQuestion:
    event = store.load(row.key, row.run, row.position, 1)[0].event
    assert isinstance(event, ev.QuestionAsked)
    schema: Any = {}
    if event.schema is not None and not event.schema.key_id:
        schema = codec_for(Any, "a schema").decode(event.schema, "a schema")
    by = _refused_by(store, row) if row.refused else ""
    return OpenQuestion(row, event.question, row.asked_of(now_ms), event.about, event.name, schema, event.location, by)


def _refused_by(store: Store, row: AskRow) -> str:
    """Who gave the last answer, looked for in the events behind the question: so many, for it is only for people."""
    by, name = "", answer_name(row.seq)
    for recorded in store.load(row.key, row.run, row.position + 1, PAGE):
        if isinstance(recorded.event, ev.SignalReceived) and recorded.event.name == name:
            by = recorded.event.by
    return by


# --- answering --------------------------------------------------------------------------------------------------------


def read_token(token: str) -> tuple[str, int, bytes]:
    """Execution, number and tag. Raises `NotAsked`: it is no token."""
    try:
        cut = token[:MAX_TOKEN]
        return _token_of(urlsafe_b64decode(cut + "=" * (-len(cut) % 4)))
    except (ValueError, TypeError, binascii.Error, msgspec.DecodeError):
        raise NotAsked(execution="?", state="the token is no question's, or a part of it is missing") from None


def find_by_token(store: Store, key: Key, seq: int, tag: bytes, now_ms: int) -> OpenQuestion:
    """The open question that the token is for. Blocks. Raises `NotAsked`: it is not open, or never was."""
    for row in _rows(store, key):
        if row.seq == seq and hmac.compare_digest(_tag(key, row.run, seq), tag):
            if row.is_open(now_ms):
                return _listed(store, row, now_ms)
            raise NotAsked(execution=key.execution, state="it is answered" if row.message_id else "its time is over")
    raise NotAsked(execution=key.execution, state=_why_not(store, key, seq, tag))


def find(store: Store, key: Key, seq: int | None, now_ms: int) -> OpenQuestion:
    """The open question of this number, or the only one there is. Blocks. Raises `NotAsked`."""
    rows = [row for row in _rows(store, key) if seq in (None, row.seq)]
    waiting = [row for row in rows if row.is_open(now_ms)]
    if len(waiting) == 1:
        return _listed(store, waiting[0], now_ms)
    if waiting:
        numbers = ", ".join(f"#{row.seq}" for row in waiting)
        raise NotAsked(execution=key.execution, state=f"it asks {len(waiting)} questions, {numbers}: say which")
    raise NotAsked(execution=key.execution, state=_why_none(rows, seq))


def _why_none(rows: Sequence[AskRow], seq: int | None) -> str:
    if rows:
        return "an answer is on its way already" if any(row.message_id for row in rows) else "its time is over"
    return "it asks nothing now" if seq is None else f"question #{seq} is not open"


def _rows(store: Store, key: Key) -> Iterator[AskRow]:
    page = store.asks(key.namespace, key.execution, "", 0, None, PAGE)
    while page:
        yield from page
        page = store.asks(key.namespace, key.execution, "", 0, page[-1], PAGE)


def _why_not(store: Store, key: Key, seq: int, tag: bytes) -> str:
    """What has become of a question whose token this is, if it is one."""
    n: int | None = None
    current = True
    while runs := store.runs(key, n, PAGE):
        for run in runs:
            if hmac.compare_digest(_tag(key, run.run, seq), tag):
                return _outcome(store, key, run.run, seq) if current else EARLIER
            current = False
        n = runs[-1].n
    return "no question of it has this token"


def _outcome(store: Store, key: Key, run: str, seq: int) -> str:
    for event in _journal(store, key, run):
        if isinstance(event, ev.QuestionClosed) and event.asked == seq:
            return _OUTCOMES[event.outcome]
    return "the run that asked has ended"


_OUTCOMES = {
    "answered": "it was answered",
    "timed_out": "its time is over",
    "cancelled": "the workflow has stopped waiting for it",
}


def _journal(store: Store, key: Key, run: str) -> Iterator[ev.AnyEvent]:
    position = 0
    while page := store.load(key, run, position, PAGE):
        yield from (recorded.event for recorded in page)
        position += len(page)


def answer(asked: OpenQuestion, value: Any, message_id: str, by: str = "") -> Mail:
    """The message that answers it.

    Raises:
        InvalidOption: `by` is no such text.
        WrongAnswer: it is not of the type that is asked for.
        EncodeError: it cannot be encoded.
    """
    if not isinstance(by, str) or len(by) > MAX_BY or not (by.isprintable() or not by):
        raise InvalidOption(
            option="by", value=repr(by)[: 2 * MAX_BY], expected=f"a name of at most {MAX_BY} characters"
        )
    what = f"the answer to question #{asked.seq}"
    payload = value if isinstance(value, ev.Payload) else encode_untyped(value, what)
    plain = codec_for(Any, what).decode(payload, what)
    if payload.content_type == "json":  # of who has no Python value
        payload = encode_untyped(plain, what)
    reason = mismatch(asked.schema, plain) if asked.schema else ""
    if reason:
        raise WrongAnswer(execution=asked.execution, seq=asked.seq, reason=reason)
    event = ev.SignalReceived(message_id, answer_name(asked.seq), payload, by=by)
    return Mail(receiver=asked.row.key, message_id=message_id, event=event, receiver_run=asked.row.run)


def was_taken(store: Store, asked: OpenQuestion, message_id: str) -> bool:
    """Whether this answer is the one that counted: asked when the store says that the question is not open. Blocks."""
    row = asked.row
    if any(row.seq == each.seq and each.message_id == message_id for each in _rows(store, row.key)):
        return True
    events = _journal(store, row.key, row.run)
    return any(isinstance(event, ev.SignalReceived) and event.message_id == message_id for event in events)
