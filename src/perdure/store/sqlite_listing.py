"""Lists of executions as SQL: which index leads to the newest of those that are asked for, and what else they must be.

Every statement is put together from parts in `queries.sql`; what users ask for is bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from perdure.store.protocol import OPEN_STATUSES
from perdure.store.queries import SQL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perdure.store.protocol import Condition, Filter, Status

Part: TypeAlias = tuple[str, tuple[Any, ...]]
"""The name of a query's part, and what is bound to it."""

CROWD = 20_000
_STATUSES = 8
_LAST = chr(0x10FFFF)  # no id holds it, and every character that one may hold sorts before it


def crowd(wanted: Filter) -> tuple[str, tuple[Any, ...]]:
    """A statement that counts whose ids have the prefix, up to `CROWD`."""
    return SQL["list_crowd"], (wanted.namespace, *_range(wanted.prefix), CROWD)


def statements(
    wanted: Filter, after: tuple[int, str] | None, limit: int, *, crowded: bool = False
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Statements that together find the newest `limit`; most lists need one, statuses one each.

    `crowded`: so many ids have the prefix that they are not sorted, but found among all, the newest first.
    """
    for begin, conditions in _ways(wanted, crowded=crowded):
        parts: list[Part] = [("list_columns", ()), begin, *conditions]
        if begin[0] == "list_equal":
            if after is not None:
                parts.append(("list_equal_after", (after[0], *after)))
            parts.append(("list_equal_end", (limit,)))
        else:
            if after is not None:
                parts.append(("list_after", after))
            parts.append(("list_end", (limit,)))
        yield " ".join(SQL[name] for name, _ in parts), tuple(value for _, bound in parts for value in bound)


def _ways(wanted: Filter, *, crowded: bool) -> Iterator[tuple[Part, list[Part]]]:
    """Beginnings, each with the conditions that it does not see to itself; the one that most likely leads to few."""
    namespace, rest = wanted.namespace, _conditions(wanted)
    equal = next((each for each in wanted.where if each.operator == "="), None)
    if equal is not None:
        rest.remove(_condition(equal))
        yield ("list_equal", (namespace, equal.name, equal.kind, equal.value)), rest
    elif wanted.parent:
        yield ("list_parent", (namespace, wanted.parent)), _without(rest, "list_if_parent")
    elif wanted.prefix and not crowded:
        yield ("list_prefix", (namespace, *_range(wanted.prefix))), _without(rest, "list_if_prefix")
    elif _is_worth(wanted):
        rest = _without(rest, "list_if_status")
        yield from ((begin, rest) for begin in _by_status(namespace, set(wanted.statuses)))
    elif wanted.workflow:
        yield ("list_workflow", (namespace, wanted.workflow)), _without(rest, "list_if_workflow")
    else:
        yield ("list_all", (namespace,)), rest


def _is_worth(wanted: Filter) -> bool:
    """Whether statuses lead to fewer than the workflow: most have completed."""
    return 0 < len(set(wanted.statuses)) < _STATUSES and not (wanted.workflow and "completed" in wanted.statuses)


def _by_status(namespace: str, statuses: set[Status]) -> Iterator[Part]:
    if statuses.issuperset(OPEN_STATUSES):
        yield "list_open", (namespace,)
        statuses = statuses.difference(OPEN_STATUSES)
    for status in sorted(statuses):
        yield (f"list_{status}", (namespace,)) if status in OPEN_STATUSES else ("list_ended", (namespace, status))


def _conditions(wanted: Filter) -> list[Part]:
    found: list[Part] = []
    if wanted.statuses:
        found.append(("list_if_status", (msgspec.json.encode(wanted.statuses).decode(),)))
    if wanted.workflow:
        found.append(("list_if_workflow", (wanted.workflow,)))
    if wanted.parent:
        found.append(("list_if_parent", (wanted.parent,)))
    if wanted.prefix:
        found.append(("list_if_prefix", _range(wanted.prefix)))
    if wanted.from_ms is not None:
        found.append(("list_if_from", (wanted.from_ms,)))
    if wanted.until_ms is not None:
        found.append(("list_if_until", (wanted.until_ms,)))
    return [*found, *map(_condition, wanted.where)]


def _condition(condition: Condition) -> Part:
    bound = (condition.name, condition.kind, condition.value)
    return f"list_if_{condition.operator}", bound * 2 if condition.operator == "!=" else bound


def _range(prefix: str) -> tuple[str, str]:
    return prefix, prefix + _LAST


def _without(parts: Sequence[Part], name: str) -> list[Part]:
    return [part for part in parts if part[0] != name]
