"""Fixtures of the tests of what is shown."""

from __future__ import annotations

import pytest
from cluster_tools import own_scratch

import daskps

__all__ = ["own_scratch"]


@pytest.fixture(scope="session")
def fitted() -> daskps.LogisticRegression:
    """Return an estimator that has gone over a few rows."""
    X = [[1.0, 0.0], [0.0, 1.0]] * 20
    model = daskps.LogisticRegression(max_iter=4, tol=None, progress=False)
    return model.fit(X, [0, 1] * 20, eval_set=(X, [0, 1] * 20))
