"""The interval between checkpoints against the cost that it is to make least."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from daskps.run.interval import LIFE, SHORTEST, CutTimes, between_losses, interval
from daskps.run.policy import Policy

DAY = 86_400.0


def time_taken(between: float, cost: float, mean_time: float) -> float:
    """Return the seconds that a second of work takes, restarts costing nothing (Daly, eq. 20)."""
    return mean_time * np.expm1((between + cost) / mean_time) / between


@pytest.mark.parametrize("mean_time", [600.0, 3600.0, DAY, 30 * DAY])
@pytest.mark.parametrize("cost", [0.1, 1.0, 20.0, 120.0])
def test_no_other_interval_is_better_by_a_thousandth(cost: float, mean_time: float) -> None:
    best = minimize_scalar(
        lambda t: time_taken(t, cost, mean_time), bounds=(0.1, 3 * mean_time), method="bounded"
    )
    chosen = time_taken(interval(cost, mean_time), cost, mean_time)
    assert chosen <= best.fun * 1.001


def test_cheap_checkpoints_come_often_and_at_most_once_a_second() -> None:
    assert interval(2.0, DAY) == pytest.approx(588, rel=0.01)
    assert interval(1e-9, 60.0) == SHORTEST


def test_checkpoints_that_take_longer_than_workers_live_come_as_often_as_losses() -> None:
    assert interval(7200.0, 3000.0) == 3000.0


def test_losses_that_are_seen_outweigh_what_was_assumed() -> None:
    assert between_losses(0.0, 0, 1) == LIFE
    assert between_losses(0.0, 0, 100) == LIFE / 100
    # a loss every ten minutes for ten hours
    assert between_losses(36_000.0, 60, 1000) == pytest.approx(600, rel=0.02)
    # none in a month
    assert between_losses(30 * DAY, 0, 10) == pytest.approx(30 * DAY, rel=0.01)


def test_a_run_measures_what_a_cut_takes_and_goes_by_it() -> None:
    times = CutTimes(Policy(2, 3, 100, clocks_per_pass=7, checkpoint_chosen=True))
    times.began(10.0)
    assert times.clocks == 7  # until one was seen, after a pass
    assert times.seconds(12.0, 3) is None
    times.order(20.0)
    times.published(22.0)
    assert times.clocks is None
    assert times.seconds(22.0, 3) == pytest.approx(interval(2.0, (LIFE / 3 + 12.0)))
    times.losses = 5
    assert times.seconds(610.0, 3) == pytest.approx(interval(2.0, (LIFE / 3 + 600.0) / 6))


def test_what_is_given_is_not_chosen() -> None:
    times = CutTimes(Policy(2, 3, 100, checkpoint_clocks=4))
    times.published(2.0)
    assert (times.clocks, times.seconds(5.0, 3)) == (4, None)
    assert CutTimes(Policy(2, 3, 100, checkpoint_seconds=9.0)).seconds(5.0, 3) == 9.0
