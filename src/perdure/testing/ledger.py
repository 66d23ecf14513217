"""The outside ledger: what really happened, kept where no crash of a simulated process can reach it.

Steps tell of each start, the store's wrapper of each commit, clients of each acknowledgement. The laws compare it with
the journals afterwards; some are checked at once, because they speak of a moment.
"""

from __future__ import annotations

from typing import NamedTuple

from perdure.core import events as ev
from perdure.core.format import FORMAT, decode_event, encode_event
from perdure.core.identity import Key
from perdure.store.protocol import Batch, Branch, Mail, NewEvent, Store


class Broken(Exception):
    """A law does not hold."""

    def __init__(self, law: str, detail: str, key: Key | None = None) -> None:
        super().__init__(f"{law}: {detail}")
        self.law = law
        self.detail = detail
        self.key = key


class StepStart(NamedTuple):
    """An attempt's body began to run."""

    order: int
    time_ms: int
    process: str
    execution: str
    run: str
    seq: int
    attempt: int
    name: str
    key: str  # its idempotency key
    arguments: str
    length: int  # of the durable journal at that moment


class Acknowledged(NamedTuple):
    """A message that an outside client was told is stored."""

    sent: int
    acknowledged: int
    client: str
    mail: Mail


class Journal:
    """What has been seen of one run's journal."""

    def __init__(self, key: Key, run: str) -> None:
        self.key = key
        self.run = run
        self.events: list[ev.Recorded] = []
        self.bodies: list[bytes] = []
        self.writers: list[str] = []  # by position: the process that committed it
        self.ends: set[int] = set()  # lengths at which commits ended: where workers take commands
        self.copied = 0  # how many of its events were copied from another run, or tell of that
        self.closed = False
        self.began = self.over = self.left = 0  # the ledger's order when: 0, not yet; left: another took its place
        self.ended: dict[int, int] = {}  # by seq: the ledger's order when the step's answer was committed


ENDS_STEP = (ev.StepCompleted, ev.StepFailed)


