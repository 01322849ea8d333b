"""What the linear classifiers share: classes, margins, accuracy.

Labels become positions in `classes_` here, by `classes`; the course of training is in `estimator`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from daskps.data import Dataset
from daskps.models import predict
from daskps.models.classes import CodedDataset, Labels, agreed_classes, training_classes
from daskps.models.estimator import LinearEstimator
from daskps.models.features import check_dense
from daskps.models.parameters import class_weights
from daskps.models.target import Target


class LinearClassifier(ClassifierMixin, LinearEstimator):
    """Base of the estimators that tell classes apart by margins."""

    class_weight: dict[Any, float] | Literal["balanced"] | None

    classes_: NDArray[Any]

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None
    ) -> Self:
        """Go over `X` once, starting from the model that is there; no checkpoints are made.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes
            All labels that will ever come; needed the first time if `X` may lack some.

        Raises
        ------
        DataError
            If a label is none of the classes, or the number of features differs.
        """
        return self._partial_fit(X, y, sample_weight, classes=classes)

    def _target(self, dataset: Dataset, y: Any, *, start: bool, classes: Any = None) -> Target:
        labels = Labels.of(dataset, y)
        known = agreed_classes(classes, self.classes_ if start else None)
        classes = training_classes(labels, known)
        counts = labels.counts_in(classes, "the training data")
        weights = class_weights(self.class_weight, classes, counts)
        return Target(CodedDataset(dataset, classes, "the training data"), classes, weights)

    def _held_out(self, dataset: Dataset, target: Target) -> Dataset:
        assert target.classes is not None
        return CodedDataset(dataset, target.classes, "eval_set")

    def _arrays(self) -> dict[str, tuple[NDArray[Any], tuple[str, ...]]]:
        return {**super()._arrays(), "classes": (self.classes_, ("class",))}

    def decision_function(self, X: Any) -> Any:
        """Return margins, shape (n_rows,) for two classes, else (n_rows, n_classes).

        Rows come in the order of `X`; those of a dataset in the order in which it holds them.

        Parameters
        ----------
        X
            As in `fit`.

        Returns
        -------
        margins
            For dask arrays and DataFrames and for xarray lazily in the same container, the one
            with the same chunks, the other with its coordinates; for a dataset on disk or its
            path a dask array with a chunk for each partition; else numpy.
        """
        check_is_fitted(self)
        columns = self.classes_ if len(self.classes_) > 2 else None
        return self._answer(X, predict.one_margin, np.float32, columns)

    def predict(self, X: Any) -> Any:
        """Return the class with the largest margin for each row, shape (n_rows,).

        The container is that of `decision_function`.
        """
        check_is_fitted(self)
        return self._answer(
            X, partial(predict.names_of, classes=self.classes_), self.classes_.dtype
        )

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy on `X`; a dataset brings its own labels and weights."""
        dataset = self._in_order(X, y, sample_weight)
        return predict.accuracy(dataset, self.classes_, self._score())

    def _compared(self, dataset: Dataset) -> Dataset:
        return predict.coded(dataset, self.classes_, "the data")

    def _into(self, other: Any) -> Any:
        """Return scikit-learn's estimator `other`, fitted, with these weights and classes."""
        check_is_fitted(self)
        check_dense(self)
        other.classes_ = self.classes_.copy()
        other.coef_ = self.coef_.astype(np.float64)
        other.intercept_ = self.intercept_.astype(np.float64)
        other.n_features_in_ = self.n_features_in_
        other.n_iter_ = self.n_iter_
        return other
