"""`perdure update`, `query` and `state` beside a real worker, after it has died, and without one."""

from __future__ import annotations

import signal

import pytest
from tests.cli.conftest import Cli, Project, Spawn, until

from perdure.cli.options import Exit

CART = """
import asyncio
from pathlib import Path
import perdure
from perdure import step, workflow

@step
async def pack(item: str) -> str:
    with Path("packed.txt").open("a") as file:
        print(item, file=file)
    while item == "slow" and not Path("go").exists():
        await asyncio.sleep(0.01)
    if item == "bad":
        raise ValueError("nothing like that")
    return item.upper()

@workflow
class Cart:
    def __init__(self) -> None:
        self.items: list[str] = []

    async def run(self, limit: int) -> list[str]:
        self.limit = limit
        await perdure.receive("pay")
        return self.items

    def check(self, item: str, times: int = 1) -> None:
        if len(self.items) + times > self.limit:
            raise ValueError(f"no room for {item}")

    @perdure.on_update(validator=check)
    async def add(self, item: str, times: int = 1) -> int:
        self.items += [await pack(item)] * times
        perdure.publish({"items": len(self.items)})
        return len(self.items)

    @perdure.on_query
    def total(self, price: int = 1) -> int:
        return price * len(self.items)

    @perdure.on_query
    def broken(self) -> int:
        raise KeyError("total")
"""


@pytest.fixture
def cart(project: Project, worker: Spawn, spawn: Spawn) -> Project:
    """Execution c1, with a worker that runs it."""
    project.write("cart.py", CART)
    worker("cart.py")
    spawn("run", "cart.py:Cart", "--input", "4", "--id", "c1")
    until(lambda: (row := project.row("c1")) is not None and row.status == "parked", "the cart to wait")
    return project


def test_updates_queries_and_state_from_the_command_line(cart: Project, cli: Cli) -> None:
    assert cli("state", "c1").out == "null\n"
    assert "c1 has published nothing." in cli("state", "c1").err
    assert (told := cli("update", "c1", "add", '"apple"')).code == 0
    assert told.out == "1\n"
    asked = ("update", "c1", "add", '"pear"', "2", "--update-id", "u-1")
    assert cli(*asked).out == cli(*asked).out == "3\n"
    assert cli(*asked, "--json").json() == {"id": "c1", "update": "add", "update_id": "u-1", "result": 3}
    assert (cart.path / "packed.txt").read_text("utf-8") == "apple\npear\n"
    assert cli("query", "c1", "total", "5").out == "15\n"
    assert cli("query", "c1", "total", "--json").json() == {"id": "c1", "query": "total", "answer": 3}
    assert cli("state", "c1").out == '{"items": 3}\n'
    assert cli("state", "c1", "--json").json() == {"id": "c1", "published": True, "state": {"items": 3}}
    (cart.path / "item.json").write_text('"from a file"', "utf-8")
    assert cli("update", "c1", "add", "@item.json").out == "4\n"


def test_what_is_refused_or_fails_has_its_message_and_exit_code(cart: Project, cli: Cli) -> None:
    told = cli("update", "c1", "add", '"apple"', "9")
    assert told.code == Exit.REFUSED
    assert "Update 'add' of execution 'c1' was rejected: ValueError: no room for apple" in told.err
    assert cli("update", "c1", "add", '"bad"').code == Exit.FAILED
    assert cli("update", "c1", "sub").code == Exit.REFUSED
    assert cli("update", "c1", "add", "apple").code == Exit.USAGE
    assert cli("update", "c1", "add", "7").code == Exit.REFUSED
    assert cli("update", "none", "add").code == Exit.NOT_FOUND
    assert cli("query", "c1", "broken").code == Exit.FAILED
    assert "it has: broken, total" in (told := cli("query", "c1", "sum")).err
    assert told.code == Exit.USAGE
    assert cli("query", "none", "total").code == Exit.NOT_FOUND
    assert cli("state", "none").code == Exit.NOT_FOUND
    assert cli("update", "c1", "add", '"slow"', "--timeout", "0.2", "--update-id", "u-2").code == Exit.NO_ANSWER
    (cart.path / "go").touch()
    assert cli("update", "c1", "add", '"slow"', "--update-id", "u-2").out == "1\n"
    assert cli("signal", "c1", "pay").code == 0
    until(lambda: (row := cart.row("c1")) is not None and row.status == "completed", "the end")
    assert cli("update", "c1", "add", '"late"').code == Exit.REFUSED
    assert cli("query", "c1", "total").out == "1\n"


def test_without_a_worker_state_is_read_an_update_waits_and_a_query_is_told_so(
    project: Project, worker: Spawn, spawn: Spawn, cli: Cli
) -> None:
    project.write("cart.py", CART)
    first = worker("cart.py")
    spawn("run", "cart.py:Cart", "--input", "4", "--id", "c1")
    until(lambda: (row := project.row("c1")) is not None and row.status == "parked", "the cart to wait")
    assert cli("update", "c1", "add", '"apple"').out == "1\n"
    first.kill(signal.SIGKILL)
    first.end()
    told = cli("query", "c1", "total")
    assert told.code == Exit.NO_ANSWER
    assert "perdure state c1" in told.err
    assert cli("state", "c1").out == '{"items": 1}\n'
    waiting = spawn("update", "c1", "add", '"pear"')
    waiting.until_it_says("No worker runs on this store: it is kept until one does.")
    worker("cart.py")
    told = waiting.end()
    assert (told.code, told.out) == (0, "2\n")
    shown = spawn("show", "c1").end().out
    assert "update add" in shown
    assert 'state     {"items": 2}' in shown
