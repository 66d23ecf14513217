"""The demo's view of the run: through a client beside the worker, which may run, be dead, or not be there yet."""

from dataclasses import dataclass, field
from typing import Any

from examples.research import agent
from examples.research.agent import Decision, Excerpt, Note, Plan, Report, Summary
from examples.research.measure import Recorded

import perdure
from perdure.core.events import ExecutionCompleted, StatePublished, StepCompleted

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
        events = [entry.event for entry in journal]
        return Glimpse(
            [recorded(e.event, e.at_ms) for e in journal if isinstance(e.event, StepCompleted)],
            sum(isinstance(event, StatePublished) for event in events),
            any(isinstance(event, ExecutionCompleted) for event in events),
        )

    async def decide(self, decision: Decision) -> None:
        await self._handle.signal("approval", decision)

    async def report(self) -> Report:
        return await self._handle.result()


def recorded(event: StepCompleted, at_ms: int) -> Recorded:
    """A step's result, as the demo shows and counts it."""
    value = STEPS[event.name].result.decode(event.result, f"the result of step {event.name}")
    tokens = value.usage.total if isinstance(value, Plan | Note | Summary) else 0
    return Recorded(event.seq, event.name, at_ms / 1000, tokens, caption(value))


def caption(value: Any) -> str:
    """A step's result in a few words."""
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
            return f"{len(value)} passages, the best of them {value[0].title}" if value else "nothing"
