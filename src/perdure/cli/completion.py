"""`perdure completion`: what a shell runs to complete commands, options, files and the ids of executions."""

from __future__ import annotations

import contextlib

import click
from click.shell_completion import CompletionItem, get_completion_class

import perdure
from perdure.cli.options import settings, shared_options
from perdure.store.reader import ids_like, open_existing

SHELLS = ("bash", "zsh", "fish")
IDS_OFFERED = 200


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), metavar="|".join(SHELLS))
@shared_options
def completion(shell: str) -> None:
    """Print what lets a shell complete commands and ids.

    \b
      eval "$(perdure completion bash)"        in ~/.bashrc
      eval "$(perdure completion zsh)"         in ~/.zshrc, after compinit
      perdure completion fish > ~/.config/fish/completions/perdure.fish
    """
    from perdure.cli.output import print_json  # noqa: PLC0415 - it needs rich, which --help does not

    group = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    assert kind is not None
    source = kind(group, {}, "perdure", "_PERDURE_COMPLETE")
    script = source.source_template % source.source_vars()
    if settings().json:
        print_json({"shell": shell, "script": script})
    else:
        click.echo(script)


class ExecutionIds(click.ParamType):  # type: ignore[type-arg]  # older clicks' is not generic
    """Text; completed to the ids in the store, the first of those that fit."""

    name = "id"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002 - click's signature
        """Ids that begin so; none, without a word, where there is no store."""
        with contextlib.suppress(perdure.PerdureError), contextlib.closing(open_existing(settings(ctx).store)) as store:
            found = ids_like(store, "default", incomplete, IDS_OFFERED)
            return [CompletionItem(row.key.execution, help=f"{row.workflow}, {row.status}") for row in found]
        return []


class Files(click.ParamType):  # type: ignore[type-arg]  # older clicks' is not generic
    """Text; completed to files."""

    name = "file"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002 - click's signature
        """The shell knows them."""
        return [CompletionItem(incomplete, type="file")]


_IDS, _FILES = ExecutionIds(), Files()
_COMPLETED = {"execution_id": _IDS, "execution_ids": _IDS, "parent": _IDS, "left": _IDS, "right": _IDS} | dict.fromkeys(
    ("modules", "module", "targets", "target", "file", "store", "output"), _FILES
)


def completing(command: click.Command) -> click.Command:
    """The command, with whatever holds ids or files completed as such: known by the names of its parameters."""
    for param in command.params:
        if param.name in _COMPLETED and isinstance(param.type, type(click.STRING)):
            param.type = _COMPLETED[param.name]
    return command
