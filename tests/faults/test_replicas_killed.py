"""Workers die by SIGKILL in a run that keeps replicas: no update is lost, and nothing goes back."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster_tools import Farm, Recorder, assert_clean, at, at_clock, bits, calm, train, wait_until
from counter import Counter

from daskps.run import events as ev
from daskps.run.launch import Outcome

pytestmark = pytest.mark.faults

PASSES = 40
SLOW = pytest.mark.slow


def assert_all_counted(outcome: Outcome, n_partitions: int = 8) -> None:
    counts = outcome.values["sum"][1]
    assert set(np.unique(counts)) == {outcome.clock * n_partitions}


@pytest.mark.parametrize(
    "consistency", [pytest.param("bsp", marks=SLOW), "ssp", pytest.param("asp", marks=SLOW)]
)
def test_a_worker_that_dies_costs_no_update(tmp_path: Path, consistency: str) -> None:
    seen = Recorder()
    options: dict[str, Any] = {"model": Counter(), "replicas": 1, "clocks_per_pass": 1}
    with Farm(3, tmp_path) as farm:
        kill = at_clock(6, lambda: farm.kill(farm.holders()[0], nanny=True))
        outcome = train(farm.client, consistency, seen, kill, max_iter=PASSES, **options)
        assert_clean(farm.scheduler)
    assert_all_counted(outcome)
    (recovered,) = seen.of(ev.Recovered)
    assert recovered.by_replicas
    done = len(seen.of(ev.TaskDone))
    assert done <= PASSES * 8 + 8  # what was running is done again, and nothing else
    assert kill.at is not None
    assert seen.pause_after(kill.at) < 10


@pytest.mark.slow
def test_the_bits_of_a_calm_run_without_a_checkpoint(tmp_path: Path) -> None:
    seen = Recorder()
    with Farm(3, tmp_path) as farm:
        first = at_clock(6, lambda: farm.kill(farm.holders()[0]))
        second = at(ev.Moved, lambda: farm.kill(farm.holders()[-1]), nth=2)
        outcome = train(farm.client, "bsp", seen, first, second, replicas=1)
        assert_clean(farm.scheduler)
    assert bits(outcome) == bits(calm())
    assert [x.by_replicas for x in seen.of(ev.Recovered)] == [True, True]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("consistency", ["bsp", "ssp"])
def test_ten_kills_lose_nothing(tmp_path: Path, consistency: str) -> None:
    pauses = []
    options: dict[str, Any] = {"model": Counter(), "replicas": 1, "clocks_per_pass": 1}
    rng = np.random.default_rng(0)
    with Farm(3, tmp_path) as farm:
        for _ in range(10):
            seen, moment = Recorder(), int(rng.integers(8, PASSES * 8 - 16))

            def kill() -> None:
                farm.kill(str(rng.choice(sorted(farm.workers().values()))))

            killed = at(ev.TaskDone, kill, nth=moment)
            outcome = train(farm.client, consistency, seen, killed, max_iter=PASSES, **options)
            assert_all_counted(outcome)
            assert all(x.by_replicas for x in seen.of(ev.Recovered))
            if killed.at is not None:
                pauses.append(seen.pause_after(killed.at))
            wait_until(lambda: len(farm.workers()) == 3)
        assert_clean(farm.scheduler)
    print(f"{consistency}: 0 of 10 lost updates; pause {statistics.median(pauses):.2f} s median, ")
    print(f"{max(pauses):.2f} s longest")
