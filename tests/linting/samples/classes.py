"""Workflows as classes, and handlers of both kinds: all of it is workflow code."""

from datetime import datetime
from typing import Any

import perdure

LINES: list[str] = []


@perdure.step
async def search(query: str) -> str:
    return query


class Base:
    def inherited(self) -> datetime:
        return datetime.now()  # L001


@perdure.workflow
class Chat(Base):
    shared: list[str] = []

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.lines: list[str] = []
        self.began = datetime.now()  # L001

    async def run(self, topic) -> None:  # L004
        self.lines.append(topic)
        for query in self.seen:  # L003
            await search(query)
        self.say(topic)  # L010
        async for word in perdure.messages("word"):  # L004
            await self.say(word)
        await self.act(topic)

    def check(self, line: str) -> None:
        open(line)  # L005

    @perdure.on_update(validator=check)
    async def say(self, line: str) -> str:
        self.lines.append(line)
        LINES.append(line)  # L008
        return await self._helper(line)

    async def _helper(self, line: str) -> str:
        return f"{line} {datetime.now()}"  # L001

    @perdure.on_update
    def answer(self, line):  # L004 L004
        return line

    @perdure.on_signal
    def heard(self, line):  # L004
        self.lines.append(line)

    @perdure.on_query
    def last(self):  # L004
        return self.lines[-1]

    @perdure.on_query
    def time(self) -> str:
        return str(datetime.now())  # L001

    @perdure.step
    async def act(self, what: str) -> str:
        return str(datetime.now())


@perdure.workflow
async def by_functions(topic: str) -> list[str]:
    lines: list[str] = []

    @perdure.on_update
    async def add(line):  # L004 L004
        lines.append(line)
        return str(datetime.now())  # L001

    @perdure.on_signal("drop")
    def drop(line) -> None:  # L004
        lines.remove(line)

    @perdure.on_signal
    def clear():
        lines.clear()

    @perdure.on_query
    def total() -> int:
        return len(lines)

    @perdure.on_query("any")
    def anything(key: Any) -> Any:
        return key

    def not_a_handler(x):
        return x

    return lines
