"""A trip of three bookings, each of which may fail: what was booked before is given back, also after a crash.

python examples/saga/trip.py Lisbon
python examples/saga/trip.py Atlantis      # there is no hotel: the flight is given back
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import perdure
from perdure import Retry, step, workflow


class NotAvailable(Exception):
    """Nobody has one: trying again does not help."""


BOOKING = Retry(attempts=3, never=(NotAvailable,))


@step(retry=BOOKING)
async def book(kind: str, city: str) -> str:
    if city == "Atlantis" and kind == "hotel":
        raise NotAvailable(f"no {kind} in {city}")
    return f"{kind}-{perdure.current_step().idempotency_key[:6]}"


@step(retry=Retry(attempts=None))  # giving back must not fail for good: it is tried until it works
async def give_back(booking: str) -> None:
    print(f"given back: {booking}")


@workflow
async def trip(city: str) -> list[str]:
    undo: list[Callable[[], Awaitable[None]]] = []
    try:
        for kind in ("flight", "hotel", "car"):
            booking = await book(kind, city)
            undo.append(partial(give_back, booking))
        return [f"{len(undo)} bookings for {city}"]
    except perdure.StepFailed as failed:
        for one in reversed(undo):
            await asyncio.shield(one())  # also when the trip is cancelled meanwhile
        return [f"no trip to {city}: {failed.fields['failure'].message}"]


if __name__ == "__main__":
    city = sys.argv[1] if len(sys.argv) > 1 else "Lisbon"
    told = perdure.run(trip, city, id=f"trip-{city}")
    print("\n".join(told))
