"""Always-replay: in every test, whatever comes to rest or closes in a worker must replay from its bytes.

`PERDURE_ALWAYS_REPLAY=0` turns it off; so does the marker `nondeterministic`, for code that is meant to disagree.
Tests that are `async def` run on a fresh loop, within a deadline.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal

import pytest

from perdure.runtime.worker import Worker
from perdure.testing import AlwaysReplay

DEADLINE_S = 60

# Who runs the tests in a shell's background ignores Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    given = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(asyncio.wait_for(test(**given), DEADLINE_S))
    return True


@pytest.fixture(autouse=True)
def always_replay(request):
    """Watches every worker of this process."""
    watch = AlwaysReplay()
    wanted = os.environ.get("PERDURE_ALWAYS_REPLAY") != "0" and not request.node.get_closest_marker("nondeterministic")
    before, Worker.observer = Worker.observer, watch if wanted else None
    yield watch
    Worker.observer = before
    assert not watch.problems, "\n".join(watch.problems)
