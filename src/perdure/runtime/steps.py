"""Runs attempts of steps: decode the arguments, call, limit in time, encode, and say what came of it as an event.

`async def` steps run in tasks on the engine's loop, `def` steps in threads. What an attempt returns goes to its driver
as `StepCompleted`, `StepFailed` or `StepAttemptFailed`; a stopped attempt says nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import OrderedDict
from collections.abc import Callable
from itertools import chain
from typing import Any, TypeAlias

from perdure.core import events as ev
from perdure.core.commands import RunStep
from perdure.core.errors import (
    EncodeError,
    PayloadTooLarge,
    PerdureError,
    StepTimeout,
    TransactionUnsettled,
    UnencodableResult,
    UnknownOutcome,
    YourError,
)
from perdure.core.identity import Key, noise
from perdure.runtime.attempt import Driven, StepRun
from perdure.runtime.environment import Environment
from perdure.runtime.shared_tasks import SharedTasks
from perdure.runtime.threads import NEVER_RAN, ThreadPool
from perdure.store.protocol import Running
from perdure.workflow.context import current_attempt
from perdure.workflow.values import failure_info, let_secrets_pass, preview, short_repr

log = logging.getLogger("perdure")

ADVISE_AFTER_MS = 1_000
LAPSED, STOPPED = "the lease had lapsed", "the engine was stopped"
SETTLE_S = 30
CANCEL_S = 1.0  # for attempts that are cancelled when the engine stops

Queue: TypeAlias = "OrderedDict[tuple[Driven, int], RunStep]"
"""Attempts that wait for a place, each once, whatever pauses it left it for: by driver and seq."""


def itself(step: Any) -> Any:
    """No stand-in."""
    return step


class Lapsed(Exception):
    """The lease lapsed between the decision to run a step and its first instruction."""


class StepRunner:
    """All attempts of one worker. Belongs to the engine's thread."""

    def __init__(
        self,
        environment: Environment,
        *,
        limit: int,
        threads: ThreadPool,
        lapsed: Callable[[], bool],
        private: bool = False,
    ) -> None:
        self._environment = environment
        self._limit = limit
        self._threads = threads
        self._lapsed = lapsed
        self._private = private  # what is recorded is encrypted
        self._runs: dict[StepRun, None] = {}  # in order of their beginning
        self._waiting: Queue = OrderedDict()
        self._per_step: dict[str, int] = {}
        self._held: dict[str, Queue] = {}
        self._loop = asyncio.get_running_loop()
        self.tasks = SharedTasks(self._attempt)
        self._over: list[Running] = []  # attempts that the store was told of, and no event will be about
        self.draining = False
        self.stand_in: Callable[[Any], Any] = itself  # what runs instead of a step: for tests
        self.alone: Key | None = None  # while set, only steps of this execution run

    def __len__(self) -> int:
        return len(self._runs)

    def waiting(self) -> int:
        """Attempts that wait for a place."""
        return len(self._waiting) + sum(map(len, self._held.values()))

    def begin(self, driver: Driven, command: RunStep) -> None:
        """Run the next attempt as soon as the limits allow."""
        driver.attempts[command.seq] = None
        if self.draining:  # the next engine runs it: it would only be cut off here
            if command.options.once:
                driver.step_unbegun(command.seq, STOPPED)
            return
        if len(self._runs) >= self._limit or (self.alone is not None and not self._may_run_beside(driver)):
            self._waiting[driver, command.seq] = command
            return
        limit = command.options.concurrency
        if limit is not None and self._per_step.get(command.name, 0) >= limit:
            self._held.setdefault(command.name, OrderedDict())[driver, command.seq] = command
            return
        self._launch(driver, command)

    def _may_run_beside(self, driver: Driven) -> bool:
        return driver.key == self.alone and all(run.driver.key == self.alone for run in self._runs)

    def pump(self) -> None:
        """Limits have changed: begin what may begin now."""
        waiting, self._waiting = self._waiting, OrderedDict()
        for (driver, _), command in waiting.items():
            if _waits(driver, command):
                self.begin(driver, command)

    def stop(self, driver: Driven, seq: int, *, for_good: bool = False) -> None:
        """Cancel an attempt, or forget one that waits; its driver hears no more of it. `for_good`: nor do others."""
        run = driver.attempts.pop(seq, None)
        if run is not None:
            run.stopped = True
            if for_good and run.told is not False:
                told = (run.driver.key, run.run, run.seq, run.name)
                self._over.append(Running(*told, attempt=0, started_at_ms=run.started_at_ms))
            self._cancel(run)
            return
        for queue in (self._waiting, *self._held.values()):
            queue.pop((driver, seq), None)

    def names(self) -> list[str]:
        """Steps that run now."""
        return sorted({run.name for run in self._runs})

    def running(self) -> list[StepRun]:
        """Attempts that run now."""
        return list(self._runs)

    def clock_moved(self) -> None:
        """The monotonic clock has jumped: look now whose limits are reached."""
        for run in self.running():
            if run.watch is not None and not run.watch.cancelled():
                run.watch.cancel()
                self._check(run)

    def leave(self, driver: Driven, seq: int) -> bool:
        """Cancel an attempt whose end is still to be told. False if it had not begun: then it never will."""
        run = driver.attempts.get(seq)
        if run is None or not run.begun:
            self.stop(driver, seq)
            return False
        self._cancel(run)
        return True

    def advice(self) -> list[Running]:
        """What people and the next attempt should know of attempts that take long."""
        oldest = self._environment.monotonic_ms() - ADVISE_AFTER_MS
        found, self._over = self._over, []
        for run in self._runs:
            is_news = run.told is not run.latest and (run.started_mono_ms <= oldest or run.latest is not None)
            if is_news and not run.stopped:
                run.told = run.latest
                found.append(
                    Running(
                        key=run.driver.key,
                        run=run.run,
                        seq=run.seq,
                        name=run.name,
                        attempt=run.attempt,
                        started_at_ms=run.started_at_ms,
                        progress=run.latest,
                    )
                )
        return found

    async def drain(self, seconds: float) -> None:
        """Wait that long for running attempts, then cancel what is left. Nothing recorded is lost."""
        self.draining = True
        self._dismiss()
        await self.tasks.begun()
        tasks = [run.task for run in self._runs if run.task is not None]
        try:
            if tasks and seconds > 0:
                await asyncio.wait(tasks, timeout=seconds)
        finally:
            for run in list(self._runs):
                run.stopped = True
                self._cancel(run)
        left = [task for task in tasks if not task.done()]
        if left:
            await asyncio.wait(left, timeout=CANCEL_S)

    def _dismiss(self) -> None:
        """Of those that wait: `once` steps are told that they will not be called, as that is worth recording."""
        waiting = [*chain.from_iterable(queue.items() for queue in (self._waiting, *self._held.values()))]
        self._waiting.clear()
        self._held.clear()
        for (driver, _), command in waiting:
            if command.options.once and _waits(driver, command):
                driver.step_unbegun(command.seq, STOPPED)

    # --- one attempt ---

    def _launch(self, driver: Driven, command: RunStep) -> None:
        environment, options = self._environment, command.options
        run = StepRun(driver, command, environment.now_ms(), environment.monotonic_ms)
        driver.attempts[command.seq] = run
        self._runs[run] = None
        if options.concurrency is not None:
            self._per_step[command.name] = self._per_step.get(command.name, 0) + 1
        self.tasks.begin(run)
        if options.is_limited:
            self._watch(run)

    def _enter(self, run: StepRun) -> None:
        """In the attempt's own context, before its first instruction."""
        self._check_lease()
        current_attempt.set(run)
        if self._private:
            let_secrets_pass()

    async def _attempt(self, run: StepRun) -> None:
        command = run.command
        step = self.stand_in(command.target)
        event: ev.AnyEvent | PerdureError | None
        run.begun = True
        try:
            try:
                self._enter(run)
                args, kwargs = step.arguments.decode(command.input, step.input_what)
                value = await (
                    step.call(*args, **kwargs) if step.is_async else self._in_thread(run, step.call, args, kwargs)
                )
                event = self._completed(run, step, value)
            except Lapsed:
                event = None
                self._lapse(run)
            except BaseException as error:
                event = None if run.stopped else self._failed(run, step, run.timed_out or error)
                if isinstance(error, KeyboardInterrupt):
                    raise
            if step.settle is not None and isinstance(event, ev.StepFailed):
                event = await self._settled(run, step, event)
        finally:
            self._ended(run)
        if event is not None:
            self._tell(run, event)

    def _tell(self, run: StepRun, event: ev.AnyEvent | PerdureError) -> None:
        if run.stopped:
            return
        if isinstance(event, PerdureError):
            run.driver.step_unreadable(run.seq, event)
        else:
            run.driver.step_done(run.seq, event)

    def _lapse(self, run: StepRun) -> None:
        run.stopped = True
        if run.command.options.once:
            run.driver.step_unbegun(run.seq, LAPSED)
        else:
            run.driver.step_lapsed()

    async def _settled(self, run: StepRun, step: Any, failed: ev.StepFailed) -> ev.AnyEvent | PerdureError | None:
        """What a failure that nobody would try again turns out to be, once the step has made it final."""
        settle, failure = step.settle, failed.failure
        if run.watch is not None:
            run.watch.cancel()
        try:
            async with asyncio.timeout(SETTLE_S):
                value = await (settle(failure) if step.is_async else self._in_thread(run, settle, (failure,), {}))
            return self._completed(run, step, value)
        except Lapsed:
            self._lapse(run)
            return None
        except YourError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody knows what came of the step
            detail = str(getattr(error, "orig", error)) or f"no answer within {SETTLE_S} s"
            key = f"execution {run.execution!r}, run {run.run}, seq {run.seq}"
            return TransactionUnsettled(name=run.name, key=key, detail=detail)

    def _check_lease(self) -> None:
        """At the last moment before a step runs: the process may have been frozen since that was decided."""
        if self._lapsed():
            raise Lapsed

    def _completed(self, run: StepRun, step: Any, value: Any) -> ev.AnyEvent | PerdureError:
        command = run.command
        try:
            outcome = step.outcome(value)
        except (EncodeError, PayloadTooLarge) as error:
            reason = error.what() if type(error) is EncodeError else error  # others know a cure of their own
            return UnencodableResult(
                name=command.name, location=command.location, reason=reason, value=short_repr(value)
            )
        except PerdureError as error:
            return error
        if isinstance(outcome, ev.FailureInfo):
            return ev.StepFailed(**_common_fields(run), failure=outcome)
        return ev.StepCompleted(
            seq=command.seq,
            name=command.name,
            digest=command.digest,
            location=command.location,
            preview=preview(command.input),
            result=outcome,
            attempt=run.attempt,
            started_at_ms=run.started_at_ms,
        )

    def _failed(self, run: StepRun, step: Any, error: BaseException) -> ev.AnyEvent | PerdureError:
        command, options = run.command, run.command.options
        if options.once and not run.surely_not(error):
            fields = {"reason": _why_unknown(run, error), "failure": failure_info(error)}
            return UnknownOutcome(name=run.name, seq=run.seq, attempt=run.attempt, **fields)
        took_ms = self._environment.monotonic_ms() - run.started_mono_ms
        jitter = noise(run.run, command.seq, run.attempt)
        pause_ms = None if _is_final(error) else _pause(options.retry, run.attempt, error, jitter, self._private)
        spent_ms = command.spent_ms + took_ms + (pause_ms or 0)
        common = _common_fields(run) | {"failure": step.raises.info(error)}
        out_of_time = options.total_timeout_ms is not None and spent_ms >= options.total_timeout_ms
        if pause_ms is None or out_of_time:
            return ev.StepFailed(**common)
        retry_at_ms = self._environment.now_ms() + pause_ms
        return ev.StepAttemptFailed(**common, retry_at_ms=retry_at_ms, spent_ms=spent_ms, progress=run.latest)

    async def _in_thread(self, run: StepRun, fn: Any, args: Any, kwargs: Any) -> Any:
        future = self._loop.create_future()
        loop = self._loop

        def settle(method: Callable[[Any], None], value: Any) -> None:
            if not future.done():
                method(value)

        def call() -> None:
            try:
                self._check_lease()
                result, settled = fn(*args, **kwargs), future.set_result
            except StopIteration as error:  # a future refuses it
                result, settled = RuntimeError(f"the step raised StopIteration: {error}"), future.set_exception
            except BaseException as error:  # noqa: BLE001 - every way a step can fail is the step's failure
                result, settled = error, future.set_exception
            try:
                loop.call_soon_threadsafe(settle, settled, result)
            except RuntimeError:
                log.debug("a step's thread ended after the engine's loop was closed")

        run.work = self._threads.submit(call, contextvars.copy_context())
        try:
            return await future
        except asyncio.CancelledError:
            if not self._threads.abandon(run.work):
                run.work = NEVER_RAN
            raise

    def _ended(self, run: StepRun) -> None:
        self._runs.pop(run, None)
        run.task = None  # it may be the next one's now
        if run.watch is not None:
            run.watch.cancel()
        if run.command.options.concurrency is not None:
            self._leave(run.command)
        if self.alone is not None:
            self.pump()
        else:
            while self._waiting and len(self._runs) < self._limit:  # the first may only go on to wait for its step
                self._next_of(self._waiting)

    def _leave(self, command: RunStep) -> None:
        """Give back its place among those of its step, to another one that waits for it."""
        name = command.name
        self._per_step[name] -= 1
        if not self._per_step[name]:
            del self._per_step[name]
        held = self._held.get(name)
        if held is not None:
            self._next_of(held)

    def _next_of(self, queue: Queue) -> None:
        while queue:
            (driver, _), command = queue.popitem(last=False)
            if _waits(driver, command):
                self.begin(driver, command)
                return

    def _cancel(self, run: StepRun) -> None:
        run.cancelled = True
        if run.task is not None:
            run.task.cancel()
        if not run.begun:
            self._ended(run)

    # --- time limits ---

    def _watch(self, run: StepRun) -> None:
        """Arm the next check of this attempt's limits."""
        limits = run.limits()
        if limits:
            due_ms = min(due for due, _, _ in limits)
            pause = max(0, due_ms - self._environment.monotonic_ms()) / 1000
            run.watch = self._loop.call_later(pause, self._check, run)

    def _check(self, run: StepRun) -> None:
        now_ms = self._environment.monotonic_ms()
        for due_ms, kind, limit_ms in run.limits():
            if due_ms <= now_ms and run.begun:
                run.timed_out = StepTimeout(kind=kind, limit_ms=limit_ms)
                self._cancel(run)
                return
        self._watch(run)


