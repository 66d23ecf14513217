"""Cancellation that is swallowed."""

import asyncio
import contextlib

import perdure


@perdure.step
async def work() -> None:
    pass


@perdure.workflow
async def bad() -> None:
    try:
        await work()
    except:  # L009
        pass
    try:
        await work()
    except BaseException as error:  # L009
        print(error)
    try:
        async with asyncio.timeout(1):
            pass
    except (ValueError, BaseException):  # L009
        pass
    with contextlib.suppress(BaseException):  # L009
        await work()
    try:
        await work()
    except:  # L009

        def later() -> None:
            raise ValueError

        later()


@perdure.workflow
async def good() -> None:
    try:
        await work()
    except Exception:
        pass
    try:
        await work()
    except BaseException:
        print("seen")
        raise
    except:
        if perdure.now():
            raise
    try:
        print("nothing is awaited")
    except:
        pass
    try:
        await work()
    except asyncio.CancelledError:
        print("meant")
    with contextlib.suppress(TimeoutError, asyncio.CancelledError):
        await work()

    async def nested() -> None:
        await work()

    try:
        task = asyncio.create_task(nested())
    except:
        pass
    await task
