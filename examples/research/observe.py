"""The demo's view of the run: through a client beside the worker, which may run, be dead, or not be there yet."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
from examples.research import agent
from examples.research.agent import Decision, Excerpt, Note, Plan, Report, Summary
from examples.research.measure import Recorded

import perdure
from perdure.journal import ExecutionCompleted, StepCompleted

STEPS = {step.name: step for step in (agent.make_plan, agent.search, agent.read, agent.take_note, agent.summarise)}


@dataclass(frozen=True)
class Glimpse:
    """What the journal holds at one moment."""

    recorded: list[Recorded] = field(default_factory=list)
    drafts: int = 0
    completed: bool = False


class Observer:
    """Reads the journal of the run, and speaks to it as its reviewer."""

    def __init__(self, client: perdure.Client, execution_id: str) -> None:
        self._handle = client.handle(execution_id, agent.research)

    async def look(self) -> Glimpse:
        """What the journal holds now; nothing before the run has begun."""
        try:
            journal = await self._handle.journal()
        except perdure.ExecutionNotFound:
            return Glimpse()
        steps = [recorded(entry.event, entry.at_ms) for entry in journal if isinstance(entry.event, StepCompleted)]
        return Glimpse(
            steps,
            drafts=sum(step.name == agent.summarise.name for step in steps),
            completed=isinstance(journal[-1].event, ExecutionCompleted),
        )

    async def decide(self, decision: Decision) -> None:
        await self._handle.signal("approval", decision)

    async def report(self) -> Report:
        return await self._handle.result()


def recorded(event: StepCompleted, at_ms: int) -> Recorded:
    """A step's result, as the demo shows and counts it."""
    value = STEPS[event.name].result.decode(event.result, f"the result of step {event.name}")
    tokens = value.usage.total if isinstance(value, Plan | Note | Summary) else 0
    return Recorded(event.seq, event.name, at_ms / 1000, tokens, caption(value, asked(event)))


def asked(event: StepCompleted) -> dict[str, Any]:
    """The step's arguments, as far as the journal keeps a preview of them: it is plain data."""
    preview = event.preview
    if preview is None or preview.content_type != "msgpack":
        return {}
    arguments: dict[str, Any] = msgspec.msgpack.decode(preview.data)
    return arguments


def caption(value: Any, arguments: dict[str, Any]) -> str:
    """A step's result, and what it was asked, in a few words."""
    match value:
        case Plan(questions=questions):
            return f"{len(questions)} things to look up"
        case Excerpt(passage=passage):
            return passage.place
        case Note(text=text, source=source):
            return f"{source.passage.title}: {text}"
        case Summary(text=text):
            return text
        case _:
            return f"{arguments.get('question', '')}  {len(value)} passages"
