"""Idempotency keys, shown against a real payment server: the storm's slice for every day, and that it notices."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEED = str(random.randrange(10**6))  # a failure prints the figures; the moments of the kills are the machine's


def storm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.crash.payments", "--seed", SEED, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_sixty_kills_and_every_purchase_is_charged_once() -> None:
    done = storm("--kills", "60")
    assert done.returncode == 0, done.stdout
    repeated = re.search(r"requests under a known key +(\d+)", done.stdout)
    assert repeated is not None
    assert int(repeated[1]) > 0, "no charge was ever asked for twice: the storm shows nothing"
    branches = re.search(r"forks and rewinds +(\d+)", done.stdout)
    assert branches is not None
    assert int(branches[1]) > 2


@pytest.mark.slow
def test_the_storm_notices_a_server_that_does_not_heed_the_key() -> None:
    done = storm("--kills", "5", "--careless")
    assert done.returncode == 1, done.stdout
    assert "BROKEN: a key was charged twice" in done.stdout
