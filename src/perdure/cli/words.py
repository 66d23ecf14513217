"""Signs, colours and short phrases that lists and timelines share."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from perdure import journal as jn
from perdure.cli.problems import INNER_NAME, POINTER, tidy
from perdure.cli.timeline import Mark
from perdure.cli.times import duration

# The sign, the same for terminals without UTF-8, and the style.
GLYPHS: dict[Mark, tuple[str, str, str]] = {
    "done": ("✓", "+", "green"),
    "failed": ("✗", "x", "red"),
    "cancelled": ("⊘", "/", "magenta"),
    "unknown": ("?", "?", "bold yellow"),
    "stalled": ("■", "#", "bold red"),
    "paused": ("‖", "=", "yellow"),
    "retry": ("↻", "~", "yellow"),
    "running": ("▸", ">", "cyan"),
    "waiting": ("◌", "o", "yellow"),
    "note": ("·", ".", "dim"),
    "start": ("▶", ">", "dim"),
    "signal": ("✉", "@", "magenta"),
    "timer": ("◷", "o", "blue"),
    "worker": ("↯", "!", "bold yellow"),
}
STATUSES: dict[jn.Status, tuple[Mark, str]] = {
    "active": ("running", "cyan"),
    "parked": ("waiting", "yellow"),
    "paused": ("paused", "yellow"),
    "stalled": ("stalled", "bold red"),
    "completed": ("done", "green"),
    "failed": ("failed", "red"),
    "cancelled": ("cancelled", "magenta"),
    "terminated": ("cancelled", "magenta"),
}
_LINES = {"─": "-", "│": "|", "╭": ".", "╰": "'", "━": "=", "→": ">", "…": "~", "≠": "!"}
_IN_ASCII = str.maketrans(_LINES | {pretty: plain for pretty, plain, _ in GLYPHS.values()})


def status_sign(status: jn.Status) -> tuple[str, str]:
    """Sign and word of a status, and their style."""
    mark, style = STATUSES[status]
    return f"{GLYPHS[mark][0]} {status}", style


def drawable(text: Text, console: Console) -> Text:
    """The text for this terminal: without UTF-8 our signs become ASCII, one for one."""
    if not console.encoding.lower().startswith("utf"):
        text.plain = text.plain.translate(_IN_ASCII)
    return text


def failure_line(failure: jn.FailureInfo) -> str:
    """Type and message of an exception."""
    kind = INNER_NAME.sub("", failure.type)
    message = first_line(without_pointers(failure.message))
    return tidy(f"{kind}: {message}" if message else kind)


def without_pointers(text: str) -> str:
    """Without what Perdure's own messages end with: it was of use where the error was raised."""
    return POINTER.sub("", text)


def first_line(text: str) -> str:
    """What a single line has room for."""
    return text.strip().partition("\n")[0]


def counted(count: int, noun: str) -> str:
    """A number and its noun: `1 event`, `2 events`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def waits_text(row: jn.Row, now_ms: int) -> str:
    """What a parked or paused execution waits for, and when its timer or next attempt is due; "" for others."""
    if row.status not in {"parked", "paused"}:
        return ""
    waits = row.waits_for or "its next attempt"
    if row.wake_at_ms is None:
        return waits
    left = row.wake_at_ms - now_ms
    return f"{waits} (in {duration(left)})" if left > 0 else f"{waits} (due {duration(-left)} ago)"
