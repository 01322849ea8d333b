"""Workers that are told to go while a shard is on its way to them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cluster_tools import block, make_shard
from distributed import Client, Event, Scheduler, Worker, wait
from distributed.utils_test import async_poll_for, gen_cluster

from daskps.run.dask_hub import DaskpsScheduler
from daskps.run.dask_worker import TOPIC

pytestmark = pytest.mark.cluster


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)] * 3)
async def test_a_worker_retires_only_after_a_shard_that_was_on_its_way_there_has_gone(
    c: Client, s: Scheduler, a: Worker, b: Worker, other: Worker
) -> None:
    """It holds none when it is told to go, but a move has just sent one there."""
    await c.register_plugin(DaskpsScheduler())
    news: list[dict[str, Any]] = []
    c.subscribe_topic(TOPIC, lambda event: news.append(event[1]))
    held = make_shard(c, 0, workers=[a.address])
    await held
    busy = c.submit(block, "free", workers=[b.address])
    await async_poll_for(lambda: b.state.executing_count, timeout=5)
    coming = make_shard(c, 1, workers=[b.address])
    await async_poll_for(lambda: coming.key in b.state.tasks, timeout=5)
    s.workers[b.address].actors.clear()  # as where work stealing has brought it
    both = [b.address, other.address]
    retiring = asyncio.create_task(c.retire_workers(both, close_workers=False, remove=False))
    told = [{"leaving": w} for w in both]  # also who holds nothing: nothing must come
    await async_poll_for(lambda: all(x in news for x in told), timeout=5)
    await Event("free").set()
    await busy
    await wait([coming], timeout=10)
    assert not retiring.done()
    coming.release()
    assert set(await asyncio.wait_for(retiring, 10)) == set(both)
    assert s.workers[a.address] in s.running
