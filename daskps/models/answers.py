"""Answers for every row, in the container that the rows came in.

=====================================  ==========================================================
rows                                   answer
=====================================  ==========================================================
numpy, scipy, pydata, list, pandas     numpy, at once (pandas too, as scikit-learn's estimators
                                       do, whose meta-estimators count on it)
`Dataset` in memory                    numpy, at once
dask array                             dask array with the same chunks of rows, unknown ones too
dask DataFrame                         dask Series or DataFrame with the same index, lazily
xarray DataArray                       DataArray, lazily where the rows are lazy
`Dataset` on disk, its path or URL     dask array, one chunk a partition, read when it is computed
=====================================  ==========================================================

Owns containers; what is answered is a `Question`, made by the estimators of `predict`'s parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.sizeof import sizeof
from numpy.typing import NDArray

from daskps.cluster import current_client
from daskps.data import Dataset, Hashing, Partition
from daskps.data.convert import to_partition
from daskps.data.hashing import hashed
from daskps.errors import DataError
from daskps.models import predict
from daskps.models.features import hashed_alike

LARGE = 2**20
"""From this many bytes on a model is sent to the workers by itself, not inside a graph."""


@dataclass(frozen=True, slots=True)
class Question:
    """What to say of each row; it travels to workers."""

    score: predict.Score
    """From rows to margins, (n_rows, width)."""
    finish: Callable[[NDArray[Any]], NDArray[Any]]
    """From margins to answers, (n_rows,) or (n_rows, number of columns)."""
    dtype: np.dtype[Any]
    """Of the answers."""
    columns: NDArray[Any] | None
    """What the columns stand for; None for one answer a row."""
    n_features: int
    estimator: str
    """Name of its class, for messages."""
    hashing: Hashing | None = None
    """How columns of the training data were hashed; rows that are not, are hashed in this way."""
    any_width: bool = False
    """Whether rows may have any number of features."""
    column: str = "class"
    """What the columns are, for the dimensions of a DataArray."""

    def of_rows(self, part: Partition) -> NDArray[Any]:
        """Return the answers for the rows of a partition."""
        return self.finish(self.score(part)).astype(self.dtype, copy=False)

    def of_matrix(self, X: Any, where: str = "") -> NDArray[Any]:
        """Return the answers for the rows of a matrix in memory."""
        part, _ = to_partition(X, where=where)
        if self.hashing is not None:
            return self.of_rows(hashed(part, self.hashing))
        self.check(part.n_features)
        return self.of_rows(part)

    def check(self, n_features: int, *, exact: bool = True) -> None:
        """Check that rows have as many features, or fewer unless `exact`; see `check_width`."""
        if self.hashing is None and not self.any_width:
            predict.check_width(n_features, self.n_features, self.estimator, exact=exact)

    def shape(self, n_rows: Any) -> tuple[Any, ...]:
        """Return the shape of the answers for `n_rows` rows, which may be NaN, unknown."""
        return (n_rows,) if self.columns is None else (n_rows, len(self.columns))


def answer(question: Question, X: Any) -> Any:
    """Return the answers for the rows of `X`, in their order.

    Raises
    ------
    DataError
        If the data cannot be used; of lazy data only their shape is checked at once.
    """
    if isinstance(X, xr.DataArray):
        return _of_xarray(question, X)
    if isinstance(X, da.Array):
        return _of_array(question, X)
    if hasattr(X, "to_dask_array"):
        return _of_frame(question, X)
    dataset, stored = predict.in_order(X, None, None)
    dataset = hashed_alike(dataset, question.hashing, question.estimator)
    question.check(dataset.n_features, exact=not stored)
    if not dataset.in_memory:
        return _of_dataset(question, dataset)
    parts = (dataset.partition(i) for i in range(dataset.n_partitions))
    return np.concatenate([question.of_rows(part) for part in parts])


def _of_xarray(question: Question, X: xr.DataArray) -> xr.DataArray:
    found = answer(question, X.data)
    row = X.dims[:1]
    coords = {name: coord for name, coord in X.coords.items() if set(coord.dims) <= set(row)}
    if question.columns is not None:
        row += (question.column,)
        coords[question.column] = xr.DataArray(question.columns, dims=question.column)
    return xr.DataArray(found, coords, row)


def _of_array(question: Question, X: da.Array) -> da.Array:
    if X.ndim != 2:
        raise DataError(f"X has shape {X.shape!r}, expected (rows, columns).")
    if not np.isnan(X.shape[1]):
        question.check(X.shape[1])
    if X.numblocks[1] > 1:
        X = X.rechunk({1: -1})
    shared = _shared(question)
    blocks = X.to_delayed().ravel().tolist()
    ask = dask.delayed(_of_block, pure=False)
    tasks = [ask(shared, block, f" of block {i}") for i, block in enumerate(blocks)]
    return _stacked(question, tasks, X.chunks[0])


def _of_frame(question: Question, X: Any) -> Any:
    import dask.dataframe as dd

    question.check(len(X.columns))
    shared = _shared(question)
    ask = dask.delayed(_of_frame_part, pure=False)
    tasks = [ask(shared, part, f" of partition {i}") for i, part in enumerate(X.to_delayed())]
    empty = question.finish(question.score(to_partition(np.zeros((1, 1)))[0]))
    meta = _framed(question, empty[:0].astype(question.dtype), X._meta.index[:0])
    return dd.from_delayed(tasks, meta=meta, divisions=X.divisions, verify_meta=False)


def _of_dataset(question: Question, dataset: Dataset) -> da.Array:
    shared = _shared(question)
    ask = dask.delayed(_of_partition, pure=False)
    tasks = [ask(shared, dataset, i) for i in range(dataset.n_partitions)]
    return _stacked(question, tasks, dataset.partition_rows.tolist())


def _stacked(question: Question, tasks: Sequence[Any], rows: Sequence[Any]) -> da.Array:
    meta = np.empty(question.shape(0), question.dtype)
    parts = [
        da.from_delayed(task, question.shape(n), meta=meta)
        for task, n in zip(tasks, rows, strict=True)
    ]
    stacked: da.Array = da.concatenate(parts, allow_unknown_chunksizes=True)
    return stacked


def _shared(question: Question) -> Any:
    """Return the question as an argument that every task can have without a copy of its own."""
    client = current_client()
    if client is None or client.asynchronous or sizeof(question.score) < LARGE:
        return dask.delayed(question, pure=False, traverse=False)
    return client.scatter(question, broadcast=True, hash=False)


def _of_block(question: Question, block: Any, where: str) -> NDArray[Any]:
    return question.of_matrix(block, where)


def _of_partition(question: Question, dataset: Dataset, i: int) -> NDArray[Any]:
    return question.of_rows(dataset.partition(i))


def _of_frame_part(question: Question, part: Any, where: str) -> Any:
    return _framed(question, question.of_matrix(part, where), part.index)


def _framed(question: Question, found: NDArray[Any], index: Any) -> Any:
    import pandas as pd

    if question.columns is None:
        return pd.Series(found, index)
    return pd.DataFrame(found, index, question.columns)
