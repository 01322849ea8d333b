"""Partitions are dealt anew on the scheduler; of two calls for the same ones the newer counts."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from daskps.run.dask_spread import spread


class Scheduler:
    """One partition on worker a; copies are made when `gate` is open."""

    def __init__(self) -> None:
        holder = SimpleNamespace(address="a")
        self.tasks = {"k": SimpleNamespace(who_has=[holder], waiters=())}
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()

    async def replicate(self, **_: Any) -> None:
        self.asked.set()
        await self.gate.wait()


def test_an_older_call_ends_quietly_after_a_newer_one_has() -> None:
    async def both() -> None:
        scheduler = Scheduler()
        older = asyncio.create_task(spread(["k"], ["b"], scheduler))
        await asyncio.wait_for(scheduler.asked.wait(), 30)
        await asyncio.wait_for(spread(["k"], ["a"], scheduler), 30)
        scheduler.gate.set()
        await asyncio.wait_for(older, 30)

    asyncio.run(both())
