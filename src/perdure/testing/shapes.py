"""The corpus: small workflows of every shape, whose steps meet the simulated world. Each ends whatever it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import perdure
from perdure.testing.ask_shapes import asks, failures, refuser
from perdure.testing.bank import Refused, look, look_and_void, pay, pay_at_once
from perdure.testing.deploys import renewed
from perdure.testing.world import WorldFailure, act, act_at_once
from perdure.workflow.definitions import Workflow, step, workflow

QUICK = perdure.Retry(attempts=4, delay=0.05, maximum=0.5)


@step(retry=QUICK)
async def work(tag: str, longest_ms: int = 40, fail: float = 0.0) -> int:
    """A step that takes a while, and may fail."""
    return await act(f"{tag}/{longest_ms}/{fail}", longest_ms, fail)


@step(retry=None)
async def once_only(tag: str, longest_ms: int = 40, fail: float = 0.5) -> int:
    """One that is not tried again."""
    return await act(f"{tag}/{longest_ms}/{fail}", longest_ms, fail)


@step(retry=perdure.Retry(attempts=2, delay=0.02), timeout=0.05)
async def hasty(tag: str, longest_ms: int = 100) -> int:
    """One that often takes longer than it may."""
    return await act(f"{tag}/{longest_ms}", longest_ms, 0.0)


@step(retry=QUICK)
async def stubborn(tag: str) -> int:
    """One that takes its time to be cancelled."""
    try:
        return await act(tag, 300, 0.2)
    finally:
        await asyncio.sleep(0.2)


@step(retry=QUICK)
def plain(tag: str) -> int:
    """A `def` step, which runs in a thread."""
    return act_at_once(tag, 0.2)


@step(concurrency=2)
async def narrow(tag: str) -> int:
    """At most two at once."""
    return await act(tag, 30, 0.1)


@workflow
async def sequence(n: int) -> list[int]:
    """One step after the other, each fed with the last one's answer."""
    seen = [0]
    for i in range(n):
        seen.append(await work(f"s{i}-{seen[-1]}", fail=0.1))
    return seen


@workflow
async def fan(n: int) -> list[int]:
    """All at once, then one on the sum."""
    found = await asyncio.gather(*[work(f"f{i}", 80, 0.1) for i in range(n)])
    return [*found, await work(f"sum-{sum(found)}")]


@workflow
async def narrow_fan(n: int) -> int:
    """More than may run at once."""
    return sum(await asyncio.gather(*[narrow(f"n{i}") for i in range(n)]))


@workflow
async def mixed(n: int) -> list[Any]:
    """`def` steps, and steps that die slowly, some of them abandoned."""
    said: list[Any] = []
    for i in range(n):
        try:
            async with asyncio.timeout(0.15):
                said += await asyncio.gather(stubborn(f"u{i}"), plain(f"v{i}"))
        except TimeoutError:
            said.append(await plain(f"w{i}-{len(said)}"))
    return said


