"""A model whose every push is one of each row: whatever is lost or counted twice shows in a sum."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np

from daskps.data import Partition
from daskps.run.plan import StepServer
from daskps.server.keys import KeySet, whole_table
from daskps.server.tables import Placement, TableSpec
from daskps.server.updaters import Add

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers have no tests to import

ROWS = 5000


@dataclass(frozen=True)
class Counter:
    """Adds 1 to every row."""

    def tables(self) -> tuple[TableSpec, ...]:
        return (TableSpec("sum", ROWS, 1, Add("int64")),)

    def prepare(self, partition: Partition, placements: Mapping[str, Placement]) -> KeySet:
        return whole_table(placements["sum"])

    def step(self, data: KeySet, server: StepServer) -> Mapping[str, float]:
        (rows,), _ = server.pull([data])
        server.push([data], [np.ones((ROWS, 1, 1), np.int64)], samples=1.0)
        return {"loss": float(rows.mean()), "samples": 1.0}

    def evaluate(self, data: Any, server: StepServer) -> Mapping[str, float]:
        raise AssertionError
