"""The report as Markdown: good reading, and every statement with its source."""

from itertools import groupby

from examples.research.agent import Note, Report


def markdown(report: Report, *, model: str) -> str:
    """The whole report; sources are numbered in the order of the text."""
    numbers = {note.source.passage.place: number for number, note in enumerate(report.notes, 1)}
    parts = [f"# {headline(report.topic)}", report.summary.text]
    for question, notes in groupby(report.notes, key=lambda note: note.question):
        parts.append(f"## {'The essentials' if question == report.topic else headline(question)}")
        parts += [paragraph(note, numbers[note.source.passage.place]) for note in notes]
    parts += ["## Sources", sources(report), "## About this report", about(report, model)]
    return "\n\n".join(parts) + "\n"


def headline(text: str) -> str:
    """A heading in sentence case; names of code stay as they are."""
    return text[:1].upper() + text[1:] if text.partition(" ")[0].isalpha() else text


def paragraph(note: Note, number: int) -> str:
    """What the model says and what the source says; where these are the same, once."""
    quote = f"> {note.source.quote}"
    statement = f"**`{note.source.passage.title}`** [{number}]"
    return f"{statement}\n\n{quote}" if note.text in note.source.quote else f"{statement} {note.text}\n\n{quote}"


def sources(report: Report) -> str:
    return "\n".join(
        f"{number}. `{note.source.passage.place}`: {note.source.passage.title}"
        for number, note in enumerate(report.notes, 1)
    )


def about(report: Report, model: str) -> str:
    """Who wrote what, who asked for what."""
    own = sum(note.by_model for note in report.notes)
    lines = [
        f"Written {report.written_at:%Y-%m-%d %H:%M} UTC from {len(report.notes)} sources, with the model {model}.",
        f"It put {own} of them into its own words; in {len(report.notes) - own} notes it strayed from the source,",
        "which therefore speaks for itself. All quotations are the sources' own words.",
    ]
    if not report.summary.by_model:
        lines.append("The summary on top is made of notes, since the model's strayed from them.")
    lines += [f"The reviewer asked: *{comment}*" for comment in report.comments]
    return " ".join([*lines, "Then the report was approved."])
