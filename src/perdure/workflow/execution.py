"""One run of one workflow in memory: machine + loop + coroutine. `feed` is its only door; live and replay are the same.

Everything here is deterministic given the events fed. It performs nothing: `take` hands out what the code asks for.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from itertools import islice
from random import Random
from typing import Any, TypeVar

import msgspec

from perdure.core import events as ev
from perdure.core.ask_events import answered_by
from perdure.core.commands import (
    AnyCommand,
    AskQuestion,
    CloseRun,
    Continuing,
    DropMessage,
    RunStep,
    SendMessage,
    StartChild,
    StartTimer,
    State,
)
from perdure.core.errors import (
    ChildNotStarted,
    DeadlockError,
    DecodeError,
    Evicted,
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionTerminated,
    MessageNotDelivered,
    OutsideWorkflow,
    PerdureError,
    StepFailed,
    UnknownOutcome,
)
from perdure.core.identity import derived_id
from perdure.core.machine import Answer, Machine
from perdure.core.table import Effect, RunState
from perdure.workflow import anyio_order, guards, ordered
from perdure.workflow.continuing import ContinueAsNew, continuing
from perdure.workflow.definitions import OnCancel, ParentClose, Step, Workflow
from perdure.workflow.handlers import Handlers
from perdure.workflow.location import refused_in, user_location
from perdure.workflow.loop import CommandFuture, DeterministicLoop, Future, Timer
from perdure.workflow.mailbox import Mailbox
from perdure.workflow.values import failure_info, is_decode_error, render, secrets_pass

T = TypeVar("T")

MOST_NAMED = 3
MOST_LOST = 10  # exceptions that nobody awaited, in the closing event
MOST_LOOKED_AT = 100  # open commands, to tell what it waits for: it is asked at every rest


class Execution:
    """A run in memory. Not thread-safe: it belongs to the engine's thread."""

    def __init__(self, workflow: Workflow[..., Any], execution_id: str, fingerprint: str = "") -> None:
        self.workflow = workflow
        self.id = execution_id
        self.machine = Machine(fingerprint, render)
        self.loop = DeterministicLoop(self)
        self.run = ""
        self.private = False  # what it records is encrypted
        self.mailbox = Mailbox(self.loop)
        self.asks: dict[int, AskQuestion] = {}  # questions that the code waits for, by number
        self._asked_otherwise: set[int] = set()  # questions that were asked for an answer of another type
        self._dropped: set[str] = set()  # ids of signals that did not decode, as the journal tells that will be fed
        self._was_here = False  # other code: it has journaled what is fed now
        self.handlers = Handlers(self)
        self.instance: Any = None  # of a workflow that is a class
        self.problem: PerdureError | None = None
        self._futures: dict[int, Future] = {}
        self._timers: dict[int, Timer] = {}
        self.snapshot: ev.Payload | None = None  # what the run before handed over
        self._started: ev.ExecutionStarted | None = None
        self._main: Any = None
        self._closing = False
        self._cancel_reason = ""
        self.unheard: ev.CancelRequested | None = None  # it came when the workflow's own coroutine had ended
        self.pause_reason = ""
        self.attributes: dict[str, ev.Attribute] | None = None  # as the code has set them; None: it has not
        self._published = 0
        self.unpublished: ev.StatePublished | None = None  # what `publish` was last given, until it is journaled

    # --- events in, commands out ---

    def expect(self, journal: Iterable[ev.Recorded]) -> None:
        """A journal that will be fed to it: what it was recorded with is asked before (`perdure.patched`)."""
        journal = list(journal)
        self.machine.facts.patches.expect(journal)
        drops = (each.event for each in journal if type(each.event) is ev.MessageDropped)
        self._dropped.update(each.message_id for each in drops if is_decode_error(each.failure))

    def feed(self, recorded: ev.Recorded) -> None:
        """Let the code see one journaled event, and run it to idle.

        Raises:
            YourError: the code's fault (nondeterminism, a spin, an undecodable value): the execution stalls.
            CorruptJournal: the journal's.
        """
        answer = self.machine.feed(recorded)
        if self.is_closed:
            return  # nothing is left to tell the code
        self._was_here = recorded.fingerprint != self.machine.fingerprint
        self.loop.drain(self._apply, answer)
        if self.problem is not None:
            raise self.problem
        if self._main is not None and self._main.done() and not self._closing and self._handlers_ended():
            self._close()

    def take(self) -> tuple[Sequence[AnyCommand], Sequence[AnyCommand]]:
        """Commands to start, and running ones to stop; only when every committed event has been fed.

        Raises:
            DeadlockError: the code waits, but nothing could ever wake it.
        """
        start, stop = self.machine.take()
        if not self.machine.open and self._waits_in_vain():
            raise DeadlockError(stack=self.loop.stack())
        return start, stop

    def _waits_in_vain(self) -> bool:
        waiting = self._main is not None and not self._closing and not self.is_closed
        return waiting and not self.mailbox.awaited() and not self.handlers.wait_for_messages

    def evict(self) -> None:
        """Free the memory: close the coroutines. The journal has everything."""
        self.loop.evict()
        self._futures.clear()
        self._timers.clear()
        self.mailbox.forget_receivers()
        self.handlers.forget()
        self.instance = None

    @functools.cached_property
    def random(self) -> Random:
        """The run's generator: a function of its run id."""
        return Random(derived_id("random", self.id, self.run, 0))  # noqa: S311 - reproducible on purpose

    @functools.cached_property
    def entropy(self) -> Random:
        """For ids: another stream than `random`, so that no use of that one makes two ids the same."""
        return Random(derived_id("entropy", self.id, self.run, 0))  # noqa: S311 - likewise

    @property
    def started(self) -> ev.ExecutionStarted:
        """How the run began."""
        assert self._started is not None
        return self._started

    @property
    def is_closed(self) -> bool:
        """Whether the closing event has been fed."""
        return self.machine.state is RunState.CLOSED

    @property
    def now_ms(self) -> int:
        """Logical time: of the last event fed."""
        return self.machine.now_ms

    def waits_for(self) -> str:
        """What a person should know that it waits for."""
        if self.machine.state is RunState.PAUSED:
            return f"resume ({self.pause_reason})" if self.pause_reason else "resume"
        everything = self.machine.open
        waited = self._first_waited_for()
        names = _some([f"outcome of step {name!r}" for name in self._unknown(waited)], "outcomes")
        names += self._messages_waited_for()
        names += _some([f"child {c.execution}" for c in waited if isinstance(c, StartChild)], "children")
        names += ["timer"] * any(isinstance(c, StartTimer) for c in waited)
        names += ["and more"] * (len(everything) > MOST_LOOKED_AT)
        return ", ".join(names or _some(self.handlers.names(), "handlers"))

    def _messages_waited_for(self) -> list[str]:
        answers = _some([f"answer of {each.to}" if each.to else "answer" for each in self.asks.values()], "answers")
        return answers + [f"signal {name}" for name in self.mailbox.awaited() if answered_by(name) is None]

    def _first_waited_for(self) -> list[AnyCommand]:
        first = islice(self.machine.open.values(), MOST_LOOKED_AT)
        return [command for command in first if command.state is not State.CANCELLED]

    def _unknown(self, commands: Sequence[AnyCommand]) -> list[str]:
        return [c.name for c in commands if isinstance(c, RunStep) and c.state is State.UNKNOWN]

    # --- what an event means ---

    def _apply(self, answer: Answer) -> None:
        effect, command, event = answer.effect, answer.command, answer.event
        if effect is Effect.RUN:
            self._apply_run_event(event)
        elif command is None or effect is Effect.NOTE:
            self._note(command, event)
        elif effect is Effect.IGNORE:
            if isinstance(command, StartChild):
                self._cancel_child(command, "its parent stopped waiting before it began")
        elif effect is Effect.UNKNOWN:
            self._outcome_unknown(command, event)
        elif isinstance(command, StartTimer):
            timer = self._timers.pop(command.seq, None)
            if timer is not None:
                self.loop.fire(timer)
        else:
            self._resolve(command, event, begun=effect is Effect.BEGUN)

    def _note(self, command: AnyCommand | None, event: ev.AnyEvent) -> None:
        """The machine remembers it; the code does not see it."""
        if isinstance(command, AskQuestion) and isinstance(event, ev.QuestionAsked):
            command.shown = event.digest
            asked, asks = event.schema, command.schema
            if (asked and asked.data) != (asks and asks.data):
                self._asked_otherwise.add(command.seq)

    def _outcome_unknown(self, command: AnyCommand, event: ev.AnyEvent) -> None:
        if isinstance(event, ev.StepOutcomeUnknown) and event.raises:
            self._resolve(command, event, begun=False)
            self.machine.cancel(command.seq)  # it waits no longer

    def _apply_run_event(self, event: ev.AnyEvent) -> None:
        match event:
            case ev.ExecutionStarted():
                self._started = event
                self.id, self.run = event.execution or self.id, event.run
                self.loop.salt_hashes(derived_id("hash", self.id, event.run, 0))
            case ev.ExecutionClaimed():
                self._begin()
            case ev.Snapshot():
                self.snapshot = event.state
            case ev.RunForked():
                self._become(event)
            case ev.StatePublished():
                if self.unpublished is not None and self.unpublished.number <= event.number:
                    self.unpublished = None
            case _:
                self._apply_message(event)

    def _apply_message(self, event: ev.AnyEvent) -> None:
        match event:
            case ev.SignalReceived():
                if not self.handlers.signal(event):
                    self.mailbox.put(event)
            case ev.PauseRequested():
                self.pause_reason = event.reason
            case ev.UpdateAccepted():
                self.handlers.update(event)
            case ev.CancelRequested() | ev.DeadlinePassed():
                self._cancel_reason = event.reason
                heard = self._main is not None and self._main.cancel(msg=event.reason)
                if not heard and isinstance(event, ev.CancelRequested):
                    self.unheard = event
            case _:
                pass  # attributes, patches: the machine remembers

    def _become(self, event: ev.RunForked) -> None:
        """What was copied is over: from here on it is itself. What is open begins anew, under names of its own."""
        self.id, self.run = event.execution, event.run
        for purpose, generator in (("random", self.random), ("entropy", self.entropy)):
            generator.seed(derived_id(purpose, self.id, self.run, 0))
        for command in self.machine.open.values():
            if isinstance(command, StartChild) and command.state is State.OPEN:
                self._name_child(command)
            elif isinstance(command, CloseRun) and command.continues is not None:
                command.continues = msgspec.structs.replace(command.continues, run=self._next_run())

    def _name_child(self, command: StartChild) -> None:
        """What follows from its number: a child has the same id and run whenever this run is replayed."""
        command.run = derived_id("child run", self.id, self.run, command.seq)
        if command.derived:
            command.execution = derived_id("child", self.id, self.run, command.seq)

    def _begin(self) -> None:
        args, kwargs = self.workflow.arguments.decode(
            self.started.input, f"the input of workflow {self.workflow.name!r}"
        )
        ordered.install()
        anyio_order.install()
        guards.install()
        work = self.workflow.fn if self.workflow.cls is None else self._run_object
        self._main = self.loop.create_task(work(*args, **kwargs), name="main", context=Context())

    async def _run_object(self, *args: Any, **kwargs: Any) -> Any:
        assert self.workflow.cls is not None
        self.instance = self.workflow.cls()
        self.handlers.register_methods(self.instance, self.workflow.methods)
        return await self.instance.run(*args, **kwargs)

    def _resolve(self, command: AnyCommand, event: ev.AnyEvent, *, begun: bool) -> None:
        # A child has two futures: that it began, and under the negative number that it closed.
        key = -command.seq if isinstance(command, StartChild) and not begun else command.seq
        future = self._futures.pop(key, None)
        if future is None or future.done():
            return
        if type(event) is ev.StepCompleted:
            step = command.target  # type: ignore[union-attr]
            future.set_result(step.result.decode(event.result, step.result_what))
            return
        error = _error_of(command, event)
        if error is not None:
            future.set_exception(error)
            future._log_traceback = False
        else:
            future.set_result(_value_of(command, event))

    def _handlers_ended(self) -> bool:
        """Whether the run may close, once its own coroutine has ended. They are to it as tasks are to their group."""
        main, handlers = self._main, self.handlers
        abandoned = self.workflow.unfinished_handlers == "abandon"
        if not handlers.ending:
            failed = main.cancelled() or (main.exception() is not None and continuing(main.exception()) is None)
            if not handlers.at_work:
                handlers.ending = True
                return True
            self.loop.drain(handlers.end, failed and not abandoned)
            if self.problem is not None:
                raise self.problem
        return abandoned or not handlers.at_work

    def _close(self) -> None:
        """The coroutine has ended: what it returned or raised is the run's last command.

        Unless it raised what loop or guards refused it: that is no end, but code to be mended.
        """
        main = self._main
        error = None if main.cancelled() else main.exception()  # asked for, hence none of the lost ones
        refused = refused_in(error)
        if refused is not None:
            raise refused
        self._closing = True
        self._leave_steps()
        lost = tuple(failure_info(each) for each in self.loop.lost_exceptions()[:MOST_LOST])
        if main.cancelled():
            reason = self._cancel_reason or "the workflow cancelled itself"
            self.issue(CloseRun(cancelled=True, reason=reason, lost_failures=lost))
            return
        how = continuing(error)
        if how is not None:
            self.issue(CloseRun(continues=how, lost_failures=lost))
            return
        if error is not None:
            with secrets_pass(when=self.private):
                failure = self.workflow.raises.info(error)
            self.issue(CloseRun(failure=failure, lost_failures=lost))
            return
        with secrets_pass(when=self.private):
            result = self.workflow.result.encode(main.result(), f"the result of workflow {self.workflow.name!r}")
        self.issue(CloseRun(result=result, lost_failures=lost))

    def _leave_steps(self) -> None:
        """Those that are declared once, or began as such: what they do still matters, but no longer to this code."""
        steps = [command for command in self.machine.open.values() if isinstance(command, RunStep)]
        for step in steps:
            if step.state is not State.OPEN or step.options.once:
                self.cancel_command(step.seq)

    # --- what the code asks for (the loop's Host, and the functions of context.py) ---

    def issue(self, command: AnyCommand) -> int:
        """The code asks for something."""
        if self.loop.closing:
            raise Evicted
        self.loop.command_issued()
        return self.machine.issue(command)

    def _future(self, seq: int) -> CommandFuture:
        future = CommandFuture(loop=self.loop)
        future.seq = seq
        self._futures[seq] = future
        return future

    async def run_step(self, step: Step[..., Any], args: Any, kwargs: Any, location: str, shown: bytes = b"") -> Any:
        """Issue a step and wait for its journaled result. `shown`: see `RunStep`."""
        loop = self.loop
        if loop.closing:
            raise Evicted
        payload, digest = step.arguments.encode(args, kwargs, step.input_what)
        loop.command_issued()
        seq = self.machine.issue(
            RunStep(
                location=location,
                name=step.name,
                input=payload,
                digest=digest,
                target=step,
                options=step.options,
                shown=shown,
            )
        )
        future = self._futures[seq] = CommandFuture(loop=loop)
        future.seq = seq
        return await future

    async def run_child(self, workflow: Workflow[..., Any], args: Any, kwargs: Any, location: str) -> Any:
        """Run a child and return its result; cancelling this await asks the child to cancel."""
        return await self.child_result(*await self.start_child(workflow, args, kwargs, location), "cancel")

    async def child_result(self, child: StartChild, closed: asyncio.Future[Any], on_cancel: OnCancel) -> Any:
        """Wait for a child's end; `on_cancel` is what cancelling this await means for the child."""
        try:
            return await asyncio.shield(closed)
        except asyncio.CancelledError:
            if closed.done() or self.loop.closing or on_cancel == "leave":
                raise
            self._cancel_child(child, "its parent stopped waiting for it")
            if on_cancel == "wait":
                await asyncio.wait([closed])  # a second cancellation ends it
            raise

    async def start_child(
        self,
        workflow: Workflow[..., Any],
        args: Any,
        kwargs: Any,
        location: str,
        *,
        child_id: str | None = None,
        on_parent_close: ParentClose = "terminate",
    ) -> tuple[StartChild, Future]:
        """Start a child; returns when its start is durable, with the future of its end."""
        if self.loop.closing:
            raise Evicted
        payload, digest = workflow.arguments.encode(args, kwargs, f"the input of workflow {workflow.name!r}")
        command = StartChild(
            seq=self.machine.next_seq,
            location=location,
            workflow=workflow.name,
            execution=child_id or "",
            run="",
            derived=not child_id,
            input=payload,
            on_parent_close=on_parent_close,
            target=workflow,
            digest=digest,
        )
        self._name_child(command)
        seq = self.issue(command)
        closed = self._futures[-seq] = Future(loop=self.loop)
        await self._future(seq)
        return command, closed

    def _cancel_child(self, child: StartChild, reason: str) -> None:
        self.issue(SendMessage(kind="cancel", receiver=child.execution, reason=reason))

    def continue_as(
        self, workflow: Workflow[..., Any], input: ev.Payload, state: ev.Payload | None = None
    ) -> ContinueAsNew:
        """What to raise, so that the run ends here and the next one begins."""
        if self.loop.closing:
            raise Evicted
        task = asyncio.current_task(self.loop)
        if task is None or task in self.handlers.at_work:
            place, fix = "the workflow's own coroutine", "Let the handler tell that to do it: by an asyncio.Event, say."
            raise OutsideWorkflow(what="Continuing as new", place=place, fix=fix)
        return ContinueAsNew(Continuing(workflow.name, self._next_run(), input, state, workflow))

    def _next_run(self) -> str:
        return derived_id("continued", self.id, self.run, 0)

    def send(self, command: SendMessage) -> CommandFuture:
        """A message to another execution; the future resolves when it has arrived in its inbox."""
        return self._future(self.issue(command))

    def value_of(self, signal: ev.SignalReceived, decode: Callable[[ev.Payload, str], T], what: str) -> T:
        """What a signal brings. Raises `DecodeError`: it is to be dropped, as perhaps it was before."""
        if signal.message_id in self._dropped:
            raise DecodeError(what=what, expected="what the code takes now", reason="it did not decode before")
        return decode(signal.value, what)

    def drop(self, signal: ev.SignalReceived, error: BaseException) -> None:
        """A signal that the code cannot take becomes a dead letter, and the journal says why.

        One that does not decode stalls the run where other code took it, or asked for it: then it is not to blame.
        """
        blame = self._was_here or answered_by(signal.name) in self._asked_otherwise
        if isinstance(error, DecodeError) and blame and signal.message_id not in self._dropped:
            self.problem = self.problem or error
            return
        failure = failure_info(error)
        if isinstance(error, DecodeError):  # its cure is for what stalls
            failure = msgspec.structs.replace(failure, message=error.text.format_map(error.fields))
        self.issue(DropMessage(message=signal, failure=failure, location=user_location()))

    def publish(self, state: ev.Payload) -> None:
        """The state to be read from outside: journaled with the next commit, instead of any that is not yet."""
        if self.loop.closing:
            raise Evicted
        self._published += 1
        self.unpublished = ev.StatePublished(state, self._published)

    def take_state(self) -> ev.StatePublished | None:
        """The state to be journaled; only when every committed event has been fed."""
        state, self.unpublished = self.unpublished, None
        return state

    def judge(self, request: ev.UpdateRequested) -> ev.UpdateAccepted | ev.FailureInfo | None:
        """An update as it is to be journaled, or why it is not accepted; None: it waits, for the run is ending.

        Raises:
            ReadOnlyHandler: its validator did more than look.
        """
        if self._main is None or self._main.done():
            return None
        failure = self.handlers.judge(request)
        return failure or ev.UpdateAccepted(request.update_id, request.name, request.input)

    def start_timer(self, timer: Timer, due_ms: int) -> int:
        """The loop's: a timer is a command."""
        seq = self.issue(StartTimer(due_ms=due_ms, location=user_location()))
        self._timers[seq] = timer
        return seq

    def timed(self) -> dict[int, int]:
        """By the identity of what pending timers will resolve: their numbers."""
        return {id(each): seq for seq, timer in self._timers.items() for each in timer._args or ()}

    def cancel_command(self, seq: int) -> None:
        """The code no longer waits for this command."""
        self._timers.pop(seq, None)
        self._futures.pop(seq, None)
        self.machine.cancel(seq)


