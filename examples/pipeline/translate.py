"""A book through three providers with limits of their own: at most so many calls at once to each, and no call twice.

    python examples/pipeline/translate.py

Kill it at any moment and run it again: finished chapters stay finished. The providers are stand-ins for real APIs.
"""

import asyncio

import perdure
from perdure import Retry, step, workflow


class Busy(Exception):
    """The provider asks to wait."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"busy for {seconds} s")
        self.retry_after = seconds  # heeded by the retry policy


@step(concurrency=4, retry=Retry(attempts=10))
async def translate(chapter: str) -> str:
    await asyncio.sleep(0.05)
    return chapter.upper()


@step(concurrency=2, timeout=30)
async def illustrate(chapter: str) -> str:
    await asyncio.sleep(0.05)
    return f"[a picture of {chapter}]"


@step(concurrency=1)
async def print_page(text: str, picture: str) -> str:
    await asyncio.sleep(0.01)
    return f"{text} {picture}"


@workflow
async def chapter(name: str) -> str:
    text, picture = await asyncio.gather(translate(name), illustrate(name))
    return await print_page(text, picture)


@workflow
async def book(chapters: list[str]) -> list[str]:
    return await asyncio.gather(*[chapter(name) for name in chapters])  # each a child, listed and shown by itself


if __name__ == "__main__":
    pages = perdure.run(book, [f"chapter {number}" for number in range(1, 9)], id="book-1")
    print("\n".join(pages))
