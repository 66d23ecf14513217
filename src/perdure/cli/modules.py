"""From MODULE and MODULE:WORKFLOW on the command line to the user's code: an import path, or the path of a .py file."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import perdure
from perdure.cli.options import Exit
from perdure.cli.problems import Problem, nearest, problem_of, users_place, users_traceback

AnyWorkflow = perdure.Workflow[..., Any]
UNGUARDED = "It calls perdure.run as it is imported: put that below `if __name__ == '__main__':`."


def load_module(name: str) -> ModuleType:
    """Import it; the current directory is searched first.

    Raises:
        Problem: there is no such module, or it fails, with the traceback of the user's own lines.
    """
    module, colon, _ = name.partition(":")
    if colon and not Path(name).exists():
        raise Problem(f"{name} names a workflow, where a module is wanted.", hint=f"Write {module}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return _load_file(Path(name)) if _is_file(name) else importlib.import_module(name)
    except Problem:
        raise
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _is_file(name: str) -> bool:
    return name.endswith(".py") or "/" in name


def _broken(name: str, error: BaseException) -> Problem:
    hint = UNGUARDED if _runs(error) else ""
    if isinstance(error, perdure.PerdureError):
        message = f"{users_place(error)}{problem_of(error).message}"
        return Problem(f"{name} cannot be imported:\n{message}", code=error.code, hint=hint)
    is_missing = isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}.")
    if is_missing and not _is_file(name):
        return _missing(name)
    return Problem(f"{name} cannot be imported:\n{users_traceback(error)}", hint=hint)


def _runs(error: BaseException) -> bool:
    """Whether it came through `perdure.run`."""
    return any(frame.f_code is perdure.run.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def _missing(name: str) -> Problem:
    files = [path.stem for path in Path.cwd().glob("*.py")]
    hint = nearest(name, files)
    if not hint and Path(name.replace(".", "/")).is_dir():
        hint = "That is a directory without Python modules in it."
    return Problem(f"No module is named {name!r} here or among what is installed.", hint=hint)


def _load_file(path: Path) -> ModuleType:
    """As `python FILE` would: its directory is importable; in a package, as that package's module."""
    if not path.is_file():
        siblings = [str(path.parent / each.name) for each in path.parent.glob("*.py")]
        raise Problem(f"There is no file {str(path)!r}.", hint=nearest(str(path), siblings))
    path = path.resolve()
    folder, parts = path.parent, [path.stem]
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    name = ".".join(parts if parts[-1] != "__init__" else parts[:-1])
    if len(parts) > 1:
        return importlib.import_module(name)
    return _load_alone(name, path)


def _load_alone(name: str, path: Path) -> ModuleType:
    """A file by its place, not by its name: `queue.py` must not become the standard library's module."""
    known = sys.modules.get(name)
    if known is not None:
        if getattr(known, "__file__", None) == str(path):
            return known
        name = f"{name}_from_file"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Problem(f"{path.name} cannot be imported: it is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def find_codec(given: str | None) -> Any:
    """The codec at MODULE:NAME, or what the function there returns; by default of `PERDURE_CODEC`, if that is set.

    Raises:
        Problem: there is none.
    """
    target = given or os.environ.get("PERDURE_CODEC")
    if not target:
        return None
    module_name, _, name = target.rpartition(":")
    if not module_name or not name:
        raise Problem(f"{target!r} names no codec.", hint="Write MODULE:NAME, as in keys.py:ring.")
    module = load_module(module_name)
    found = getattr(module, name, None)
    if found is None:
        raise Problem(f"{module_name} has no {name!r}.", hint=nearest(name, vars(module)))
    return _codec(target, found)


def _codec(target: str, found: Any) -> Any:
    """It, or what it makes."""
    try:
        made = found if hasattr(found, "encrypt") or not callable(found) else found()
    except Exception as error:
        raise Problem(f"{target} does not make a codec:\n{users_traceback(error)}") from error
    if not (hasattr(made, "encrypt") and hasattr(made, "decrypt")):
        raise Problem(f"{target} is no codec: it has no encrypt and decrypt, and makes nothing that has.")
    return made


def workflows_of(module: ModuleType) -> dict[str, AnyWorkflow]:
    """Workflows by the names that the module gives them."""
    return {name: value for name, value in vars(module).items() if isinstance(value, perdure.Workflow)}


def find_workflow(target: str) -> AnyWorkflow:
    """The workflow of MODULE:WORKFLOW; of MODULE alone, if it has one only.

    Raises:
        Problem: with the nearest name.
    """
    module_name, _, wanted = target.partition(":")
    if not module_name:
        raise Problem(f"{target!r} names no module.", hint="Write MODULE:WORKFLOW, as in agent.py:research.")
    found = workflows_of(load_module(module_name))
    by_name = {workflow.name: workflow for workflow in found.values()} | found
    if wanted in by_name:
        return by_name[wanted]
    own = list(dict.fromkeys(by_name))
    if not own:
        raise Problem(f"{module_name} defines no workflow.", hint="Put @perdure.workflow above an async def.")
    if not wanted and len(set(map(id, by_name.values()))) == 1:
        return by_name[own[0]]
    listed = ", ".join(own)
    if not wanted:
        raise Problem(f"{module_name} defines several workflows: {listed}.", hint=f"Say which: {module_name}:{own[0]}")
    hint = nearest(wanted, own)
    raise Problem(f"{module_name} has no workflow {wanted!r}; it has: {listed}.", Exit.USAGE, hint=hint)
