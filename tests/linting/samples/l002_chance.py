"""Randomness of its own, and what is refused when it is called."""

import os
import random
import secrets
import uuid
from os import urandom
from random import Random, choice, random as draw
from secrets import token_hex
from uuid import uuid4

import perdure


@perdure.workflow
async def bad() -> str:
    a = choice([1, 2])  # L002
    b = draw(), uuid4()  # L002 L002
    c = random.Random(), Random()  # L002 L002
    d = random.SystemRandom()  # L002
    e = os.urandom(8), urandom(8)  # L002 L002
    f = secrets.token_hex(), token_hex(), secrets.choice([1])  # L002 L002 L002
    random.seed(7)  # L002
    return str([a, b, c, d, e, f])


@perdure.workflow
async def good() -> str:
    a = random.choice([1, 2]), random.random(), random.randint(1, 2)
    b = uuid.uuid4(), uuid.uuid1(), uuid.UUID(int=1), uuid.uuid5(uuid.NAMESPACE_DNS, "x")
    c = random.Random(7), Random("seed"), perdure.random().choice([1]), perdure.uuid4()
    d = secrets.compare_digest("a", "b")
    return str([a, b, c, d])
