"""Every error class: a code of its own, a message that renders, facts that survive being copied and sent."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import re
import string
from pathlib import Path
from typing import Any

import pytest

from perdure.core import errors
from perdure.core.errors import Evicted, PerdureError, RemoteFailure, TheirError, YourError, every_error
from perdure.core.events import FailureInfo

ROOT = Path(__file__).parents[2]
FAILURE = FailureInfo("ValueError", "no {such} page", traceback='File "research.py", line 3')
OURS = [kind for kind in every_error() if kind.__module__.startswith("perdure.")]


def wanted(kind: type[PerdureError]) -> set[str]:
    """Fields that the class's texts name."""
    parsed = [*string.Formatter().parse(kind.text), *string.Formatter().parse(kind.cure)]
    return {re.split(r"[.\[]", name)[0] for _, name, _, _ in parsed if name}


def made(kind: type[PerdureError]) -> PerdureError:
    """An error of this class, with every field that it names."""
    given: dict[str, Any] = {name: f"<{name}>" for name in wanted(kind)}
    if "failure" in given or issubclass(kind, RemoteFailure):
        given["failure"] = FAILURE
    if issubclass(kind, RemoteFailure):
        del given["type"], given["message"]
    return kind(**given)


def test_every_class_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in OURS]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"P0[1-9]\d\d", code) for code in codes)
    assert codes == sorted(codes)


def test_every_class_that_can_be_raised_has_a_code() -> None:
    """Only the branches of the tree have none."""
    branches = {PerdureError, YourError, TheirError, RemoteFailure}
    every = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, PerdureError)]
    assert set(every) - branches == set(OURS), "a class without a code, or one that perdure.core.errors does not export"


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_the_docstring_names_the_fields_that_the_message_shows(kind: type[PerdureError]) -> None:
    shown = wanted(kind) - ({"type", "message"} if issubclass(kind, RemoteFailure) else set())
    named = re.search(r"Fields?: (.*)", inspect.getdoc(kind) or "", re.DOTALL)
    assert shown <= set(re.findall(r"\w+", named[1] if named else ""))


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_messages_render_with_their_facts_cure_and_page(kind: type[PerdureError]) -> None:
    error = made(kind)
    message = str(error)
    assert message.endswith(f"[{kind.code}: perdure explain {kind.code}]")
    assert "  [" not in message
    for name, value in error.fields.items():
        if isinstance(value, str) and name in wanted(kind):
            assert value in message


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_errors_can_be_pickled_and_copied(kind: type[PerdureError]) -> None:
    """They cross threads and processes: class, message and facts stay."""
    error = made(kind)
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301 - our own
        assert type(other) is kind
        assert str(other) == str(error)
        assert other.fields == error.fields
        assert getattr(other, "failure", None) == getattr(error, "failure", None)


def test_braces_in_facts_are_not_taken_for_fields() -> None:
    assert "no {such} page" in str(errors.StepFailed(name="{x}", attempts=1, failure=FAILURE))


def test_errors_are_also_what_python_code_expects() -> None:
    """`except TimeoutError` catches the ones that are about time; evictions pass `except Exception`."""
    assert issubclass(errors.WaitTimeout, TimeoutError)
    assert issubclass(errors.StepTimeout, TimeoutError)
    assert not issubclass(Evicted, Exception)


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_wherever_an_error_is_raised_it_is_given_the_fields_that_its_text_names() -> None:
    """A missing field would hide the error behind a KeyError, at the worst moment."""
    kinds = {kind.__name__: kind for kind in OURS}
    complaints = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for call in calls(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            if name not in kinds or any(keyword.arg is None for keyword in call.keywords) or _is_event(call):
                continue
            given = {keyword.arg for keyword in call.keywords}
            if issubclass(kinds[name], RemoteFailure):
                given |= {"type", "message"} if "failure" in given else set()
            missing = wanted(kinds[name]) - given
            if missing:
                complaints.append(f"{path.relative_to(ROOT)}:{call.lineno} {name} lacks {sorted(missing)}")
    assert not complaints, "\n".join(complaints)


def _is_event(call: ast.Call) -> bool:
    """`ev.StepFailed(...)` and other types of the same name that are no errors."""
    return isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") not in {"errors", "perdure"}


def test_every_error_has_its_page() -> None:
    pages = {page.stem for page in (ROOT / "docs" / "errors").glob("P*.md")}
    assert {kind.code for kind in OURS} <= pages
