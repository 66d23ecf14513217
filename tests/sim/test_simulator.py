"""The simulator over a slice of its seeds, and the exhaustive mode over a slice of the corpus."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from perdure.core import events as ev
from perdure.encryption import KeyRing
from perdure.store import packing, sealer
from perdure.store.memory import MemoryStore
from perdure.store.sealing import SealedStore
from perdure.testing import exhaustive, sim
from perdure.testing.ledger import Broken
from perdure.testing.shapes import SHAPES
from perdure.testing.simulation import Simulation, profile_of, simulate

SEEDS = 300
SLICE = 25
PRINT_TRACES = """
import logging
from perdure.testing.sim import fingerprint, run_one
logging.getLogger("perdure").setLevel(100)
print([fingerprint(run_one(seed, "")) for seed in range(40, 46)])
"""


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(100, logger="perdure")


@pytest.mark.parametrize("start", range(0, SEEDS, SLICE))
def test_no_law_breaks_whatever_happens(start):
    out = io.StringIO()
    code = sim.main(["--seeds", str(SLICE), "--start", str(start)], out)
    assert code == 0, out.getvalue()


def test_no_law_breaks_where_values_are_encrypted_packed_and_kept_apart(monkeypatch):
    monkeypatch.setattr(packing, "COMPRESS_ABOVE", 8)
    monkeypatch.setattr(sealer, "OFFLOAD_ABOVE", 2)
    ring = KeyRing({"k": bytes(32)}, current="k")
    commit, put_blobs = MemoryStore.commit, MemoryStore.put_blobs
    written, blobs = [], []

    def watched_commit(self, session, batches, advice=()):
        written.extend(new.event for batch in batches for new in batch.events)
        return commit(self, session, batches, advice)

    def watched_blobs(self, given):
        blobs.extend(given)
        put_blobs(self, given)

    monkeypatch.setattr(MemoryStore, "commit", watched_commit)
    monkeypatch.setattr(MemoryStore, "put_blobs", watched_blobs)
    for seed in range(9_000, 9_020):
        Simulation(seed, profile_of(seed), wrap=lambda store: SealedStore(store, ring)).run()
    results = [event for event in written if isinstance(event, ev.StepCompleted)]
    assert len(results) > 100
    assert all(event.sealed is not None for event in results)
    assert blobs


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_survives_trouble(shape):
    out = io.StringIO()
    code = sim.main(["--seeds", "3", "--start", "7000", "--shape", shape], out)
    assert code == 0, out.getvalue()


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_survives_forks_and_rewinds(shape):
    branched = 0
    for seed in range(7_100, 7_106):
        simulation = Simulation(seed, profile_of(seed, shape)._replace(branches=6))
        simulation.run()
        branched += sum(bool(journal.copied) for journal in simulation.ledger.journals.values())
    assert branched


@pytest.mark.parametrize("shape", ["sequence", "narrow_fan", "timers", "payments"])
def test_any_store_call_may_fail_or_be_the_last(shape):
    cases = list(exhaustive.explore(shape))
    assert not [case for case in cases if case.error is not None]
    assert {case.way for case in cases} == set(exhaustive.WAYS)
    assert {"commit", "load", "open_session", "ready", "renew"} <= {case.call for case in cases}


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", ["family", "deserter", "chatter", "cautious", "breakup", "bold", "reconciled", "hurried"]
)
def test_any_store_call_may_fail_in_larger_shapes(shape):
    assert not [case for case in exhaustive.explore(shape, stride=3) if case.error is not None]


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["breakup", "deserter", "family"])
def test_any_store_call_may_fail_while_parents_and_children_end_by_way_of_the_outbox(shape):
    assert not [case for case in exhaustive.explore(shape, direct=False, stride=3) if case.error is not None]


@pytest.mark.parametrize("shape", ["sequence", "timers"])
def test_any_store_call_may_fail_around_pauses(shape):
    cases = list(exhaustive.explore(shape, pauses=2))
    assert not [case for case in cases if case.error is not None]
    assert "requests" in {case.call for case in cases}


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "seed"), [("sequence", 1), ("chain", 2), ("approvals", 3)])
def test_any_store_call_may_fail_around_forks_and_rewinds(shape, seed):
    begun = Simulation(seed, exhaustive.profile(shape, branches=4))
    begun.run()
    assert [journal for journal in begun.ledger.journals.values() if journal.copied]
    cases = list(exhaustive.explore(shape, seed=seed, branches=4, stride=2))
    assert not [case for case in cases if case.error is not None]


def test_the_same_seed_is_the_same_history_in_every_process():
    def traces(hash_seed):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", PRINT_TRACES], env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout or done.stderr

    assert traces("1") == traces("2")


def test_a_failure_fits_one_screen_and_names_the_line_that_reproduces_it():
    simulation = simulate(3)
    broken = Broken("some law", "some detail", simulation.keys[0])
    broken.simulation = simulation
    text = sim.report(3, "race", broken)
    assert "seed 3 failed" in text
    assert "law broken: some law" in text
    assert "python -m perdure.testing.sim --seeds 1 --start 3 --shape race" in text
    assert len(text.splitlines()) <= 50
    assert max(map(len, text.splitlines())) < 700


def test_a_simulation_has_a_safety_phase_and_then_one_without_faults():
    # Of those without freezes: a frozen worker that wakes up in the calm, and has lost its lease, ends itself.
    without = (seed for seed in range(20, 200) if "freeze" not in profile_of(seed).troubles)
    simulation = next(s for s in map(simulate, without) if s.ledger.trace[-1][0] > s.profile.safety_ms)
    calm = [what for _, _, _, what in simulation.ledger.trace].index("no more faults")
    assert not [what for _, _, _, what in simulation.ledger.trace[calm:] if what in ("dies", "freezes", "full")]
