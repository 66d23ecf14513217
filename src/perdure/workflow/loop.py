"""The deterministic event loop: ordinary asyncio for workflow code, driven by journaled events and nothing else.

FIFO ready queue; time is logical time; timers are commands; tasks and futures hash by creation number, so that sets of
them iterate alike on every run. `drain` runs to idle and returns; it is called from a plain handle, never in a task.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
from asyncio import events as asyncio_events
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context, copy_context
from random import Random
from typing import Any, NoReturn, Protocol

from perdure.core.errors import Evicted, SpinError
from perdure.workflow.location import refusal, stack_of

MAX_HANDLES_WITHOUT_COMMAND = 100_000
MAX_HANDLES_PER_DRAIN = 1_000_000
MAX_CLOSE_TRIES = 1_000
MIN_PRUNED = 64
MOST_STACKS = 10  # of tasks, in a message
FAR_FUTURE_MS = 2**53  # sleep(math.inf): never, in a number that every store holds


class Host(Protocol):
    """What the loop needs of the execution that owns it."""

    @property
    def now_ms(self) -> int:
        """Logical time."""
        ...

    @property
    def random(self) -> Random:
        """The run's generator."""
        ...

    @property
    def entropy(self) -> Random:
        """Another one, for ids: whatever code does to the first, they stay unique."""
        ...

    def start_timer(self, timer: Timer, due_ms: int) -> int:
        """Issue a timer command; returns its sequence number."""
        ...

    def cancel_command(self, seq: int) -> None:
        """The code no longer waits for this command."""
        ...


class ReadOnlyHost(Protocol):
    """The host while code runs that may only look. It has no more than time: all else it refuses."""

    now_ms: int

    def refuse(self, what: str) -> NoReturn:
        """Raise."""
        ...


class Nobody:
    """The host of an evicted loop, so that loop and execution are no cycle: they are many, and would pile up."""

    now_ms = 0

    def cancel_command(self, seq: int) -> None:
        """It is forgotten already."""

    def start_timer(self, *_: Any) -> NoReturn:
        """Refused, as the rest."""
        raise Evicted

    run_step = run_child = continue_as = start_timer
    random = entropy = property(start_timer)


class Future(asyncio.Future[Any]):
    """A future that hashes by a number of its loop, taken when it is first hashed: few ever are."""

    _number = 0

    def __hash__(self) -> int:
        if not self._number:
            loop = self.get_loop()
            assert isinstance(loop, DeterministicLoop)
            self._number = loop.next_number()
        return self._number


class CommandFuture(Future):
    """The future of a command: cancelling it tells the machine that nobody waits any more."""

    seq = 0

    def cancel(self, msg: Any = None) -> bool:
        """As in asyncio; the command is dropped if it has not begun."""
        if not super().cancel(msg=msg):
            return False
        loop = self.get_loop()
        assert isinstance(loop, DeterministicLoop)
        loop.host.cancel_command(self.seq)
        return True


class Task(asyncio.Task[Any]):
    """A task that hashes by its creation number."""

    def __init__(self, coro: Any, *, loop: DeterministicLoop, **options: Any) -> None:
        number = loop.next_number()
        self._hash = loop.salt + number  # before the base class hashes it
        if options.get("name") is None:
            options["name"] = f"task-{number}"
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self._hash


class Handle(asyncio.Handle):
    """A callback that is ready. As asyncio's, without what only its own loops need."""

    __slots__ = ()

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...], context: Context | None) -> None:
        self._callback = callback
        self._args = args
        self._context = copy_context() if context is None else context
        self._cancelled = False

    def cancel(self) -> None:
        """Never run it."""
        self._cancelled = True

    def __repr__(self) -> str:
        return f"<handle of {self._callback!r}>"


class Timer(asyncio.TimerHandle):
    """A pending timer; only its `TimerFired` runs it."""

    seq = 0
    _callback: Callable[..., Any]
    _args: tuple[Any, ...]
    _context: Context
    _cancelled: bool


def _nothing() -> None:
    """What a drain without an event begins with."""


_Base: Any = asyncio.AbstractEventLoop  # a type checker would have all that is refused below written out