def _waits(driver: Driven, command: RunStep) -> bool:
    """Whether it still waits for its place."""
    return not driver.dead and driver.attempts.get(command.seq, command) is None


def _why_unknown(run: StepRun, error: BaseException) -> str:
    if run.timed_out is not None:
        return f"it took longer than its {run.timed_out.fields['kind']} of {run.timed_out.fields['limit_ms']} ms"
    if isinstance(error, asyncio.CancelledError):
        return "it was cancelled while it ran"
    return f"it raised {type(error).__name__}, which is not among not_happened"


def _is_final(error: BaseException) -> bool:
    return isinstance(error, StepTimeout) and error.fields["kind"] == "total_timeout"


def _pause(retry: Any, attempt: int, error: BaseException, jitter: float, private: bool) -> int | None:  # noqa: FBT001 - private
    try:
        return retry.pause_ms(attempt, error, jitter)  # type: ignore[no-any-return]
    except Exception:
        log.exception("the retry policy itself raised: the step is not retried", exc_info=not private)
        return None


def _common_fields(run: StepRun) -> dict[str, Any]:
    """What every event of an attempt holds."""
    command = run.command
    return {
        "seq": command.seq,
        "name": command.name,
        "digest": command.digest,
        "location": command.location,
        "preview": preview(command.input),
        "attempt": run.attempt,
        "started_at_ms": run.started_at_ms,
    }
