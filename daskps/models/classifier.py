"""What the linear classifiers share: classes, margins, accuracy.

Labels become positions in `classes_` here, by `classes`; the course of training is in `estimator`.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin

from daskps.data import Dataset
from daskps.models import predict
from daskps.models.classes import CodedDataset, Labels, agreed_classes, training_classes
from daskps.models.estimator import LinearEstimator, Target
from daskps.models.parameters import class_weights


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
        known = agreed_classes(classes, self.classes_ if self._fitted else None)
        return self._partial_fit(X, y, sample_weight, known)

    def _target(self, dataset: Dataset, y: Any, known: NDArray[Any] | None) -> Target:
        labels = Labels.of(dataset, y)
        classes = training_classes(labels, known)
        counts = labels.counts_in(classes, "the training data")
        weights = class_weights(self.class_weight, classes, counts)
        return Target(CodedDataset(dataset, classes, "the training data"), classes, weights)

    def _held_out(self, dataset: Dataset, target: Target) -> Dataset:
        assert target.classes is not None
        return CodedDataset(dataset, target.classes, "eval_set")

    def _arrays(self) -> dict[str, tuple[NDArray[Any], tuple[str, ...]]]:
        return {**super()._arrays(), "classes": (self.classes_, ("class",))}

    def decision_function(self, X: Any) -> NDArray[np.float32]:
        """Return margins, shape (n_rows,) for two classes, else (n_rows, n_classes).

        Rows come in the order of `X`; those of a dataset in the order in which it holds them.
        """
        parts = predict.margins(self._in_order(X), self.coef_, self.intercept_)
        margins: NDArray[np.float32] = np.concatenate([m for m, _ in parts])
        return margins[:, 0] if margins.shape[1] == 1 else margins

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class with the largest margin for each row, shape (n_rows,)."""
        margins = self.decision_function(X)
        return self.classes_[predict.best(margins)]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy on `X`; a dataset brings its own labels and weights."""
        dataset = self._in_order(X, y, sample_weight)
        return predict.accuracy(dataset, self.classes_, self.coef_, self.intercept_)
