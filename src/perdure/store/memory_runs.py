"""One run after another, in memory: what continue-as-new, fork and rewind do to its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from perdure.core.identity import ExecutionId, Key, closed_message, shard_of
from perdure.store.memory_tables import MemoryTables, Posted
from perdure.store.protocol import Batch, Branch, Mail, Row, RunRow, RunStatus, Start, Succession
from perdure.store.records import copied, seal
from perdure.store.rules import attributes_of, is_open, reopen_updates, start_of, state_at, state_of, stays

if TYPE_CHECKING:
    from collections.abc import Sequence


class MemoryRuns(MemoryTables):
    """All tables."""

    def succeed(self, batch: Batch, then: Succession) -> None:
        key, began_at_ms = batch.key, then.events[0].at_ms
        before = self._begin_next(key, "continued", began_at_ms, (began_at_ms, ""))
        state = state_at([new.event for new in then.events])
        self._replace_run(key, then.run, then.workflow, len(then.events), state)
        self._append(key, then.run, then.events, 0)
        self.keep(key, batch.blobs)  # those of these events are among them
        self._move_letters(key, before, then.received, then.carried)

    def _begin_next(self, key: Key, status: RunStatus, ended_at_ms: int, began: tuple[int, str]) -> int:
        """Remember the run that ends; returns its number."""
        world, row, number = self._world, self._world.rows[key], self._world.numbers[key]
        began_at_ms, origin = world.began.get(key, (row.created_at_ms, ""))
        over = RunRow(number, row.run, row.workflow, status, row.position, began_at_ms, ended_at_ms, origin)
        past = world.past.setdefault(key, [])
        past.append(over)
        self._undo.append(past.pop)
        self._set_running(number, {})
        world.numbers[key] = self._new_number()
        self._undo.append(lambda: world.numbers.update({key: number}))
        self._set_began(key, began)
        return number

    def _set_began(self, key: Key, began: tuple[int, str]) -> None:
        world, before = self._world.began, self._world.began.get(key)
        world[key] = began
        self._undo.append(lambda: world.pop(key) if before is None else world.update({key: before}))

    def _replace_run(self, key: Key, run: str, workflow: str, position: int, state: int | None) -> None:
        row: Row = self._world.rows[key]
        self.set_row(
            msgspec.structs.replace(
                row,
                run=run,
                workflow=workflow,
                position=position,
                state_position=state,
                first_run=row.first_run or row.run,
                status="active",
                closed_at_ms=None,
                wake_at_ms=None,
                waits_for="",
                problem="",
                recoveries=0,
            )
        )

    def _move_letters(self, key: Key, before: int, received: Sequence[str], carried: Sequence[Mail]) -> None:
        self._remember(key, before, received)
        # Not what earlier runs received: of that, only what was carried can be here.
        letters = [each for each in self._world.inboxes[before] if each.message_id not in set(received)]
        left = [each for each in letters if stays(self, key, each.body)]
        self._set_inbox(before, [])
        first = [Posted(n, mail.message_id, seal(mail.event)) for n, mail in enumerate(carried, 1)]
        again = {each.message_id for each in first}
        rest = [each._replace(arrival=each.arrival + len(first)) for each in left if each.message_id not in again]
        self._set_inbox(self._world.numbers[key], [*first, *rest])
        for mail in carried:
            self.keep(key, mail.blobs)

    def _remember(self, key: Key, number: int, received: Sequence[str]) -> None:
        world, known = self._world, dict(self._world.received) if received else {}
        if received:
            world.received |= dict.fromkeys(((key, message_id) for message_id in received), number)
            self._undo.append(lambda: setattr(world, "received", known))

    # --- forks and rewinds ---

    def fork(self, branch: Branch) -> None:
        self.insert(start_of(branch), len(branch.events))
        self.change(self._world.rows[branch.key], state_position=state_of(branch))
        self._set_began(branch.key, (self._now_ms(), branch.origin))
        self._set_attributes(branch.key, attributes_of(recorded.event for recorded in branch.events))
        self._copy(branch)

    def rewind(self, branch: Branch) -> None:
        key, now_ms = branch.key, self._now_ms()
        row = self._world.rows[key]
        status: RunStatus = "abandoned" if is_open(row.status) else row.status
        before = self._begin_next(key, status, row.closed_at_ms or now_ms, (now_ms, branch.origin))
        self._replace_run(key, branch.run, branch.workflow, len(branch.events), state_of(branch))
        self._set_attributes(key, attributes_of(recorded.event for recorded in branch.events))
        self._copy(branch)
        self._move_letters(key, before, branch.received, branch.carried)
        self.close_updates(key, branch.instead_of)
        reopen_updates(self, branch)

    def begin_again(self, start: Start, position: int) -> None:
        world, key = self._world, start.key
        row = world.rows[key]
        self._begin_next(key, row.status, row.closed_at_ms or self._now_ms(), (self._now_ms(), ""))
        self._set_begun(start, position)
        updates = world.updates.pop(key, None)
        if updates is not None:
            self._undo.append(lambda: world.updates.update({key: updates}))
        received = world.received
        world.received = {each: number for each, number in received.items() if each[0] != key}
        self._undo.append(lambda: setattr(world, "received", received))

    def _copy(self, branch: Branch) -> None:
        for recorded in branch.events:
            version, at_ms, trace, usage, check, body = copied(recorded)
            header = (recorded.position, at_ms, recorded.session, trace, usage, version, check, body)
            self._log(branch.key, branch.run, header)
        self.keep(branch.key, branch.blobs)

    # --- retention ---

    def expired(self, namespace: str, before_ms: int, after: tuple[int, int] | None, limit: int) -> list[Row]:
        """A page of those that closed before that time, by when they did."""
        rows = [row for key, row in self._world.rows.items() if key.namespace == namespace]
        closed = [row for row in rows if row.closed_at_ms is not None and row.closed_at_ms < before_ms]
        return sorted((row for row in closed if after is None or self.closing(row) > after), key=self.closing)[:limit]

    def closing(self, row: Row) -> tuple[int, int]:
        """When it closed; its place among the others."""
        return row.closed_at_ms or 0, self._world.numbers[row.key]

    def is_needed(self, row: Row) -> bool:
        """Whether somebody still waits for it: its own messages, a person's answer, its parent."""
        world, key = self._world, row.key
        sends = any(letters and sender == key for (sender, _, _), letters in world.outbox.items())
        if sends or any(name[0] == key for name in world.unresolved):
            return True
        parent = ExecutionId(row.parent_id)
        found = world.rows.get(Key(shard_of(key.namespace, parent, world.shards), key.namespace, parent))
        if not row.parent_id or found is None or not is_open(found.status):
            return False
        letter = closed_message(key.execution, row.run)
        return any(each.message_id == letter for each in world.inboxes[world.numbers[found.key]])

    def events_of(self, row: Row) -> int:
        """How many it has, those of past runs included."""
        return row.position + sum(past.events for past in self._world.past.get(row.key, ()))

    def remove(self, row: Row) -> None:
        """All that belongs to it. Not undone: nothing after it fails."""
        world, key = self._world, row.key
        for number in (world.numbers.pop(key), *(past.n for past in world.past.pop(key, ()))):
            world.journals[number], world.inboxes[number], world.running[number] = [], [], {}
        del world.rows[key]
        for table in (world.dead, world.updates, world.attributes, world.began):
            table.pop(key, None)
        world.received = {each: number for each, number in world.received.items() if each[0] != key}
        for name in [name for name in world.asks if name[0] == key]:
            del world.asks[name]
        self._remove_blobs(key)
        self._leave_gaps(key)

    def past_runs(
        self, namespace: str, before_ms: int, after: tuple[int, int] | None, limit: int
    ) -> list[tuple[Key, RunRow]]:
        """A page of those that ended before that time, by when they did."""
        found = [(key, run) for key, runs in self._world.past.items() if key.namespace == namespace for run in runs]
        over = [each for each in found if self.ending(each[1]) < (before_ms, -1)]
        return sorted((each for each in over if after is None or self.ending(each[1]) > after), key=_by_end)[:limit]

    def ending(self, run: RunRow) -> tuple[int, int]:
        """When it ended; its place among the others."""
        return run.ended_at_ms or 0, run.n

    def is_run_needed(self, key: Key, run: RunRow) -> bool:
        """Whether it tells where it was copied from, or somebody still waits for it."""
        world, of = self._world, (key, run.run)
        sends = any(letters and (sender, name) == of for (sender, name, _), letters in world.outbox.items())
        return bool(run.origin) or sends or any((name[0], name[1]) == of for name in world.unresolved)

    def remove_run(self, key: Key, run: RunRow) -> None:
        """All that belongs to it. Not undone: nothing after it fails."""
        world = self._world
        world.past[key].remove(run)
        if not world.past[key]:
            del world.past[key]
        world.journals[run.n], world.inboxes[run.n], world.running[run.n] = [], [], {}
        world.received = {each: number for each, number in world.received.items() if number != run.n}
        for update in self._updates(key):
            if update.run == run.run and update.status != "accepted":
                del world.updates[key][update.update_id]
        feed = world.feeds[key.shard]
        feed[:] = [None if each is not None and each[:2] == (key, run.run) else each for each in feed]
        self._loosen_blobs(key)

    def _loosen_blobs(self, key: Key) -> None:
        """Those that no run refers to which stays, unless letters wait that may."""
        world = self._world
        numbers = [world.numbers[key], *(past.n for past in world.past.get(key, ()))]
        if any(world.outbox.values()) or world.dead.get(key) or world.inboxes[world.numbers[key]]:
            return
        for name, blob in list(world.blobs.items()):
            if name[0] == key and blob.number is not None and blob.number < min(numbers):
                self._set_blob(name, blob._replace(owned=False))

    def remove_strays(self, namespace: str, before_ms: int) -> None:
        """Dead letters that were sent to nobody."""
        world = self._world
        old = [name for name, at_ms in world.strays.items() if name[0].namespace == namespace and at_ms < before_ms]
        for key, message_id in old:
            del world.strays[key, message_id]
            world.dead[key] = [each for each in world.dead.get(key, []) if each.message_id != message_id]
            if not world.dead[key]:
                del world.dead[key]

    def _remove_blobs(self, key: Key) -> None:
        for name in [name for name in self._world.blobs if name[0] == key]:
            del self._world.blobs[name]

    def _leave_gaps(self, key: Key) -> None:
        """In the feed: its positions stay what they are."""
        feed = self._world.feeds[key.shard]
        feed[:] = [None if each is not None and each[0] == key else each for each in feed]

    # --- what was received before ---

    def was_received(self, key: Key, message_id: str) -> bool:
        return (key, message_id) in self._world.received


def _by_end(each: tuple[Key, RunRow]) -> tuple[int, int]:
    return each[1].ended_at_ms or 0, each[1].n
