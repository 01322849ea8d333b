"""A user's own model as the parameter server sees it: its tables, and rows ready for its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from daskps.data import Partition
from daskps.models.own import Model, Rows, Table
from daskps.models.own_server import BoundServer, Places, locate
from daskps.run.plan import StepServer
from daskps.server.tables import Init, Placement, TableSpec
from daskps.server.updaters import SGD, Add, AnyUpdater, Total


def spec_of(table: Table, *, on_arrival: bool) -> TableSpec:
    """Return what the shards are told of a table; `on_arrival` tells SSP and ASP from BSP."""
    updater: AnyUpdater
    if table.rule == "steps":
        updater = SGD(discount=on_arrival)
    else:
        updater = Add(table.dtype) if table.rule == "sum" else Total(table.dtype)
    init = Init(table.init, float(table.scale), int(table.seed))
    if table.n_rows is None:
        return TableSpec(table.name, 0, int(table.width), updater, keys="hash", init=init)
    return TableSpec(table.name, int(table.n_rows), int(table.width), updater, init=init)


@dataclass(frozen=True)
class OwnModel:
    """A model of the user's own.

    Parameters
    ----------
    model
        What the user wrote.
    on_arrival
        Whether pushes are merged on arrival (SSP, ASP).
    clocks_per_pass
        Slices that partitions are cut into; each has a state of its own.
    """

    model: Model
    on_arrival: bool
    clocks_per_pass: int

    def __repr__(self) -> str:
        """Return the user's model, by which checkpoints know it."""
        return repr(self.model)

    @property
    def title(self) -> str:
        """What panels and plots call it."""
        return type(self.model).__name__

    def tables(self) -> tuple[TableSpec, ...]:
        """Return the user's tables."""
        return tuple(spec_of(t, on_arrival=self.on_arrival) for t in self.model.tables())

    def prepare(self, partition: Partition, placements: Mapping[str, Placement]) -> Rows:
        """Name the columns that occur, and find them in every table that has such rows."""
        columns, local = np.unique(partition.indices, return_inverse=True)
        values = partition.values
        if values is None:
            values = np.ones(partition.nnz, np.float32)
        index = np.int32 if partition.nnz < 2**31 else np.int64
        X = sp.csr_array(
            (values, local.astype(index), partition.indptr.astype(index)),
            shape=(partition.n_rows, len(columns)),
        )
        weight = partition.weight
        if weight is None:
            weight = np.ones(partition.n_rows, np.float32)
        largest = int(columns[-1]) if len(columns) else -1
        located = {
            name: locate(place, columns)
            for name, place in placements.items()
            if place.spec.keys == "hash" or place.spec.n_rows > largest
        }
        return Rows(X, columns, partition.label, weight, Places(placements, located))

    def step(self, data: Rows, server: StepServer) -> Mapping[str, float]:
        """Take the user's step, and send what it pushed."""
        bound = BoundServer(self, data, server)
        figures = self._figures(self.model.step(data, bound), data)
        server.push(*bound.pushes(), samples=len(data))
        return figures

    def evaluate(self, data: Rows, server: StepServer) -> Mapping[str, float]:
        """Return the user's loss."""
        loss = self.model.evaluate(data, BoundServer(self, data, server, held_out=True))
        return self._figures(loss, data)

    def _figures(self, loss: Any, data: Rows) -> dict[str, float]:
        try:
            return {"loss": float(loss), "samples": float(len(data))}
        except (TypeError, ValueError):
            raise TypeError(
                f"{type(self.model).__name__} returned {loss!r} for a loss; expected a number, the "
                "sum over the rows."
            ) from None


@dataclass(frozen=True, repr=False)
class OwnStatefulModel(OwnModel):
    """A model of the user's own whose rows keep arrays."""

    @property
    def keeps(self) -> tuple[str, ...]:
        """Names of the arrays, of every slice."""
        slices = range(self.clocks_per_pass)
        return tuple(f"{name}.{s}" for s in slices for name in self.model.keeps)
