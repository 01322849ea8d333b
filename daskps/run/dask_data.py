"""Partitions as Dask futures: read and prepared on workers, read again by Dask after a loss."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dask
from distributed import Client, Future

from daskps.data import Dataset
from daskps.errors import RunTimeout
from daskps.run import dask_worker
from daskps.run.dask_hub import rather
from daskps.run.dask_spread import spread
from daskps.run.plan import Plan

logger = logging.getLogger("daskps")


def turns(threads: Mapping[str, int]) -> list[str]:
    """Return workers in turn, each as often as it has threads, the largest first."""
    order = sorted(threads, key=lambda w: -threads[w])
    most = max(threads.values(), default=0)
    return [w for turn in range(most) for w in order if turn < threads[w]]


def submit(
    client: Client, dataset: Dataset, plan: Plan, near: Sequence[str], *, held_out: bool
) -> list[Future[Any]]:
    """Return a future of every prepared partition.

    Tasks go where a partition is. Left to themselves, some workers read one more than others and
    are waited for at each clock; so workers in `near` take turns, where they are there.
    """
    what = "held" if held_out else "data"
    # the threshold only guards against arrays that slip into graphs by mistake
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
        return [
            client.submit(
                dask_worker.load,
                dataset.partition(i) if dataset.in_memory else dataset,
                i,
                plan,
                held_out=held_out,
                **(rather(near[i % len(near)]) if near else {}),
                key=f"daskps-{what}-{plan.run}-{i}",
            )
            for i in range(dataset.n_partitions)
        ]


def follow(client: Client, futures: Sequence[Future[Any]], workers: Sequence[str]) -> None:
    """Deal partitions to workers anew, in the background.

    Tasks go where a partition is: a worker that has just joined would get few, and one with a
    partition more than others, or with a copy of theirs, is waited for at each clock.
    """
    loop: Any = client.loop
    coroutine = client._run_on_scheduler(spread, [f.key for f in futures], list(workers))
    asyncio.run_coroutine_threadsafe(coroutine, loop.asyncio_loop).add_done_callback(_log_failure)


def _log_failure(done: concurrent.futures.Future[None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        logger.info("partitions could not be copied to a worker that joined: %s", error)


def wait_for(
    futures: Sequence[Future[Any]],
    wait: Callable[[Sequence[Future[Any]], float], Sequence[Future[Any]]],
    workers: Callable[[], Sequence[str]],
    patience: float,
    anywhere: Callable[[], object],
) -> None:
    """Wait until all partitions are read, for as long as there are workers to read them.

    Parameters
    ----------
    futures
        Of `submit`.
    wait
        Waits for some seconds and returns the futures that are still pending.
    workers
        Returns the workers that there are.
    patience
        Seconds that may pass without any worker.
    anywhere
        Lets any worker read them; called while there is none, and when all are read.

    Raises
    ------
    RunTimeout
        If there was none for so long.
    DaskpsError
        Or whatever else the reading of a partition raised.
    """
    alone = time.monotonic()
    while (left := wait(futures, 1.0)) and not any(f.status == "error" for f in futures):
        if workers():
            alone = time.monotonic()
            continue
        with contextlib.suppress(KeyError):  # the scheduler may not know them yet
            anywhere()
        if time.monotonic() - alone > patience:
            raise RunTimeout(
                f"{len(left)} of {len(futures)} partitions wait to be read, and there was no "
                f"worker for {patience:g} s; start one and call fit again."
            )
    for future in futures:
        if future.status == "error":
            future.result()
    anywhere()