@workflow
async def race(n: int) -> str:
    """The first of several wins, the others are cancelled; what follows depends on who won."""
    tasks = [asyncio.create_task(work(f"r{i}", 60, 0.1), name=f"r{i}") for i in range(n)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    winners = "".join(sorted(task.get_name() for task in done))
    return f"{winners}-{await work(winners)}"


@workflow
async def harvest(n: int) -> list[int]:
    """What is done at a deadline, in the order in which it is found; and what is not."""
    tasks = [asyncio.create_task(work(f"g{i}", 60), name=f"g{i}") for i in range(n)]
    await asyncio.sleep(0.02)
    done, pending = await asyncio.wait(tasks, timeout=0.02)
    for task in pending:
        task.cancel()
    return [await work(f"after-{task.get_name()}", 10) for task in [*done, *pending]]


@workflow
async def deadlines(n: int) -> str:
    """Steps against timeouts."""
    said = []
    for i in range(n):
        try:
            said.append(str(await asyncio.wait_for(work(f"d{i}", 100), 0.05)))
        except TimeoutError:
            said.append(f"late{await work(f'late{i}')}")
    return ",".join(said)


@workflow
async def timers(n: int) -> float:
    """Sleeps, nested and side by side."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    await asyncio.gather(*[asyncio.sleep(0.01 * (i % 5) + 0.001 * i) for i in range(n)])
    async with asyncio.timeout(5):
        await asyncio.sleep(1.5)
    await work(f"t-{perdure.now().isoformat()}-{perdure.random().random()}-{perdure.uuid4()}")
    return loop.time() - before


@workflow
async def approvals(n: int) -> list[Any]:
    """Messages with timeouts; a timeout is no end."""
    got: list[Any] = []
    for i in range(n):
        try:
            got.append(await perdure.receive("note", timeout=1.0 + i))  # perdure: allow L004
        except TimeoutError:
            got.append(await work(f"nobody-{i}"))
    return got


@workflow
async def listener(n: int) -> list[Any]:
    """Several receivers of two names, some cancelled as the message arrives."""

    async def one(name: str, patience: float) -> Any:
        try:
            async with asyncio.timeout(patience):
                return await perdure.receive(name)  # perdure: allow L004
        except TimeoutError:
            return None

    first = await asyncio.gather(*[one("note", 0.3 + 0.1 * i) for i in range(n)], one("other", 1.0))
    return [*first, await work(f"heard-{len([x for x in first if x is not None])}")]


@workflow
async def leaf(n: int) -> int:
    """A child: a step, a nap, sometimes a failure."""
    value = await work(f"leaf{n}", 30, 0.1)
    await asyncio.sleep(0.05)
    if n % 4 == 3:
        raise WorldFailure(f"leaf {n}")
    return value


@workflow
async def patient(name: str) -> Any:
    """A child that waits for messages of its parent, then for cancellation."""
    first = await perdure.receive(name, timeout=20.0)  # perdure: allow L004
    second = await perdure.receive(name, timeout=20.0)  # perdure: allow L004
    try:
        await asyncio.sleep(3.0)
    except asyncio.CancelledError:
        await work(f"tidy-{first}-{second}")
        raise
    return [first, second]


@workflow
async def family(n: int) -> list[str]:
    """Children in parallel, some fail; one is signalled and cancelled; one is left behind."""
    told: list[str] = []
    handle = await perdure.start_child(patient, "go")
    await perdure.start_child(leaf, 40, on_parent_close="abandon")
    ends = await asyncio.gather(*[leaf(i) for i in range(n)], return_exceptions=True)
    told += [type(end).__name__ if isinstance(end, BaseException) else str(end) for end in ends]
    for i in range(2):
        try:
            await handle.signal("go", i)
        except perdure.MessageNotDelivered:
            told.append("gone")
    if n % 2:
        await handle.cancel("enough")
    try:
        told.append(str(await handle.result()))
    except perdure.PerdureError as error:
        told.append(type(error).__name__)
    return told


@workflow
async def deserter(policy: str) -> int:
    """Closes before its children do."""
    for i in range(2):
        await perdure.start_child(patient, f"never{i}", on_parent_close="terminate" if policy == "t" else "cancel")
    return await work("leaving")


@workflow
async def tidies(tag: str) -> str:
    """A child that cleans up with a step when it is cancelled."""
    try:
        await asyncio.sleep(1.0)
    except asyncio.CancelledError:
        await work(f"tidy-{tag}")
        raise
    return tag


@workflow
async def breakup(n: int) -> list[str]:
    """Stops waiting for its children in every way, and ends at once after the last."""
    said: list[str] = []
    ways: list[Any] = ["leave", "cancel", "wait"]
    for way in ways[-n:]:
        child = await perdure.start_child(tidies, way)
        try:
            async with asyncio.timeout(0.3):
                said.append(await child.result(on_cancel=way))
        except (TimeoutError, perdure.PerdureError) as error:
            said.append(type(error).__name__)
    try:
        async with asyncio.timeout(0.1):
            said.append(await tidies("last"))
    except (TimeoutError, perdure.PerdureError) as error:
        said.append(type(error).__name__)
    return said


@workflow
async def cautious(n: int) -> str:
    """Cleans up with steps when it is cancelled, and may be cancelled again meanwhile."""
    try:
        for i in range(n):
            await work(f"c{i}", 200)
            await asyncio.sleep(0.3)
    except asyncio.CancelledError:
        await asyncio.shield(work("rollback"))
        raise
    finally:
        await asyncio.sleep(0.01)
    return "through"


@workflow
async def groups(n: int) -> list[str]:
    """Task groups whose members fail, and their exception groups."""
    seen: list[str] = []

    async def member(i: int) -> None:
        seen.append(f"{i}:{await once_only(f'm{i}', 50, 0.3)}")

    try:
        async with asyncio.TaskGroup() as group:
            for i in range(n):
                group.create_task(member(i))
    except* perdure.StepFailed as failed:
        seen.append(f"{len(failed.exceptions)} failed")
    return seen


@workflow
async def retries(n: int) -> list[str]:
    """Steps that fail, time out, or are given up."""
    said: list[str] = []
    for i in range(n):
        for flaky in (True, False):
            try:
                said.append(str(await (work(f"x{i}", 10, 0.6) if flaky else hasty(f"h{i}"))))
            except perdure.StepFailed as error:
                said.append(error.failure.type)
    return said


@workflow
async def background(n: int) -> int:
    """Tasks beside the main one, a queue between them, one that dies unseen, one that is never awaited."""
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)

    async def produce() -> None:
        for i in range(n):
            await queue.put(await work(f"p{i}", 20))

    async def die() -> None:
        await asyncio.sleep(0.02)
        raise WorldFailure("unseen")

    producer = asyncio.create_task(produce())
    dying = asyncio.create_task(die())
    unheard = asyncio.create_task(work("unheard", 500))
    total = 0
    for _ in range(n):
        total += await queue.get()
    await producer
    return total + dying.done() - unheard.done()


@workflow
async def with_anyio(n: int) -> list[str]:
    """Anyio's task groups, cancel scopes and streams."""
    import anyio  # noqa: PLC0415 - not a dependency: whoever runs this shape has it

    said: list[str] = []
    send, receive = anyio.create_memory_object_stream[int](2)

    async def producer() -> None:
        async with send:
            for i in range(n):
                await send.send(await work(f"a{i}", 30))

    async with anyio.create_task_group() as group:
        group.start_soon(producer)
        async with receive:
            said += [str(item) async for item in receive]
    with anyio.move_on_after(0.03) as scope:
        said.append(str(await work("slow", 60)))
    with anyio.CancelScope(shield=True):
        said.append(str(await work(f"shielded-{scope.cancelled_caught}")))
    return said


@workflow
async def chatter(n: int) -> list[Any]:
    """Two executions that signal each other, each in order; the peer may be gone."""
    peer = await perdure.start_child(echo, perdure.info().id, n)
    heard: list[Any] = []
    for i in range(n):
        try:
            await peer.signal("ping", i)
            heard.append(await perdure.receive("pong", timeout=15.0))  # perdure: allow L004
        except (perdure.MessageNotDelivered, TimeoutError) as error:
            heard.append(type(error).__name__)
            break
    return heard


@workflow
async def echo(caller: str, n: int) -> int:
    """Answers pings with pongs, several in flight."""
    home = perdure.external(caller)
    sent: list[asyncio.Task[None]] = []
    try:
        for _ in range(n):
            value = await perdure.receive("ping", int, timeout=10.0)
            sent.append(asyncio.create_task(home.signal("pong", value)))
            sent.append(asyncio.create_task(home.signal("aside", value)))
    except TimeoutError:
        pass
    results = await asyncio.gather(*sent, return_exceptions=True)
    return sum(result is None for result in results)


@workflow
async def knocker(other: str) -> list[str]:
    """Signals an execution that may not exist yet, until it is heard."""
    target = perdure.external(other)
    said: list[str] = []
    for i in range(8):
        try:
            await target.signal("note", i)
            said.append("heard")
        except perdure.MessageNotDelivered:
            said.append("nobody")
        await asyncio.sleep(0.2)
    return said


@step(once=True, not_happened=[Refused], retry=QUICK)
async def pay_once(tag: str, longest_ms: int = 40) -> int:
    """An effect that must not happen twice; people settle what nobody knows of."""
    return await pay(tag, longest_ms)


@step(once=True, not_happened=[Refused], retry=QUICK, reconcile=look_and_void, timeout=0.12)
async def pay_checked(tag: str, longest_ms: int = 70) -> int:
    """Often takes longer than it may; the bank is asked, and voids what has not happened."""
    return await pay(tag, longest_ms)


@step(once=True, not_happened=[Refused], retry=QUICK, timeout=3.0, reconcile=look)
async def pay_expiring(tag: str, longest_ms: int = 1_500) -> int:
    """The bank is only asked; orders expire with the attempt."""
    return await pay(tag, longest_ms, expires_ms=3_000)


@step(once=True, not_happened=[Refused], retry=QUICK, concurrency=2)
def pay_plainly(tag: str) -> int:
    """A `def` step."""
    return pay_at_once(tag)


@workflow
async def payments(n: int) -> list[int]:
    """One effect after the other, parked whenever nobody knows."""
    paid: list[int] = []
    for i in range(n):
        paid.append(await (pay_once(f"p{i}-{sum(paid)}") if i % 2 else pay_plainly(f"q{i}")))
    return paid


@workflow
async def bold(n: int) -> list[str]:
    """Goes on where nobody knows, and tries something else."""
    said: list[str] = []
    for i in range(n):
        try:
            said.append(str(await pay_once.with_options(on_unknown="raise")(f"b{i}")))
        except (perdure.UnknownOutcome, perdure.StepFailed) as error:
            said.append(type(error).__name__)
            await work(f"apologise-{i}")
    return said


@workflow
async def reconciled(n: int) -> list[Any]:
    """Effects at once, of which the world is asked."""
    steps = [pay_checked(f"c{i}") if i % 2 else pay_expiring(f"e{i}") for i in range(n)]
    found = await asyncio.gather(*steps, return_exceptions=True)
    return [type(each).__name__ if isinstance(each, BaseException) else each for each in found]


@workflow
async def hurried(n: int) -> list[str]:
    """Stops waiting for effects that have begun, and may end before they do."""
    said: list[str] = []
    for i in range(n):
        try:
            async with asyncio.timeout(0.05 * (i % 3)):
                said.append(str(await (pay_checked(f"h{i}", 80) if i % 2 else pay_once(f"h{i}", 80))))
        except (TimeoutError, perdure.StepFailed) as error:
            said.append(type(error).__name__)
    left = asyncio.create_task(pay_checked("left", 100))
    await asyncio.sleep(0.02)
    return [*said, str(left.done())]


@workflow
async def chain(n: int, heard: list[Any] | None = None) -> list[Any]:
    """Runs that follow each other; messages may come at any moment, and some are left for the next run."""
    heard = [*(heard or []), await work(f"link{n}", 60, 0.2)]
    try:
        heard.append(await perdure.receive("note", timeout=0.3))  # perdure: allow L004
        heard.append(await perdure.receive("other", timeout=0.1))  # perdure: allow L004
    except TimeoutError:
        pass
    if n:
        perdure.continue_as_new(n - 1, heard)
    return heard


@workflow
async def relay(n: int) -> dict[str, int]:
    """A state that is handed on, and a child of the first run that ends with the last one."""
    state = perdure.restored(dict[str, int]) or {}
    if not state:
        await perdure.start_child(patient, "never")
    state[f"lap{len(state)}"] = await work(f"lap{len(state)}", 40, 0.1)
    await asyncio.sleep(0.1)
    if len(state) <= n:
        perdure.snapshot(state)
    return state


class Shape(NamedTuple):
    """A workflow, and how the simulator starts it."""

    workflow: Workflow[..., Any]
    arguments: Callable[[Any], tuple[Any, ...]]  # of a seeded generator


def _number(low: int, high: int) -> Callable[[Any], tuple[Any, ...]]:
    return lambda rng: (rng.randint(low, high),)


SHAPES: dict[str, Shape] = {
    "sequence": Shape(sequence, _number(1, 6)),
    "asks": Shape(asks, _number(1, 4)),
    "fan": Shape(fan, _number(2, 8)),
    "narrow_fan": Shape(narrow_fan, _number(3, 6)),
    "mixed": Shape(mixed, _number(1, 4)),
    "race": Shape(race, _number(2, 5)),
    "harvest": Shape(harvest, _number(3, 6)),
    "deadlines": Shape(deadlines, _number(1, 4)),
    "timers": Shape(timers, _number(2, 8)),
    "approvals": Shape(approvals, _number(1, 4)),
    "listener": Shape(listener, _number(1, 4)),
    "family": Shape(family, _number(2, 5)),
    "deserter": Shape(deserter, lambda rng: (rng.choice("tc"),)),
    "breakup": Shape(breakup, _number(1, 3)),
    "cautious": Shape(cautious, _number(2, 5)),
    "groups": Shape(groups, _number(2, 6)),
    "failures": Shape(failures, _number(2, 6)),
    "retries": Shape(retries, _number(1, 3)),
    "background": Shape(background, _number(2, 5)),
    "anyio": Shape(with_anyio, _number(2, 4)),
    "chatter": Shape(chatter, _number(1, 4)),
    "payments": Shape(payments, _number(1, 5)),
    "bold": Shape(bold, _number(1, 5)),
    "reconciled": Shape(reconciled, _number(2, 5)),
    "hurried": Shape(hurried, _number(1, 5)),
    "renewed": Shape(renewed, _number(1, 3)),
    "chain": Shape(chain, _number(1, 4)),
    "relay": Shape(relay, _number(1, 3)),
    "knocker": Shape(knocker, lambda rng: (f"x{rng.randint(0, 5)}",)),
}
RUNS = ("chain", "relay")
"""Those that continue as new."""
HELPERS: list[Workflow[..., Any]] = [leaf, patient, echo, tidies, refuser]
