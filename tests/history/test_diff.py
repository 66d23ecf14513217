"""`client.diff`: two journals side by side, where they part and what follows; however long they are."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import pytest
from tests.runtime.conftest import Lab, status

import perdure
from perdure import step, workflow
from perdure.core import events as ev
from perdure.core.errors import ExecutionNotFound
from perdure.runtime.differing import PAGE, WINDOW, Pair, pairs

NOTHING = ev.Payload(b"\xc0")


@step
async def look(word: str) -> str:
    return word.upper()


@step(retry=perdure.Retry(attempts=1))
async def judge(word: str) -> int:
    if word == "BAD":
        raise ValueError("no good")
    return len(word)


@workflow
async def research(word: str) -> int:
    found = await look(word)
    await look("more")
    return await judge(found)


async def told(found: Any) -> list[tuple[str, str | None, str | None]]:
    """Relation, and the position and kind of each side."""

    def name(each: ev.Recorded | None) -> str | None:
        return None if each is None else f"{each.position} {type(each.event).__name__}"

    return [(pair.relation, name(pair.left), name(pair.right)) async for pair in found]


async def test_a_fork_and_its_parent_part_where_the_replaced_result_stands(lab: Lab) -> None:
    async with lab.engine(research) as engine:
        await (await engine.start(research, "one", id="a")).result()
        fork = await engine.fork("a", new_id="b", replace={2: "THREE"})
        await fork.result()
        assert await told(engine.diff("a", "b")) == [
            ("same", "0 ExecutionStarted", "0 ExecutionStarted"),
            ("differs", "2 StepCompleted", "2 StepCompleted"),
            ("same", "3 StepCompleted", "4 StepCompleted"),
            ("differs", "4 StepCompleted", "5 StepCompleted"),
            ("differs", "5 ExecutionCompleted", "6 ExecutionCompleted"),
        ]
        bad = await engine.fork("a", new_id="c", replace={2: "BAD"})
        with pytest.raises(perdure.ExecutionFailed):
            await bad.result()
        assert (await told(engine.diff("a", "c")))[-2:] == [
            ("differs", "4 StepCompleted", "5 StepFailed"),
            ("differs", "5 ExecutionCompleted", "6 ExecutionFailed"),
        ]


async def test_two_executions_that_did_the_same_say_the_same(lab: Lab) -> None:
    async with lab.engine(research) as engine, lab.client() as client:
        for name in ("a", "b"):
            await (await engine.start(research, "one", id=name)).result()
        assert {pair[0] for pair in await told(client.diff("a", "b"))} == {"same"}


async def test_two_runs_of_one(lab: Lab) -> None:
    async with lab.engine(research) as engine:
        handle = await engine.start(research, "one", id="a")
        await handle.result()
        old = (await handle.describe()).run
        await handle.rewind(replace={2: "other"})
        await handle.result()
        relations = [pair[0] for pair in await told(engine.diff("a", "a", left_run=old))]
        assert relations == ["same", "differs", "same", "differs", "differs"]
        with pytest.raises(ExecutionNotFound, match="nonsense"):
            await told(engine.diff("a", "a", left_run="nonsense"))
        with pytest.raises(ExecutionNotFound):
            await told(engine.diff("a", "nobody"))


async def test_ids_that_follow_from_a_run_are_no_difference_and_chosen_ones_are(lab: Lab) -> None:
    @workflow
    async def parent(child: str | None) -> int:
        handle = await perdure.start_child(research, "one", id=child)
        await perdure.external(handle.id).signal("hello")
        return await handle.result()  # type: ignore[no-any-return]

    @workflow(name="parent")
    async def same_input(_: str | None) -> None: ...

    async with lab.engine(parent, research) as engine:
        for name, child in (("a", None), ("b", None), ("c", "chosen")):
            await status(await engine.start(parent, child, id=name), "completed", "failed")
        children = [pair for pair in await told(engine.diff("a", "b")) if "Child" in str(pair)]
        assert [pair[0] for pair in children] == ["same", "same"]
        assert ("differs", "2 ChildInitiated", "2 ChildInitiated") in await told(engine.diff("a", "c"))


# --- alignment, on journals that are made up ---


class Journals:
    """A store, as far as it is read."""

    def __init__(self, **journals: list[ev.AnyEvent]) -> None:
        self.journals = journals
        self.most = 0

    def load(self, key: Any, run: str, start: int, limit: int) -> list[ev.Recorded]:  # noqa: ARG002 - the port's
        self.most = max(self.most, limit)
        page = self.journals[run][start : start + limit]
        return [ev.Recorded(position, 0, event) for position, event in enumerate(page, start)]


async def read(call: Any) -> Any:
    return call()


def completed(*names: str) -> list[ev.AnyEvent]:
    told = [(name.rstrip("!"), ev.Payload(name.encode())) for name in names]
    return [ev.StepCompleted(number, name, result=result) for number, (name, result) in enumerate(told, 1)]


async def compared(left: list[ev.AnyEvent], right: list[ev.AnyEvent]) -> list[Pair]:
    store: Any = Journals(left=left, right=right)
    key: Any = None
    return [pair async for pair in pairs(read, store, (key, "left"), (key, "right"))]


def signs(found: list[Pair]) -> str:
    return "".join({"same": "=", "differs": "#", "left": "<", "right": ">"}[pair.relation] for pair in found)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("abc", "abc", "==="),
        ("abc", "ac", "=<="),
        ("ac", "abc", "=>="),
        ("abcd", "axxd", "=<<>>="),
        ("ab", "abcd", "==>>"),
        ("abcd", "", "<<<<"),
        ("", "", ""),
        ("abx", "cdx", "<<>>="),
    ],
)
async def test_what_one_lacks_stands_alone(left: str, right: str, expected: str) -> None:
    assert signs(await compared(completed(*left), completed(*right))) == expected


async def test_another_result_of_the_same_step_differs() -> None:
    assert signs(await compared(completed("a", "b", "c"), completed("a", "b!", "c"))) == "=#="


async def test_every_event_is_told_once_and_in_order_whatever_the_journals() -> None:
    rng = random.Random(7)
    for _ in range(300):
        left, right = ([rng.choice("abcdefgh") for _ in range(rng.randint(0, 3 * WINDOW))] for _ in range(2))
        found = await compared(completed(*left), completed(*right))
        assert [pair.left.position for pair in found if pair.left] == list(range(len(left)))
        assert [pair.right.position for pair in found if pair.right] == list(range(len(right)))
        for pair in found:
            sides = [pair.left, pair.right]
            if pair.relation in ("same", "differs"):
                assert all(sides)
                names = {each.event.name for each in sides if each}  # type: ignore[union-attr]
                assert len(names) == 1


async def test_a_long_journal_is_never_in_memory_as_a_whole() -> None:
    number = 20_000

    class Long(Journals):
        def load(self, key: Any, run: str, start: int, limit: int) -> list[ev.Recorded]:
            super().load(key, "page", 0, limit)
            count = max(0, min(limit, number - start))
            return [
                ev.Recorded(
                    at, 0, ev.StepCompleted(at + 1, "s", result=ev.Payload(b"%s%d" % (run.encode(), at) + bytes(2_000)))
                )
                for at in range(start, start + count)
            ]

    store: Any = Long(page=[])
    key: Any = None
    tracemalloc.start()
    try:
        total = 0
        async for pair in pairs(read, store, (key, "left"), (key, "right")):
            assert pair.relation == "differs"
            total += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (total, store.most) == (number, PAGE)
    assert peak < 10 * 2 * PAGE * 2_500, "some pages, and not 80 MB of journals"
