"""`perdure explain`: the page of an error, where the error is met."""

from __future__ import annotations

import re
import sys
from collections.abc import Container
from pathlib import Path

import click
from rich.markdown import Markdown

import perdure
from perdure.cli.options import settings, shared_options
from perdure.cli.output import console, print_json
from perdure.cli.problems import Problem, nearest

# In an installed package, and in a checkout of the repository.
_PACKAGE = Path(perdure.__file__).parent
_FOLDERS = (_PACKAGE / "error_pages", _PACKAGE.parents[1] / "docs" / "errors")
_LINK = re.compile(r"\[([^]]+)\]\(\.\./([^)#]+)[^)]*\)")  # of one page to another


@click.command()
@click.argument("code")
@shared_options
def explain(code: str) -> None:
    """Print the page of an error, by its code or name.

    It says what the error means, what brings it about, what to do. Messages end with the code; tracebacks show the
    name.

    \b
      perdure explain P0202
      perdure explain StepFailed
    """
    pages = {path.stem: path for folder in _FOLDERS for path in folder.glob("P*.md")}
    code = _code_of(code.strip("[]:"), pages)
    page = pages[code].read_text("utf-8")
    if settings().json:
        print_json({"code": code, "page": page})
    elif sys.stdout.isatty():
        page = _LINK.sub(r"\1 (docs/\2)", page)
        console().print(Markdown(page), soft_wrap=False)
    else:
        click.echo(page, nl=False)


def _code_of(wanted: str, pages: Container[str]) -> str:
    """Of the error with this code, or with this name as tracebacks show it."""
    kinds = [getattr(perdure.errors, name) for name in perdure.errors.__all__]
    codes = {kind.__name__: str(vars(kind).get("code")) for kind in kinds}
    by_name = {name.casefold(): code for name, code in codes.items() if code in pages}
    code = by_name.get(wanted.rpartition(".")[2].casefold(), wanted.upper())
    if code not in pages:
        known = [text for pair in codes.items() if pair[1] in pages for text in pair]
        hint = nearest(wanted, known) or "Codes look like P0202, and stand at the end of messages."
        raise Problem(f"No error has the code or name {wanted!r}.", hint=hint)
    return code
