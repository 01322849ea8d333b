"""Asking a Dask cluster who runs what, and its workers whether they are alive."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from distributed import Client

from daskps.run.dask_calls import Line
from daskps.run.dask_hub import expel

logger = logging.getLogger("daskps")

T = TypeVar("T")


def runners(processing: Mapping[str, Collection[Any]], keys: Collection[Any]) -> set[str]:
    """Return the workers that some of the tasks `keys` are on."""
    wanted = set(keys)
    return {w for w, there in processing.items() if not wanted.isdisjoint(there)}


def elsewhere(
    processing: Mapping[str, Collection[Any]], key: Any, slow: Collection[str] = ()
) -> dict[str, Any]:
    """Return options of `submit` for a copy of a task: rather not where its original is.

    And rather where nothing else waits, on none of the `slow`.
    """
    busy = runners(processing, [key])
    others = [w for w in processing if w not in busy and w not in slow]
    others = [w for w in others if not processing[w]] or others
    return {"workers": others, "allow_other_workers": True} if others and busy else {}


def outcome(
    sent: concurrent.futures.Future[T], timeout: float, quiet: float, ask: Callable[[], None]
) -> T:
    """Return the outcome of calls to workers, and find out meanwhile who of them hangs.

    Parameters
    ----------
    sent
        The calls; the loss of a worker ends those to it.
    timeout
        Seconds after which they are given up.
    quiet
        Seconds without an outcome after which workers are asked, each time.
    ask
        Has workers dropped that do not answer, in the background.

    Raises
    ------
    TimeoutError
        If there is no outcome in time.
    """
    deadline = time.monotonic() + timeout
    while (rest := deadline - time.monotonic()) > quiet:
        with contextlib.suppress(TimeoutError):
            return sent.result(quiet)
        ask()
    return sent.result(max(rest, 0.0))


def probe(
    client: Client,
    line: Callable[[str], Line],
    holders: Collection[str],
    keys: Collection[Any],
    within: float,
) -> None:
    """Make the scheduler drop workers that do not answer, in the background.

    Parameters
    ----------
    client
        Whose loop asks.
    line
        Returns the way to the handlers of a worker.
    holders
        Workers to ask, besides those that the tasks `keys` are on.
    keys
        Tasks that nothing is heard of.
    within
        Seconds in which a worker must answer.
    """
    loop: Any = client.loop
    coroutine = _probe(client, line, holders, keys, within)
    asyncio.run_coroutine_threadsafe(coroutine, loop.asyncio_loop).add_done_callback(_log_failure)


async def _probe(
    client: Client,
    line: Callable[[str], Line],
    holders: Collection[str],
    keys: Collection[Any],
    within: float,
) -> None:
    scheduler: Any = client.scheduler
    processing = await asyncio.wait_for(scheduler.processing(workers=None), within)
    asked = sorted({*holders, *runners(processing, keys)} & set(processing))
    alive = await asyncio.gather(*(_answers(line, worker, within) for worker in asked))
    for worker, answered in zip(asked, alive, strict=True):
        if not answered:
            logger.warning("worker %s did not answer for %g s and is given up", worker, within)
            # a process that hangs looks alive to Dask, which would wait for it, and use it again
            await client._run_on_scheduler(expel, worker)


async def _answers(line: Callable[[str], Line], worker: str, within: float) -> bool:
    try:
        await asyncio.wait_for(line(worker).ask("identity"), within)
    except (TimeoutError, OSError):
        return False
    return True


def _log_failure(done: concurrent.futures.Future[None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        logger.info("workers could not be asked whether they are alive: %s", error)
