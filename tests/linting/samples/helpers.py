"""What a workflow calls in its own package; linted through the workflows that call it."""

from datetime import datetime
from pathlib import Path
from time import time as captured

import perdure


def stamp() -> str:
    return deeper(datetime)


def deeper(kind: type) -> str:
    return f"{kind} {datetime.now()}"  # L001


def never_called() -> datetime:
    return datetime.now()


@perdure.step
async def touches_the_world(name: str) -> str:
    return Path(name).read_text()


class Agent:
    """Its methods are reached through what holds it."""

    prompt = "x"

    def __init__(self) -> None:
        self.made = datetime.now()  # L001

    async def think(self, question: str) -> str:
        return await self._ask(question)

    async def _ask(self, question: str) -> str:
        Path(question).exists()  # L005
        return await touches_the_world(question)

    def unused(self) -> datetime:
        return datetime.now()

    @perdure.step
    async def act(self, what: str) -> str:
        return Path(what).read_text()

    @staticmethod
    def static() -> datetime:
        return datetime.now()  # L001

    @classmethod
    def of_class(cls) -> datetime:
        return datetime.now()  # L001
