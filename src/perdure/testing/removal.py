"""The law of retention: everything that has ended can go, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

from perdure.core.identity import DEFAULT_NAMESPACE, Key
from perdure.store.memory import MemoryStore
from perdure.store.memory_tables import World
from perdure.testing.ledger import Broken

FOR_EVER_MS = 2**62
LAW = "nothing is left of what is removed"


def nothing_is_left_of_what_is_removed(store: MemoryStore) -> None:
    """Removes it: the last thing that is done to a store. What nobody knows, and those whose it is, may stay."""
    world = store._world  # noqa: SLF001 - what is left shows there alone
    open_before = {key: list(world.journals[number]) for key, number in world.numbers.items()}
    store.collect(DEFAULT_NAMESPACE, FOR_EVER_MS, None, sum(map(len, world.past.values())) + 1, runs=True)
    for key, number in world.numbers.items():
        if world.journals[number] != open_before[key]:
            raise Broken("the current run stays whole", "its journal is not what it was", key)
    store.collect(DEFAULT_NAMESPACE, FOR_EVER_MS, None, len(world.rows) + 1)
    kept = {name[0] for name in world.unresolved}
    for key in world.rows.keys() - kept:
        raise Broken(LAW, "it has closed, and nobody waits for it; it stays", key)
    for what, left in (*_by_number(world), *_by_key(world)):
        if left:
            raise Broken(LAW, f"{what} of {', '.join(sorted(map(str, left)))}", None)


def _by_number(world: World) -> Iterator[tuple[str, set[Any]]]:
    """What belongs to runs that are not there."""
    numbers = {*world.numbers.values(), *(past.n for runs in world.past.values() for past in runs)}
    tables: dict[str, Mapping[int, Sized]] = {"events": world.journals, "letters": world.inboxes}
    for what, table in (tables | {"running steps": world.running}).items():
        yield what, {number for number, rows in table.items() if rows} - numbers


def _by_key(world: World) -> Iterator[tuple[str, set[Any]]]:
    """What belongs to executions that are not there."""
    tables: dict[str, Iterable[Key]] = {
        "dead letters": world.dead,
        "updates": world.updates,
        "attributes": world.attributes,
        "past runs": world.past,
        "origins": world.began,
        "received messages": (key for key, _ in world.received),
        "questions": (name[0] for name in world.asks),
        "blobs": (name[0] for name, blob in world.blobs.items() if blob.owned),
    }
    for what, keys in tables.items():
        yield what, set(keys) - world.rows.keys()
