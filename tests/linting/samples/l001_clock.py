"""The wall clock: as C code reads it, and by names of one's own."""

import datetime as dt
import time
from datetime import date, datetime
from time import monotonic
from time import time as now

import perdure
from tests.linting.samples import helpers


@perdure.workflow
async def bad() -> str:
    a = datetime.now()  # L001
    b = datetime.utcnow(), datetime.today()  # L001 L001
    c = dt.datetime.now(dt.UTC)  # L001
    d = date.today(), dt.date.today()  # L001 L001
    e = now() - monotonic()  # L001 L001
    f = helpers.captured()  # L001
    g = helpers.datetime.now()  # L001

    def nested() -> datetime:
        return datetime.now()  # L001

    h = [datetime.now() for _ in range(3)]  # L001
    i = (lambda: datetime.now())()  # L001
    j = helpers.stamp()
    from datetime import datetime as later

    return str([a, b, c, d, e, f, g, nested(), h, i, j, later.now()])  # L001


@perdure.workflow
async def good() -> str:
    a = time.time(), time.monotonic(), time.strftime("%H")
    b = perdure.now(), datetime.fromtimestamp(time.time()), datetime(2026, 1, 1), dt.timedelta(1)
    from time import time as guarded

    return str([a, b, guarded()])


@perdure.workflow
async def good_by_a_name_of_its_own() -> int:
    datetime = Clock()
    return datetime.now()


class Clock:
    def now(self) -> int:
        return 1


@perdure.step
async def in_a_step() -> str:
    return str([datetime.now(), now()])


@perdure.workflow
async def allowed() -> str:
    return str(datetime.now())  # perdure: allow L001


@perdure.workflow
async def allowed_among_others() -> str:
    return str(
        datetime.now(  # perdure: allow L005, L001 - only shown
        )
    )


@perdure.workflow
async def allowed_something_else() -> str:
    return str(datetime.now())  # L001  perdure: allow L002
