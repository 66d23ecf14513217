"""What the demo shows: one line for each thing that happened, a live line below on terminals, a summary at the end."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from examples.research.measure import Figures, Life, Recorded
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

BAR_WIDTH_MAX = 72
WORD = {
    "make_plan": "plan",
    "search": "search",
    "read": "read",
    "take_note": "note",
    "summarise": "summary",
}


class Screen:
    """A console with a live line at its bottom, which plain outputs do without."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.began = time.time()
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(self._spinner, console=self.console, transient=True, refresh_per_second=10)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def title(self, heading: str, facts: Sequence[tuple[str, str]]) -> None:
        """What this run is about."""
        self.console.print(Text(heading, style="bold"))
        for name, fact in facts:
            self.console.print(Text.assemble((f"  {name:<8}", "dim"), fact))
        self.console.print()

    def say(self, mark: str, text: str, *, style: str = "", at: float | None = None) -> None:
        """One thing that happened."""
        elapsed = (at or time.time()) - self.began
        line = Text.assemble((f"{elapsed:6.1f}s  ", "dim"), (f"{mark} {text}", style))
        line.truncate(max(40, self.console.width), overflow="ellipsis")
        self.console.print(line)

    def step(self, step: Recorded) -> None:
        """A step's result is in the journal."""
        cost = f"  {step.tokens} tokens" if step.tokens else ""
        self.say("✓", f"{WORD.get(step.name, step.name):<8} {step.caption}{cost}", at=step.at)

    def now(self, text: str) -> None:
        """What goes on at the moment; terminals only."""
        self._spinner.update(text=Text(text, style="cyan"))

    def show(self, *parts: RenderableType) -> None:
        self.console.print(Group(*parts))


def summary(figures: Figures, lives: Sequence[Life], steps: Sequence[Recorded], *, width: int) -> RenderableType:
    """The end of the story: lives of the workers on one time line, and the figures."""
    parts = (timeline(lives, steps, width), Text(), numbers(figures, lives))
    return Panel(Padding(Group(*parts), (1, 2)), title="What happened", title_align="left", width=min(width, 100))


def timeline(lives: Sequence[Life], steps: Sequence[Recorded], width: int) -> Table:
    """A row for each process, with a dot where a step was recorded and a cross where it was killed."""
    first, last = lives[0].began, max(life.ended or life.began for life in lives)
    cells = max(20, min(BAR_WIDTH_MAX, width - 36))

    def cell(at: float) -> int:
        return min(cells - 1, max(0, int((at - first) / max(0.001, last - first) * cells)))

    table = Table.grid(padding=(0, 2))
    for number, life in enumerate(lives, 1):
        ended = life.ended or last
        dots = {cell(step.at) for step in steps if life.began <= step.at <= ended}
        row = bar(cell(life.began), cell(ended), dots, killed=life.killed)
        table.add_row(f"worker {number}", row, Text("kill -9" if life.killed else "done", style="dim"))
    table.add_row("", Text(f"0 s{f'{last - first:.0f} s':>{cells - 3}}", style="dim"), "")
    return table


def bar(start: int, end: int, dots: set[int], *, killed: bool) -> Text:
    """One life: a line with dots, and how it ended."""
    line = "".join("•" if cell in dots else "─" for cell in range(start, end))
    mark = ("✗", "bold red") if killed else ("✓", "green")
    return Text.assemble(" " * start, (line, "green"), mark)


def numbers(figures: Figures, lives: Sequence[Life]) -> Table:
    """The figures, each with what it means."""
    killed = sum(life.killed for life in lives)
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="bold")
    table.add_column()
    table.add_column(style="dim")
    table.add_row(f"{killed}", "kills", "of the worker, at random moments")
    table.add_row(f"{figures.steps:,}", "steps recorded", f"step bodies ran {figures.bodies_run:,} times")
    table.add_row(f"{figures.replayed:,}", "replayed", "taken from the journal after restarts")
    repeated = Text(f"{figures.repeated:,}", style="bold green" if figures.repeated == 0 else "bold red")
    table.add_row(repeated, "recorded steps repeated", "says a ledger outside the journal")
    table.add_row(f"{figures.cut_short:,}", "steps cut short", "not recorded when killed: ran again")
    table.add_row(f"{figures.tokens_spent:,}", "tokens spent", "as the model's API counted")
    table.add_row(f"{figures.tokens_kept:,}", "tokens not spent again", "thanks to the journal")
    return table
