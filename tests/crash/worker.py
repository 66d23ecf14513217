"""The process that the campaign kills: an engine over the workload, which also starts some executions itself."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal

from tests.crash import workload
from tests.crash.ledger import Line, write

import perdure


async def start_own(engine: perdure.Engine, life: int) -> None:
    """Start this life's executions, and the last life's again, which must change nothing."""
    for n in (life - 1, life):
        for kind in workload.WORKER_KINDS:
            execution = f"own-{kind}-{n}"
            await engine.start(workload.KINDS[kind].workflow, n, id=execution)
            write(Line("own", execution, "", 0, 0, os.getpid(), None))


async def work(store: str, life: int, cache: int, *, own: bool) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with perdure.Engine(
        store, workflows=workload.WORKFLOWS, cache=cache, wait=True, shutdown_timeout=1
    ) as engine:
        print("ready", flush=True)
        if own:
            await start_own(engine, life)
        waiting = [asyncio.create_task(engine.run_forever()), asyncio.create_task(stop.wait())]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        for task in done:
            await task


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("--life", type=int, default=1)
    parser.add_argument("--cache", type=int, default=2000)
    parser.add_argument("--own", action="store_true")
    told = parser.parse_args()
    logging.basicConfig(format=f"%(asctime)s life {told.life} %(message)s", level=logging.WARNING)
    asyncio.run(work(told.store, told.life, told.cache, own=told.own))


if __name__ == "__main__":
    main()
