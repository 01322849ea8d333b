"""Matrix factorisation on a Dask cluster: the same bits on any number of workers."""

from __future__ import annotations

import asyncio
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from distributed import Client, Scheduler, Worker
from distributed.utils_test import gen_cluster

from daskps import MatrixFactorization, Ratings, read_ratings
from daskps.run.checkpoint import published

pytestmark = pytest.mark.cluster

EXPLICIT = {"max_iter": 3}
IMPLICIT = {"loss": "implicit", "max_iter": 2, "cg_steps": 2}


@cache
def ratings() -> Ratings:
    rng = np.random.default_rng(0)
    keys = rng.choice(400 * 60, 4000, replace=False)
    users, items = np.divmod(keys, 60)
    frame = {"user": users, "item": items, "rating": rng.integers(1, 6, 4000).astype(float)}
    return read_ratings(pd.DataFrame(frame), n_partitions=4)


def bits(**options: Any) -> list[bytes]:
    m = MatrixFactorization(6, **options).fit(ratings())
    return [x.values.tobytes() for x in (m.user_factors_, m.item_factors_, m.user_bias_)]


@cache
def calm(explicit: bool) -> list[bytes]:
    """Return the bits of a fit in this process."""
    return bits(**(EXPLICIT if explicit else IMPLICIT))


@pytest.mark.parametrize("n_workers", [1, 2, 3])
def test_factors_have_the_same_bits_on_any_number_of_workers(n_workers: int) -> None:
    expected = calm(True), calm(False)

    @gen_cluster(
        nthreads=[("127.0.0.1", 1)] * n_workers, timeout=50, clean_kwargs={"threads": False}
    )
    async def run(s: Scheduler, *workers: Worker) -> None:
        def work() -> Any:
            with Client(s.address):
                return bits(**EXPLICIT), bits(**IMPLICIT)

        assert await asyncio.to_thread(work) == expected

    run()


def went_on(solver: Any) -> list[bytes]:
    """Return what two fits give, the second of which goes on from the first."""
    train, test = ratings().split(0.8)
    m = MatrixFactorization(6, solver=solver, warm_start=True, max_iter=2)
    m.fit(train, eval_set=test).fit(train, eval_set=test)
    figures = (m.user_factors_, m.item_factors_, m.history_.eval_loss)
    return [x.values.tobytes() for x in figures]


@pytest.mark.parametrize("solver", ["sgd", pytest.param("als", marks=pytest.mark.slow)])
def test_warm_fits_that_are_watched_have_the_same_bits(solver: str) -> None:
    expected = went_on(solver)

    @gen_cluster(nthreads=[("127.0.0.1", 1)] * 2, timeout=50, clean_kwargs={"threads": False})
    async def run(s: Scheduler, *workers: Worker) -> None:
        def work() -> Any:
            with Client(s.address):
                return went_on(solver)

        assert await asyncio.to_thread(work) == expected

    run()


@pytest.mark.slow
def test_users_that_no_cut_has_are_made_again_on_workers(tmp_path: Path) -> None:
    def stop(clock: int, loss: float) -> None:
        if clock >= 6 and published(str(tmp_path / "1")):
            raise KeyboardInterrupt

    def resumed(store: Path) -> list[bytes]:
        m = MatrixFactorization(6, max_iter=10, checkpoint=store).fit(ratings(), resume=True)
        return [x.values.tobytes() for x in (m.user_factors_, m.item_factors_)]

    stopped = MatrixFactorization(6, max_iter=10, checkpoint=tmp_path / "1", checkpoint_every=5)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(ratings(), callback=stop)
    for cut in published(str(tmp_path / "1")):
        shutil.rmtree(tmp_path / "1" / cut / "state/2")
    shutil.copytree(tmp_path / "1", tmp_path / "2")
    expected = resumed(tmp_path / "1")

    @gen_cluster(nthreads=[("127.0.0.1", 1)] * 2, timeout=50, clean_kwargs={"threads": False})
    async def run(s: Scheduler, *workers: Worker) -> None:
        def work() -> Any:
            with Client(s.address):
                return resumed(tmp_path / "2")

        assert await asyncio.to_thread(work) == expected

    run()
