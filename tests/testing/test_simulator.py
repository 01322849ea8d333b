"""The simulator: what it says where the answer is known, and what it is for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from daskps.run.policy import Policy
from daskps.testing.costs import Costs, Result
from daskps.testing.simulator import simulate

EXACT = Costs(compute=1.0, dispatch=0.0, overhead=0.0, latency=0.0)


def run(
    n: int, per_worker: int, costs: Costs, n_clocks: int = 20, seed: int = 0, **policy: Any
) -> Result:
    wanted = Policy(n_partitions=n * per_worker, n_shards=n, n_clocks=n_clocks, **policy)
    return simulate(wanted, costs, n, seed=seed)


@pytest.mark.parametrize("staleness", [0, 3, math.inf])
def test_without_any_cost_workers_compute_all_the_time(staleness: float) -> None:
    found = run(5, 3, EXACT, staleness=staleness)
    assert found.ended == "max_iter"
    assert found.seconds_per_clock == pytest.approx(3.0)
    assert found.busy == pytest.approx(1.0)
    assert (found.tasks, found.copies) == (300, 0)
    assert found.waited == pytest.approx(0.0, abs=1e-6)


def test_bytes_take_the_time_of_the_link() -> None:
    # each of 4 workers pulls 2 GB a task from 4 shards at 1 GB/s, and computes for 1 s
    found = run(4, 1, replace(EXACT, pulled=2e9, bandwidth=1e9))
    assert found.seconds_per_clock == pytest.approx(3.0, rel=0.01)
    few = simulate(
        Policy(n_partitions=4, n_shards=1, n_clocks=20),
        replace(EXACT, pulled=2e9, bandwidth=1e9),
        4,
    )
    assert few.seconds_per_clock == pytest.approx(9.0, rel=0.01)  # one link for 8 GB a clock


def test_more_tasks_than_driver_and_scheduler_can_start_wait_for_them() -> None:
    found = run(200, 2, replace(EXACT, dispatch=0.01))
    assert found.seconds_per_clock == pytest.approx(4.0, rel=0.3)  # 400 tasks, 10 ms each
    assert found.driver > 0.75


@pytest.mark.parametrize("staleness", [0, 3])
def test_a_run_in_which_workers_die_all_the_time_ends(staleness: int) -> None:
    dying = replace(EXACT, mean_life=150.0, restart=5.0, cut=1e8)
    found = run(10, 2, dying, n_clocks=60, staleness=staleness, checkpoint_clocks=5)
    assert found.ended == "max_iter"
    assert found.losses > 6  # a job that begins anew after each would hardly ever end
    calm = run(10, 2, EXACT, n_clocks=60, staleness=staleness, checkpoint_clocks=5)
    assert found.seconds < 3 * calm.seconds


def test_partial_recovery_repeats_less_than_going_back() -> None:
    dying = replace(EXACT, mean_life=400.0, restart=5.0, cut=1e8)
    again = {}
    for staleness in (0, 3):
        policy = Policy(
            n_partitions=20, n_shards=10, n_clocks=60, staleness=staleness, checkpoint_clocks=10
        )
        found = simulate(policy, dying, 10, seed=2)  # deaths in the middle of the run
        assert found.losses >= 2
        again[staleness] = found.tasks - 1200
    assert again[0] > 100
    assert again[3] <= 0.2 * again[0]


@pytest.mark.parametrize("per_worker", [4, 8])
def test_one_of_four_workers_is_five_times_slower(per_worker: int) -> None:
    base = replace(EXACT, spread=0.1)
    slow = replace(base, slow={0: 5.0})
    calm = run(4, per_worker, base, staleness=3).seconds
    assert run(4, per_worker, slow, staleness=3).seconds <= 1.35 * calm
    plain = replace(slow, spare=False, roam=False)
    assert run(4, per_worker, plain, speculate=False).seconds > 4 * calm  # BSP, nothing done


def test_a_worker_without_a_task_takes_one_that_waits_elsewhere() -> None:
    # four tasks each, of 5 s on the first worker and of 1 s on the second
    slow = replace(EXACT, slow={0: 5.0}, spare=False)
    alone = run(2, 4, replace(slow, roam=False), n_clocks=1, speculate=False)
    assert alone.seconds == pytest.approx(20.0)
    assert alone.waited == pytest.approx(8.0)  # 16 s of the one, none of the other
    assert run(2, 4, slow, n_clocks=1, speculate=False).seconds == pytest.approx(10.0)


@pytest.mark.parametrize("per_worker", [2, 4, 8])
def test_random_delays_leave_little_to_wait_for(per_worker: int) -> None:
    late = Costs(compute=1.0, spread=0.1, delayed=0.05)
    plain = replace(late, roam=False, spare=False)
    waited = {
        costs.roam: sum(
            run(4, per_worker, costs, seed=s, staleness=3, speculate=costs.roam).waited
            for s in range(8)
        )
        for costs in (plain, late)
    }
    assert waited[False] >= 3.8 * waited[True]


def test_the_same_seed_gives_the_same_run() -> None:
    wild = replace(EXACT, spread=0.3, delayed=0.05, mean_life=200.0)
    assert run(6, 2, wild, staleness=2) == run(6, 2, wild, staleness=2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand_workers() -> None:
    found = run(10_000, 2, Costs(compute=60.0, spread=0.1), n_clocks=10, staleness=3, tol=1e-9)
    assert found.tasks == 200_000
    assert found.busy > 0.85


def test_a_run_that_gets_nowhere_takes_for_ever() -> None:
    policy = Policy(n_partitions=40, n_shards=20, n_clocks=5, staleness=3)
    found = simulate(policy, Costs(compute=10.0, mean_life=20.0), 20, longest=1000.0)
    assert found.clocks == 0
    assert math.isinf(found.seconds_per_clock)
