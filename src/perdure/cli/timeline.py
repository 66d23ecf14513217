"""From a journal to the entries of a timeline: what a person wants to see of it, in the order in which it was recorded.

An entry stands where its last event stands. Attempts that failed are folded into their step, a child's or message's
end into its beginning, unless all is asked for. Pure: no clock, no terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import msgspec

from perdure import journal as jn
from perdure.cli.attributes import attributes_text
from perdure.cli.times import duration

Mark = Literal[
    "done",
    "failed",
    "retry",
    "running",
    "waiting",
    "note",
    "start",
    "signal",
    "timer",
    "worker",
    "paused",
    "stalled",
    "cancelled",
    "unknown",
]


NOTHING: Mapping[int, bool] = MappingProxyType({})


class Tried(msgspec.Struct):
    """Attempts of a step that failed alike, one after the other."""

    first: int
    last: int
    failure: jn.FailureInfo


class Entry(msgspec.Struct):
    """One thing that happened, or goes on."""

    mark: Mark
    title: str
    at_ms: int | None  # when it was recorded; None: it goes on
    started_at_ms: int | None = None
    location: str = ""
    input: jn.Payload | None = None
    output: jn.Payload | None = None
    progress: jn.Payload | None = None  # of what is running, as it last told
    failure: jn.FailureInfo | None = None
    text: str = ""
    attempt: int = 1
    tried: list[Tried] = []
    retry_at_ms: int = 0
    seq: int = 0
    whole: bool = False  # nobody knows of it still: its input is shown, whatever room that takes
    group: int = 0  # entries with the same number, above 0, ran at the same time

    @property
    def took_ms(self) -> int | None:
        """From the first attempt's start to the end."""
        if self.at_ms is None or self.started_at_ms is None:
            return None
        return max(0, self.at_ms - self.started_at_ms)


class Timeline(msgspec.Struct):
    """What happened, in order, and what goes on."""

    past: list[Entry]
    open: list[Entry]
    input: jn.Payload | None = None
    result: jn.Payload | None = None
    failure: jn.FailureInfo | None = None
    closing: str = ""
    parent: jn.Parent | None = None
    state: jn.Payload | None = None  # that was published last


def timeline(
    journal: Sequence[jn.Recorded],
    running: Iterable[jn.Running] = (),
    *,
    alone: bool = False,
    clean: Mapping[int, bool] = NOTHING,
    unfold: bool = False,
) -> Timeline:
    """The timeline of one run.

    Args:
        journal: its events.
        running: its steps that are known to be open.
        alone: whether no other execution's steps may run beside it now.
        clean: of sessions whether they ended with a goodbye.
        unfold: every attempt and every message's arrival is an entry of its own.
    """
    teller = _Teller(clean, unfold=unfold)
    for recorded in journal:
        teller.session(recorded)
        teller.event(recorded, recorded.event)
        if isinstance(recorded.event, jn.ClosingEvent):
            teller.left_over(recorded.at_ms, recorded.event)
    made = teller.made
    for entry in teller.unknown.values():
        entry.whole = True
    made.open = teller.still_open(running)
    if alone and not made.closing:
        made.open.insert(0, Entry("note", "runs alone until it makes progress", None))
    _group(made.past)
    return made


