"""`perdure top`: what a store and its engine are doing, again and again. Keeps two readings and a row of rates."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

import perdure
from perdure import journal as jn
from perdure.cli.client import client_of, go
from perdure.cli.options import SecondsType, Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import console, print_json
from perdure.cli.times import now_ms
from perdure.cli.top_view import KEPT, Reading, line, lines
from perdure.store.reader import statuses

COUNTING_SHARE = 20  # of the time, one part at most goes into counting executions


@click.command()
@click.option(
    "--interval",
    type=SecondsType(min=0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two readings.",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after so many readings. Default: Ctrl-C.")
@click.option("--once", is_flag=True, help="One reading, after one interval: the same as --count 1.")
@shared_options
def top(interval: float, count: int | None, *, once: bool) -> int:
    """Watch a store and its worker at work.

    Executions by status, steps per second, what waits in queues, how long commits take, tokens.

    In a terminal it is drawn in place; in pipes a line is printed for each reading. Ctrl-C ends it.

    \b
      perdure top
      perdure top --once --json | jq .per_second.steps
    """
    try:
        go(_top(current(), interval, 1 if once else count))
    except KeyboardInterrupt:
        sys.stdout.flush()
    return 0


async def _top(settings: Settings, interval_s: float, count: int | None) -> None:
    async with client_of(settings) as client:
        watch = _Watch(client, settings.store_name)
        await watch.look()
        if settings.json or not sys.stdout.isatty():
            await _printed(watch, interval_s, count, as_json=settings.json)
        else:
            await _drawn(watch, interval_s, count)


async def _printed(watch: _Watch, interval_s: float, count: int | None, *, as_json: bool) -> None:
    while count is None or watch.readings < count:
        await asyncio.sleep(interval_s)
        reading = await watch.look()
        if as_json:
            print_json(_shape(reading))
        else:
            print(line(reading))  # noqa: T201 - the result
        sys.stdout.flush()


async def _drawn(watch: _Watch, interval_s: float, count: int | None) -> None:
    out = console()
    with Live(console=out, auto_refresh=False) as live:
        while count is None or watch.readings < count:
            await asyncio.sleep(interval_s)
            drawn: list[Text] = lines(await watch.look(), list(watch.rates), out)
            live.update(Group(*drawn), refresh=True)


class _Watch:
    """Takes readings of one store."""

    def __init__(self, client: perdure.Client, store: str) -> None:
        self._client = client
        self._store = store
        self._before: perdure.Figures | None = None
        self._counts: dict[jn.Status, int] = {}
        self._count_again_at = 0.0
        self.readings = -1  # the first is only compared with
        self.rates: deque[float] = deque(maxlen=KEPT)

    async def look(self) -> Reading:
        """What is now, and what has happened since the last time."""
        figures = await self._client.figures()
        if time.monotonic() >= self._count_again_at:
            await self._count()
        before, self._before = self._before, figures
        delta = None if figures is None else figures.since(before or figures)
        self.readings += 1
        reading = Reading(self._store, now_ms(), self._counts, figures, delta)
        if self.readings:
            self.rates.append(reading.per_second("steps"))
        return reading

    async def _count(self) -> None:
        began = time.monotonic()
        client = self._client
        self._counts = await asyncio.to_thread(statuses, client.store, client.namespace)
        ended = time.monotonic()
        self._count_again_at = ended + (ended - began) * COUNTING_SHARE


def _shape(reading: Reading) -> dict[str, Any]:
    """See docs/reference/cli.md."""
    figures, delta = reading.figures, reading.delta
    told: dict[str, Any] = {"at_ms": reading.at_ms, "executions": reading.counts, "worker": None}
    if figures is None or delta is None:
        return told
    counted = ("steps", "commits", "events", "input_tokens", "output_tokens", "cost_micros")
    return told | {
        "worker": {"name": figures.worker, "uptime_ms": figures.uptime_ms},
        "per_second": {name: round(reading.per_second(name), 2) for name in counted},
        "commit_ms": {"p50": delta.commit_ms(0.5), "p99": delta.commit_ms(0.99)},
        "in_memory": {"active": figures.active, "resting": figures.resting},
        "running": figures.running,
        "queues": {
            "steps": figures.waiting,
            "commits": figures.queued,
            "loading": figures.loading,
            "starts": figures.held,
        },
        "total": {name: getattr(figures, name) for name in counted},
    }
