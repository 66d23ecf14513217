"""One piece of work on LangGraph with its SQLite checkpointer, as its users would write it. Prints one line of JSON.

Run by benchmarks/bench.py with the Python of .venv-langgraph: run.py FOLDER --executions N --steps M [--fan]
A thread is an execution, a superstep a step: its result is checkpointed before the next one begins.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import operator
import sqlite3
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

RESULT = "x" * 100


class Chain(TypedDict):
    wanted: int
    done: int
    result: str


class Fan(TypedDict):
    wanted: int
    results: Annotated[list[str], operator.add]


async def trivial(state: Chain) -> dict[str, Any]:
    return {"done": state["done"] + 1, "result": RESULT}


async def one(_number: int) -> dict[str, Any]:
    return {"results": [RESULT]}


def chain(saver: AsyncSqliteSaver) -> Any:
    graph = StateGraph(Chain)
    graph.add_node("trivial", trivial)
    graph.add_edge(START, "trivial")
    graph.add_conditional_edges("trivial", lambda state: END if state["done"] >= state["wanted"] else "trivial")
    return graph.compile(checkpointer=saver)


def fan(saver: AsyncSqliteSaver) -> Any:
    graph = StateGraph(Fan)
    graph.add_node("one", one)
    graph.add_conditional_edges(START, lambda state: [Send("one", number) for number in range(state["wanted"])])
    graph.add_edge("one", END)
    return graph.compile(checkpointer=saver)


async def run_all(graph: Any, name: str, executions: int, begin: dict[str, Any], steps: int) -> list[dict[str, Any]]:
    def config(number: int) -> dict[str, Any]:
        return {"configurable": {"thread_id": f"{name}-{number}"}, "recursion_limit": steps + 10}

    runs = [graph.ainvoke(begin, config(number), durability="sync") for number in range(executions)]
    return list(await asyncio.gather(*runs))


async def measured(file: Path, executions: int, steps: int, *, fans: bool) -> tuple[float, float, str]:
    async with AsyncSqliteSaver.from_conn_string(str(file)) as saver:
        graph = (fan if fans else chain)(saver)
        begin = (lambda n: {"wanted": n, "results": []}) if fans else (lambda n: {"wanted": n, "done": 0, "result": ""})
        await run_all(graph, "warm", 1, begin(1), 1)
        wall, cpu = time.perf_counter(), time.process_time()
        ended = await run_all(graph, "bench", executions, begin(steps), steps)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert all((len(end["results"]) if fans else end["done"]) == steps for end in ended)
        async with saver.conn.execute("PRAGMA journal_mode") as mode, saver.conn.execute("PRAGMA synchronous") as sync:
            settings = f"journal_mode={(await mode.fetchone())[0]}, synchronous={(await sync.fetchone())[0]}"
        return wall, cpu, f"SQLite {sqlite3.sqlite_version}, {settings}, durability=sync"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--executions", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--fan", action="store_true", help="all steps of an execution at once")
    options = parser.parse_args()
    file = options.folder / "langgraph.sqlite"
    wall, cpu, durability = asyncio.run(measured(file, options.executions, options.steps, fans=options.fan))
    result = {
        "side": "langgraph",
        "executions": options.executions,
        "steps": options.executions * options.steps,
        "seconds": wall,
        "cpu_seconds": cpu,
        "durability": durability,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
