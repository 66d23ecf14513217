"""Executions as a table whose ids are never cut: they are there to be copied."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from perdure import journal as jn
from perdure.cli.problems import tidy
from perdure.cli.times import duration
from perdure.cli.values import cut
from perdure.cli.words import drawable, first_line, status_sign, waits_text

NOTE_MIN = 18
WORKFLOW_MAX = 24
STATUS_WIDTH = 12


class Listing:
    """Draws rows on a console."""

    def __init__(self, out: Console, rows: Sequence[jn.Row], now_ms: int) -> None:
        self.out = out
        self.rows = rows
        self.now_ms = now_ms
        self.id_width = max((len(row.key.execution) for row in rows), default=0)
        self.workflow_width = min(WORKFLOW_MAX, max((len(row.workflow) for row in rows), default=0))
        self.workflow_width = max(self.workflow_width, len("WORKFLOW"))

    def draw(self) -> None:
        """Head and rows; nothing for no rows."""
        if self.rows:
            names = f"{'ID':<{self.id_width}}  {'WORKFLOW':<{self.workflow_width}}"
            self.line(Text(f"{'STATUS':<{STATUS_WIDTH}}  {names}  {'AGE':>6}  {'TOOK':>6}", "dim"))
        for row in self.rows:
            self.row(row)

    def row(self, row: jn.Row) -> None:
        """A line; what it waits for goes below where there is no room."""
        sign, style = status_sign(row.status)
        took = duration(row.closed_at_ms - row.created_at_ms) if row.closed_at_ms is not None else ""
        line = Text.assemble(
            (f"{sign:<{STATUS_WIDTH}}", style),
            f"  {row.key.execution:<{self.id_width}}",
            f"  {cut(row.workflow, self.workflow_width):<{self.workflow_width}}",
            (f"  {duration(self.now_ms - row.created_at_ms):>6}  {took:>6}", "dim"),
        )
        waits = waits_text(row, self.now_ms)
        note = f"waits for {waits}" if waits else tidy(first_line(row.problem))
        if row.parent_id:
            note = f"child of {row.parent_id}{', ' if note else ''}{note}"
        room = self.out.width - len(line) - 2
        if note and room < min(NOTE_MIN, len(note)):
            self.line(line)
            line, room = Text(" " * STATUS_WIDTH), self.out.width - STATUS_WIDTH - 2
        self.line(Text.assemble(line, "  ", (cut(note, max(room, 1)), style)) if note else line)

    def line(self, text: Text) -> None:
        """Never wrapped."""
        text.rstrip()
        self.out.print(drawable(text, self.out), no_wrap=True, overflow="ignore", crop=False)
