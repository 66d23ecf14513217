"""`perdure diff`: two journals side by side, where they part and what follows. What is the same is only counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import click
from rich.cells import cell_len
from rich.text import Text

import perdure
from perdure import journal as jn
from perdure.cli import shapes
from perdure.cli.client import client_of, go, known
from perdure.cli.options import Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import console, print_json, say
from perdure.cli.problems import Problem, tidy
from perdure.cli.timeline import Mark
from perdure.cli.values import arguments_text, cut, value_text
from perdure.cli.words import GLYPHS, counted, drawable, failure_line, status_sign

MOST_SHOWN = 200
SIGNS: dict[str, tuple[str, str]] = {"differs": ("≠", "bold yellow"), "left": ("<", "red"), "right": (">", "green")}
NUMBER = 6  # columns


class Sides(NamedTuple):
    """What is compared."""

    left: jn.Description
    right: jn.Description
    left_run: str
    right_run: str


@click.command()
@click.argument("left", metavar="A")
@click.argument("right", metavar="[B]", required=False)
@click.option("--run", metavar="RUN", help="Of A, an earlier run by its id. Default: the current one.")
@click.option("--other-run", metavar="RUN", help="Of B, likewise.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=MOST_SHOWN,
    show_default=True,
    metavar="N",
    help="Stop after so many differences.",
)
@shared_options
def diff(left: str, right: str | None, *, run: str | None, other_run: str | None, limit: int) -> None:
    """Compare executions A and B, event by event.

    Where they part, and what follows. Without B: A and what it was forked from; after a rewind or continue-as-new, its
    current run and the one before.

    \b
      perdure diff report-1 report-1b
      perdure diff report-1b
    """
    go(_diff(current(), left, right, run, other_run, limit))


async def _diff(
    settings: Settings, left: str, right: str | None, run: str | None, other_run: str | None, limit: int
) -> None:
    async with client_of(settings) as client:
        sides = await _sides(client, left, right, run, other_run)
        one, other = sides.left.key.execution, sides.right.key.execution
        found = client.diff(one, other, left_run=sides.left_run, right_run=sides.right_run)
        if settings.json:
            await _print_json(sides, found, limit)
        else:
            await _Drawn(sides).draw(found, limit)


async def _sides(client: perdure.Client, left: str, right: str | None, run: str | None, other_run: str | None) -> Sides:
    one = await known(client, left)
    if right is None:
        return await _alone(client, one, run)
    other = await known(client, right)
    sides = Sides(one, other, run or one.run, other_run or other.run)
    if (left, sides.left_run) == (right, sides.right_run):
        raise Problem(f"{left} is compared with itself.", hint="Name another execution, or --run of an earlier run.")
    return sides


async def _alone(client: perdure.Client, one: jn.Description, run: str | None) -> Sides:
    """With what it comes from, on the left."""
    if one.origin is not None and run is None:
        return Sides(await known(client, one.origin.execution), one, one.origin.run, one.run)
    name = one.key.execution
    handle: perdure.Handle[Any] = client.handle(name)
    earlier = [each.run for each in await handle.runs() if each.run != one.run]
    before = run or next(iter(earlier), one.run)
    if before == one.run:
        raise Problem(f"{name} is no fork, and has one run only.", hint="Name another execution to compare it with.")
    return Sides(one, one, before, one.run)


async def _print_json(sides: Sides, found: AsyncIterator[jn.Pair], limit: int) -> None:
    one, other = sides.left.key.execution, sides.right.key.execution
    print_json({"left": {"id": one, "run": sides.left_run}, "right": {"id": other, "run": sides.right_run}})
    same = shown = 0
    async for pair in found:
        if pair.relation == "same":
            same += 1
            continue
        if shown == limit:
            break
        if same:
            print_json({"relation": "same", "events": same})
        same, shown = 0, shown + 1
        events = {name: None if each is None else shapes.of_recorded(each) for name, each in _both(pair)}
        print_json({"relation": pair.relation, **events})
    if same:
        print_json({"relation": "same", "events": same})


def _both(pair: jn.Pair) -> tuple[tuple[str, jn.Recorded | None], ...]:
    return ("left", pair.left), ("right", pair.right)


class _Drawn:
    """Two columns, as wide as there is room."""

    def __init__(self, sides: Sides) -> None:
        self.out = console()
        self.sides = sides
        self.width = max(20, (self.out.width - 3) // 2)

    async def draw(self, found: AsyncIterator[jn.Pair], limit: int) -> None:
        self._header()
        same = total = shown = 0
        parted = ""
        async for pair in found:
            if pair.relation == "same":
                same, total = same + 1, total + 1
                continue
            if shown == limit:
                say(f"There is more: --limit {limit * 2}", "dim")
                break
            parted = parted or f"They part after {counted(total, 'event')}."
            self._same(same)
            same, shown = 0, shown + 1
            self._pair(pair)
        self._same(same)
        say(parted or f"They say the same, in {total:,} events.", "dim")

    def _header(self) -> None:
        one, other = (self.sides.left, self.sides.left_run), (self.sides.right, self.sides.right_run)
        self._line(self._head(*one), " ", "", self._head(*other))
        self._line(self._run(one[1]), " ", "", self._run(other[1]))

    def _head(self, row: jn.Description, run: str) -> Text:
        sign, style = status_sign(row.status) if run == row.run else ("an earlier run", "dim")
        return self._cell(Text.assemble((row.key.execution, "bold"), "  ", (sign, style)))

    def _run(self, run: str) -> Text:
        return self._cell(Text(f"run {run}", "dim"))

    def _same(self, number: int) -> None:
        if number:
            text = f" {number:,} the same "
            self.out.print(drawable(Text(text.center(2 * self.width + 3, "─"), "dim"), self.out))

    def _pair(self, pair: jn.Pair) -> None:
        sign, style = SIGNS[pair.relation]
        self._line(self._event(pair.left), sign, style, self._event(pair.right))

    def _line(self, left: Text, sign: str, style: str, right: Text) -> None:
        line = Text.assemble(left, " ", (sign, style), " ", right)
        line.rstrip()
        self.out.print(drawable(line, self.out))

    def _event(self, recorded: jn.Recorded | None) -> Text:
        if recorded is None:
            return self._cell(Text())
        mark, title, value = _in_a_line(recorded.event)
        glyph, _, style = GLYPHS[mark]
        room = self.width - NUMBER - 2
        title = cut(title, room)
        rest = cut(f" → {value}", room - cell_len(title)) if value else ""
        return self._cell(
            Text.assemble((f"{recorded.position:>{NUMBER - 1}} ", "dim"), (glyph, style), " ", title, (rest, "dim"))
        )

    def _cell(self, text: Text) -> Text:
        text.truncate(self.width, overflow="ellipsis")
        text.pad_right(self.width - cell_len(text.plain))
        return text


_NOT_TOLD = jn.FailureInfo("?", "")


def _in_a_line(event: jn.AnyEvent) -> tuple[Mark, str, str]:
    """Sign, title and value of an event, on one line."""
    match event:
        case jn.ExecutionStarted():
            return "start", event.workflow, _line(arguments_text(event.input))
        case jn.StepCompleted():
            said = value_text(event.result)
            return "done", _call(event), _line(f"{said} (replaced)" if event.replaced else said)
        case jn.StepFailed():
            return "failed", _call(event), failure_line(event.failure)
        case jn.StepAttemptFailed():
            return "retry", f"{event.name}, attempt {event.attempt}", failure_line(event.failure or _NOT_TOLD)
        case jn.StepOutcomeUnknown():
            return "unknown", event.name, event.reason
        case jn.SignalReceived():
            return "signal", f"signal {event.name}", _line(value_text(event.value))
        case jn.ClosingEvent():
            return _end_in_a_line(event)
        case _:
            return "note", _words(event), _line(value_text(getattr(event, "result", None)))


def _end_in_a_line(event: jn.ClosingEvent) -> tuple[Mark, str, str]:
    match event:
        case jn.ExecutionCompleted():
            return "done", "completed", _line(value_text(event.result))
        case jn.ExecutionFailed():
            return "failed", "failed", failure_line(event.failure)
        case jn.ContinuedAsNew():
            return "note", "continued as new", ""
        case _:
            return "cancelled", type(event).__name__.removeprefix("Execution").lower(), getattr(event, "reason", "")


def _call(event: jn.StepEvents) -> str:
    return _line(f"{event.name} {arguments_text(event.preview)}".rstrip())


def _words(event: jn.AnyEvent) -> str:
    """`ChildInitiated` of something: its type, and whom it is about."""
    about = getattr(event, "name", "") or getattr(event, "execution", "") or getattr(event, "receiver", "")
    return f"{type(event).__name__} {about}".rstrip()


def _line(text: str) -> str:
    return tidy(text).replace("\n", " ")
