"""What `@perdure.transaction` promises, on all four kinds of datasource, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker
from tests.runtime.conftest import Lab, kinds, of_kind, status
from tests.transactions.bank import KINDS, SYNC, Bank, as_workflow, copy_store

import perdure
from perdure import transaction_records
from perdure.core import events as ev
from perdure.core.errors import InvalidDefinition, InvalidOption
from perdure.core.identity import ExecutionId, Key, Namespace
from perdure.runtime import steps
from perdure.store.memory import MemoryStore
from perdure.store.sealing import SealedStore
from perdure.testing import TestEngine, replies
from perdure.workflow.values import render

VAULT = SealedStore(MemoryStore()).vault(Key(0, Namespace("n"), ExecutionId("e")), "r", 1)
all_kinds = pytest.mark.parametrize("kind", KINDS)


async def run(lab: Lab, flow: Any, *, id: str = "one", timeout: float = 20) -> Any:
    async with lab.engine(flow) as engine:
        return await (await engine.start(flow, 5, id=id)).result(timeout=timeout)


async def stalls(lab: Lab, flow: Any, *, id: str = "one") -> str:
    """Why it stalls."""
    async with lab.engine(flow) as engine:
        row = await status(await engine.start(flow, 5, id=id), "stalled", "completed", "failed")
        assert row.status == "stalled"
        return str(row.problem)


async def resumed(lab: Lab, flow: Any, *, id: str = "one") -> Any:
    async with lab.engine(flow) as engine:
        await engine.handle(id).resume()
        return await engine.handle(id, flow).result(timeout=20)


async def journal(lab: Lab, id: str = "one") -> list[ev.Recorded]:
    async with lab.client() as client:
        return await client.handle(id).journal()


# --- the ordinary way ---


@all_kinds
async def test_writes_and_record_are_committed_together_and_the_result_is_journaled(
    lab: Lab, bank: Bank, kind: str
) -> None:
    assert await run(lab, as_workflow(bank.deposit(kind))) == 5
    assert bank.ledger() == [5]
    assert bank.records() == [(1, "completed")]
    completed = of_kind(await journal(lab), ev.StepCompleted)[0]
    assert completed.name == "deposit"
    assert render(completed.preview) == '{"cents": 5}', "the connection is no input"


@all_kinds
async def test_what_raises_is_rolled_back_whole_and_tried_again(lab: Lab, bank: Bank, kind: str) -> None:
    def twice_refused(_: Any, cents: int) -> int:
        if len(bank.calls) < 3:
            raise ValueError("not yet")
        return cents

    deposit = bank.deposit(kind, twice_refused, retry=perdure.Retry(attempts=3, delay=0))
    assert await run(lab, as_workflow(deposit)) == 5
    assert kinds(await journal(lab)).count("StepAttemptFailed") == 2
    assert (bank.calls, bank.ledger()) == ([5, 5, 5], [5])


@all_kinds
async def test_a_final_failure_leaves_its_record_and_nothing_else(lab: Lab, bank: Bank, kind: str) -> None:
    def refused(_: Any, cents: int) -> int:
        raise ValueError(f"no {cents}")

    deposit = bank.deposit(kind, refused)

    async def caught(cents: int) -> str:
        try:
            return str(await deposit(cents))
        except perdure.StepFailed as error:
            return error.failure.message

    assert await run(lab, as_workflow(caught)) == "no 5"
    assert (bank.ledger(), bank.records()) == ([], [(1, "failed")])


@dataclass
class Balance:
    cents: int


async def test_the_workflow_gets_the_result_as_it_was_encoded_before_the_commit(lab: Lab, bank: Bank) -> None:
    made: list[Balance] = []

    @perdure.transaction(bank.engine)
    def balance(_: sa.Connection, cents: int) -> Balance:
        made.append(Balance(cents))
        return made[0]

    async def body(cents: int) -> bool:
        got = await balance(cents)
        return got == made[0] and got is not made[0]

    assert await run(lab, as_workflow(body)) is True


async def test_many_transactions_of_one_run_have_a_record_each(lab: Lab, bank: Bank) -> None:
    deposit = bank.deposit("async session")

    async def body(cents: int) -> list[int]:
        return list(await asyncio.gather(*[deposit(cents + n) for n in range(10)]))

    assert await run(lab, as_workflow(body)) == list(range(5, 15))
    assert sorted(bank.ledger()) == list(range(5, 15))
    assert [seq for seq, _ in bank.records()] == list(range(1, 11))


@all_kinds
async def test_outside_a_workflow_it_is_a_plain_transaction(bank: Bank, kind: str) -> None:
    bind = bank.bind(kind)

    if kind in SYNC:

        @perdure.transaction(bind)
        def write(given: Any, cents: int) -> int:
            given.execute(sa.text("INSERT INTO ledger (key, cents) VALUES ('plain', :cents)"), {"cents": cents})
            return 7 // cents

    else:

        @perdure.transaction(bind)
        async def write(given: Any, cents: int) -> int:
            await given.execute(sa.text("INSERT INTO ledger (key, cents) VALUES ('plain', :cents)"), {"cents": cents})
            return 7 // cents

    assert await write(3) == 2
    with pytest.raises(ZeroDivisionError):
        await write(0)
    assert bank.ledger() == [3]
    assert bank.sql("SELECT name FROM sqlite_master WHERE name = 'perdure_transactions'") == []


async def test_the_plain_function_takes_the_connection(bank: Bank) -> None:
    @perdure.transaction(bank.engine)
    def double(connection: sa.Connection, n: int) -> int:
        return int(connection.execute(sa.text("SELECT :n * 2"), {"n": n}).scalar_one())

    with bank.engine.connect() as connection:
        assert double.fn(connection, 21) == 42


@all_kinds
async def test_a_savepoint_may_fail_alone(lab: Lab, bank: Bank, kind: str) -> None:
    text = sa.text("INSERT INTO ledger (key, cents) VALUES ('nested', 1)")

    def nested(given: Any, cents: int) -> Any:
        if kind in SYNC:
            part = given.begin_nested()
            given.execute(text)
            part.rollback()
            return cents

        async def awaited() -> int:
            part = await given.begin_nested()
            await given.execute(text)
            await part.rollback()
            return cents

        return awaited()

    assert await run(lab, as_workflow(bank.deposit(kind, nested))) == 5
    assert bank.ledger() == [5]


async def test_a_stand_in_touches_no_database(bank: Bank) -> None:
    deposit = bank.deposit("async session")
    flow = as_workflow(deposit)
    async with TestEngine([flow], steps={"deposit": replies(ValueError("busy"), 7)}) as engine:
        with pytest.raises(perdure.ExecutionFailed, match="busy"):
            await (await engine.start(flow, 5, id="one")).result()
        assert await (await engine.start(flow, 5, id="two")).result() == 7
    assert (bank.calls, bank.ledger()) == ([], [])


# --- the record wins ---


@all_kinds
async def test_after_a_journal_was_restored_from_an_older_copy_the_record_wins(
    lab: Lab, bank: Bank, tmp_path: Path, kind: str
) -> None:
    flow = as_workflow(bank.deposit(kind))
    async with lab.client() as client:
        await client.start(flow, 5, id="one")
    older = Lab(tmp_path / "older.db")
    copy_store(lab.path, older.path)
    assert await run(lab, flow) == 5
    assert await run(older, flow) == 5
    assert bank.calls == [5], "the function ran once"
    assert bank.ledger() == [5]


async def test_a_recorded_final_failure_wins_as_well(lab: Lab, bank: Bank, tmp_path: Path) -> None:
    """Else a runner that was late would commit what the journal calls failed."""

    def refused_once(_: Any, cents: int) -> int:
        if len(bank.calls) == 1:
            raise ValueError("the first time")
        return cents

    flow = as_workflow(bank.deposit("session", refused_once))
    async with lab.client() as client:
        await client.start(flow, 5, id="one")
    older = Lab(tmp_path / "older.db")
    copy_store(lab.path, older.path)
    failures = []
    for each in (lab, older):
        with pytest.raises(perdure.ExecutionFailed) as caught:
            await run(each, flow)
        failures.append(caught.value.failure)
    assert failures[0].cause == failures[1].cause, "the same failure, with its traceback"
    assert failures[1].cause.message == "the first time"
    assert (bank.calls, bank.ledger()) == ([5], [])


async def test_another_run_of_the_same_execution_has_other_keys(lab: Lab, bank: Bank, tmp_path: Path) -> None:
    """The same id and input in another store: another run id, so neither record nor idempotency key is shared."""
    flow = as_workflow(bank.deposit("connection"))
    assert await run(lab, flow) == 5
    assert await run(Lab(tmp_path / "fresh.db"), flow) == 5
    assert bank.ledger() == [5, 5]
    assert len(bank.records()) == 2


async def test_a_record_of_something_else_stalls_and_tells_both(lab: Lab, bank: Bank, tmp_path: Path) -> None:
    """The journal went back, and took another way since: neither a wrong result nor a second transaction."""
    cents = [5]
    deposit = bank.deposit("async connection")
    flow = as_workflow(lambda _: deposit(cents[0]))
    async with lab.client() as client:
        await client.start(flow, 5, id="one")
    older = Lab(tmp_path / "older.db")
    copy_store(lab.path, older.path)
    assert await run(lab, flow) == 5
    cents[0] = 6
    problem = await stalls(older, flow)
    assert "P0703" in problem
    assert 'recorded: deposit({"cents": 5})' in problem
    assert 'now:      deposit({"cents": 6})' in problem
    assert bank.ledger() == [5]
    cents[0] = 5
    assert await resumed(older, flow) == 5


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"format": 1}, "P0103"),
        ({"state": "open", "outcome": None}, "P0704"),
        ({"outcome": b"\xc1"}, "P0102"),
        ({"outcome": None}, "P0102"),
    ],
)
async def test_a_record_that_cannot_be_read_stalls(
    lab: Lab, bank: Bank, tmp_path: Path, values: dict[str, Any], code: str
) -> None:
    flow = as_workflow(bank.deposit("connection"))
    async with lab.client() as client:
        await client.start(flow, 5, id="one")
    older = Lab(tmp_path / "older.db")
    copy_store(lab.path, older.path)
    await run(lab, flow)
    with bank.engine.begin() as connection:
        connection.execute(transaction_records.TABLE.update().values(values))
    assert code in await stalls(older, flow)
    assert (bank.calls, bank.ledger()) == ([5], [5])


async def test_a_recorded_result_that_no_longer_fits_its_type_stalls_instead_of_running_again(
    lab: Lab, bank: Bank, tmp_path: Path
) -> None:
    flow = as_workflow(bank.deposit("session"))
    async with lab.client() as client:
        await client.start(flow, 5, id="one")
    older = Lab(tmp_path / "older.db")
    copy_store(lab.path, older.path)
    await run(lab, flow)

    @perdure.transaction(sessionmaker(bank.engine), name="deposit")
    def deposit(_: Session, cents: int) -> list[str]:
        raise AssertionError(f"ran again: {cents}")

    assert "P0202" in await stalls(older, as_workflow(deposit))
    assert await resumed(older, flow) == 5


# --- what is refused ---


@all_kinds
async def test_a_result_that_cannot_be_encoded_is_rolled_back_and_stalls(lab: Lab, bank: Bank, kind: str) -> None:
    results: list[Any] = [object()]
    flow = as_workflow(bank.deposit(kind, lambda *_: results[0], retry=3))
    problem = await stalls(lab, flow)
    assert "P0701" in problem
    assert "<object object" in problem
    assert (bank.ledger(), bank.records(), bank.calls) == ([], [], [5])
    results[0] = 7
    assert await resumed(lab, flow) == 7
    assert bank.ledger() == [5]


def ending(kind: str, way: str, *, swallowed: bool) -> Any:
    """What a function does that ends its transaction: by a method of what it was given, or by SQL."""

    def call(given: Any) -> Any:
        return getattr(given, way)() if way.islower() else given.execute(sa.text(f"  {way}  "))

    def ends(given: Any, cents: int) -> Any:
        with contextlib.suppress(Exception) if swallowed else contextlib.nullcontext():
            call(given)
        return cents

    async def ends_async(given: Any, cents: int) -> Any:
        with contextlib.suppress(Exception) if swallowed else contextlib.nullcontext():
            await call(given)
        return cents

    return ends if kind in SYNC else ends_async


@all_kinds
@pytest.mark.parametrize("swallowed", [False, True])
@pytest.mark.parametrize("way", ["commit", "rollback", "close", "COMMIT", "END TRANSACTION", "rollback work"])
async def test_a_function_that_ends_its_own_transaction_is_rolled_back_and_stalls(
    lab: Lab, bank: Bank, way: str, kind: str, *, swallowed: bool
) -> None:
    mended: list[bool] = []
    ends = ending(kind, way.upper() if " " in way else way, swallowed=swallowed)
    flow = as_workflow(bank.deposit(kind, lambda given, cents: cents if mended else ends(given, cents), retry=3))
    assert "P0702" in await stalls(lab, flow)
    assert (bank.ledger(), bank.records(), bank.calls) == ([], [], [5])
    mended.append(True)
    assert await resumed(lab, flow) == 5
    assert bank.ledger() == [5]


async def test_what_follows_a_rollback_of_its_own_is_not_committed_either(lab: Lab, bank: Bank) -> None:
    def again(given: Session, cents: int) -> int:
        given.rollback()
        given.execute(sa.text("INSERT INTO ledger (key, cents) VALUES ('later', 1)"))
        return cents

    assert "rolled back by itself" in await stalls(lab, as_workflow(bank.deposit("session", again)))
    assert bank.ledger() == []


async def test_a_rollback_of_its_own_and_an_error_is_an_ordinary_failure(lab: Lab, bank: Bank) -> None:
    def refused(given: Session, _: int) -> int:
        given.rollback()
        raise ValueError("after looking twice")

    with pytest.raises(perdure.ExecutionFailed, match="after looking twice"):
        await run(lab, as_workflow(bank.deposit("session", refused)))
    assert (bank.ledger(), bank.records()) == ([], [(1, "failed")])


class Routing(Session):
    """As the handbook has it: reads here, writes there."""

    elsewhere: ClassVar[list[sa.Engine]] = []

    def get_bind(self, *args: Any, **options: Any) -> Any:
        return self.elsewhere[0] if self.elsewhere else super().get_bind(*args, **options)


@pytest.mark.parametrize("kind", ["session", "async session"])
@pytest.mark.parametrize("use", ["used", "unused", "swallowed"])
async def test_a_session_that_strays_to_another_connection_is_refused(
    lab: Lab, bank: Bank, monkeypatch: pytest.MonkeyPatch, kind: str, use: str
) -> None:
    """What it writes there would be committed without the record, or the record without it."""
    elsewhere = [bank.sync_engine(kind)]
    monkeypatch.setattr(Routing, "elsewhere", elsewhere)
    insert = sa.text("INSERT INTO ledger (key, cents) VALUES ('x', 1)")
    ignored = contextlib.suppress(perdure.PerdureError) if use == "swallowed" else contextlib.nullcontext()
    maker = (
        sessionmaker(bank.engine, class_=Routing)
        if kind == "session"
        else async_sessionmaker(bank.async_engine, sync_session_class=Routing)
    )
    if kind == "session":

        @perdure.transaction(maker, name="stray")
        def stray(session: Session, cents: int) -> int:
            with ignored:
                _ = None if use == "unused" else session.execute(insert)
            return cents

    else:

        @perdure.transaction(maker, name="stray")
        async def stray(session: AsyncSession, cents: int) -> int:
            with ignored:
                _ = None if use == "unused" else await session.execute(insert)
            return cents

    flow = as_workflow(stray)
    assert "another connection" in await stalls(lab, flow)
    assert (bank.ledger(), bank.records()) == ([], [])
    elsewhere.clear()
    assert await resumed(lab, flow) == 5
    assert (bank.ledger(), bank.records()) == ([] if use == "unused" else [1], [(1, "completed")])


async def test_a_database_that_does_not_roll_back_is_refused(lab: Lab, bank: Bank) -> None:
    loose = bank.engine.execution_options(isolation_level="AUTOCOMMIT")

    @perdure.transaction(loose, retry=None)
    def write(connection: sa.Connection, cents: int) -> int:
        connection.execute(sa.text("INSERT INTO ledger (key, cents) VALUES ('x', :cents)"), {"cents": cents})
        return cents

    problem = await stalls(lab, as_workflow(write))
    assert "AUTOCOMMIT" in problem
    assert (bank.ledger(), bank.records()) == ([], [])


async def test_sqlalchemys_recipe_for_sqlite_that_begins_by_itself_is_accepted(lab: Lab, bank: Bank) -> None:
    engine = sa.create_engine(f"sqlite:///{bank.path}")

    @event.listens_for(engine, "connect")
    def own_begin(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    @perdure.transaction(engine)
    def write(connection: sa.Connection, cents: int) -> int:
        connection.execute(sa.text("INSERT INTO ledger (key, cents) VALUES ('x', :cents)"), {"cents": cents})
        return cents

    assert await run(lab, as_workflow(write)) == 5
    assert bank.ledger() == [5]
    engine.dispose()


async def test_a_sessionmaker_may_get_its_engine_later_but_only_one(lab: Lab, bank: Bank) -> None:
    maker = sessionmaker()

    @perdure.transaction(maker, retry=None)
    def write(session: Session, cents: int) -> int:
        session.execute(sa.text("INSERT INTO ledger (key, cents) VALUES ('x', :cents)"), {"cents": cents})
        return cents

    flow = as_workflow(write)
    assert "bound to one engine" in await stalls(lab, flow)
    maker.configure(bind=bank.engine, binds={dict: bank.engine})
    assert "bound to one engine" in await stalls(lab, flow, id="two")
    maker.configure(bind=bank.engine, binds=None)
    assert await resumed(lab, flow) == 5
    assert bank.ledger() == [5]


def sync_one(connection: sa.Connection) -> int: ...
async def async_one(connection: AsyncConnection) -> int: ...
def wants_session(session: Session) -> int: ...
async def wants_async_session(session: AsyncSession) -> int: ...
def method(self, session: Session) -> int: ...
def keyword_only(*, session: Session) -> int: ...
def no_parameter() -> int: ...
async def awaits(connection) -> int: ...
def blocks(connection) -> int: ...


@pytest.mark.parametrize(
    ("kind", "fn", "reason"),
    [
        ("connection", async_one, "gives a Connection"),
        ("connection", wants_session, "pass sessionmaker"),
        ("async connection", sync_one, "gives a AsyncConnection"),
        ("async connection", wants_async_session, "async_sessionmaker"),
        ("session", sync_one, "gives a Session"),
        ("async session", wants_session, "gives a AsyncSession"),
        ("session", method, "not a method"),
        ("session", keyword_only, "first parameter"),
        ("session", no_parameter, "first parameter"),
        ("connection", 7, "cannot be called"),
        ("connection", awaits, "needs an AsyncEngine"),
        ("async connection", blocks, "an Engine or sessionmaker"),
    ],
)
def test_what_cannot_work_is_refused_at_decoration(bank: Bank, kind: str, fn: Any, reason: str) -> None:
    with pytest.raises(InvalidDefinition, match=reason):
        perdure.transaction(bank.bind(kind))(fn)


def test_what_is_no_datasource_is_refused(bank: Bank) -> None:
    with pytest.raises(InvalidOption, match="async_sessionmaker"):
        perdure.transaction("sqlite:///bank.db")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="once"):
        perdure.transaction(bank.engine, once=True)  # type: ignore[call-overload]


def test_a_method_is_refused_where_it_is_looked_up(bank: Bank) -> None:
    class Repository:
        @perdure.transaction(bank.engine)
        def save(self, cents: int) -> int: ...

    with pytest.raises(InvalidDefinition, match="not a method"):
        _ = Repository().save
    assert Repository.save.name.endswith("Repository.save")


def test_options_are_those_of_a_step(bank: Bank) -> None:
    @perdure.transaction(bank.engine, name="pay", retry=7, timeout=3, concurrency=2)
    def deposit(connection: sa.Connection, cents: int) -> int: ...

    assert (deposit.name, deposit.options.retry.attempts, deposit.options.timeout_ms) == ("pay", 7, 3_000)
    assert deposit.with_options(retry=None).options.retry.attempts == 1
    assert repr(deposit) == "<transaction 'pay'>"
    assert str(deposit.arguments.signature) == "(cents: 'int') -> 'int'"
    with pytest.raises(InvalidOption, match="exactly once"):
        deposit.with_options(once=True)


# --- what fails for now ---


@pytest.fixture
def impatient(tmp_path: Path) -> Any:
    """A bank that does not wait for locks."""
    made = Bank(tmp_path / "impatient.db", timeout=0)
    yield made
    made.close()


@pytest.fixture
def few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction_records, "TRIES", 3)
    monkeypatch.setattr(transaction_records, "SETTLE_TRIES", 3)


class Lock:
    """Another program's transaction."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False)
        self._connection.execute("BEGIN IMMEDIATE")

    def release(self, *_: Any) -> None:
        self._connection.close()


