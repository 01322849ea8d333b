"""Every solver minimises the same objective: scikit-learn's, to one part in ten thousand."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse as sp
from scipy.optimize import fmin_l_bfgs_b
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression as Reference
from small import Data, fitted, make, penalised

import daskps

A9A = Path(__file__).parents[3] / "shared" / "data" / "a9a"
CLOSE = 1e-4
PENALTIES = [(1e-2, 0.0), (1e-2, 1.0), (1e-2, 0.5)]
TOLERANCES = {"lbfgs": None, "admm": 1e-5}
LOCAL = ["adagrad", "ftrl"]
IDS = ["l2", "l1", "elastic net"]


def objective(W: Any, b: Any, X: Any, y: NDArray[Any], alpha: float, l1_ratio: float) -> float:
    """Return the mean log-loss and the penalty, in float64."""
    W, b = np.asarray(W, np.float64), np.asarray(b, np.float64)
    scores = X @ W.T + b
    if scores.shape[1] == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    top = scores.max(axis=1)
    loss = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top - scores[np.arange(len(y)), y]
    penalty = (1 - l1_ratio) / 2 * np.sum(W**2) + l1_ratio * np.abs(W).sum()
    return float(loss.mean() + alpha * penalty)


@cache
def dense(k: int) -> Data:
    """Return rows with features that go together, of very different sizes."""
    data = make(k, n_rows=600, n_features=12)
    X = data.X.copy()
    X[:, 0] = X[:, 1] + 0.1 * X[:, 0]
    X[:, 2] *= 10
    X[:, 3] /= 10
    return Data(X, data.y)


@cache
def best_of_scikit_learn(k: int, alpha: float, l1_ratio: float) -> float:
    data = dense(k)
    solver = "saga" if l1_ratio else "lbfgs"
    options = {**penalised(l1_ratio), "solver": solver, "tol": 1e-8, "max_iter": 100_000}
    X = data.X.astype(np.float64)
    sk = Reference(C=1 / (alpha * len(data.y)), **options).fit(X, data.y)
    return objective(sk.coef_, sk.intercept_, X, data.y, alpha, l1_ratio)


@pytest.mark.parametrize(("alpha", "l1_ratio"), PENALTIES, ids=IDS)
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("solver", TOLERANCES)
def test_the_optimum_of_dense_data_is_reached(
    solver: str, k: int, alpha: float, l1_ratio: float
) -> None:
    data, best = dense(k), best_of_scikit_learn(k, alpha, l1_ratio)
    options = {"alpha": alpha, "l1_ratio": l1_ratio, "solver": solver, "tol": TOLERANCES[solver]}
    clf = fitted(data.X, data.y, **options, max_iter=300)
    found = objective(clf.coef_, clf.intercept_, data.X, data.y, alpha, l1_ratio)
    assert best * (1 - 1e-6) < found < best * (1 + CLOSE)
    assert clf.stop_reason_ == "tol"  # L-BFGS: rounding hides any gain, long before 300 passes
    assert clf.history_["objective"].values[-1] == pytest.approx(found, rel=1e-5)
    assert np.any(clf.coef_ == 0) == (l1_ratio > 0)


@pytest.mark.parametrize(("alpha", "l1_ratio"), PENALTIES, ids=IDS)
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("n_partitions", [1, 4])
@pytest.mark.parametrize("solver", LOCAL)
def test_local_steps_reach_the_optimum_of_dense_data(
    solver: str, n_partitions: int, k: int, alpha: float, l1_ratio: float
) -> None:
    data, best = dense(k), best_of_scikit_learn(k, alpha, l1_ratio)
    dataset = daskps.from_arrays(data.X, data.y, n_partitions=n_partitions)
    clf = fitted(dataset, alpha=alpha, l1_ratio=l1_ratio, solver=solver, max_iter=40)
    found = objective(clf.coef_, clf.intercept_, data.X, data.y, alpha, l1_ratio)
    assert best * (1 - 1e-6) < found < best * (1 + CLOSE)
    assert np.any(clf.coef_ == 0) == (l1_ratio > 0)


@cache
def a9a() -> tuple[sp.csr_array, NDArray[np.int64]]:
    dataset = daskps.read_svmlight(A9A / "a9a", n_features=123, n_partitions=4)
    parts = [dataset.partition(i) for i in range(4)]
    X = sp.vstack([p.to_scipy() for p in parts], format="csr").astype(np.float64)
    return X, (np.concatenate([p.label for p in parts]) > 0).astype(np.int64)


@cache
def best_of_a9a(alpha: float, l1_ratio: float) -> float:
    """Return the optimum: positive and negative parts of the weights make L1 smooth."""
    X, y = a9a()
    n, d = X.shape
    sign = np.where(y > 0, -1.0, 1.0)

    def f(v: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        w = v[:d] - v[d:-1]
        m = sign * (X @ w + v[-1])
        g = sign / (1 + np.exp(-m)) / n
        down = X.T @ g + alpha * (1 - l1_ratio) * w
        l1 = alpha * l1_ratio
        value = np.logaddexp(0, m).mean() + alpha * (1 - l1_ratio) / 2 * w @ w + l1 * v[:-1].sum()
        return value, np.concatenate([down + l1, l1 - down, [g.sum()]])

    bounds = [(0, None)] * (2 * d) + [(None, None)]
    _, value, _ = fmin_l_bfgs_b(f, np.zeros(2 * d + 1), bounds=bounds, factr=10, maxiter=3000)
    return float(value)


@pytest.mark.skipif(not A9A.exists(), reason="needs the a9a files beside the project")
@pytest.mark.parametrize(("alpha", "l1_ratio"), [(3e-4, 0.0), (1e-3, 1.0), (1e-3, 0.5)], ids=IDS)
@pytest.mark.parametrize(("solver", "passes"), [("lbfgs", 200), ("admm", 60)])
def test_the_optimum_of_a9a_is_reached(
    solver: str, passes: int, alpha: float, l1_ratio: float
) -> None:
    X, y = a9a()
    best = best_of_a9a(alpha, l1_ratio)
    if l1_ratio == 0:
        sk = Reference(C=1 / (alpha * len(y)), tol=1e-6, max_iter=1000).fit(X, y)
        theirs = objective(sk.coef_, sk.intercept_, X, y, alpha, 0.0)
        assert best == pytest.approx(theirs, rel=1e-5)
    options = {"alpha": alpha, "l1_ratio": l1_ratio, "solver": solver}
    clf = fitted(X, y, **options, max_iter=passes)
    found = objective(clf.coef_, clf.intercept_, X, y, alpha, l1_ratio)
    assert best * (1 - 1e-6) < found < best * (1 + CLOSE)


@pytest.mark.skipif(not A9A.exists(), reason="needs the a9a files beside the project")
@pytest.mark.parametrize(("alpha", "l1_ratio"), [(3e-4, 0.0), (1e-3, 1.0), (1e-3, 0.5)], ids=IDS)
@pytest.mark.parametrize("n_partitions", [2, 8])
@pytest.mark.parametrize("solver", LOCAL)
def test_local_steps_reach_the_optimum_of_a9a(
    solver: str, n_partitions: int, alpha: float, l1_ratio: float
) -> None:
    X, y = a9a()
    dataset = daskps.from_arrays(X, y, n_partitions=n_partitions)
    clf = fitted(dataset, alpha=alpha, l1_ratio=l1_ratio, solver=solver, max_iter=40)
    found = objective(clf.coef_, clf.intercept_, X, y, alpha, l1_ratio)
    best = best_of_a9a(alpha, l1_ratio)
    assert best * (1 - 1e-6) < found < best * (1 + CLOSE)


@pytest.mark.parametrize("solver", LOCAL)
@pytest.mark.parametrize(
    "model",
    [
        daskps.LinearSVC(),
        daskps.LinearRegression(),
        daskps.LinearRegression(loss="huber", epsilon=0.3),
        daskps.LogisticRegression(fit_intercept=False, class_weight={0: 1.0, 1: 5.0}),
    ],
    ids=["svc", "squared", "huber", "weighted"],
)
def test_local_steps_and_lbfgs_agree_on_other_losses(
    model: Any, solver: str, binary: Data, multinomial: Data
) -> None:
    for X, y in (binary, multinomial)[: 1 + isinstance(model, daskps.LinearSVC)]:
        data = daskps.from_arrays(X, y, n_partitions=3)
        options = {"alpha": 0.01, "l1_ratio": 0.5, "tol": None}
        expected = clone(model).set_params(solver="lbfgs", max_iter=200, **options).fit(data)
        found = clone(model).set_params(solver=solver, max_iter=80, **options).fit(data)
        np.testing.assert_allclose(found.coef_, expected.coef_, atol=1e-3)
        np.testing.assert_allclose(found.intercept_, expected.intercept_, atol=1e-3)
        np.testing.assert_array_equal(found.coef_ == 0, expected.coef_ == 0)


@pytest.mark.parametrize("solver", LOCAL)
def test_refined_runs_go_on_from_one_another(solver: str, binary: Data) -> None:
    """Neither sums of squares nor FTRL's penalty begin anew, so that nothing is unlearnt."""
    options = {"alpha": 0.01, "l1_ratio": 0.5, "solver": solver, "warm_start": True}
    clf = fitted(*binary, max_iter=50, **options)
    best = clf.coef_.copy()
    fresh = fitted(*binary, max_iter=1, **options).coef_
    again = clf.set_params(max_iter=1).fit(*binary).coef_
    assert np.abs(again - best).max() < np.abs(fresh - best).max() / 4
    coef = clf.set_params(max_iter=50).fit(*binary).coef_
    np.testing.assert_allclose(coef, fitted(*binary, max_iter=50, **options).coef_, atol=1e-3)


