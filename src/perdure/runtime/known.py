"""Which workflows an engine knows, and which code that is."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from perdure.core.errors import DuplicateName, InvalidDefinition
from perdure.workflow.definitions import Workflow


def named(workflows: Iterable[Workflow[..., Any]]) -> dict[str, Workflow[..., Any]]:
    """Workflows by name: the given ones, and others that their modules define.

    Raises:
        DuplicateName: two different ones have the same name.
        InvalidDefinition: something is no workflow.
    """
    found: dict[str, Workflow[..., Any]] = {}
    given = list(workflows)
    for workflow in given:
        if not isinstance(workflow, Workflow):
            raise InvalidDefinition(
                name=repr(workflow),
                kind="workflow",
                reason="it was not decorated",
                fix="Put @perdure.workflow above it.",
            )
        other = found.setdefault(workflow.name, workflow)
        if other is not workflow:
            raise DuplicateName(kind="workflow", name=workflow.name, first=place_of(other), second=place_of(workflow))
    for workflow in given:
        module = sys.modules.get(workflow.fn.__module__)
        for other in vars(module).values() if module is not None else ():
            if isinstance(other, Workflow):
                found.setdefault(other.name, other)
    return found


def place_of(workflow: Workflow[..., Any]) -> str:
    """`module:line` of a definition."""
    code = workflow.fn.__code__
    return f"{workflow.fn.__module__}:{code.co_firstlineno}"


def fingerprint_of(workflows: Iterable[Workflow[..., Any]]) -> str:
    """A hash of the source of the modules that define the workflows, and of loaded modules of the same packages."""
    names = {workflow.fn.__module__ for workflow in workflows}
    tops = {name.partition(".")[0] for name in names if "." in name}
    for name in list(sys.modules):
        if name.partition(".")[0] in tops:
            names.add(name)
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(names):
        module = sys.modules.get(name)
        if module is not None:
            digest.update(name.encode() if name != "__main__" else b"")
            digest.update(_source(module))
    return digest.hexdigest()


def _source(module: ModuleType) -> bytes:
    try:
        return inspect.getsource(module).encode("utf-8", "surrogatepass")
    except (OSError, TypeError):
        return b""
