"""What the kernels alone reach: the yardstick of the engine's efficiency.

As many threads as partitions, each with its rows and a private working state; no pull, push, task
or message.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from daskps.data import Dataset
from daskps.kernels import linear as kernel
from daskps.kernels.linear import STATE_FIELDS, Rows, Rule


class BareKernel:
    """Trains on each partition in a thread of its own.

    Parameters
    ----------
    dataset
        Binary data; one thread a partition.
    rule
        How the kernels step.
    """

    def __init__(self, dataset: Dataset, rule: Rule) -> None:
        self._rule = rule
        self._rows = [_rows(dataset, i) for i in range(dataset.n_partitions)]
        self._samples = 0.0
        # the keys of a partition only, as a task has them
        self._states = [self._fresh(int(rows.indices.max()) + 1) for rows in self._rows]
        self._biases = [self._fresh(1) for _ in self._rows]

    def seconds_of_a_pass(self) -> float:
        """Take a pass over all rows and return how long it took."""
        self._samples += sum(len(rows.indptr) - 1 for rows in self._rows)
        with ThreadPoolExecutor(len(self._rows)) as pool:
            list(pool.map(abs, range(len(self._rows))))  # starts the threads
            start = time.perf_counter()
            list(pool.map(self._train, range(len(self._rows))))
            return time.perf_counter() - start

    def _train(self, i: int) -> None:
        rows = self._rows[i]
        state = (self._states[i], self._biases[i])
        kernel.train(self._rule, rows, 0, len(rows.indptr) - 1, *state, self._samples)

    def _fresh(self, n_keys: int) -> NDArray[np.float32]:
        state = np.empty((n_keys, STATE_FIELDS, 1), np.float32)
        kernel.begin(self._rule, np.zeros((n_keys, 2, 1), np.float32), 0.0, state)
        return state


def _rows(dataset: Dataset, i: int) -> Rows:
    part = dataset.partition(i)
    _, local = np.unique(part.indices, return_inverse=True)
    y = np.asarray(part.label, np.float32)
    return Rows(part.indptr, local.astype(np.uint32), part.values, y, part.weight)
