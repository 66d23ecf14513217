"""An execution as the store holds it: read in one go, and what its row and running steps tell of earlier deaths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from perdure.core import events as ev
from perdure.core.errors import CorruptJournal, KeyMissing, PerdureError
from perdure.core.identity import Key
from perdure.store.protocol import OPEN_STATUSES, Letter, NewEvent, Row, Running, Store

LOAD_PAGE = 5_000
EVENT_BYTES = 400  # what an event takes in memory, without its result: roughly
ROWS_AT_ONCE = 50
INBOX_PAGE = 1_000
RECOVERIES_STALL = 4
ALONE = "(runs alone)"  # what the store is told, as of a step 0, before a suspect begins
SURVIVED = -1  # in place of the deaths before, once it did not kill its worker


class Loaded(NamedTuple):
    """An execution as read from the store in one go."""

    row: Row
    journal: list[ev.Recorded]
    letters: list[Letter]
    running: list[Running]


Reading: TypeAlias = Callable[[Store, Row], Loaded]


def read(store: Store, row: Row) -> Loaded:
    """An execution's journal, inbox and open steps, page by page."""
    journal: list[ev.Recorded] = []
    page: list[ev.Recorded] | None = None
    while page is None or len(page) == LOAD_PAGE:  # to its end: it may have grown since the row was read
        page = store.load(row.key, row.run, len(journal), LOAD_PAGE)
        journal.extend(page)
    for recorded in journal:
        if recorded.event.sealed is not None:
            raise KeyMissing(what=f"Event {recorded.position}", key=recorded.event.sealed.key_id)
    if len(journal) < row.position:
        raise CorruptJournal(detail=f"the row says {row.position} events, the journal holds {len(journal)}")
    return Loaded(row, journal, store.inbox(row.key, INBOX_PAGE), store.running(row.key))


def read_some(store: Store, rows: Sequence[Row], reading: Reading) -> list[Loaded | Exception]:
    """The first of these, or why they cannot be read: so many that their journals are one page together, or one."""
    found: list[Loaded | Exception] = []
    room = LOAD_PAGE
    for row in rows[:ROWS_AT_ONCE]:
        try:
            found.append(reading(store, row))
        except Exception as error:  # noqa: BLE001 - that one's, handed to whoever asked
            found.append(error)
        room -= row.position
        if room <= 0:
            break
    return found


class Receiver(Protocol):
    """Whose inbox is read."""

    key: Key
    run: str
    broken: PerdureError | None
    paused: bool
    ending: bool
    reach: int


def letters_for(store: Store, driver: Receiver) -> list[Letter]:
    """A page of its inbox; where its code cannot go on, or it is paused, of the requests in it alone.

    Those are found behind any number of other letters.
    """
    if driver.broken is not None:
        return requests_to_end(store, driver.key, driver.run)
    if driver.paused:
        return store.requests(driver.key, INBOX_PAGE)
    page = store.inbox(driver.key, driver.reach)
    if driver.ending and len(page) == driver.reach:
        known = {each.message_id for each in page}
        page += [each for each in store.requests(driver.key, INBOX_PAGE) if each.message_id not in known]
    return page


def requests_to_end(store: Store, key: Key, run: str) -> list[Letter]:
    """Waiting requests to terminate this run, or to begin something else in its place. Blocks."""
    letters = store.requests(key, INBOX_PAGE)
    ends = [each for each in letters if isinstance(each.event, ev.TerminateRequested | ev.ExecutionStarted)]
    return [each for each in ends if getattr(each.event, "run", "") != run]


def is_over(store: Store, key: Key) -> bool:
    """Whether nothing more comes of it unless somebody acts: it has closed, stalled, or is missing.

    What stalled and is asked to end, or to make room for another one, is about to change.
    """
    row = store.row(key)
    if row is None or row.status not in OPEN_STATUSES:
        return True
    return row.status == "stalled" and not requests_to_end(store, key, row.run)


def recorded_here(events: Sequence[NewEvent], expected: int, fingerprint: str) -> list[ev.Recorded]:
    """Events that were committed by this worker, as they are fed: from position `expected` on."""
    return [
        ev.Recorded(position, new.at_ms, new.event, 0, fingerprint, new.trace_parent, new.usage)
        for position, new in enumerate(events, expected)
    ]


def parent_of(row: Row) -> ev.Parent | None:
    """Who started it, where its journal cannot be read."""
    if not row.parent:
        return None
    execution, run, seq = row.parent.rsplit("/", 2)
    return ev.Parent(execution, run, int(seq))


def noted_alone(row: Row, deaths: int) -> Running:
    """What the store is told before an execution runs alone: after how many deaths; `SURVIVED` when that is over."""
    return Running(row.key, row.run, 0, ALONE, deaths, row.created_at_ms)


def died_alone(loaded: Loaded) -> bool:
    """Whether its worker died again when it ran alone: only then is it the cause."""
    deaths = loaded.row.recoveries
    return deaths >= RECOVERIES_STALL and any(
        each.seq == 0 and each.attempt == deaths - 1 and each.run == loaded.row.run for each in loaded.running
    )


def size_of(event: ev.AnyEvent) -> int:
    """What it takes in memory, in bytes: roughly."""
    result = getattr(event, "result", None)
    return EVENT_BYTES + (len(result.data) if result is not None else 0)
