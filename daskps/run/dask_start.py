"""What must be there before a run begins on a Dask cluster: a worker."""

from __future__ import annotations

from typing import Any

from distributed import Client

from daskps.errors import RunTimeout


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
