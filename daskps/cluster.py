"""Dask clusters and clients: the embedded one, and the one that is current."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client, LocalCluster


def local_cluster(
    n_workers: int = 2, *, threads_per_worker: int = 1, **kwargs: Any
) -> LocalCluster:
    """Start a Dask cluster of processes on this machine, bound to 127.0.0.1.

    Anyone who reaches a Dask cluster without TLS can run code in it, so this one is reachable from
    this machine alone.

    Parameters
    ----------
    n_workers
        Worker processes.
    threads_per_worker
        Tasks that a worker runs at once; one is best for training, whose tasks fill a core.
    **kwargs
        Further arguments of `distributed.LocalCluster`. A dashboard is served at a free port
        unless `dashboard_address` says otherwise.

    Returns
    -------
    cluster
        Give it to `distributed.Client`; both are context managers.

    Examples
    --------
    >>> from distributed import Client
    >>> with daskps.local_cluster() as cluster, Client(cluster):  # doctest: +SKIP
    ...     LogisticRegression().fit("train.zarr")
    """
    from distributed import LocalCluster

    options = {
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        **kwargs,
    }
    return LocalCluster(n_workers=n_workers, threads_per_worker=threads_per_worker, **options)


def current_client() -> Client | None:
    """Return the `distributed.Client` that is current, or None."""
    if "distributed" not in sys.modules:  # importing it takes long, and nobody can have a client
        return None
    from distributed import default_client

    try:
        client = default_client()
    except ValueError:
        return None
    return client if client.status == "running" else None
