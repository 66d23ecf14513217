"""Effects that must not happen twice, in the simulated world: the bank knows what happened, whatever is recorded.

An order has a number of its own for each attempt. It may be voided, or expire; from then on the bank refuses it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from perdure.testing.kernel import Process
from perdure.testing.ledger import Broken
from perdure.workflow.context import Attempt, current_step
from perdure.workflow.effects import DidNotHappen, Happened, StillUnknown

if TYPE_CHECKING:
    from perdure.testing.world import World


class Refused(Exception):
    """The bank says no: this order was not carried out, and never will be."""


class Payment(NamedTuple):
    """It happened."""

    key: str
    attempt: int
    value: int


class Bank:
    """Where simulated effects take place."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.payments: dict[str, list[Payment]] = {}  # by idempotency key
        self.voided: set[str] = set()  # orders that will not be carried out any more
        self._line: Process | None = None

    def send(
        self, process: Process, attempt: Attempt, expires_at_ms: int | None, delay_s: float
    ) -> asyncio.Future[int]:
        """An order on its way: it arrives whatever becomes of who sent it. The answer goes back if anybody is there."""
        answered = process.create_future()
        if self._line is None:
            self._line = Process(process.kernel, "bank")

        def settle(method: Any, value: Any) -> None:
            if not answered.done():
                method(value)

        def arrives() -> None:
            try:
                process.call_soon(settle, answered.set_result, self.pay(process, attempt, expires_at_ms))
            except Refused as refused:
                process.call_soon(settle, answered.set_exception, refused)

        self._line.call_later(delay_s, arrives)
        return answered

    def pay(self, process: Process, attempt: Attempt, expires_at_ms: int | None) -> int:
        """Carry out an order, once. Raises `Refused`, or stops the world: what is declared once happened again."""
        order = order_of(attempt)
        if not self.world.ledger.intended(attempt.run, attempt.seq, attempt.attempt):
            process.kernel.fail(Broken("an effect is intended before it happens", order))
        if order in self.voided or (expires_at_ms is not None and process.kernel.now_ms >= expires_at_ms):
            raise Refused(order)
        paid = self.payments.setdefault(attempt.idempotency_key, [])
        self.world.answers += 1
        paid.append(Payment(attempt.idempotency_key, attempt.attempt, self.world.answers))
        name = f"{attempt.name} #{attempt.seq} of {attempt.execution}"
        self.world.ledger.note(process.kernel.now_ms, process.name, attempt.execution, f"paid: {name}")
        if len(paid) > 1:
            process.kernel.fail(Broken("what is declared once happens at most once", f"{name}: {paid}"))
        return self.world.answers

    def void(self, order: str) -> None:
        """From now on it will not be carried out."""
        self.voided.add(order)

    def find(self, key: str, attempt: int) -> Payment | None:
        """What came of an order."""
        return next((each for each in self.payments.get(key, ()) if each.attempt == attempt), None)


def order_of(attempt: Attempt) -> str:
    """The number of an order: another one for each attempt, as one that was voided stays so."""
    return f"{attempt.idempotency_key}-{attempt.attempt}"


async def pay(tag: str, longest_ms: int, *, expires_ms: int | None = None) -> int:
    """The body of simulated steps that are declared once: it may fail, or be frozen, before the effect and after it."""
    process: Any = asyncio.get_running_loop()
    world: World = process.world
    attempt, began_ms = current_step(), process.kernel.now_ms
    world.began(process, attempt, tag)
    await asyncio.sleep(world.rng.random() * longest_ms / 2000)
    _stumble(world)
    expires_at_ms = None if expires_ms is None else began_ms + expires_ms
    answer = world.bank.send(process, attempt, expires_at_ms, world.rng.random() * longest_ms / 1000)
    if world.rng.random() < 0.1:
        raise ConnectionError("the line went dead")  # and the order is on its way
    value = await answer
    await asyncio.sleep(world.rng.random() * longest_ms / 2000)
    _stumble(world)
    return value


def pay_at_once(tag: str) -> int:
    """The same for a `def` step, which runs in one go on the loop of its process."""
    process: Any = asyncio.get_running_loop()
    world: World = process.world
    attempt = current_step()
    world.began(process, attempt, tag)
    _stumble(world, surely_not=True)
    value = world.bank.pay(process, attempt, None)
    _stumble(world)
    return value


def _stumble(world: World, *, surely_not: bool = False) -> None:
    luck = world.rng.random()
    if luck < 0.1:
        raise Refused("not today") if surely_not else ConnectionError("the line is dead")


async def look_and_void(key: str, *_: Any) -> Any:
    """A `reconcile` that makes sure: what has not happened never will."""
    process: Any = asyncio.get_running_loop()
    world: World = process.world
    await asyncio.sleep(world.rng.random() * 0.05)
    _stumble(world)
    attempt = current_step()
    paid = world.bank.find(key, attempt.attempt)
    if paid is not None:
        return Happened(paid.value)
    if world.rng.random() < 0.2:
        return StillUnknown()
    world.bank.void(order_of(attempt))
    return DidNotHappen()


def look(key: str, *_: Any) -> Any:
    """A `reconcile` that only looks: orders expire, and what it says too early must not count."""
    process: Any = asyncio.get_running_loop()
    world: World = process.world
    paid = world.bank.find(key, current_step().attempt)
    return Happened(paid.value) if paid is not None else DidNotHappen()
