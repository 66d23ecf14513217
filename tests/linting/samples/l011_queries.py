"""Queries and validators that change what the workflow knows."""

import perdure

SEEN: list[str] = []


@perdure.workflow
class Bad:
    def __init__(self) -> None:
        self.asked = 0
        self.items: list[str] = []
        self.by_name: dict[str, list[str]] = {}

    @perdure.on_query
    def total(self, name: str) -> int:
        self.asked += 1  # L011
        self.last = name  # L011
        self.items.append(name)  # L011
        self.by_name[name] = []  # L011
        self.by_name[name].extend(self.items)  # L011
        del self.items[0]  # L011
        self.first, other = name, 1  # L011
        for self.item in self.items:  # L011
            pass
        setattr(self, name, other)  # L011
        mine = self.items
        mine.sort()  # L011
        SEEN.append(name)  # L008
        return len(self.by_name.pop(name))  # L011

    @perdure.on_query("other")
    def named(self) -> list[str]:
        return [self.items.pop() for _ in range(2)]  # L011

    def refuse(self, name: str) -> None:
        self.asked += 1  # L011

    @perdure.on_update(validator=refuse)
    def add(self, name: str) -> None:
        self.items.append(name)

    @perdure.on_query
    def meant(self) -> int:
        self.asked += 1  # perdure: allow L011
        return self.asked

    async def run(self) -> None:
        @perdure.on_query
        def captured() -> int:
            self.asked += 1  # L011
            return self.asked

        await perdure.receive("end", str)


@perdure.workflow
async def bad_function() -> None:
    count = 0
    items: list[str] = []

    @perdure.on_query
    def counts() -> int:
        nonlocal count  # L011
        count += 1
        items.append("asked")  # L011

        def inside() -> None:
            items.clear()  # L011

        inside()
        return count

    def check(name: str) -> None:
        items.remove(name)  # L011

    @perdure.on_update(validator=check)
    def add(name: str) -> int:
        nonlocal count
        count += 1
        items.append(name)
        return count

    await perdure.receive("end", str)


@perdure.workflow
class Good:
    def __init__(self) -> None:
        self.items: list[str] = []
        self.by_name: dict[str, list[str]] = {}

    @perdure.on_query
    def looks(self, name: str) -> list[str]:
        copy = list(self.items)
        copy.append(name)
        part = self.items[1:]
        part.sort()
        made: dict[str, list[str]] = {}
        made[name] = copy
        made.setdefault(name, []).append(name)
        number = len(self.items)
        number += 1
        found = self.by_name.get(name, [])
        total = 0

        def inside() -> None:
            nonlocal total
            total += 1

        inside()
        self.update(name)
        return [*sorted(found), *(each.upper() for each in part), str(number + total)]

    def update(self, name: str) -> str:
        return name

    @perdure.on_signal
    def add(self, name: str) -> None:
        self.items.append(name)

    def refuse(self, name: str) -> None:
        if name in self.items:
            raise ValueError(name)

    @perdure.on_update(validator=refuse)
    def rename(self, name: str) -> None:
        self.items[0] = name

    async def run(self) -> None:
        items: list[str] = []

        @perdure.on_query
        def local() -> list[str]:
            items = ["mine"]
            items.append("x")
            return items

        items.append("y")
        await perdure.receive("end", str)
