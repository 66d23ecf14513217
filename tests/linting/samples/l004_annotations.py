"""Annotations are what values are encoded by."""

from typing import Any

import perdure


@perdure.step
async def bare(query, *, limit: int = 3):  # L004 L004
    return query


@perdure.step(
    retry=None,
)
def no_result(query: str):  # L004
    return query


@perdure.step
def rest(*args, **kwargs) -> None:  # L004
    pass


@perdure.step
def unused_but_defined(x) -> None:  # L004
    pass


@perdure.workflow
async def bad(topic) -> None:  # L004
    await bare(topic)
    await perdure.receive("approval")  # L004
    await perdure.receive("approval", timeout=3)  # L004
    await perdure.ask("Really?", to="ada")  # L004
    receive = perdure.receive
    await rest()


class Tools:
    @perdure.step
    async def call(self, name: str) -> Any:
        return name

    @perdure.step
    async def bare(self, name) -> Any:  # L004
        return name


@perdure.workflow
async def good(topic: str, anything: Any = None, *rest: str, **more: int) -> None:
    tools = Tools()
    await tools.call(topic)
    await tools.bare(topic)
    await perdure.receive("approval", str)
    await perdure.ask("Really?", bool, to="ada")
    await perdure.receive("approval", str, timeout=3)
    await perdure.receive("approval")  # perdure: allow L004


@perdure.step
async def meant(query):  # perdure: allow L004
    return query
