"""The law of clients: what one of them sent comes in the order in which it was sent, whatever runs came and went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from perdure.core import events as ev
from perdure.testing.ledger import Acknowledged, Broken, Ledger

if TYPE_CHECKING:
    from perdure.core.identity import Key
    from perdure.testing.laws import Evidence

LAW = "order per sender"
ALL = 1_000_000

Places: TypeAlias = Mapping[str, int]
"""By message, where it stands first."""


class _Receiver(NamedTuple):
    """What an execution came to."""

    journals: Sequence[Places]  # of all its runs
    current: Places  # of the run that it has now, and of those that this one continued
    undone: Sequence[tuple[int, int]]  # ends that a rewind has undone: when they were, and when that was
    dead: frozenset[str]  # dead letters


def order_per_client(evidence: Evidence, chains: Mapping[str, Sequence[ev.Recorded]]) -> None:
    """What a client sent once it had been told that another message was stored comes after that one.

    In every journal, also those of runs that are over or were replaced: what a run gives back to the next one keeps its
    order. And none is missing before one that the current run, or one that it continued, received: but for a dead
    letter that an end left behind, where the other was acknowledged when a rewind had undone that end.
    """
    for (client, key), sent in _by_pair(evidence.ledger).items():
        receiver = _receiver(evidence, key, chains[key.execution])
        for first, second in _one_after_the_other(sent):
            one, other = first.mail.message_id, second.mail.message_id
            told = f"{client} to {key.execution}: {other[:6]} before {one[:6]}"
            if any(places.get(one, 0) > places.get(other, ALL) for places in receiver.journals):
                raise Broken(LAW, told, key)
            if other in receiver.current and one not in receiver.current and not _was_left(receiver, first, second):
                raise Broken(LAW, f"{told}, which is missing", key)


def _by_pair(ledger: Ledger) -> Mapping[tuple[str, Key], Sequence[Acknowledged]]:
    found: dict[tuple[str, Key], list[Acknowledged]] = defaultdict(list)
    for each in ledger.acknowledged:
        if isinstance(each.mail.event, ev.SignalReceived) and not each.mail.receiver_run:  # answers are for one run
            found[each.client, each.mail.receiver].append(each)
    return found


def _one_after_the_other(sent: Sequence[Acknowledged]) -> Iterator[tuple[Acknowledged, Acknowledged]]:
    return ((one, other) for one in sent for other in sent if one.acknowledged < other.sent)


def _receiver(evidence: Evidence, key: Key, chain: Sequence[ev.Recorded]) -> _Receiver:
    journals = [journal for journal in evidence.ledger.journals.values() if journal.key == key]
    return _Receiver(
        [_places(journal.events) for journal in journals],
        _places(chain),
        [(journal.over, journal.left) for journal in journals if 0 < journal.over < journal.left],
        frozenset(letter.message_id for letter in evidence.store.dead_letters(key, ALL)),
    )


def _places(events: Iterable[ev.Recorded]) -> Places:
    places: dict[str, int] = {}
    for place, recorded in enumerate(events):
        if isinstance(recorded.event, ev.SignalReceived):
            places.setdefault(recorded.event.message_id, place)
    return places


def _was_left(receiver: _Receiver, first: Acknowledged, second: Acknowledged) -> bool:
    """Whether an end left the first one behind, before a rewind undid it and the second one came."""
    between = any(first.sent < over and left < second.acknowledged for over, left in receiver.undone)
    return between and first.mail.message_id in receiver.dead
