"""Topic models on a Dask cluster: the same counts on any number of workers."""

from __future__ import annotations

import asyncio

import pytest
from corpus import bits, calm, check_agreement, data, topics
from distributed import Client, Scheduler, Worker
from distributed.utils_test import gen_cluster

from daskps import LatentDirichletAllocation

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("n_workers", [1, 2, 3])
def test_bsp_has_the_same_counts_on_any_number_of_workers(n_workers: int) -> None:
    @gen_cluster(
        nthreads=[("127.0.0.1", 1)] * n_workers, timeout=50, clean_kwargs={"threads": False}
    )
    async def run(s: Scheduler, *workers: Worker) -> None:
        def fit(consistency: str) -> LatentDirichletAllocation:
            with Client(s.address):
                return topics(consistency=consistency, slices=2).fit(data())

        assert bits(await asyncio.to_thread(fit, "bsp")) == bits(calm(slices=2))
        check_agreement(await asyncio.to_thread(fit, "ssp"))

    run()
