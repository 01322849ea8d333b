"""`Ratings`: a dataset whose rows are users, what its numbers stand for, and splits of it.

Owns the form on disk beside the dataset's own: the arrays ``user_id`` and ``item_id`` (none where
numbers stand for themselves), ``time`` (P, max_nnz), and the attribute ``daskps_ratings``. How it
is made is in `read_ratings`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray

from daskps import html
from daskps.errors import DataError, DatasetFormatError

from . import format as disk
from . import vocabulary
from .dataset import Dataset, open_dataset
from .moments import moment
from .partition import Partition
from .sources import MemorySource
from .stores import describe, open_group, resolve
from .vocabulary import Vocabulary

VERSION = 1
ATTRIBUTE = "daskps_ratings"

Choose = Callable[[int, Partition, NDArray[np.float64] | None], NDArray[np.bool_]]
"""From a partition's number, its ratings and their times to those that are chosen."""


class Times(Protocol):
    """Times of the ratings of each partition."""

    def __getitem__(self, i: int, /) -> NDArray[np.float64]:
        """Return those of partition `i`."""


@dataclass(frozen=True, slots=True)
class StoredTimes:
    """Times beside a dataset on disk."""

    store: Any
    dataset: Dataset

    def __getitem__(self, i: int) -> NDArray[np.float64]:
        """Return those of partition `i`."""
        length = int(self.dataset.partition_nnz[i])
        return disk.read_row(open_group(self.store), "time", i, length, describe(self.store))


@dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings that users gave to items, and the ids of both.

    Parameters
    ----------
    dataset
        CSR rows, one a user, in the order of `users`.
    users, items
        Ids, a `pandas.Index` each.
    times
        When ratings were given, by partition; None if that is not known.
    """

    dataset: Dataset
    users: Vocabulary
    items: Vocabulary
    times: Times | None = None

    @property
    def n_ratings(self) -> int:
        """Number of ratings; of a split of data on disk, of all of it."""
        return self.dataset.nnz

    def __repr__(self) -> str:
        where = self.dataset.store or "memory"
        return (
            f"<daskps.Ratings ratings={self.n_ratings:,} users={len(self.users):,} "
            f"items={len(self.items):,} partitions={self.dataset.n_partitions} store={where}>"
        )

    def _repr_html_(self) -> str:
        found = {
            "ratings": f"{self.n_ratings:,}",
            "users": f"{len(self.users):,}",
            "items": f"{len(self.items):,}",
            "partitions": self.dataset.n_partitions,
            "times": "no" if self.times is None else "yes",
            "store": self.dataset.store or "memory",
        }
        return html.facts("daskps.Ratings", found)

    def split(self, fraction: float = 0.8, *, random_state: int = 0) -> tuple[Ratings, Ratings]:
        """Return a random part of the ratings, and the others.

        Parameters
        ----------
        fraction
            Probability of each rating to be in the first part, between 0 and 1.
        random_state
            Seed.
        """
        if not 0 < fraction < 1:
            raise DataError(f"split({fraction!r}); expected a fraction between 0 and 1.")
        return self._both(partial(_at_random, fraction=fraction, seed=random_state))

    def leave_out(
        self, k: int = 1, by: Literal["random", "time"] = "random", *, random_state: int = 0
    ) -> tuple[Ratings, Ratings]:
        """Return all but `k` ratings of each user, and those; users with no more keep theirs.

        Parameters
        ----------
        k
            Ratings to leave out.
        by
            ``"random"``, or ``"time"``: the latest.
        random_state
            Seed.
        """
        if k < 1 or by not in ("random", "time"):
            raise DataError(f"leave_out({k!r}, {by!r}); expected k >= 1, by 'random' or 'time'.")
        if by == "time":
            self._timed()
        return self._both(partial(_all_but, k=k, by_time=by == "time", seed=random_state))

    def split_by_time(
        self, fraction: float | None = None, *, when: Any = None
    ) -> tuple[Ratings, Ratings]:
        """Return the ratings before a moment, and those from then on.

        Parameters
        ----------
        fraction
            Share of the ratings before it.
        when
            The moment itself, as the times are; or a date, where these are seconds since 1970, as
            which dates are kept.
        """
        times = self._timed()
        if (fraction is None) == (when is None):
            raise DataError("split_by_time takes a fraction or a moment (when=), one of them.")
        if when is None:
            n = self.dataset.n_partitions
            every = np.concatenate([times[i] for i in range(n)])
            when = float(np.quantile(every, float(fraction or 0)))
        return self._both(partial(_before, when=moment(when)))

    def _timed(self) -> Times:
        if self.times is None:
            raise DataError(
                "these ratings have no times; name their column when reading them: "
                "daskps.read_ratings(..., time='timestamp')."
            )
        return self.times

    def _both(self, choose: Choose) -> tuple[Ratings, Ratings]:
        return self._chosen(choose), self._chosen(partial(_others, choose=choose))

    def _chosen(self, choose: Choose) -> Ratings:
        manifest = self.dataset._manifest
        source = ChosenSource(self.dataset, self.times, choose)
        times: Times | None = None if self.times is None else ChosenTimes(source)
        if self.dataset.in_memory:
            n = self.dataset.n_partitions
            times = None if times is None else [times[i] for i in range(n)]
            held = MemorySource([source.partition(i) for i in range(n)], None)
            return Ratings(Dataset(manifest, held), self.users, self.items, times)
        return Ratings(Dataset(manifest, source), self.users, self.items, times)


class ChosenSource:
    """Some ratings of each partition of a dataset, chosen when it is read."""

    feature_names = None

    def __init__(self, dataset: Dataset, times: Times | None, choose: Choose) -> None:
        self.dataset = dataset
        self.times = times
        self.choose = choose
        self.name = dataset.store
        self.rows = dataset.partition_rows
        self.nnz = dataset.partition_nnz
        """At most: how many are chosen is only known when they are read."""

    def has(self, name: str) -> bool:
        """Return whether values, label or weight exist."""
        return self.dataset._source.has(name)

    def mask(self, i: int, part: Partition) -> NDArray[np.bool_]:
        """Return which ratings of partition `i` are chosen."""
        return self.choose(i, part, None if self.times is None else self.times[i])

    def partition(self, i: int) -> Partition:
        """Return partition `i`."""
        part = self.dataset.partition(i)
        mask = self.mask(i, part)
        kept = np.concatenate(([0], np.cumsum(mask, dtype=np.int64)))
        values = None if part.values is None else part.values[mask]
        return Partition(
            kept[part.indptr], part.indices[mask], values, part.label, part.weight, part.n_features
        )

    def indptr(self, i: int) -> NDArray[np.int64]:
        """Return the row edges of partition `i`."""
        return self.partition(i).indptr

    def label(self, i: int) -> NDArray[np.float64]:
        """Return the labels of partition `i`."""
        return self.dataset._source.label(i)

    def target(self, manifest: disk.Manifest) -> Any:
        """Return a store in memory that holds the on-disk form."""
        parts = [self.partition(i) for i in range(len(self.rows))]
        return MemorySource(parts, None).target(manifest)


@dataclass(frozen=True, slots=True)
class ChosenTimes:
    """Times of the ratings that a source chooses."""

    source: ChosenSource

    def __getitem__(self, i: int) -> NDArray[np.float64]:
        """Return those of partition `i`."""
        assert self.source.times is not None
        times = self.source.times[i]
        return times[self.source.mask(i, self.source.dataset.partition(i))]


def _others(i: int, part: Partition, times: Any, choose: Choose) -> NDArray[np.bool_]:
    return ~choose(i, part, times)


def _at_random(
    i: int, part: Partition, times: Any, fraction: float, seed: int
) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = np.random.default_rng([seed, i]).random(part.nnz) < fraction
    return mask


def _all_but(
    i: int, part: Partition, times: Any, k: int, by_time: bool, seed: int
) -> NDArray[np.bool_]:
    key = times if by_time else np.random.default_rng([seed, i]).random(part.nnz)
    lengths = np.diff(part.indptr)
    rows = np.repeat(np.arange(part.n_rows), lengths)
    order = np.lexsort((key, rows))
    from_end = np.repeat(part.indptr[1:], lengths) - np.arange(part.nnz)
    mask = np.empty(part.nnz, bool)
    mask[order] = (from_end > k) | (lengths[rows] <= k)
    return mask


def _before(i: int, part: Partition, times: Any, when: float) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = times < when
    return mask


def write_ids(group: zarr.Group, users: Vocabulary, items: Vocabulary, timed: bool) -> None:
    """Write what makes the dataset of `group` ratings; before its manifest, which ends it."""
    found: dict[str, Any] = {"version": VERSION, "timed": timed}
    found["users"] = vocabulary.write(group, "user_id", users, "user")
    found["items"] = vocabulary.write(group, "item_id", items, "item")
    group.attrs[ATTRIBUTE] = found


def open_ratings(store: Any) -> Ratings:
    """Open ratings that `read_ratings` wrote; rows and columns of other datasets are numbers.

    Raises
    ------
    FileNotFoundError
        If nothing is there.
    DatasetFormatError
        If it is no dataset, or one of a version that is not understood.
    """
    dataset = open_dataset(store)
    group = open_group(resolve(store))
    about = group.attrs.get(ATTRIBUTE)
    if not isinstance(about, dict):
        return numbered(dataset)
    if about.get("version") != VERSION:
        raise DatasetFormatError(
            f"ratings {dataset.store!r} have version {about.get('version')!r}, this daskps reads "
            f"version {VERSION}; install a newer daskps."
        )
    users = vocabulary.read(group, "user_id", str(about["users"]))
    items = vocabulary.read(group, "item_id", str(about["items"]))
    times = StoredTimes(resolve(store), dataset) if about["timed"] else None
    return Ratings(dataset, users, items, times)


def numbered(dataset: Dataset) -> Ratings:
    """Return a dataset as ratings whose users are its rows, in order, and items its columns."""
    users, items = vocabulary.numbers(dataset.n_rows), vocabulary.numbers(dataset.n_features)
    return Ratings(dataset, users, items)


def first_users(dataset: Dataset) -> NDArray[np.int64]:
    """Return the number of the first user of each partition, and that of all users."""
    rows: Sequence[int] = dataset.partition_rows.tolist()
    return np.concatenate(([0], np.cumsum(rows, dtype=np.int64)))
