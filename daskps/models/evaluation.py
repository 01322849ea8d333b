"""How good a model is, overall and by how rare the features of the rows are.

Data are read partition by partition; of a dataset on disk the current client's workers read them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from daskps.cluster import current_client
from daskps.data import Dataset, Partition
from daskps.models import predict
from daskps.models.shown import Shown
from daskps.server._hashing import FREE
from daskps.server.key_index import KeyIndex

AHEAD = 8
"""Partitions whose counts may wait to be added up."""

Figure = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]
"""A number a row, of margins (n_rows, width) and labels (n_rows,)."""
Figures = Mapping[str, Figure]


class Evaluated(Shown):
    """What tells how good an estimator is; a subclass says by which figures."""

    @abstractmethod
    def _figures(self) -> Figures:
        """Return what is told of each row, by name."""

    @abstractmethod
    def _compared(self, dataset: Dataset) -> Dataset:
        """Return `dataset` with labels as the figures take them, or raise DataError."""

    @abstractmethod
    def _score(self) -> predict.Score:
        """Return what tells margins by rows."""

    @abstractmethod
    def _in_order(self, X: Any, y: Any = None, sample_weight: Any = None) -> Dataset:
        """Return `X` as a dataset whose rows stand in the order of `X`."""

    def evaluate(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        by: Literal["feature_frequency"] | None = None,
        counted: Any = None,
    ) -> xr.Dataset:
        """Return how many samples `X` has and mean figures, overall or by how rare features are.

        Parameters
        ----------
        X, y, sample_weight
            As in `score`.
        by
            None, or ``"feature_frequency"``: rows apart by the number of rows that the rarest of
            their features occurs in, in powers of ten.
        counted
            Data in which features are counted, best the training data: anything that `fit` takes
            without y. None counts in `X`. Memory is that of the distinct features of `X`.

        Returns
        -------
        found
            ``samples``, and of probabilities ``log_loss``, of margins ``loss`` (that which training
            minimises, of classes added up), of classes ``accuracy``, of quantities
            ``squared_error`` and ``absolute_error``; with `by` over ``at_least``, the smallest
            count of each bin; ``at_most`` is the largest.
        """
        dataset = self._in_order(X, y, sample_weight)
        compared = self._compared(dataset)
        if by is None and counted is None:
            return evaluate(compared, self._score(), self._figures(), None)
        if by != "feature_frequency":
            raise ValueError(f"by={by!r}; expected 'feature_frequency' (or None without counted).")
        rarity = Rarity.of(dataset, None if counted is None else self._in_order(counted))
        return evaluate(compared, self._score(), self._figures(), rarity)


class Rarity:
    """In how many rows, by digits, each feature of some data occurs.

    Features have numbers as they are met, so ids may be anything below 2**64 - 1.
    """

    def __init__(self, index: KeyIndex, digits: NDArray[np.uint8]) -> None:
        self._index = index
        self._digits = digits

    @classmethod
    def of(cls, dataset: Dataset, counted: Dataset | None) -> Rarity:
        """Count the features of `dataset` in `counted`, or in itself."""
        index, counts = KeyIndex(), np.zeros(0, np.int64)
        for ids, times in _each(dataset, _counts_of):
            numbers = index.find_or_add(ids)
            if len(index) > len(counts):
                counts = np.append(counts, np.zeros(2 * len(index) - len(counts), np.int64))
            counts[numbers] += times
        if counted is not None:
            counts[:] = 0
            for ids, times in _each(counted, _counts_of):
                numbers = index.find(ids)
                known = numbers != FREE
                counts[numbers[known]] += times[known]
        digits = np.searchsorted(10 ** np.arange(19), counts[: len(index)], side="right")
        # a fresh index has no memory of what was asked for
        return cls(KeyIndex(index.keys), digits.astype(np.uint8))

    def __call__(self, part: Partition) -> NDArray[np.intp]:
        """Return the lowest digits of the features of each row; of one without any, the highest."""
        out = np.full(part.n_rows, self._digits.max(initial=0), np.intp)
        some = np.flatnonzero(np.diff(part.indptr))
        if len(some):
            digits = self._digits[self._index.find(part.indices.astype(np.uint64))]
            out[some] = np.minimum.reduceat(digits, part.indptr[some])
        return out


def evaluate(
    dataset: Dataset, score: predict.Score, figures: Figures, rarity: Rarity | None
) -> xr.Dataset:
    """Return samples and mean figures, for each bin of `rarity` if it is given.

    Parameters
    ----------
    dataset
        Rows with labels as `figures` takes them.
    score
        What tells margins.
    rarity
        What tells the bin of a row.
    """
    sums = np.zeros((2 + len(figures), 1 if rarity is None else 256))
    for part in _each(dataset, _sums_of, score, tuple(figures.values()), rarity):
        sums += part
    rows, weight, *totals = sums
    with np.errstate(invalid="ignore"):
        means = {name: total / weight for name, total in zip(figures, totals, strict=True)}
    found = {"samples": rows.astype(np.int64), **means}
    if rarity is None:
        return xr.Dataset({name: values[0] for name, values in found.items()})
    used = np.flatnonzero(rows)
    low = np.where(used == 0, 0, 10.0 ** (used - 1)).astype(np.int64)
    high = 10 ** used.astype(np.int64) - 1
    coords = {"at_least": ("at_least", low), "at_most": ("at_least", high)}
    return xr.Dataset({name: ("at_least", values[used]) for name, values in found.items()}, coords)


def log_losses(margin: NDArray[Any], label: NDArray[Any]) -> NDArray[np.float64]:
    """Return the log-loss of each row whose label is a position of classes."""
    probability = predict.probabilities(margin)[np.arange(len(label)), label.astype(np.intp)]
    losses: NDArray[np.float64] = -np.log(np.maximum(probability, np.finfo(np.float64).tiny))
    return losses


def hits(margin: NDArray[Any], label: NDArray[Any]) -> NDArray[np.float64]:
    """Return 1 for each row whose class is the most probable one, else 0."""
    return np.asarray(predict.best(margin) == label, np.float64)


def hinges(margin: NDArray[Any], label: NDArray[Any], *, squared: bool) -> NDArray[np.float64]:
    """Return the hinge loss of each row, added up where each class has a margin."""
    wide = margin.shape[1] > 1
    positive = np.arange(margin.shape[1]) == label[:, None] if wide else label[:, None] > 0
    short = np.maximum(1.0 - np.where(positive, 1.0, -1.0) * margin, 0.0)
    total: NDArray[np.float64] = (short**2 if squared else short).sum(axis=1)
    return total


def errors(offset: float) -> Figures:
    """Return the figures of quantities, predicted by a margin and `offset`."""
    return {
        "squared_error": partial(_error, offset=offset, power=2),
        "absolute_error": partial(_error, offset=offset, power=1),
    }


def _error(
    margin: NDArray[Any], label: NDArray[Any], *, offset: float, power: int
) -> NDArray[np.float64]:
    residual = margin[:, 0].astype(np.float64) + offset - label
    size: NDArray[np.float64] = np.abs(residual) ** power
    return size


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


def _counts_of(part: Partition) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    ids, times = np.unique(part.indices, return_counts=True)
    return ids.astype(np.uint64), times


def _sums_of(
    part: Partition, score: predict.Score, figures: tuple[Figure, ...], rarity: Rarity | None
) -> NDArray[np.float64]:
    """Return rows, weight and weighted figures of a partition, by bin: shape (.., bins)."""
    margin, weight = score(part), np.ones(part.n_rows)
    if part.weight is not None:
        weight = part.weight.astype(np.float64)
    label = np.asarray(part.label)
    columns = [np.ones(part.n_rows), weight, *(weight * f(margin, label) for f in figures)]
    at = np.zeros(part.n_rows, np.intp) if rarity is None else rarity(part)
    bins = 1 if rarity is None else 256
    return np.stack([np.bincount(at, column, bins) for column in columns])
