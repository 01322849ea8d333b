"""A worker dies by SIGKILL while factors are learnt; the model has the bits of a calm run."""

from __future__ import annotations

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
