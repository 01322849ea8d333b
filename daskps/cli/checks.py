"""The checks of ``doctor``: each asks all workers at once and says what it found, and the remedy.

The functions at the end run on workers.
"""

from __future__ import annotations

import socket
import time
import uuid
from dataclasses import dataclass
from typing import Any

SKEW = 5.0
"""Seconds by which a worker's clock may differ: TLS certificates and logs count on it."""
ASK = 30.0
"""Seconds in which workers must answer."""
DIAL = 3.0
"""Seconds in which a data port must take a connection."""
SPARE = 0.8
"""Share of the workers' memory that a run may fill."""


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found."""

    name: str
    good: bool
    said: str


def workers(client: Any) -> Check:
    """Count workers, their threads and memory."""
    infos = _infos(client)
    if not infos:
        return Check("workers", False, "there is none; start some with 'dask worker'.")
    threads = sum(w["nthreads"] for w in infos.values())
    total = sum(w["memory_limit"] for w in infos.values())
    free = "no memory limit" if not total else f"{total / 2**30:.1f} GiB"
    return Check("workers", True, f"{len(infos)} with {threads} threads, {free}")


def versions(client: Any) -> Check:
    """Compare what client, scheduler and workers run."""
    from daskps.run import plugins

    mine = version_table()
    try:
        theirs = {"scheduler": client.run_on_scheduler(version_table)}
        theirs |= _run(client, version_table)
    except Exception as error:
        if not plugins.is_missing(error):
            raise
        return Check(
            "versions",
            False,
            f"the scheduler or a worker cannot load daskps ({error}). Install the same everywhere.",
        )
    off = [
        f"{name} of {where} is {found.get(name)!r}, here {wanted!r}"
        for where, found in theirs.items()
        for name, wanted in mine.items()
        if found.get(name) != wanted
    ]
    if off:
        return Check("versions", False, f"{'; '.join(off[:4])}. Install the same everywhere.")
    return Check("versions", True, ", ".join(f"{n} {v}" for n, v in mine.items()))


def clocks(client: Any) -> Check:
    """Compare the workers' clocks with that of this machine."""
    before = time.time()
    told = _run(client, time.time)
    after = time.time()
    off = {w: max(before - t, t - after, 0.0) for w, t in told.items()}
    worst = max(off.values(), default=0.0)
    if worst > SKEW:
        late = max(off, key=lambda w: off[w])
        return Check("clocks", False, f"that of {late} is {worst:.1f} s off; use NTP.")
    return Check("clocks", True, f"within {max(worst, after - before):.2f} s")


def ports(client: Any) -> Check:
    """Let every worker connect to the data port of every other one."""
    from daskps.errors import RunFailed
    from daskps.run import plugins

    try:
        plugins.register(client)
    except RunFailed as error:
        return Check("ports", False, str(error))
    doors = _run(client, door_of)
    silent = {w: d for w, d in doors.items() if d is None}
    if silent:
        return Check("ports", False, f"no data port on {sorted(silent)}; see the workers' logs.")
    refused = _run(client, dial, doors=doors)
    bad = [f"{w} cannot reach {to}" for w, found in refused.items() for to in found]
    if bad:
        rest = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        return Check(
            "ports",
            False,
            f"{'; '.join(bad[:3])}{rest}. Open a range, and name it as daskps.data-port in Dask's "
            "configuration.",
        )
    return Check("ports", True, f"{len(doors)} data ports, each reached by every worker")


def readable(client: Any, data: str) -> Check:
    """Let every worker open the dataset."""
    return _paths(client, "data", data, _run(client, look, store=data))


def writable(client: Any, store: str) -> Check:
    """Let one worker write where checkpoints go, and all others read it."""
    name = f"doctor-{uuid.uuid4().hex[:8]}"
    infos = _infos(client)
    first = next(iter(infos))
    try:
        client.run(leave, store=store, name=name, workers=[first])
        seen = _run(client, find, store=store, name=name)
    except OSError as error:
        seen = {first: f"error: {error}"}
    finally:
        client.run(remove, store=store, name=name, workers=[first])
    return _paths(client, "checkpoint", store, seen)


