"""`perdure lint`: what in the source of workflows may go another way on replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
from rich.text import Text

import perdure
from perdure.cli.modules import find_workflow, load_module
from perdure.cli.options import Exit, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import console, print_json, say
from perdure.cli.problems import Problem
from perdure.cli.words import counted


@click.command()
@click.argument("targets", metavar="MODULE[:WORKFLOW]...", nargs=-1, required=True)
@shared_options
def lint(targets: tuple[str, ...]) -> int:
    """Tell what in the source may go astray on replay.

    A MODULE is an import path or the path of a .py file: all its workflows and steps; with :WORKFLOW that one only.
    Functions that a workflow calls are looked through as well. Nothing is run but the import. A comment
    `# perdure: allow L001` on the line says that it is meant. Exit code 1 if something was found.

    \b
      perdure lint agent.py
      perdure lint agents.research:research --json
    """
    findings = dict.fromkeys(finding for target in targets for finding in perdure.lint(_target(target)))
    if current().json:
        for finding in findings:
            print_json(msgspec.to_builtins(finding) | {"file": _shown(finding.file)})
    else:
        _print(list(findings))
    return Exit.FAILED if findings else Exit.OK


def _target(name: str) -> Any:
    if ":" in name:
        return find_workflow(name)
    module = load_module(name)
    if not any(isinstance(value, perdure.Workflow | perdure.Step) for value in vars(module).values()):
        raise Problem(f"{name} defines no workflow and no step.", hint="Put @perdure.workflow above an async def.")
    return module


def _print(findings: list[perdure.Finding]) -> None:
    out = console()
    for finding in findings:
        place = f"{_shown(finding.file)}:{finding.line}:{finding.column}:"
        out.print(Text.assemble(place, " ", (finding.code, "bold"), f" {finding.message} ", (finding.cure, "dim")))
    files = len({finding.file for finding in findings})
    if findings:
        say(f"{counted(len(findings), 'finding')} in {counted(files, 'file')}.")
    else:
        say("Nothing found.", "dim")


def _shown(file: str) -> str:
    """As the user would name it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
