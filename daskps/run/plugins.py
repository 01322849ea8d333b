"""Putting daskps on a cluster's scheduler and workers, and saying what is wrong with theirs."""

from __future__ import annotations

import contextlib
from typing import Any

from daskps.errors import RunFailed
from daskps.run.dask_hub import DaskpsScheduler
from daskps.run.dask_worker import DaskpsWorker


def register(client: Any) -> None:
    """Register what runs need, if that has not been done yet.

    Raises
    ------
    RunFailed
        If the scheduler or a worker has no daskps, or another version.
    """
    try:
        client.register_plugin(DaskpsScheduler())
        client.register_plugin(DaskpsWorker())
    except RunFailed:
        _take_back(client)
        raise
    except Exception as error:
        if not is_missing(error):
            raise
        _take_back(client)
        raise RunFailed(
            f"the scheduler or a worker of {client.scheduler.address} cannot load daskps "
            f"({error}); install the same environment on all of them. 'dask daskps doctor' "
            "compares versions."
        ) from error


def is_missing(error: Exception) -> bool:
    """Return whether a scheduler or worker could not import what it was sent."""
    # what workers raise may come as a plain Exception with the text of theirs
    return isinstance(error, ImportError) or "ModuleNotFoundError" in str(error)


def _take_back(client: Any) -> None:
    with contextlib.suppress(Exception):  # else the next fit would take it as registered
        client.unregister_worker_plugin(DaskpsWorker.name)
