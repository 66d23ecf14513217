"""What engine and client have in common: starting executions, getting hold of them, going back, lists, removal."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, overload

from perdure.core.errors import EngineClosed, ExecutionExists, InvalidOption
from perdure.core.events import AnyEvent, Payload
from perdure.core.identity import DEFAULT_NAMESPACE, Key
from perdure.core.retry import Seconds
from perdure.runtime.branching import BranchRequest, Code, branch_request
from perdure.runtime.collecting import Removed, remove
from perdure.runtime.differing import Pair, pairs, side
from perdure.runtime.environment import Environment
from perdure.runtime.figures import Figures
from perdure.runtime.handle import Handle, key_of
from perdure.runtime.listing import Page, Where, checked_limit, filter_of, page_of, place_of
from perdure.runtime.local import Query
from perdure.runtime.options import DEFAULT, StartOptions
from perdure.runtime.questions import Questions
from perdure.runtime.starting import check_receipt, make_start
from perdure.runtime.unresolved import Unresolved, read_page
from perdure.runtime.updates import Settled
from perdure.store.protocol import Mail, OnConflict, Receipt, Reuse, Start, Status
from perdure.store.sealing import SealedStore
from perdure.workflow.attributes import AttributeValue, Moment
from perdure.workflow.definitions import Step, Workflow
from perdure.workflow.runnable import Runnable, workflow_of
from perdure.workflow.values import secrets_pass

P = ParamSpec("P")
R = TypeVar("R")


class Executions(Questions, ABC):
    """What engine and client have in common: starting executions and getting hold of them."""

    store: SealedStore
    namespace: str = DEFAULT_NAMESPACE
    environment: Environment

    async def start(
        self,
        workflow: Runnable[P, R],
        *args: Any,
        id: str | None = None,
        on_conflict: OnConflict = "use",
        reuse: Reuse = "never",
        start_at: Moment | None = None,
        delay: Seconds | None = None,
        deadline: Moment | Seconds | None = None,
        grace: Seconds | None = None,
        memo: Mapping[str, Any] | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
        **kwargs: Any,
    ) -> Handle[R]:
        """Start an execution; returns when that is durable.

        Args:
            workflow: what to run; its arguments follow. One that has the name of an option goes by position.
            id: chosen by the caller: starting it again with the same workflow and input returns the one there is.
                By default a random one.
            on_conflict: while one with the id is open: "use" it, if workflow and input are the same; "fail"; or
                "terminate" it and begin in its place.
            reuse: once one with the id has closed: "never" begin again, which returns the one there is, if workflow
                and input are the same; "if_failed": again unless it completed; "always" again.
            start_at: a datetime with time zone before which it does not begin.
            delay: the same, from now on: seconds or timedelta.
            deadline: a datetime, or seconds or timedelta from its beginning on, downtime included: then it is
                cancelled with a reason, and `grace` later, 30 seconds by default, terminated.
            grace: seconds or timedelta.
            memo: small values that `describe` shows, at most 16 KiB.
            attributes: what it can be found by (`list`): text, numbers, bools, datetimes, lists of texts, by names of
                a-z, 0-9 and _. They are not encrypted.

        Raises:
            ExecutionExists: the id is taken by another workflow or other input, or as `on_conflict` says.
            KeyMissing: its values could not be encrypted.
            InvalidId, InvalidOption, WrongArguments, EncodeError: nothing was started.

        Example:
            await client.start(remind, user, id=f"remind-{user}", delay=timedelta(days=7), attributes={"user": user})
        """
        known = workflow_of(workflow)
        options = StartOptions(
            on_conflict=on_conflict,
            reuse=reuse,
            start_at=start_at,
            delay=delay,
            deadline=deadline,
            grace=grace,
            memo=memo,
            attributes=attributes,
        )
        chosen = id if id is not None else self.environment.new_id()
        start = await self._start_of(known, args, kwargs, chosen, options)
        await self.begin(start, known)
        return Handle(self, start.key, known)

    async def signal_with_start(
        self,
        workflow: Runnable[P, R],
        *args: Any,
        id: str,
        signal: str,
        value: Any = None,
        message_id: str | None = None,
        **kwargs: Any,
    ) -> Handle[R]:
        """Send a signal to an execution, which is started first if there is none: both or neither, in one transaction.

        Args:
            workflow: what to run; its arguments follow.
            id: of the execution.
            signal: the signal's name.
            value: the signal's value.
            message_id: of the signal: sending it again with the same id has no further effect.

        Raises:
            ExecutionExists: the id is taken by another workflow or other input; the signal is not sent.
            ExecutionClosed: the execution has ended; the signal is not sent.
            InvalidId, WrongArguments, EncodeError: nothing was started or sent.

        Example:
            await client.signal_with_start(cart, user, id=f"cart-{user}", signal="add", value="apple")
        """
        known = workflow_of(workflow)
        start = await self._start_of(known, args, kwargs, id)
        await self.know(known)
        handle = Handle(self, start.key, known)
        await handle.signal_starting(start, signal, value, message_id)
        return handle

    async def update_with_start(
        self,
        workflow: Runnable[P, R],
        *args: Any,
        id: str,
        update: str,
        values: Sequence[Any] = (),
        update_id: str | None = None,
        returns: Any = Any,
        timeout: Seconds | None = None,
        **kwargs: Any,
    ) -> Any:
        """Update an execution, which is started first if there is none: both or neither, in one transaction.

        Args:
            workflow: what to run; its arguments follow.
            id: of the execution.
            update: the update's name.
            values: the update's arguments.
            update_id, returns, timeout: as in `Handle.update`.

        Returns:
            What the update's handler returned.

        Raises:
            ExecutionExists: the id is taken by another workflow or other input; nothing was sent.
            UpdateRejected, UpdateFailed, ExecutionClosed, ExecutionStalled, WaitTimeout: as `Handle.update`.

        Example:
            total = await client.update_with_start(cart, user, id=f"cart-{user}", update="add", values=["apple"])
        """
        known = workflow_of(workflow)
        start = await self._start_of(known, args, kwargs, id)
        await self.know(known)
        handle = Handle(self, start.key, known)
        return await handle.update_starting(start, update, values, update_id, returns, timeout)

    async def _start_of(
        self,
        workflow: Workflow[..., Any],
        args: Any,
        kwargs: Any,
        execution_id: str,
        options: StartOptions = DEFAULT,
    ) -> Start:
        key = key_of(self._opened(), self.namespace, execution_id)
        with secrets_pass(when=self.store.private):
            start = make_start(workflow, args, kwargs, key, self.environment, options)
        if self.store.private:
            await asyncio.to_thread(self.store.check, key)
        return start

    @abstractmethod
    async def know(self, workflow: Workflow[..., Any]) -> None:
        """Get to know a workflow: an engine runs its executions from now on."""

    async def begin(self, start: Start, workflow: Workflow[..., Any]) -> None:  # noqa: ARG002 - an engine learns it
        """Have it started. Raises `ExecutionExists`."""
        check_receipt(start, await self.deposit(start))

    @overload
    def handle(self, id: str) -> Handle[Any]: ...
    @overload
    def handle(self, id: str, workflow: Runnable[..., R]) -> Handle[R]: ...
    def handle(self, id: str, workflow: Runnable[..., Any] | None = None) -> Handle[Any]:
        """An execution by id; with its workflow the result is decoded as its type."""
        known = None if workflow is None else workflow_of(workflow)
        return Handle(self, key_of(self._opened(), self.namespace, id), known)

    async def fork(
        self,
        id: str,
        *,
        new_id: str | None = None,
        at: int | None = None,
        replace: Mapping[int, Any] | None = None,
        run: str | None = None,
        workflow: Runnable[..., R] | None = None,
    ) -> Handle[R]:
        """Begin a new execution with the first events of another one; returns when that is durable.

        What is copied is not done again: its results are in the copy. What was open there begins anew, under
        idempotency keys of its own. The execution that is copied goes on as if nothing had happened.

        Args:
            id: the execution that is copied, open or closed.
            new_id: of the fork: asking for the same again returns the one there is. By default a random one.
            at: the number of the first event that is not copied, as `perdure journal` shows it. By default that behind
                the last one in `replace`, else the end of what is recorded.
            replace: other results for steps, by the number of the event that holds the recorded one.
            run: of an earlier run, by its id, as `Handle.runs` tells it. By default the current one.
            workflow: its code, to encode what is in `replace`; not needed where an engine runs that has it.

        Raises:
            ExecutionNotFound: there is none with this id.
            NotForkable: it cannot begin there; the message says why, and what to do.
            ExecutionExists: the new id is taken by something else.
            InvalidId, InvalidOption, EncodeError: nothing was begun.

        Example:
            again = await client.fork("report-1", new_id="report-1b", replace={4: "another plan"})
        """
        chosen = new_id if new_id is not None else self.environment.new_id()
        store, source = self._opened(), key_of(self._opened(), self.namespace, id)
        key = key_of(store, self.namespace, chosen)
        if key == source:
            raise InvalidOption(option="new_id", value=repr(new_id), expected="another id; to keep it, handle.rewind")
        known = None if workflow is None else workflow_of(workflow)
        code, new_run = self.with_code(known), self.environment.new_id()
        request = await branch_request(
            self.read, store, source, key, new_run, at=at, replace=replace, run=run, code=code
        )
        receipt = await self.branch(request, known)
        if receipt.status == "exists":
            recorded = "?" if receipt.row is None else receipt.row.workflow
            raise ExecutionExists(execution=chosen, recorded=recorded, why="and it is not this fork")
        return Handle(self, key, known)

    async def diff(
        self, left: str, right: str, *, left_run: str | None = None, right_run: str | None = None
    ) -> AsyncIterator[Pair]:
        """Two executions side by side, event by event: a fork and its parent, two runs of one, or any two.

        An event stands beside the one of the same step, signal or child, if the other journal has one near there. Two
        are the same if they say the same, whenever and in whatever run. Journals may be of any length.

        Args:
            left: an execution.
            right: another one, or the same.
            left_run: of an earlier run, by its id, as `Handle.runs` tells it. By default the current one.
            right_run: likewise.

        Yields:
            `left` and `right`, of which one may be None, and how they relate: "same", "differs", "left" or "right".

        Raises:
            ExecutionNotFound, RunNotFound: there is no such execution, or it has no such run (any more).

        Example:
            async for pair in client.diff("report-1", "report-1b"):
                if pair.relation != "same":
                    print(pair.left, pair.right)
        """
        store, namespace = self._opened(), self.namespace
        one = await side(self.read, store, key_of(store, namespace, left), left_run)
        other = await side(self.read, store, key_of(store, namespace, right), right_run)
        async for pair in pairs(self.read, store, one, other):
            yield pair

    def with_code(self, workflow: Workflow[..., Any] | None) -> Code:
        """What is known of a workflow by its name, this one included."""

        def find(name: str) -> Workflow[..., Any] | None:
            return workflow if workflow is not None and workflow.name == name else self.code(name)

        return find

    def code(self, name: str) -> Workflow[..., Any] | None:  # noqa: ARG002 - an engine has code
        """The workflow of this name, where its code is at hand."""
        return None

    async def unresolved(self, *, after: Unresolved | None = None, limit: int = 100) -> list[Unresolved]:
        """A page of steps, declared `once`, of which nobody knows whether they did their work, in any execution.

        Each with its full input. `handle.resolve` settles one.

        Args:
            after: the last one of the page before.
            limit: at most so many.
        """
        store, namespace = self._opened(), self.namespace
        row = None if after is None else after.row
        return await self.read(lambda: read_page(store, namespace, "", row, limit))  # type: ignore[no-any-return]

    async def list(
        self,
        *,
        status: Sequence[Status] = (),
        workflow: str = "",
        prefix: str = "",
        parent: str = "",
        started_from: Moment | None = None,
        started_before: Moment | None = None,
        where: Sequence[Where] = (),
        cursor: str = "",
        limit: int = 100,
    ) -> Page:
        """A page of executions, the newest first: those that meet every condition that is given.

        Args:
            status: one of these.
            workflow: of the workflow with this name.
            prefix: whose id begins so.
            parent: started by the execution with this id.
            started_from: a datetime with time zone: started then or later.
            started_before: started before then.
            where: conditions on attributes, as `("cents", ">", 1_000)`, with =, !=, <, <=, > or >=. Kinds never mix. Of
                a list, one item that fits is enough; != is true where the attribute is set, and no item is that.
            cursor: `next` of the page before.
            limit: at most so many, up to 1,000.

        Returns:
            A list with one attribute more: `next`, the cursor of the page that follows, empty on the last one. What is
            started meanwhile moves no page.

        Raises:
            InvalidOption: a filter, a cursor or a limit that means nothing.

        Example:
            page = await client.list(status=["failed"], where=[("team", "=", "search"), ("cents", ">", 1_000)])
        """
        store = self._opened()
        wanted = filter_of(
            self.namespace,
            status=status,
            workflow=workflow,
            prefix=prefix,
            parent=parent,
            started_from=started_from,
            started_before=started_before,
            where=where,
        )
        place, checked = place_of(wanted, cursor), checked_limit(limit)
        found = await self.read(lambda: store.find(wanted, place, checked + 1))
        return page_of(wanted, found, checked)

    async def collect(
        self,
        *,
        older_than: Seconds | None = None,
        runs_older_than: Seconds | None = None,
        dry_run: bool = False,
        progress: Callable[[Removed], object] | None = None,
    ) -> Removed:
        """Remove executions that closed, or runs that ended, longer ago than that; beside running work.

        An execution goes with all that belongs to it; its id may be started anew. One stays as long as its messages are
        not delivered, a step of it is unresolved, or its parent is open and has not journaled how it closed.

        Args:
            older_than: seconds or timedelta, of executions since they closed; by default none goes.
            runs_older_than: likewise of past runs since they ended, of open executions too. Current ones always stay,
                and so do those that were copied from elsewhere, have messages on their way, or unresolved steps.
            dry_run: only count what would go.
            progress: called now and then with what has gone so far.

        Raises:
            InvalidOption: the time, or neither is given.
            StoreError: what has gone by then has gone wholly; call it again.

        Example:
            removed = await client.collect(older_than=timedelta(days=90))
        """
        ages = {"older_than": older_than, "runs_older_than": runs_older_than}
        return await remove(self.read, self._opened(), self.namespace, ages, self.environment, progress, dry=dry_run)

    async def known_step(self, waiting: Unresolved) -> Step[..., Any] | None:  # noqa: ARG002 - an engine has code
        """The step in its code, where that is at hand."""
        return None

    def _opened(self) -> SealedStore:
        store: SealedStore | None = getattr(self, "store", None)
        if store is None:
            raise EngineClosed
        return store

    # --- the handles' port ---

    async def read(self, call: Callable[[], Any]) -> Any:
        """Run a reading store call off the loop."""
        return await asyncio.to_thread(call)

    def new_id(self) -> str:
        """A random id."""
        return self.environment.new_id()

    @abstractmethod
    async def deposit(self, item: Start | Mail) -> Receipt:
        """Have a start or a message stored; returns when that is durable, or refused."""

    @abstractmethod
    async def closed(self, key: Key) -> AnyEvent | None:
        """Wait until it is closed or stalled, or found missing; the closing event, if that is at hand."""

    @abstractmethod
    async def resume(self, key: Key, message_id: str = "") -> Receipt:
        """Let a stalled or paused execution go on: see `Store.resume`."""

    @abstractmethod
    async def branch(self, request: BranchRequest, workflow: Workflow[..., Any] | None = None) -> Receipt:
        """Have a fork or a rewind begun. Raises what `carry_out` raises."""

    @abstractmethod
    async def answered(self, key: Key, update_id: str) -> Settled:
        """Wait until an update has ended; how it did."""

    @abstractmethod
    async def run_query(self, query: Query) -> Payload:
        """Have a query answered by the execution's code."""

    @abstractmethod
    async def figures(self) -> Figures | None:
        """What the engine counts of itself.

        Example:
            before = await client.figures()
            await asyncio.sleep(10)
            print((await client.figures()).since(before).steps / 10, "steps a second")
        """
