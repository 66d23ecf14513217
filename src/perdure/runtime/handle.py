"""Handles: what holds an execution from outside, and the port through which engine and client serve them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from perdure.core import events as ev
from perdure.core.errors import (
    AnswerRefused,
    ExecutionCancelled,
    ExecutionClosed,
    ExecutionFailed,
    ExecutionNotFound,
    ExecutionStalled,
    ExecutionTerminated,
    InvalidOption,
    NotAsked,
    NotUnresolved,
    PerdureError,
    RunNotFound,
    UpdateFailed,
    UpdateRejected,
    WaitTimeout,
)
from perdure.core.identity import ExecutionId, Key, Namespace, checked_id, shard_of, storable
from perdure.core.retry import Seconds, to_ms
from perdure.runtime import asks
from perdure.runtime.asks import OpenQuestion
from perdure.runtime.branching import BranchRequest, Code, branch_request
from perdure.runtime.description import Description, describe
from perdure.runtime.environment import Environment
from perdure.runtime.local import Query
from perdure.runtime.starting import check_receipt
from perdure.runtime.unresolved import PAGE, Unresolved, answer, find, find_step, is_decision, read_page, was_taken
from perdure.runtime.updates import Settled, request_of
from perdure.store.protocol import OPEN_STATUSES, Mail, Receipt, Row, Running, RunRow, Start, Store
from perdure.workflow.definitions import Step, Workflow
from perdure.workflow.effects import Decision
from perdure.workflow.failures import NOTHING_DECLARED
from perdure.workflow.handlers import Form, Kind, encode_values, signal_payload
from perdure.workflow.standing import Stack
from perdure.workflow.values import Codec, codec_for, secrets_pass

R = TypeVar("R")
T = TypeVar("T")

JOURNAL_PAGE = 1_000
NOT_DELIVERED = "Nothing was sent to it."
CUT_OFF = "The update had been accepted; the end cut its handler off. What it did by then is in the journal."
NOT_ACCEPTED = "The update was not delivered: the execution ended first."


class Port(Protocol):
    """How a handle reaches the world: through a running engine, or through the store alone."""

    @property
    def store(self) -> Store: ...
    @property
    def environment(self) -> Environment: ...
    async def deposit(self, item: Start | Mail) -> Receipt: ...
    async def read(self, call: Callable[[], Any]) -> Any: ...
    async def closed(self, key: Key) -> ev.AnyEvent | None: ...  # the closing event, if it is at hand
    async def resume(self, key: Key, message_id: str) -> Receipt: ...
    async def known_step(self, waiting: Unresolved) -> Step[..., Any] | None: ...  # if its code is at hand
    async def branch(self, request: BranchRequest, workflow: Workflow[..., Any] | None) -> Receipt: ...
    def with_code(self, workflow: Workflow[..., Any] | None) -> Code: ...
    async def answered(self, key: Key, update_id: str) -> Settled: ...
    async def run_query(self, query: Query) -> ev.Payload: ...
    def new_id(self) -> str: ...


def key_of(store: Store, namespace: str, execution_id: str) -> Key:
    """Where an execution lives."""
    checked_id(namespace, "namespace")
    checked_id(execution_id)
    return Key(shard_of(namespace, execution_id, store.shards), Namespace(namespace), ExecutionId(execution_id))


class Handle(Generic[R]):
    """An execution, seen from outside: what `start` and `handle` return. `id` is the execution's.

    Example:
        handle = client.handle("report-1", research)
        await handle.signal("approval", Decision(approved=True))
        report = await handle.result(timeout=60)
    """

    def __init__(self, port: Port, key: Key, workflow: Workflow[..., R] | None) -> None:
        self._port = port
        self.key = key
        self.id = key.execution
        self._workflow = workflow

    def __repr__(self) -> str:
        return f"<execution {self.id!r}>"

    @property
    def is_private(self) -> bool:
        """Whether its values are encrypted in the store."""
        return bool(getattr(self._port.store, "private", False))

    async def result(self, *, timeout: Seconds | None = None) -> R:
        """Wait for the end and return the result.

        Args:
            timeout: seconds or timedelta; the execution goes on if it passes.

        Raises:
            ExecutionFailed, ExecutionCancelled, ExecutionTerminated: how it ended otherwise. An exception that its
                workflow declares, `@workflow(raises=[...])`, is raised as itself, where the handle has the workflow.
            ExecutionStalled: its code failed and waits for a fix.
            ExecutionNotFound: there is none with this id.
            WaitTimeout: no end in time.

        Example:
            report = await handle.result(timeout=timedelta(minutes=5))
        """
        return self._outcome(await self._within(timeout, self._closing_event()))

    async def _closing_event(self) -> ev.AnyEvent:
        """Between two looks it may begin, begin anew, or be removed."""
        while True:
            event = await self._port.closed(self.key)
            if event is not None:
                return event
            row = await self._row()
            if row.status == "stalled":
                raise ExecutionStalled(execution=self.id, problem=row.problem)
            if row.status not in OPEN_STATUSES:
                last = await self._last_event(row)
                if last:
                    return last[0].event

    async def _last_event(self, row: Row) -> list[ev.Recorded]:
        store = self._port.store
        return await self._port.read(lambda: store.load(self.key, row.run, row.position - 1, 1))  # type: ignore[no-any-return]

    def _outcome(self, event: ev.AnyEvent) -> R:
        match event:
            case ev.ExecutionCompleted():
                codec = self._workflow.result if self._workflow is not None else codec_for(Any, "a result")
                return codec.decode(event.result, f"the result of execution {self.id!r}")  # type: ignore[no-any-return]
            case ev.ExecutionFailed():
                raises = NOTHING_DECLARED if self._workflow is None else self._workflow.raises
                raise raises.as_declared_outside(ExecutionFailed(execution=self.id, failure=event.failure))
            case ev.ExecutionCancelled():
                raise ExecutionCancelled(execution=self.id, reason=event.reason)
            case _:
                ended = ExecutionTerminated(execution=self.id, reason=getattr(event, "reason", ""))
                for what in getattr(event, "not_known", ()):
                    ended.add_note(f"Not known: {what}.")
                raise ended

    def _secrets_pass(self) -> AbstractContextManager[None]:
        """Around encoding: whether what is sent is recorded encrypted."""
        return secrets_pass(when=self.is_private)

    async def signal(self, name: str, value: Any = None, *, id: str | None = None) -> None:
        """Send a signal; returns when it is durable.

        Args:
            name: what the workflow passes to `perdure.receive`.
            value: data that the receiver's type accepts.
            id: of this message: sending it again with the same id has no further effect.

        Raises:
            ExecutionNotFound, ExecutionClosed: it was not delivered.
            EncodeError: the value cannot be encoded.

        Example:
            await handle.signal("approval", Decision(approved=True), id=f"approval-{form.id}")
        """
        await self._signal(None, name, value, id)

    async def signal_starting(self, start: Start, name: str, value: Any, id: str | None) -> None:
        """Send a signal with the start of its receiver: see `Executions.signal_with_start`."""
        await self._signal(start, name, value, id)

    async def _signal(self, start: Start | None, name: str, value: Any, id: str | None) -> None:
        checked_id(name, "signal name")
        message_id = checked_id(id, "message id") if id is not None else self._port.new_id()
        with self._secrets_pass():
            payload = signal_payload(name, value, self._form("signal", name))
        event = ev.SignalReceived(message_id, name, payload)
        await self._post(Mail(receiver=self.key, message_id=message_id, event=event, start=start))

    async def query(self, name: str, *args: Any, returns: Any = Any, timeout: Seconds | None = 30.0) -> Any:
        """Ask the execution's code a question; nothing of it is recorded.

        A running engine answers, of this process or another one: from memory, or by replaying the journal, also of an
        execution that has ended.

        Args:
            name: of the handler, `@perdure.on_query`.
            args: for the handler.
            returns: the type of the answer, where the handle does not know it from its workflow.
            timeout: seconds or timedelta; None waits as long as it takes.

        Raises:
            NobodyAnswers: no engine runs on the store.
            UnknownWorkflow: the engine that runs does not have the code.
            UnknownHandler, WrongArguments, QueryFailed, ReadOnlyHandler: as its code answered.
            ExecutionNotFound, ExecutionStalled, WaitTimeout: there is no answer.

        Example:
            done = await handle.query("progress", returns=float)
        """
        form = self._form("query", name)
        with secrets_pass(when=True):  # nothing of it is recorded
            payload = encode_values(args, form, f"query {name!r}")
        query = Query(self.key, checked_id(name, "query name"), payload)
        answer = await self._within(timeout, self._port.run_query(query))
        return _codec(form, returns).decode(answer, f"the answer to query {name!r}")

    async def stack(self, *, timeout: Seconds | None = 30.0) -> Stack:
        """Where its tasks stand: the user's lines, and what the innermost of them awaits. Nothing of it is recorded.

        A running engine answers, of this process or another one: from memory, or by replaying the journal.

        Args:
            timeout: seconds or timedelta; None waits as long as it takes.

        Returns:
            `waiting`, a list: of each task its name, its frames (`place`, `function`), and what it `awaits`, with the
            number of that step, timer, child or message. Of an execution that has ended it is empty.

        Raises:
            NobodyAnswers: no engine runs on the store.
            UnknownWorkflow: the engine that runs does not have the code.
            ExecutionNotFound, ExecutionStalled, WaitTimeout: there is no answer.

        Example:
            for task in (await handle.stack()).waiting:
                print(task.task, task.frames[-1].place, task.awaits)
        """
        if (await self._row()).status not in OPEN_STATUSES:
            return Stack([])
        answer = await self._within(timeout, self._port.run_query(Query(self.key, stack=True)))
        return msgspec.msgpack.decode(answer.data, type=Stack)

    async def update(
        self, name: str, *args: Any, id: str | None = None, returns: Any = Any, timeout: Seconds | None = None
    ) -> Any:
        """Send a message and wait for what its handler returns.

        Args:
            name: of the handler, `@perdure.on_update`.
            args: for the handler.
            id: of this update. Asking again with the same id, even from another process, gives the same answer.
            returns: the type of the result, where the handle does not know it from its workflow.
            timeout: seconds or timedelta; the update goes on if it passes.

        Raises:
            UpdateRejected: it was not accepted, and leaves no trace in the journal.
            UpdateFailed: its handler raised.
            ExecutionClosed: the execution ended before it was answered.
            ExecutionStalled: it waits for a fix, and the update with it.
            ExecutionNotFound, WaitTimeout, EncodeError: there is no answer.

        Example:
            total = await handle.update("add", "apple", returns=int)
        """
        return await self._update(None, name, args, id, returns, timeout)

    async def update_starting(
        self, start: Start, name: str, args: Sequence[Any], id: str | None, returns: Any, timeout: Seconds | None
    ) -> Any:
        """Update an execution with its start: see `Executions.update_with_start`."""
        return await self._update(start, name, tuple(args), id, returns, timeout)

    async def _update(
        self,
        start: Start | None,
        name: str,
        args: tuple[Any, ...],
        id: str | None,
        returns: Any,
        timeout: Seconds | None,
    ) -> Any:
        form = self._form("update", name)
        with self._secrets_pass():
            payload = encode_values(args, form, f"update {name!r}")
        update_id = checked_id(id, "update id") if id is not None else self._port.new_id()

        async def ask() -> Settled:
            await self._post(request_of(self.key, name, update_id, payload, start))
            return await self._port.answered(self.key, update_id)

        settled = await self._within(timeout, ask())
        if isinstance(settled, ev.UpdateCompleted):
            if settled.failure is not None:
                raise UpdateFailed(execution=self.id, name=name, failure=settled.failure)
            assert settled.result is not None
            return _codec(form, returns).decode(settled.result, f"the result of update {name!r}")
        if settled.failure is not None:
            raise UpdateRejected(execution=self.id, name=name, failure=settled.failure)
        row = await self._row()
        raise ExecutionClosed(execution=self.id, status=row.status, fate=CUT_OFF if settled.position else NOT_ACCEPTED)

    async def state(self, type: Any = Any) -> Any:
        """What the workflow last published, whether it runs or not; None if it has published nothing.

        Args:
            type: what it is decoded as; by default plain data.

        Raises:
            DecodeError: it does not fit the type.
            ExecutionNotFound: there is no such execution.

        Example:
            progress = await handle.state(Progress)
        """
        store, row = self._port.store, await self._row()
        if row.state_position is None:
            return None
        position = row.state_position
        found = await self._port.read(lambda: store.load(self.key, row.run, position, 1))
        what = f"the published state of {self.id!r}"
        return codec_for(type, what).decode(found[0].event.state, what)

    def _form(self, kind: Kind, name: str) -> Form | None:
        return None if self._workflow is None else self._workflow.form(kind, name)

    async def _within(self, timeout: Seconds | None, work: Coroutine[Any, Any, T]) -> T:
        if timeout is None:
            return await work
        try:
            limit_s = to_ms(timeout, "timeout") / 1000
        except InvalidOption:
            work.close()
            raise
        try:
            async with asyncio.timeout(limit_s):
                return await work
        except TimeoutError:
            raise WaitTimeout(execution=self.id, seconds=timeout) from None

    async def cancel(self, reason: str = "") -> None:
        """Ask it to cancel: `asyncio.CancelledError` is raised where it waits, and it may clean up first.

        Args:
            reason: why, for the journal; `ExecutionCancelled` tells it.

        Raises:
            ExecutionNotFound, ExecutionClosed: there is nothing to cancel.
        """
        await self._send(ev.CancelRequested(self._port.new_id(), _reason(reason)))

    async def terminate(self, reason: str = "") -> None:
        """End it without asking its code; also while it is paused, stalled, or not begun.

        Args:
            reason: why, for the journal; `ExecutionTerminated` tells it.

        Raises:
            ExecutionNotFound, ExecutionClosed: there is nothing to end.
        """
        await self._send(ev.TerminateRequested(self._port.new_id(), _reason(reason)))

    async def pause(self, reason: str = "") -> None:
        """Let nothing of it begin any more, until `resume`; returns when that is durable.

        Steps that run may end, and are recorded. Timers and its deadline wait: what came due meanwhile happens at the
        end of the pause, in order. Messages are kept, and read then; only a request to terminate is heard.

        Raises:
            ExecutionNotFound, ExecutionClosed: there is nothing to pause.
        """
        await self._send(ev.PauseRequested(self._port.new_id(), _reason(reason)))

    async def resume(self) -> None:
        """Let it go on after `pause`, or after it stalled and its code was fixed; else it is left as it is.

        Raises:
            ExecutionNotFound, ExecutionClosed: there is nothing to resume.
        """
        self._check(await self._port.resume(self.key, self._port.new_id()))

    async def unresolved(self) -> list[Unresolved]:
        """Steps of it, declared `once`, of which nobody knows whether they did their work: at most a thousand."""
        store, key = self._port.store, self.key
        return await self._port.read(lambda: read_page(store, key.namespace, key.execution, None, PAGE))  # type: ignore[no-any-return]

    async def resolve(self, seq: int, decision: Decision, *, note: str = "", run: str | None = None) -> None:
        """Say what came of a step of which nobody knew; returns when that is durable. It counts once.

        Args:
            seq: the step's number, as `unresolved()` lists it.
            decision: `Happened(value)`: its await returns the value. `DidNotHappen()`: and it can no longer happen; it
                runs again, if the workflow still waits for it. `Abandoned()`: its await raises `UnknownOutcome`.
            note: why, for the journal.
            run: the run that began it, as `unresolved()` tells it. Needed only where several wait for the same number,
                after a rewind or continue-as-new.

        Raises:
            NotUnresolved: nobody asks that (any more), or it is not said which of several runs is meant.
            EncodeError, AnswerRefused: the value is not of the type of the step's result. Where no code is at hand
                this is found out when the engine takes the answer: it is then listed again, as refused.
            ExecutionNotFound: there is none with this id.

        Example:
            for step in await handle.unresolved():
                if step.step == "charge" and found_in_the_ledger(step.arguments):
                    await handle.resolve(step.seq, perdure.Happened(receipt))
        """
        if not is_decision(decision):
            expected = "perdure.Happened(value), perdure.DidNotHappen() or perdure.Abandoned()"
            raise InvalidOption(option="decision", value=repr(decision), expected=expected)
        await self._row()
        port, store = self._port, self._port.store
        waiting = await port.read(lambda: find(store, self.key, seq, run))
        step = await port.known_step(waiting)
        if step is None and self._workflow is not None:
            step = find_step(self._workflow, waiting.step)
        with self._secrets_pass():
            mail = answer(waiting, decision, step, port.new_id(), storable(note))
        receipt = await port.deposit(mail)
        if receipt.status == "moot" and not await port.read(lambda: was_taken(store, self.key, mail.message_id)):
            raise NotUnresolved(execution=self.id, seq=seq, state="somebody else has just settled it")
        if receipt.status == "refused":
            raise AnswerRefused(execution=self.id, seq=seq, reason=receipt.detail)
        self._check(receipt)

    async def rewind(self, *, at: int | None = None, replace: Mapping[int, Any] | None = None) -> None:
        """Let it go on from an earlier event, in a new run; returns when that is durable.

        What is recorded before that is not done again. What came behind it is kept in the run that is over, whether
        that was open or closed. Signals that came behind it are received again; steps that were open there begin anew,
        under idempotency keys of their own.

        Args:
            at: the number of the first event that does not count any more, as `perdure journal` shows it. By default
                that behind the last one in `replace`.
            replace: other results for steps, by the number of the event that holds the recorded one.

        Raises:
            ExecutionNotFound: there is none with this id.
            NotForkable: it cannot begin there; the message says why, and what to do.
            MovedOn: it was rewound, or continued as new, by somebody else meanwhile.
            InvalidOption, EncodeError: nothing was changed.

        Example:
            await handle.rewind(replace={4: "another plan"})
        """
        if at is None and not replace:
            raise InvalidOption(option="at", value="None", expected="the number of an event, or a result in `replace`")
        port, store, workflow = self._port, self._port.store, self._workflow
        code, run = port.with_code(workflow), port.new_id()
        key = self.key
        request = await branch_request(port.read, store, key, key, run, at=at, replace=replace, run=None, code=code)
        await port.branch(request, workflow)

    async def asks(self) -> list[OpenQuestion]:
        """Questions that it asks people, and that are open: at most a thousand. See `perdure.ask`."""
        port, key = self._port, self.key
        now_ms, read = port.environment.now_ms(), asks.read_page
        return await port.read(lambda: read(port.store, key.namespace, key.execution, "", now_ms, "", PAGE))  # type: ignore[no-any-return]

    async def answer(self, value: Any, *, seq: int | None = None, token: str = "", by: str = "") -> None:
        """Answer a question that it asks; returns when that is durable. It counts once.

        Args:
            value: of the type that is asked for.
            seq: the question's number, where there are several.
            token: the question's, instead.
            by: who answers, for the record: up to 200 characters.

        Raises:
            InvalidOption: `by` is too long.
            NotAsked: nobody asks that (any more): it was answered, its time is over, or it is of an earlier run.
            WrongAnswer, EncodeError: the value is not of the type that is asked for; the question is still open.
            ExecutionNotFound: there is none with this id.

        Example:
            [asked] = await handle.asks()
            await handle.answer(True, token=asked.token)
        """
        await self._row()
        port, store, key, now_ms = self._port, self._port.store, self.key, self._port.environment.now_ms()
        if token:
            _, number, tag = asks.read_token(token)
            found = await port.read(lambda: asks.find_by_token(store, key, number, tag, now_ms))
        else:
            found = await port.read(lambda: asks.find(store, key, seq, now_ms))
        with self._secrets_pass():
            mail = asks.answer(found, value, port.new_id(), by)
        receipt = await port.deposit(mail)
        if receipt.status == "moot" and not await port.read(lambda: asks.was_taken(store, found, mail.message_id)):
            raise NotAsked(execution=self.id, state="somebody else has just answered, or its time is over")
        if receipt.status == "closed":
            raise NotAsked(execution=self.id, state="the run that asked has ended")
        self._check(receipt)

    async def describe(self) -> Description:
        """Its status and workflow, what it waits for, when it wakes, why it stalled; memo, attributes, deadline.

        Raises:
            ExecutionNotFound: there is none with this id.
        """
        store, row = self._port.store, await self._row()
        return await self._port.read(lambda: describe(store, row))  # type: ignore[no-any-return]

    async def _row(self) -> Row:
        store = self._port.store
        row: Row | None = await self._port.read(lambda: store.row(self.key))
        if row is None:
            raise ExecutionNotFound(execution=self.id, namespace=self.key.namespace)
        return row

    async def journal(self, *, run: str | None = None) -> list[ev.Recorded]:
        """All events of a run, in order: of its current one, or of the one with this id, as `runs` tells.

        Raises:
            RunNotFound: it has no such run, or has it no longer.
        """
        wanted = run or (await self._row()).run
        store, events = self._port.store, list[ev.Recorded]()
        page: list[ev.Recorded] = []
        while not events or len(page) == JOURNAL_PAGE:
            start = len(events)
            page = await self._port.read(lambda start=start: store.load(self.key, wanted, start, JOURNAL_PAGE))  # type: ignore[misc]
            if not page:
                break
            events.extend(page)
        if run is not None and not events:
            raise RunNotFound(execution=self.id, run=run)
        return events

    async def runs(self, *, before: RunRow | None = None, limit: int = 100) -> list[RunRow]:
        """A page of at most `limit` of its runs, the newest first; go on with `before=` the last one.

        Raises:
            ExecutionNotFound: there is none with this id.
        """
        store, least = self._port.store, None if before is None else before.n
        found: list[RunRow] = await self._port.read(lambda: store.runs(self.key, least, limit))
        if not found and before is None:
            raise ExecutionNotFound(execution=self.id, namespace=self.key.namespace)
        return found

    async def running(self) -> list[Running]:
        """Steps that have been open for more than a second or so, with their attempts and their progress."""
        store = self._port.store
        return await self._port.read(lambda: [each for each in store.running(self.key) if each.seq])  # type: ignore[no-any-return]

    async def _send(self, event: ev.AnyEvent) -> None:
        message_id: str = getattr(event, "message_id")  # noqa: B009 - every message has one
        await self._post(Mail(receiver=self.key, message_id=message_id, event=event))

    async def _post(self, mail: Mail) -> None:
        receipt = await self._port.deposit(mail)
        if mail.start is not None:
            check_receipt(mail.start, receipt)
        self._check(receipt)

    def _check(self, receipt: Receipt) -> None:
        if receipt.status == "missing":
            raise ExecutionNotFound(execution=self.id, namespace=self.key.namespace)
        if receipt.status == "closed":
            status = receipt.row.status if receipt.row is not None else "closed"
            raise ExecutionClosed(execution=self.id, status=status, fate=NOT_DELIVERED)


def _codec(form: Form | None, returns: Any) -> Codec[Any]:
    return form.result if form is not None and returns is Any else codec_for(returns, "what was asked for")


def raise_if_error(answer: Receipt | PerdureError) -> Receipt:
    """A receipt, or the error raised."""
    if isinstance(answer, PerdureError):
        raise answer
    return answer


def _reason(given: str) -> str:
    """As journals hold it. Raises `InvalidOption`: no text."""
    if not isinstance(given, str):
        raise InvalidOption(option="reason", value=repr(given), expected="text")
    return storable(given)
