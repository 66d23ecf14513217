"""The timeline: what is folded, what ran at the same time, what goes on; and how it looks, narrow, wide and plain."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console

from perdure import journal as jn
from perdure.cli.timeline import Entry, timeline
from perdure.cli.timeline_view import View
from perdure.cli.values import arguments_text, cut

T0 = 1_750_000_000_000
FAILURE = jn.FailureInfo("ConnectionError", "overloaded", '  File "/somewhere/agent.py", line 7, in ask\n    raise\n')


def packed(value: Any) -> jn.Payload:
    return jn.Payload(msgspec.msgpack.encode(value))


class Journal:
    """Events as they would be recorded, at milliseconds since the start."""

    def __init__(self) -> None:
        self.events: list[jn.Recorded] = []
        self.session, self.fingerprint = 1, "one"
        self.add(0, jn.ExecutionStarted("research", "r" * 32, packed({"topic": "sqlite"})))
        self.add(0, jn.ExecutionClaimed())

    def add(self, at: int, event: jn.AnyEvent) -> None:
        self.events.append(jn.Recorded(len(self.events), T0 + at, event, self.session, self.fingerprint))

    def done(self, seq: int, start: int, end: int, *, name: str = "search", attempt: int = 1) -> None:
        given, came = packed({"query": f"q{seq}", "limit": 3}), packed([f"found {seq}"])
        fields: dict[str, Any] = {"location": "agent.py:12", "preview": given, "started_at_ms": T0 + start}
        self.add(end, jn.StepCompleted(seq, name, result=came, attempt=attempt, **fields))

    def tried(self, seq: int, start: int, end: int, attempt: int, *, retry: int = 0, name: str = "search") -> None:
        fields: dict[str, Any] = {"attempt": attempt, "started_at_ms": T0 + start, "retry_at_ms": T0 + retry}
        self.add(end, jn.StepAttemptFailed(seq, name, location="agent.py:12", failure=FAILURE, **fields))

    def row(self, status: jn.Status = "active", **fields: Any) -> jn.Row:
        key: Any = (0, "default", "report-1")
        closed = None if status in jn.OPEN_STATUSES else self.events[-1].at_ms
        known: dict[str, Any] = {"closed_at_ms": closed, **fields}
        return msgspec.convert(
            {
                "key": key,
                "run": "r" * 32,
                "lane": "default",
                "workflow": "research",
                "status": status,
                "position": len(self.events),
                "start_digest": b"",
                "created_at_ms": T0,
                **known,
            },
            jn.Row,
        )

    def past(self, **options: Any) -> list[Entry]:
        return timeline(self.events, **options).past

    def drawn(
        self, status: jn.Status = "active", *, width: int = 100, worker: bool = True, utf8: bool = True, **fields: Any
    ) -> str:
        full = fields.pop("full", False)
        now = {"running": fields.pop("running", ()), "alone": fields.pop("alone", False)}
        told = timeline(self.events, **now, clean=fields.pop("clean", {}), unfold=full)
        raw = io.BytesIO()
        file = io.TextIOWrapper(raw, "utf-8" if utf8 else "ascii", errors="strict", newline="\n")
        console = Console(file=file, width=width, highlight=False, markup=False, soft_wrap=True)
        View(console, self.row(status, **fields), told, full=full, now_ms=T0 + 60_000, worker=worker).draw()
        file.flush()
        return raw.getvalue().decode()


@pytest.fixture
def journal() -> Journal:
    return Journal()


# --- what is told ---


def test_what_runs_alone_says_so_above_its_open_steps(journal: Journal) -> None:
    key: Any = journal.row().key
    drawn = journal.drawn(running=[jn.Running(key, "r" * 32, 4, "nap", 1, T0 + 46)], alone=True, recoveries=3)
    first, second = [line.strip() for line in drawn.splitlines() if line.strip().startswith("now ")]
    assert first == "now · runs alone until it makes progress"
    assert second.startswith("now ▸ nap")


def test_steps_one_after_the_other_are_in_no_group(journal: Journal) -> None:
    journal.done(1, 0, 100)
    journal.done(2, 100, 200)
    assert [entry.group for entry in journal.past()] == [0, 0, 0]


def test_steps_that_overlap_are_one_group_with_all_between_them(journal: Journal) -> None:
    journal.done(1, 0, 100)
    journal.done(2, 100, 300)
    journal.add(300, jn.TimerFired(9))
    journal.done(3, 110, 400)
    journal.done(4, 400, 500)
    journal.done(5, 500, 650)
    journal.done(6, 510, 700)
    assert [(entry.seq, entry.group) for entry in journal.past()[1:]] == [
        (1, 0),
        (2, 1),
        (9, 1),
        (3, 1),
        (4, 0),
        (5, 2),
        (6, 2),
    ]


def test_attempts_that_failed_alike_are_one_line_of_their_step(journal: Journal) -> None:
    for attempt in (1, 2, 3):
        journal.tried(1, 100 * attempt, 100 * attempt + 5, attempt)
    journal.done(1, 400, 450, attempt=4)
    [_, entry] = journal.past()
    assert entry.took_ms == 350, "from the first attempt's start"
    assert [(tried.first, tried.last) for tried in entry.tried] == [(1, 3)]
    assert len(journal.past(unfold=True)) == 6


def test_what_is_open_is_told_once(journal: Journal) -> None:
    journal.tried(1, 10, 20, 1, retry=500)
    journal.tried(2, 10, 30, 1, retry=40)
    journal.add(40, jn.ChildInitiated(3, "kid", "kid-1", "k" * 32, packed({})))
    key: Any = journal.row().key
    running = [jn.Running(key, "r" * 32, 2, "search", 2, T0 + 45), jn.Running(key, "r" * 32, 4, "nap", 1, T0 + 46)]
    told = timeline(journal.events, running)
    assert [(entry.seq, entry.mark) for entry in told.open] == [
        (1, "retry"),
        (2, "running"),
        (3, "running"),
        (4, "running"),
    ]
    journal.add(50, jn.ExecutionTerminated("enough"))
    assert timeline(journal.events, running, alone=True).open == []


def test_another_session_is_another_worker(journal: Journal) -> None:
    journal.done(1, 0, 100)
    journal.session, journal.fingerprint = 2, "two"
    journal.done(2, 3_100, 3_200)
    journal.session = 3
    journal.done(3, 3_300, 3_400)
    titles = [entry.title for entry in journal.past(clean={1: False, 2: True}) if entry.mark == "worker"]
    assert titles == [
        "the worker died; another went on, with other code, 3.10s after the last event",
        "the worker stopped; another went on, 200ms after the last event",
    ]


def test_messages_and_children_are_told(journal: Journal) -> None:
    journal.add(1, jn.SignalReceived("m", "go", packed(5), sender="boss"))
    journal.add(2, jn.MessageSent(1, "signal", "other", "hi", packed("x")))
    journal.add(3, jn.MessageDelivered(1))
    journal.add(4, jn.MessageSent(2, "cancel", "gone"))
    journal.add(5, jn.MessageFailed(2, "it is closed"))
    journal.add(6, jn.ChildInitiated(3, "kid", "kid-1", "k" * 32, packed({})))
    journal.add(9, jn.ChildClosed(3, "kid-1", "failed", failure=FAILURE))
    journal.add(9, jn.ChildInitiated(4, "kid", "kid-2", "k" * 32, packed({})))
    journal.add(10, jn.ChildStartFailed(4, "the id is taken"))
    journal.add(11, jn.CancelRequested("c", "enough"))
    journal.add(12, jn.ExecutionFailed(FAILURE, lost_failures=(FAILURE,)))
    told = [(entry.mark, entry.title, entry.text) for entry in journal.past()[1:]]
    assert told == [
        ("signal", "signal go", "from boss"),
        ("signal", "sent signal hi", "to other"),
        ("signal", "sent cancel", "to gone"),
        ("failed", "message not delivered", "it is closed"),
        ("failed", "child kid", "kid-1"),
        ("failed", "child kid", "kid-2 not started: the id is taken"),
        ("note", "cancel requested", "enough"),
        ("failed", "failed", ""),
        ("failed", "in a background task", ""),
    ]


def test_updates_dropped_signals_published_states_and_what_was_left_over_are_told(journal: Journal) -> None:
    journal.add(1, jn.UpdateAccepted("u-1", "add", packed(["apple", 2])))
    journal.add(2, jn.StatePublished(packed({"items": 1}), 1))
    journal.add(3, jn.UpdateAccepted("u-2", "pay", packed([])))
    journal.add(4, jn.MessageDropped(1, "m", "go", FAILURE))
    journal.add(5, jn.StatePublished(packed({"items": 3}), 2))
    journal.add(6, jn.UpdateCompleted(2, "u-1", "add", packed(3)))
    assert [(entry.mark, entry.title) for entry in timeline(journal.events).open] == [("running", "update pay")]
    assert '  state     {"items": 3}' in journal.drawn()
    left = (jn.Unfinished("update", "pay", "u-2"), jn.Unfinished("signal", "go", "m"))
    journal.add(7, jn.ExecutionTerminated("enough", not_known=("why",), unfinished=left, unreceived=2))
    told = [(entry.mark, entry.title, entry.text) for entry in journal.past()[1:]]
    assert told == [
        ("failed", "signal go dropped", ""),
        ("done", "update add", ""),
        ("cancelled", "terminated", "enough"),
        ("unknown", "not known", "why"),
        ("cancelled", "update pay was not finished", ""),
        ("cancelled", "signal go was not finished", ""),
        ("note", "2 signal(s) not received", "kept as dead letters"),
    ]
    full = [entry.title for entry in timeline(journal.events, unfold=True).past]
    assert full.count("published") == 2
    assert "update add accepted" in full
    assert "ConnectionError: overloaded" in journal.drawn("terminated")


# --- how it looks ---


@pytest.fixture
def busy(journal: Journal) -> Journal:
    journal.done(1, 0, 120, name="plan")
    journal.done(2, 120, 300)
    journal.done(3, 125, 400)
    journal.tried(4, 400, 410, 1, name="summarise_all_of_the_pages_with_care")
    journal.session = 2
    journal.done(4, 5_000, 5_600, name="summarise_all_of_the_pages_with_care", attempt=2)
    journal.add(5_700, jn.ExecutionCompleted(packed({"report": "word " * 100})))
    return journal


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160, 240])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("utf8", [False, True])
def test_no_line_is_wider_than_the_terminal(busy: Journal, width: int, *, full: bool, utf8: bool) -> None:
    lines = busy.drawn("completed", width=width, full=full, utf8=utf8).splitlines()
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)


def test_at_80_columns_it_looks_like_this(busy: Journal) -> None:
    lines = busy.drawn("completed", width=80, clean={1: False}).splitlines()
    assert lines[0] == "report-1  ✓ completed  took 5.70s"
    assert lines[1] == "  workflow  research"
    assert lines[3:6] == [
        '  input     "sqlite"',
        '  result    {"report": "word word word word word word word word word word word …',
        "",
    ]
    assert lines[6:] == [
        "     0ms   ▶ started",
        "   120ms   ✓ plan                          120ms  agent.py:12",
        '             "q1", limit=3 → ["found 1"]',
        "   300ms ╭ ✓ search                        180ms  agent.py:12",
        '             "q2", limit=3 → ["found 2"]',
        "   400ms ╰ ✓ search                        275ms  agent.py:12",
        '             "q3", limit=3 → ["found 3"]',
        "   5.60s ───↯ the worker died; another went on, 5.19s after the last event ─────",
        "   5.60s   ✓ summarise_all_of_the_pages_…  5.20s  agent.py:12",
        '             "q4", limit=3 → ["found 4"]',
        "             ↻ attempt 1: ConnectionError: overloaded",
        '   5.70s   ✓ completed  {"report": "word word word word word word word word wor…',
    ]


def test_wide_terminals_show_how_a_group_overlapped(busy: Journal) -> None:
    lines = busy.drawn("completed", width=160).splitlines()
    bars = [line for line in lines if "━" in line]
    assert len(bars) == 2
    assert bars[0].index("━") <= bars[1].index("━")
    assert '"q2", limit=3 → ["found 2"]' in bars[0]


def test_a_parked_execution_says_what_it_waits_for_and_until_when(journal: Journal) -> None:
    text = journal.drawn("parked", waits_for="signal approval, timer", wake_at_ms=T0 + 60_000 + 7_200_000)
    assert "  waits for signal approval, timer (in 2h00m)" in text
    assert text.rstrip().endswith("now ◌ waits for signal approval, timer (in 2h00m)")


def test_a_stalled_execution_says_why_at_the_end(journal: Journal) -> None:
    problem = "The journal and the code disagree.\n  where: agent.py:9\n Fix it. [P0101: perdure explain P0101]"
    lines = journal.drawn("stalled", problem=problem, width=60).splitlines()
    assert "  stalled   The journal and the code disagree." in lines
    assert lines[-3:] == [
        "           The journal and the code disagree.",
        "             where: agent.py:9",
        "            Fix it.",
    ]


def test_without_a_worker_nothing_is_said_to_run(journal: Journal) -> None:
    key: Any = journal.row().key
    running = [jn.Running(key, "r" * 32, 2, "nap", 2, T0 + 45, packed({"page": 3}))]
    assert 'nap #2  60.0s  progress {"page": 3}' in journal.drawn(running=running)
    text = journal.drawn(running=running, worker=False)
    assert "waits for a worker" in text
    assert "no worker runs on this store" in text


def test_a_failure_shows_where_without_this_machines_directories(journal: Journal) -> None:
    cause = jn.FailureInfo("TimeoutError", "slow")
    journal.add(5, jn.ExecutionFailed(msgspec.structs.replace(FAILURE, cause=cause)))
    text = journal.drawn("failed")
    assert "ConnectionError: overloaded" in text
    assert 'File "agent.py", line 7, in ask' in text
    assert "caused by TimeoutError: slow" in text
    assert "/somewhere" not in text + journal.drawn("failed", full=True)


def test_pipes_and_no_color_get_no_escapes(busy: Journal) -> None:
    assert "\x1b" not in busy.drawn("completed")


def test_control_characters_of_values_do_not_reach_the_terminal(journal: Journal) -> None:
    journal.add(1, jn.SignalReceived("m", "go", packed("\x1b[31mred\x07")))
    assert "\x1b" not in journal.drawn()


# --- values ---


def test_arguments_read_like_a_call() -> None:
    assert arguments_text(packed({"query": "x", "limit": 3})) == '"x", limit=3'
    assert arguments_text(packed({})) == ""
    assert arguments_text(jn.Payload(b'{"prompt": "long text\xe2\x80\xa6', "text")) == '"long text…'
    assert arguments_text(jn.Payload(b"x", "msgpack", "key-1")).startswith("<encrypted with key key-1")


def test_text_is_cut_by_what_it_takes_on_screen() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdef", 4) == "abc…"
    assert cut("漢字漢字", 5) == "漢字…"
    assert cut("x", 0) == ""
