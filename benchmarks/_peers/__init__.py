"""What stands side by side in `benchmarks/lr_peers.py`: daskps and its peers, one module each.

A method is a function that trains on a `Task` and yields a `Point` after each pass. It loads before
it starts its clock and stops the clock while it scores; the caller measures the quality of the
scores, the same way for everybody.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks._reference import Rows

THREADS = 2
"""For everybody, in all."""

MODULES = ("ours", "scikit", "gblinear", "vw", "spark")

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """What to train on, and the rows whose scores are judged."""

    train: Rows
    judged: Rows
    n_features: int
    stops: tuple[int, ...]
    """Passes, iterations or rounds after which a point is wanted, ascending."""
    folder: Path
    """For files that a peer reads; kept for the next run."""

    @property
    def passes(self) -> int:
        """How many there are, for those that go on from one to the next."""
        return self.stops[-1]

    def matrices(self, dtype: Any = np.float32) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """Return both sets of rows as CSR of ones."""
        return csr(self.train, self.n_features, dtype), csr(self.judged, self.n_features, dtype)


@dataclass(frozen=True)
class Point:
    """Where a method stands."""

    seconds: float
    """Of training since its start; without loading and scoring."""
    scores: NDArray[Any]
    """Log-odds of the judged rows."""


@dataclass(frozen=True)
class Method:
    """One line of the table."""

    train: Callable[[Task, Settings], Iterator[Point]]
    module: str
    """Must be importable."""
    settings: Settings
    """Chosen with `--grid` on held-out training rows at d = 1 M."""
    grid: tuple[Settings, ...]
    """As many for everybody."""
    passes: tuple[int, ...]
    """After which it is judged: all from 1 on, or, where a peer cannot go on from one to the next,
    a few, each a fit from the beginning."""
    peer: bool = True

    @property
    def installed(self) -> bool:
        """Whether it can run here."""
        return importlib.util.find_spec(self.module) is not None


def csr(rows: Rows, n_features: int, dtype: Any = np.float32) -> sparse.csr_matrix:
    """Return rows of ones in the form that all of Python's peers take."""
    n, width = rows.ids.shape
    indptr = np.arange(0, n * width + 1, width, dtype=np.int32)  # scikit-learn takes no int64
    ones = np.ones(n * width, dtype)
    matrix = sparse.csr_matrix((ones, rows.ids.ravel(), indptr), shape=(n, n_features))
    matrix.has_sorted_indices = True
    return matrix


def methods() -> dict[str, Method]:
    """Return everybody by name, daskps first, whether installed or not."""
    found: dict[str, Method] = {}
    for name in MODULES:
        found |= importlib.import_module(f"benchmarks._peers.{name}").METHODS
    return found
