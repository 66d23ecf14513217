"""How far a workflow's code is followed."""

import functools
from datetime import datetime

import perdure
from tests.linting.samples import helpers
from tests.linting.samples.helpers import Agent


@perdure.workflow
async def through_objects(name: str) -> str:
    made = Agent()
    await made.think(name)
    Agent.static()
    await annotated(made, name)
    await helpers.touches_the_world(name)
    return str([decorated(), partly(), later(name), list(map(mapped, name)), Settings().value])


async def annotated(agent: "Agent", name: str) -> None:
    agent.of_class()
    await agent.act(name)


def logged(fn):
    @functools.wraps(fn)
    def wrapper(*args):
        return fn(*args)

    return wrapper


@logged
def decorated() -> datetime:
    return datetime.now()  # L001


def given(kind: str) -> datetime:
    return datetime.now()  # L001


partly = functools.partial(given, "x")


@functools.cache
def later(name: str) -> datetime:
    return datetime.now()  # L001


def mapped(letter: str) -> datetime:
    return datetime.now()  # L001


class Settings:
    value = 3

    def __init__(self) -> None:
        datetime.now()  # L001


def recursive(depth: int) -> int:
    return recursive(depth - 1) + other(depth) if depth else 0


def other(depth: int) -> int:
    datetime.now()  # L001
    return recursive(depth - 1)


@perdure.workflow
async def round_and_round() -> int:
    return recursive(3)


@perdure.workflow
async def nested_steps() -> None:
    @perdure.step
    async def inner() -> str:
        return str(datetime.now())

    @perdure.step(retry=None)
    async def inner_too() -> str:
        return str(datetime.now())

    await inner()
    await inner_too()
