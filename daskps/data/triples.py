"""Triples (user, item, rating) to CSR rows: the blocks of every input, and the partitions of them.

Owns the names of columns, the checks of what stands in them, duplicates, and which user is in
which partition. Each block is read once, by one task, and sends each partition its share; a
partition is built by one task as well. Where blocks come from is in `tabular`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray

from daskps.errors import DataError, DataTypeError

from . import vocabulary
from .format import index_dtype
from .moments import seconds
from .partition import Partition
from .plan import choose_partitions, cut
from .vocabulary import Vocabulary

SMALLEST = 500_000
"""Ratings of a partition, of data that would fill two."""
TASK = 5_000_000
"""Ratings that one task of SGD visits: 100 ms or more, where a clock takes some 50 beside them.
Measured on 20 M ratings and two workers: 41 M ratings/s with 2 partitions, 24 M with 4."""

Duplicates = Literal["error", "last", "mean"]


@dataclass(frozen=True, slots=True)
class Names:
    """Which columns are what."""

    user: Any = "user"
    item: Any = "item"
    rating: Any = "rating"
    time: Any = None

    @property
    def wanted(self) -> list[Any]:
        """Columns that must be there."""
        return [c for c in (self.user, self.item, self.rating, self.time) if c is not None]


@dataclass(frozen=True, slots=True)
class Triples:
    """Checked ratings, in the order in which they came."""

    users: Vocabulary
    items: Vocabulary
    ratings: NDArray[np.float32]
    times: NDArray[np.float64] | None
    """Seconds since 1970, or whatever number the source has."""


@dataclass(frozen=True, slots=True)
class Share:
    """The ratings of a block whose users belong to one partition."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    ratings: NDArray[np.float32]
    times: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class Deal:
    """What every task that codes a block must know."""

    users: Vocabulary
    items: Vocabulary
    bounds: NDArray[np.int64]
    """First user of each partition, and the number of users, shape (P + 1,)."""


def check(frame: Any, names: Names, where: str) -> Triples:
    """Return the triples of a DataFrame.

    Raises
    ------
    DataError
        If a column is missing, an id is missing, or a rating is no finite number; `where` names
        the place.
    """
    missing = [c for c in names.wanted if c not in frame.columns]
    if missing:
        raise DataError(
            f"there is no column {missing[0]!r}{where} among {list(frame.columns)!r}; name the "
            "columns of users, items and ratings with user=, item= and rating=."
        )
    for column in (names.user, names.item):
        absent = np.flatnonzero(frame[column].isna().to_numpy())
        if len(absent):
            raise DataError(
                f"column {column!r} has no id in row {frame.index[absent[0]]!r}{where}; expected "
                "one in every row: drop the rows without."
            )
    ratings = _numbers(frame[names.rating], "rating", where)
    times = (
        None if names.time is None else _numbers(seconds(frame[names.time], where), "time", where)
    )
    users, items = vocabulary.of(frame[names.user]), vocabulary.of(frame[names.item])
    return Triples(users, items, ratings.astype(np.float32), times)


def _numbers(column: Any, what: str, where: str) -> NDArray[np.float64]:
    try:
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise DataTypeError(
            f"column {column.name!r} of {what}s{where} is not numeric ({error}); expected finite "
            "numbers."
        ) from error
    bad = np.flatnonzero(~np.isfinite(values) | (np.abs(values) > np.finfo(np.float32).max))
    if len(bad):
        raise DataError(
            f"the {what} in row {column.index[bad[0]]!r}{where} is {float(values[bad[0]])!r}; "
            "expected a finite number: drop or correct such rows."
        )
    return np.asarray(values, np.float64)


def counted(block: Triples) -> tuple[Vocabulary, NDArray[np.int64], Vocabulary]:
    """Return the users of a block, the ratings of each, and its items."""
    users = vocabulary.union([block.users], "user")
    counts = np.bincount(vocabulary.codes(users, block.users), minlength=len(users))
    return users, counts.astype(np.int64), vocabulary.union([block.items], "item")


