"""Rows of users, as they come from partitions after a run; and of new users, solved for alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from daskps.data import Dataset, from_arrays
from daskps.data.ratings import Ratings, first_users, numbered
from daskps.models import user_rows as stored
from daskps.models.factored import Factored
from daskps.models.user_rows import UserStore
from daskps.server.messages import Arrays

F32 = NDArray[np.float32]
Rows = Callable[[Arrays], tuple[F32, F32]]
"""From what a partition keeps to factors, (n, k), and biases, (n,), in the unit of the ratings.

It may be asked for some users alone: all that is kept has a row for each.
"""

PIECE = 8 * stored.CHUNK
"""Users that are taken at a time."""


class UserRows:
    """Collects the rows of all users.

    Parameters
    ----------
    dataset
        Ratings.
    n_factors
        Numbers of a user.
    rows
        What a partition's state means.
    store
        Where factors go, a partition at a time; None keeps them in memory.
    """

    def __init__(
        self, dataset: Dataset, n_factors: int, rows: Rows, store: str | os.PathLike[str] | None
    ) -> None:
        self._dataset = dataset
        self._rows = rows
        self._first = first_users(dataset)
        n = int(self._first[-1])
        self._store = None if store is None else UserStore(store, n, n_factors)
        self._P: Any = np.zeros((n, n_factors), np.float32) if store is None else None
        self.bias = np.zeros(n, np.float32)

    def take(self, partition: int, state: Arrays) -> None:
        """Take the rows of one partition; users without ratings stay at zero.

        Beside `state` only `PIECE` users are in memory, if they go to a store.
        """
        if not state:  # a run of no clocks
            return
        begin, end = (int(n) for n in self._first[partition : partition + 2])
        rated = self._dataset.row_lengths(partition) > 0
        into = self._P if self._store is None else self._store.array
        while begin < end:
            stop = min(end, (begin // PIECE + 1) * PIECE)  # no chunk of the store is written twice
            own = slice(begin - self._first[partition], stop - self._first[partition])
            P, bias = self._rows({name: array[own] for name, array in state.items()})
            self.bias[begin:stop] = np.where(rated[own], bias, 0)
            into[begin:stop] = np.where(rated[own, None], P, 0)
            begin = stop

    def finish(self) -> stored.Rows:
        """Return the factors of all users: an array, or where they are stored."""
        return self._P if self._store is None else self._store.finish()


def fold_in(
    model: Factored,
    ratings: Ratings,
    items: NDArray[np.int64],
    reg: float,
    confidence: float | None,
) -> Factored:
    """Return the same items for the users of `ratings`, each solved for exactly, in float64.

    Parameters
    ----------
    model
        Fitted.
    ratings
        Of new users.
    items
        Number of each column in the model, -1 for columns that do not count.
    reg
        Penalty, as in training.
    confidence
        With implicit feedback, else None.
    """
    biased = bool(model.item_bias.any() or model.user_bias.any())
    Y = np.column_stack([model.Q, np.ones(len(model.Q))]) if biased else model.Q
    Y = Y.astype(np.float64)
    k = Y.shape[1]
    gram = Y.T @ Y if confidence is not None else np.zeros((k, k))
    first = first_users(ratings.dataset)
    X = np.zeros((int(first[-1]), k))
    for p in range(ratings.dataset.n_partitions):
        part = ratings.dataset.partition(p)
        columns = items[part.indices]
        values = np.ones(part.nnz) if part.values is None else part.values.astype(np.float64)
        for row in np.flatnonzero(np.diff(part.indptr)):
            own = slice(part.indptr[row], part.indptr[row + 1])
            known = columns[own] >= 0
            i, r = columns[own][known], values[own][known]
            if len(i):
                X[first[p] + row] = _solved(Y[i], r, model, i, gram, reg, confidence)
    bias = X[:, -1] if biased else np.zeros(len(X))
    P = X[:, : model.Q.shape[1]].astype(np.float32)
    return model.of_users(ratings.users, P, bias.astype(np.float32))


def _solved(
    Y: NDArray[np.float64],
    r: NDArray[np.float64],
    model: Factored,
    i: NDArray[np.int64],
    gram: NDArray[np.float64],
    reg: float,
    confidence: float | None,
) -> Any:
    """Return the row that minimises one user's part of the objective."""
    eye = np.eye(Y.shape[1])
    if confidence is not None:
        c = confidence * r
        A = gram + (Y.T * c) @ Y + reg * eye
        return np.linalg.lstsq(A, Y.T @ np.where(r > 0, 1 + c, 0.0), rcond=None)[0]
    A = Y.T @ Y + reg * len(r) * eye
    target = r - model.center - model.item_bias[i]
    return np.linalg.lstsq(A, Y.T @ target, rcond=None)[0]


def renumbered(ratings: Ratings, items: NDArray[np.int64], n_items: int) -> Ratings:
    """Return ratings whose columns are numbered as in a model, those that it has (not -1)."""
    source = ratings.dataset
    parts = []
    for p in range(source.n_partitions):
        rows = source.partition(p).to_scipy().tocoo()
        columns = items[rows.coords[1]]
        known = columns >= 0
        at = (rows.coords[0][known], columns[known])
        parts.append(scipy.sparse.coo_array((rows.data[known], at), (rows.shape[0], n_items)))
    return numbered(from_arrays(scipy.sparse.vstack(parts, format="csr"), shuffle=False))
