"""The process that is killed while it signals: it prints each number once it is acknowledged."""

from __future__ import annotations

import argparse
import asyncio
import contextlib

import perdure


async def send(store: str, execution: str, first: int, last: int) -> None:
    async with perdure.Client(store) as client:
        handle = client.handle(execution)
        for number in range(first, last):
            with contextlib.suppress(perdure.ExecutionClosed):  # killed before it could say so, it sends the last again
                await handle.signal("item", number, id=f"item:{number}")
            print(number, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("execution")
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    told = parser.parse_args()
    asyncio.run(send(told.store, told.execution, told.first, told.last))


if __name__ == "__main__":
    main()
