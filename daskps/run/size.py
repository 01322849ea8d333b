"""How much memory a run takes, told by its tables and data before it begins."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from daskps.data import Dataset
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
    return Size(parameters, parameters // (1 + replicas) if cuts else 0, data)


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
