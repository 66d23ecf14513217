"""A timeline as lines of a terminal: one for each entry, and below it what does not fit on one.

The columns are as wide as their content needs; what is left is for the values. Brackets join what ran at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from perdure import journal as jn
from perdure.cli.header import header
from perdure.cli.problems import tidy
from perdure.cli.timeline import Entry, Mark, Timeline, Tried
from perdure.cli.times import duration
from perdure.cli.values import argument_lines, arguments_text, cut, value_text
from perdure.cli.words import GLYPHS, drawable, failure_line, waits_text, without_pointers

TIME_WIDTH = 8
NAME_MAX, LOCATION_MAX = 28, 24
VALUES_MIN = 48
BARS_FROM, BAR_WIDTH = 120, 16
FRAMES_SHOWN = 3


class Columns(NamedTuple):
    """Widths; 0 where a column is not needed."""

    gutter: int
    name: int
    took: int
    bar: int
    location: int


class Span(NamedTuple):
    """From when to when a group of entries ran."""

    first_ms: int
    last_ms: int


class View:
    """Draws one execution on a console."""

    def __init__(self, console: Console, row: jn.Row, told: Timeline, *, full: bool, now_ms: int, worker: bool) -> None:
        self.console = console
        self.row = row
        self.told = told
        self.full = full
        self.now_ms = now_ms
        self.worker = worker
        self.width = console.width
        first_ms = told.past[0].at_ms if told.past else None
        self.zero_ms = row.created_at_ms if first_ms is None else min(first_ms, row.created_at_ms)
        self.spans = _spans(told.past)
        self.columns = self._columns([entry for entry in told.past + told.open if _is_timed(entry)])

    def _columns(self, timed: list[Entry]) -> Columns:
        names = [len(_title(entry)) for entry in timed]
        locations = [len(entry.location) for entry in timed]
        return Columns(
            gutter=2 if self.spans else 0,
            name=min(NAME_MAX, max(names, default=0)),
            took=max((len(self.took(entry)) for entry in timed), default=0),
            bar=BAR_WIDTH if self.spans and self.width >= BARS_FROM else 0,
            location=min(LOCATION_MAX, max(locations, default=0)),
        )

    def glyph(self, mark: Mark) -> tuple[str, str]:
        return GLYPHS[mark][0], GLYPHS[mark][2]

    def draw(self) -> None:
        """All of it."""
        lines = header(self.row, self.told, width=self.width, full=self.full, now_ms=self.now_ms)
        for line in lines:
            self.paragraph(line, Text()) if self.full else self.line(line)
        self.console.print()
        groups = [0, *(entry.group for entry in self.told.past), 0]
        for index, entry in enumerate(self.told.past, 1):
            self.entry(entry, self.bracket(*groups[index - 1 : index + 2]))
        for entry in self.told.open:
            self.entry(entry, " " * self.columns.gutter)
        self.ending()

    def line(self, text: Text) -> None:
        """On one line, however narrow."""
        text.truncate(self.width, overflow="ellipsis")
        text.rstrip()
        self.console.print(drawable(text, self.console), no_wrap=True, overflow="ignore", crop=False)

    def paragraph(self, text: Text, margin: Text) -> None:
        """Wrapped between the margin and the edge."""
        for part in text.split():
            for line in part.wrap(self.console, max(20, self.width - len(margin))):
                line.rstrip()
                self.console.print(drawable(margin + line, self.console))

    # --- an entry's line ---

    def entry(self, entry: Entry, bracket: str) -> None:
        """Its line; below it folded attempts, tracebacks and, with `--full`, the whole values."""
        if entry.mark == "worker":
            self.line(self.worker_line(entry))
            return
        at = "now" if entry.at_ms is None else duration(entry.at_ms - self.zero_ms)
        glyph, style = self.glyph(entry.mark)
        line = Text.assemble((f"{at:>{TIME_WIDTH}} ", "dim"), (bracket, "blue"), (f"{glyph} ", style))
        margin = len(line)
        if _is_timed(entry):
            self.add_columns(line, entry, style)
        else:
            line.append(entry.title, style if entry.mark != "note" else "")
        self.add_values(line, entry, margin)
        inside = bracket.replace("╭", "│").replace("╰", " ")
        indent = Text.assemble(" " * (TIME_WIDTH + 1), (inside, "blue"), "  ")
        for below in self.below(entry):
            self.paragraph(below, indent)

    def add_columns(self, line: Text, entry: Entry, style: str) -> None:
        columns = self.columns
        line.append(f"{cut(_title(entry), columns.name):<{columns.name}}", "" if entry.mark == "done" else style)
        line.append(f"  {self.took(entry):>{columns.took}}", "dim")
        if columns.bar:
            line.append(f"  {self.bar(entry)}", "blue")
        if columns.location:
            line.append(f"  {cut(entry.location, columns.location):<{columns.location}}", "dim")

    def took(self, entry: Entry) -> str:
        if entry.took_ms is not None:
            return duration(entry.took_ms)
        runs = self.worker and entry.started_at_ms is not None
        return duration(max(0, self.now_ms - (entry.started_at_ms or 0))) if runs else ""

    def bracket(self, before: int, group: int, after: int) -> str:
        if not group:
            return " " * self.columns.gutter
        return "╭ " if before != group else "╰ " if after != group else "│ "

    def bar(self, entry: Entry) -> str:
        """When it ran, within its group."""
        if not entry.group or entry.took_ms is None:
            return " " * BAR_WIDTH
        span = self.spans[entry.group]
        whole_ms = max(1, span.last_ms - span.first_ms)
        begin = ((entry.started_at_ms or 0) - span.first_ms) * (BAR_WIDTH - 1) // whole_ms
        end = max(begin + 1, round(((entry.at_ms or 0) - span.first_ms) / whole_ms * BAR_WIDTH))
        return f"{' ' * begin}{'━' * (end - begin)}{' ' * (BAR_WIDTH - end)}"

    def worker_line(self, entry: Entry) -> Text:
        glyph, style = self.glyph("worker")
        at = duration((entry.at_ms or 0) - self.zero_ms)
        told = f"{at:>{TIME_WIDTH}} {'─' * (1 + self.columns.gutter)}{glyph} {entry.title} "
        return Text(told + "─" * max(0, min(self.width, 100) - len(told)), style)

    # --- what went in and came out ---

    def add_values(self, line: Text, entry: Entry, margin: int) -> None:
        """Behind the columns, or below them where there is no room."""
        if self.full:
            line.append(f"  {entry.text}" if entry.text else "")
            self.line(line)
            return
        room, below = self.width - len(line) - 2, self.width - margin
        told = self.values(entry, below)
        if len(told) > room >= VALUES_MIN:
            told = self.values(entry, room)
        elif len(told) > room:
            self.line(line)
            line = Text(" " * (margin - 2))
        self.line(Text.assemble(line, "  ", told))

    def values(self, entry: Entry, room: int) -> Text:
        text = Text(f"{entry.text}  " if entry.text else "")
        if entry.whole:
            return text  # its input is below
        room -= len(text)
        if entry.at_ms is None and (entry.mark == "retry" or not self.worker):
            return text + Text(self.again(entry), "yellow")
        if entry.failure is not None:
            return text + Text(cut(failure_line(entry.failure), room), "red")
        if entry.progress is not None:
            return text + Text(cut(f"progress {value_text(entry.progress)}", room))
        return text + self.given_and_came(_given(entry), value_text(entry.output), room)

    def given_and_came(self, given: str, came: str, room: int) -> Text:
        if not (given and came):
            return Text(cut(given or came, room))
        arrow = " → "
        room -= len(arrow)
        given = cut(given, max(room // 2, room - len(came)))
        return Text.assemble(given, (arrow, "dim"), cut(came, room - len(given)))

    def again(self, entry: Entry) -> str:
        """When something that was begun goes on."""
        left_ms = entry.retry_at_ms - self.now_ms
        if entry.mark == "retry" and left_ms > 0:
            return f"attempt {entry.attempt + 1} in {duration(left_ms)}"
        if not self.worker:
            return "waits for a worker"
        return f"attempt {entry.attempt + 1} now"

    def below(self, entry: Entry) -> Iterator[Text]:
        glyph, style = self.glyph("retry")
        for tried in entry.tried:
            told = f"{glyph} {_attempts(tried)}: "
            failure = failure_line(tried.failure)
            room = self.width - TIME_WIDTH - len(told) - 5
            yield Text.assemble((told, style), (failure if self.full else cut(failure, room), "dim"))
        if entry.whole and entry.input is not None:
            yield from (Text(line) for line in argument_lines(entry.input))
            yield Text(f"perdure resolve {self.row.key.execution} {entry.seq} says how it came out", "dim")
        elif self.full:
            yield from self.whole_values(entry)
        if entry.failure is not None and (self.full or entry.title == "failed"):
            yield from self.traceback(entry.failure)

    def whole_values(self, entry: Entry) -> Iterator[Text]:
        told = [("in", _given(entry)), ("out", value_text(entry.output)), ("at", value_text(entry.progress))]
        for label, text in told:
            if text:
                yield Text.assemble((f"{label:<4}", "dim"), text)
        if entry.failure is not None:
            yield Text(failure_line(entry.failure), "red")

    def traceback(self, failure: jn.FailureInfo) -> Iterator[Text]:
        """The frames, and what caused it; without `--full` the last few places only."""
        lines = tidy(failure.traceback).rstrip().splitlines()
        if not self.full:
            lines = [line.lstrip() for line in lines if line.lstrip().startswith("File ")][-FRAMES_SHOWN:]
        yield from (Text(line, "dim") for line in [*lines, *_untyped(failure)])
        others = [("caused by", failure.cause)] if failure.cause is not None else []
        for word, other in others + [("among them", member) for member in failure.members]:
            told = f"{word} {failure_line(other)}"
            yield Text(told if self.full else cut(told, self.width - TIME_WIDTH - 5), "red")
            if self.full:
                yield from self.traceback(other)

    # --- what is next ---

    def ending(self) -> None:
        """Why it does not go on by itself."""
        margin = Text(" " * (TIME_WIDTH + 1 + self.columns.gutter))
        now = Text.assemble((f"{'now':>{TIME_WIDTH}} ", "dim"), " " * self.columns.gutter)
        waits = waits_text(self.row, self.now_ms)
        if waits:
            glyph, style = self.glyph("waiting")
            self.line(now + Text(f"{glyph} waits for {waits}", style))
        if self.row.status == "stalled":
            glyph, style = self.glyph("stalled")
            self.line(now + Text(f"{glyph} stalled", style))
            self.paragraph(Text(without_pointers(tidy(self.row.problem)).rstrip(), "red"), margin + Text("  "))
        elif self.row.status in jn.OPEN_STATUSES and not self.worker:
            text = "no worker runs on this store; it goes on when one does"
            self.line(margin + Text(f"{self.glyph('note')[0]} {text}", "yellow"))


def _is_timed(entry: Entry) -> bool:
    return entry.started_at_ms is not None


def _title(entry: Entry) -> str:
    return entry.title if entry.attempt <= 1 or entry.tried else f"{entry.title} #{entry.attempt}"


def _given(entry: Entry) -> str:
    return value_text(entry.input) if entry.mark == "signal" else arguments_text(entry.input)


def _attempts(tried: Tried) -> str:
    return f"attempt {tried.first}" if tried.first == tried.last else f"attempts {tried.first} to {tried.last}"


def _spans(entries: list[Entry]) -> dict[int, Span]:
    found: dict[int, Span] = {}
    for entry in entries:
        if entry.group and entry.took_ms is not None:
            first_ms, last_ms = entry.started_at_ms or 0, entry.at_ms or 0
            known = found.get(entry.group, Span(first_ms, last_ms))
            found[entry.group] = Span(min(known.first_ms, first_ms), max(known.last_ms, last_ms))
    return found


def _untyped(failure: jn.FailureInfo) -> list[str]:
    return [f"not raised as {failure.declared}: {failure.untyped}"] if failure.untyped else []
