"""Server functions: reductions and updates that run where the rows are.

Each is two halves (Angel's psFunc): `partial` runs on a slot, `merge` combines the partial
results in slot order, so that the outcome does not depend on how slots lie on shards. Sums are
in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daskps.server.slot import TableSlot

Partial = float
Tables = Mapping[str, TableSlot]


@dataclass(frozen=True, slots=True)
class ServerFunction:
    """A reduction over a table in two halves."""

    partial: Callable[..., Partial]
    """Called with (tables of one slot, samples seen, **params)."""
    merge: Callable[[list[Partial]], float]
    """Called with the partial results in slot order."""


def _values(tables: Tables, table: str, T: float) -> NDArray[np.float64]:
    if table not in tables:  # small tables have no rows in most slots
        return np.zeros((0, 1))
    return np.asarray(tables[table].values(T), np.float64)


def _norm1(tables: Tables, T: float, *, table: str) -> Partial:
    return float(np.abs(_values(tables, table, T)).sum())


def _norm2_squared(tables: Tables, T: float, *, table: str) -> Partial:
    return float(np.square(_values(tables, table, T)).sum())


def _dot(tables: Tables, T: float, *, table: str, other: str) -> Partial:
    return float((_values(tables, table, T) * _values(tables, other, T)).sum())


def _count_nonzero(tables: Tables, T: float, *, table: str) -> Partial:
    return float(np.count_nonzero(_values(tables, table, T)))


def _axpy(tables: Tables, T: float, *, a: float, table: str, into: str) -> Partial:
    """Add a x `table` to `into`, which must hold plain numbers; return the rows touched."""
    if into not in tables:
        return 0.0
    target = tables[into]
    if target.spec.updater.n_fields != 1:
        raise ValueError(
            f"axpy into table {into!r}, whose updater {type(target.spec.updater).__name__} keeps "
            "state beside the values; expected a table with the updater Add."
        )
    x = (a * _values(tables, table, T)).astype(target.rows.dtype)
    target.apply(None, x[:, None, :], T, 0.0)
    return float(len(x))


FUNCTIONS: dict[str, ServerFunction] = {
    "norm1": ServerFunction(_norm1, sum),
    "norm2": ServerFunction(_norm2_squared, lambda parts: float(np.sqrt(sum(parts)))),
    "dot": ServerFunction(_dot, sum),
    "count_nonzero": ServerFunction(_count_nonzero, sum),
    "axpy": ServerFunction(_axpy, sum),
}
