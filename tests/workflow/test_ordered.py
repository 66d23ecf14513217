"""The ordered set behaves as `set` does in everything, and iterates in the order in which it was filled."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.workflow.harness import drive

from perdure.workflow import ordered
from perdure.workflow.definitions import workflow
from perdure.workflow.ordered import OrderedSet

ITEMS = st.integers(0, 12)
SETS = st.lists(ITEMS).map(set) | st.lists(ITEMS).map(OrderedSet) | st.lists(ITEMS).map(frozenset)


class LikeASet(RuleBasedStateMachine):
    """Every operation in parallel on a set, an ordered set, and a list that knows the order."""

    def __init__(self) -> None:
        super().__init__()
        self.ours: Any = OrderedSet()
        self.theirs: set[int] = set()
        self.order: list[int] = []

    def _follow(self, added: Any = ()) -> None:
        kept = [item for item in self.order if item in self.theirs]
        self.order = list(dict.fromkeys([*kept, *(item for item in added if item in self.theirs)]))

    @rule(item=ITEMS)
    def add(self, item: int) -> None:
        self.ours.add(item)
        self.theirs.add(item)
        self._follow([item])

    @rule(item=ITEMS)
    def discard(self, item: int) -> None:
        self.ours.discard(item)
        self.theirs.discard(item)
        self._follow()

    @rule(item=ITEMS)
    def remove(self, item: int) -> None:
        if item in self.theirs:
            self.ours.remove(item)
            self.theirs.remove(item)
        else:
            with pytest.raises(KeyError):
                self.ours.remove(item)
        self._follow()

    @rule()
    def pop_the_first(self) -> None:
        if self.theirs:
            item = self.ours.pop()
            assert item == self.order[0]
            self.theirs.remove(item)
        else:
            with pytest.raises(KeyError):
                self.ours.pop()
        self._follow()

    @rule()
    def clear(self) -> None:
        self.ours.clear()
        self.theirs.clear()
        self._follow()

    @rule(others=st.lists(st.lists(ITEMS), max_size=3))
    def update_with_any_iterables(self, others: list[list[int]]) -> None:
        self.ours.update(*map(iter, others))
        self.theirs.update(*others)
        self._follow([item for other in others for item in other])

    @rule(
        name=st.sampled_from(["difference_update", "intersection_update"]),
        others=st.lists(st.lists(ITEMS), max_size=3),
    )
    def shrink(self, name: str, others: list[list[int]]) -> None:
        getattr(self.ours, name)(*map(iter, others))
        getattr(self.theirs, name)(*others)
        self._follow()

    @rule(other=st.lists(ITEMS))
    def toggle(self, other: list[int]) -> None:
        self.ours.symmetric_difference_update(iter(other))
        self.theirs.symmetric_difference_update(other)
        self._follow(other)

    @rule(other=SETS, sign=st.sampled_from(["|", "&", "-", "^"]))
    def operate_in_place(self, other: Any, sign: str) -> None:
        before = self.ours
        match sign:
            case "|":
                self.ours |= other
                self.theirs |= other
            case "&":
                self.ours &= other
                self.theirs &= other
            case "-":
                self.ours -= other
                self.theirs -= other
            case "^":
                self.ours ^= other
                self.theirs ^= other
        assert self.ours is before
        self._follow(other)

    @invariant()
    def they_agree(self) -> None:
        assert self.ours == self.theirs
        assert list(self.ours) == self.order
        assert len(self.ours) == len(self.order)
        assert all(item in self.ours for item in self.order)


LikeASet.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
TestLikeASet = LikeASet.TestCase


@given(st.lists(ITEMS), SETS)
def test_operators_and_methods_make_new_sets_in_order(items: list[int], other: Any) -> None:
    ours, theirs = OrderedSet(items), set(items)
    before = list(ours)
    for found, expected in (
        (ours | other, theirs | other),
        (ours & other, theirs & other),
        (ours - other, theirs - other),
        (ours ^ other, theirs ^ other),
        (other | ours, other | theirs),
        (other & ours, other & theirs),
        (other - ours, other - theirs),
        (other ^ ours, other ^ theirs),
        (ours.union(other, [99]), theirs.union(other, [99])),
        (ours.intersection(other), theirs.intersection(other)),
        (ours.difference(other, [3]), theirs.difference(other, [3])),
        (ours.symmetric_difference(other), theirs.symmetric_difference(other)),
    ):
        assert type(found) in {OrderedSet, frozenset}  # frozen, where such a one stands on the left
        assert found == expected
        assert set(found) == expected
    assert list(ours) == before
    kept = [item for item in before if item not in other]
    assert list(ours - other) == kept
    assert list(ours | other)[: len(before)] == before


@given(st.lists(ITEMS), SETS)
def test_comparisons_are_those_of_sets(items: list[int], other: Any) -> None:
    ours, theirs = OrderedSet(items), set(items)
    assert (ours == other, ours <= other, ours < other) == (theirs == other, theirs <= other, theirs < other)
    assert (ours.issubset(other), ours.isdisjoint(other)) == (theirs.issubset(other), theirs.isdisjoint(other))


def test_what_is_no_set_is_refused_by_operators() -> None:
    with pytest.raises(TypeError):
        _ = OrderedSet([1]) | [2]  # type: ignore[operator]
    with pytest.raises(TypeError):
        _ = [2] - OrderedSet([1])  # type: ignore[operator]
    ours = OrderedSet([1])
    with pytest.raises(TypeError):
        ours |= [2]  # type: ignore[arg-type]


def test_copies_keep_the_order() -> None:
    ours = OrderedSet("hello")
    for other in (ours.copy(), copy.copy(ours), copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):  # noqa: S301 - our own
        assert type(other) is OrderedSet
        assert list(other) == list("helo")
        assert other is not ours
    assert repr(ours) == "{'h', 'e', 'l', 'o'}"
    assert repr(OrderedSet()) == "set()"


def test_outside_workflows_asyncio_is_as_it_was() -> None:
    """The replaced functions hand over to the originals: same results, same types, same errors."""
    ordered.install()

    async def main() -> None:
        tasks = {asyncio.create_task(asyncio.sleep(0, n)) for n in range(3)}
        assert tasks <= asyncio.all_tasks()
        assert asyncio.all_tasks(asyncio.get_running_loop()) == asyncio.all_tasks()
        done, pending = await asyncio.wait(tasks)
        assert type(done) is set
        assert (len(done), len(pending)) == (3, 0)
        assert sorted([await each for each in asyncio.as_completed({asyncio.sleep(0, 1), asyncio.sleep(0, 2)})]) == [
            1,
            2,
        ]
        gathered = asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2))
        assert {gathered: "x"}[gathered] == "x"
        assert await gathered == [1, 2]

    asyncio.run(main())


@pytest.mark.parametrize("name", ["wait", "as_completed"])
def test_wrong_arguments_are_refused_as_asyncio_does(name: str) -> None:
    """The same exception types as the originals."""

    @workflow
    async def wrong(name: str) -> list[str]:
        found = []
        coro = asyncio.sleep(0)
        task = asyncio.create_task(asyncio.sleep(0))
        asks: list[Any] = [coro, task]
        if name == "wait":
            asks += [[], [coro]]
        for ask in asks:
            try:
                result = getattr(asyncio, name)(ask)
                if asyncio.iscoroutine(result):
                    await result
            except (TypeError, ValueError) as error:
                found.append(type(error).__name__)
        if name == "wait":
            try:
                await asyncio.wait([task], return_when="SOMETIME")
            except ValueError as error:
                found.append(str(error))
        coro.close()
        return found

    expected = ["TypeError", "TypeError"]
    if name == "wait":
        expected += ["ValueError", "TypeError", "Invalid return_when value: SOMETIME"]
    assert drive(wrong, name).value == expected


def test_as_completed_of_nothing_is_empty_both_ways() -> None:
    @workflow
    async def nothing() -> list[Any]:
        return [*asyncio.as_completed([], timeout=5), *[each async for each in asyncio.as_completed([])]]  # type: ignore[attr-defined]

    run = drive(nothing)
    assert run.value == []
    assert len(run.issued) == 1


def test_as_completed_takes_each_awaitable_once() -> None:
    """Duplicates count once, and a callback that comes late finds nothing to do."""

    @workflow
    async def twice() -> list[Any]:
        task = asyncio.create_task(asyncio.sleep(1, "slept"))
        return [await each for each in asyncio.as_completed([task, task])]

    assert drive(twice).value == ["slept"]


def test_wait_with_enough_done_already_does_not_wait() -> None:
    @workflow
    async def ready() -> list[list[int]]:
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(3)]
        futures[1].set_result(1)
        found = []
        for return_when in (asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION):
            if return_when == asyncio.FIRST_EXCEPTION:
                futures[2].set_exception(ValueError())
            done, pending = await asyncio.wait(futures, return_when=return_when)
            found.append([len(done), len(pending)])
        futures[0].cancel()
        futures[2].exception()
        done, pending = await asyncio.wait(futures)
        return [*found, [len(done), len(pending)]]

    run = drive(ready)
    assert run.value == [[1, 2], [2, 1], [3, 0]]
    assert len(run.issued) == 1
