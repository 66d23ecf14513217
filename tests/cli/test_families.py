"""A parent that is terminated where nobody has its code, through SIGKILLs of real workers."""

from __future__ import annotations

import asyncio
import importlib
import signal
import sys

import pytest
from tests.cli.conftest import Cli, Project, Spawn, until

import perdure

FAMILY = """
import perdure
from perdure import workflow
from kid import kid

@workflow
async def parent(n: int) -> None:
    for policy in ("terminate", "cancel", "abandon"):
        await perdure.start_child(kid, id=f"{policy}-{n}", on_parent_close=policy)
    await perdure.receive("go", str)
"""
KID = """
import perdure
from perdure import workflow

@workflow
async def kid() -> None:
    await perdure.receive("never", str)
"""
ENDS = {"terminate": "terminated", "cancel": "cancelled", "abandon": "parked"}
PARENTS, KILLS = 5, 3


@pytest.fixture
def family(project: Project) -> Project:
    project.write("family.py", FAMILY)
    project.write("kid.py", KID)
    return project


def has(project: Project, name: str, status: str) -> bool:
    row = project.row(name)
    return row is not None and row.status == status


def begin(project: Project) -> None:
    sys.path.insert(0, str(project.path))  # the fixture puts it back
    family = importlib.import_module("family")

    async def start() -> None:
        async with perdure.Client(str(project.store)) as client:
            for n in range(PARENTS):
                await client.start(family.parent, n, id=f"p{n}")

    asyncio.run(start())


def test_its_children_follow_their_policies(family: Project, worker: Spawn, cli: Cli) -> None:
    """Workers without its code are killed as soon as they serve; the last one ends what is left."""
    first = worker("family.py")
    begin(family)
    until(lambda: all(has(family, f"{policy}-{n}", "parked") for policy in ENDS for n in range(PARENTS)), "the wait")
    first.kill(signal.SIGKILL)
    first.end()
    for n in range(PARENTS):
        assert cli("terminate", f"p{n}").code == 0
    for _ in range(KILLS):
        other = worker("kid.py")
        other.kill(signal.SIGKILL)
        other.end()
    worker("kid.py")
    for n in range(PARENTS):
        until(lambda n=n: has(family, f"p{n}", "terminated"), f"the end of p{n}")
        for policy, end in ENDS.items():
            until(lambda name=f"{policy}-{n}", end=end: has(family, name, end), f"{policy}-{n}")
