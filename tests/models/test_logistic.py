"""Logistic regression reaches scikit-learn's optimum, on small and on real data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse as sp
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.metrics import log_loss
from small import Data, fitted, make, penalised

import daskps
from daskps import LogisticRegression

A9A = Path(__file__).parents[3] / "shared" / "data" / "a9a"
# The optimum of small data: so many passes that the last per cent does not depend on the solver.
TO_THE_OPTIMUM = {"max_iter": 150, "rows_per_clock": 25}


def objective(clf: Any, data: Data, alpha: float, l1_ratio: float = 0.0) -> float:
    """Return the mean loss and penalty of any model, in float64."""
    w = np.asarray(clf.coef_, np.float64)
    penalty = (1 - l1_ratio) / 2 * np.sum(w**2) + l1_ratio * np.abs(w).sum()
    return float(log_loss(data.y, clf.predict_proba(data.X)) + alpha * penalty)


def reference(data: Data, alpha: float, **options: Any) -> Any:
    C = 1 / (alpha * len(data.y)) if alpha else np.inf
    options = {"max_iter": 10_000, "tol": 1e-8, **options}
    return Reference(C=C, **options).fit(data.X.astype(np.float64), data.y)


@pytest.mark.parametrize("consistency", ["bsp", "ssp", "asp"])
@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
@pytest.mark.parametrize("k", [2, 3])
def test_l2_reaches_the_objective_of_scikit_learn(k: int, solver: str, consistency: str) -> None:
    data, alpha = make(k), 0.01
    options = {"alpha": alpha, "solver": solver, "consistency": consistency}
    clf = fitted(data.X, data.y, **options, **TO_THE_OPTIMUM)
    best = objective(reference(data, alpha), data, alpha)
    assert best * (1 - 1e-6) < objective(clf, data, alpha) < best * 1.01


@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_no_penalty_reaches_the_objective_of_scikit_learn(binary: Data, solver: str) -> None:
    clf = fitted(binary.X, binary.y, alpha=0.0, solver=solver, **TO_THE_OPTIMUM)
    best = objective(reference(binary, 0.0), binary, 0.0)
    assert best * (1 - 1e-6) < objective(clf, binary, 0.0) < best * 1.01


@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_l1_gives_the_zeros_of_scikit_learn(solver: str) -> None:
    data, alpha = make(2, n_rows=1000), 0.02
    noise = np.random.default_rng(1).normal(size=(1000, 8)).astype(np.float32)
    data = Data(np.hstack([data.X, noise]), data.y)
    options = {"alpha": alpha, "l1_ratio": 1.0, "solver": solver}
    clf = fitted(data.X, data.y, **options, **TO_THE_OPTIMUM)
    best = reference(data, alpha, solver="saga", tol=1e-7, **penalised(1.0))
    assert objective(clf, data, alpha, 1.0) < objective(best, data, alpha, 1.0) * 1.01
    clear = np.abs(best.coef_) > 0.02  # near zero, one of two good answers is as good
    assert np.all(clf.coef_[clear] != 0)
    zero = best.coef_ == 0
    assert np.count_nonzero(zero) >= 4
    # AdaGrad's local steps leave the threshold a little before the next clock takes them back
    np.testing.assert_allclose(clf.coef_[zero], 0, atol=0.01)
    assert np.count_nonzero(clf.coef_[zero]) <= (1 if solver == "ftrl" else zero.sum() - 1)


def test_intercept_is_not_penalised() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 2)).astype(np.float32)
    y = (rng.random(1000) < 0.9).astype(int)
    clf = fitted(X, y, alpha=1.0, **TO_THE_OPTIMUM)
    share = y.mean()
    # 0.1 of the log-odds is a hundredth of the probability
    assert clf.intercept_[0] == pytest.approx(np.log(share / (1 - share)), abs=0.1)
    without = fitted(X, y, alpha=1.0, fit_intercept=False)
    assert without.intercept_.tolist() == [0.0]


def test_sample_weights_are_repeated_rows() -> None:
    data = make(2)
    times = np.random.default_rng(0).integers(0, 3, len(data.y))
    X, y = np.repeat(data.X, times, axis=0), np.repeat(data.y, times)
    weighted = LogisticRegression(alpha=0.01, tol=None, **TO_THE_OPTIMUM)
    weighted.fit(data.X, data.y, times)
    # alpha stands beside the mean over rows, of which there are more now
    repeated = fitted(X, y, alpha=0.01 * len(data.y) / len(y), **TO_THE_OPTIMUM)
    assert weighted.log_loss(X, y) == pytest.approx(repeated.log_loss(X, y), rel=0.01)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=0.1, atol=0.1)
    assert weighted.score(data.X, data.y, times) == pytest.approx(weighted.score(X, y))
    assert weighted.log_loss(data.X, data.y, times) == pytest.approx(weighted.log_loss(X, y))


@pytest.mark.parametrize("class_weight", ["balanced", {"rare": 5.0}])
def test_class_weights_weigh_as_in_scikit_learn(class_weight: Any) -> None:
    data = make(2)
    keep = (data.y == 0) | (np.arange(len(data.y)) % 5 == 0)
    X, y = data.X[keep], np.array(["often", "rare"])[data.y[keep]]
    clf = fitted(X, y, alpha=0.01, class_weight=class_weight, **TO_THE_OPTIMUM)
    C = 1 / (0.01 * len(y))
    best = Reference(C=C, class_weight=class_weight, max_iter=1000).fit(X, y)
    np.testing.assert_allclose(clf.predict_proba(X), best.predict_proba(X), atol=0.03)
    plain = fitted(X, y, alpha=0.01, **TO_THE_OPTIMUM)
    assert np.mean(clf.predict(X) == "rare") > np.mean(plain.predict(X) == "rare")


def test_log_loss_is_that_of_scikit_learn(multinomial: Data) -> None:
    clf = fitted(multinomial.X, multinomial.y)
    expected = log_loss(multinomial.y, clf.predict_proba(multinomial.X))
    assert clf.log_loss(multinomial.X, multinomial.y) == pytest.approx(expected, rel=1e-5)
    some = multinomial.y != 1  # a class that the rows lack
    expected = log_loss(
        multinomial.y[some], clf.predict_proba(multinomial.X[some]), labels=clf.classes_
    )
    found = clf.log_loss(multinomial.X[some], multinomial.y[some])
    assert found == pytest.approx(expected, rel=1e-5)


# -- real data -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def a9a() -> tuple[daskps.Dataset, daskps.Dataset]:
    if not A9A.exists():
        pytest.skip(f"real data are not in {A9A}")
    train = daskps.read_svmlight(A9A / "a9a")
    return train, daskps.read_svmlight(A9A / "a9a.t", n_features=train.n_features)


@pytest.fixture(scope="module")
def a9a_best(a9a: tuple[daskps.Dataset, daskps.Dataset]) -> float:
    """Return scikit-learn's test log-loss at its best C."""
    (X, y), (X_test, y_test) = (
        (
            sp.vstack([d.partition(i).to_scipy() for i in range(d.n_partitions)]),
            np.concatenate([d.partition(i).label for i in range(d.n_partitions)]),
        )
        for d in a9a
    )
    losses = [
        log_loss(y_test, Reference(C=C, max_iter=300).fit(X, y).predict_proba(X_test))
        for C in (0.03, 0.1, 0.3, 1.0)
    ]
    return float(min(losses))


@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
@pytest.mark.parametrize("consistency", ["bsp", "ssp"])
def test_a9a_is_learnt_as_well_as_by_scikit_learn(
    a9a: tuple[daskps.Dataset, daskps.Dataset], a9a_best: float, consistency: str, solver: str
) -> None:
    train, test = a9a
    # after so many passes the last pushes of SSP, in whatever order, move little
    options = {"alpha": 3e-4, "solver": solver, "consistency": consistency, "max_iter": 30}
    clf = fitted(train, **options)
    assert clf.score(test) >= 0.848
    assert clf.log_loss(test) <= 1.005 * a9a_best
