"""A shape whose code changes while it runs: before a deploy, after it, and the law of that.

The new code has patches in concurrent branches that share one, and in a loop that asks one in every round.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import perdure
from perdure.core import events as ev
from perdure.testing.ledger import Broken
from perdure.testing.world import act
from perdure.workflow.definitions import step, workflow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.testing.laws import Evidence

NAME = "renewed"
BRANCHES, LOOP = "checks first", "rounds are new"


@step(retry=perdure.Retry(attempts=4, delay=0.05, maximum=0.5))
async def build(tag: str, longest_ms: int = 60, fail: float = 0.1) -> int:
    """A step that takes a while, and may fail."""
    return await act(f"{tag}/{longest_ms}/{fail}", longest_ms, fail)


@workflow(name=NAME)
async def renewed_before(n: int) -> list[str]:
    """The code before the deploy."""

    async def branch(i: int) -> str:
        first = await build(f"b{i}", 80)
        await asyncio.sleep(0.3 * i)
        return f"old{await build(f'c{i}-{first}', 80)}"

    said = list(await asyncio.gather(*[branch(i) for i in range(n)]))
    for i in range(n):
        await asyncio.sleep(0.4)
        said.append(f"old{await build(f'l{i}', 80)}")
    return said


@workflow(name=NAME)
async def renewed(n: int) -> list[str]:
    """The code after it."""

    async def branch(i: int) -> str:
        new = perdure.patched(BRANCHES)
        if new:
            await build(f"check{i}", 40)
        first = await build(f"b{i}", 80)
        await asyncio.sleep(0.3 * i)
        return f"{'new' if new else 'old'}{await build(f'c{i}-{first}', 80)}"

    said = list(await asyncio.gather(*[branch(i) for i in range(n)]))
    for i in range(n):
        await asyncio.sleep(0.4)
        if perdure.patched(LOOP):
            said.append(f"new{sum(await asyncio.gather(build(f'm{i}', 60), build(f'n{i}', 60)))}")
        else:
            said.append(f"old{await build(f'l{i}', 80)}")
    return said


def a_change_is_taken_wholly(evidence: Evidence) -> None:
    """Branches that share a patch, and a loop's rounds, all go one way; the new one only where that is recorded."""
    for (key, _), journal in evidence.ledger.journals.items():
        events = [recorded.event for recorded in journal.events]
        started, last = events[0], events[-1]
        if not isinstance(started, ev.ExecutionStarted) or started.workflow != NAME:
            continue
        if isinstance(last, ev.ExecutionCompleted):
            _check(key, said_by(last), marks_of(events))


def marks_of(events: Iterable[ev.AnyEvent]) -> set[str]:
    """The changes that are recorded."""
    return {event.name for event in events if isinstance(event, ev.PatchMarked)}


def said_by(last: ev.ExecutionCompleted) -> list[str]:
    """What the workflow returned."""
    found: Any = renewed.result.decode(last.result, "the result")
    return list(found)


def _check(key: Any, said: list[str], marked: set[str]) -> None:
    half = len(said) // 2
    for name, part in ((BRANCHES, said[:half]), (LOOP, said[half:])):
        ways = {each[:3] for each in part}
        if len(ways) > 1:
            raise Broken("a change of code is taken wholly or not at all", f"{name}: {part}", key)
        if (ways == {"new"}) is not (name in marked):
            raise Broken("a change of code is taken wholly or not at all", f"{name}: {part}, marked: {marked}", key)
