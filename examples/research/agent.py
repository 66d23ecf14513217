"""A research agent that does not lose its work.

It plans, searches, reads and takes notes on many sources at once, drafts, waits up to three days for a human's word,
revises, and hands in a report with its sources. Kill it at any moment and start it again: it goes on where it was.
"""

import asyncio
import os
from dataclasses import dataclass
from datetime import datetime, timedelta

from examples.research import corpus, prompts, prose
from examples.research.corpus import Passage
from examples.research.model import Message, ModelRefused, Reply, Usage, chat
from examples.research.witness import witnessed

import perdure
from perdure import step, workflow


@dataclass(frozen=True)
class Plan:
    questions: list[str]
    usage: Usage


@dataclass(frozen=True)
class Excerpt:
    passage: Passage
    quote: str


@dataclass(frozen=True)
class Note:
    question: str
    text: str
    by_model: bool
    source: Excerpt
    usage: Usage


@dataclass(frozen=True)
class Summary:
    text: str
    by_model: bool
    usage: Usage


@dataclass(frozen=True)
class Decision:
    approved: bool
    comment: str = ""


@dataclass(frozen=True)
class Report:
    topic: str
    summary: Summary
    notes: list[Note]
    comments: list[str]
    written_at: datetime


# --- the workflow: an ordinary coroutine, and the journal of what it has done decides where it goes on ----------------


@workflow
async def research(topic: str) -> Report:
    """Research a topic until a human approves of the report."""
    plan = await make_plan(topic)
    notes = await investigate(topic, plan.questions, known=[])
    summary = await summarise(topic, notes)
    comments: list[str] = []
    while not (decision := await perdure.receive("approval", Decision, timeout=timedelta(days=3))).approved:
        comments.append(decision.comment)
        notes += await investigate(topic, [decision.comment], known=notes)
        summary = await summarise(topic, notes)
    return Report(topic, summary, notes, comments, perdure.now())


async def investigate(topic: str, questions: list[str], known: list[Note]) -> list[Note]:
    """Search for all questions at once, then read and note every new source at once."""
    found = await asyncio.gather(*[search(topic, question) for question in questions])
    places = {note.source.passage.place for note in known}
    tasks = []
    for question, passages in zip(questions, found, strict=True):
        fresh = [passage for passage in passages if passage.place not in places][:SOURCES_PER_QUESTION]
        places.update(passage.place for passage in fresh)
        tasks += [note_on(question, passage) for passage in fresh]
    return await asyncio.gather(*tasks)


async def note_on(question: str, passage: Passage) -> Note:
    """Read one source, and note what it says."""
    return await take_note(question, await read(question, passage))


# --- the steps: they touch the world, and what they return is recorded ------------------------------------------------

QUESTIONS = 5
SOURCES_PER_QUESTION = 3
SUMMARY_SENTENCES = 2
PATIENT = perdure.Retry(attempts=6, delay=1, never=(ModelRefused,))


@step(retry=PATIENT, timeout=300)
@witnessed
def make_plan(topic: str) -> Plan:
    """Ask the model what to look up besides the topic; where its ideas are few, what a first search finds."""
    titles = [passage.title for passage in library().search(topic, limit=4)]
    reply = ask(prompts.plan_prompt(topic, titles), prompts.style().plan_tokens)
    ideas = [topic, *prose.list_items(reply.text, limit=4), *titles]
    return Plan(list(dict.fromkeys(ideas))[:QUESTIONS], reply.usage)


@step
@witnessed
def search(topic: str, question: str) -> list[Passage]:
    """Find the passages that fit best; more than needed, since questions find the same ones."""
    return library().search(f"{topic} {question}", limit=2 * SOURCES_PER_QUESTION)


@step
@witnessed
def read(question: str, passage: Passage) -> Excerpt:
    """Read on from a passage, and quote what speaks to the question."""
    return Excerpt(passage, prose.best_sentences(library().read_on(passage), question))


@step(retry=PATIENT, timeout=300)
@witnessed
def take_note(question: str, source: Excerpt) -> Note:
    """Have the model say it plainly; where it strays from the source, the source speaks for itself."""
    title, quote, style = source.passage.title, source.quote, prompts.style()
    reply = ask(prompts.note_prompt(title, quote), style.note_tokens)
    text = reply.text if style.believed else prose.faithful(reply.text, [f"{title} {quote}"])
    return Note(question, text or prose.sentences(quote)[0], bool(text), source, reply.usage)


@step(retry=PATIENT, timeout=300)
@witnessed
def summarise(topic: str, notes: list[Note]) -> Summary:
    """Have the model sum up the notes that matter most; where it strays, they open the report as they are."""
    style = prompts.style()
    facts = [note.text for note in notes[: style.facts - 1] + notes[style.facts - 1 :][-1:]]
    reply = ask(prompts.summary_prompt(topic, facts, style.length), style.summary_tokens)
    text = reply.text if style.believed else prose.faithful(reply.text, facts)
    if len(prose.sentences(text)) < SUMMARY_SENTENCES:
        return Summary(" ".join(facts[:3]), by_model=False, usage=reply.usage)
    return Summary(text, by_model=True, usage=reply.usage)


def ask(messages: list[Message], max_tokens: int) -> Reply:
    """Ask the model, and say what it cost: `perdure top` shows it."""
    reply = chat(messages, max_tokens=max_tokens)
    perdure.current_step().spent(input_tokens=reply.usage.prompt, output_tokens=reply.usage.completion)
    return reply


def library() -> corpus.Corpus:
    """What the agent may read: the folder in RESEARCH_CORPUS, else this Python's own documentation."""
    return corpus.load(os.environ.get("RESEARCH_CORPUS", ""))
