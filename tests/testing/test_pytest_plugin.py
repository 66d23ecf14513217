"""The fixtures that pytest gets from Perdure: tried by pytest itself, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENTRY = "perdure.testing.pytest_plugin"

AGENT = """
import asyncio
import pytest
from perdure import step, workflow


@step
async def greet(name: str) -> str:
    raise AssertionError("the real step")


@workflow
async def hello(name: str) -> str:
    await asyncio.sleep(86_400)
    return await greet(name)


@pytest.fixture
def perdure_steps():
    return {greet: "shared"}


async def story(engine):
    async with engine:
        return await (await engine.start(hello, "ada")).result()
"""


def tried(folder: Path, test: str) -> str:
    (folder / "test_it.py").write_text(AGENT + textwrap.dedent(test))
    plugin = ["-p", "no:perdure", "-p", ENTRY]  # as the entry point does, whatever is installed
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout


def test_engines_have_the_stand_ins_that_all_tests_share_and_their_own(tmp_path):
    told = tried(
        tmp_path,
        """
        def test_shared(perdure_engine):
            assert asyncio.run(story(perdure_engine([hello]))) == "shared"

        def test_own(perdure_engine):
            assert asyncio.run(story(perdure_engine([hello], steps={"greet": "own"}))) == "own"
        """,
    )
    assert "2 passed" in told, told


def test_an_engine_that_is_not_left_is_told(tmp_path):
    told = tried(
        tmp_path,
        """
        def test_forgets(perdure_engine):
            asyncio.run(perdure_engine([hello]).__aenter__())
        """,
    )
    assert "an engine was not left" in told, told


def test_pytest_finds_the_plugin_by_its_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"perdure": ENTRY}
