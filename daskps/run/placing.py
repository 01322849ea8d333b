"""Which workers may hold shards: all, or those with a resource that the configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daskps import config
from daskps.server.layout import Layout

SHARE = 1e-6
"""What a shard takes of the resource: a worker with any of it may hold as many as there are."""


def may_hold(workers: Mapping[str, Any]) -> list[str]:
    """Return the addresses of those that may hold shards; all, if none has the resource.

    Parameters
    ----------
    workers
        What the scheduler says of each, by its address.
    """
    name = config.name("shard-resource")
    having = [a for a, w in workers.items() if w["resources"].get(name, 0.0) >= SHARE]
    return having or list(workers)


def demand(workers: Mapping[str, Any]) -> dict[str, float] | None:
    """Return what Dask is to look for where it places a shard; None for nothing."""
    name = config.name("shard-resource")
    found = any(w["resources"].get(name, 0.0) >= SHARE for w in workers.values())
    return {name: SHARE} if name is not None and found else None


def for_data(workers: Mapping[str, Any], layout: Layout) -> list[str]:
    """Return the workers that data goes to: where the shards are, or all if those are apart."""
    return sorted(workers if demand(workers) else {r.address for r in layout.refs.values()})
