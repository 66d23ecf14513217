"""Threads, executors, other loops."""

import asyncio
import concurrent.futures
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import perdure


@perdure.workflow
async def bad() -> None:
    threading.Thread(target=print).start()  # L007
    Thread(target=print), threading.Timer(1, print)  # L007 L007
    ThreadPoolExecutor(), concurrent.futures.ProcessPoolExecutor()  # L007 L007
    multiprocessing.Process(target=print)  # L007
    await asyncio.to_thread(print)  # L007
    await asyncio.get_running_loop().run_in_executor(None, print)  # L007
    asyncio.new_event_loop()  # L007


@perdure.workflow
async def good() -> None:
    lock, event = asyncio.Lock(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(event.wait())
        event.set()
    async with lock:
        threading.get_ident()
