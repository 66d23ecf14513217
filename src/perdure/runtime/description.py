"""An execution as people want to see it: its row, and what it was started with beside its input."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.core import events as ev
from perdure.core.errors import CorruptJournal, JournalFromTheFuture, PerdureError
from perdure.core.identity import Key
from perdure.store.protocol import Row, Store
from perdure.workflow.attributes import AttributeValue, Moment, decode_attributes, moment
from perdure.workflow.values import codec_for, render

RUNS = 100


class Origin(msgspec.Struct, frozen=True):
    """What a fork or a rewind was copied from."""

    execution: str
    run: str
    at: int
    """The number of the first event that was not copied."""


class Description(Row, frozen=True):
    """A row, and more of what is known of an execution."""

    memo: dict[str, Any] = msgspec.field(default_factory=dict)
    attributes: dict[str, AttributeValue] = msgspec.field(default_factory=dict)
    start_at: Moment | None = None
    """It was not to begin before."""
    deadline: Moment | None = None
    """It is cancelled then."""
    origin: Origin | None = None
    """What its run began as a copy of; of the last one that did, if it has continued as new since."""


def describe(store: Store, row: Row) -> Description:
    """Read what the row does not tell, as far as the journal can be read. Blocks."""
    fields = {name: getattr(row, name) for name in row.__struct_fields__}
    fields["origin"] = origin_of(store, row.key)
    fields["attributes"] = decode_attributes(store.attributes(row.key))
    try:
        started = started_of(store, row)
    except (CorruptJournal, JournalFromTheFuture):
        started = None
    if started is None:
        return Description(**fields)
    return Description(
        **fields,
        memo={name: _plain(name, payload) for name, payload in started.memo.items()},
        start_at=moment(started.start_at_ms),
        deadline=moment(started.deadline_ms),
    )


def origin_of(store: Store, key: Key) -> Origin | None:
    """Where the newest of its last runs comes from that is a copy. Blocks."""
    origin = next((run.origin for run in store.runs(key, None, RUNS) if run.origin), "")
    if not origin:
        return None
    execution, run, at = origin.rsplit("/", 2)
    return Origin(execution, run, int(at))


def started_of(store: Store, row: Row) -> ev.ExecutionStarted | None:
    """How its current run began; before its owner has journaled that, it waits in the inbox."""
    first = [recorded.event for recorded in store.load(row.key, row.run, 0, 1)]
    first += [] if first else [letter.event for letter in store.inbox(row.key, 1)]
    return first[0] if first and isinstance(first[0], ev.ExecutionStarted) else None


def _plain(name: str, payload: ev.Payload) -> Any:
    """The value, or what can be said of one that cannot be read here."""
    try:
        return codec_for(Any, f"memo {name!r}").decode(payload, f"memo {name!r}")
    except PerdureError:
        return render(payload)
