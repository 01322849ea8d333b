"""Workers die by SIGKILL while topics are drawn: in BSP the counts are those of a calm run, and in
every consistency they agree with the topics that the partitions keep.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from cluster_tools import Farm, assert_clean
from corpus import bits, calm, check_agreement, data, topics

from daskps import LatentDirichletAllocation

pytestmark = pytest.mark.faults

RUNS = 20
LENGTH = {"max_iter": 24, "sweeps_per_clock": 1}


def fit_and_kill(
    farm: Farm, consistency: str, clock: int, store: Path, chance: random.Random
) -> LatentDirichletAllocation:
    """Fit while a worker dies at a clock; it holds a shard, for all do."""
    killed = []

    def strike(now: int, loss: float) -> None:
        if now >= clock and not killed:
            killed.append(now)
            farm.kill(chance.choice(farm.holders()))

    model = topics(
        consistency=consistency, checkpoint=str(store), checkpoint_every=5, progress=False, **LENGTH
    ).fit(data(), callback=strike)
    assert killed
    assert_clean(farm.scheduler)
    return model


@pytest.mark.parametrize("consistency", [pytest.param("bsp", marks=pytest.mark.slow), "ssp"])
def test_counts_agree_after_a_kill(tmp_path: Path, consistency: str) -> None:
    with Farm(2, tmp_path) as farm:
        chance = random.Random(0)
        model = fit_and_kill(farm, consistency, 11, tmp_path / "c.zarr", chance)
    check_agreement(model)
    if consistency == "bsp":
        assert bits(model) == bits(calm(**LENGTH))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("consistency", ["bsp", "ssp"])
def test_every_run_ends_with_exact_counts(tmp_path: Path, consistency: str) -> None:
    equal = 0
    with Farm(3, tmp_path) as farm:
        for seed in range(RUNS):
            chance = random.Random(seed)
            store = tmp_path / f"{seed}.zarr"
            model = fit_and_kill(farm, consistency, chance.randint(1, 22), store, chance)
            check_agreement(model)
            equal += bits(model) == bits(calm(**LENGTH))
            farm.repair(3)
    print(f"\n{consistency}: counts exact in {RUNS} of {RUNS} runs, as in a calm run in {equal}")
    assert consistency != "bsp" or equal == RUNS