@all_kinds
async def test_a_locked_database_is_tried_again_whatever_the_retry_policy(lab: Lab, impatient: Bank, kind: str) -> None:
    lock, refused = Lock(impatient.path), []

    @event.listens_for(impatient.sync_engine(kind), "handle_error")
    def on_error(context: Any) -> None:
        refused.append(context.original_exception)
        if len(refused) == 4:
            lock.release()

    assert await run(lab, as_workflow(impatient.deposit(kind, retry=None))) == 5
    assert len(refused) == 4
    assert (impatient.calls, impatient.ledger()) == ([5], [5])


class Serialization(sqlite3.OperationalError):
    sqlstate = "40001"


@all_kinds
async def test_a_transaction_that_lost_against_another_one_runs_again(lab: Lab, bank: Bank, kind: str) -> None:
    def lost(_: Any, cents: int) -> int:
        if len(bank.calls) < 4:
            raise sa.exc.OperationalError("UPDATE ...", {}, Serialization("could not serialize access"))
        return cents

    assert await run(lab, as_workflow(bank.deposit(kind, lost, retry=None))) == 5
    assert bank.calls == [5] * 4
    assert bank.ledger() == [5]


@all_kinds
async def test_a_function_that_uses_its_connection_for_nothing_has_its_record_all_the_same(
    lab: Lab, bank: Bank, kind: str
) -> None:
    """A session joins the transaction when it is first used."""
    decorate = perdure.transaction(bank.bind(kind), name="idle", retry=None)
    if kind in SYNC:

        @decorate
        def idle(_given: Any, cents: int) -> int:
            return cents
    else:

        @decorate
        async def idle(_given: Any, cents: int) -> int:
            return cents

    assert await run(lab, as_workflow(idle)) == 5
    assert bank.records() == [(1, "completed")]


