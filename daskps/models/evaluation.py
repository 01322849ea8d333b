"""How good a classifier is, overall and by how rare the features of the rows are.

Data are read partition by partition; of a dataset on disk the current client's workers read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from daskps.cluster import current_client
from daskps.data import Dataset, Partition
from daskps.errors import DataError
from daskps.models import predict

AHEAD = 8
"""Partitions whose counts may wait to be added up."""
_LIMIT = 2**31  # bins take a byte a feature


def evaluate(
    dataset: Dataset, score: predict.Score, rarity: NDArray[np.uint8] | None
) -> xr.Dataset:
    """Return samples, mean log-loss and accuracy, for each bin of `rarity` if it is given.

    Parameters
    ----------
    dataset
        Rows with labels that are positions of classes.
    score
        What tells margins.
    rarity
        The bin of each feature, see `bins_of`; a row is in the lowest bin of its features.
    """
    sums = np.zeros((4, 1 if rarity is None else 256))
    for part in _each(dataset, _sums_of, score, rarity):
        sums += part
    rows, weight, loss, right = sums
    with np.errstate(invalid="ignore"):
        found = {
            "samples": rows.astype(np.int64),
            "log_loss": loss / weight,
            "accuracy": right / weight,
        }
    if rarity is None:
        return xr.Dataset({name: values[0] for name, values in found.items()})
    used = np.flatnonzero(rows)
    low = np.where(used == 0, 0, 10.0 ** (used - 1)).astype(np.int64)
    high = 10 ** used.astype(np.int64) - 1
    coords = {"at_least": ("at_least", low), "at_most": ("at_least", high)}
    return xr.Dataset({name: ("at_least", values[used]) for name, values in found.items()}, coords)


def bins_of(dataset: Dataset, n_features: int) -> NDArray[np.uint8]:
    """Return the digits of the number of rows that each feature occurs in, shape (n_features,).

    Raises
    ------
    DataError
        If there are too many features to count each.
    """
    if n_features > _LIMIT:
        raise DataError(
            f"{n_features} features are too many to count each, expected at most {_LIMIT}; "
            "ingest with fewer hashed columns."
        )
    counts = np.zeros(n_features, np.int64)
    for ids, times in _each(dataset, _counts_of):
        known = ids < n_features
        counts[ids[known]] += times[known]
    return np.searchsorted(10 ** np.arange(19), counts, side="right").astype(np.uint8)


def _each(dataset: Dataset, ask: Callable[..., Any], *args: Any) -> Iterator[Any]:
    """Yield ``ask(partition, *args)`` of each partition, in order."""
    if dataset.in_memory or current_client() is None:
        yield from (ask(dataset.partition(i), *args) for i in range(dataset.n_partitions))
        return
    shared = dask.delayed((dataset, *args), pure=False, traverse=False)
    task = dask.delayed(_of_partition, pure=False)
    for first in range(0, dataset.n_partitions, AHEAD):
        last = min(first + AHEAD, dataset.n_partitions)
        yield from dask.compute(*[task(ask, shared, i) for i in range(first, last)])


def _of_partition(ask: Callable[..., Any], shared: tuple[Any, ...], i: int) -> Any:
    dataset, *args = shared
    return ask(dataset.partition(i), *args)


def _counts_of(part: Partition) -> tuple[NDArray[Any], NDArray[np.int64]]:
    ids, times = np.unique(part.indices, return_counts=True)
    return ids, times


def _sums_of(
    part: Partition, score: predict.Score, rarity: NDArray[np.uint8] | None
) -> NDArray[np.float64]:
    """Return rows, weight, loss and hits of a partition, by bin: shape (4, bins)."""
    margin, weight = score(part), np.ones(part.n_rows)
    if part.weight is not None:
        weight = part.weight.astype(np.float64)
    label = np.asarray(part.label).astype(np.intp)
    probability = predict.probabilities(margin)[np.arange(part.n_rows), label]
    loss = -np.log(np.maximum(probability, np.finfo(np.float64).tiny))
    columns = [
        np.ones(part.n_rows),
        weight,
        weight * loss,
        weight * (predict.best(margin) == label),
    ]
    at = np.zeros(part.n_rows, np.intp) if rarity is None else _rarest(part, rarity)
    bins = 1 if rarity is None else 256
    return np.stack([np.bincount(at, column, bins) for column in columns])


def _rarest(part: Partition, rarity: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the lowest bin of the features of each row; of one without any, the highest."""
    out = np.full(part.n_rows, rarity.max(), np.intp)
    some = np.flatnonzero(np.diff(part.indptr))
    if len(some):
        out[some] = np.minimum.reduceat(rarity[part.indices], part.indptr[some])
    return out
