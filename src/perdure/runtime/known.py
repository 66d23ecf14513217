"""Which workflows an engine knows, and which code that is."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from perdure.core.errors import DuplicateName, InvalidOption
from perdure.workflow.definitions import Workflow
from perdure.workflow.runnable import Runnable, workflow_of


def named(workflows: Iterable[Runnable[..., Any]]) -> dict[str, Workflow[..., Any]]:
    """Workflows by name: the given ones, and others that their modules define.

    Raises:
        DuplicateName: two different ones have the same name.
        InvalidDefinition: something is no workflow.
        InvalidOption: it is no list of any.
    """
    if not isinstance(workflows, Iterable) or isinstance(workflows, str | type):
        raise InvalidOption(option="workflows", value=repr(workflows), expected="a list of workflows")
    found: dict[str, Workflow[..., Any]] = {}
    given = [workflow_of(each) for each in workflows]
    for workflow in given:
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
    """A hash of the source of modules: those that define the workflows, the classes they name, and their packages'."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(_modules_of({workflow.fn.__module__ for workflow in workflows})):
        module = sys.modules.get(name)
        if module is not None:
            digest.update(name.encode() if name != "__main__" else b"")
            digest.update(_source(module))
    return digest.hexdigest()


def _modules_of(names: set[str]) -> set[str]:
    packages = {name.partition(".")[0] for name in names if "." in name}
    beside = {name for name in list(sys.modules) if name.partition(".")[0] in packages}
    return names | beside | {kind.__module__ for name in names for kind in _classes_in(name)}


def _classes_in(name: str) -> Iterator[type]:
    """What a module knows by name, but for Python's own and ours."""
    for value in list(vars(sys.modules[name]).values()) if name in sys.modules else ():
        if isinstance(value, type) and value.__module__.partition(".")[0] not in _NOT_THE_USERS:
            yield value


_NOT_THE_USERS = sys.stdlib_module_names | {"perdure"}


def _source(module: ModuleType) -> bytes:
    try:
        return inspect.getsource(module).encode("utf-8", "surrogatepass")
    except (OSError, TypeError):
        return b""