async def test_tries_have_an_end(lab: Lab, bank: Bank, few_tries: None) -> None:
    def lost(_: Any, cents: int) -> int:
        raise sa.exc.OperationalError("UPDATE ...", {}, Serialization("could not serialize access"))

    with pytest.raises(perdure.ExecutionFailed, match="could not serialize"):
        await run(lab, as_workflow(bank.deposit("session", lost, retry=None)))
    assert bank.calls == [5] * 3
    assert (bank.ledger(), bank.records()) == ([], [(1, "failed")])


def test_pauses_grow_are_spread_and_have_an_end() -> None:
    def place(seq: int) -> Any:
        return transaction_records.Place("n", "e", "r", seq, "s", b"", "", "", 1, 0, VAULT)

    some, others = (list(transaction_records.pauses(place(seq), transaction_records.TRIES)) for seq in (1, 2))
    assert some != others
    assert len(some) == transaction_records.TRIES
    assert some[-1] == 0.0
    assert all(0.005 <= pause <= 1.0 for pause in some[:-1])
    assert sum(some) < 6
    settling = list(transaction_records.pauses(place(1), transaction_records.SETTLE_TRIES))
    assert 10 < sum(settling) < steps.SETTLE_S


async def test_a_database_that_says_nothing_stalls_and_is_asked_again(
    lab: Lab, impatient: Bank, few_tries: None
) -> None:
    """Called failed, it could still be committed by somebody: nobody may say so."""
    lock = Lock(impatient.path)
    flow = as_workflow(impatient.deposit("async session", retry=2))
    problem = await stalls(lab, flow)
    assert "P0705" in problem
    assert "database is locked" in problem
    assert "INSERT" not in problem, "the statement and its values are nobody's business"
    lock.release()
    assert await resumed(lab, flow) == 5
    assert (impatient.calls, impatient.ledger()) == ([5], [5])


