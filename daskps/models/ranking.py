"""How good a factorisation is on held-out ratings: errors of scores, and of lists."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from sklearn.metrics import ndcg_score, root_mean_squared_error

from daskps.data import Partition
from daskps.data.ratings import Ratings, first_users
from daskps.errors import DataError
from daskps.models.factored import Factored, Unknown
from daskps.models.lists import SeenBy

USERS = 2048
"""Users whose lists are measured at a time."""


def rmse(model: Factored, test: Ratings, unknown: Unknown) -> float:
    """Return the root of the mean squared error over the ratings of `test`.

    Raises
    ------
    DataError
        If there are none, or of unknown users or items with `unknown` ``"raise"``.
    """
    total, n = 0.0, 0
    for users, items, part in _numbered(model, test, unknown):
        lengths = np.diff(part.indptr)
        u, i = np.repeat(users, lengths), items[part.indices]
        known = (u >= 0) & (i >= 0) if unknown == "drop" else np.ones(len(u), bool)
        if not known.any():
            continue
        values = np.ones(part.nnz, np.float32) if part.values is None else part.values
        error = root_mean_squared_error(values[known], model.scores(u[known], i[known]))
        total += float(error) ** 2 * int(known.sum())
        n += int(known.sum())
    if not n:
        raise DataError("there are no ratings to measure on, expected at least one.")
    return float(np.sqrt(total / n))


def ranking(
    model: Factored, test: Ratings, seen: SeenBy | None, k: int, relevant: float | None
) -> xr.Dataset:
    """Return precision, recall and NDCG of lists of `k`, the mean over users.

    Users that are unknown or have nothing relevant in `test` do not count; neither do items that
    are unknown, which no list could hold.
    """
    sums, n = np.zeros(3), 0
    for users, items, part in _numbered(model, test, "drop"):
        good = items[part.indices] >= 0
        if relevant is not None and part.values is not None:
            good &= part.values >= relevant
        edges = np.concatenate(([0], np.cumsum(good)))[part.indptr]
        columns = items[part.indices[good]]
        counted = np.flatnonzero((users >= 0) & (np.diff(edges) > 0))
        for start in range(0, len(counted), USERS):
            rows = counted[start : start + USERS]
            lists = model.lists(users[rows], k, seen, None)[1]
            sums += _sums(lists, [columns[edges[r] : edges[r + 1]] for r in rows], k)
            n += len(rows)
    if not n:
        raise DataError("no user has a relevant item to measure on; expected at least one.")
    names = ("precision", "recall", "ndcg")
    found = {name: float(x) for name, x in zip(names, sums / n, strict=True)}
    return xr.Dataset(found, attrs={"k": k, "users": n})


def _numbered(
    model: Factored, test: Ratings, unknown: Unknown
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Partition]]:
    """Yield the model's numbers of a partition's users and of all columns, and the partition."""
    columns = model.numbers(test.items, "item", "drop")
    first = first_users(test.dataset)
    for p in range(test.dataset.n_partitions):
        part = test.dataset.partition(p)
        ids = test.users[first[p] : first[p + 1]]
        rated = np.diff(part.indptr) > 0
        users = np.full(part.n_rows, -1, np.int64)
        users[rated] = model.numbers(ids[rated], "user", unknown)
        if unknown == "raise":
            model.numbers(test.items[np.unique(part.indices)], "item", unknown)
        yield users, columns, part


def _sums(lists: NDArray[np.int64], truth: list[NDArray[np.int64]], k: int) -> NDArray[np.float64]:
    """Return precision, recall and NDCG, summed over lists."""
    width = k + max(len(t) for t in truth)
    gain, score = np.zeros((len(lists), width)), np.full((len(lists), width), -1.0)
    # what stands in a list is scored by its rank, what should have stood there comes after
    score[:, :k] = np.where(lists >= 0, np.arange(k, 0, -1), 0)
    hits = np.zeros(len(lists))
    for row, (own, wanted) in enumerate(zip(lists, truth, strict=True)):
        gain[row, :k] = np.isin(own, wanted)
        hits[row] = gain[row, :k].sum()
        missed = len(wanted) - int(hits[row])
        gain[row, k : k + missed] = 1
    sizes = np.array([len(t) for t in truth])
    ndcg = ndcg_score(gain, score, k=k, ignore_ties=True) * len(lists)
    return np.array([(hits / k).sum(), (hits / sizes).sum(), ndcg])
