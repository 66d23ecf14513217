"""What an engine counts of itself: slots of durations, rates between two readings, figures from another process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure.journal import Usage
from perdure.runtime.figures import SLOTS, Figures, percentile, slot, upper_us


@perdure.step
async def shout(word: str) -> str:
    return word.upper()


@perdure.workflow
async def shouts(number: int) -> list[str]:
    return list(await asyncio.gather(*[shout(str(each)) for each in range(number)]))


@perdure.workflow
async def waits() -> None:
    await perdure.receive("go")


def test_every_duration_has_the_slot_that_ends_right_above_it() -> None:
    for microseconds in [*range(5_000), *(2**power + off for power in range(13, 27) for off in (-1, 0, 1))]:
        index = slot(microseconds)
        assert microseconds < upper_us(index)
        assert index == 0 or microseconds >= upper_us(index - 1)


def test_what_takes_longer_than_the_last_slot_is_counted_there() -> None:
    assert slot(10**12) == SLOTS - 1
    assert slot(-5) == 0


def test_a_percentile_is_at_most_a_quarter_too_high() -> None:
    latencies = [0] * SLOTS
    for microseconds in range(1_000, 2_000):
        latencies[slot(microseconds)] += 1
    median = percentile(latencies, 0.5)
    assert median is not None
    assert 1.5 <= median <= 1.5 * 1.25
    assert percentile(latencies, 1.0) == 2.048
    assert percentile([0] * SLOTS, 0.5) is None


def test_since_counts_what_came_between_and_takes_everything_from_another_engine() -> None:
    then = Figures(worker="a:1", uptime_ms=1_000, steps=10, latencies=(1, 2))
    now = Figures(worker="a:1", uptime_ms=3_000, steps=30, active=5, latencies=(1, 7))
    delta = now.since(then)
    assert (delta.uptime_ms, delta.steps, delta.active, delta.latencies) == (2_000, 20, 5, (0, 5))
    assert now.since(Figures(worker="b:2", uptime_ms=1, steps=1)) == now
    assert then.since(now) == then, "it was restarted"


@pytest.mark.parametrize("beside", [False, True])
async def test_an_engine_tells_its_figures_also_through_the_socket(tmp_path: Path, *, beside: bool) -> None:
    store = str(tmp_path / "perdure.db")
    async with perdure.Engine(store, workflows=[shouts, waits]) as engine, perdure.Client(store) as client:
        source: perdure.Engine | perdure.Client = client if beside else engine
        before = await source.figures()
        assert before is not None
        assert (before.steps, before.active) == (0, 0)
        await (await engine.start(shouts, 20, id="s")).result()
        await engine.start(waits, id="w")
        now = await source.figures()
        assert now is not None
        delta = now.since(before)
        assert delta.steps == 20
        assert delta.events >= 20 + 4
        assert 0 < delta.commits <= delta.events
        assert sum(delta.latencies) == delta.commits
        assert now.active + now.resting == 1
        assert (now.running, now.waiting, now.held) == (0, 0, 0)


async def test_without_an_engine_there_are_none(tmp_path: Path) -> None:
    async with perdure.Client(str(tmp_path / "perdure.db")) as client:
        assert await client.figures() is None


@perdure.step(retry=perdure.Retry(attempts=2, delay=0.001))
async def ask_model(prompt: str) -> str:
    attempt = perdure.current_step()
    attempt.spent(input_tokens=100, output_tokens=7)
    attempt.spent(output_tokens=3, cost_micros=attempt.attempt * 1_000)
    if attempt.attempt == 1:
        raise ConnectionError(prompt)
    return prompt


@perdure.step
def in_a_thread() -> None:
    perdure.current_step().spent(input_tokens=1)


@perdure.workflow
async def thinks() -> None:
    await asyncio.gather(ask_model("a"), in_a_thread(), shout("free"))
    await ask_model("b")


async def test_what_attempts_spent_is_kept_with_their_events_and_counted(tmp_path: Path) -> None:
    async with perdure.Engine(tmp_path / "perdure.db", workflows=[thinks]) as engine:
        handle = await engine.start(thinks, id="t")
        await handle.result()
        told = [
            (getattr(each.event, "name", ""), type(each.event).__name__, each.usage) for each in await handle.journal()
        ]
        now = await engine.figures()
    failed, done = Usage(100, 10, 1_000), Usage(100, 10, 2_000)
    spent = sorted([(name, kind, usage) for name, kind, usage in told if usage is not None], key=str)
    assert spent == [
        ("ask_model", "StepAttemptFailed", failed),
        ("ask_model", "StepAttemptFailed", failed),
        ("ask_model", "StepCompleted", done),
        ("ask_model", "StepCompleted", done),
        ("in_a_thread", "StepCompleted", Usage(1, 0, 0)),
    ]
    assert (now.input_tokens, now.output_tokens, now.cost_micros) == (401, 40, 6_000)


@perdure.step(retry=perdure.Retry(attempts=1))
async def boasts(amount: Any) -> None:
    perdure.current_step().spent(input_tokens=amount)


@pytest.mark.parametrize("amount", [-1, 1.5, True])
async def test_an_amount_that_is_no_count_is_refused(tmp_path: Path, amount: float) -> None:
    @perdure.workflow
    async def spends(amount: Any) -> None:
        await boasts(amount)

    async with perdure.Engine(tmp_path / "perdure.db", workflows=[spends]) as engine:
        with pytest.raises(perdure.ExecutionFailed, match="input_tokens="):
            await (await engine.start(spends, amount)).result()
