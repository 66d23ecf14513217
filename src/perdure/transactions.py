"""`@transaction(datasource)`: a step whose writes and whose record commit together, in the user's own database.

A journaled completion wins, else the record wins, else the function runs: exactly once. docs/exactly-once.md tells
what that means and what it rests on. SQLAlchemy is imported when the first `Datasource` is made, not before.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from functools import partial
from itertools import groupby
from types import ModuleType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypedDict, TypeVar, Unpack, overload

from perdure.core.errors import (
    CorruptJournal,
    InvalidDefinition,
    InvalidOption,
    JournalFromTheFuture,
    PerdureError,
    ResultRolledBack,
    SQLAlchemyMissing,
    YourError,
)
from perdure.core.events import CLOSING, FailureInfo, Payload, StepCompleted, StepFailed
from perdure.core.identity import Key
from perdure.core.retry import Retry, Seconds, to_ms
from perdure.runtime.attempt import StepRun
from perdure.runtime.executions import Executions
from perdure.runtime.handle import key_of
from perdure.store.protocol import Store
from perdure.store.sealing import SealedStore
from perdure.workflow.context import current_attempt
from perdure.workflow.definitions import Step, StepOptions, step
from perdure.workflow.values import hints_of, preview, render, short_repr

if TYPE_CHECKING:  # for type checkers; at run time SQLAlchemy comes with the first datasource
    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
    from sqlalchemy.orm import Session, sessionmaker

    from perdure.transaction_records import Outcome, Place, Stored, Try

    S = TypeVar("S", bound=Session)
    A = TypeVar("A", bound=AsyncSession)

C = TypeVar("C")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
log = logging.getLogger("perdure")

WINDOW = timedelta(days=30)
FORGET_PAGE = 500
JOURNAL_PAGE = 1_000
RUNS_PAGE = 100


class StepKeywords(TypedDict, total=False):
    """What a transaction has in common with a step: see `perdure.step`."""

    retry: Retry | int | None
    timeout: Seconds | None
    total_timeout: Seconds | None
    heartbeat_timeout: Seconds | None
    concurrency: int | None
    raises: Sequence[type[Exception]]


# --- where ------------------------------------------------------------------------------------------------------------


class Datasource(Generic[C]):
    """A database of yours, for `@perdure.transaction`: its transactions keep their records there.

    Their table, `perdure_transactions`, is created when it is first needed and missing.

    Args:
        bind: SQLAlchemy's `Engine` or `AsyncEngine`: functions get a `Connection` or `AsyncConnection`; or a
            `sessionmaker` or `async_sessionmaker` that is bound to one engine: functions get a session of it.

    Raises:
        InvalidOption: it is none of these.
        SQLAlchemyMissing: SQLAlchemy is not installed.

    Example:
        bank = perdure.Datasource(create_async_engine("postgresql+asyncpg://..."))
    """

    @overload
    def __init__(self: Datasource[Connection], bind: Engine) -> None: ...
    @overload
    def __init__(self: Datasource[AsyncConnection], bind: AsyncEngine) -> None: ...
    @overload
    def __init__(self: Datasource[S], bind: sessionmaker[S]) -> None: ...
    @overload
    def __init__(self: Datasource[A], bind: async_sessionmaker[A]) -> None: ...
    def __init__(self, bind: Any) -> None:
        self.records = records = _records()
        self.is_async = isinstance(bind, (records.AsyncEngine, records.async_sessionmaker))
        if not self.is_async and not isinstance(bind, (records.Engine, records.sessionmaker)):
            raise InvalidOption(
                option="datasource",
                value=repr(bind),
                expected="SQLAlchemy's Engine, AsyncEngine, sessionmaker or async_sessionmaker",
            )
        self.bind: Any = bind
        self._maker: Any = bind if hasattr(bind, "kw") else None
        self._prepared = False

    def __repr__(self) -> str:
        return f"<datasource {self.bind!r}>"

    @property
    def gives(self) -> type:
        """What functions get: the class of a connection or session."""
        if self._maker is not None:
            return self._maker.class_  # type: ignore[no-any-return]
        return self.records.AsyncConnection if self.is_async else self.records.Connection  # type: ignore[no-any-return]

    @property
    def engine(self) -> Any:
        """The engine; of a sessionmaker it may come later, by `configure(bind=...)`.

        Raises:
            InvalidOption: it is not bound to one engine. Exactly once holds within one database.
        """
        if self._maker is None:
            return self.bind
        engine, others = self._maker.kw.get("bind"), self._maker.kw.get("binds")
        if others or not isinstance(engine, (self.records.Engine, self.records.AsyncEngine)):
            raise InvalidOption(
                option="datasource", value=repr(self.bind), expected="a sessionmaker that is bound to one engine"
            )
        return engine

    def session(self, connection: Any) -> Any:
        """A context manager of what a function gets: the connection itself, or a session on it."""
        if self._maker is None:
            return contextlib.nullcontext(connection)
        return self._maker(bind=connection, autobegin=True, join_transaction_mode="control_fully")

    def claim(self, connection: Connection, attempt: Try, session: Any) -> Outcome | None:
        """See `Try.claim`."""
        self._prepare(connection, attempt.place)
        return attempt.claim(connection, session)

    def fail(self, connection: Connection, place: Place, failure: FailureInfo) -> Outcome:
        """See `transaction_records.fail`."""
        self._prepare(connection, place)
        return self.records.fail(connection, place, failure)  # type: ignore[no-any-return]

    def _prepare(self, connection: Connection, place: Place) -> None:
        if not self._prepared:
            self.records.prepare(connection, place)
            self._prepared = True

    def run(self, call: Callable[..., T], *args: Any) -> T:
        """Call with a connection."""
        with self.engine.connect() as connection:
            return call(connection, *args)

    async def run_async(self, call: Callable[..., T], *args: Any) -> T:
        """Call with a connection, off the loop."""
        if not self.is_async:
            return await asyncio.to_thread(self.run, call, *args)
        async with self.engine.connect() as connection:
            return await connection.run_sync(call, *args)  # type: ignore[no-any-return]

    async def forget(
        self, executions: Executions, *, window: Seconds = WINDOW, gone_after: Seconds | None = None
    ) -> int:
        """Delete records that nobody can need any more; returns how many. Call it now and then, beside running work.

        A record goes once the journal has held its outcome, or the end of its run, for longer than `window`.

        Args:
            executions: a `Client` or `Engine` on the store whose workflows ran these transactions.
            window: seconds or timedelta: at least the age of the oldest copy of the store that you would restore.
            gone_after: also delete records this old of runs that the store does not know; only right if no other
                store uses this database, and above `window` and the store's retention (of executions and of runs)
                together. None keeps them.

        Raises:
            StoreError, and errors of SQLAlchemy: what was deleted by then was right; call it again.

        Example:
            deleted = await bank.forget(client)
        """
        now_ms = executions.environment.now_ms()
        before_ms = now_ms - to_ms(window, "window")
        gone_ms = None if gone_after is None else now_ms - to_ms(gone_after, "gone_after")
        if not await self.run_async(self.records.table_exists):
            return 0
        deleted, after = 0, None
        while page := await self.run_async(self.records.page, after, before_ms, FORGET_PAGE):
            over = await executions.read(partial(_over, executions.store, page, before_ms, gone_ms))
            await self.run_async(self.records.delete, over)
            deleted, after = deleted + len(over), page[-1]
        return deleted


def _records() -> ModuleType:
    try:
        from perdure import transaction_records  # noqa: PLC0415 - SQLAlchemy comes with the first datasource
    except ImportError as error:
        raise SQLAlchemyMissing(detail=error) from error
    return transaction_records


def _over(store: Store, page: Sequence[Stored], before_ms: int, gone_ms: int | None) -> list[Stored]:
    """Those records that nobody can need any more."""
    found: list[Stored] = []
    for (namespace, execution, run), group in groupby(page, lambda r: (r.namespace, r.execution, r.run)):
        is_known, has_ended, answered = _journaled(store, key_of(store, namespace, execution), run, before_ms)
        for record in group:
            is_gone = not is_known and gone_ms is not None and record.attempt_at_ms < gone_ms
            if is_gone or has_ended or record.seq in answered:
                found.append(record)
    return found


def _journaled(store: Store, key: Key, run: str, before_ms: int) -> tuple[bool, bool, set[int]]:
    """Of a run, before a time: whether the store knows it, whether it had ended, which steps had their outcome."""
    answered: set[int] = set()
    position = 0
    try:
        while events := store.load(key, run, position, JOURNAL_PAGE):
            position += len(events)
            for recorded in events:
                if recorded.at_ms >= before_ms:  # times never go back within a run
                    return True, False, answered
                if isinstance(recorded.event, CLOSING):
                    return True, True, answered
                if isinstance(recorded.event, StepCompleted | StepFailed):
                    answered.add(recorded.event.seq)
    except (CorruptJournal, JournalFromTheFuture) as error:
        log.warning("the transactions of execution %s, run %s, keep their records: %s", key.execution, run, error)
        return True, False, answered
    return position > 0, _was_left(store, key, run, before_ms), answered


def _was_left(store: Store, key: Key, run: str, before_ms: int) -> bool:
    """Whether the execution was rewound, before a time, and left this run open behind it: it has no end."""
    n: int | None = None
    while page := store.runs(key, n, RUNS_PAGE):
        for row in page:
            if row.run == run:
                return row.status == "abandoned" and row.ended_at_ms is not None and row.ended_at_ms < before_ms
        n = page[-1].n
    return False


# --- what -------------------------------------------------------------------------------------------------------------


class Transaction(Step[P, R]):
    """What `@perdure.transaction` makes: a step whose function gets a connection or session before its arguments."""

    def __init__(
        self,
        fn: Callable[..., Any],
        datasource: Datasource[Any],
        *,
        name: str | None,
        options: StepOptions,
        raises: Sequence[type[Exception]],
    ) -> None:
        _check_connection(fn, datasource)
        super().__init__(fn, name=name, options=options, raises=raises, skip_self=True)
        self.__signature__ = self.arguments.signature
        self._source = datasource
        if self.is_async != datasource.is_async:
            reason = f"it is {'an `async def`' if self.is_async else 'a `def`'}, and {datasource} is not for those"
            fix = "An `async def` needs an AsyncEngine or async_sessionmaker, a `def` an Engine or sessionmaker."
            raise InvalidDefinition(name=repr(self.name), kind="transaction", reason=reason, fix=fix)

    def _check_effects(self) -> None:
        if self.options.once:
            raise InvalidOption(
                option="once", value="True", expected="nothing of the kind: a transaction happens exactly once"
            )

    def __get__(self, instance: Any, owner: type) -> Any:
        """Refused on an instance: the first parameter is the connection."""
        if instance is not None:
            raise _not_first(self.name)
        return self

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """See `Step.call`."""
        place, tries = self._place(), self._source.records.TRIES
        if self.is_async:
            return self._tries_async(place, tries, partial(self._once_async, place, args, kwargs))
        return self._tries(place, tries, partial(self._once, place, args, kwargs))

    def settle(self, failure: FailureInfo) -> Any:
        """See `Step.settle`."""
        place, source, tries = self._place(), self._source, self._source.records.SETTLE_TRIES
        if self.is_async:
            return self._tries_async(
                place, tries, partial(source.run_async, source.fail, place, failure), after_any=True
            )
        return self._tries(place, tries, partial(source.run, source.fail, place, failure), after_any=True)

    def outcome(self, value: Outcome) -> Payload | FailureInfo:
        """See `Step.outcome`."""
        if isinstance(value, PerdureError):
            raise value
        return value

    def _place(self) -> Place:
        run = current_attempt.get()
        assert isinstance(run, StepRun)
        command = run.command
        shown = preview(command.input)
        place: Place = self._source.records.Place(
            namespace=run.driver.key.namespace,
            execution=run.execution,
            run=run.run,
            seq=run.seq,
            step=self.name,
            digest=command.digest,
            input="" if shown is None else render(shown),
            location=command.location,
            attempt=run.attempt,
            at_ms=run.started_at_ms,
            vault=SealedStore.of(run.driver.store).vault(run.driver.key, run.run, run.seq),
        )
        return place

    def _encode(self, place: Place, value: Any) -> Outcome:
        try:
            return self.result.encode(value, self.result_what)
        except YourError as error:
            return ResultRolledBack(name=self.name, location=place.location, reason=error, value=short_repr(value))

    # Twice the same way round, awaited and not. What happens in the database is written once, in transaction_records.

    async def _tries_async(
        self, place: Place, tries: int, once: Callable[[], Coroutine[Any, Any, Outcome]], *, after_any: bool = False
    ) -> Outcome:
        for pause_s in self._source.records.pauses(place, tries):
            with self._source.records.again(pause_s, after_any=after_any):
                return await once()
            await asyncio.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def _tries(self, place: Place, tries: int, once: Callable[[], Outcome], *, after_any: bool = False) -> Outcome:
        for pause_s in self._source.records.pauses(place, tries):
            with self._source.records.again(pause_s, after_any=after_any):
                return once()
            time.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    async def _once_async(self, place: Place, args: Any, kwargs: Any) -> Outcome:
        source = self._source
        attempt: Try = source.records.Try(place)
        async with source.engine.connect() as connection, source.session(connection) as session:
            outcome: Outcome | None = await connection.run_sync(source.claim, attempt, session)
            if outcome is None:
                value = None
                with attempt:
                    value = await self.fn(session, *args, **kwargs)
                outcome = await connection.run_sync(attempt.finish, partial(self._encode, place, value))
            return outcome

    def _once(self, place: Place, args: Any, kwargs: Any) -> Outcome:
        source = self._source
        attempt: Try = source.records.Try(place)
        with source.engine.connect() as connection, source.session(connection) as session:
            outcome = source.claim(connection, attempt, session)
            if outcome is None:
                value = None
                with attempt:
                    value = self.fn(session, *args, **kwargs)
                if current_attempt.get().cancelled:  # its thread could not be stopped; what it wrote can
                    raise asyncio.CancelledError("the step was cancelled")
                outcome = attempt.finish(connection, partial(self._encode, place, value))
            return outcome

    async def _run_plainly(self, args: Any, kwargs: Any) -> Any:
        """Outside a workflow: a transaction like any other, without a record."""
        if not self.is_async:
            return await asyncio.to_thread(self._run_in_thread, args, kwargs)
        async with self._source.engine.connect() as connection, self._source.session(connection) as session:
            value = await self.fn(session, *args, **kwargs)
            await session.commit()
            return value

    def _run_in_thread(self, args: Any, kwargs: Any) -> Any:
        with self._source.engine.connect() as connection, self._source.session(connection) as session:
            value = self.fn(session, *args, **kwargs)
            session.commit()
            return value

    def __repr__(self) -> str:
        return f"<transaction {self.name!r}>"


def _check_connection(fn: Callable[..., Any], datasource: Datasource[Any]) -> None:
    """The first parameter is the connection, and of the kind that the datasource gives."""
    if not callable(fn):
        return  # a step's error says so
    name = getattr(fn, "__qualname__", repr(fn))
    parameters = list(inspect.signature(fn).parameters.values())
    if not parameters or parameters[0].kind not in _POSITIONAL:
        raise _not_first(name)
    hints: dict[str, Any] = {}
    with contextlib.suppress(NameError):  # what is not defined yet is told when the codecs are built
        hints = hints_of(fn)
    kinds = datasource.records.GIVEN
    first, *others = [hint if isinstance(hint := hints.get(p.name), type) else object for p in parameters]
    if any(issubclass(other, kinds) for other in others):
        raise _not_first(name)
    if issubclass(first, kinds) and not issubclass(datasource.gives, first):
        raise InvalidDefinition(
            name=repr(name),
            kind="transaction",
            reason=f"its first parameter is a {first.__name__}, and {datasource} gives a {datasource.gives.__name__}",
            fix="An engine gives a connection; for a session, pass sessionmaker(engine) or async_sessionmaker(engine).",
        )


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _not_first(name: str) -> InvalidDefinition:
    return InvalidDefinition(
        name=repr(name),
        kind="transaction",
        reason="its first parameter is not its connection or session",
        fix="Write a function of a module, not a method, with the connection or session first.",
    )


class TransactionDecorator(Generic[C]):
    """What `transaction(...)` returns: typed as a decorator."""

    def __init__(
        self, datasource: Datasource[C], name: str | None, options: StepOptions, raises: Sequence[type[Exception]]
    ) -> None:
        self.datasource = datasource
        self.name = name
        self.options = options
        self.raises = raises

    @overload
    def __call__(self, fn: Callable[Concatenate[C, P], Coroutine[Any, Any, R]]) -> Step[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[C, P], R]) -> Step[P, R]: ...
    def __call__(self, fn: Any) -> Any:
        return Transaction(fn, self.datasource, name=self.name, options=self.options, raises=self.raises)


@overload
def transaction(
    datasource: Datasource[C], /, *, name: str | None = None, **options: Unpack[StepKeywords]
) -> TransactionDecorator[C]: ...
@overload
def transaction(
    datasource: Engine, /, *, name: str | None = None, **options: Unpack[StepKeywords]
) -> TransactionDecorator[Connection]: ...
@overload
def transaction(
    datasource: AsyncEngine, /, *, name: str | None = None, **options: Unpack[StepKeywords]
) -> TransactionDecorator[AsyncConnection]: ...
@overload
def transaction(
    datasource: sessionmaker[S], /, *, name: str | None = None, **options: Unpack[StepKeywords]
) -> TransactionDecorator[S]: ...
@overload
def transaction(
    datasource: async_sessionmaker[A], /, *, name: str | None = None, **options: Unpack[StepKeywords]
) -> TransactionDecorator[A]: ...
def transaction(datasource: Any, /, *, name: str | None = None, **options: Any) -> Any:
    """Make a step of a function that writes to your own database, with SQLAlchemy: exactly once.

    The function gets a connection or session before its arguments, in a transaction that is open already: return to
    commit it, raise to roll it back. The result is recorded in the same transaction. A failure is final only once
    the database has recorded that as well; what is locked or deadlocked is tried again. Awaited outside a workflow, it
    is a plain transaction.

    Args:
        datasource: a `Datasource`, or what one is made of: an `Engine` or `AsyncEngine` for functions that take a
            connection, a `sessionmaker` or `async_sessionmaker` for those that take a session.
        name: as of a step.
        options: retry, timeout, total_timeout, heartbeat_timeout, concurrency, raises: as of a step.

    Raises:
        InvalidDefinition, InvalidOption, UnsupportedType: at import, naming what is wrong.
        SQLAlchemyMissing: SQLAlchemy is not installed.

    Example:
        @perdure.transaction(async_sessionmaker(engine))
        async def transfer(session: AsyncSession, source: str, target: str, cents: int) -> Balance: ...

        balance = await transfer("alice", "bob", 100)  # in a workflow
    """
    unknown = options.keys() - StepKeywords.__annotations__.keys()
    if unknown:
        raise TypeError(f"transaction() got unexpected options: {', '.join(sorted(unknown))}")
    if not isinstance(datasource, Datasource):
        datasource = Datasource(datasource)
    plain = step(name=name, **options)
    return TransactionDecorator(datasource, plain.name, plain.options, plain.raises)