class DeterministicLoop(_Base):  # type: ignore[misc]
    """One execution's event loop. Not thread-safe: it belongs to the engine's thread."""

    def __init__(self, host: Host) -> None:
        self.host: Host = host
        self.closing = False
        self.salt = 0
        self.unretrieved: list[BaseException] = []
        self.turns: dict[Any, int] = {}  # how often something came round again while one event was handled
        self._ready: deque[Handle | Timer] = deque()
        self._at_next_event: list[Handle] = []
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._drains = 0  # since finished tasks were last forgotten
        self._asyncgens: list[AsyncGenerator[Any, Any]] = []
        self._prune_asyncgens_at = MIN_PRUNED
        self._numbers = 0
        self._handles_since_command = 0
        self._thread = threading.get_ident()

    # --- driving ---

    def salt_hashes(self, run_digest: str) -> None:
        """Let tasks of different runs hash differently: asyncio and anyio keep those of all loops in one table."""
        self.salt = int(run_digest[:8], 16) << 24

    def drain(self, first: Callable[..., None] = _nothing, *args: Any) -> None:
        """Call `first`, if there is one, then run everything that is ready, and what that makes ready, until idle.

        `first` is here because decoding a value runs the user's code as well: validators, default factories.

        Raises:
            SpinError: 100,000 callbacks ran without a new command, or a million in all.
        """
        ready = self._ready
        before = self._enter()
        try:
            first(*args)
            if self._at_next_event:
                ready.extend(self._at_next_event)
                self._at_next_event.clear()
            self.turns.clear()
            self._handles_since_command = 0
            self._run_ready(ready)
        finally:
            self._leave(before)
        if len(self._tasks) >= MIN_PRUNED:
            self._prune()

    def _enter(self) -> asyncio.AbstractEventLoop | None:
        """Be the running loop; returns the one before, to be put back by `_leave`."""
        before = asyncio_events._get_running_loop()
        asyncio_events._set_running_loop(self)
        RUNNING[self._thread] = self
        keep = sys.get_asyncgen_hooks().firstiter
        if type(keep) is not _KeepAsyncgens:
            sys.set_asyncgen_hooks(firstiter=_KeepAsyncgens(keep))
        return before

    def _leave(self, before: asyncio.AbstractEventLoop | None) -> None:
        asyncio_events._set_running_loop(before)
        if isinstance(before, DeterministicLoop):
            RUNNING[self._thread] = before
        else:
            RUNNING.pop(self._thread, None)

    def _run_ready(self, ready: deque[Handle | Timer]) -> None:
        handles = 0
        while ready:
            handles += 1
            self._handles_since_command += 1
            if self._handles_since_command > MAX_HANDLES_WITHOUT_COMMAND or handles > MAX_HANDLES_PER_DRAIN:
                raise SpinError(handles=handles - 1, stack=self.stack())
            handle = ready.popleft()
            if handle._cancelled:
                continue
            try:
                handle._context.run(handle._callback, *handle._args)
            except SystemExit:
                pass  # the task holds it: the workflow fails, the process stays
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - a callback's, as asyncio treats it
                self.call_exception_handler({"exception": error})

    def command_issued(self) -> None:
        """Progress: the workflow asked for something new, so it does not spin."""
        self._handles_since_command = 0

    def fire(self, timer: Timer) -> None:
        """Make a due timer ready."""
        if not timer.cancelled():
            self._ready.append(timer)

    def look(self, reader: ReadOnlyHost, call: Callable[[], Any]) -> Any:
        """Call code that may only look, with the loop running but nothing to be had of it.

        What it does all the same is told to `reader`; then what is in memory is not to be relied on any more.
        """

        def refused(given: Any, *_: Any, **__: Any) -> NoReturn:
            if asyncio.iscoroutine(given):
                given.close()
            reader.refuse("asyncio's loop")

        before, mine = (len(self._ready), self._numbers), self.host
        self.host = reader  # type: ignore[assignment]
        self.__dict__.update(call_soon=refused, create_task=refused)  # in front of the methods
        outside = self._enter()
        try:
            return Context().run(call)
        finally:
            self._leave(outside)
            del self.__dict__["call_soon"], self.__dict__["create_task"]
            self.host = mine
            if (len(self._ready), self._numbers) != before:
                reader.refuse("asyncio's loop")

    def stack(self) -> str:
        """Where the workflow's tasks are, for people."""
        waiting = self.waiting_tasks()
        lines = [stack_of(task) for task in waiting[:MOST_STACKS]]
        more = len(waiting) - MOST_STACKS
        return "\n".join([*lines, f"  and {more} more tasks"] if more > 0 else lines)

    def waiting_tasks(self) -> list[asyncio.Task[Any]]:
        """Tasks that have not ended, in order of creation."""
        return [task for task in self._tasks if not task.done()]

    def lost_exceptions(self) -> list[BaseException]:
        """Exceptions of finished tasks that nobody awaited, once; and of callbacks."""
        for task in self._tasks:
            if task.done() and task._log_traceback:
                task._log_traceback = False
                error = task.exception()
                if error is not None:
                    self.unretrieved.append(error)
        lost, self.unretrieved = self.unretrieved, []
        return lost

    def evict(self) -> None:
        """Close every coroutine now, on this thread. Whatever they ask of the engine meanwhile raises `Evicted`."""
        assert threading.get_ident() == self._thread, "eviction belongs to the engine's thread"
        if self.closing:
            return
        self.closing = True
        self._ready.clear()
        if self._asyncgens or self.waiting_tasks():
            self._end_all()
        for task in self._tasks:
            task._log_traceback = False
        self._tasks.clear()
        self._at_next_event.clear()
        self.host = Nobody()

    def _end_all(self) -> None:
        before = self._enter()
        try:
            for task in self.waiting_tasks():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                coro = task.get_coro()
                if coro is not None:
                    _end(coro)
            for agen in self._asyncgens:
                if agen.ag_frame is not None:  # type: ignore[attr-defined]
                    _end(agen.aclose())
        finally:
            self._leave(before)
            self._asyncgens.clear()
            self._ready.clear()

    # --- what asyncio asks of a loop ---

    def time(self) -> float:
        """Logical time in seconds since 1970."""
        return self.host.now_ms / 1000

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:
        """Append to the ready queue."""
        if self.closing:
            raise Evicted
        handle = Handle(callback, args, context)
        self._ready.append(handle)
        return handle

    def call_at_next_event(self, callback: Callable[..., Any], *args: Any) -> Handle:
        """Not in this drain any more: when the next event has been applied."""
        handle = Handle(callback, args, None)
        self._at_next_event.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """A durable timer, `delay` seconds of logical time from now."""
        return self._call_at_ms(self.host.now_ms + _ceil_ms(delay), callback, args, context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """A durable timer at a logical time; one in the past is `call_soon`."""
        return self._call_at_ms(_ceil_ms(when), callback, args, context)

    def _call_at_ms(
        self, due_ms: int, callback: Callable[..., Any], args: Any, context: Context | None
    ) -> asyncio.TimerHandle:
        if self.closing:
            raise Evicted
        timer = Timer(due_ms / 1000, callback, args, self, context)
        if due_ms <= self.host.now_ms:
            self._ready.append(timer)
        else:
            timer.seq = self.host.start_timer(timer, due_ms)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        assert isinstance(handle, Timer)
        if handle.seq and not self.closing:
            self.host.cancel_command(handle.seq)

    def call_soon_threadsafe(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Only from the workflow itself: another thread would make the order a matter of chance."""
        if threading.get_ident() != self._thread:
            raise refusal("Calling into a workflow's loop from another thread")
        return self.call_soon(callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        if self.closing:
            raise Evicted
        return Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        """A task of this loop, kept alive until it is done."""
        if self.closing:
            coro.close()
            raise Evicted
        options.pop("eager_start", None)  # 3.14: an optimisation that would change the order of events
        task = Task(coro, loop=self, **options)
        self._tasks[task] = None
        return task

    def next_number(self) -> int:
        """Creation numbers of tasks and futures."""
        self._numbers += 1
        return self._numbers

    def get_debug(self) -> bool:
        """Always off."""
        return False

    def is_running(self) -> bool:
        """While draining."""
        return asyncio_events._get_running_loop() is self

    def is_closed(self) -> bool:
        """After eviction."""
        return self.closing

    def get_exception_handler(self) -> None:
        """None: what callbacks raise is kept for the closing event."""

    def get_task_factory(self) -> None:
        """None: there is only one kind of task here."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what a callback raised: it is shown when the run closes."""
        error = context.get("exception")
        if isinstance(error, Exception) and not self.closing:
            self.unretrieved.append(error)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """As `call_exception_handler`."""
        self.call_exception_handler(context)

    def keep_asyncgen(self, agen: AsyncGenerator[Any, Any]) -> None:
        """Hold it until it has ended: finalisation must not depend on when the garbage collector runs."""
        if len(self._asyncgens) >= self._prune_asyncgens_at:
            self._asyncgens = [each for each in self._asyncgens if each.ag_frame is not None]  # type: ignore[attr-defined]
            self._prune_asyncgens_at = max(MIN_PRUNED, 2 * len(self._asyncgens))
        self._asyncgens.append(agen)

    def _prune(self) -> None:
        """Give back the memory of finished tasks, at a cost of a few tasks looked at per event."""
        self._drains += 1
        if 4 * self._drains < len(self._tasks):
            return
        self._drains = 0
        self._tasks = {task: None for task in self._tasks if not task.done() or task._log_traceback}


def workflow_loop() -> DeterministicLoop | None:
    """The running loop, if it is a workflow's."""
    loop = asyncio_events._get_running_loop()
    return loop if isinstance(loop, DeterministicLoop) else None


def _ceil_ms(seconds: float) -> int:
    if seconds >= FAR_FUTURE_MS / 1000:
        return FAR_FUTURE_MS
    if seconds < 0:
        return -1  # the past, however far
    return math.ceil(round(seconds * 1000, 3))  # rounding first: 0.1 + 0.2 is not a millisecond late


class _KeepAsyncgens:
    """The thread's hook for async generators. It stays: to put it there and back at each drain would take its time.

    Those of a workflow are held by its loop until they have ended, so that no finaliser, which would be the engine
    loop's, ever sees them; all others go to the hook that was there before.
    """

    __slots__ = ("_others",)

    def __init__(self, others: Callable[[AsyncGenerator[Any, Any]], Any] | None) -> None:
        self._others = others

    def __call__(self, agen: AsyncGenerator[Any, Any]) -> None:
        loop = asyncio_events._get_running_loop()
        if isinstance(loop, DeterministicLoop):
            loop.keep_asyncgen(agen)
        elif self._others is not None:
            self._others(agen)


def _end(coro: Any) -> None:
    """Make a coroutine end, whose `finally` blocks may await: each throw ends one await.

    Not `close`: that leaves an async generator which is being iterated suspended, to be finalised by the garbage
    collector at any later time, maybe inside another execution.
    """
    for _ in range(MAX_CLOSE_TRIES):
        try:
            coro.throw(Evicted)
        except BaseException:  # noqa: BLE001 - cleanup of discarded code: what it raises means nothing any more
            return


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refused(self: DeterministicLoop, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG001 - any signature
        raise refusal(f"asyncio's {name}", self.waiting_tasks())

    return refused


REFUSED = [
    "add_reader",
    "add_signal_handler",
    "add_writer",
    "close",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "getaddrinfo",
    "getnameinfo",
    "remove_reader",
    "remove_signal_handler",
    "remove_writer",
    "run_forever",
    "run_in_executor",
    "run_until_complete",
    "sendfile",
    "set_debug",
    "set_default_executor",
    "set_exception_handler",
    "set_task_factory",
    "shutdown_asyncgens",
    "shutdown_default_executor",
    "sock_accept",
    "sock_connect",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendfile",
    "sock_sendto",
    "start_tls",
    "stop",
    "subprocess_exec",
    "subprocess_shell",
]

for _name in REFUSED:
    setattr(DeterministicLoop, _name, _refuse(_name))
DeterministicLoop.__abstractmethods__ = frozenset()

# The loops that run code at this moment, by thread: what a guard looks at first. Empty most of the time, and cheaper to
# look at than asyncio's running loop, for which CPython 3.11 asks the kernel who it is.
RUNNING: dict[int, DeterministicLoop] = {}
os.register_at_fork(after_in_child=RUNNING.clear)
