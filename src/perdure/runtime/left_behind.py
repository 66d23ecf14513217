"""What a run leaves behind that is ended without its code, by its journal alone.

Where parts of that cannot be read, children are found by their own rows, and what is not known is told in words. Only
shapes of events are needed, so no key is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, cast

from perdure.core import events as ev
from perdure.core.errors import CorruptJournal, JournalFromTheFuture
from perdure.core.identity import Key, shard_of
from perdure.runtime.description import started_of
from perdure.runtime.loading import LOAD_PAGE
from perdure.store.protocol import OPEN_STATUSES, Filter, Row, Store

ROWS = 1_000
MOST_RUNS = 10_000
MOST_NAMED = 10

_UNREADABLE = (CorruptJournal, JournalFromTheFuture)
_POLICIES = ("terminate", "cancel", "abandon")


class LeftBehind(NamedTuple):
    """What is to be done, and said, when such a run is closed."""

    children: list[ev.EarlierChild]  # that end with it
    sent: dict[str, int] | None  # how many messages it sent, by receiver; None: nobody knows
    not_known: tuple[str, ...]


def left_behind(store: Store, key: Key, run: str, length: int) -> LeftBehind:
    """Read it. Blocks."""
    shapes: Store = getattr(store, "inner", store)
    readable, gaps = _Readable(), list[int]()
    for each in _events(shapes, key, run, 0, length):
        if isinstance(each, int):
            gaps.append(each)
        else:
            readable.note(each.event)
    found = _Found(shapes, key, run, readable)
    for child in readable.children.values():
        found.take(child)
    if gaps:
        found.look_for_more(gaps)
    earlier = () if readable.started is None else readable.started.children
    return LeftBehind([*found.children, *earlier], None if gaps else readable.sent, tuple(found.not_known))


def _events(store: Store, key: Key, run: str, start: int, end: int) -> Iterator[ev.Recorded | int]:
    """Events of the run, and the places of those that cannot be read."""
    position = start
    while position < end:
        limit = min(LOAD_PAGE, end - position)
        try:
            page = store.load(key, run, position, limit)
        except _UNREADABLE:
            if limit == 1:
                yield position
            else:
                yield from _events(store, key, run, position, position + limit // 2)
                yield from _events(store, key, run, position + limit // 2, position + limit)
        else:
            yield from page
            yield from range(position + len(page), position + limit)
        position += limit


class _Readable:
    """What the readable events say, as the machine would have it."""

    def __init__(self) -> None:
        self.started: ev.ExecutionStarted | None = None
        self.children: dict[int, ev.ChildInitiated] = {}  # not seen to end, by seq
        self.asked_to_cancel: set[str] = set()
        self.sent: dict[str, int] = {}

    def note(self, event: ev.AnyEvent) -> None:
        match event:
            case ev.ExecutionStarted():
                self.started = event
            case ev.ChildInitiated():
                self.children[event.seq] = event
            case ev.ChildClosed() | ev.ChildStartFailed():
                self.children.pop(event.seq, None)
            case ev.MessageSent():
                self.sent[event.receiver] = self.sent.get(event.receiver, 0) + 1
                if event.kind == "cancel":
                    self.asked_to_cancel.add(event.receiver)
            case ev.RunForked():
                self.sent.clear()
            case _:
                pass


class _Found:
    """Children that end with the run, and what is not known of them."""

    def __init__(self, store: Store, key: Key, run: str, readable: _Readable) -> None:
        self.children: list[ev.EarlierChild] = []
        self.not_known: list[str] = []
        self._store, self._key, self._run, self._readable = store, key, run, readable

    def take(self, child: ev.ChildInitiated) -> None:
        """One that the journal tells of; what was written before it told the policy is read where the child stands."""
        policy: str | None = child.on_parent_close
        if not policy:
            namespace, name = self._key.namespace, child.execution
            row = self._store.row(Key(shard_of(namespace, name, self._store.shards), namespace, name))  # type: ignore[arg-type]
            if row is not None and (row.status not in OPEN_STATUSES or child.run not in (row.run, row.first_run)):
                return
            policy = None if row is None else self._policy_of(row)
        self._add(child.execution, child.run, policy)

    def look_for_more(self, gaps: list[int]) -> None:
        """Children that say by themselves that they are of this run, as the journal may not tell of all."""
        more = f" and {len(gaps) - MOST_NAMED} more" if len(gaps) > MOST_NAMED else ""
        numbers = ", ".join(map(str, gaps[:MOST_NAMED])) + more
        self.not_known.append(
            f"what stood in its journal at {numbers}: it cannot be read. Children were looked up by their own rows; "
            "one whose start was not delivered yet goes on, and of steps and messages that began there nobody knows"
        )
        started = self._readable.started
        runs = self._runs() if started is None else {self._run}
        known = {child.run for child in self._readable.children.values()}
        known |= {child.run for child in (() if started is None else started.children)}
        for row in self._rows():
            begun = row.first_run or row.run
            if begun not in known and row.parent.rsplit("/", 2)[1] in runs:
                self._add(row.key.execution, begun, self._policy_of(row))

    def _add(self, execution: str, run: str, policy: str | None) -> None:
        if execution in self._readable.asked_to_cancel:
            return
        if policy is None:
            self.not_known.append(f"what is to become of child {execution!r}, whose start cannot be read: it goes on")
        elif policy != "abandon":
            self.children.append(ev.EarlierChild(execution, run, cast(Literal["terminate", "cancel"], policy)))

    def _policy_of(self, row: Row) -> str | None:
        try:
            started = started_of(self._store, row)
        except _UNREADABLE:
            return None
        return started.on_parent_close if started is not None and started.on_parent_close in _POLICIES else None

    def _rows(self) -> Iterator[Row]:
        wanted, after = Filter(self._key.namespace, OPEN_STATUSES, parent=self._key.execution), None
        page: list[Row] | None = None
        while page is None or len(page) == ROWS:
            page = self._store.find(wanted, after, ROWS)
            yield from page
            after = (page[-1].created_at_ms, page[-1].key.execution) if page else None

    def _runs(self) -> set[str]:
        """This run and those that led to it: what the first event would have told."""
        found, before = {self._run}, None
        while len(found) < MOST_RUNS:
            page = self._store.runs(self._key, before, ROWS)
            for each in page:
                if each.run != self._run and each.status not in ("continued", "abandoned"):
                    return found  # of an earlier execution that had its id
                found.add(each.run)
            if len(page) < ROWS:
                break
            before = page[-1].n
        return found
