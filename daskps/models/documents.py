"""Documents as counts: checks before training, and halves for document completion.

Owns what is asked of data that topic models take. Knows no topics.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import dask
import numpy as np
import scipy.sparse
import zarr.abc.store
from numpy.typing import NDArray

from daskps.data import Dataset, Partition, as_dataset, from_arrays
from daskps.errors import DataError

PER_PARTITION, MANY = 150_000, 8
"""Entries that a partition of a matrix should have at least, up to so many partitions: drawing
fewer takes less time than all that is around it."""
LARGEST = 2**24
"""Counts are below this: float32, in which values are stored, has all whole numbers up to here."""


def documents(X: Any) -> Dataset:
    """Return anything that `fit` takes as a dataset, documents in their order."""
    if isinstance(X, (Dataset, str, os.PathLike, zarr.abc.store.Store)):
        return as_dataset(X)
    few = None
    if scipy.sparse.issparse(X) and X.nnz < MANY * PER_PARTITION:
        few = max(1, min(X.shape[0], X.nnz // PER_PARTITION))
    return from_arrays(X, shuffle=False, n_partitions=few)


def check_documents(dataset: Dataset) -> int:
    """Return the number of tokens, after a look at every count.

    Raises
    ------
    DataError
        If a value is no count, or there are no tokens.
    """
    count = dask.delayed(_tokens, pure=False)
    tasks = [count(dataset, i) for i in range(dataset.n_partitions)]
    found = dask.compute(*tasks, scheduler="threads" if dataset.in_memory else None)
    for answer in found:
        if isinstance(answer, Exception):
            raise answer
    tokens = int(sum(found))
    if not tokens:
        raise DataError(
            f"none of the {dataset.n_rows} documents has a word; expected counts above 0. Look at "
            "the vectoriser's stop words and limits."
        )
    return tokens


def _tokens(dataset: Dataset, i: int) -> int | Exception:
    part = dataset.partition(i)
    try:
        check_values(part, int(dataset.partition_rows[:i].sum()))
    except DataError as error:  # tasks return errors: the first partition's is raised
        return error
    return part.nnz if part.values is None else int(part.values.sum(dtype=np.float64))


def check_values(part: Partition, first: int = 0) -> None:
    """Check that values are counts; `first` is the number of the partition's first document.

    Raises
    ------
    DataError
        Naming the first that is none.
    """
    values = part.values
    if values is None:
        return
    bad = np.flatnonzero((values < 0) | (values != np.rint(values)) | (values >= LARGEST))
    if len(bad):
        at = int(bad[0])
        row = first + int(np.searchsorted(part.indptr, at, side="right")) - 1
        raise DataError(
            f"document {row} has the count {values[at].item()!r} of word "
            f"{int(part.indices[at])}; expected a whole number from 0 to {LARGEST - 1}. Counts are "
            "how often a word occurs, not TF-IDF or shares."
        )


def whole_counts(part: Partition) -> NDArray[np.float32]:
    """Return how often each entry's word occurs."""
    return np.ones(part.nnz, np.float32) if part.values is None else part.values


def halves(part: Partition, rng: np.random.Generator) -> tuple[Partition, Partition]:
    """Cut every document in two halves, token by token, at random; the first has the odd one."""
    counts = whole_counts(part).astype(np.int64)
    n = part.n_rows
    entry = np.repeat(np.arange(part.nnz), counts)
    doc = np.repeat(np.repeat(np.arange(n), np.diff(part.indptr)), counts)
    order = np.lexsort((rng.random(len(doc)), doc))
    starts = np.concatenate([[0], np.cumsum(np.bincount(doc, minlength=n))])[:-1]
    rank = np.arange(len(doc)) - starts[doc[order]]
    first = np.bincount(entry[order[rank % 2 == 0]], minlength=part.nnz)
    return _with(part, first), _with(part, counts - first)


def _with(part: Partition, counts: NDArray[np.int64]) -> Partition:
    some = counts > 0
    kept = np.concatenate(([0], np.cumsum(some, dtype=np.int64)))
    return replace(
        part,
        indptr=kept[part.indptr],
        indices=part.indices[some],
        values=counts[some].astype(np.float32),
    )