class _Teller:
    def __init__(self, clean: Mapping[int, bool], *, unfold: bool) -> None:
        self.clean = clean
        self.unfold = unfold
        self.made = Timeline([], [])
        self.retrying: dict[int, Entry] = {}
        self.intents: dict[int, jn.StepIntended] = {}  # the last of each step that is declared once
        self.unknown: dict[int, Entry] = {}  # of these, the ones of which nobody knows what they did
        self.children: dict[int, Entry] = {}
        self.messages: dict[int, Entry] = {}
        self.updates: dict[str, Entry] = {}
        self.last: jn.Recorded | None = None

    def add(self, entry: Entry) -> Entry:
        self.made.past.append(entry)
        return entry

    def session(self, recorded: jn.Recorded) -> None:
        """Another worker went on: the one before was stopped, or died."""
        last, self.last = self.last, recorded
        copied = isinstance(recorded.event, jn.RunForked) or (last is not None and isinstance(last.event, jn.RunForked))
        if last is None or last.session == recorded.session or copied:
            return
        code = "" if last.fingerprint == recorded.fingerprint else ", with other code"
        gap = duration(recorded.at_ms - last.at_ms)
        ended = {True: "the worker stopped; ", False: "the worker died; ", None: ""}[self.clean.get(last.session)]
        self.add(Entry("worker", f"{ended}another went on{code}, {gap} after the last event", recorded.at_ms))

    def event(self, recorded: jn.Recorded, event: jn.AnyEvent) -> None:
        at_ms = recorded.at_ms
        match event:
            case jn.ExecutionStarted():
                self.made.input, self.made.parent = event.input, event.parent
                self.add(Entry("start", "started", at_ms))
            case jn.StepEvent():
                self.step(at_ms, event)
            case jn.ChildInitiated() | jn.ChildClosed() | jn.ChildStartFailed():
                self.child(at_ms, event)
            case jn.MessageSent() | jn.MessageDelivered() | jn.MessageFailed():
                self.message(at_ms, event)
            case jn.SignalReceived():
                text = f"from {event.sender}" if event.sender else event.by and f"by {event.by}"
                self.add(Entry("signal", _signal_title(event.name), at_ms, input=event.value, text=text))
            case jn.TimerFired():
                self.add(Entry("timer", "timer fired", at_ms, seq=event.seq))
            case jn.UpdateAccepted() | jn.UpdateCompleted() | jn.MessageDropped() | jn.StatePublished():
                self.handled(at_ms, event)
            case _:
                self.rest(at_ms, event)

    def rest(self, at_ms: int, event: jn.AnyEvent) -> None:
        match event:
            case jn.QuestionAsked() | jn.QuestionClosed():
                self.question(at_ms, event)
            case jn.CancelRequested():
                self.add(Entry("note", "cancel requested", at_ms, text=event.reason))
            case _:
                self.other(at_ms, event)

    def other(self, at_ms: int, event: jn.AnyEvent) -> None:
        match event:
            case jn.ExecutionCompleted():
                self.made.result, self.made.closing = event.result, "completed"
                self.add(Entry("done", "completed", at_ms, output=event.result))
                self.lost(at_ms, event.lost_failures)
            case jn.ExecutionFailed():
                self.made.failure, self.made.closing = event.failure, "failed"
                self.add(Entry("failed", "failed", at_ms, failure=event.failure))
                self.lost(at_ms, event.lost_failures)
            case jn.ExecutionCancelled() | jn.ExecutionTerminated():
                word = "cancelled" if isinstance(event, jn.ExecutionCancelled) else "terminated"
                self.made.closing = word
                self.add(Entry("cancelled", word, at_ms, text=event.reason))
                for what in getattr(event, "not_known", ()):
                    self.add(Entry("unknown", "not known", at_ms, text=what))
            case jn.ExecutionClaimed():
                self.claimed(at_ms)
            case _:
                self.management(at_ms, event)

    def management(self, at_ms: int, event: jn.AnyEvent) -> None:
        match event:
            case jn.PauseRequested():
                self.add(Entry("paused", "paused", at_ms, text=event.reason))
            case jn.ResumeRequested():
                self.add(Entry("note", "resumed", at_ms))
            case jn.DeadlinePassed():
                self.add(Entry("timer", "deadline passed", at_ms, text=event.reason))
            case jn.AttributesSet():
                told = [*attributes_text(event.changed), *(f"no {name}" for name in event.removed)]
                self.add(Entry("note", "attributes", at_ms, text=", ".join(told)))
            case jn.RunForked():
                self.forked(at_ms, event)
            case _:
                self.add(Entry("note", type(event).__name__, at_ms))

    def forked(self, at_ms: int, event: jn.RunForked) -> None:
        is_rewind = event.execution == event.from_execution
        if not is_rewind:
            self.made.parent = None  # a copy is nobody's child
        title = "rewound" if is_rewind else f"forked from {event.from_execution}"
        self.add(Entry("note", title, at_ms, text=f"run {event.from_run}"))

    def claimed(self, at_ms: int) -> None:
        waited_ms = at_ms - (self.made.past[0].at_ms or at_ms) if self.made.past else 0
        if self.unfold or waited_ms:
            self.add(Entry("note", "claimed by a worker", at_ms))

    def lost(self, at_ms: int, failures: Sequence[jn.FailureInfo]) -> None:
        for failure in failures:
            self.add(Entry("failed", "in a background task", at_ms, failure=failure))

    # --- steps ---

    def attempt_failed(self, at_ms: int, event: jn.StepAttemptFailed) -> None:
        self.unknown.pop(event.seq, None)
        failure = event.failure or jn.FailureInfo("?", "")
        if self.unfold:
            entry = self.add(_step_entry("retry", at_ms, event))
            entry.failure = failure
        known = self.retrying.setdefault(event.seq, _step_entry("retry", at_ms, event))
        known.attempt, known.retry_at_ms, known.failure, known.at_ms = event.attempt, event.retry_at_ms, failure, at_ms
        alike = known.tried[-1] if known.tried else None
        if alike is not None and (alike.failure.type, alike.failure.message) == (failure.type, failure.message):
            alike.last = event.attempt
        else:
            known.tried.append(Tried(event.attempt, event.attempt, failure))

    def step(self, at_ms: int, event: jn.StepEvents) -> None:
        match event:
            case jn.StepAttemptFailed():
                self.attempt_failed(at_ms, event)
                return
            case jn.StepIntended():
                self.intents[event.seq] = event
                if self.unfold:
                    self.add(_step_entry("note", at_ms, event)).text = "intended"
                return
            case jn.StepCompleted():
                entry = _step_entry("done", at_ms, event)
                entry.output, entry.text = event.result, _settled(event)
            case jn.StepFailed():
                entry = _step_entry("failed", at_ms, event)
                entry.failure, entry.text = event.failure, _settled(event)
            case jn.StepOutcomeUnknown():
                entry = _step_entry("unknown", at_ms, event)
                entry.text = f"nobody knows whether it happened: {event.reason}"
                entry.input = self.intents[event.seq].input
                self.unknown[event.seq] = entry
        if not isinstance(event, jn.StepOutcomeUnknown):
            self.unknown.pop(event.seq, None)
        before = self.retrying.pop(event.seq, None)
        if before is not None and not self.unfold:
            entry.tried, entry.started_at_ms = before.tried, before.started_at_ms
        self.add(entry)

    # --- children and messages ---

    def child(self, at_ms: int, event: jn.ChildInitiated | jn.ChildClosed | jn.ChildStartFailed) -> None:
        if isinstance(event, jn.ChildInitiated):
            title = f"child {event.workflow}"
            entry = Entry(
                "running", title, None, at_ms, event.location, event.input, text=event.execution, seq=event.seq
            )
            self.children[event.seq] = entry
            if self.unfold:
                self.add(Entry("start", f"{title} started", at_ms, input=event.input, text=event.execution))
                entry.input = None  # told
            return
        entry = self.children.pop(event.seq, Entry("running", "child", None, at_ms, seq=event.seq))
        entry.at_ms = at_ms
        if isinstance(event, jn.ChildStartFailed):
            entry.mark, entry.text = "failed", f"{entry.text} not started: {event.reason}"
        else:
            entry.mark = "done" if event.status == "completed" else "failed"
            entry.output, entry.failure = event.result, event.failure
            if event.status in {"cancelled", "terminated"}:
                entry.text += f" {event.status}{f': {event.reason}' if event.reason else ''}"
        self.add(entry)

    def message(self, at_ms: int, event: jn.MessageSent | jn.MessageDelivered | jn.MessageFailed) -> None:
        match event:
            case jn.MessageSent():
                what = f"signal {event.name}" if event.kind == "signal" else "cancel"
                entry = Entry("signal", f"sent {what}", at_ms, location=event.location, input=event.value)
                entry.text = f"to {event.receiver}"
                self.messages[event.seq] = self.add(entry)
            case jn.MessageFailed():
                self.add(Entry("failed", "message not delivered", at_ms, text=event.reason))
            case jn.MessageDelivered() if self.unfold:
                sent = self.messages.get(event.seq)
                self.add(Entry("note", "message delivered", at_ms, text="" if sent is None else sent.text))
            case _:
                pass

    def question(self, at_ms: int, event: jn.QuestionAsked | jn.QuestionClosed) -> None:
        """What people are asked; that they answered is told by the answer."""
        if isinstance(event, jn.QuestionAsked):
            whom = f"of {event.to}: " if event.to else ""
            asked = Entry("signal", f"asked #{event.seq}", at_ms, location=event.location, input=event.about)
            asked.text = f"{whom}{event.question}"
            self.add(asked)
        elif event.outcome != "answered" or self.unfold:
            self.add(Entry("note", f"question #{event.asked} {event.outcome.replace('_', ' ')}", at_ms))

    def handled(
        self,
        at_ms: int,
        event: jn.UpdateAccepted | jn.UpdateCompleted | jn.MessageDropped | jn.StatePublished,
    ) -> None:
        match event:
            case jn.UpdateAccepted():
                entry = Entry("running", f"update {event.name}", None, at_ms, input=event.input)
                self.updates[event.update_id] = entry
                if self.unfold:
                    self.add(Entry("signal", f"update {event.name} accepted", at_ms, input=event.input))
                    entry.input = None  # told
            case jn.UpdateCompleted():
                entry = self.updates.pop(event.update_id, Entry("running", f"update {event.name}", None, at_ms))
                entry.mark, entry.at_ms = "done" if event.failure is None else "failed", at_ms
                entry.output, entry.failure = event.result, event.failure
                self.add(entry)
            case jn.MessageDropped():
                self.add(Entry("failed", f"signal {event.name} dropped", at_ms, failure=event.failure))
            case jn.StatePublished():
                self.made.state = event.state
                if self.unfold:
                    self.add(Entry("note", "published", at_ms, output=event.state))

    def left_over(self, at_ms: int, event: jn.ClosingEvent) -> None:
        """What of its messages came to nothing when the run ended."""
        for each in event.unfinished:
            self.add(Entry("cancelled", f"{each.kind} {each.name} was not finished".strip(), at_ms))
        if event.unreceived:
            text = "kept as dead letters" if event.unreceived > 1 else "kept as a dead letter"
            self.add(Entry("note", f"{event.unreceived:,} signal(s) not received", at_ms, text=text))

    # --- what goes on ---

    def still_open(self, running: Iterable[jn.Running]) -> list[Entry]:
        if self.made.closing:
            return []
        found = [*self.children.values(), *self.updates.values()]
        told = {each.seq: each for each in running if self.last is not None}
        for seq, entry in self.retrying.items():
            entry.seq = seq
            entry.at_ms = None
            each = told.pop(seq, None)
            if each is not None and each.attempt > entry.attempt:
                entry.mark, entry.attempt, entry.progress = "running", each.attempt, each.progress
            else:
                entry.mark = "retry"
            found.append(entry)
        for seq, each in told.items():
            entry = Entry("running", each.name, None, each.started_at_ms, attempt=each.attempt, seq=seq)
            entry.progress = each.progress
            found.append(entry)
        return sorted(found, key=lambda entry: entry.seq)


