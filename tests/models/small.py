"""Small data of the estimators' tests, and short fits on them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.utils.fixes import parse_version

from daskps import LogisticRegression


class Data(NamedTuple):
    """Dense rows, so that every kind of input can be made of them, and labels 0 .. k - 1."""

    X: NDArray[np.float32]
    y: NDArray[np.int64]


def make(n_classes: int, n_rows: int = 400, n_features: int = 8, seed: int = 0) -> Data:
    """Draw labels from a multinomial model of half-empty rows."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, n_features))
    X[rng.random(X.shape) < 0.5] = 0
    margins = X @ rng.normal(size=(n_features, n_classes)) + rng.gumbel(size=(n_rows, n_classes))
    return Data(X.astype(np.float32), margins.argmax(axis=1))


def fitted(X: Any, y: Any = None, **options: Any) -> LogisticRegression:
    return LogisticRegression(**{"max_iter": 3, "tol": None, **options}).fit(X, y)


def penalised(l1_ratio: float) -> dict[str, Any]:
    """Return the penalty as arguments of scikit-learn's logistic regression."""
    if parse_version(sklearn.__version__) >= parse_version("1.8"):
        return {"l1_ratio": l1_ratio}
    # before, its kind had to be named, which is deprecated since
    return {"l1_ratio": l1_ratio, "penalty": "elasticnet"} if l1_ratio else {}
