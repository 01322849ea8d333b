"""Labels that are quantities: the scale that they are learnt in, and how well they are predicted.

Owns the view of a dataset with labels brought to mean 0 and deviation 1, so that step sizes and
float32 suit targets of any unit, and the score of predictions.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daskps.data import Dataset, Partition
from daskps.errors import DataError


@dataclass(frozen=True, slots=True)
class Scale:
    """Labels are learnt as ``(y - center) / unit``."""

    center: float = 0.0
    unit: float = 1.0

    @classmethod
    def of(cls, dataset: Dataset, *, centered: bool, robust: bool) -> Scale:
        """Return the scale of the labels of `dataset`.

        One partition stands for all: its rows are a random part. The scale decides about step
        sizes and rounding, not about what is minimised.

        Parameters
        ----------
        centered
            Whether the model has an intercept to put the center into.
        robust
            Whether the middle half of the labels decides, so that a few wild ones do not.
        """
        y = np.asarray(dataset.partition(0).label)
        if not centered:
            center, spread = 0.0, np.median(np.abs(y)) if robust else 0.0
        elif robust:  # quartiles of a normal variable of deviation 1 are 1.35 apart
            low, center, high = np.quantile(y, [0.25, 0.5, 0.75])
            spread = (high - low) / 1.35
        else:
            center, spread = y.mean(), y.std()
        for unit in (spread, np.sqrt(np.mean((y - center) ** 2)), np.abs(y).max()):
            if unit > 1e-12 * np.abs(y).max():  # more than rounding leaves of equal labels
                return cls(float(center), float(unit))
        return cls(float(center))

    def penalty(self, alpha: float, l1_ratio: float) -> tuple[float, float]:
        """Return alpha and l1_ratio that mean in this scale what the given mean in that of y.

        Losses and squares of weights are divided by the square of the unit, so L2 stays as it is.
        """
        l2, l1 = alpha * (1 - l1_ratio), alpha * l1_ratio / self.unit
        return l2 + l1, l1 / (l2 + l1) if l1 > 0 else 0.0


class ScaledDataset(Dataset):
    """A dataset seen with labels in another scale."""

    def __init__(self, dataset: Dataset, scale: Scale) -> None:
        super().__init__(dataset._manifest, dataset._source, dataset._ranges)
        self._scale = scale

    def partition(self, i: int) -> Partition:
        """Return partition `i`; see `Dataset.partition`."""
        part = super().partition(i)
        assert part.label is not None, self  # checked before
        label = (part.label - self._scale.center) / self._scale.unit
        return dataclasses.replace(part, label=label)


def check_quantities(dataset: Dataset) -> None:
    """Check that labels are there and are numbers.

    Raises
    ------
    DataError
        If there are none, or they are strings or booleans.
    """
    if not dataset.has_label:
        raise DataError(
            f"{dataset!r} has no labels. A regression requires y to be passed, but the target y is "
            "None; a dataset can be made with quantities too."
        )
    if dataset.classes is not None:
        raise DataError(
            f"labels are classes, {dataset.classes[0].item()!r} for one; expected quantities. Use "
            "a classifier, or numbers, for example y.astype(float)."
        )


def moved_by(margin: NDArray[np.float32], offset: float) -> NDArray[np.float64]:
    """Return predictions, shape (n_rows,), for margins (n_rows, 1) without the intercept."""
    prediction: NDArray[np.float64] = margin[:, 0].astype(np.float64) + offset
    return prediction


class Explained:
    """The share of the variance of labels that predictions explain, R^2, over many parts."""

    def __init__(self) -> None:
        self._sums = np.zeros(4)
        self._shift: float | None = None

    def add(self, y: NDArray[np.float64], prediction: NDArray[np.float64], weight: object) -> None:
        """Take in some rows; `weight` None stands for ones."""
        if self._shift is None:
            self._shift = float(y[0])  # sums of squares of labels far from 0 would lose them
        w = np.ones_like(y) if weight is None else np.asarray(weight, np.float64)
        moved = y - self._shift
        self._sums += [w.sum(), w @ moved, w @ moved**2, w @ (y - prediction) ** 2]

    def value(self) -> float:
        """Return 1 - residual / total; where all labels are equal 1 if predicted so, else 0."""
        n, linear, square, residual = self._sums
        if n <= 0:
            raise DataError(f"sample_weight adds up to {n!r}; expected more than 0.")
        total = square - linear**2 / n
        if total <= 0:
            return 1.0 if residual == 0 else 0.0
        return float(1 - residual / total)
