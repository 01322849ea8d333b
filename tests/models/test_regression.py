"""Regressions reach the optimum of their objective, for targets of any unit and offset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

import daskps
from daskps import LinearRegression
from daskps.errors import DataError
from daskps.models.quantities import Scale

TO_THE_OPTIMUM = {"max_iter": 100, "rows_per_clock": 100, "tol": None}
SOLVERS = ("adagrad", "ftrl")


def make(n_rows: int = 400, noise: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw half-empty rows and quantities with an offset."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 8))
    X[rng.random(X.shape) < 0.5] = 0
    w = np.array([2.0, -1.5, 1.0, -0.5, 0.25, 0, 0, 0])
    return X.astype(np.float32), X @ w + 3 + noise * rng.normal(size=n_rows)


def objective(model: Any, X: Any, y: Any, alpha: float, l1_ratio: float = 0.0) -> float:
    w = np.ravel(np.asarray(model.coef_, np.float64))
    penalty = (1 - l1_ratio) / 2 * np.sum(w**2) + l1_ratio * np.abs(w).sum()
    r = y - X.astype(np.float64) @ w - float(np.ravel(model.intercept_)[0])
    return float(np.mean(r**2) / 2 + alpha * penalty)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(("l1_ratio", "solver"), [(0.0, "adagrad"), (0.0, "ftrl"), (0.5, "ftrl")])
def test_objective_is_that_of_scikit_learn_in_any_unit(
    l1_ratio: float, solver: str, unit: float
) -> None:
    X, y = make()
    y, alpha = y * unit, 0.05 * (unit if l1_ratio else 1.0)
    options = {"l1_ratio": l1_ratio, "solver": solver, **TO_THE_OPTIMUM}
    model = LinearRegression(alpha, **options).fit(X, y)
    best: Any = ElasticNet(alpha, l1_ratio=l1_ratio) if l1_ratio else Ridge(alpha * len(y))
    best.fit(X.astype(np.float64), y)
    least = objective(best, X, y, alpha, l1_ratio)
    assert least * (1 - 1e-6) < objective(model, X, y, alpha, l1_ratio) < least * 1.01
    np.testing.assert_allclose(model.coef_, best.coef_, atol=0.03 * unit)
    assert model.intercept_[0] == pytest.approx(best.intercept_, abs=0.03 * unit)


def test_huber_reaches_its_objective_and_ignores_what_is_wild() -> None:
    X, y = make(1000)
    wild = np.random.default_rng(1).random(1000) < 0.1
    y[wild] += 300
    epsilon, alpha = 0.5, 0.01

    def huber(v: np.ndarray) -> float:
        r = abs(y - X @ v[:-1] - v[-1])
        each = np.where(r <= epsilon, r**2 / 2, epsilon * (r - epsilon / 2))
        return float(each.mean() + alpha / 2 * v[:-1] @ v[:-1])

    least = minimize(huber, np.zeros(9)).fun
    for solver in SOLVERS:
        options = {"loss": "huber", "epsilon": epsilon, "solver": solver, **TO_THE_OPTIMUM}
        model = LinearRegression(alpha, **options).fit(X, y)
        found = huber(np.append(model.coef_, model.intercept_).astype(np.float64))
        assert least * (1 - 1e-6) < found < least * 1.001
    assert model.score(X[~wild], y[~wild]) > 0.95
    plain = LinearRegression(alpha).fit(X, y)
    assert plain.score(X[~wild], y[~wild]) < 0


@pytest.mark.parametrize("offset", [-1e6, 1e7])
def test_offset_of_the_targets_costs_no_digits(offset: float) -> None:
    X, y = make()
    plain = LinearRegression(max_iter=30).fit(X, y)
    far = LinearRegression(max_iter=30).fit(X, y + offset)
    assert far.score(X, y + offset) > 0.97
    np.testing.assert_allclose(far.predict(X) - offset, plain.predict(X), atol=1e-3)


def test_unit_of_the_targets_changes_nothing_but_the_unit() -> None:
    X, y = make()
    for loss in ("squared", "huber"):
        plain = LinearRegression(loss=loss, max_iter=5).fit(X, y)
        for unit in (2.0**-10, 2.0**10):
            other = LinearRegression(loss=loss, epsilon=1.35 * unit, max_iter=5).fit(X, y * unit)
            np.testing.assert_allclose(other.coef_, plain.coef_ * unit, rtol=1e-5)
            np.testing.assert_allclose(
                other.history_.loss, plain.history_.loss * unit**2, rtol=1e-5
            )


def test_without_an_intercept_nothing_is_added() -> None:
    X, y = make()
    model = LinearRegression(fit_intercept=False, **TO_THE_OPTIMUM).fit(X, y)
    best = Ridge(1e-4 * len(y), fit_intercept=False).fit(X, y)
    assert model.intercept_.tolist() == [0.0]
    assert objective(model, X, y, 1e-4) < objective(best, X, y, 1e-4) * 1.02


def test_sample_weights_are_repeated_rows() -> None:
    X, y = make()
    times = np.random.default_rng(0).integers(0, 3, len(y))
    many = np.repeat(X, times, axis=0), np.repeat(y, times)
    weighted = LinearRegression(**TO_THE_OPTIMUM).fit(X, y, times)
    repeated = LinearRegression(**TO_THE_OPTIMUM).fit(*many)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=0.05)
    assert weighted.score(X, y, times) == pytest.approx(weighted.score(*many))


def test_score_is_that_of_scikit_learn(tmp_path: Path) -> None:
    X, y = make()
    model = LinearRegression().fit(X, y)
    rng = np.random.default_rng(0)
    for moved in (y, y + 1e6, rng.permutation(y)):
        weight = rng.random(len(y))
        expected = r2_score(moved, model.predict(X), sample_weight=weight)
        assert model.score(X, moved, weight) == pytest.approx(expected, rel=1e-6)
    dataset = daskps.from_arrays(X, y, tmp_path / "d.zarr", n_partitions=3)
    assert model.score(dataset) == pytest.approx(r2_score(y, model.predict(X)), rel=1e-6)
    assert LinearRegression().fit(X, np.full(400, 7.0)).score(X, np.full(400, 7.0)) == 1.0


@pytest.mark.parametrize("consistency", ["bsp", "ssp", "asp"])
def test_quality_does_not_depend_on_how_many_partitions_work_at_once(consistency: str) -> None:
    X, y = make(8000)
    found = []
    for n in (1, 2, 8, 32):
        dataset = daskps.from_arrays(X, y, n_partitions=n)
        model = LinearRegression(consistency=consistency, max_iter=5).fit(dataset)
        found.append(1 - model.score(dataset))
    assert max(found) < min(found) * 1.05


def test_dense_data_are_predicted_as_well_as_by_scikit_learn() -> None:
    X, y = load_diabetes(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, random_state=0)
    alpha = 1e-4
    expected = Ridge(alpha * len(y)).fit(X, y).score(X_test, y_test)
    for solver in SOLVERS:
        model = LinearRegression(alpha, solver=solver, max_iter=200, tol=None).fit(X, y)
        assert model.score(X_test, y_test) > expected - 0.01


@pytest.mark.parametrize("solver", SOLVERS)
def test_warm_start_and_partial_fit_go_on(solver: str, tmp_path: Path) -> None:
    X, y = make()
    y = y * 1000
    options = {"solver": solver, "max_iter": 2, "tol": None}
    warm = LinearRegression(warm_start=True, **options).fit(X, y)
    warm.fit(X, y)
    whole = LinearRegression(**{**options, "max_iter": 4}).fit(X, y)
    np.testing.assert_array_equal(warm.coef_, whole.coef_)
    parts = LinearRegression(**options)
    for _ in range(4):
        parts.partial_fit(X, y)
    np.testing.assert_array_equal(parts.coef_, whole.coef_)
    whole.save(tmp_path / "m.zarr")
    read = daskps.load(tmp_path / "m.zarr")
    np.testing.assert_array_equal(read.predict(X), whole.predict(X))
    assert read.partial_fit(X, y).score(X, y) > whole.score(X, y) - 0.02


def test_losses_are_told_in_the_unit_of_the_targets(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = make()
    heard: list[float] = []
    model = LinearRegression(max_iter=3, tol=None, progress=True)
    model.fit(X, y * 100, eval_set=(X, y * 100), callback=lambda _, loss: heard.append(loss))
    r = y * 100 - model.predict(X)
    assert model.history_.eval_loss.values[-1] == pytest.approx(np.mean(r**2) / 2, rel=1e-3)
    np.testing.assert_allclose(heard, model.history_.loss)
    assert f"loss {heard[-1]:.4f}" in capsys.readouterr().err


@pytest.mark.parametrize("y", [["a", "b"], [True, False], None], ids=["words", "booleans", "none"])
def test_labels_that_are_no_quantities_are_refused(y: Any) -> None:
    X, good = make()
    bad = None if y is None else y * 200
    with pytest.raises(DataError, match=r"requires y|expected quantities"):
        LinearRegression().fit(X, bad)
    if bad is not None:
        with pytest.raises(DataError, match="expected quantities"):
            LinearRegression().fit(X, good, eval_set=(X, bad))


@pytest.mark.parametrize(("name", "value"), [("loss", "hinge"), ("epsilon", 0), ("epsilon", None)])
def test_bad_parameter_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name}={value!r}.*expected"):
        LinearRegression(**{name: value}).fit(*make())


def scale_of(y: Any, *, centered: bool = True, robust: bool = False) -> Scale:
    values = np.asarray(y, float)
    dataset = daskps.from_arrays(np.zeros((len(values), 1)), values, n_partitions=1)
    return Scale.of(dataset, centered=centered, robust=robust)


def test_scale_is_found_for_labels_of_every_kind() -> None:
    y = np.random.default_rng(0).normal(5, 2, 2000)
    for robust in (False, True):
        assert scale_of(y, robust=robust).unit == pytest.approx(2, rel=0.1)
        assert scale_of(y, robust=robust).center == pytest.approx(5, rel=0.1)
        assert scale_of(np.zeros(9), robust=robust) == Scale(0.0, 1.0)
        assert scale_of(np.full(9, 0.1), robust=robust) == Scale(0.1, 0.1)
        assert scale_of([0] * 99 + [1], robust=robust).unit == pytest.approx(0.1, rel=0.01)
        assert scale_of(y, centered=False, robust=robust).center == 0
    wild = np.append(y, [1e9])
    assert scale_of(wild, robust=True).unit == pytest.approx(2, rel=0.1)
