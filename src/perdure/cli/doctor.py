"""`perdure doctor`: whether this machine and this store are well, and what to do where they are not."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
from rich.text import Text

import perdure
from perdure import journal as jn
from perdure.cli.client import client_of, go
from perdure.cli.options import Exit, Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import command_line, console, print_json
from perdure.cli.problems import problem_of, tidy
from perdure.cli.progress import Progress, progress
from perdure.store.reader import integrity, local_owner, sqlite_version, statuses

LITTLE_SPACE = 100 * 2**20
COUNTED = 1_000  # what people must decide: more is not looked at
BIG_LOG = 256 * 2**20
OLDEST_SQLITE = (3, 51, 0)


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    found: str
    well: bool = True
    cure: str = ""


@click.command()
@shared_options
def doctor() -> int:
    """Look at this machine and at the store.

    Versions, disk, integrity, who works on it, what waits for people. Nothing is changed. Exit code 4 if
    something is wrong with the store or the disk, else 0.
    """
    settings = current()
    with progress(settings, "looking at the disk") as bar:
        findings = [*_machine(), *_disk(settings, bar)]
        bar.begin("looking into the store")
        findings += go(_store(settings))
    if settings.json:
        for finding in findings:
            print_json(finding._asdict())
    else:
        _print(findings)
    return Exit.OK if all(each.well for each in findings) else Exit.STORE


def _machine() -> Iterator[Finding]:
    yield Finding("Perdure", f"{perdure.__version__}, Python {platform.python_version()}, {platform.system()}")
    version = sqlite_version()
    well = tuple(int(part) for part in version.split(".")) >= OLDEST_SQLITE
    yield Finding("SQLite", version, well, "" if well else "Update apsw: older ones have a bug that damages the log.")
    supported = sys.version_info >= (3, 11)
    yield Finding(
        "Python", "supported" if supported else "too old", supported, "" if supported else "Use 3.11 or newer."
    )


def _disk(settings: Settings, bar: Progress) -> Iterator[Finding]:
    path = Path(settings.store_name).absolute()
    folder = path.parent
    if not folder.is_dir():
        yield Finding(
            "Folder", tidy(str(folder)), well=False, cure="It does not exist: make it, or name another store."
        )
        return
    free = shutil.disk_usage(folder).free
    cure = "" if free >= LITTLE_SPACE else "Make room: with a full disk nothing can be recorded."
    yield Finding("Disk", f"{free / 2**30:.1f} GiB free", free >= LITTLE_SPACE, cure)
    writable = os.access(folder, os.W_OK)
    yield Finding(
        "Folder", tidy(str(folder)), writable, "" if writable else "It cannot be written: change its permissions."
    )
    log = Path(f"{path}-wal")
    size = log.stat().st_size if log.exists() else 0
    cure = "" if size < BIG_LOG else "Something reads for very long: end it, and the log shrinks by itself."
    yield Finding("Write-ahead log", f"{size / 2**20:.1f} MiB", size < BIG_LOG, cure)
    if path.is_file():
        bar.begin(f"checking {path.stat().st_size / 2**20:,.1f} MiB")
        yield _integrity(path)


def _integrity(path: Path) -> Finding:
    found = integrity(str(path))
    size = path.stat().st_size / 2**20
    cure = "" if found == "ok" else "Restore the newest copy; `perdure explain P0406` tells more."
    return Finding("File", f"{size:,.1f} MiB, {'sound' if found == 'ok' else found}", found == "ok", cure)


async def _store(settings: Settings) -> list[Finding]:
    try:
        async with client_of(settings) as client:
            return [finding async for finding in _inside(settings, client)]
    except perdure.PerdureError as error:
        problem = problem_of(error)
        return [Finding("Store", tidy(settings.store_name), well=False, cure=problem.message)]


async def _inside(settings: Settings, client: perdure.Client) -> AsyncIterator[Finding]:
    counts = Counter(await asyncio.to_thread(statuses, client.store, client.namespace))
    most_first = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    shown = ", ".join(f"{count:,} {status}" for status, count in most_first) or "none"
    yield Finding("Executions", shown)
    owner = local_owner(client.store)
    unfinished = sum(counts[status] for status in jn.OPEN_STATUSES)
    idle = owner is None and unfinished > counts["stalled"]
    cure = f"Start one: {command_line(settings, 'worker', 'MODULE')}" if idle else ""
    yield Finding("Worker", "running" if owner is not None else "none runs", cure=cure)
    stalled = counts["stalled"]
    if stalled:
        yield Finding("Stalled", f"{stalled:,} wait for a fix", cure=f"See {command_line(settings, 'stalled')}")
    unresolved = await client.unresolved(limit=COUNTED)
    if unresolved:
        found = f"{_at_least(unresolved)} of which nobody knows whether they happened"
        yield Finding("Steps", found, cure=f"See {command_line(settings, 'unresolved')}")
    questions = await client.asks(limit=COUNTED)
    if questions:
        found = f"{_at_least(questions)} to people, open"
        yield Finding("Questions", found, cure=f"See {command_line(settings, 'asks')}")


def _at_least(page: Sequence[object]) -> str:
    return f"{len(page):,}{' or more' if len(page) == COUNTED else ''}"


def _print(findings: list[Finding]) -> None:
    out = console()
    width = max(len(each.what) for each in findings)
    for each in findings:
        mark = (
            ("ok  ", "green")
            if each.well and not each.cure
            else ("look", "yellow")
            if each.well
            else ("bad ", "bold red")
        )
        out.print(Text.assemble(mark, "  ", (each.what.ljust(width), "bold"), "  ", each.found))
        if each.cure:
            out.print(Text(" " * (width + 8) + each.cure, "yellow"))
