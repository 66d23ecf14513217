"""Removing from a SQLite file executions that closed and runs that ended long ago: in bites, each one transaction.

The row and all that goes by the execution's id leave at once, so that the id is free; events, which go by the number of
their run, and large values follow. `forgotten` and blobs that nobody owns tell what is still to be deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure.core.identity import ExecutionId, Key, Namespace, closed_message, shard_of
from perdure.store.protocol import Collected
from perdure.store.queries import SQL
from perdure.store.records import row_of
from perdure.store.rules import is_open

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perdure.store.protocol import Row

_LEFTOVERS = ("past_run", "ask", "dead_letter", "updates", "received")
_ROWS_FOR_ONE = 20  # what an execution may cost beside its events
_BLOBS = 4  # of a bite: they may be large


def _place(page: Sequence[tuple[int, Row]], after: tuple[int, int] | None) -> tuple[int, int] | None:
    """Behind the last one."""
    if not page:
        return after
    number, row = page[-1]
    assert row.closed_at_ms is not None
    return row.closed_at_ms, number


class _Sweeping:
    """One look at what may go, over a connection that its owner has begun a transaction on."""

    def __init__(self, execute: Callable[[str, tuple[Any, ...]], Any], shards: int) -> None:
        self._execute = execute
        self._shards = shards

    def _one(self, query: str, bindings: tuple[Any, ...]) -> Any:
        found = self._execute(SQL[query], bindings).fetchone()
        return None if found is None else found[0]

    def _events(self, limit: int) -> tuple[int, bool]:
        """Delete events of runs that are forgotten; how many, and whether there are more. The newest of all stays."""
        deleted = 0
        for (number,) in self._execute(SQL["forgotten"], (limit,)).fetchall():
            self._execute(SQL["collect_events"], (number, limit - deleted))
            deleted += self._one("changed", ())
            self._execute(SQL["end_forgotten"], (number,))
            if deleted >= limit:
                return deleted, True
        return deleted, False


class Sweep(_Sweeping):
    """Of executions that have closed."""

    # --- what may go ---

    def expired(
        self, namespace: str, before_ms: int, after: tuple[int, int] | None, limit: int
    ) -> list[tuple[int, Row]]:
        """A page of those that closed before that time, by when they did; each with its run's number."""
        found = self._execute(SQL["expired"], (namespace, before_ms, *(after or (-1, -1)), limit)).fetchall()
        return [(number, row_of(columns)) for number, *columns in found]

    def is_needed(self, row: Row) -> bool:
        """Whether somebody still waits for it: its own messages, a person's answer, its parent."""
        key = row.key
        if self._one("sends_still", key) or self._one("is_unresolved", key):
            return True
        if not row.parent_id:
            return False
        parent = ExecutionId(row.parent_id)
        at = Key(shard_of(key.namespace, parent, self._shards), Namespace(key.namespace), parent)
        found: Any = self._execute(SQL["receiver"], at).fetchone()
        return (
            found is not None
            and is_open(found[2])
            and bool(self._one("has_letter", (found[0], closed_message(row.key.execution, row.run))))
        )

    def look(self, namespace: str, before_ms: int, after: tuple[int, int] | None, limit: int) -> Collected:
        """What a bite would take of so many executions."""
        executions = events = 0
        page = self.expired(namespace, before_ms, after, limit)
        for _, row in page:
            if not self.is_needed(row):
                executions += 1
                events += row.position + int(self._one("past_events", row.key) or 0)
        return Collected(executions, events, _place(page, after), more=len(page) == limit)

    # --- its going ---

    def bite(self, namespace: str, before_ms: int, after: tuple[int, int] | None, limit: int) -> Collected:
        """Delete about so many events and rows. The caller's transaction writes."""
        at_most = max(1, limit // _ROWS_FOR_ONE)
        page = self.expired(namespace, before_ms, after, at_most)
        executions = 0
        for n, (number, row) in enumerate(page):
            if self.is_needed(row):
                continue
            if not self._remove(number, row.key, limit):
                return Collected(executions, 0, _place(page[:n], after), more=True)
            executions += 1
        events, more_events = self._events(limit)
        more_blobs, more_strays = self._blobs(), self._strays(namespace, before_ms, limit)
        more = more_events or more_blobs or more_strays or len(page) == at_most
        return Collected(executions, events, _place(page, after), more=more)

    def _remove(self, number: int, key: Key, limit: int) -> bool:
        """All that goes by its id. False: it was too much for one bite, so that its row is left, too."""
        self._execute(SQL["forget_past_runs"], (*key, limit))
        for table in _LEFTOVERS:
            self._execute(SQL[f"collect_{table}"], (*key, limit))
            if self._one("changed", ()) >= limit:
                return False
        self._execute(SQL["bury_blobs"], (f"\0{number}", *key))
        for query in ("forget_run", "drop_attributes", "end_all_running", "empty_inbox", "collect_execution"):
            self._execute(SQL[query], (number,))
        return True

    def _strays(self, namespace: str, before_ms: int, limit: int) -> bool:
        """Delete dead letters that were sent to nobody; whether there are more."""
        self._execute(SQL["collect_strays"], (namespace, before_ms, limit))
        return bool(self._one("changed", ()) == limit)

    def _blobs(self) -> bool:
        """Delete some large values whose execution is gone; whether there are more."""
        found = self._execute(SQL["loose_blobs"], (1, _BLOBS)).fetchall()
        for blob in found:
            self._execute(SQL["delete_blob_data"], blob)
            self._execute(SQL["delete_blob"], blob)
        return len(found) == _BLOBS


class RunSweep(_Sweeping):
    """Of runs that are past, whatever their executions do."""

    def _page(
        self, namespace: str, before_ms: int, after: tuple[int, int] | None, limit: int
    ) -> list[tuple[int, Key, str, int, int, bool]]:
        """Number, execution, run, events and end of those that ended before that time, and whether each must stay."""
        found = self._execute(SQL["past_runs"], (namespace, before_ms, *(after or (-1, -1)), limit)).fetchall()
        return [
            (number, Key(*key), run, events, ended_at_ms, bool(origin or self._one("run_is_needed", (*key, run))))
            for number, *key, run, events, ended_at_ms, origin in found
        ]

    def look(self, namespace: str, before_ms: int, after: tuple[int, int] | None, limit: int) -> Collected:
        """What a bite would take of so many runs."""
        page = self._page(namespace, before_ms, after, limit)
        sizes = [events for _, _, _, events, _, stays in page if not stays]
        place = (page[-1][4], page[-1][0]) if page else after
        return Collected(0, sum(sizes), place, more=len(page) == limit, runs=len(sizes))

    def bite(self, namespace: str, before_ms: int, after: tuple[int, int] | None, limit: int) -> Collected:
        """Delete about so many events and rows. The caller's transaction writes."""
        at_most = max(1, limit // _ROWS_FOR_ONE)
        page, runs = self._page(namespace, before_ms, after, at_most), 0
        left, cleared = limit, True
        of: set[Key] = set()
        for number, key, run, _, ended_at_ms, stays in page:
            if not stays:
                left -= self._clear(number, key, run, left)
                if left <= 0:
                    cleared = False  # its row is left, too
                    break
                self._execute(SQL["end_past_run"], (number,))
                self._execute(SQL["forget_run"], (number,))
                of.add(key)
                runs += 1
            after = (ended_at_ms, number)
        for key in of:
            if not self._one("letters_wait", key):
                self._execute(SQL["loosen_blobs"], key)
        events, more_events = self._events(max(1, left))
        return Collected(0, events, after, more=not cleared or more_events or len(page) == at_most, runs=runs)

    def _clear(self, number: int, key: Key, run: str, limit: int) -> int:
        """Delete what goes by the run; how many rows."""
        self._execute(SQL["collect_received_of_run"], (number, limit))
        deleted: int = self._one("changed", ())
        if deleted < limit:
            self._execute(SQL["collect_updates_of_run"], (*key, run, limit - deleted))
            deleted += self._one("changed", ())
        return deleted
