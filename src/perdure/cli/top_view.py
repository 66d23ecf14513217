"""What `perdure top` shows of a reading: a line for pipes, a few lines for terminals of any width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, get_args

from rich.console import Console
from rich.text import Text

import perdure
from perdure import journal as jn
from perdure.cli.problems import tidy
from perdure.cli.times import duration
from perdure.cli.words import STATUSES, drawable, status_sign

KEPT = 120  # rates of the past that are drawn, if there is room
LABEL = 12
BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "._-=+*#@"
Words = list[tuple[str, str]]


class Reading(NamedTuple):
    """What a store and its engine told at a moment; `delta`: since the reading before."""

    store: str
    at_ms: int
    counts: dict[jn.Status, int]
    figures: perdure.Figures | None
    delta: perdure.Figures | None

    def per_second(self, name: str) -> float:
        """The rate of what `perdure.Figures` counts under this name."""
        if self.delta is None or self.delta.uptime_ms <= 0:
            return 0.0
        return float(getattr(self.delta, name)) / self.delta.uptime_ms * 1000


def line(reading: Reading) -> str:
    """For pipes: everything that changes, without colours."""
    counts = ", ".join(f"{count} {status}" for status, count in _counts(reading)) or "no executions"
    if reading.delta is None or reading.figures is None:
        return f"{counts}; no worker runs"
    now = reading.figures
    parts = [
        counts,
        f"{reading.per_second('steps'):.0f} steps/s",
        f"{now.running} running",
        f"{reading.per_second('commits'):.0f} commits/s ({_latency(reading.delta)})",
        f"waiting: {now.waiting} steps, {now.queued} commits, {now.loading} loading, {now.held} starts",
        f"{_tokens(reading):.0f} tokens/s",
    ]
    return "; ".join(parts)


def lines(reading: Reading, rates: Sequence[float], out: Console) -> list[Text]:
    """For terminals, each within its width."""
    told = [Text.assemble((tidy(reading.store), "bold"), "  ", *_worker(reading))]
    told += _labelled("executions", _executions(reading), out.width)
    if reading.delta is not None and reading.figures is not None:
        now, delta = reading.figures, reading.delta
        steps: Words = [
            (f"{reading.per_second('steps'):,.0f}/s", "bold"),
            (f"{now.running:,} running", ""),
            (f"{now.waiting:,} waiting", "yellow" if now.waiting else "dim"),
        ]
        told += _labelled("steps", steps, out.width)
        told += _labelled("commits", [(f"{reading.per_second('commits'):,.0f}/s", "bold"), (_latency(delta), "")], 80)
        told += _labelled("queues", _queues(now), out.width)
        told += _labelled("tokens", _spent(reading), out.width)
        told.append(_sparkline(rates, out))
    for each in told:
        each.truncate(out.width)
        drawable(each, out)
    return told


def _labelled(label: str, words: Words, width: int) -> list[Text]:
    """Words behind a label, on as many lines as they need."""
    found = [Text(f"{label:<{LABEL}}", "dim")]
    for word, style in words:
        if len(found[-1]) > LABEL and len(found[-1]) + len(word) > width:
            found.append(Text(" " * LABEL))
        found[-1].append(word, style).append("  ")
    return found


def _worker(reading: Reading) -> Words:
    if reading.figures is None:
        return [("no worker runs", "yellow")]
    return [(f"{reading.figures.worker}, up {duration(reading.figures.uptime_ms)}", "dim")]


def _counts(reading: Reading) -> list[tuple[jn.Status, int]]:
    return [(status, reading.counts[status]) for status in get_args(jn.Status) if reading.counts.get(status)]


def _executions(reading: Reading) -> Words:
    told: Words = []
    for status, count in _counts(reading):
        sign, style = status_sign(status)
        told.append((f"{sign.split()[0]} {count:,} {status}", style))
    return told or [("none", "dim")]


def _queues(now: perdure.Figures) -> Words:
    depths = {"to write": now.queued, "loading": now.loading, "starts held": now.held}
    memory = (f"in memory: {now.active:,} active, {now.resting:,} resting", "dim")
    return [*((f"{depth:,} {name}", "yellow" if depth else "dim") for name, depth in depths.items()), memory]


def _spent(reading: Reading) -> Words:
    now = reading.figures
    assert now is not None
    rates = [f"{reading.per_second(name):,.0f}/s {word}" for name, word in _TOKENS.items()]
    total = f"in all {now.input_tokens:,} in, {now.output_tokens:,} out"
    money = f", {now.cost_micros / 1_000_000:,.2f} spent" if now.cost_micros else ""
    return [(", ".join(rates), "bold" if _tokens(reading) else "dim"), (total + money, "dim")]


_TOKENS = {"input_tokens": "in", "output_tokens": "out"}


def _tokens(reading: Reading) -> float:
    return sum(reading.per_second(name) for name in _TOKENS)


def _latency(delta: perdure.Figures) -> str:
    p50, p99 = delta.commit_ms(0.5), delta.commit_ms(0.99)
    if p50 is None or p99 is None:
        return "none lately"
    return f"p50 {p50:.3g} ms, p99 {p99:.3g} ms"


def _sparkline(rates: Sequence[float], out: Console) -> Text:
    """Steps a second of the last readings, the newest at the right."""
    bars = BARS if out.encoding.lower().startswith("utf") else ASCII_BARS
    shown = list(rates)[-max(1, out.width - LABEL - 1) :]
    most = max(shown, default=0.0) or 1.0
    drawn = "".join(bars[min(len(bars) - 1, int(rate / most * (len(bars) - 1) + 0.5))] for rate in shown)
    return Text.assemble(" " * LABEL, (drawn, STATUSES["active"][1]))
