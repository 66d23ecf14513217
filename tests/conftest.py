"""Always-replay: in every test, whatever comes to rest or closes in a worker must replay from its bytes.

`PERDURE_ALWAYS_REPLAY=0` turns it off; so does the marker `nondeterministic`, for code that is meant to disagree.
"""

from __future__ import annotations

import os

import pytest

from perdure.runtime.worker import Worker
from perdure.testing.replaying import AlwaysReplay


@pytest.fixture(autouse=True)
def always_replay(request):
    """Watches every worker of this process."""
    watch = AlwaysReplay()
    wanted = os.environ.get("PERDURE_ALWAYS_REPLAY") != "0" and not request.node.get_closest_marker("nondeterministic")
    before, Worker.observer = Worker.observer, watch if wanted else None
    yield watch
    Worker.observer = before
    assert not watch.problems, "\n".join(watch.problems)
