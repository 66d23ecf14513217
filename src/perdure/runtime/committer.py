"""Group commit: gathers what many executions want written and makes one store transaction, so one disk flush, of it.

While one transaction runs the next group gathers; there is no artificial delay. When one execution is all there is to
do, it commits inline, without a thread switch. Errors of the world are retried with back-off; nothing is dropped.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from perdure.core.errors import OwnershipLost, PerdureError, StoreError
from perdure.core.identity import Key
from perdure.core.shape import PAYLOADS
from perdure.runtime.environment import stopwatch_ns
from perdure.runtime.figures import Meter
from perdure.store.protocol import (
    Advice,
    Batch,
    Committed,
    Mail,
    Outcome,
    Park,
    Receipt,
    Running,
    Session,
    Start,
    Store,
)

log = logging.getLogger("perdure")

MAX_GROUP_EVENTS = 2_000
MIN_BACKOFF_S, MAX_BACKOFF_S = 0.05, 5.0
LIGHT_BYTES = 64 * 1024
UNFORESEEN = "the committer failed: this engine stops"

Done: TypeAlias = Callable[[Outcome | PerdureError], None]
DepositDone: TypeAlias = Callable[[Receipt | PerdureError], None]
Post: TypeAlias = Callable[..., Any]


class Group:
    """What goes into one turn: batches and advice in one transaction, deposits in another."""

    __slots__ = ("advice", "batches", "deposits")

    def __init__(self) -> None:
        self.batches: list[tuple[Batch, Done]] = []
        self.advice: list[Advice] = []
        self.deposits: list[tuple[Start | Mail, DepositDone]] = []


class Answers:
    """The result of a turn, on its way back to the engine's thread."""

    __slots__ = ("committed", "group", "lost", "receipts", "woken")

    def __init__(self, group: Group) -> None:
        self.group = group
        self.committed: Committed | None = None
        self.receipts: list[Receipt | PerdureError] = []
        self.woken: list[Key] = []
        self.lost: Exception | None = None

    def distribute(self, woken: Callable[[Sequence[Key]], None], lost: Callable[[Exception], None]) -> None:
        """Tell everyone. On the engine's thread."""
        if self.lost is not None:
            lost(self.lost)
            return
        if self.committed is not None:
            for (_, done), outcome in zip(self.group.batches, self.committed.outcomes, strict=True):
                _tell(done, outcome)
        for (_, told), receipt in zip(self.group.deposits, self.receipts, strict=True):
            _tell(told, receipt)
        if self.woken:
            woken(self.woken)


def _tell(done: Callable[[Any], None], answer: Any) -> None:
    """One listener's trouble must not keep the others from hearing."""
    try:
        done(answer)
    except Exception:
        log.exception("an answer of the committer was not taken well")


class CommitQueue:
    """What waits to be written. Two priorities, so that a flood of starts does not delay a signal. Not thread-safe."""

    def __init__(self) -> None:
        self.urgent: deque[tuple[Batch, Done]] = deque()
        self.starts: deque[tuple[Batch, Done]] = deque()
        self.deposits: deque[tuple[Start | Mail, DepositDone]] = deque()
        self.parks: dict[Key, Park] = {}
        self.running: dict[tuple[Key, int], Running] = {}

    def __bool__(self) -> bool:
        return bool(self.urgent or self.starts or self.deposits or self.parks or self.running)

    def __len__(self) -> int:
        return len(self.urgent) + len(self.starts) + len(self.deposits)

    def add(self, entry: tuple[Batch, Done]) -> None:
        """Queue a batch, and whom to tell."""
        (self.urgent if entry[0].create is None else self.starts).append(entry)

    def advise(self, advice: Advice) -> None:
        """Queue advice; newer advice on the same thing replaces older."""
        if isinstance(advice, Park):
            self.parks[advice.key] = advice
        else:
            self.running[advice.key, advice.seq] = advice

    def gather(self) -> Group:
        """The next group: urgent batches first, bounded in events."""
        group = Group()
        room = MAX_GROUP_EVENTS
        for queue in (self.urgent, self.starts):
            while queue and room > 0:
                entry = queue.popleft()
                group.batches.append(entry)
                room -= len(entry[0].events)
        while self.deposits and len(group.deposits) < MAX_GROUP_EVENTS:
            group.deposits.append(self.deposits.popleft())
        group.advice = [*self.parks.values(), *self.running.values()]
        self.parks, self.running = {}, {}
        return group


def perform(store: Store, session: Session, group: Group, meter: Meter | None = None) -> Answers:
    """Write a group: batches and advice in one transaction, deposits in another, whose errors go to who deposited.

    Raises:
        StoreError: the world's fault; nothing was written.
    """
    answers = Answers(group)
    if group.batches or group.advice:
        batches = [batch for batch, _ in group.batches]
        began_ns = stopwatch_ns()
        try:
            answers.committed = store.commit(session, batches, group.advice)
        except OwnershipLost as error:
            answers.lost = error
            return answers
        if meter is not None:
            meter.wrote(batches, answers.committed.outcomes, stopwatch_ns() - began_ns)
        answers.woken.extend(answers.committed.woken)
    if group.deposits:
        _deposit(store, answers)
    return answers


def _deposit(store: Store, answers: Answers) -> None:
    deposits = answers.group.deposits
    deposits.sort(key=lambda each: isinstance(each[0], Mail))  # starts first, as the store's receipts come
    starts = [item for item, _ in deposits if isinstance(item, Start)]
    mails = [item for item, _ in deposits if isinstance(item, Mail)]
    try:
        receipts = store.deposit(starts, mails)
    except StoreError as error:
        answers.receipts = [error] * len(deposits)
        return
    answers.receipts = [*receipts]
    keys = [start.key for start in starts] + [mail.receiver for mail in mails]
    answers.woken += [key for key, each in zip(keys, receipts, strict=True) if is_accepted(each)]


