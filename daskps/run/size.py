"""How much memory a run takes, told by its tables and data before it begins."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from daskps.data import Dataset
from daskps.errors import NotEnoughMemory
from daskps.run.placing import may_hold
from daskps.server.spec import ServerSpec
from daskps.server.tables import TableSpec

logger = logging.getLogger("daskps")

PER_VALUE = 16
"""Bytes of a stored value on a worker: column id, value, row in the pull, and its share of keys."""
PER_ROW = 24
"""Bytes of a row: edge, label, weight."""

_asked: ContextVar[bool] = ContextVar("daskps-size-asked", default=False)


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes that all workers together hold."""

    parameters: int
    """Rows of all tables with their updater state."""
    frozen: int
    """What a cut keeps while it is written, at most."""
    data: int
    """Prepared partitions."""
    least: int = 0
    """Of the parameters, what is held from the beginning: tables of keys and cells grow."""

    @property
    def nbytes(self) -> int:
        """All of it."""
        return self.parameters + self.frozen + self.data

    def __str__(self) -> str:
        parts = f"{_text(self.parameters)} parameters, {_text(self.data)} data"
        cut = f", {_text(self.frozen)} while a checkpoint is written" if self.frozen else ""
        return f"{_text(self.nbytes)} ({parts}{cut})"


class Planned(Exception):
    """Ends a run that was only to be sized."""

    def __init__(self, size: Size) -> None:
        super().__init__(str(size))
        self.size = size


def size_of(spec: ServerSpec, dataset: Dataset, *, cuts: bool, replicas: int = 0) -> Size:
    """Return what a run takes.

    Parameters
    ----------
    spec
        Its tables; of those that grow, as many rows or cells are counted as there are values.
    dataset
        What is trained on.
    cuts
        Whether checkpoints are taken.
    replicas
        Copies of every shard.
    """
    parameters = (1 + replicas) * sum(_bytes_of(t, dataset.nnz) for t in spec.tables)
    data = PER_VALUE * dataset.nnz + PER_ROW * dataset.n_rows
    least = (1 + replicas) * sum(_bytes_of(t, 0) for t in spec.tables)
    return Size(parameters, parameters // (1 + replicas) if cuts else 0, data, least)


def _bytes_of(t: TableSpec, most: int) -> int:
    if t.keys == "cells":
        return 12 * most
    rows = t.n_rows if t.keys == "range" else most
    key = 0 if t.keys == "range" else 16
    return rows * (t.width * t.updater.n_fields * t.updater.dtype.itemsize + key)


def tell(size: Size) -> None:
    """Log what a run takes, or end it here if that is all that was asked for."""
    if _asked.get():
        raise Planned(size)
    logger.info("memory of all workers together: about %s", size)


def limits_of(workers: Mapping[str, Any]) -> tuple[dict[str, int], list[str]]:
    """Return the bytes that each worker may use, 0 without a limit, and which may hold shards.

    Parameters
    ----------
    workers
        What the scheduler says of each, by its address.
    """
    return {address: w["memory_limit"] for address, w in workers.items()}, may_hold(workers)


def check_fits(
    size: Size,
    limits: Mapping[str, int],
    holders: Collection[str] = (),
    n_shards: int | None = None,
) -> None:
    """Refuse a run whose parameters the workers cannot hold, and warn of one that will be slow.

    Parameters
    ----------
    size
        What the run takes.
    limits
        Bytes that each worker may use, by its address; 0 for one without a limit.
    holders
        Workers that may hold shards; empty for all.
    n_shards
        Between which the parameters are divided; None for one a holder.

    Raises
    ------
    NotEnoughMemory
        If a shard's part of the parameters, which Dask cannot write to disk, is more than a worker
        may use.
    """
    if not limits or not all(limits.values()):
        return
    shards = n_shards or len(holders or limits)
    worker = min(holders or limits, key=lambda w: limits[w])
    if size.least > shards * limits[worker]:
        raise NotEnoughMemory(
            f"{_text(size.least)} of parameters on {shards} shards are "
            f"{_text(size.least // shards)} each, but worker {worker} may use "
            f"{_text(limits[worker])}. Start more workers or give them more memory "
            "(--memory-limit), or lower the number of features (hash_features=), factors or topics."
        )
    together = sum(limits.values())
    if size.nbytes > together:
        logger.warning(
            "the run takes about %s, the workers may use %s together: Dask will write data to "
            "disk and read it again, which is slow; start more workers.",
            *(size, _text(together)),
        )


def planned(fit: Callable[[], Any]) -> Size:
    """Return what the run takes that `fit` would start; nothing is trained."""
    with _asking():
        try:
            fit()
        except Planned as found:
            return found.size
    raise AssertionError("fit started no run")


@contextmanager
def _asking() -> Iterator[None]:
    token = _asked.set(True)
    try:
        yield
    finally:
        _asked.reset(token)


def _text(nbytes: int) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20)):
        if nbytes >= scale:
            return f"{nbytes / scale:.1f} {unit}"
    return f"{nbytes / 2**10:.0f} KiB"
