"""What a run's code sends with its next commit: the events that say so, messages, and starts of children."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from perdure.core import events as ev
from perdure.core.ask_events import answered_by
from perdure.core.commands import AskQuestion, CloseQuestion, CompleteUpdate, DropMessage, SendMessage, StartChild
from perdure.core.identity import Key, derived_id, shard_of
from perdure.core.machine import Machine
from perdure.store.protocol import Mail, Start


class Outgoing:
    """Gathered until they are committed; what was committed is cleared."""

    def __init__(self, key: Key, run: str, shards: int, machine: Machine) -> None:
        self.key = key
        self.run = run
        self.events: list[ev.AnyEvent] = []
        self.mail: list[Mail] = []
        self.starts: list[Start] = []
        self.buried: list[ev.SignalReceived] = []
        self.is_read_outside = False  # some of it is told without the journal: see updates.py
        self.attributes: dict[str, ev.Attribute] | None = None  # all of them, if some of the events change any
        self._shards = shards
        self._machine = machine
        self._sending: dict[str, int] = {}  # messages among them, by receiver

    def clear(self) -> None:
        """They have been committed. The lists themselves are the batch's from now on."""
        if self.events:
            self.events, self.mail, self.starts, self.buried, self._sending = [], [], [], [], {}
            self.is_read_outside, self.attributes = False, None

    def key_of(self, execution_id: str) -> Key:
        """Where an execution of the same namespace lives."""
        namespace = self.key.namespace
        return Key(shard_of(namespace, execution_id, self._shards), namespace, execution_id)  # type: ignore[arg-type]

    def sent_to(self, receiver: str) -> int:
        """How many messages went to it, those of the next commit included."""
        return self._machine.sent.get(receiver, 0) + self._sending.get(receiver, 0)

    def all_sent(self) -> dict[str, int]:
        """How many messages went to each receiver, those of the next commit included."""
        return {receiver: self.sent_to(receiver) for receiver in (*self._machine.sent, *self._sending)}

    def asked_to_cancel(self) -> set[str]:
        """Executions that a request to cancel is about to go to."""
        sent = [event for event in self.events if isinstance(event, ev.MessageSent)]
        return {event.receiver for event in sent if event.kind == "cancel"}

    def at_close(self) -> list[ev.AnyEvent]:
        """What still leaves when the run ends. Whoever closes begins no step."""
        return [event for event in self.events if not isinstance(event, ev.StepIntended)]

    def publish(self, state: ev.StatePublished) -> None:
        """The state is there to be read."""
        self.events.append(state)
        self.is_read_outside = True

    def set_attributes(self, attributes: dict[str, ev.Attribute]) -> None:
        """From now on it is found by these, if the journal does not say so already."""
        known = self._machine.facts.attributes
        self.events = [event for event in self.events if not isinstance(event, ev.AttributesSet)]
        self.attributes = None
        if attributes != known:
            changed = {name: value for name, value in attributes.items() if known.get(name) != value}
            self.events.append(ev.AttributesSet(changed, tuple(name for name in known if name not in attributes)))
            self.attributes = dict(attributes)

    def note(self, command: CompleteUpdate | DropMessage | AskQuestion | CloseQuestion) -> None:
        """What is done with being written."""
        _NOTE[type(command)](self, command)

    def complete_update(self, command: CompleteUpdate) -> None:
        """An update is answered."""
        answer = ev.UpdateCompleted(command.seq, command.update_id, command.name, command.result, command.failure)
        self.events.append(answer)
        self.is_read_outside = True

    def drop(self, command: DropMessage) -> None:
        """A signal becomes a dead letter."""
        signal = command.message
        self.events.append(ev.MessageDropped(command.seq, signal.message_id, signal.name, command.failure))
        self.buried.append(signal)
        self.is_read_outside = self.is_read_outside or answered_by(signal.name) is not None

    def ask(self, command: AskQuestion) -> None:
        """A question is open."""
        asked = {name: getattr(command, name) for name in ev.QuestionAsked.__struct_fields__ if name != "sealed"}
        self.events.append(ev.QuestionAsked(**asked))
        self.is_read_outside = True

    def close_question(self, command: CloseQuestion) -> None:
        """The code waits for its answer no longer."""
        self.events.append(ev.QuestionClosed(command.seq, command.asked, command.outcome))
        self.is_read_outside = True

    def start_child(self, command: StartChild) -> None:
        """A child begins."""
        self.events.append(
            ev.ChildInitiated(
                seq=command.seq,
                workflow=command.workflow,
                execution=command.execution,
                run=command.run,
                input=command.input,
                location=command.location,
                digest=command.digest,
                on_parent_close=command.on_parent_close,
            )
        )
        started = ev.ExecutionStarted(
            workflow=command.workflow,
            run=command.run,
            input=command.input,
            parent=ev.Parent(self.key.execution, self.run, command.seq),
            on_parent_close=command.on_parent_close,
            version=command.target.version,
        )
        self.starts.append(Start(self.key_of(command.execution), started, start_digest(started)))

    def send(self, command: SendMessage) -> None:
        """A message leaves."""
        self.events.append(
            ev.MessageSent(
                seq=command.seq,
                kind=command.kind,
                receiver=command.receiver,
                name=command.name,
                value=command.value,
                reason=command.reason,
                location=command.location,
                digest=command.digest,
            )
        )
        self._sending[command.receiver] = self._sending.get(command.receiver, 0) + 1
        number = self.sent_to(command.receiver)
        message_id = derived_id("message", self.key.execution, self.run, command.seq)
        event: ev.AnyEvent
        if command.kind == "signal":
            assert command.value is not None
            event = ev.SignalReceived(message_id, command.name, command.value, self.key.execution, self.run, number)
        else:
            event = ev.CancelRequested(message_id, command.reason, self.run, number)
        self.mail.append(
            Mail(
                receiver=self.key_of(command.receiver),
                message_id=message_id,
                event=event,
                sender=self.key,
                sender_run=self.run,
                seq=command.seq,
            )
        )


_NOTE: dict[type, Callable[[Outgoing, Any], None]] = {
    CompleteUpdate: Outgoing.complete_update,
    DropMessage: Outgoing.drop,
    AskQuestion: Outgoing.ask,
    CloseQuestion: Outgoing.close_question,
}


def start_digest(started: ev.ExecutionStarted) -> bytes:
    """Tells an idempotent start from a clash of ids: a hash of workflow and input."""
    text = started.workflow.encode() + b"\0" + started.input.content_type.encode() + b"\0" + started.input.data
    return hashlib.blake2b(text, digest_size=16).digest()
