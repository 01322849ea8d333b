"""Held-out ratings in the rows, columns and partitions of the ratings that are trained on.

What is known of a user stays with the partition of the ratings; held-out ratings go there.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from . import vocabulary
from .dataset import Dataset
from .format import Manifest
from .partition import Partition
from .ratings import Ratings, first_users
from .sources import MemorySource


def aligned(ratings: Ratings, like: Ratings) -> Dataset:
    """Return `ratings` with the users, items and partitions of `like`.

    Those of users or items that `like` does not have are left out. Two parts of one split are
    alike already, and stay where they are; others are brought into memory.
    """
    if _alike(ratings, like):
        return ratings.dataset
    items = vocabulary.codes(like.items, ratings.items)
    first = first_users(ratings.dataset)
    found = []
    for p, (start, stop) in enumerate(itertools.pairwise(first)):
        part = ratings.dataset.partition(p)
        users = vocabulary.codes(like.users, ratings.users[start:stop])
        u, i = np.repeat(users, np.diff(part.indptr)), items[part.indices]
        values = np.ones(part.nnz, np.float32) if part.values is None else part.values
        known = (u >= 0) & (i >= 0)
        found.append((u[known], i[known], values[known]))
    users, columns, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((columns, users))
    return _cut(users[order], columns[order], values[order], like)


def _alike(a: Ratings, b: Ratings) -> bool:
    same = np.array_equal(a.dataset.partition_rows, b.dataset.partition_rows)
    return same and all(x is y or x.equals(y) for x, y in ((a.users, b.users), (a.items, b.items)))


def _cut(
    users: NDArray[np.int64], columns: NDArray[np.int64], values: NDArray[np.float32], like: Ratings
) -> Dataset:
    """Return sorted triples as CSR rows in the partitions of `like`."""
    bounds = first_users(like.dataset)
    edges = np.searchsorted(users, np.arange(bounds[-1] + 1))
    parts = []
    for start, stop in itertools.pairwise(bounds):
        own = slice(edges[start], edges[stop])
        parts.append(
            Partition(
                edges[start : stop + 1] - edges[start],
                columns[own].astype(like.dataset.index_dtype),
                values[own],
                None,
                None,
                len(like.items),
            )
        )
    manifest = Manifest(
        n_partitions=len(parts),
        n_rows=int(bounds[-1]),
        nnz=len(values),
        n_features=len(like.items),
    )
    return Dataset(manifest, MemorySource(parts, None))