def test_hashed_keys_are_refined_to_the_bits_of_a_range(binary: Data) -> None:
    data = daskps.from_arrays(binary.X, binary.y, n_partitions=3)
    plain, hashed = (fitted(data, max_iter=16, keys=keys) for keys in ("range", "hash"))
    np.testing.assert_array_equal(hashed.coef_, plain.coef_)


@pytest.mark.parametrize("solver", TOLERANCES)
def test_samples_and_classes_are_weighed(solver: str, binary: Data) -> None:
    weight = np.random.default_rng(0).integers(0, 3, len(binary.y)).astype(np.float64)
    options = {"alpha": 0.01, "solver": solver, "class_weight": {0: 1.0, 1: 3.0}, "tol": 1e-6}
    clf = daskps.LogisticRegression(**options, max_iter=200).fit(binary.X, binary.y, weight)
    C = 1 / (0.01 * len(binary.y))
    sk = Reference(C=C, tol=1e-8, class_weight={0: 1.0, 1: 3.0}).fit(binary.X, binary.y, weight)
    np.testing.assert_allclose(clf.coef_, sk.coef_, atol=0.01)
    np.testing.assert_allclose(clf.intercept_, sk.intercept_, atol=0.01)


@pytest.mark.parametrize("solver", TOLERANCES)
def test_it_goes_without_intercept_and_without_penalty(solver: str, binary: Data) -> None:
    clf = fitted(binary.X, binary.y, alpha=0.0, solver=solver, fit_intercept=False, max_iter=100)
    sk = Reference(C=np.inf, tol=1e-8, fit_intercept=False).fit(binary.X, binary.y)
    assert clf.intercept_.tolist() == [0.0]
    np.testing.assert_allclose(clf.coef_, sk.coef_, rtol=0.01, atol=0.01)


