"""`perdure journal`, `export` and `import`: journals event by event, and from one store to another."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TextIO

import click
from rich.text import Text

import perdure
from perdure import journal as jn
from perdure.cli import shapes
from perdure.cli.client import client_of, go, known, rows_of
from perdure.cli.inputs import standard_input
from perdure.cli.modules import find_codec
from perdure.cli.options import EVENT, Exit, Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import console, print_json, say, to_json
from perdure.cli.problems import Problem, problem_of
from perdure.cli.progress import progress
from perdure.cli.times import clock
from perdure.cli.words import counted
from perdure.store.reader import statuses
from perdure.testing import golden

MOST_SHOWN = 1_000
FOLLOWED = "followed"


@click.command()
@click.argument("execution_id", metavar="ID")
@click.option("--from", "start", type=EVENT, default=0, metavar="N", help="Begin at event N.")
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
        shown = shapes.of_recorded(recorded)
        if settings.json:
            print_json(shown)
            continue
        fields = {name: value for name, value in shown.items() if name not in _HEADER and _tells(recorded, name, value)}
        head = Text.assemble((f"{recorded.position:>6}  ", "dim"), clock(recorded.at_ms), "  ", (shown["type"], "bold"))
        out.print(Text.assemble(head, "  ", to_json(fields) if fields else ""))
    if start >= len(events):
        say(f"{execution_id} has {counted(len(events), 'event')}, the last of them {len(events) - 1}.", "yellow")
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
    with _target(output) as file:
        go(_export(current(), dict.fromkeys(execution_ids), file, decrypted=decrypted))


@contextmanager
def _target(output: str | None) -> Iterator[TextIO]:
    """Standard output, or a file that is what it was until all is written."""
    if output is None:
        yield sys.stdout
        return
    path = Path(output).resolve()
    special = path.exists() and not path.is_file()  # such as a pipe
    written = path if special else path.with_name(f"{path.name}.part")
    try:
        with written.open("w", encoding="utf-8") as file:
            yield file
        if not special:
            written.replace(path)
    except OSError as error:
        raise Problem(f"{output} cannot be written: {error.strerror}.") from error
    finally:
        if not special:
            written.unlink(missing_ok=True)


async def _export(settings: Settings, ids: Collection[str], file: TextIO, *, decrypted: bool) -> None:
    count = 0
    async with client_of(settings) as client:
        if client.handle("any").is_private and not decrypted:
            raise Problem(
                "The values in this store are encrypted; an export has them in clear.",
                hint="Pass --decrypted to write them so, and keep the file as you keep the keys.",
            )
        for execution_id in ids:
            await known(client, execution_id)
        total = len(ids) or sum((await asyncio.to_thread(statuses, client.store, client.namespace)).values())
        with progress(settings, "exporting", "executions", total, beside=file) as bar:
            held: list[str] = []
            async for execution_id in _wanted(client, ids):
                try:
                    lines = await golden.lines_of(client.handle(execution_id))
                except perdure.ExecutionNotFound:
                    continue  # it has been removed meanwhile
                _write(file, held, followed=True)
                held = lines
                count += 1
                bar.advance()
            _write(file, held, followed=False)
    say(f"{counted(count, 'execution')} exported.", "dim")


def _write(file: TextIO, lines: Sequence[str], *, followed: bool) -> None:
    """One journal; its header says whether another one follows, so that a file that was cut off is known as such."""
    if followed and lines:
        lines = [json.dumps(json.loads(lines[0]) | {FOLLOWED: True}), *lines[1:]]
    file.writelines(line + "\n" for line in lines)


async def _wanted(client: perdure.Client, ids: Collection[str]) -> AsyncIterator[str]:
    for execution_id in ids:
        yield execution_id
    if not ids:
        async for page in rows_of(client):
            for row in page:
                yield row.key.execution


@click.command(name="import")
@click.argument("file", metavar="FILE")
@shared_options
def import_(file: str) -> int:
    """Bring exported executions into this store.

    It is made if it is missing. `-` reads standard input. No engine may run on it. Ids that exist already are left
    alone, and told. Unfinished executions go on with the next worker. Of a file that is damaged or was cut off nothing
    is imported. Exit code 7 if any id was taken.
    """
    with _source(file) as lines:
        return _import(current(), file, lines)


@contextmanager
def _source(file: str) -> Iterator[TextIO]:
    """Its text, which is read twice: what comes from a pipe is kept meanwhile."""
    try:
        with nullcontext(standard_input()) if file == "-" else Path(file).open(encoding="utf-8") as opened:
            if file != "-" and opened.seekable():
                yield opened
                return
            with tempfile.TemporaryFile("w+", encoding="utf-8") as kept:
                shutil.copyfileobj(opened, kept)
                yield kept
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Problem(f"{file} cannot be read: {reason}.") from error


@contextmanager
def _restoring(settings: Settings) -> Iterator[golden.Restoring]:
    try:
        with golden.Restoring(settings.store, codec=find_codec(settings.codec)) as restoring:
            yield restoring
    except perdure.StoreBusy as error:
        hint = "Stop it first: an import needs the store for itself."
        raise problem_of(error, error.what(), hint=hint) from None


def _import(settings: Settings, name: str, file: TextIO) -> int:
    """Nothing is written before all of it was read."""
    done, taken, private = 0, list[str](), False
    with progress(settings, "reading", "executions") as bar:
        total = 0
        for header, _ in _parts(name, file):
            private = private or golden.is_private(header)
            bar.reach(total := total + 1)
        with _restoring(settings) as restoring:
            if private and not restoring.is_private:
                raise Problem(
                    "What is in the file was encrypted in its store, and would not be in this one.",
                    hint="Name a codec: --codec MODULE:NAME, or PERDURE_CODEC.",
                )
            bar.begin("importing", "executions", total)
            for header, events in _parts(name, file):
                if restoring.restore(header["execution"], events):
                    done += 1
                else:
                    taken.append(header["execution"])
                bar.advance()
    if settings.json:
        print_json({"imported": done, "taken": taken})
    else:
        say(f"{counted(done, 'execution')} imported.")
        for execution_id in taken:
            say(f"{execution_id} exists already: left alone.", "yellow")
    return Exit.REFUSED if taken else Exit.OK


def _parts(name: str, file: TextIO) -> Iterator[tuple[dict[str, Any], list[jn.Recorded]]]:
    """Each execution's header and events.

    Raises:
        Problem: it is no export, or damaged.
    """
    file.seek(0)
    lines: list[str] = []
    first = 1
    number = 0
    for number, line in enumerate(file, 1):
        if lines and golden.KIND in line and _is_header(line):
            yield _part(name, lines, first)
            lines, first = [], number
        if lines or line.strip():
            lines.append(line)
        else:
            first = number + 1
    part = _part(name, lines, first)
    if part[0].get(FOLLOWED, False):
        raise _unusable(name, f"it ends at line {number}, and more executions were to follow")
    yield part


def _unusable(name: str, why: str, code: str = "") -> Problem:
    return Problem(f"{name} cannot be imported: {why}.", hint="Nothing was imported. Export it again.", code=code)


def _part(name: str, lines: Sequence[str], first: int) -> tuple[dict[str, Any], list[jn.Recorded]]:
    try:
        header, events = golden.parse(lines, first=first)
        golden.check_start(header["execution"], events)
    except perdure.errors.CorruptJournal as error:
        raise _unusable(name, str(error.fields["detail"]), error.code) from error
    return header, events


def _is_header(line: str) -> bool:
    try:
        return json.loads(line).get("kind") == golden.KIND  # type: ignore[no-any-return]
    except (ValueError, AttributeError, RecursionError):
        return False
