"""More of the corpus: questions to people, and failures with fields. See `shapes.py`."""

from __future__ import annotations

import asyncio
from typing import Any

import perdure
from perdure.testing.world import act
from perdure.workflow.definitions import step, workflow


@step(retry=perdure.Retry(attempts=4, delay=0.05, maximum=0.5))
async def shown(tag: str, longest_ms: int = 40) -> int:
    """What somebody is asked about."""
    return await act(f"{tag}/{longest_ms}", longest_ms, 0.1)


@workflow
async def asks(n: int) -> list[Any]:
    """Questions at once and one after the other, some with a time limit, some about a call."""

    async def one(i: int) -> Any:
        call = shown.bind(f"shown-{i}", 20)
        timeout = None if i % 3 == 0 else 0.4 * i
        try:
            answer = await perdure.ask(f"number {i}?", int, to=f"p{i % 2}", about=call, timeout=timeout)
        except perdure.AskTimeout:
            return "late"
        return [answer, await call()]

    first = await asyncio.gather(*(one(i) for i in range(n)))
    last = await one(3)
    try:
        async with asyncio.timeout(0.3):
            dropped = await perdure.ask("quick?", int)
    except TimeoutError:
        dropped = -1
    return [*first, last, dropped]


class Declined(perdure.Failure):
    """A failure with fields."""

    code: int
    why: tuple[str, ...] = ()


@step(retry=perdure.Retry(attempts=3, delay=0.02, never=(Declined,)), raises=[Declined, ValueError])
async def decline(tag: str, how: int) -> int:
    """A step that mostly fails, in many ways."""
    done = await act(f"{tag}/{how}", 30, 0.1)
    if how == 0:
        return done
    if how == 1:
        raise Declined("no", code=done, why=(tag,)) from ValueError(tag, done)
    if how == 2:
        raise ExceptionGroup(tag, [Declined(code=done), KeyError(tag), ValueError(done)])
    raise (ValueError(tag, done) if how == 3 else KeyError(tag)) from Declined(code=how)


@workflow(raises=[Declined])
async def refuser(n: int) -> int:
    """A child that passes on what its step raised."""
    return await decline(f"r{n}", n)


@workflow
async def failures(n: int) -> list[str]:
    """Goes the way that the fields of what was raised say."""
    said: list[str] = []
    for i in range(n):
        try:
            said.append(str(await (decline(f"f{i}", i % 5) if i % 2 else refuser(i % 4))))
        except Declined as declined:
            said.append(f"{declined.code} {declined.why} {declined.__cause__!r}")
            for _ in range(declined.code % 3):
                await shown(f"again-{i}")
        except ExceptionGroup as group:
            said.append(repr(group.exceptions))
        except (ValueError, perdure.StepFailed, perdure.ExecutionFailed) as other:
            said.append(f"{type(other).__name__} {other.__cause__!r}")
    return said
