"""The estimators are scikit-learn's: its own checks, its tools around them, models handed over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from small import Data, fitted

from daskps import FactorizationMachine, LinearRegression, LinearSVC, LogisticRegression

ESTIMATORS = [
    LogisticRegression(),
    LinearSVC(),
    LinearRegression(),
    FactorizationMachine(),
    FactorizationMachine(loss="squared"),
]
LOCAL_STEPS = (
    "steps depend on the order of rows and end near the optimum, not at it to 1e-7; that weights "
    "and repeated rows agree there is tested in test_logistic and test_regression"
)
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": LOCAL_STEPS,
    "check_sample_weight_equivalence_on_sparse_data": LOCAL_STEPS,
}


def expected_failures(estimator: Any) -> dict[str, str]:
    """Name the checks that fail, with the reason."""
    return EXPECTED


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_scikit_learn_finds_nothing_to_complain_of(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("kind", [LogisticRegression, LinearSVC])
@pytest.mark.parametrize("k", [2, 3])
def test_classifier_of_scikit_learn_predicts_the_same(
    kind: Any, k: int, binary: Data, multinomial: Data
) -> None:
    data = binary if k == 2 else multinomial
    y = np.array(["a", "b", "c"])[data.y]
    clf = kind(max_iter=3).fit(data.X, y)
    other = clf.to_sklearn()
    assert type(other).__module__.startswith("sklearn")
    np.testing.assert_array_equal(other.predict(data.X), clf.predict(data.X))
    margins = clf.decision_function(data.X)
    np.testing.assert_allclose(other.decision_function(data.X), margins, atol=1e-5)
    if kind is LogisticRegression:
        proba = clf.predict_proba(data.X)
        np.testing.assert_allclose(other.predict_proba(data.X), proba, atol=1e-5)
    assert other.score(data.X, y) == clf.score(data.X, y)


def test_regression_of_scikit_learn_predicts_the_same(binary: Data) -> None:
    y = binary.X @ np.arange(8) + 1e4
    for loss in ("squared", "huber"):
        model = LinearRegression(loss=loss).fit(binary.X, y)
        other = model.to_sklearn()
        np.testing.assert_allclose(other.predict(binary.X), model.predict(binary.X), atol=1e-3)
        assert other.score(binary.X, y) == pytest.approx(model.score(binary.X, y), abs=1e-6)


def test_grid_search_finds_the_better_penalty(binary: Data) -> None:
    for estimator in (LogisticRegression(max_iter=3), LinearSVC(max_iter=3)):
        search = GridSearchCV(estimator, {"alpha": [1e-3, 100.0]}, cv=3).fit(binary.X, binary.y)
        assert search.best_params_ == {"alpha": 1e-3}
        assert search.score(binary.X, binary.y) > 0.7


def test_pipeline_scales_before_it_learns(binary: Data) -> None:
    X = binary.X * 100.0 + 7
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5))
    assert cross_val_score(classifier, X, binary.y, cv=3).mean() > 0.7
    regression = make_pipeline(StandardScaler(), LinearRegression(max_iter=20))
    assert cross_val_score(regression, X, X @ np.arange(8), cv=3).mean() > 0.9


def test_margins_of_a_machine_are_calibrated(binary: Data) -> None:
    clf = CalibratedClassifierCV(LinearSVC(max_iter=5), cv=3).fit(binary.X, binary.y)
    proba = clf.predict_proba(binary.X)
    np.testing.assert_allclose(proba.sum(1), 1)
    logistic = fitted(binary.X, binary.y, max_iter=10).predict_proba(binary.X)
    assert np.corrcoef(proba[:, 1], logistic[:, 1])[0, 1] > 0.98
