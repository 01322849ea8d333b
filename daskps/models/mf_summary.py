"""What must be known of ratings before training: number, mean, spread, those of each item."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import dask
import numpy as np
from numpy.typing import NDArray

from daskps.data import Dataset
from daskps.errors import DataError

FAR = 20.0
"""Standard deviations from the mean at which a rating is taken for a mistake."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of all ratings."""

    n: int
    mean: float
    deviation: float
    lowest: float
    highest: float
    counts: NDArray[np.int64]
    """Ratings of each item."""

    @property
    def unit(self) -> float:
        """What ratings are measured in: their standard deviation, 1 where they are all the same."""
        return self.deviation if self.deviation > 0 else 1.0


def summary(dataset: Dataset) -> Summary:
    """Return figures of all ratings; partitions on disk are read by a task each."""
    numbers = range(dataset.n_partitions)
    if dataset.in_memory:
        parts = [_of_partition(dataset, i) for i in numbers]
    else:
        task = dask.delayed(_of_partition, pure=False)
        parts = list(dask.compute(*[task(dataset, i) for i in numbers]))
    n = sum(part.n for part in parts)
    if n == 0:
        raise DataError("there are no ratings to learn from; expected at least one.")
    parts = [part for part in parts if part.n]
    mean = sum(part.n * part.mean for part in parts) / n
    spread = sum(part.n * (part.deviation**2 + (part.mean - mean) ** 2) for part in parts) / n
    return Summary(
        n,
        mean,
        math.sqrt(spread),
        min(part.lowest for part in parts),
        max(part.highest for part in parts),
        np.sum([part.counts for part in parts], axis=0),
    )


def _of_partition(dataset: Dataset, i: int) -> Summary:
    part = dataset.partition(i)
    values = np.ones(part.nnz, np.float32) if part.values is None else part.values
    counts = np.bincount(part.indices, minlength=part.n_features)
    if not part.nnz:
        return Summary(0, 0.0, 0.0, math.inf, -math.inf, counts)
    x = values.astype(np.float64)
    return Summary(len(x), float(x.mean()), float(x.std()), float(x.min()), float(x.max()), counts)


def check_ratings(found: Summary, *, implicit: bool) -> None:
    """Refuse counts below 0; warn of ratings that are far from all others.

    Raises
    ------
    DataError
        If there is a negative count, or nothing ever happened.
    """
    if implicit and (found.lowest < 0 or found.highest <= 0):
        raise DataError(
            f"counts are from {found.lowest:g} to {found.highest:g}; with loss='implicit' expected "
            "counts >= 0, some of them above: leave out what was not liked, or use loss='squared'."
        )
    far = max(found.highest - found.mean, found.mean - found.lowest)
    if not implicit and far > FAR * found.unit:
        value = found.highest if found.highest - found.mean == far else found.lowest
        warnings.warn(
            f"a rating is {value:g}, {far / found.unit:.0f} standard deviations from the mean "
            f"{found.mean:g}; correct it, or it will steer the factors of all it touches.",
            UserWarning,
            stacklevel=3,
        )
