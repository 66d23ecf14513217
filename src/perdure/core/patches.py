"""Which changes of code a run has: `patched` is true where nothing is recorded yet of what comes after the call.

The rule is a function of the journal alone, and stays true as the journal grows: a run that takes the new way records
that with, or before, the first thing that follows. The numbers of commands tell what comes after the call.
"""

from __future__ import annotations

from collections.abc import Iterable

from perdure.core import events as ev


class Patches:
    """The changes of one run. `expect` is given the journal before it is fed; what is written later is seen anyway."""

    __slots__ = ("_answers", "_last_seq", "_marked", "_written", "unwritten")

    def __init__(self) -> None:
        self.unwritten: dict[str, int] = {}  # said yes to, with the number there, and not in the journal yet
        self._answers: dict[str, bool] = {}
        self._marked: set[str] = set()  # as far as the journal is known
        self._written: set[str] = set()  # as far as it has been fed
        self._last_seq = 0  # of the commands that the journal tells of

    def expect(self, journal: Iterable[ev.Recorded]) -> None:
        """The journal that is about to be fed."""
        for recorded in journal:
            event = recorded.event
            if isinstance(event, ev.CommandEvent):
                self._last_seq = max(self._last_seq, event.seq)
            elif isinstance(event, ev.PatchMarked):
                self._marked.add(event.name)
            elif isinstance(event, ev.CLOSED_BY_CODE):
                self._last_seq = 2**63  # the end lies behind everything

    def ask(self, name: str, next_seq: int) -> bool:
        """Whether the run has the change, asked where the next command gets this number. The same for all of a run."""
        answer = self._answers.get(name)
        if answer is None:
            answer = self._answers[name] = self.has(name, next_seq)
            if answer and name not in self._written:
                self.unwritten[name] = next_seq
        return answer

    def has(self, name: str, next_seq: int) -> bool:
        """Whether the run has the change, without asking for it: nothing is remembered or written."""
        known = name in self._marked or name in self._written or next_seq > self._last_seq
        return self._answers.get(name, known)

    def events(self) -> list[ev.PatchMarked]:
        """What is to be journaled; only when every committed event has been fed."""
        return [ev.PatchMarked(seq, name) for name, seq in self.unwritten.items()]

    def written(self, event: ev.PatchMarked) -> None:
        """The journal says so."""
        self._written.add(event.name)
        self.unwritten.pop(event.name, None)