def _step_entry(mark: Mark, at_ms: int, event: jn.StepEvents) -> Entry:
    started = getattr(event, "started_at_ms", 0) or at_ms
    return Entry(mark, event.name, at_ms, started, event.location, event.preview, attempt=event.attempt, seq=event.seq)


def _settled(event: jn.StepCompleted | jn.StepFailed) -> str:
    """Who said so, where the attempt itself could not."""
    if isinstance(event, jn.StepCompleted) and event.replaced:
        return "replaced: not what it returned"
    if event.resolved is None:
        return ""
    who = "its reconcile" if event.resolved.by == "reconcile" else "a person"
    note = f" ({event.resolved.note})" if event.resolved.note else ""
    return f"{event.resolved.outcome.replace('_', ' ')}, says {who}{note}"


def _group(entries: list[Entry]) -> None:
    """Number the groups of neighbours whose times overlap: from the first that began while another ran, to the last."""
    timed = [index for index, entry in enumerate(entries) if entry.took_ms is not None]
    number = 0
    position = 0
    while position < len(timed):
        end = position
        while end + 1 < len(timed) and _overlap(entries, timed, end):
            end += 1
        if end > position:
            number += 1
            for index in range(timed[position], timed[end] + 1):
                entries[index].group = number
        position = end + 1


def _overlap(entries: list[Entry], timed: list[int], last: int) -> bool:
    """Whether the one after `last` began before that had ended."""
    began = entries[timed[last + 1]].started_at_ms or 0
    return began < (entries[timed[last]].at_ms or 0)


def _signal_title(name: str) -> str:
    asked = jn.answered_by(name)
    return f"signal {name}" if asked is None else f"answer to #{asked}"
