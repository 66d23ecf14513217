"""What simulated steps do to the world: take time, fail at random, never answer the same twice, and tell the ledger."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from perdure.testing.bank import Bank
from perdure.testing.kernel import Process
from perdure.testing.ledger import Broken, Ledger, StepStart
from perdure.workflow.context import Attempt, current_step


class WorldFailure(Exception):
    """Something outside did not work."""


class World:
    """The outside, as steps meet it."""

    def __init__(self, rng: random.Random, ledger: Ledger) -> None:
        self.rng = rng
        self.ledger = ledger
        self.answers = 0
        self.bank = Bank(self)

    def began(self, process: Process, attempt: Attempt, arguments: str) -> None:
        """A step's body began; a broken law stops the world, because a step cannot."""
        start = StepStart(
            order=self.ledger.next(),
            time_ms=process.kernel.now_ms,
            process=process.name,
            execution=attempt.execution,
            run=attempt.run,
            seq=attempt.seq,
            attempt=attempt.attempt,
            name=attempt.name,
            key=attempt.idempotency_key,
            arguments=arguments,
            length=self.ledger.lengths.get(attempt.run, 0),
        )
        try:
            self.ledger.step_began(start)
        except Broken as broken:
            process.kernel.fail(broken)

    def answer(self, fail: float) -> int:
        """Another number each time, or a failure."""
        self.answers += 1
        if fail and self.rng.random() < fail:
            raise WorldFailure(f"failure {self.answers}")
        return self.answers


async def act(arguments: str, longest_ms: int, fail: float) -> int:
    """The body of every simulated step: begin, take some time, answer."""
    process: Any = asyncio.get_running_loop()
    world: World = process.world
    world.began(process, current_step(), arguments)
    if longest_ms:
        await asyncio.sleep(world.rng.random() * longest_ms / 1000)
    return world.answer(fail)


def act_at_once(arguments: str, fail: float) -> int:
    """The same for a `def` step, which runs in one go on the loop of its process."""
    process: Any = asyncio.get_running_loop()
    world: World = process.world
    world.began(process, current_step(), arguments)
    return world.answer(fail)
