"""The records of transactions, in the user's own database: one row for each, keyed (execution, run, seq).

A row is inserted before the user's writes and completed with the outcome after them, in one transaction: whoever comes
second blocks on it, and then reads it. Written once for sync and async: everything here gets a sync `Connection`.
Loaded when the first `Datasource` is made: it is the one module that imports SQLAlchemy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from perdure.core.errors import (
    CorruptJournal,
    InvalidOption,
    JournalFromTheFuture,
    KeyMissing,
    PerdureError,
    TransactionDisagrees,
    TransactionMisused,
    TransactionTorn,
    YourError,
)
from perdure.core.events import FailureInfo, Payload
from perdure.core.identity import noise
from perdure.store.sealing import Vault

FORMAT = 0
"""Version of a record's columns and of the bytes in `outcome`. 0 until the first release."""

GIVEN = (Connection, AsyncConnection, Session, AsyncSession)
"""What a function can ask for."""

TRIES = 10  # of an attempt
SETTLE_TRIES = 30  # to make a failure final: some 20 s
FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 1.0
CLAIMS = 3

Outcome: TypeAlias = Payload | FailureInfo | PerdureError
"""What became of a transaction: its encoded result, its final failure, or why nobody may say (the execution stalls)."""

TABLE = sa.Table(
    "perdure_transactions",
    sa.MetaData(),
    sa.Column("execution", sa.String(200), primary_key=True),
    sa.Column("run", sa.String(32), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("format", sa.SmallInteger, nullable=False),
    sa.Column("namespace", sa.String(200), nullable=False),
    sa.Column("step", sa.String(200), nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),  # of the input
    sa.Column("input", sa.Text, nullable=False),  # its beginning, for people
    sa.Column("state", sa.String(10), nullable=False),  # open, completed, failed; committed, it is never open
    sa.Column("outcome", sa.LargeBinary),  # completed: a Payload; failed: a FailureInfo; as MessagePack
    sa.Column("attempt_at_ms", sa.BigInteger, nullable=False),  # when the attempt began, by its worker's clock
)

__all__ = ["AsyncConnection", "AsyncEngine", "Engine", "async_sessionmaker", "sessionmaker"]  # for who imports lazily

_encode = msgspec.msgpack.Encoder().encode
_DECODERS: dict[str, msgspec.msgpack.Decoder[Any]] = {
    "completed": msgspec.msgpack.Decoder(Payload),
    "failed": msgspec.msgpack.Decoder(FailureInfo),
}

# Words of SQL that would end the transaction behind our back; a savepoint's ROLLBACK TO is none of them.
_ENDS = re.compile(
    r"\s*(COMMIT|END|ABORT|ROLLBACK(?!\s+(WORK\s+|TRANSACTION\s+)?TO\b)|PREPARE\s+TRANSACTION)\b", re.IGNORECASE
)


class Place(NamedTuple):
    """Where in which run a transaction stands, and what is asked there."""

    namespace: str
    execution: str
    run: str
    seq: int
    step: str
    digest: bytes
    input: str
    location: str
    attempt: int
    at_ms: int
    vault: Vault  # seals what is kept of values

    @property
    def key(self) -> str:
        """For people."""
        return f"execution {self.execution!r}, run {self.run}, seq {self.seq}"


class Stored(NamedTuple):
    """A record, as `Datasource.forget` looks at it."""

    execution: str
    run: str
    seq: int
    namespace: str
    attempt_at_ms: int


# --- one try ---------------------------------------------------------------------------------------------------------


class Try:
    """One try of a transaction on one connection: claim its record, watch over its function, finish.

    Whatever is not finished is rolled back by closing the connection.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._ended = ""  # what the function did that it must not do
        self._connection: Connection | None = None
        self._session: Session | None = None
        self._finishing = False

    def claim(self, connection: Connection, given: Any) -> Outcome | None:
        """Insert the record; None: it is ours, go on. Else what the one before came to.

        Blocks while another transaction holds the record, and until that is over. `given` is what the function gets.
        """
        found = insert(connection, self.place, "open", None)
        if found is None:
            self._connection, self._session = connection, _sync_session(given)
            if self._session is not None:
                event.listen(self._session, "after_begin", self._on_begin)
            event.listen(connection, "commit", self._on_commit)
            event.listen(connection, "rollback", self._on_rollback)
            event.listen(connection, "before_cursor_execute", self._on_statement)
        return found

    def __enter__(self) -> None:
        """Around the function: its error, if it is about what it must not do, is told by `finish`."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        return self._ended in {COMMITTED, STRAYED} and isinstance(error, Exception)

    def finish(self, connection: Connection, encode: Callable[[], Outcome]) -> Outcome:
        """Complete the record with the encoded result, and commit. An outcome that is an error was not committed."""
        session = self._session
        if not self._ended and session is not None:
            with self:
                session.connection()  # one that was never used has not joined our transaction, and would not commit it
                session.flush()
        if self._ended:
            return self._misused()
        outcome = encode()
        if isinstance(outcome, PerdureError):
            return outcome
        if not complete(connection, self.place, outcome):
            self._ended = ROLLED_BACK
            return self._misused()
        self._finishing = True
        commit(connection, session or connection)
        return outcome

    def _misused(self) -> TransactionMisused:
        return TransactionMisused(name=self.place.step, location=self.place.location, what=self._ended)

    def _on_commit(self, connection: Connection) -> None:
        if not self._finishing:
            self._ended = COMMITTED
            connection.invalidate()  # after an error here SQLAlchemy takes the transaction for ended, and it is not
            raise self._misused()

    def _on_rollback(self, _: Connection) -> None:
        self._ended = self._ended or ROLLED_BACK

    def _on_begin(self, _session: Session, _transaction: Any, connection: Connection) -> None:
        if connection is not self._connection:
            self._ended = STRAYED
            raise self._misused()

    def _on_statement(self, connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if _ENDS.match(statement):
            self._on_commit(connection)


COMMITTED = "committed by itself"
ROLLED_BACK = "rolled back by itself and went on"
STRAYED = "has a session that uses another connection beside its own (see its get_bind)"


def _sync_session(given: Any) -> Session | None:
    return given if isinstance(given, Session) else getattr(given, "sync_session", None)


def insert(
    connection: Connection, place: Place, state: Literal["open", "failed"], outcome: FailureInfo | None
) -> Outcome | None:
    """Insert a record; None: it was free. Else what the committed one says, in a transaction that has been ended."""
    values = {
        "execution": place.execution,
        "run": place.run,
        "seq": place.seq,
        "format": FORMAT,
        "namespace": place.namespace,
        "step": place.step,
        "digest": place.vault.seal(place.digest, "digest"),
        "input": place.vault.seal_text(place.input, "input"),
        "state": state,
        "outcome": None if outcome is None else place.vault.seal(_encode(outcome), "outcome"),
        "attempt_at_ms": place.at_ms,
    }
    for claim in range(1, CLAIMS + 1):
        try:
            connection.execute(TABLE.insert().values(values))
        except IntegrityError:
            connection.rollback()
            row = connection.execute(TABLE.select().where(*_at(place))).first()
            connection.rollback()
            if row is not None:
                return _outcome(row, place)
            if claim == CLAIMS:  # it is not the key that it objects to
                raise
        else:
            return None
    raise AssertionError("the last claim returns or raises")


def complete(connection: Connection, place: Place, outcome: Outcome) -> bool:
    """Write the outcome into the open record; False: it is not there any more."""
    values = {"state": "completed", "outcome": place.vault.seal(_encode(outcome), "outcome")}
    done = connection.execute(TABLE.update().where(*_at(place), TABLE.c.state == "open").values(values))
    return done.rowcount == 1


def fail(connection: Connection, place: Place, failure: FailureInfo) -> Outcome:
    """Make a failure final: no transaction of this place can be committed afterwards. Else what it came to."""
    found = insert(connection, place, "failed", failure)
    if found is None:
        commit(connection, connection)
        return failure
    return found


def commit(connection: Connection, what: Connection | Session) -> None:
    """Commit. Of a connection whose COMMIT failed nobody knows the state: it is dropped."""
    try:
        what.commit()
    except BaseException:
        connection.invalidate()
        raise


def _at(place: Place | Stored) -> tuple[sa.ColumnElement[bool], ...]:
    c = TABLE.c
    return c.execution == place.execution, c.run == place.run, c.seq == place.seq


def _outcome(row: Any, place: Place) -> Outcome:
    if row.format > FORMAT:
        return JournalFromTheFuture(found=row.format, known=FORMAT)
    try:
        digest = place.vault.open(bytes(row.digest), "digest")
        data = place.vault.open(bytes(row.outcome or b""), "outcome")
    except (KeyMissing, CorruptJournal) as error:
        return error
    if (row.step, digest) != (place.step, place.digest):
        recorded = f"{row.step}({place.vault.open_text(row.input, 'input')})"
        now = f"{place.step}({place.input})"
        return TransactionDisagrees(key=place.key, recorded=recorded, now=now, location=place.location)
    decoder = _DECODERS.get(row.state)
    if decoder is None:
        return TransactionTorn(name=place.step, key=place.key)
    try:
        outcome: Outcome = decoder.decode(data)
    except (msgspec.DecodeError, TypeError) as error:
        return CorruptJournal(detail=f"the record of {place.key} does not decode ({error})")
    return outcome


# --- what may be tried again ------------------------------------------------------------------------------------------


def pauses(place: Place, tries: int) -> Iterator[float]:
    """For each try, how long to wait after it, in seconds; 0 for the last."""
    for number in range(tries - 1):
        spread = 0.5 + noise(place.run, place.seq, place.attempt * tries + number) / 2
        yield min(FIRST_PAUSE_S * 2**number, LONGEST_PAUSE_S) * spread
    yield 0.0


@contextmanager
def again(pause_s: float, *, after_any: bool) -> Iterator[None]:
    """Around a try: an error that may be gone after the pause goes no further, unless it was the last try."""
    try:
        yield
    except YourError:
        raise
    except Exception as error:
        if not pause_s or not (after_any or (isinstance(error, DBAPIError) and is_transient(error))):
            raise


def is_transient(error: DBAPIError) -> bool:
    """Whether the database refused only for now: locked, deadlock, not serializable, connection lost.

    After a lost connection nobody knows whether its COMMIT arrived: the next claim finds out.
    """
    if error.connection_invalidated:
        return True
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _SQLITE_TRANSIENT
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    return isinstance(state, str) and state.startswith(_SQLSTATES_TRANSIENT)


_SQLITE_TRANSIENT = {5, 6}  # SQLITE_BUSY, SQLITE_LOCKED
_SQLSTATES_TRANSIENT = ("40", "08", "55P03", "57P")  # rollback, connection, lock not available, shut down


# --- the table -------------------------------------------------------------------------------------------------------


def table_exists(connection: Connection) -> bool:
    """Whether there is a table of records."""
    return sa.inspect(connection).has_table(TABLE.name)


def prepare(connection: Connection, place: Place) -> None:
    """Create the table if it is missing, and try whether this database rolls back. Raises `InvalidOption` if not."""
    if not table_exists(connection):
        try:
            TABLE.create(connection)
            connection.commit()
        except DBAPIError:
            connection.rollback()
            if not table_exists(connection):  # else another process was faster
                raise
    connection.rollback()
    probe = place._replace(execution="", input="")
    forget_probe = TABLE.delete().where(*_at(probe))
    connection.execute(forget_probe)  # of a process that died here
    commit(connection, connection)
    insert(connection, probe, "open", None)
    connection.rollback()
    left = connection.execute(forget_probe).rowcount
    commit(connection, connection)
    if left:
        raise InvalidOption(
            option="datasource",
            value=repr(str(connection.engine.url)),
            expected="an engine whose transactions roll back: not one with isolation_level='AUTOCOMMIT'",
        )


def page(connection: Connection, after: Stored | None, before_ms: int, limit: int) -> list[Stored]:
    """Records of attempts that began before a time, by key, after a key."""
    c = TABLE.c
    query = sa.select(c.execution, c.run, c.seq, c.namespace, c.attempt_at_ms).where(c.attempt_at_ms < before_ms)
    if after is not None:
        query = query.where(
            sa.or_(
                c.execution > after.execution,
                sa.and_(c.execution == after.execution, c.run > after.run),
                sa.and_(c.execution == after.execution, c.run == after.run, c.seq > after.seq),
            )
        )
    rows = connection.execute(query.order_by(c.execution, c.run, c.seq).limit(limit))
    return [Stored(*row) for row in rows]


def delete(connection: Connection, records: Sequence[Stored]) -> None:
    """Delete these."""
    for record in records:
        connection.execute(TABLE.delete().where(*_at(record)))
    commit(connection, connection)
