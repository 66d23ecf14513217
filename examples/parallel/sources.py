"""Research in parallel: several sources are asked at once, the quick ones win, the slow ones are let go.

python examples/parallel/sources.py "durable execution"
"""

import asyncio
import sys

import perdure
from perdure import step, workflow

SOURCES = {"encyclopedia": 0.05, "newspapers": 0.1, "forum": 0.2, "archive": 30.0}
ENOUGH = 3


@step(retry=2, timeout=60)
async def look_up(source: str, topic: str) -> str:
    await asyncio.sleep(SOURCES[source])
    return f"{source} on {topic}"


@step
async def summarise(found: list[str]) -> str:
    return f"{len(found)} sources: {', '.join(found)}"


@workflow
async def research(topic: str) -> str:
    asked = [asyncio.create_task(look_up(source, topic)) for source in SOURCES]
    found: list[str] = []
    for answer in asyncio.as_completed(asked):
        found.append(await answer)
        if len(found) == ENOUGH:
            break
    for task in asked:
        task.cancel()  # what still runs is stopped; on replay it is not even started
    return await summarise(found)


if __name__ == "__main__":
    topic = sys.argv[1] if len(sys.argv) > 1 else "durable execution"
    print(perdure.run(research, topic, id=f"research-{topic}"))
