"""`perdure asks` and `perdure answer`: questions of workflows to people, and their answers."""

from __future__ import annotations

from collections.abc import Iterator

import click
from rich.text import Text

import perdure
from perdure import journal as jn
from perdure.cli import shapes
from perdure.cli.client import client_of, go, worker_runs
from perdure.cli.control import say_sent
from perdure.cli.inputs import parse, read_text
from perdure.cli.options import Settings, shared_options
from perdure.cli.options import settings as current
from perdure.cli.output import command_line, console, print_json, say, to_json
from perdure.cli.problems import cursor_of, nearest, problem_of, tidy
from perdure.cli.schema_words import schema_words
from perdure.cli.times import duration, now_ms
from perdure.cli.values import argument_lines, value_text


@click.command()
@click.option("--to", default="", metavar="NAME", help="Only those that are asked of NAME now.")
@click.option(
    "--limit", type=click.IntRange(min=1, max=1_000), default=50, show_default=True, metavar="N", help="At most N."
)
@click.option("--after", default="", metavar="CURSOR", help="Go on where a list with the same --to ended.")
@shared_options
def asks(to: str, limit: int, after: str) -> None:
    """List open questions to people.

    Each with what it is about, until when it may be answered, and the command that answers it. Whoever has its token
    may answer, once.
    """
    go(_asks(current(), to, limit, after))


async def _asks(settings: Settings, to: str, limit: int, after: str) -> None:
    out = console()
    async with client_of(settings) as client:
        with cursor_of("--after", after, "--to"):
            page = await client.asks(to=to, cursor=after, limit=limit)
        hint = await _others(client, to) if to and not page and not after else ""
    if settings.json:
        for each in page:
            print_json(shapes.of_question(each))
        if page.next:
            click.echo(to_json({"next": page.next}), err=True)
        return
    for each in page:
        for line in _lines(settings, each):
            out.print(line)
    say(_end(page, to), "dim")
    if hint:
        say(hint)


def _end(page: perdure.QuestionPage, to: str) -> str:
    if page.next:
        return f"The first {len(page):,}. There are more: --limit, or go on with --after {page.next}"
    nothing = f"Nothing is asked of {to!r}." if to else "Nobody is asked anything."
    return f"{len(page):,} open." if page else nothing


async def _others(client: perdure.Client, to: str) -> str:
    """The nearest of those who are asked something."""
    return nearest(to, {each.to for each in await client.asks(limit=1_000) if each.to})


def _lines(settings: Settings, each: perdure.OpenQuestion) -> Iterator[Text]:
    whom = f", asks {each.to}" if each.to else ""
    yield Text.assemble((each.execution, "bold"), f"  #{each.seq}{whom}", (f"  {_when(each)}", "dim"))
    yield Text(f"    {tidy(each.question)}", "yellow")
    if each.step and each.about is not None:
        yield Text(f"    about step {each.step}:")
        yield from (Text(f"      {line}") for line in argument_lines(each.about))
    elif each.about is not None:
        yield Text(f"    about {value_text(each.about)}")
    if each.was_refused:
        by = f", by {tidy(each.refused_by)}," if each.refused_by else ""
        yield Text(f"    the last answer{by} was refused: it is not of the type that is asked for", "red")
    if each.schema:
        yield Text(f"    answer with {schema_words(each.schema)}")
    yield Text(f"    {command_line(settings, 'answer', each.token)} JSON", "dim")


def _when(each: perdure.OpenQuestion) -> str:
    left = "" if each.expires_at_ms is None else f", {duration(each.expires_at_ms - now_ms())} left"
    return f"{each.location}, {duration(now_ms() - each.asked_at_ms)} ago{left}"


@click.command()
@click.argument("token", metavar="TOKEN")
@click.argument("value", metavar="JSON")
@click.option("--by", default="", metavar="NAME", help="Who answers, for the record.")
@shared_options
def answer(token: str, value: str, by: str) -> None:
    """Answer the question with this TOKEN.

    Of those that perdure asks lists; each takes one answer. JSON is a value of the type that is asked for; `-` reads it
    from standard input, `@FILE` from a file.

    \b
      perdure answer lK5vcmRlci0xAcQQ... true --by ada
    """
    text = read_text(value)
    parse(text, "the answer")
    go(_answer(current(), token, jn.Payload(text.encode(), "json"), by))


async def _answer(settings: Settings, token: str, value: jn.Payload, by: str) -> None:
    async with client_of(settings) as client:
        try:
            execution = await client.answer(token, value, by=by)
        except perdure.errors.NotAsked as error:
            if error.fields["execution"] != "?":
                raise
            message = f"This answers no question: {error.fields['state']}."
            raise problem_of(error, message, hint=f"{command_line(settings, 'asks')} lists open questions.") from None
        say_sent(settings, execution, f"{execution} has its answer.", worker=worker_runs(client))