def test_lbfgs_goes_on_from_another_solver(binary: Data) -> None:
    options = {"alpha": 0.01, "warm_start": True}
    clf = fitted(binary.X, binary.y, **options, max_iter=20)
    before = clf.coef_.copy()
    clf.set_params(solver="lbfgs", max_iter=1).fit(binary.X, binary.y)
    np.testing.assert_array_equal(clf.coef_, before)  # one pass only measures what is there
    assert clf.history_["loss"].values[0] == pytest.approx(clf.log_loss(binary.X, binary.y))
    clf.set_params(max_iter=50).fit(binary.X, binary.y)
    fresh = fitted(binary.X, binary.y, alpha=0.01, solver="lbfgs", max_iter=50)
    np.testing.assert_allclose(clf.coef_, fresh.coef_, atol=2e-3)


def test_lbfgs_stops_by_the_objective_or_by_held_out_data(binary: Data) -> None:
    X, y = binary
    clf = fitted(X, y, solver="lbfgs", max_iter=200, tol=1e-3)
    assert (clf.stop_reason_, clf.n_iter_ < 30) == ("tol", True)
    assert clf.history_["accepted"].values[0] == 1
    # what is best for the opposite labels is to stay at zero
    worse = daskps.LogisticRegression(solver="lbfgs", max_iter=200, tol=1e-3, alpha=0.0)
    worse.fit(X, y, eval_set=(X, 1 - y))
    assert (worse.stop_reason_, worse.n_iter_) == ("tol", 1 + worse.n_iter_no_change)
    assert worse.history_["eval_loss"].values[0] == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("parameter", "value"), [("consistency", "asp"), ("eta0", 0.1), ("rows_per_clock", 100)]
)
@pytest.mark.parametrize("solver", TOLERANCES)
def test_batch_solvers_refuse_what_they_would_not_look_at(
    solver: str, binary: Data, parameter: str, value: Any
) -> None:
    with pytest.raises(
        ValueError, match=rf"solver='{solver}', {parameter}=.*expected {parameter}="
    ):
        fitted(binary.X, binary.y, solver=solver, **{parameter: value})


