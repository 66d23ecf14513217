"""`perdure unresolved` and `perdure resolve`: steps of which nobody knows what they did, and a person's answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from rich.text import Text

import perdure
from perdure import journal as jn
from perdure.cli import shapes
from perdure.cli.client import client_of, go, known, worker_runs
from perdure.cli.control import say_sent
from perdure.cli.inputs import parse, read_text
from perdure.cli.options import Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import command_line, console, print_json, say
from perdure.cli.problems import Problem, tidy
from perdure.cli.times import duration, now_ms
from perdure.cli.values import argument_lines
from perdure.cli.words import failure_line

PAGE = 100
ANSWERS = "--happened JSON | --did-not-happen | --abandon"


@click.command()
@shared_options
def unresolved() -> None:
    """List steps of which nobody knows what they did.

    Each with its whole input. They are declared `once`, began, and nobody heard how they ended. Whoever finds out says
    so: perdure resolve.
    """
    go(_unresolved(current()))


async def _unresolved(settings: Settings) -> None:
    out, count, last = console(), 0, None
    async with client_of(settings) as client:
        while page := await client.unresolved(after=last, limit=PAGE):
            count, last = count + len(page), page[-1]
            for each in page:
                if settings.json:
                    print_json(shapes.of_unresolved(each))
                    continue
                for line in _lines(settings, each):
                    out.print(line)
    if not settings.json:
        say(f"{count:,} unresolved." if count else "Nothing is unresolved.", "dim")


def _lines(settings: Settings, each: perdure.Unresolved) -> Iterator[Text]:
    attempt = f", attempt {each.attempt}" if each.attempt > 1 else ""
    age = f"  {each.location}, {duration(now_ms() - each.since_ms)} ago"
    yield Text.assemble((each.execution, "bold"), f"  #{each.seq} {each.step}{attempt}", (age, "dim"))
    yield Text(f"    {tidy(each.reason)}", "yellow")
    if each.failure is not None:
        yield Text(f"    {failure_line(each.failure)}", "red")
    yield from (Text(f"    {line}") for line in argument_lines(each.input))
    if each.is_answered:
        yield Text("    an answer is on its way; a worker takes it", "dim")
        return
    if each.was_refused:
        yield Text("    the last answer was refused: its value is not of the type of the step's result", "red")
    yield Text(f"    {command_line(settings, 'resolve', each.execution, str(each.seq))} {ANSWERS}", "dim")


@click.command()
@click.argument("execution_id", metavar="ID")
@click.argument("seq", metavar="SEQ", type=click.IntRange(1, 2**31))
@click.option("--happened", metavar="JSON", help="It happened, and this is what the step would have returned.")
@click.option("--did-not-happen", is_flag=True, help="It did not, and can no longer happen: it runs again.")
@click.option("--abandon", is_flag=True, help="Nobody will know: the workflow gets perdure.UnknownOutcome.")
@click.option("--run", metavar="RUN", help="That began it, by its id: needed only where several runs wait for SEQ.")
@click.option("--note", default="", metavar="TEXT", help="Why; kept in the journal, and shown.")
@shared_options
def resolve(
    execution_id: str,
    seq: int,
    *,
    happened: str | None,
    did_not_happen: bool,
    abandon: bool,
    note: str,
    run: str | None,
) -> None:
    """Say what came of step SEQ of execution ID.

    Of those that perdure unresolved lists. JSON is a value of the type that the step returns, `null` where it returns
    nothing; `-` reads it from standard input, `@FILE` from a file.

    \b
      perdure resolve order-7 3 --happened '{"receipt": "r-1"}' --note "it is on the statement"
    """
    if [happened is not None, did_not_happen, abandon].count(True) != 1:
        raise Problem(f"Say what came of it, once: {ANSWERS}.")
    decision: Any = perdure.DidNotHappen() if did_not_happen else perdure.Abandoned()
    if happened is not None:
        text = read_text(happened)
        parse(text, "--happened")
        decision = perdure.Happened(jn.Payload(text.encode(), "json"))
    go(_resolve(current(), execution_id, seq, decision, note, run))


async def _resolve(settings: Settings, execution_id: str, seq: int, decision: Any, note: str, run: str | None) -> None:
    async with client_of(settings) as client:
        await known(client, execution_id)
        await client.handle(execution_id).resolve(seq, decision, note=note, run=run)
        outcome = {perdure.DidNotHappen: "did_not_happen", perdure.Abandoned: "abandoned"}.get(
            type(decision), "happened"
        )
        text = f"Step #{seq} of {execution_id}: {outcome.replace('_', ' ')}."
        say_sent(settings, execution_id, text, worker=worker_runs(client), seq=seq, outcome=outcome)
