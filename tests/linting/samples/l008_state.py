"""State outside the run."""

import contextvars
from collections import Counter, defaultdict, deque

import perdure
from tests.linting.samples import helpers

COUNT = 0
SEEN: list[str] = []
CACHE: dict[str, str] = {}
QUEUE: deque[str] = deque()
WORDS: Counter[str] = Counter()
GROUPS = defaultdict(list)
LIMITS = {"a": 1}
CURRENT = contextvars.ContextVar("current", default="")


class Settings:
    retries = 3
    shared: list[str] = []


class Slots:
    __slots__ = ("index", "items")

    def __init__(self) -> None:
        self.items: list[str] = []
        self.index: dict[str, int] = {}

    def add(self, item: str) -> None:
        self.index[item] = len(self.items)
        self.items.append(item)
        self.items[0] = item


class Defaults:
    items: list[str] = []

    def __init__(self) -> None:
        self.items = []

    def add(self, item: str) -> None:
        self.items.append(item)
        self.items[0] = item


@perdure.workflow
async def bad(topic: str) -> None:
    global COUNT  # L008
    COUNT += 1
    SEEN.append(topic)  # L008
    CACHE[topic] = topic  # L008
    CACHE.update(a="b"), QUEUE.popleft(), WORDS.update([topic])  # L008 L008 L008
    del CACHE[topic]  # L008
    LIMITS["a"] += 1  # L008
    Settings.retries = 4  # L008
    Settings.shared.append(topic)  # L008
    helpers.prompt = topic  # L008
    helpers.Agent.prompt = topic  # L008
    SEEN[0], other = topic, 1  # L008
    note(topic)


def note(topic: str) -> None:
    SEEN.append(topic)  # L008


@perdure.workflow
async def good(topic: str, extra: list[str]) -> list[str]:
    SEEN = []
    SEEN.append(topic)
    extra.append(topic)
    local: dict[str, str] = {}
    local[topic] = topic
    mine = Settings()
    mine.retries = 4
    total = 0

    def inner() -> None:
        nonlocal total
        total += 1
        local.update(a="b")
        SEEN.append("x")

    inner()
    Slots().add(topic)
    slots = Slots()
    slots.add(topic)
    slots.items.append(topic)
    slots.items[0] = topic
    defaults = Defaults()
    defaults.add(topic)
    defaults.items[0] = topic
    CURRENT.set(topic)
    found = CACHE.get(topic, ""), LIMITS["a"], len(SEEN), Settings.retries
    return [*SEEN, str(found), *sorted(CACHE)]


@perdure.step
async def remembers(topic: str) -> None:
    SEEN.append(topic)


@perdure.workflow
async def allowed(topic: str) -> None:
    SEEN.append(topic)  # perdure: allow L008
