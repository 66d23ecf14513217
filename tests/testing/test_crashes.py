"""Crashes at every write: the wrong workflows are found out, their corrected twins pass."""

from __future__ import annotations

import pytest
from tests.testing import wrong_and_right as they

from perdure.core.errors import InvalidOption
from perdure.testing import explore_crashes
from perdure.testing.crashes import CrashesFound

PAIRS = [
    pytest.param(they.wrong_effect, they.right_effect, they.one_mail, id="an effect outside a step"),
    pytest.param(they.wrong_charge, they.right_charge, they.one_charge, id="a retry that is not idempotent"),
    pytest.param(they.wrong_deposit, they.right_deposit, they.twelve_cents, id="read, change, write"),
    pytest.param(they.wrong_signal, they.right_signal, None, id="a lost signal"),
    pytest.param(they.wrong_order, they.right_order, they.three_orders, id="an unsafe reconcile"),
    pytest.param(they.wrong_race, they.right_race, they.one_of_them_won, id="a race outside the journal"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("wrong", "right", "check"), PAIRS)
def test_a_planted_bug_is_found_and_its_correction_passes(wrong, right, check):
    with pytest.raises(CrashesFound, match="killed"):
        explore_crashes(wrong, check=check)
    assert explore_crashes(right, check=check).crashes > 3


def test_a_scenario_that_other_processes_cannot_find_is_refused():
    async def local(engine):
        pass

    with pytest.raises(InvalidOption, match="module-level"):
        explore_crashes(local)


@pytest.mark.slow
def test_what_does_not_hold_without_a_crash_is_said_so():
    def fails(folder):
        raise AssertionError(f"never in {folder.name}")

    with pytest.raises(CrashesFound, match="without a crash: never"):
        explore_crashes(they.right_effect, check=fails)