# --- a COMMIT of which nobody knows ---


class Commits:
    """Stands before the driver's COMMIT, and lets it fail."""

    def __init__(self, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.plan: dict[int, tuple[bool, bool]] = {}  # which one: whether it arrives, whether the connection is lost
        self._original = engine.dialect.do_commit
        monkeypatch.setattr(engine.dialect, "do_commit", self._commit)

    def _commit(self, connection: Any) -> None:
        self.count += 1
        arrives, is_lost = self.plan.get(self.count, (True, False))
        if arrives:
            self._original(connection)
        if self.count in self.plan:
            if is_lost:
                raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
            raise sqlite3.OperationalError("disk I/O error")


SET_UP = 3  # commits: of the table, of the probe


@all_kinds
@pytest.mark.parametrize("arrives", [False, True])
@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_commit_with_unknown_outcome_is_read_again_by_its_key(
    lab: Lab, bank: Bank, monkeypatch: pytest.MonkeyPatch, kind: str, *, arrives: bool, is_lost: bool
) -> None:
    """Also where the error does not say that it may be tried again, and nobody would."""
    commits = Commits(bank.sync_engine(kind), monkeypatch)
    commits.plan = {SET_UP + 1: (arrives, is_lost)}
    flow = as_workflow(bank.deposit(kind, retry=None))
    if arrives:
        assert await run(lab, flow) == 5
        assert (bank.calls, bank.ledger(), bank.records()) == ([5], [5], [(1, "completed")])
    elif is_lost:
        assert await run(lab, flow) == 5
        assert (bank.calls, bank.ledger(), bank.records()) == ([5, 5], [5], [(1, "completed")])
    else:
        with pytest.raises(perdure.ExecutionFailed, match="disk I/O"):
            await run(lab, flow)
        assert (bank.calls, bank.ledger(), bank.records()) == ([5], [], [(1, "failed")])


def test_a_connection_whose_commit_failed_is_dropped(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLAlchemy would give it back to the pool as it is: in the middle of the transaction, with its locks."""
    commits = Commits(bank.engine, monkeypatch)
    commits.plan = {1: (False, False)}
    with bank.engine.connect() as connection:
        connection.execute(sa.text("INSERT INTO ledger (key, cents) VALUES ('x', 1)"))
        with pytest.raises(sa.exc.OperationalError):
            transaction_records.commit(connection, connection)
    with bank.engine.connect() as connection:
        assert connection.execute(sa.text("SELECT * FROM ledger")).all() == []


async def test_the_commit_of_a_failure_may_be_unknown_too(
    lab: Lab, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = Commits(bank.engine, monkeypatch)
    commits.plan = {SET_UP + 1: (False, False), SET_UP + 2: (False, True), SET_UP + 3: (True, False)}

    def refused(_: Any, cents: int) -> int:
        raise ValueError(f"no {cents}")

    with pytest.raises(perdure.ExecutionFailed, match="no 5"):
        await run(lab, as_workflow(bank.deposit("session", refused)))
    assert (bank.calls, bank.records()) == ([5], [(1, "failed")])
