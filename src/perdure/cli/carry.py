"""`perdure journal`, `export` and `import`: journals event by event, and from one store to another."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import click
from rich.text import Text

from perdure import journal as jn
from perdure.cli import shapes
from perdure.cli.modules import find_codec
from perdure.cli.options import Exit, Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import console, print_json, say, to_json
from perdure.cli.problems import Problem
from perdure.cli.talk import client_of, go, known, rows_of
from perdure.cli.times import clock
from perdure.testing import golden

MOST_SHOWN = 1_000


@click.command()
@click.argument("execution_id", metavar="ID")
@click.option("--from", "start", type=click.IntRange(min=0), default=0, metavar="N", help="Begin at event N.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=MOST_SHOWN, show_default=True, metavar="N", help="At most so many."
)
@shared_options
def journal(execution_id: str, start: int, limit: int) -> None:
    """Print the journal of execution ID, event by event.

    `perdure show` tells the same as a story. With --json, one event a line.
    """
    go(_journal(current(), execution_id, start, limit))


async def _journal(settings: Settings, execution_id: str, start: int, limit: int) -> None:
    async with client_of(settings) as client:
        await known(client, execution_id)
        events = await client.handle(execution_id).journal()
    chosen = events[start : start + limit]
    out = console()
    for recorded in chosen:
        told = shapes.of_recorded(recorded)
        if settings.json:
            print_json(told)
            continue
        fields = {name: value for name, value in told.items() if name not in _HEADER and _tells(recorded, name, value)}
        head = Text.assemble((f"{recorded.position:>6}  ", "dim"), clock(recorded.at_ms), "  ", (told["type"], "bold"))
        out.print(Text.assemble(head, "  ", to_json(fields) if fields else ""))
    left = len(events) - start - len(chosen)
    if left > 0 and not settings.json:
        say(f"{left:,} more: --from {start + len(chosen)}", "dim")


def _tells(recorded: jn.Recorded, name: str, value: Any) -> bool:
    """Whether a field is worth its place: a value that went in or came out always is, also an empty one."""
    return isinstance(getattr(recorded.event, name, None), jn.Payload) or not (value is False or value in _NOTHING)


_NOTHING: Sequence[Any] = ("", None, [], {})
_HEADER = frozenset({"position", "at_ms", "type", "session", "fingerprint"})


@click.command(name="export")
@click.argument("execution_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every execution of the store.")
@click.option("--output", "-o", metavar="FILE", help="Write there instead of to standard output.")
@click.option("--decrypted", is_flag=True, help="Write values in clear that the store encrypts.")
@shared_options
def export_(execution_ids: tuple[str, ...], output: str | None, *, everything: bool, decrypted: bool) -> None:
    """Write journals as JSON lines, for import or tests.

    The format is that of perdure.testing.golden. Messages that were not received yet are not part of a journal.
    """
    if bool(execution_ids) == everything:
        raise Problem("Say which executions: their ids, or --all.")
    if output is None:
        go(_export(current(), execution_ids, sys.stdout, decrypted=decrypted))
        return
    with Path(output).open("w", encoding="utf-8") as file:
        go(_export(current(), execution_ids, file, decrypted=decrypted))


async def _export(settings: Settings, ids: Sequence[str], file: TextIO, *, decrypted: bool) -> None:
    count = 0
    async with client_of(settings) as client:
        if client.handle("any").is_private and not decrypted:
            raise Problem(
                "The values in this store are encrypted; an export has them in clear.",
                hint="Pass --decrypted to write them so, and keep the file as you keep the keys.",
            )
        if not ids:
            ids = [row.key.execution async for page in rows_of(client) for row in page]
        for execution_id in ids:
            await known(client, execution_id)
            file.writelines(line + "\n" for line in await golden.lines_of(client.handle(execution_id)))
            count += 1
    say(f"{count:,} executions exported.", "dim")


@click.command(name="import")
@click.argument("file", metavar="FILE")
@shared_options
def import_(file: str) -> int:
    """Bring exported executions into this store.

    It is made if it is missing. `-` reads standard input. No engine may run on it. Ids that exist already are
    left alone, and told. Unfinished executions go on with the next
    worker. Exit code 7 if any id was taken.
    """
    text = sys.stdin.read() if file == "-" else _text_of(file)
    return _import(current(), list(_parts(text)))


def _text_of(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"{file} cannot be read: {error}") from error


def _parts(text: str) -> Iterator[tuple[dict[str, Any], list[jn.Recorded]]]:
    """Each execution's header and events."""
    lines: list[str] = []
    for line in text.splitlines():
        if lines and golden.KIND in line and _is_header(line):
            yield golden.parse(lines)
            lines = []
        lines.append(line)
    yield golden.parse(lines)


def _is_header(line: str) -> bool:
    try:
        return json.loads(line).get("kind") == golden.KIND  # type: ignore[no-any-return]
    except (ValueError, AttributeError):
        return False


def _import(settings: Settings, parts: Sequence[tuple[dict[str, Any], list[jn.Recorded]]]) -> int:
    with golden.Restoring(settings.store, codec=find_codec(settings.codec)) as restoring:
        if not restoring.is_private and any(golden.is_private(told) for told, _ in parts):
            raise Problem(
                "What is in the file was encrypted in its store, and would not be in this one.",
                hint="Name a codec: --codec MODULE:NAME, or PERDURE_CODEC.",
            )
        taken = [told["execution"] for told, events in parts if not restoring.restore(told["execution"], events)]
    done = len(parts) - len(taken)
    if settings.json:
        print_json({"imported": done, "taken": taken})
    else:
        say(f"{done:,} executions imported.")
        for execution_id in taken:
            say(f"{execution_id} exists already: left alone.", "yellow")
    return Exit.REFUSED if taken else Exit.OK
