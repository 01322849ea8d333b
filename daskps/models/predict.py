"""What a linear classifier says of new rows: margins, probabilities, scores.

Owns the arithmetic of prediction, partition by partition, so that data on disk is never in memory
as a whole. Does not train.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daskps.data import Dataset, Hashing, Partition, as_dataset, from_arrays
from daskps.errors import DataError
from daskps.kernels import linear as kernel
from daskps.models.classes import CodedDataset
from daskps.models.features import hashed_alike

Margins = NDArray[Any]


def in_order(X: Any, y: Any, sample_weight: Any) -> tuple[Dataset, bool]:
    """Return `X` as a dataset whose rows stand in the order of `X`, and whether it was one."""
    if isinstance(X, (Dataset, str, os.PathLike)):
        return as_dataset(X, y, sample_weight), True
    return from_arrays(X, y, sample_weight=sample_weight, shuffle=False), False


def check_width(found: int, n_features: int, name: str, *, exact: bool) -> int:
    """Return `n_features` if data have as many, or fewer unless `exact`: the rest is zero.

    Raises
    ------
    DataError
        If the number of features does not fit the estimator called `name`.
    """
    if found > n_features or (exact and found < n_features):
        raise DataError(
            f"X has {found} features, but {name} is expecting {n_features} features "
            "as input; use the columns of the training data."
        )
    return n_features


def held_out(
    eval_set: Any, n_features: int, how: Hashing | None, *, any_width: bool
) -> Dataset | None:
    """Return `fit`'s `eval_set`, a dataset, a path or (X, y), as a dataset.

    Parameters
    ----------
    eval_set
        As of `fit`.
    n_features, how
        Of the training data; the set is hashed in the same way.
    any_width
        Whether it may have more features.

    Raises
    ------
    DataError
        If it has more features than the training data, or, given as arrays, fewer (files say
        nothing of features that no row has); if it is hashed in another way.
    """
    if eval_set is None:
        return None
    dataset = as_dataset(*(eval_set if isinstance(eval_set, tuple) else (eval_set,)))
    dataset = hashed_alike(dataset, how, "the model")
    fewer = dataset.n_features < n_features and isinstance(eval_set, tuple)
    if (fewer or dataset.n_features > n_features) and not any_width:
        raise DataError(
            f"eval_set has {dataset.n_features} features, the training data {n_features}; read "
            "both with the same n_features."
        )
    return dataset


class Score(Protocol):
    """What tells margins, shape (n_rows, width), by rows; it travels to workers."""

    def __call__(self, part: Partition) -> Margins:
        """Return the margins of the rows of `part`."""
        ...


@dataclass(frozen=True, slots=True)
class LinearScore:
    """Margins of a linear model."""

    w: NDArray[np.float32]
    """Shape (n_features, width), C-contiguous."""
    intercept: NDArray[np.float32]
    """Shape (width,)."""

    def __call__(self, part: Partition) -> Margins:
        """Return the margins of the rows of `part`."""
        indices = part.indices.astype(np.uint32, copy=False)  # below the number of rows of w
        return kernel.decision(part.indptr, indices, part.values, self.w, self.intercept)

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        return int(self.w.nbytes + self.intercept.nbytes)


def margins(dataset: Dataset, score: Score) -> Iterator[tuple[Margins, Partition]]:
    """Yield the margins of each partition and the partition, one at a time."""
    for i in range(dataset.n_partitions):
        part = dataset.partition(i)
        yield score(part), part


def one_margin(margin: Margins) -> Margins:
    """Return margins as users get them: shape (n_rows,) where there is one a row."""
    return margin[:, 0] if margin.shape[1] == 1 else margin


def probabilities(margin: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return P(class | row), shape (n_rows, n_classes), for margins (n_rows, width)."""
    z = margin.astype(np.float64)
    if z.shape[1] == 1:
        z = np.hstack([np.zeros_like(z), z])
    z -= z.max(axis=1, keepdims=True)
    p = np.exp(z)
    proba: NDArray[np.float64] = p / p.sum(axis=1, keepdims=True)
    return proba


def best(margin: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the position of the most probable class of each row."""
    if margin.shape[1] == 1:
        return (margin[:, 0] > 0).astype(np.intp)
    position: NDArray[np.intp] = margin.argmax(axis=1)
    return position


def names_of(margin: Margins, classes: NDArray[Any]) -> NDArray[Any]:
    """Return the most probable class of each row."""
    return classes[best(margin)]


def accuracy(dataset: Dataset, classes: NDArray[Any], score: Score) -> float:
    """Return the weighted share of rows whose class is the most probable one."""
    right = total = 0.0
    for margin, part in margins(coded(dataset, classes, None), score):
        hit = best(margin) == part.label
        right += float(np.dot(hit, _weights(part)))
        total += float(_weights(part).sum())
    return right / _positive(total)


def log_loss(dataset: Dataset, classes: NDArray[Any], score: Score) -> float:
    """Return the weighted mean log-loss.

    Raises
    ------
    DataError
        If a label is none of the classes.
    """
    loss = total = 0.0
    for margin, part in margins(coded(dataset, classes, "the data"), score):
        y: NDArray[Any] = np.asarray(part.label, np.float32 if margin.shape[1] == 1 else np.int32)
        loss += kernel.total_loss(kernel.LOG_LOSS, margin.astype(np.float32), y, part.weight)
        total += float(_weights(part).sum())
    return loss / _positive(total)


def coded(dataset: Dataset, classes: NDArray[Any], what: str | None) -> Dataset:
    """Return `dataset` with positions in `classes` as labels; see `CodedDataset`."""
    if not dataset.has_label:
        raise DataError(f"{dataset!r} has no labels to compare with; pass y, or ingest it with y.")
    return CodedDataset(dataset, classes, what)


def _weights(part: Partition) -> NDArray[np.float64]:
    return np.ones(part.n_rows) if part.weight is None else part.weight.astype(np.float64)


def _positive(total: float) -> float:
    if total <= 0:
        raise DataError(f"sample_weight adds up to {total!r}; expected more than 0.")
    return total
