"""A line about work that lasts: on stderr, where a person looks, once a second has gone by; gone when the work ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.live import Live
from rich.text import Text

from perdure.cli.options import Settings
from perdure.cli.output import console

APPEARS_AFTER_S = 1.0
DRAWN_PER_SECOND = 5
RATE_AFTER_S = 0.5  # what went by before that says little


class Progress:
    """What is being done, how far it is, and how fast. A total of 0 is one that nobody knows."""

    def __init__(self, doing: str, unit: str = "", total: int = 0) -> None:
        self.begin(doing, unit, total)

    def begin(self, doing: str, unit: str = "", total: int = 0) -> None:
        """The next part of the work."""
        self._doing, self._unit, self._total = doing, unit, total
        self._done = 0
        self._since = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """That many more are done."""
        self._done += count

    def reach(self, done: int) -> None:
        """That many are done by now."""
        self._done = done

    def text(self, took_s: float, width: int) -> str:
        """The line after that time, as much of it as fits: what, how many, how fast, how long, how long still."""
        parts = [self._doing]
        if self._unit:
            known = self._total >= max(self._done, 1)
            parts.append(f"{self._done:,}{f' of {self._total:,}' if known else ''} {self._unit}")
            if self._done and took_s >= RATE_AFTER_S:
                rate = self._done / took_s
                parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
                parts += [f"{_clock((self._total - self._done) / rate)} left"] if known else []
        parts.insert(3, _clock(took_s))
        while len("  ".join(parts)) > width and len(parts) > 1:
            parts.pop()
        return "  ".join(parts)[:width]

    def __rich__(self) -> Text:
        return Text(self.text(time.monotonic() - self._since, console(stderr=True).width - 1), "dim")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def progress(
    settings: Settings, doing: str, unit: str = "", total: int = 0, *, beside: TextIO | None = None
) -> Iterator[Progress]:
    """Told on a terminal while the block lasts; in pipes, with `--json` and on dumb terminals nothing is.

    Nor where the block writes its result `beside` it, to a terminal. It is drawn by a thread, so that work that blocks
    this one is told as well.
    """
    told, out = Progress(doing, unit, total), console(stderr=True)
    mixed = beside is not None and beside.isatty()
    if settings.json or mixed or not out.is_terminal or out.is_dumb_terminal:
        yield told
        return
    shown = Live(
        told,
        console=out,
        refresh_per_second=DRAWN_PER_SECOND,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    appears = threading.Timer(APPEARS_AFTER_S, shown.start)
    appears.daemon = True
    appears.start()
    try:
        yield told
    finally:
        appears.cancel()
        appears.join()
        shown.stop()
