"""Guards on a real engine: steps see the world while workflows do not; what is refused stalls until it is mended."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.conftest import Lab, kinds, status

import perdure
from perdure import step, workflow

FAR_S = 3_600.0


@step
async def on_the_loop(turn: int) -> list[Any]:
    """On the engine's own thread, between the drains of workflows."""
    read = [time.time(), random.random(), str(uuid.uuid4())]
    await asyncio.sleep(0.001 * (turn % 3))
    return [*read, time.time()]


@step
def in_a_thread(turn: int) -> list[Any]:
    """While workflows run."""
    read = [time.time(), random.random(), str(uuid.uuid4())]
    time.sleep(0.001 * (turn % 3))
    with open(__file__, "rb") as file:  # noqa: PTH123 - as users write it
        file.read(1)
    return [*read, time.time()]


@workflow
async def both(ahead_s: float) -> list[Any]:
    """Reads what its steps read, at the same time."""
    found = []
    for turn in range(5):
        answers = await asyncio.gather(on_the_loop(turn), in_a_thread(turn), on_the_loop(turn + 1))
        logical = [time.time(), random.random(), str(uuid.uuid4()), perdure.now().timestamp()]
        found.append([logical, *answers])
    return found


async def test_steps_see_the_real_functions_while_workflows_see_the_runs(lab: Lab) -> None:
    """Logical time is the store's, which here is a day ahead of this machine: nobody can mistake one for the other."""

    class Ahead(perdure.runtime.environment.SystemEnvironment):  # type: ignore[name-defined, misc]
        def now_ms(self) -> int:
            return super().now_ms() + 24 * 3_600_000

    async with lab.engine(both, environment=Ahead()) as engine:
        handles = [await engine.start(both, 0.0, id=f"b-{n}") for n in range(10)]
        for handle in handles:
            for (at, number, name, now), *answers in await handle.result():
                assert at == now
                assert at - time.time() > FAR_S
                for began, other, other_name, ended in answers:
                    assert abs(began - time.time()) < FAR_S
                    assert began <= ended < began + 60
                    assert (other, other_name) != (number, name)
    assert abs(time.time() - Path(lab.path).stat().st_mtime) < FAR_S


async def test_steps_of_many_executions_never_draw_the_same(lab: Lab) -> None:
    """Not the run's numbers, nor each other's."""
    async with lab.engine(both) as engine:
        handles = [await engine.start(both, 0.0, id=f"b-{n}") for n in range(10)]
        drawn = [answer for handle in handles for _, *answers in await handle.result() for answer in answers]
    assert len({answer[1] for answer in drawn}) == len({answer[2] for answer in drawn}) == len(drawn) == 150


async def test_what_is_refused_stalls_and_goes_on_when_it_is_mended(lab: Lab) -> None:
    @workflow(name="report")
    async def hasty() -> str:
        first = await on_the_loop(0)
        return f"{len(first)} {Path('template.txt').read_text('utf-8')}"

    @step
    async def template() -> str:
        return "from a step"

    @workflow(name="report")
    async def mended() -> str:
        first = await on_the_loop(0)
        return f"{len(first)} {await template()}"

    async with lab.engine(hasty) as engine:
        handle = await engine.start(hasty, id="r")
        row = await status(handle, "stalled")
        assert "Opening a file is not allowed inside a workflow (test_guards.py:" in row.problem
        assert "Move this into a step" in row.problem
        with pytest.raises(perdure.PerdureError, match="P0106"):
            await handle.result()
    async with lab.engine(mended) as engine:
        handle = engine.handle("r")
        await handle.resume()
        assert await handle.result() == "4 from a step"
        assert kinds(await handle.journal()).count("StepCompleted") == 2


LAZY = """
import importlib, sys, perdure

PACKAGES = sys.argv[2:]

@perdure.workflow
async def lazy() -> list[str]:
    problems = []
    for name in PACKAGES:
        assert name not in sys.modules, name
        try:
            importlib.import_module(name)
        except perdure.PerdureError as error:
            problems.append(f"{name}: {error}")
    import pydantic

    class Model(pydantic.BaseModel):
        at: int

    Model.model_validate({"at": 1})
    return problems

print(perdure.run(lazy, store=sys.argv[1]))
"""
PACKAGES = ["pydantic", "sqlalchemy.ext.asyncio", "cryptography.fernet", "hypothesis", "sqlite3", "xml.dom.minidom"]


def test_packages_may_be_imported_as_late_as_in_a_workflow(tmp_path: Path) -> None:
    """Whatever their modules read, draw or open meanwhile; and what pydantic looks for on its first model."""
    (tmp_path / "lazy.py").write_text(LAZY, "utf-8")
    command = [sys.executable, "lazy.py", "lazy.db", *PACKAGES]
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}  # it imports sqlite3
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


@workflow
class Watched:
    """Its handlers read what workflows read; its queries may only look."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    async def run(self) -> list[Any]:
        await perdure.receive("end", str)
        return self.told

    @perdure.on_signal
    async def tell(self, word: str) -> None:
        self.told.append([word, time.time(), perdure.now().timestamp(), random.random(), str(uuid.uuid4())])

    @perdure.on_query
    def now(self) -> list[float]:
        return [time.time(), perdure.now().timestamp()]

    @perdure.on_query
    def draw(self) -> float:
        return random.random()

    @perdure.on_query
    def name(self) -> str:
        return str(uuid.uuid4())

    @perdure.on_query
    def read(self) -> str:
        return Path("template.txt").read_text("utf-8")


async def test_handlers_are_workflow_code_and_queries_may_only_look(lab: Lab) -> None:
    async with lab.engine(Watched) as engine:
        handle = await engine.start(Watched, id="w")
        for word in ("one", "two"):
            await handle.signal("tell", word)
        told, logical = await handle.query("now")
        assert told == logical
        for query, said in {"draw": "perdure.random", "name": "perdure.uuid4", "read": "Opening a file"}.items():
            with pytest.raises(perdure.PerdureError, match=said):
                await handle.query(query)
        await handle.signal("end", "now")
        found = await handle.result()
    assert [each[0] for each in found] == ["one", "two"]
    assert all(each[1] == each[2] for each in found)
    assert len({each[3] for each in found} | {each[4] for each in found}) == 4