def _failed(group: Group, error: Exception) -> Answers:
    """Nobody knows what became of the group."""
    answers = Answers(group)
    answers.lost = error
    return answers


def is_accepted(receipt: Receipt | PerdureError) -> bool:
    """Whether a deposit is stored."""
    return isinstance(receipt, Receipt) and receipt.status == "accepted"


def is_light(batch: Batch) -> bool:
    """Whether writing it takes no time that others on the engine's loop would notice: values are packed on the way."""
    for new in batch.events:
        for name in PAYLOADS[type(new.event)]:
            payload = getattr(new.event, name)
            if payload is not None and len(payload.data) > LIGHT_BYTES:
                return False
    return True


class Committer(Protocol):
    """How the worker has things written. `done` is called on the engine's thread; `submit` may call it itself."""

    def start(self) -> None:
        """Begin to work."""
        ...

    def submit(self, entries: Sequence[tuple[Batch, Done]]) -> None:
        """Have batches committed, as far as there is room in one transaction."""
        ...

    def deposit(self, item: Start | Mail, done: DepositDone) -> None:
        """Have a start or message from outside stored."""
        ...

    def advise(self, advice: Advice) -> None:
        """Have advice ride along with the next group."""
        ...

    def depth(self) -> int:
        """How many entries wait."""
        ...

    def stop(self) -> None:
        """Write what waits, then end. Blocks."""
        ...


class ThreadCommitter:
    """The real one: a thread of its own, with the store's writing connection."""

    def __init__(
        self,
        store: Store,
        session: Session,
        *,
        post: Post,
        alone: Callable[[], bool],
        woken: Callable[[Sequence[Key]], None],
        lost: Callable[[Exception], None],
    ) -> None:
        self.meter = Meter()
        self._store = store
        self._session = session
        self._post = post  # loop.call_soon_threadsafe
        self._alone = alone
        self._woken = woken
        self._lost = lost
        self._queue = CommitQueue()
        self._condition = threading.Condition()
        self._writing = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="perdure-committer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, entries: Sequence[tuple[Batch, Done]]) -> None:
        """Queue batches; commit inline when one is all there is to do."""
        if len(entries) == 1 and self._alone() and is_light(entries[0][0]):
            answers = self._commit_inline(entries[0])
            if answers is not None:
                answers.distribute(self._woken, self._lost)
                return
        with self._condition:
            for entry in entries:
                self._queue.add(entry)
            self._condition.notify()

    def _commit_inline(self, entry: tuple[Batch, Done]) -> Answers | None:
        """The answers; None if that is the thread's task: it is busy, or has to try again."""
        if not self._writing.acquire(blocking=False):
            return None
        try:
            with self._condition:
                if len(self._queue):
                    return None
                group = self._queue.gather()  # advice
            group.batches.append(entry)
            return perform(self._store, self._session, group, self.meter)
        except StoreError:
            with self._condition:
                for advice in group.advice:
                    self._queue.advise(advice)
            return None
        except Exception as error:
            log.exception(UNFORESEEN)
            return _failed(group, error)
        finally:
            self._writing.release()

    def deposit(self, item: Start | Mail, done: DepositDone) -> None:
        """Queue a start or message from outside."""
        with self._condition:
            self._queue.deposits.append((item, done))
            self._condition.notify()

    def advise(self, advice: Advice) -> None:
        """Queue advice; it alone wakes the thread too, so that an idle engine's rows are parked."""
        with self._condition:
            self._queue.advise(advice)
            self._condition.notify()

    def depth(self) -> int:
        """How many entries wait."""
        return len(self._queue)

    def is_quiet(self) -> bool:
        """Whether nothing waits, advice neither, and nothing is being written."""
        return not self._queue and not self._writing.locked()

    def stop(self) -> None:
        """Write what waits, then end."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._queue and not self._stopping:
                    self._condition.wait()
                if not self._queue:
                    return
            if not self._write_one():
                return

    def _write_one(self) -> bool:
        """Write a group and tell everyone; False if nothing may be written any more."""
        with self._writing:
            with self._condition:
                group = self._queue.gather()
            answers = self._perform_until_written(group)
        if answers is None:
            return True
        self._tell(answers)
        return answers.lost is None

    def _tell(self, answers: Answers) -> None:
        try:
            self._post(answers.distribute, self._woken, self._lost)
        except RuntimeError:
            log.debug("the engine's loop has closed: nobody waits for these answers any more")

    def _refuse_deposits(self, group: Group, error: StoreError) -> None:
        """Who sends from outside hears of the trouble at once; nothing of it was stored."""
        refused = Group()
        with self._condition:
            refused.deposits = [*group.deposits, *self._queue.deposits]
            self._queue.deposits.clear()
        group.deposits = []
        if refused.deposits:
            answers = Answers(refused)
            answers.receipts = [error for _ in refused.deposits]
            self._tell(answers)

    def _perform_until_written(self, group: Group) -> Answers | None:
        pause_s = MIN_BACKOFF_S
        while True:
            try:
                return perform(self._store, self._session, group, self.meter)
            except StoreError as error:
                log.warning("cannot write, trying again in %.2f s, nothing is lost: %s", pause_s, error)
                self._refuse_deposits(group, error)
                with self._condition:
                    if self._stopping:
                        return None
                    self._condition.wait_for(lambda: self._stopping, pause_s)
                pause_s = min(pause_s * 2, MAX_BACKOFF_S)
            except Exception as error:
                log.exception(UNFORESEEN)
                return _failed(group, error)
