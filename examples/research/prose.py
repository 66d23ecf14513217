"""Sentences: taking them apart, choosing among them, and telling whether one says what its source says."""

import re
from collections.abc import Sequence
from itertools import pairwise

from examples.research.corpus import words

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'`*(]*[A-Z])|\s+(?=>>> )|:: ")
BULLET = re.compile(r"^[*-]\s+")
LIST_MARK = re.compile(r"^[\s>*\-•]*(?:\d+[.)]\s*)?[\"'“]*")
QUOTE_WORDS = 50
ITEM_WORDS_MAX = 12
WORDS_MIN = 3
GROUNDED = 0.7
GROUNDED_PAIRS = 0.45
VARIED = 0.6


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order."""
    return [part.strip() for part in SENTENCE_END.split(text) if part.strip()]


def best_sentences(text: str, question: str) -> str:
    """A quotation: the sentences of the text that speak most of the question, in the order of the text.

    The first sentence of a docstring says what a thing is, so it has an advantage.
    """
    wanted = set(words(question))
    parts = whole_sentences(text) or [text]
    value = {part: len(wanted & set(words(part))) + (2 if part is parts[0] else 0) for part in parts}
    chosen: set[str] = set()
    room = QUOTE_WORDS
    for part in sorted(parts, key=lambda part: -value[part]):
        if not chosen or len(part.split()) <= room:
            chosen.add(part)
            room -= len(part.split())
    quote = " ".join(part for part in parts if part in chosen)
    return shortened(BULLET.sub("", quote))


def whole_sentences(text: str) -> list[str]:
    """The sentences that are whole and no code, each once."""
    return list(dict.fromkeys(part for part in sentences(text) if part[-1] in ".!?" and ">>>" not in part))


def shortened(text: str, *, limit: int = QUOTE_WORDS) -> str:
    """The text up to a number of words, with a sign where something was cut."""
    parts = text.split()
    return text if len(parts) <= limit else " ".join(parts[:limit]) + " …"


def list_items(text: str, *, limit: int) -> list[str]:
    """The items of a list that a model wrote: one a line, however it marked them, none twice."""
    items: dict[str, str] = {}
    for line in text.splitlines():
        item = LIST_MARK.sub("", line).strip(" \"'”.,;")
        if 1 <= len(words(item)) <= ITEM_WORDS_MAX:
            items.setdefault(" ".join(sorted(set(words(item)))), item)
    return list(items.values())[:limit]


def faithful(text: str, sources: Sequence[str]) -> str:
    """The whole sentences of an answer that say in other words what one of the sources says, and say it once.

    A blunt test that catches what small models do: inventing, mixing up, going round in circles, and stopping in
    mid-sentence where their limit of tokens is reached.
    """
    known = [words(source) for source in sources]
    kept: dict[str, None] = {}
    for sentence in sentences(" ".join(text.split())):
        said = words(sentence)
        varied = len(said) >= WORDS_MIN and len(set(said)) / len(said) >= VARIED
        if varied and sentence[-1] in ".!?" and any(is_grounded(said, source) for source in known):
            kept[sentence] = None
    return " ".join(kept)


def is_grounded(said: list[str], source: list[str]) -> bool:
    """Whether words come from a source, and some of them side by side as there."""
    pairs, known_pairs = list(pairwise(said)), set(pairwise(source))
    same_words = sum(word in source for word in said) / len(said)
    same_pairs = sum(pair in known_pairs for pair in pairs) / len(pairs)
    return same_words >= GROUNDED and same_pairs >= GROUNDED_PAIRS
