"""What the model is told. Short for the default model, which is tiny and reads slowly on two cores; others get room."""

from collections.abc import Sequence
from typing import NamedTuple

from examples.research.model import Endpoint, Message

TINY = {"SmolLM2-135M-Instruct", "scripted"}  # what model_server.py serves


class Style(NamedTuple):
    """How much of a model is asked, and whether it is believed."""

    plan_tokens: int
    note_tokens: int
    summary_tokens: int
    facts: int  # notes that a summary is made of
    length: str  # of a summary
    believed: bool  # otherwise only what also stands in the source is kept of its words


SHORT = Style(64, 48, 110, 5, "in two sentences", believed=False)
LONG = Style(400, 200, 900, 40, "in three short paragraphs, what matters most first", believed=True)


def style() -> Style:
    """What suits the model that the environment names."""
    endpoint = Endpoint.from_environment()
    return SHORT if endpoint is None or endpoint.model in TINY else LONG


def plan_prompt(topic: str, titles: Sequence[str]) -> list[Message]:
    """Ask what to look up, with a first impression of what there is."""
    return [
        Message(
            "user",
            f"Topic: {topic}. Found: {', '.join(titles)}.\n"
            "List four questions a programmer would ask about this. One per line, at most eight words each.",
        )
    ]


def note_prompt(title: str, quote: str) -> list[Message]:
    """Ask for one plain sentence; two examples tell a small model more than instructions."""
    return [
        Message("system", "You explain a text in one short plain sentence."),
        Message(
            "user",
            "bisect.insort: Insert item x in list a, and keep it sorted assuming a is sorted. If x is already in a, "
            "insert it to the right of the rightmost x.",
        ),
        Message("assistant", "Inserts an item into a sorted list so that the list stays sorted."),
        Message(
            "user",
            "json.dump: Serialize obj as a JSON formatted stream to fp. If skipkeys is true then dict keys that are "
            "not of a basic type will be skipped instead of raising a TypeError.",
        ),
        Message("assistant", "Writes an object as JSON to a file, and can skip keys that JSON does not know."),
        Message("user", f"{title}: {quote}"),
    ]


def summary_prompt(topic: str, notes: Sequence[str], length: str = SHORT.length) -> list[Message]:
    """Ask for a summary of notes."""
    return [Message("user", f"{' '.join(notes)}\n\nSummarize the text above about {topic} {length}.")]
