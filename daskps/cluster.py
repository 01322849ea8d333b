"""Dask clusters and clients: the embedded one, and the one that is current."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from daskps.errors import RunFailed

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

CALM = {
    "distributed.admin.tick.interval": "100ms",
    "distributed.worker.profile.interval": "100ms",
}
"""How often the processes of an embedded cluster look at themselves: by default 50 and 100 times a
second, which takes 4 % of two processors from training. Whoever configures it otherwise is heeded.
"""
SHIELD = "daskps.run.shield"
"""What workers load first, so that they outlive an interruption of the process that has them."""


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
    import dask
    from distributed import LocalCluster

    options = {"dashboard_address": "127.0.0.1:0", **kwargs}
    calm = _calm()
    if options.get("processes", True):  # threads of this process listen nowhere
        options.setdefault("host", "127.0.0.1")
        options["preload"] = [*_preloads(options.get("preload")), SHIELD]
        # for the workers that come later
        options["config"] = {**calm, **(options.get("config") or {})}
    with dask.config.set(calm):
        return LocalCluster(n_workers=n_workers, threads_per_worker=threads_per_worker, **options)


def _calm() -> dict[str, str]:
    """Return what of `CALM` nobody has configured."""
    import dask

    defaults = dask.config.merge(*dask.config.defaults)
    get = dask.config.get
    return {k: v for k, v in CALM.items() if get(k) == get(k, config=defaults)}


def _preloads(given: str | Sequence[str] | None) -> Sequence[str]:
    """Return what workers load anyway: as the argument says, else Dask's configuration."""
    import dask

    if given is None:
        found: Sequence[str] = dask.config.get("distributed.worker.preload")
        return found
    return [given] if isinstance(given, str) else given


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


@contextmanager
def connect(
    scheduler: str | None = None,
    n_workers: int | None = None,
    tls_ca_file: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
) -> Iterator[Client]:
    """Yield a client of a cluster that is there, or of an embedded one, which ends with it.

    Parameters
    ----------
    scheduler
        Address; None starts a cluster of processes on this machine.
    n_workers
        Its workers; None takes one a core, at most 4.
    tls_ca_file, tls_cert, tls_key
        Files for a cluster with TLS; without them Dask's configuration is asked.

    Raises
    ------
    RunFailed
        If nobody answers at `scheduler`.
    """
    from distributed import Client
    from distributed.security import Security

    if scheduler is None:
        n = n_workers or min(4, os.cpu_count() or 1)
        with local_cluster(n) as cluster, Client(cluster) as client:
            yield client
        return
    security = None
    if tls_ca_file or tls_cert or tls_key:
        security = Security(
            tls_ca_file=tls_ca_file,
            tls_client_cert=tls_cert,
            tls_client_key=tls_key,
            require_encryption=True,
        )
    try:
        client = Client(scheduler, security=security)
    except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as error:
        raise RunFailed(
            f"no Dask scheduler answers at {scheduler!r} ({error}); expected an address such as "
            "tcp://host:8786, or tls://host:8786 with certificates."
        ) from error
    with client:
        yield client
