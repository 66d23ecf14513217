"""What the model is told. Short on purpose: the default model is tiny, and reads slowly on two cores."""

from collections.abc import Sequence

from examples.research.model import Message

PLAN_TOKENS = 64
NOTE_TOKENS = 48
SUMMARY_TOKENS = 110


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


def summary_prompt(topic: str, notes: Sequence[str]) -> list[Message]:
    """Ask for a summary of notes."""
    return [Message("user", f"{' '.join(notes)}\n\nSummarize the text above about {topic} in two sentences.")]