def _some(names: list[str], what: str) -> list[str]:
    return names if len(names) <= MOST_NAMED else [*names[:MOST_NAMED], f"{len(names) - MOST_NAMED} more {what}"]


def _value_of(command: AnyCommand, event: ev.AnyEvent) -> Any:
    """What the await returns: decoded from the journal's bytes, live as in replay. Raises `DecodeError`: a stall."""
    if isinstance(event, ev.ChildClosed) and isinstance(command, StartChild) and event.result is not None:
        return command.target.result.decode(event.result, f"the result of child {command.execution!r}")
    return None


def _error_of(command: AnyCommand, event: ev.AnyEvent) -> Exception | None:
    match command, event:
        case RunStep(), ev.StepOutcomeUnknown():
            return UnknownOutcome(name=event.name, seq=event.seq, attempt=event.attempt, reason=event.reason)
        case RunStep(), ev.StepFailed() if event.resolved is not None and event.resolved.outcome == "abandoned":
            reason = "it was given up" + (f": {event.resolved.note}" if event.resolved.note else "")
            return UnknownOutcome(name=event.name, seq=event.seq, attempt=event.attempt, reason=reason)
        case RunStep(), ev.StepFailed():
            failed = StepFailed(name=event.name, attempts=event.attempt, failure=event.failure)
            return command.target.raises.as_declared(failed)  # type: ignore[no-any-return]
        case StartChild(), ev.ChildStartFailed():
            return ChildNotStarted(execution=command.execution, reason=event.reason)
        case SendMessage(), ev.MessageFailed():
            return MessageNotDelivered(receiver=command.receiver, reason=event.reason)
        case StartChild(), ev.ChildClosed():
            return _child_error(event, command.target)
        case _:
            return None


def _child_error(event: ev.ChildClosed, child: Workflow[..., Any]) -> Exception | None:
    match event.status:
        case "failed":
            failure = event.failure or ev.FailureInfo("", "")
            return child.raises.as_declared(ExecutionFailed(execution=event.execution, failure=failure))
        case "cancelled":
            return ExecutionCancelled(execution=event.execution, reason=event.reason)
        case "terminated":
            return ExecutionTerminated(execution=event.execution, reason=event.reason)
        case "completed":
            return None
