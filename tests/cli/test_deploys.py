"""New code under running executions: module files that are replaced, and a real worker killed between them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from tests.cli.conftest import Cli, Project, Spawn, until

COMMON = """
import asyncio
from pathlib import Path
import perdure
from perdure import step, workflow

@step
async def say(word: str) -> str:
    with Path("ledger.txt").open("a") as ledger:
        print(perdure.current_step().execution, word, file=ledger)
    return word
"""

OLD = (
    COMMON
    + """
@workflow
async def line() -> list[str]:
    said = [await say("a")]
    await perdure.receive("go")
    return [*said, await say("b")]

@workflow
async def loop(times: int) -> list[str]:
    said = []
    for i in range(times):
        await perdure.receive("go")
        said.append(await say(f"old{i}"))
    return said

@workflow
async def branches() -> list[str]:
    async def one(name: str) -> str:
        await perdure.receive(name)
        return await say(f"{name} old")
    return await asyncio.gather(one("x"), one("y"))

@workflow(version="1")
async def versioned() -> list[str]:
    said = [await say("a")]
    await perdure.receive("go")
    return [*said, await say(perdure.workflow_version())]
"""
)

NEW = (
    COMMON
    + """
@workflow
async def line() -> list[str]:
    said = [await say("first")] if perdure.patched("first things") else []
    said.append(await say("a"))
    await perdure.receive("go")
    return [*said, await say("b")]

@workflow
async def loop(times: int) -> list[str]:
    said = []
    for i in range(times):
        await perdure.receive("go")
        if perdure.patched("greets"):
            said.append(await say(f"hello{i}"))
        else:
            said.append(await say(f"old{i}"))
    return said

@workflow
async def branches() -> list[str]:
    async def one(name: str) -> str:
        await perdure.receive(name)
        if not perdure.patched(f"loud {name}"):
            return await say(f"{name} old")
        await say(f"{name} takes a breath")
        return await say(f"{name} LOUD")
    return await asyncio.gather(one("x"), one("y"))

@workflow(version="2")
async def versioned() -> list[str]:
    said = [] if perdure.workflow_version() == "1" else [await say("zero")]
    said.append(await say("a"))
    await perdure.receive("go")
    return [*said, await say(perdure.workflow_version())]
"""
)

DEPRECATED = (
    COMMON
    + """
@workflow
async def line() -> list[str]:
    perdure.deprecate_patch("first things")
    said = [await say("first"), await say("a")]
    await perdure.receive("go")
    return [*said, await say("b")]

@workflow
async def loop(times: int) -> list[str]:
    said = []
    for i in range(times):
        await perdure.receive("go")
        perdure.deprecate_patch("greets")
        said.append(await say(f"hello{i}"))
    return said
"""
)

REMOVED = DEPRECATED.replace('    perdure.deprecate_patch("first things")\n', "").replace(
    '        perdure.deprecate_patch("greets")\n', ""
)


class Deploys:
    """The code on disk, the worker that runs it, and executions that are told to go on."""

    def __init__(self, project: Project, worker: Spawn, cli: Cli) -> None:
        self.project, self._worker, self._cli = project, worker, cli
        self._running: Any = None

    def deploy(self, code: str) -> None:
        """The worker dies without a word, and another one comes with this code."""
        if self._running is not None:
            self._running.kill(signal.SIGKILL)
            self._running.end()
        self.project.write("agent.py", code)
        self._running = self._worker()

    def start(self, workflow: str, name: str, given: str = "[]") -> None:
        """By a client process that ends before it has an end."""
        code = f"""
import asyncio, json, sys, perdure
sys.path.insert(0, ".")
import agent
async def main():
    async with perdure.Client("perdure.db") as client:
        await client.start(agent.{workflow}, *json.loads({given!r}), id={name!r})