def deal(
    blocks: Sequence[tuple[Vocabulary, NDArray[np.int64], Vocabulary]], n_partitions: int | None
) -> Deal:
    """Return vocabularies and partitions for all blocks; partitions get as many ratings each."""
    users = vocabulary.union([b[0] for b in blocks], "user")
    items = vocabulary.union([b[2] for b in blocks], "item")
    lengths = np.zeros(len(users), np.int64)
    for own, counts, _ in blocks:
        lengths[vocabulary.codes(users, own)] += counts
    n = n_partitions_for(len(users), int(lengths.sum()), n_partitions)
    return Deal(users, items, cut([lengths], n)[0])


def n_partitions_for(n_users: int, n_ratings: int, requested: int | None) -> int:
    """Return the number of partitions, never more than users.

    Blocks of items are as many as partitions, so that a pass has the square of that in tasks:
    partitions are fewer and larger than `choose_partitions` makes of other data.
    """
    if requested is None and n_users:
        requested = max(1, min(2, n_ratings // SMALLEST), math.ceil(math.sqrt(n_ratings / TASK)))
    return choose_partitions(n_users, n_ratings, requested)


def shares(block: Triples, how: Deal) -> list[Share]:
    """Return what each partition gets of a block, in the order of the block."""
    users = vocabulary.codes(how.users, block.users)
    items = vocabulary.codes(how.items, block.items)
    owner = np.searchsorted(how.bounds, users, side="right") - 1
    order = np.argsort(owner, kind="stable")
    edges = np.searchsorted(owner[order], np.arange(len(how.bounds)))
    found = []
    for p, (start, stop) in enumerate(itertools.pairwise(edges)):
        own = order[start:stop]
        times = None if block.times is None else block.times[own]
        found.append(Share(users[own] - how.bounds[p], items[own], block.ratings[own], times))
    return found


def build(
    parts: Sequence[Share], how: Deal, p: int, duplicates: Duplicates
) -> tuple[Partition, NDArray[np.float64] | None]:
    """Return partition `p` and the times of its ratings.

    Raises
    ------
    DataError
        If a user rated an item twice and `duplicates` is ``"error"``.
    """
    n_rows = int(how.bounds[p + 1] - how.bounds[p])
    rows, columns = (np.concatenate([getattr(s, f) for s in parts]) for f in ("rows", "columns"))
    values = np.concatenate([s.ratings for s in parts])
    known = [s.times for s in parts if s.times is not None]
    stamps = np.concatenate(known) if known else None
    # of those that stand for the same pair, the last in the order of time, or of the input
    order = np.lexsort((columns, rows) if stamps is None else (stamps, columns, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    first = np.r_[True, (np.diff(rows) != 0) | (np.diff(columns) != 0)][: len(rows)]
    last = np.r_[first[1:], True][: len(rows)]
    if not first.all():
        if duplicates == "error":
            t = int(np.flatnonzero(~first)[0])
            user = how.users[[how.bounds[p] + rows[t]]].tolist()[0]
            item = how.items[[columns[t]]].tolist()[0]
            raise DataError(
                f"user {user!r} rated item {item!r} more than once; pass duplicates='last' to keep "
                "the last rating (by time, else in the order of the input) or 'mean'."
            )
        if duplicates == "mean":
            sums = np.add.reduceat(values.astype(np.float64), np.flatnonzero(first))
            sizes = np.diff(np.r_[np.flatnonzero(first), len(values)])
            values[last] = (sums / sizes).astype(np.float32)
    rows, columns, values = rows[last], columns[last], values[last]
    indptr = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=n_rows))))
    dtype = index_dtype(len(how.items))
    part = Partition(
        indptr.astype(np.int64), columns.astype(dtype), values, None, None, len(how.items)
    )
    return part, None if stamps is None else stamps[order][last]


def of_matrix(X: Any, n_partitions: int | None) -> tuple[Triples, Deal]:
    """Return the stored entries of a sparse matrix, some of them perhaps twice, and their deal."""
    coo = scipy.sparse.coo_array(X)
    rows, columns = coo.coords
    frame = pd.DataFrame({"user": rows, "item": columns, "rating": coo.data})
    lengths = np.bincount(rows, minlength=coo.shape[0])
    n = n_partitions_for(coo.shape[0], len(rows), n_partitions)
    users, items = (vocabulary.numbers(m) for m in coo.shape)
    return check(frame, Names(), ""), Deal(users, items, cut([lengths], n)[0])
