"""What Python prints when a run fails: the user's own lines, in words that say what to do, and nothing of ours."""

from __future__ import annotations

import asyncio
import traceback
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import step, workflow
from perdure.core.errors import EncodeError, every_error
from perdure.store import ownership


@step(retry=None)
async def opens(name: str) -> str:
    raise FileNotFoundError(f"no {name}")


@workflow
async def reads(name: str) -> str:
    return await opens(name)


@workflow
async def gathers(name: str) -> str:
    async with asyncio.TaskGroup() as group:
        group.create_task(opens(name))
    return name


@workflow(raises=[FileNotFoundError])
async def looks_up(name: str) -> str:
    raise FileNotFoundError(f"no {name}")


@step
async def counts() -> int:
    return "no number"  # type: ignore[return-value]


@workflow
async def answers(_name: str) -> int:
    return await counts()


@step(retry=None, timeout=0.01)
async def hangs() -> None:
    await asyncio.Event().wait()


@workflow
async def takes_too_long(_name: str) -> None:
    await hangs()


@step
async def takes(page: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Never runs."""


@workflow
async def names_nothing(name: str) -> None:
    await takes(name)


def printed(of: Any, store: Path) -> str:
    with pytest.raises(Exception) as met:  # noqa: PT011 - any, by what it prints
        perdure.run(of, "page", store=store / "perdure.db")
    told = "".join(traceback.format_exception(met.value))
    ours = [line for line in told.splitlines() if f"{Path(perdure.__file__).parent}" in line]
    assert [line for line in ours if not line.endswith("in run")] == []  # perdure.run itself, and nothing below
    assert "/asyncio/runners.py" not in told
    return told


def test_a_failed_step_shows_its_own_line_and_the_line_that_awaited_it(tmp_path: Path) -> None:
    told = printed(reads, tmp_path)
    assert 'raise FileNotFoundError(f"no {name}")' in told
    assert "return await opens(name)" in told
    assert "perdure.errors.StepFailed: Step 'opens' failed at attempt 1: FileNotFoundError: no page." in told


def test_a_declared_failure_shows_the_line_that_raised_it(tmp_path: Path) -> None:
    told = printed(looks_up, tmp_path)
    assert "FileNotFoundError: no page\nIt was raised at:\n" in told
    assert 'raise FileNotFoundError(f"no {name}")' in told


def test_a_failure_in_a_task_group_shows_the_line_of_its_step(tmp_path: Path) -> None:
    told = printed(gathers, tmp_path)
    assert "It holds perdure.errors.StepFailed: Step 'opens' failed at attempt 1: FileNotFoundError: no page." in told
    assert told.count('raise FileNotFoundError(f"no {name}")') == 1


def test_a_forgotten_await_is_asked_about_where_its_coroutine_is_passed_on() -> None:
    forgotten = opens.fn("page")
    with pytest.raises(EncodeError, match=r"is of type coroutine, .* \(was `await` forgotten\?\)"):
        opens.bind(forgotten)  # type: ignore[arg-type]
    forgotten.close()


@pytest.mark.parametrize(("call", "name"), [(opens, "step opens"), (reads, "workflow reads")])
def test_pythons_warning_of_a_forgotten_await_names_the_step_or_workflow(tmp_path: Path, call: Any, name: str) -> None:
    @workflow
    async def forgetful() -> str:
        call("page")
        return "done"

    with pytest.warns(RuntimeWarning, match=f"coroutine '{name}' was never awaited"):
        assert perdure.run(forgetful, store=tmp_path / "perdure.db") == "done"


def test_the_page_that_is_named_is_that_of_the_error_within_and_it_is_named_once(tmp_path: Path) -> None:
    told = printed(takes_too_long, tmp_path)
    assert told.count("explain P0607]") == 2  # of the cause, and of the whole
    assert "explain P0601]" not in told
    assert "explain P0602]" not in told
    assert "raises=[...]" not in told  # nobody can declare an error of ours


def test_a_store_that_is_taken_is_told_without_the_frames_that_tried_it(tmp_path: Path) -> None:
    store = str(tmp_path / "perdure.db")
    held = ownership.acquire(ownership.side_file(store), store=store)
    try:
        assert "perdure.errors.StoreBusy: Another engine works on" in printed(reads, tmp_path)
    finally:
        held.release()


def test_a_result_of_another_type_is_told_once_with_what_it_was(tmp_path: Path) -> None:
    told = printed(answers, tmp_path)
    assert (
        "ran, but the result of step 'counts' cannot be encoded: $ Expected `int`, got `str`.\nThe result was: 'n"
        in told
    )
    assert told.count("Return data of the annotated type.") == 1
    assert "explain P0201]" not in told


def test_an_annotation_that_names_nothing_says_which_name_and_what_to_do(tmp_path: Path) -> None:
    told = printed(names_nothing, tmp_path)
    assert "name 'Nowhere' is not defined. Define that name, or import it outside of `if TYPE_CHECKING:`." in told
    assert "NameError" not in told


def test_errors_are_named_by_the_module_that_users_import_them_from() -> None:
    for kind in every_error():
        if not kind.__module__.startswith("tests."):
            assert getattr(perdure.errors, kind.__name__, None) is kind, kind
            assert kind.__module__ == "perdure.errors", kind