asyncio.run(main())
"""
        subprocess.run([sys.executable, "-c", code], check=True, cwd=self.project.path, timeout=60)

    def parked(self, name: str, events: int) -> None:
        def rests() -> bool:
            row = self.project.row(name)
            return row is not None and row.status == "parked" and row.position >= events

        until(rests, f"{name} to rest after {events} events")

    def tell(self, name: str, what: str = "go") -> None:
        assert self._cli("signal", name, what).code == 0

    def result(self, name: str) -> Any:
        row = until(lambda: _ended(self.project, name), f"the end of {name}")
        assert row.status == "completed", row.problem
        return self._cli("show", name, "--json").json()["journal"][-1]["result"]

    def stalled(self, name: str) -> str:
        row = until(lambda: (found := self.project.row(name)) and found.status == "stalled" and found, f"{name} stalls")
        return str(row.problem)

    def resume(self, name: str) -> None:
        assert self._cli("resume", name).code == 0


def _ended(project: Project, name: str) -> Any:
    row = project.row(name)
    return row if row is not None and row.status not in ("active", "parked") else None


@pytest.fixture
def deploys(project: Project, worker: Spawn, cli: Cli) -> Deploys:
    return Deploys(project, worker, cli)


def test_what_began_with_old_code_goes_the_old_way_and_what_begins_goes_the_new_one(deploys: Deploys) -> None:
    deploys.deploy(OLD)
    deploys.start("line", "before")
    deploys.start("loop", "halfway", "[3]")
    deploys.start("loop", "unbegun", "[2]")
    deploys.start("branches", "one done")
    deploys.parked("before", 3)
    deploys.tell("halfway")
    deploys.parked("halfway", 4)
    deploys.tell("one done", "x")
    deploys.parked("one done", 4)
    deploys.parked("unbegun", 2)
    deploys.deploy(NEW)
    deploys.start("line", "after")
    deploys.start("branches", "new")
    deploys.parked("after", 5)
    deploys.tell("new", "y")
    deploys.parked("new", 6)
    deploys.tell("unbegun")
    deploys.parked("unbegun", 5)
    deploys.deploy(NEW)  # all of it is replayed
    for name in ("before", "after", "halfway", "halfway", "unbegun"):
        deploys.tell(name)
    deploys.tell("one done", "y")
    deploys.tell("new", "x")
    assert deploys.result("before") == ["a", "b"]
    assert deploys.result("after") == ["first", "a", "b"]
    assert deploys.result("halfway") == ["old0", "old1", "old2"]
    assert deploys.result("unbegun") == ["hello0", "hello1"], "nothing was recorded beyond the patch"
    assert deploys.result("one done") == ["x old", "y LOUD"], "each branch has a patch of its own"
    assert deploys.result("new") == ["x LOUD", "y LOUD"]
    repeated = {line: count for line, count in Counter(deploys.project.ledger()).items() if count > 1}
    assert repeated == {}


def test_a_patch_is_deprecated_then_removed_and_what_needs_it_waits_for_it(deploys: Deploys) -> None:
    deploys.deploy(OLD)
    deploys.start("line", "old line")
    deploys.start("loop", "old loop", "[2]")
    deploys.tell("old loop")
    deploys.parked("old loop", 4)
    deploys.parked("old line", 3)
    deploys.deploy(NEW)
    deploys.start("line", "new line")
    deploys.start("loop", "new loop", "[3]")
    deploys.tell("new loop")
    deploys.parked("new loop", 5)
    deploys.parked("new line", 5)

    deploys.deploy(DEPRECATED)
    for name in ("old line", "old loop", "new loop"):
        deploys.tell(name)
    deploys.parked("new loop", 7)
    assert "first things" in deploys.stalled("old line")
    assert "greets" in deploys.stalled("old loop")

    deploys.deploy(REMOVED)
    deploys.tell("new line")
    deploys.tell("new loop")
    assert deploys.result("new line") == ["first", "a", "b"]
    assert deploys.result("new loop") == ["hello0", "hello1", "hello2"]

    deploys.deploy(NEW)
    deploys.resume("old line")
    deploys.resume("old loop")
    assert deploys.result("old line") == ["a", "b"]
    assert deploys.result("old loop") == ["old0", "old1"]
    assert max(Counter(deploys.project.ledger()).values()) == 1


def test_a_run_keeps_the_version_that_it_began_with(deploys: Deploys) -> None:
    deploys.deploy(OLD)
    deploys.start("versioned", "one")
    deploys.parked("one", 3)
    deploys.deploy(NEW)
    deploys.start("versioned", "two")
    deploys.parked("two", 4)
    deploys.deploy(NEW)
    for name in ("one", "two"):
        deploys.tell(name)
    assert deploys.result("one") == ["a", "1"]
    assert deploys.result("two") == ["zero", "a", "2"]


def test_code_that_disagrees_stalls_and_goes_on_with_code_that_does_not(deploys: Deploys, cli: Cli) -> None:
    broken = OLD.replace('said = [await say("a")]', 'said = [await asyncio.sleep(0.01, "x"), await say("a")]')
    deploys.deploy(OLD)
    deploys.start("line", "x")
    deploys.parked("x", 3)
    deploys.project.write("agent.py", broken)
    assert cli("check", "agent.py").code == 1, "before the deploy it is told"
    deploys.deploy(broken)
    deploys.tell("x")
    assert "disagree" in deploys.stalled("x")
    deploys.resume("x")
    assert "disagree" in deploys.stalled("x"), "the same code stalls again"
    fixed = broken.replace('[await asyncio.sleep(0.01, "x"), await say("a")]', '[await say("a")]')
    deploys.deploy(fixed)
    deploys.resume("x")
    assert deploys.result("x") == ["a", "b"]
    assert deploys.project.ledger() == ["x a", "x b"]
