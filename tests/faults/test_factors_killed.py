"""A worker dies by SIGKILL while factors are learnt; the model has the bits of a calm run."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cluster_tools import Farm, assert_clean

from daskps import MatrixFactorization, Ratings, read_ratings

pytestmark = pytest.mark.faults


def ratings() -> Ratings:
    rng = np.random.default_rng(0)
    keys = rng.choice(2000 * 300, 40_000, replace=False)
    users, items = np.divmod(keys, 300)
    frame = {"user": users, "item": items, "rating": rng.integers(1, 6, 40_000).astype(float)}
    return read_ratings(pd.DataFrame(frame), n_partitions=4)


def bits(model: MatrixFactorization) -> list[bytes]:
    return [x.values.tobytes() for x in (model.user_factors_, model.item_factors_)]


@pytest.mark.parametrize(
    "options",
    [
        {"max_iter": 5},
        pytest.param({"loss": "implicit", "max_iter": 4}, marks=pytest.mark.slow),
    ],
    ids=["sgd", "als"],
)
def test_a_worker_dies_and_factors_are_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    data = ratings()
    calm = MatrixFactorization(8, **options).fit(data)
    with Farm(2, tmp_path) as farm:
        pending = [7]

        def kill(clock: int, loss: float) -> None:
            if pending and clock >= pending[0]:
                pending.clear()
                farm.kill(farm.holders()[0])

        model = MatrixFactorization(
            8, checkpoint=tmp_path / "c.zarr", checkpoint_every=2, **options
        ).fit(data, callback=kill)
        assert_clean(farm.scheduler)
    assert not pending
    assert bits(model) == bits(calm)


RUNS = {1: 4, 2: 8, 3: 8}
"""Runs by number of workers."""
KINDS: list[dict[str, Any]] = [{"max_iter": 6}, {"loss": "implicit", "max_iter": 4}]


def killed_run(farm: Farm, data: Ratings, seed: int, store: Path) -> list[bytes]:
    """Return the bits of a fit in which a random worker dies at a random moment."""
    chance, options = random.Random(seed), KINDS[seed % 2]
    begin, timers = chance.randrange(1, 14), []

    def arm(clock: int, loss: float) -> None:
        if not timers and clock >= begin:
            victim = chance.choice(sorted(farm.workers().values()))
            timers.append(threading.Timer(chance.random() * 0.02, farm.kill, [victim]))
            timers[0].start()

    model = MatrixFactorization(8, checkpoint=store, checkpoint_every=3, **options)
    model.fit(data, callback=arm)
    timers[0].join(timeout=10)
    assert_clean(farm.scheduler)
    return bits(model)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_runs_with_a_kill_have_the_bits_of_a_calm_one(tmp_path: Path) -> None:
    data = ratings()
    calm = [bits(MatrixFactorization(8, **options).fit(data)) for options in KINDS]
    seed, same = 0, []
    for n_workers, runs in RUNS.items():
        (tmp_path / str(n_workers)).mkdir()
        with Farm(n_workers, tmp_path / str(n_workers)) as farm:
            for _ in range(runs):
                found = killed_run(farm, data, seed, tmp_path / f"{seed}.zarr")
                same.append(found == calm[seed % 2])
                print(f"run {seed}, {n_workers} workers: bits equal {same[-1]}", flush=True)
                farm.repair(n_workers)
                seed += 1
    print(f"\nbits of the calm run in {sum(same)} of {len(same)} runs with a kill")
    assert all(same)
