"""What `perdure show` says above the timeline: which execution, how it is, what it waits for or why it stopped."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from rich.text import Text

from perdure import journal as jn
from perdure.cli.attributes import value_text as attribute_text
from perdure.cli.output import to_json
from perdure.cli.problems import tidy
from perdure.cli.timeline import Timeline
from perdure.cli.times import clock, duration
from perdure.cli.values import arguments_text, cut, value_text
from perdure.cli.words import failure_line, first_line, status_sign, waits_text

LABEL_WIDTH = 12


def header(row: jn.Row, timeline: Timeline, *, width: int, full: bool, now_ms: int) -> Iterator[Text]:
    """Its lines: the title, then a label and a value each."""
    sign, style = status_sign(row.status)
    age = duration(now_ms - row.created_at_ms)
    took = f"for {age}" if row.closed_at_ms is None else f"took {duration(row.closed_at_ms - row.created_at_ms)}"
    yield Text.assemble((row.key.execution, "bold"), "  ", (sign, style), f"  {took}")
    for label, value, colour in _facts(row, timeline, f"{clock(row.created_at_ms)}, {age} ago", now_ms):
        if value:
            text = tidy(value)
            shown = text if full else cut(text, width - LABEL_WIDTH)
            yield Text.assemble((f"  {label:<{LABEL_WIDTH - 2}}", "dim"), (shown, colour))


def _facts(row: jn.Row, timeline: Timeline, started: str, now_ms: int) -> Iterator[tuple[str, str, str]]:
    yield "workflow", row.workflow, ""
    yield "started", started, ""
    yield from _start_facts(row, now_ms)
    yield "parent", timeline.parent.execution if timeline.parent is not None else "", ""
    yield "input", arguments_text(timeline.input), ""
    yield "state", value_text(timeline.state), ""
    yield "result", value_text(timeline.result) or ("null" if timeline.closing == "completed" else ""), ""
    yield "failure", failure_line(timeline.failure) if timeline.failure is not None else "", "red"
    yield "waits for", waits_text(row, now_ms), "yellow"
    yield "stalled", first_line(row.problem), "red"
    deaths = f"its worker died {row.recoveries} times since it last made progress"
    yield "trouble", deaths if row.recoveries else "", "yellow"


def _start_facts(row: jn.Row, now_ms: int) -> Iterator[tuple[str, str, str]]:
    """What was said of it when it was started, beside its input."""
    if not isinstance(row, jn.Description):
        return
    if row.origin is not None:
        what = "rewound to" if row.origin.execution == row.key.execution else f"fork of {row.origin.execution}, before"
        yield "origin", f"{what} event {row.origin.at} of run {row.origin.run}", ""
    yield "begins", _moment(row.start_at, now_ms) if not row.position else "", ""
    yield "deadline", _moment(row.deadline, now_ms) if row.closed_at_ms is None else "", ""
    found = [f"{name}={attribute_text(value)}" for name, value in sorted(row.attributes.items())]
    yield "found by", ", ".join(found), ""
    yield "memo", ", ".join(f"{name}={to_json(value)}" for name, value in sorted(row.memo.items())), ""


def _moment(moment: dt.datetime | None, now_ms: int) -> str:
    if moment is None:
        return ""
    at_ms = int(moment.timestamp() * 1000)
    left_ms = at_ms - now_ms
    return f"{clock(at_ms)}, {f'in {duration(left_ms)}' if left_ms >= 0 else f'{duration(-left_ms)} ago'}"
