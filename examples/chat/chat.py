"""A chat that may go on for years: each message is an update, answered once; the journal never grows long.

    python examples/chat/chat.py "hello" "what did I say?"

Run it again with other words: the conversation goes on where it was, whatever happened to the process in between. From
another process: `perdure update chat-ada say '"hello"'`. The model is a stand-in for a real one.
"""

import asyncio
import sys
from dataclasses import dataclass, field
from datetime import timedelta

import perdure
from perdure import Retry, step, workflow

TURNS_PER_RUN = 20  # then a new run begins from a snapshot, and replay reads at most so many turns
TURNS_KEPT = 8  # what is older is summarised: a model's context is no journal
SILENCE = timedelta(days=30)  # after which the conversation is over


@dataclass
class Turn:
    said: str
    reply: str


@dataclass
class Talk:
    """All that the next run has to know."""

    summary: str = ""
    turns: list[Turn] = field(default_factory=list)
    answered: int = 0


@step(retry=Retry(attempts=5), timeout=60)
async def answer(talk: Talk, text: str) -> str:
    await asyncio.sleep(0.02)  # a model thinks
    before = f" Before that: {talk.turns[-1].said}." if talk.turns else ""
    return f"{talk.answered + 1}: you said {text}.{before}"


@step(retry=Retry(attempts=5), timeout=60)
async def summarise(talk: Talk) -> str:
    return f"{talk.answered} messages, the last one: {talk.turns[-1].said}"


class Chat:
    def __init__(self) -> None:
        self.talk = perdure.restored(Talk) or Talk()
        self.answered_before = self.talk.answered
        self.turn = asyncio.Lock()
        self.stirred = asyncio.Event()

    async def run(self, user: str) -> str:
        try:
            while True:
                async with asyncio.timeout(SILENCE.total_seconds()):
                    await self.stirred.wait()
                self.stirred.clear()
                if self.talk.answered - self.answered_before >= TURNS_PER_RUN:
                    await perdure.all_handlers_finished()  # what they still say is in the snapshot
                    perdure.snapshot(self.talk)
        except TimeoutError:
            return f"{user}: {self.talk.answered} messages, then silence"

    def check(self, text: str) -> None:
        if not text.strip():
            raise ValueError("say something")

    @perdure.on_update(validator=check)
    async def say(self, text: str) -> str:
        async with self.turn:  # one after the other, in the order in which they came
            reply = await answer(self.talk, text)
            self.talk.turns.append(Turn(text, reply))
            self.talk.answered += 1
            if len(self.talk.turns) > TURNS_KEPT:
                self.talk.summary = await summarise(self.talk)
                del self.talk.turns[: -TURNS_KEPT // 2]
        self.stirred.set()
        return reply

    @perdure.on_query
    def history(self) -> Talk:
        return self.talk


chat = workflow(Chat)  # as a decorator it does the same; type checkers know it better so


async def main(texts: list[str]) -> None:
    async with perdure.Engine(workflows=[chat]) as engine:
        handle = await engine.start(chat, "ada", id="chat-ada")
        for text in texts:
            print(await handle.update("say", text))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["hello", "what did I say?"]))