class Ledger:
    """Everything noted, in one order."""

    def __init__(self, store: Store) -> None:
        self.store = store  # a connection of its own, without faults
        self.order = 0
        self.starts: list[StepStart] = []
        self.journals: dict[tuple[Key, str], Journal] = {}
        self.lengths: dict[str, int] = {}  # by run
        self.acknowledged: list[Acknowledged] = []
        self.accepted_starts: dict[Key, str] = {}
        self.events: int = 0
        self.trace: list[tuple[int, str, str, str]] = []  # time, process, execution, what: for people
        self._by_run: dict[str, Journal] = {}
        self._called: dict[tuple[str, int], tuple[str, str, str]] = {}
        self._keys: dict[str, tuple[str, int]] = {}  # idempotency keys: of which run and step

    def next(self) -> int:
        """A later number."""
        self.order += 1
        return self.order

    def note(self, time_ms: int, process: str, execution: str, what: str) -> None:
        """For the table of last events."""
        self.trace.append((time_ms, process, execution, what))

    # --- steps ---

    def step_began(self, start: StepStart) -> None:
        """Raises `Broken` if a journaled result is about to be made again."""
        self.starts.append(start)
        self.note(
            start.time_ms, start.process, start.execution, f"step {start.name} #{start.seq} attempt {start.attempt}"
        )
        journal = self._by_run.get(start.run)
        if journal is not None and start.seq in journal.ended:
            raise Broken(
                "a journaled step never runs again",
                f"{start.name} #{start.seq} of {start.execution} began in {start.process} after its commit",
                journal.key,
            )
        owner = self._keys.setdefault(start.key, (start.run, start.seq))
        if owner != (start.run, start.seq):
            detail = f"#{start.seq} of {start.execution}, run {start.run[:6]}: it is #{owner[1]}'s of {owner[0][:6]}"
            raise Broken("a key is of one step of one run", detail, None if journal is None else journal.key)
        call = (start.name, start.key, start.arguments)
        before = self._called.setdefault((start.run, start.seq), call)
        if before != call:
            raise Broken(
                "a command keeps its name, key and arguments",
                f"#{start.seq} of {start.execution} was {before}, is {call}",
                None if journal is None else journal.key,
            )

    def code_changed(self) -> None:
        """New code may ask otherwise for what had begun and is not journaled; what is journaled never begins again."""
        self._called.clear()

    def intended(self, run: str, seq: int, attempt: int) -> bool:
        """Whether the intent of this attempt is durable."""
        journal = self._by_run.get(run)
        events = [] if journal is None else [each.event for each in journal.events]
        intents = [event for event in events if isinstance(event, ev.StepIntended) and event.seq == seq]
        return any(event.attempt == attempt for event in intents)

    # --- commits ---

    def committed(self, process: str, time_ms: int, batch: Batch) -> None:
        """A batch was made durable. Raises `Broken` if the journal did anything but grow by these very bytes."""
        name = (batch.key, batch.run)
        journal = self.journals.get(name)
        if journal is None:
            journal = self.journals[name] = self._by_run[batch.run] = Journal(batch.key, batch.run)
            journal.began = self.next()
        if batch.expected != len(journal.events):
            raise Broken(
                "the journal only grows",
                f"{batch.key.execution}: written at {batch.expected}, {len(journal.events)} events were there",
                batch.key,
            )
        if journal.closed and batch.events:
            raise Broken("nothing follows the close", f"{batch.key.execution}: {batch.events[0].event}", batch.key)
        order = self.next()
        loaded = self.store.load(batch.key, batch.run, batch.expected, len(batch.events) + 1)
        if len(loaded) != len(batch.events):
            raise Broken(
                "the journal only grows", f"{batch.key.execution}: {len(loaded)} of {len(batch.events)}", batch.key
            )
        for new, recorded in zip(batch.events, loaded, strict=True):
            self._append(journal, new, recorded, order)
            journal.writers.append(process)
            seq = getattr(recorded.event, "seq", "")
            what = f"{recorded.position} {type(recorded.event).__name__}{f' #{seq}' if seq else ''}"
            self.note(time_ms, process, batch.key.execution, what)
        self.events += len(loaded)
        self.lengths[batch.run] = len(journal.events)
        journal.ends.add(len(journal.events))
        journal.closed = batch.closes is not None or batch.then is not None
        journal.over = order * journal.closed
        if batch.then is not None:
            self._begin(process, time_ms, batch.key, batch.then.run)

    def branched(self, process: str, time_ms: int, branch: Branch) -> None:
        """A fork or a rewind was made durable: the run in whose place it stands is over."""
        self.note(time_ms, process, branch.key.execution, f"begins anew from {branch.origin[-20:]}")
        if branch.instead_of:
            before = self.journals[branch.key, branch.instead_of]
            before.closed, before.left = True, self.next()
        self._begin(process, time_ms, branch.key, branch.run).copied = len(branch.events)

    def _begin(self, process: str, time_ms: int, key: Key, run: str) -> Journal:
        """A run that begins with events that nobody committed to it."""
        journal = self.journals[key, run] = self._by_run[run] = Journal(key, run)
        journal.events = self.store.load(key, run, 0, 1_000_000)
        journal.bodies = [encode_event(recorded.event) for recorded in journal.events]
        journal.writers = [process] * len(journal.events)
        order = journal.began = self.next()
        for recorded in journal.events:
            if isinstance(recorded.event, ENDS_STEP):
                journal.ended[recorded.event.seq] = order
        self.lengths[run] = len(journal.events)
        journal.ends.add(len(journal.events))
        self.note(time_ms, process, key.execution, f"run {run[:6]} begins with {len(journal.events)} events")
        return journal

    def _append(self, journal: Journal, new: NewEvent, recorded: ev.Recorded, order: int) -> None:
        body, name = encode_event(new.event), journal.key.execution
        if body != encode_event(recorded.event) or recorded.at_ms != new.at_ms:
            raise Broken("the same bytes", f"{name}: {new.event} became {recorded.event}", journal.key)
        if decode_event(body, FORMAT) != new.event:
            raise Broken("the same bytes", f"{name}: {new.event} does not survive its bytes", journal.key)
        journal.events.append(recorded)
        journal.bodies.append(body)
        if isinstance(recorded.event, ENDS_STEP):
            journal.ended[recorded.event.seq] = order
