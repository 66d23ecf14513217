"""What may be started, as type checkers see it.

A class under `@workflow` is a Workflow. mypy passes over what decorators make of classes, and sees the class still.
"""

from __future__ import annotations

from typing import ParamSpec, TypeAlias, TypeVar

from perdure.core.errors import InvalidDefinition
from perdure.workflow.definitions import Runs, Step, Workflow

P = ParamSpec("P")
R = TypeVar("R")

Runnable: TypeAlias = Workflow[P, R] | type[Runs[P, R]]


def workflow_of(given: Runnable[P, R]) -> Workflow[P, R]:
    """What is to be started, as the workflow that it is. Raises `InvalidDefinition`: it was not decorated."""
    if isinstance(given, Workflow):
        return given
    if isinstance(given, Step):
        reason, fix = "it is a step", "Await it in a workflow, and run that."
    elif isinstance(given, str):
        reason, fix = "it is text", "Pass the workflow itself, imported from its module."
    else:
        reason, fix = "it was not decorated", "Put @perdure.workflow above it."
    raise InvalidDefinition(name=repr(getattr(given, "__qualname__", given)), kind="workflow", reason=reason, fix=fix)
