"""`perdure.lint`: which definitions are looked through."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from perdure.core.errors import InvalidOption
from perdure.linting.findings import Finding
from perdure.workflow.definitions import Step, Workflow
from perdure.workflow.runnable import Runnable


def lint(target: Runnable[..., Any] | ModuleType) -> list[Finding]:
    """Look through a workflow, or all workflows and steps of a module, for what replay may not survive.

    Functions that a workflow calls are looked through as well, if they are the user's own and can be resolved without
    running anything. Steps are not: they may touch the world; only their annotations are checked.

    Args:
        target: a workflow, or a module that has been imported.

    Returns:
        Findings by file and line; an empty list where nothing was found. The rules: docs/reference/lint.md.

    Raises:
        InvalidOption: the target is neither.

    Example:
        assert not perdure.lint(research)
    """
    if isinstance(target, ModuleType):
        mine = [value for value in vars(target).values() if _is_of(value, target)]
    elif isinstance(target, Workflow):
        mine = [target]
    else:
        raise InvalidOption(option="target", value=repr(target), expected="a workflow, or an imported module")
    from perdure.linting.walk import findings_in  # noqa: PLC0415 - who only runs workflows does not pay for it

    return findings_in(mine)


def _is_of(value: object, module: ModuleType) -> bool:
    return isinstance(value, Workflow | Step) and value.fn.__module__ == module.__name__
