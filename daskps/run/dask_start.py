"""What must be there for a run on a Dask cluster: a worker, and the scheduler."""

from __future__ import annotations

from typing import Any

from distributed import Client

from daskps.errors import RunFailed, RunTimeout


def wait_for_worker(client: Client, patience: float) -> None:
    """Wait until there is a worker.

    Raises
    ------
    RunTimeout
        If there is none for `patience` seconds.
    """
    scheduler: Any = client.scheduler
    try:
        client.wait_for_workers(1, timeout=patience)
    except TimeoutError as error:
        raise RunTimeout(
            f"no Dask worker at {scheduler.address} within {patience:g} s; start one, or use "
            "daskps.local_cluster()."
        ) from error


def cut_off(address: str) -> RunFailed:
    """Return the error of a run whose scheduler at `address` is gone, or has forgotten it."""
    return RunFailed(
        f"the Dask scheduler at {address} is gone or cancelled the run's futures, and with it went "
        "its shards. Start a cluster and call fit(resume=True) if there is a checkpoint."
    )