def test_admm_refuses_admission_and_the_hinge(binary: Data) -> None:
    with pytest.raises(ValueError, match=r"admission=0.5.*expected admission=1.0"):
        fitted(binary.X, binary.y, solver="admm", keys="hash", admission=0.5)
    with pytest.raises(ValueError, match="no gradient at its kink"):
        daskps.LinearSVC(loss="hinge", solver="admm").fit(binary.X, binary.y)


@pytest.mark.parametrize("kind", [daskps.LinearSVC, daskps.LinearRegression])
@pytest.mark.parametrize("n_partitions", [1, 5])
def test_admm_and_lbfgs_agree_on_other_losses(kind: Any, n_partitions: int, binary: Data) -> None:
    data = daskps.from_arrays(binary.X, binary.y, n_partitions=n_partitions)
    options = {"alpha": 0.01, "l1_ratio": 0.5, "max_iter": 200, "tol": 1e-7}
    found, expected = (kind(solver=s, **options).fit(data) for s in ("admm", "lbfgs"))
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=2e-3)
    np.testing.assert_allclose(found.intercept_, expected.intercept_, atol=2e-3)
    np.testing.assert_array_equal(found.coef_ == 0, expected.coef_ == 0)


def test_admm_starts_from_the_model_that_is_there(binary: Data) -> None:
    options = {"alpha": 0.01, "warm_start": True, "tol": None}
    clf = fitted(binary.X, binary.y, solver="lbfgs", max_iter=100, **options)
    best, loss = clf.coef_.copy(), clf.log_loss(binary.X, binary.y)
    clf.set_params(solver="admm", max_iter=30).fit(binary.X, binary.y)
    assert clf.history_["loss"].values[0] == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(clf.coef_, best, atol=2e-3)
    # held-out data say when it is enough
    judged = daskps.LogisticRegression(solver="admm", max_iter=200, tol=1e-3, alpha=0.01)
    judged.fit(*binary, eval_set=tuple(binary))
    assert (judged.stop_reason_, judged.n_iter_ < 60) == ("tol", True)
    assert judged.history_["eval_loss"].values[-1] == pytest.approx(
        judged.log_loss(*binary), rel=1e-5
    )


def test_admm_takes_hashed_keys(binary: Data) -> None:
    data = daskps.from_arrays(binary.X, binary.y, n_partitions=3)
    plain, hashed = (
        fitted(data, solver="admm", l1_ratio=1.0, alpha=0.1, max_iter=40, keys=keys, n_shards=n)
        for keys, n in (("range", 1), ("hash", 3))
    )
    assert np.any(plain.coef_ == 0)
    np.testing.assert_array_equal(hashed.coef_keys_, np.flatnonzero(plain.coef_[0]))
    # keys stand in another order, in which products are summed
    some = hashed.coef_keys_.astype(np.intp)
    np.testing.assert_allclose(hashed.coef_, plain.coef_[:, some], atol=1e-4)


@pytest.mark.parametrize("solver", TOLERANCES)
def test_batch_solvers_have_no_partial_fit(solver: str, binary: Data) -> None:
    clf = daskps.LogisticRegression(solver=solver)
    with pytest.raises(ValueError, match="more than one pass"):
        clf.partial_fit(binary.X, binary.y)
