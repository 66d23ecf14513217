"""Lists of executions through engine and client: filters, pages, and what is refused."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from tests.runtime.conftest import Lab, status

import perdure
from perdure import workflow


@workflow
async def waits(value: Any = None) -> Any:
    return await perdure.receive("go")


@workflow
async def starts() -> None:
    await perdure.start_child(waits, id="child", on_parent_close="abandon")


def ids(page: perdure.Page) -> list[str]:
    return [row.key.execution for row in page]


async def test_pages_follow_each_other_and_what_comes_meanwhile_moves_none(lab: Lab) -> None:
    async with lab.client() as client:
        for n in range(7):
            await client.start(waits, id=f"x{n}")
        page = await client.list(limit=3)
        await client.start(waits, id="late")
        found = ids(page)
        while page.next:
            page = await client.list(limit=3, cursor=page.next)
            found += ids(page)
        assert len(found) == 7
        assert sorted(found) == [f"x{n}" for n in range(7)]
        assert ids(await client.list(limit=1)) == ["late"]


async def test_executions_are_found_by_all_that_is_known_of_them(lab: Lab) -> None:
    moment = datetime(2027, 1, 31, 9, tzinfo=UTC)
    async with lab.engine(waits, starts) as engine:
        await engine.start(waits, id="a-1", attributes={"team": "search", "cents": 7, "due": moment, "hot": True})
        await engine.start(waits, id="a-2", attributes={"team": "search", "cents": 7.5, "tags": ["x", "y"]})
        await engine.start(waits, id="b-1", attributes={"team": "7"})
        await (await engine.start(starts, id="p")).result(timeout=30)
        await status(engine.handle("child"), "parked")

        async def found(**filters: Any) -> list[str]:
            return sorted(ids(await engine.list(**filters)))

        assert await found(where=[("team", "=", "search"), ("cents", ">", 7)]) == ["a-2"]
        assert await found(where=[("team", "=", 7)]) == []
        assert await found(where=[("due", "<=", moment)]) == ["a-1"]
        assert await found(where=[("hot", "=", True)]) == ["a-1"]
        assert await found(where=[("hot", "=", 1)]) == []
        assert await found(where=[("tags", "=", "y")]) == ["a-2"]
        assert await found(where=[("tags", "!=", "y")]) == []
        assert await found(prefix="a-") == ["a-1", "a-2"]
        assert await found(parent="p") == ["child"]
        assert await found(status=["completed"]) == ["p"]
        assert await found(workflow="waits", status=["parked"], prefix="b") == ["b-1"]
        now = datetime.now(UTC)
        assert await found(started_from=now - timedelta(hours=1), prefix="b") == ["b-1"]
        assert await found(started_before=now - timedelta(hours=1)) == []
        [child] = await engine.list(parent="p")
        assert child.parent_id == "p"


async def test_a_list_changes_with_what_a_workflow_says_of_itself(lab: Lab) -> None:
    @workflow(name="tells")
    async def tells() -> None:
        perdure.set_attributes(stage="review")
        await perdure.receive("go")
        perdure.set_attributes(stage=None)
        await perdure.receive("go")

    async with lab.engine(tells) as engine:
        handle = await engine.start(tells, id="x")
        await status(handle, "parked")
        assert ids(await engine.list(where=[("stage", "=", "review")])) == ["x"]
        await handle.signal("go")
        await status(handle, "parked")
        while await engine.list(where=[("stage", "=", "review")]):
            await status(handle, "parked")


HOSTILE = '"; DROP TABLE execution; --'


@pytest.mark.parametrize(
    "filters",
    [
        {"status": "failed"},
        {"status": ["lost"]},
        {"where": [(HOSTILE, "=", 1)]},
        {"where": [("a", "LIKE", "x%")]},
        {"where": [("a", "=", ["x", "y"])]},
        {"where": [("a", "=", None)]},
        {"where": [("a", "<", True)]},
        {"where": [("a", "=")]},
        {"where": "a=1"},
        {"where": [("a", "=", 1)] * 21},
        {"prefix": "\ud800"},
        {"workflow": "x" * 201},
        {"parent": 7},
        {"started_from": datetime(2027, 1, 1)},  # noqa: DTZ001 - the point of it
        {"limit": 0},
        {"limit": 1_001},
        {"limit": True},
        {"cursor": "!"},
        {"cursor": "kaE"},
        {"cursor": 7},
    ],
    ids=repr,
)
async def test_what_means_nothing_is_refused(lab: Lab, filters: dict[str, Any]) -> None:
    async with lab.client() as client:
        with pytest.raises(perdure.errors.InvalidOption):
            await client.list(**filters)


async def test_a_cursor_is_of_one_list(lab: Lab) -> None:
    async with lab.client() as client:
        for n in range(3):
            await client.start(waits, id=f"x{n}")
        page = await client.list(limit=1)
        with pytest.raises(perdure.errors.InvalidOption, match="this very list"):
            await client.list(limit=1, prefix="x", cursor=page.next)
        assert len(await client.list(limit=2, cursor=page.next)) == 2, "of any size"
        query, _, execution = msgspec.msgpack.decode(urlsafe_b64decode(page.next + "=" * (-len(page.next) % 4)))
        forged = urlsafe_b64encode(msgspec.msgpack.encode((query, 2**63, execution))).decode().rstrip("=")
        with pytest.raises(perdure.errors.InvalidOption, match="cursor"):
            await client.list(limit=1, cursor=forged)


async def test_text_from_outside_is_only_ever_text(lab: Lab) -> None:
    async with lab.client() as client:
        await client.start(waits, id="x", attributes={"a": HOSTILE})
        assert ids(await client.list(where=[("a", "=", HOSTILE)])) == ["x"]
        assert await client.list(prefix="%") == await client.list(workflow=HOSTILE) == []
        assert ids(await client.list()) == ["x"]
