"""Seeds that found bugs in the runtime stay green: what each found is said beside it."""

from __future__ import annotations

import pytest

from perdure.testing.simulation import simulate

FOUND = {
    2000363: "a frozen worker ran a step after it had lost all its shards",
    7059: "an execution that was to run alone lost its turn when the store was full",
    2001791: "an attempt that was cancelled before its first instruction kept its slot for ever",
    1004275: "the same",
    2004208: "the same",
}


@pytest.mark.parametrize("seed", FOUND, ids=str)
def test_a_seed_that_found_a_bug_stays_green(seed: int) -> None:
    simulate(seed)
