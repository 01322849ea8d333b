"""What the linear regressions share: labels that are quantities, predictions, R^2.

The scale of labels is in `quantities`; the course of training is in `estimator`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted

from daskps.data import Dataset
from daskps.models import evaluation
from daskps.models.estimator import LinearEstimator
from daskps.models.features import check_dense
from daskps.models.linear import COEF, INTERCEPT
from daskps.models.predict import LinearScore, Score, margins
from daskps.models.quantities import (
    Explained,
    Scale,
    ScaledDataset,
    check_quantities,
    moved_by,
)
from daskps.models.target import Target
from daskps.run.launch import Outcome


class LinearRegressor(RegressorMixin, LinearEstimator):
    """Base of the estimators that predict a quantity."""

    _scale: Scale | None = None
    """Of the labels that the model was trained on first."""

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Go over `X` once, starting from the model that is there; no checkpoints are made.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Raises
        ------
        DataError
            If the number of features differs.
        """
        return self._partial_fit(X, y, sample_weight)

    def _target(self, dataset: Dataset, y: Any, *, start: bool, classes: Any = None) -> Target:
        assert classes is None, classes
        check_quantities(dataset)
        scale = self._scale if start else None
        if scale is None:  # another scale would give rows that are gone on from another meaning
            scale = Scale.of(dataset, centered=self.fit_intercept, robust=self._robust)
        return Target(ScaledDataset(dataset, scale), scale=scale)

    @property
    @abstractmethod
    def _robust(self) -> bool:
        """Whether a few wild labels should hardly matter."""

    def _held_out(self, dataset: Dataset, target: Target) -> Dataset:
        check_quantities(dataset)
        return ScaledDataset(dataset, target.scale)

    def _values(self, target: Target) -> Mapping[str, NDArray[np.float32]]:
        center, unit = target.scale.center, target.scale.unit
        intercept = ((self.intercept_ - center) / unit).astype(np.float32)
        return {COEF: self.coef_[:, None] / np.float32(unit), INTERCEPT: intercept[None]}

    def _take(self, outcome: Outcome, model: Any, target: Target) -> None:
        super()._take(outcome, model, target)
        center, unit = target.scale.center, target.scale.unit
        self.coef_ = self.coef_[0] * np.float32(unit)
        # float64: float32 would round away labels that are far from 0 beside how they vary
        self.intercept_ = self.intercept_.astype(np.float64) * unit + center
        self._scale = target.scale

    def _arrays(self) -> dict[str, tuple[NDArray[Any], tuple[str, ...]]]:
        return {
            "coef": (self.coef_, ("feature",)),
            "intercept": (self.intercept_, ("margin",)),
        }

    def predict(self, X: Any) -> Any:
        """Return the expected quantity of each row, shape (n_rows,), float64.

        Rows come in the order of `X`; those of a dataset in the order in which it holds them.
        For dask arrays and DataFrames and for xarray lazily in the same container, for a dataset
        on disk or its path a dask array with a chunk for each partition; else numpy.
        """
        check_is_fitted(self)
        return self._answer(X, partial(moved_by, offset=self.intercept_[0]), np.float64)

    def _into(self, other: Any) -> Any:
        """Return scikit-learn's estimator `other`, fitted, with these weights."""
        check_is_fitted(self)
        check_dense(self)
        other.coef_ = self.coef_.astype(np.float64)
        other.intercept_ = float(self.intercept_[0])
        other.n_features_in_ = self.n_features_in_
        return other

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return R^2 on `X`, 1 at best; a dataset brings its own labels and weights."""
        dataset = self._in_order(X, y, sample_weight)
        check_quantities(dataset)
        explained = Explained()
        for margin, part in margins(dataset, self._score()):
            assert part.label is not None, dataset  # it was checked
            explained.add(part.label, moved_by(margin, self.intercept_[0]), part.weight)
        return explained.value()

    def _figures(self) -> evaluation.Figures:
        return evaluation.errors(self.intercept_[0])

    def _compared(self, dataset: Dataset) -> Dataset:
        check_quantities(dataset)
        return dataset

    def _score(self) -> Score:
        # without the intercept, which float32 would round
        return self._keyed(LinearScore(self.coef_[:, None].copy(), np.zeros(1, np.float32)))
