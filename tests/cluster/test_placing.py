"""Shards are placed where a resource of the workers says, and come back there after a loss."""

from __future__ import annotations

from typing import Any

import dask
import pytest
from cluster_tools import bits, calm, train
from distributed import Client, LocalCluster

from daskps.monitor.figures import Figures, Watch
from daskps.run import placing


def worker(amount: float = 0.0) -> dict[str, Any]:
    return {"resources": {"shards": amount} if amount else {}}


def test_without_the_setting_or_without_the_resource_any_worker_may_hold_shards() -> None:
    told = {"a": worker(), "b": worker(1)}
    assert placing.may_hold(told) == ["a", "b"]
    assert placing.demand(told) is None
    with dask.config.set({"daskps.shard-resource": "shards"}):
        assert placing.may_hold(told) == ["b"]
        assert placing.demand(told) == {"shards": placing.SHARE}
        assert placing.may_hold({"a": worker()}) == ["a"]
        assert placing.demand({"a": worker()}) is None


@pytest.mark.cluster
def test_shards_are_on_workers_with_the_resource_and_work_is_on_all() -> None:
    options: dict[str, Any] = {"processes": False, "dashboard_address": None}
    seen: list[tuple[set[str], int]] = []

    def look(figures: Figures) -> None:
        seen.append((set(figures.slots), figures.workers))

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster,
        Client(cluster) as client,
        dask.config.set({"daskps.shard-resource": "shards"}),
    ):
        second = max(client.scheduler_info()["workers"])
        client.run(_give, workers=[second])
        outcome = train(client, "bsp", Watch(look, period=0.0), max_iter=2)
        assert bits(outcome) == bits(calm(max_iter=2))
    assert {s for holders, _ in seen for s in holders} == {second}
    assert seen[-1][1] == 2


async def _give(dask_worker: Any) -> None:
    await dask_worker.set_resources(shards=1)