def _paths(client: Any, name: str, store: str, seen: dict[str, Any]) -> Check:
    bad = {w: text for w, text in seen.items() if text.startswith("error")}
    if bad:
        worker, text = next(iter(bad.items()))
        return Check(
            name,
            False,
            f"{store!r} on {worker} and {len(bad) - 1} more of {len(seen)}: {text}. Use a path "
            "on shared storage, or a URL.",
        )
    if len(set(seen.values())) > 1:
        return Check(name, False, f"workers differ at {store!r}: {set(seen.values())}.")
    return Check(name, True, f"{store!r} on all workers: {next(iter(seen.values()), '')}")


def memory(client: Any, job: Any) -> Check:
    """Compare what a job takes with the workers' memory."""
    from daskps.cli.job import estimator_class
    from daskps.errors import NotEnoughMemory
    from daskps.run.size import check_fits, limits_of, planned

    need = planned(lambda: estimator_class(job.model)(**job.parameters).fit(job.data))
    limits, holders = limits_of(_infos(client))
    limit = sum(limits.values())
    said = f"about {need}"
    try:
        check_fits(need, limits, holders, job.parameters.get("n_shards"))
    except NotEnoughMemory as error:
        return Check("memory", False, f"{said}: {error}")
    if not limit:
        return Check("memory", True, f"{said}; the workers have no limit")
    good = need.nbytes <= SPARE * limit
    said += f" of {limit / 2**30:.1f} GiB"
    return Check("memory", good, said if good else f"{said}: more workers, or fewer features.")


def _infos(client: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return found


def _run(client: Any, function: Any, **kwargs: Any) -> dict[str, Any]:
    """Run on every worker; a worker that does not answer raises."""
    found: dict[str, Any] = client.run(function, **kwargs)
    return found


# -- on workers ----------------------------------------------------------------------------------


def version_table() -> dict[str, str]:
    """Return the versions of what messages and checkpoints depend on."""
    import sys
    from importlib.metadata import PackageNotFoundError, version

    from daskps.version import VERSION

    found = {"python": ".".join(map(str, sys.version_info[:2])), "daskps": VERSION}
    for name in ("distributed", "numpy", "numba", "zarr"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def door_of(dask_worker: Any) -> tuple[str, int] | None:
    """Return where this worker takes pulls and pushes."""
    plugin = dask_worker.plugins.get("daskps")
    keeper = getattr(plugin, "keeper", None)
    return None if keeper is None else (keeper.door.host, keeper.door.port)


def dial(doors: dict[str, tuple[str, int]]) -> list[str]:
    """Return the workers whose data port takes no connection from here."""
    silent = []
    for worker, address in doors.items():
        try:
            socket.create_connection(address, timeout=DIAL).close()
        except OSError:
            silent.append(f"{worker} at {address[0]}:{address[1]}")
    return silent


def look(store: str) -> str:
    """Return what a dataset looks like from here."""
    from daskps.data import open_dataset

    try:
        data = open_dataset(store)
        return f"{data.n_rows:,} rows in {data.n_partitions} partitions"
    except Exception as error:  # whatever storage raises is what is to be told
        return f"error: {error}"


def leave(store: str, name: str) -> None:
    """Write a mark into a Zarr group, which is made if it is not there."""
    import zarr

    zarr.open_group(store, mode="a", zarr_format=3).create_group(name).attrs["mark"] = name


def find(store: str, name: str) -> str:
    """Return whether a mark is seen from here."""
    import zarr

    try:
        seen = zarr.open_group(store, path=name, mode="r", zarr_format=3).attrs.get("mark") == name
    except Exception as error:  # whatever storage raises is what is to be told
        return f"error: what another worker wrote is not there ({error})"
    return "readable and writable" if seen else "error: the mark is damaged"


def remove(store: str, name: str) -> None:
    """Take a mark away."""
    import contextlib

    import zarr

    with contextlib.suppress(Exception):  # it was never written
        group = zarr.open_group(store, mode="r+", zarr_format=3)
        del group[name]
