"""Schedules of faults: the same seed gives the same, and JSON gives them back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskps.testing import Kill, Schedule, Slow, StoreGone, all_or_nothing
from daskps.testing.schedule import RATES, victim


@settings(max_examples=50)
@given(st.integers(0, 2**31), st.integers(1, 500))
def test_a_schedule_comes_back_from_its_seed_and_from_json(seed: int, n_tasks: int) -> None:
    schedule = Schedule.draw(seed, n_tasks)
    assert Schedule.draw(seed, n_tasks) == schedule
    assert Schedule.from_json(schedule.to_json()) == schedule
    moments = [fault.after for fault in schedule.faults]
    assert moments == sorted(moments)
    assert all(0 <= m < n_tasks for m in moments)


def test_kills_are_as_frequent_as_said() -> None:
    drawn = [Schedule.draw(seed, 300).count(Kill) for seed in range(400)]
    # Poisson: the mean of 400 is within 3 x sqrt(7 / 400) of 7 in 99.7 % of draws
    assert sum(drawn) / len(drawn) == pytest.approx(RATES["kill"], abs=0.4)
    assert all_or_nothing(RATES["kill"]) < 1e-3


def test_only_what_is_wanted_is_drawn() -> None:
    faults = Schedule.draw(0, 100, {"slow": 20.0, "storegone": 20.0}).faults
    assert {type(f) for f in faults} == {Slow, StoreGone}
    with pytest.raises(ValueError, match="'flood'"):
        Schedule.draw(0, 100, {"flood": 1.0})


def test_whom_a_fault_hits_does_not_depend_on_the_order_of_workers() -> None:
    assert victim(4, ["b", "a", "c"]) == victim(4, ["a", "b", "c"]) == "b"
    assert victim(4, []) is None
