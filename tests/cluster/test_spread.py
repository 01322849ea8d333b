"""Partitions are dealt to workers anew when some have come: each holds its share, and no copies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from distributed import Client, Event, Scheduler, Worker, wait
from distributed.utils_test import async_poll_for, gen_cluster

from daskps.run.dask_spread import spread

pytestmark = pytest.mark.cluster


def part(i: int) -> int:
    return i


def use(x: int) -> int:
    """Task: compute with a partition until the event is set."""
    Event("computed").wait(30)
    return x


def held(s: Scheduler, keys: list[str]) -> dict[str, list[str]]:
    return {k: sorted(w.address for w in s.tasks[k].who_has or ()) for k in keys}


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)] * 2)
async def test_every_worker_holds_its_share_and_what_is_in_use_stays(
    c: Client, s: Scheduler, a: Worker, b: Worker
) -> None:
    futures = [c.submit(part, i, key=f"part-{i}", workers=[a.address]) for i in range(8)]
    await wait(futures)
    keys = [f.key for f in futures]
    # in use where it is: the last half is what moves
    uses = c.submit(use, futures[-1], workers=[a.address])
    await async_poll_for(lambda: a.state.executing_count, timeout=5)
    both = [a.address, b.address]
    spreading = asyncio.create_task(spread(keys, both, s))

    def shares() -> list[int]:
        return [sum(w in there for there in held(s, keys).values()) for w in both]

    await async_poll_for(lambda: shares() == [5, 4], timeout=5)
    assert held(s, keys)[keys[-1]] == sorted(both)
    await Event("computed").set()
    assert await uses == 7
    await asyncio.wait_for(spreading, 5)
    assert shares() == [4, 4]
    assert await c.gather(futures) == list(range(8))


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)] * 3)
async def test_the_newest_deal_counts(c: Client, s: Scheduler, *workers: Any) -> None:
    futures = [c.submit(part, i, key=f"part-{i}", workers=[workers[0].address]) for i in range(6)]
    await wait(futures)
    keys, every = [f.key for f in futures], [w.address for w in workers]
    await asyncio.gather(spread(keys, every[:2], s), spread(keys, every, s))
    where = [w for there in held(s, keys).values() for w in there]
    assert sorted(map(where.count, every)) == [2, 2, 2]
    assert await c.gather(futures) == list(range(6))
