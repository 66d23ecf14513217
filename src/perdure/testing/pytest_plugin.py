"""What pytest gives to tests of workflows wherever Perdure is installed: `perdure_engine` and `perdure_steps`.

Known to pytest by its entry point; `-p no:perdure` leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest

from perdure.testing.engine import TestEngine
from perdure.workflow.definitions import Step
from perdure.workflow.runnable import Runnable


@pytest.fixture
def perdure_steps() -> dict[str | Step[..., Any], Any]:
    """Stand-ins that every engine of `perdure_engine` has: by default none. Override it in your `conftest.py`.

    Example:
        @pytest.fixture
        def perdure_steps():
            return {"send_mail": None, "charge": "a receipt"}
    """
    return {}


@pytest.fixture
def perdure_engine(perdure_steps: Mapping[str | Step[..., Any], Any]) -> Iterator[Callable[..., TestEngine]]:
    """Makes a `TestEngine`: `perdure_engine([workflow], steps={...}, ...)`, with the stand-ins of `perdure_steps`.

    `steps=` adds to those, and wins. Any other option of `TestEngine` may be given. An engine that is still open when
    the test has ended is an error.

    Example:
        async def test_the_mail_goes_out(perdure_engine):
            async with perdure_engine([remind]) as engine:
                handle = await engine.start(remind, "ada")
                assert await handle.result() == "sent"
    """
    made: list[TestEngine] = []

    def make(
        workflows: Iterable[Runnable[..., Any]] = (),
        *,
        steps: Mapping[str | Step[..., Any], Any] | None = None,
        **options: Any,
    ) -> TestEngine:
        own = steps or {}
        named = {_name(key) for key in own}
        shared = {key: stand_in for key, stand_in in perdure_steps.items() if _name(key) not in named}
        made.append(TestEngine(workflows, steps={**shared, **own}, **options))
        return made[-1]

    yield make
    if any(engine.is_open for engine in made):
        pytest.fail("an engine was not left: use `async with perdure_engine(...) as engine`", pytrace=False)


def _name(step: str | Step[..., Any]) -> str:
    return step if isinstance(step, str) else step.name
