"""Lists of items for users, as tables: at once, or lazily for a dask collection of users.

Owns containers of questions and answers; scores and what tops the lists are made by `factored`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import pandas as pd
import scipy.sparse
from dask.sizeof import sizeof
from numpy.typing import NDArray

from daskps.cluster import current_client
from daskps.data import Dataset, vocabulary
from daskps.data.ratings import first_users
from daskps.models.answers import LARGE
from daskps.models.factored import Factored, Unknown

HELD = 2**29
"""Bytes in memory of what users have rated, beyond the last partition that was read."""
COLUMNS = ("user", "item", "score", "rank")


class SeenBy:
    """What the users of a dataset have rated.

    The last partitions that were read are kept: lists are asked for in the order of users.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._first = first_users(dataset)
        self._held: dict[int, Any] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        return SeenBy, (self.dataset,)

    def __call__(self, users: NDArray[np.int64]) -> Any:
        """Return CSR rows, one for each of `users`, which are numbers."""
        owner = np.searchsorted(self._first, users, side="right") - 1
        order, parts = np.argsort(owner, kind="stable"), []
        for p in np.unique(owner):
            parts.append(self._rows(int(p))[users[owner == p] - self._first[p]])
        if len(parts) == 1:
            return parts[0]
        back = np.empty(len(users), np.int64)
        back[order] = np.arange(len(users))
        return scipy.sparse.vstack(parts, format="csr")[back]

    def _rows(self, partition: int) -> Any:
        with self._lock:  # others would read the same partition
            if partition not in self._held:
                part = self.dataset.partition(partition)
                arrays = (np.ones(part.nnz, np.bool_), part.indices, part.indptr)
                shape = (part.n_rows, part.n_features)
                self._held[partition] = scipy.sparse.csr_array(arrays, shape=shape)
                while len(self._held) > 1 and sum(map(_nbytes, self._held.values())) > HELD:
                    del self._held[next(iter(self._held))]
            return self._held[partition]


def _nbytes(rows: Any) -> int:
    return int(rows.data.nbytes + rows.indices.nbytes + rows.indptr.nbytes)


@dataclass(frozen=True, slots=True)
class ListMaker:
    """How lists are made, once the users are known; it travels to workers."""

    model: Factored
    k: int
    seen: SeenBy | None
    among: NDArray[np.int64] | None
    unknown: Unknown

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        return int(self.model.__sizeof__())

    def __call__(self, ids: Any) -> pd.DataFrame:
        """Return the lists of `ids`, one after the other."""
        ids = vocabulary.of(ids)
        numbers = self.model.numbers(ids, "user", self.unknown)
        known = numbers >= 0
        scores, which = self.model.lists(numbers[known], self.k, self.seen, self.among)
        if self.unknown == "popular" and not known.all():
            scores, which = self._with_popular(known, scores, which)
            known = np.ones(len(ids), bool)
        return framed(ids[known], self.model.items, scores, which, COLUMNS)

    def _with_popular(
        self, known: NDArray[np.bool_], scores: NDArray[Any], which: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        order = self.model.popular
        if self.among is not None:
            order = order[np.isin(order, self.among)]
        order = order[: self.k]
        all_scores = np.full((len(known), self.k), -np.inf)
        all_which = np.full((len(known), self.k), -1, np.int64)
        all_scores[known], all_which[known] = scores, which
        all_which[~known, : len(order)] = order
        all_scores[~known, : len(order)] = self.model.center + self.model.item_bias[order]
        return all_scores, all_which


def framed(
    left: Any, right: Any, scores: NDArray[Any], which: NDArray[Any], columns: Sequence[str]
) -> pd.DataFrame:
    """Return lists, (n, k), as a table with a row for each entry; -1 is none."""
    there = which >= 0
    rank = np.broadcast_to(np.arange(1, which.shape[1] + 1), which.shape)[there]
    one = left.take(np.repeat(np.arange(len(left)), there.sum(axis=1)))
    data = (one, right.take(which[there]), scores[there], rank)
    return pd.DataFrame(dict(zip(columns, data, strict=True)))


def lazily(make: ListMaker, users: Any) -> Any:
    """Return the lists of a dask collection of users as a dask DataFrame."""
    import dask.dataframe as dd

    client = current_client()
    if client is None or client.asynchronous or sizeof(make) < LARGE:
        shared = dask.delayed(make, pure=False, traverse=False)
    else:
        shared = client.scatter(make, broadcast=True, hash=False)
    ask = dask.delayed(_lists, pure=False)
    parts = np.ravel(users.to_delayed()).tolist()
    meta = make(make.model.users[:1])[:0]
    return dd.from_delayed([ask(shared, part) for part in parts], meta=meta, verify_meta=False)


def _lists(make: ListMaker, ids: Any) -> pd.DataFrame:
    return make(ids)
