"""One run after another, in a SQLite file: what continue-as-new, fork and rewind do to its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure.store.queries import SQL
from perdure.store.records import copied, seal
from perdure.store.rules import attributes_of, is_open, reopen_updates, start_of, state_at, state_of, stays
from perdure.store.sqlite_tables import ALL, SqliteTables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.core.identity import Key
    from perdure.store.protocol import Batch, Branch, Mail, Start, Succession


class SqliteRuns(SqliteTables):
    """All tables of one file."""

    def succeed(self, batch: Batch, then: Succession) -> None:
        self.flush()
        key = batch.key
        number = self._number(key, batch.run)
        assert number is not None
        began_at_ms = then.events[0].at_ms
        after = self._begin_next(key, batch.run, number, "continued", began_at_ms)
        position, state = len(then.events), state_at([new.event for new in then.events])
        self._execute(SQL["next_run"], (after, then.run, then.workflow, position, began_at_ms, "", state, number))
        self._execute(SQL["move_attributes"], (after, number))
        self._append(after, key.shard, then.events, 0)
        self.keep(key, batch.blobs)  # those of these events are among them
        self._move_letters(key, number, after, then.received, then.carried)

    def _begin_next(self, key: Key, run: str, number: int, status: str, ended_at_ms: int) -> int:
        """Remember the run that ends; returns the number of the one that follows."""
        self._execute(SQL["keep_run"], (status, ended_at_ms, number))
        self._numbers.pop((key, run), None)
        if self._running_used:
            self._execute(SQL["end_all_running"], (number,))
        return self._one(SQL["new_number"])  # type: ignore[no-any-return]

    def _move_letters(
        self, key: Key, before: int, after: int, received: Sequence[str], carried: Sequence[Mail]
    ) -> None:
        if received:
            self._received_used = True
            self._executemany(SQL["put_received"], [(*key, message_id, before) for message_id in received])
            # Not what earlier runs received: of that, only what was carried can be here.
            self._executemany(SQL["take_letter"], [(before, message_id) for message_id in received])
        left: list[Any] = self._execute(SQL["letters"], (before, ALL)).fetchall()
        over = [(before, message_id) for _, message_id, *body in left if not stays(self, key, body)]
        self._executemany(SQL["take_letter"], over)
        self._execute(SQL["move_letters"], (after, len(carried), before))
        letters = [(after, n, mail.message_id, *seal(mail.event)) for n, mail in enumerate(carried, 1)]
        self._executemany(SQL["put_carried"], letters)
        for mail in carried:
            self.keep(key, mail.blobs)

    # --- forks and rewinds ---

    def fork(self, branch: Branch) -> None:
        self.insert(start_of(branch), len(branch.events))
        number = self._number(branch.key, branch.run)
        assert number is not None
        self._execute(SQL["forked"], (branch.origin, state_of(branch), number))
        self.set_attributes(branch.key, branch.run, attributes_of(recorded.event for recorded in branch.events))
        self._copy(branch, number)

    def rewind(self, branch: Branch) -> None:
        self.flush()
        key, now_ms = branch.key, self._now_ms()
        row = self.row(key)
        number = self._number(key, branch.instead_of)
        assert row is not None
        assert number is not None
        status = "abandoned" if is_open(row.status) else row.status
        after = self._begin_next(key, branch.instead_of, number, status, row.closed_at_ms or now_ms)
        columns = (branch.workflow, len(branch.events), now_ms, branch.origin, state_of(branch))
        self._execute(SQL["next_run"], (after, branch.run, *columns, number))
        self._execute(SQL["drop_attributes"], (number,))
        self._put_attributes(after, attributes_of(recorded.event for recorded in branch.events))
        self._copy(branch, after)
        self._move_letters(key, number, after, branch.received, branch.carried)
        self._execute(SQL["close_updates"], (*key, branch.instead_of))
        reopen_updates(self, branch)

    def begin_again(self, start: Start, position: int) -> None:
        self.flush()
        row = self.row(start.key)
        assert row is not None
        number = self._number(start.key, row.run)
        assert number is not None
        ended_at_ms = row.closed_at_ms or self._now_ms()
        after = self._begin_next(start.key, row.run, number, row.status, ended_at_ms)
        self._execute(SQL["begin_again"], (after, *self._columns(start, position), number))
        self._execute(SQL["drop_attributes"], (number,))
        self._execute(SQL["drop_updates"], start.key)
        self._execute(SQL["drop_received"], start.key)
        if start.event.attributes:
            self._put_attributes(after, start.event.attributes)

    def _copy(self, branch: Branch, number: int) -> None:
        pos = self._next_pos()
        for recorded in branch.events:
            version, at_ms, trace, usage, check, body = copied(recorded)
            header = (version, at_ms, recorded.session, trace, usage, check, body)
            self._events.append((pos, number, recorded.position, branch.key.shard, *header))
            pos += 1
        self._last_pos = pos - 1
        self.keep(branch.key, branch.blobs)

    # --- what was received before ---

    def was_received(self, key: Key, message_id: str) -> bool:
        if not self._received_used:
            return False
        found: Any = self._one(SQL["was_received"], (*key, message_id))
        return found is not None
