"""Dealing partitions to workers anew when some have come or gone; runs on the scheduler."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from dask.typing import Key

from daskps.run.seating import dealt

STIMULUS = "daskps-spread"
ATTEMPTS = 300
BETWEEN = 0.1
"""Seconds between two attempts to remove copies: one that a task needs now stays for the time."""

_newest: dict[Key, object] = {}
"""By the first of the keys, the call that counts."""


async def spread(keys: Sequence[Key], workers: Sequence[str], dask_scheduler: Any) -> None:
    """Let every worker hold its share of what is in memory, and nobody else a copy.

    Parameters
    ----------
    keys
        Of the partitions.
    workers
        Addresses of those that are to hold them.
    """
    me = _newest[keys[0]] = object()
    wanted = _dealt(keys, workers, dask_scheduler)
    try:
        for address in workers:
            mine = [k for k, w in wanted.items() if w == address]
            missing = [k for k in mine if address not in _holders(k, dask_scheduler)]
            if missing and _newest.get(keys[0]) is me:
                await dask_scheduler.replicate(keys=missing, n=1, workers=[address], delete=False)
        for _ in range(ATTEMPTS):
            if _newest.get(keys[0]) is not me or _alone(wanted, dask_scheduler):
                break
            await asyncio.sleep(BETWEEN)
    finally:
        if _newest.get(keys[0]) is me:
            del _newest[keys[0]]


def _dealt(keys: Sequence[Key], workers: Sequence[str], scheduler: Any) -> dict[Key, str]:
    numbers = {w: n for n, w in enumerate(workers)}
    there = [k for k in keys if _holders(k, scheduler)]
    held = [next((numbers[w] for w in _holders(k, scheduler) if w in numbers), -1) for k in there]
    owners = dealt(held, range(len(workers)), range(len(workers)))
    return {k: workers[n] for k, n in zip(there, owners, strict=True)}


def _holders(key: Key, scheduler: Any) -> list[str]:
    task = scheduler.tasks.get(key)
    return sorted(w.address for w in (task.who_has or ())) if task is not None else []


def _alone(wanted: dict[Key, str], scheduler: Any) -> bool:
    """Ask workers to let go of what another was to have, and has; return whether nobody has any."""
    surplus: dict[str, list[Key]] = defaultdict(list)
    left = False
    for key, address in wanted.items():
        others = set(there := _holders(key, scheduler)) - {address}
        if address not in there or not others:
            continue
        left = True
        # as Dask's own memory manager does: a worker that computes with it must keep it
        waiters = scheduler.tasks[key].waiters or ()
        busy = {w.processing_on.address for w in waiters if w.processing_on is not None}
        for other in others - busy:
            surplus[other].append(key)
    for address, keys in surplus.items():
        scheduler.request_remove_replicas(address, keys, stimulus_id=STIMULUS)
    return not left
