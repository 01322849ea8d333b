"""Factorisation machines find what pairs say, however many partitions work at once."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import pytest
from scipy import sparse as sp
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV

import daskps
from daskps import FactorizationMachine, LinearRegression, LogisticRegression
from daskps.errors import CheckpointError, DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"
LOSSES = ("logistic", "squared")


class Pairs(NamedTuple):
    """One-hot rows of two fields, and a quantity and a class that only their pairs tell."""

    X: sp.csr_array
    quantity: np.ndarray
    label: np.ndarray


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    rng, n, d = np.random.default_rng(0), 4000, 30
    a, b = rng.integers(0, d, (2, n))
    left, right = rng.normal(size=(2, d, 2))
    s = 2 * (left[a] * right[b]).sum(1)
    columns = np.stack([a, d + b], 1).ravel()
    X = sp.csr_array((np.ones(2 * n, "f4"), (np.repeat(np.arange(n), 2), columns)), (n, 2 * d))
    label = rng.random(n) < 1 / (1 + np.exp(-s))
    return Pairs(X, s + rng.normal(scale=0.5, size=n), np.where(label, "yes", "no"))


def target(pairs: Pairs, loss: str) -> np.ndarray:
    return pairs.label if loss == "logistic" else pairs.quantity


def fitted(X: Any, y: Any = None, **options: Any) -> FactorizationMachine:
    options = {"n_factors": 4, "max_iter": 40, "tol": None, "factor_alpha": 1e-4, **options}
    return FactorizationMachine(**options).fit(X, y)


def test_pairs_are_learnt_that_no_linear_model_can_tell(pairs: Pairs) -> None:
    train, test = slice(0, 3000), slice(3000, 4000)
    clf = fitted(pairs.X[train], pairs.label[train])
    linear = LogisticRegression().fit(pairs.X[train], pairs.label[train])
    assert linear.score(pairs.X[test], pairs.label[test]) < 0.62
    assert clf.score(pairs.X[test], pairs.label[test]) > 0.7
    model = fitted(pairs.X[train], pairs.quantity[train], loss="squared")
    plain = LinearRegression().fit(pairs.X[train], pairs.quantity[train])
    assert plain.score(pairs.X[test], pairs.quantity[test]) < 0.1
    assert model.score(pairs.X[test], pairs.quantity[test]) > 0.8


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("consistency", ["bsp", "ssp"])
def test_nothing_diverges_however_many_partitions_work_at_once(
    pairs: Pairs, loss: str, consistency: str
) -> None:
    y = target(pairs, loss)
    reached = []
    for n in (1, 2, 8, 32):
        dataset = daskps.from_arrays(pairs.X, y, n_partitions=n)
        options = {"loss": loss, "consistency": consistency, "rows_per_clock": 10**6}
        reached.append(fitted(dataset, **options).score(pairs.X, y))
    assert min(reached) > max(reached) - 0.06
    assert max(reached) > 0.7


@pytest.mark.parametrize("loss", LOSSES)
def test_predictions_are_what_the_attributes_say(pairs: Pairs, loss: str) -> None:
    model = fitted(pairs.X, target(pairs, loss), loss=loss, max_iter=5)
    assert model.coef_.shape == (60,)
    assert model.factors_.shape == (60, 4)
    assert model.intercept_.shape == (1,)
    x, V = pairs.X.toarray().astype(float), model.factors_.astype(float)
    second = ((x @ V) ** 2 - x**2 @ V**2).sum(1) / 2
    s = model.intercept_[0] + x @ model.coef_ + second
    if loss == "squared":
        np.testing.assert_allclose(model.predict(pairs.X), s, atol=1e-4)
        r = pairs.quantity
        expected = 1 - np.sum((s - r) ** 2) / np.sum((r - r.mean()) ** 2)
        assert model.score(pairs.X, r) == pytest.approx(expected, rel=1e-4)
        return
    np.testing.assert_allclose(model.decision_function(pairs.X), s, atol=1e-4)
    proba = model.predict_proba(pairs.X)
    np.testing.assert_allclose(proba[:, 1], 1 / (1 + np.exp(-s)), atol=1e-4)
    assert model.classes_.tolist() == ["no", "yes"]
    np.testing.assert_array_equal(model.predict(pairs.X), model.classes_[(s > 0).astype(int)])
    expected = log_loss(pairs.label, proba)
    assert model.log_loss(pairs.X, pairs.label) == pytest.approx(expected, rel=1e-4)


def test_loss_decides_what_kind_of_estimator_it_is(pairs: Pairs) -> None:
    assert is_classifier(FactorizationMachine())
    regressor = FactorizationMachine(loss="squared")
    assert is_regressor(regressor)
    assert not is_classifier(regressor)
    for name in ("predict_proba", "decision_function", "log_loss"):
        assert hasattr(FactorizationMachine(), name)
        assert not hasattr(regressor, name)
    with pytest.raises(DataError, match="Only binary classification"):
        fitted(pairs.X, np.arange(pairs.X.shape[0]) % 3)
    with pytest.raises(DataError, match="quantities have none"):
        regressor.partial_fit(pairs.X, pairs.quantity, classes=[0, 1])


def test_unit_and_offset_of_quantities_do_not_matter(pairs: Pairs) -> None:
    small = fitted(pairs.X, pairs.quantity, loss="squared", alpha=0.0, factor_alpha=0.0, max_iter=5)
    y = 1e4 * pairs.quantity - 3e6
    large = fitted(pairs.X, y, loss="squared", alpha=0.0, factor_alpha=0.0, max_iter=5)
    found = (large.predict(pairs.X) + 3e6) / 1e4
    np.testing.assert_allclose(found, small.predict(pairs.X), atol=2e-3)


CHANGES: dict[str, Any] = {
    "n_factors": 3,
    "loss": "squared",
    "alpha": 0.1,
    "factor_alpha": 0.1,
    "init_scale": 0.5,
    "fit_intercept": False,
    "eta0": 0.01,
    "consistency": "ssp",
    "max_iter": 2,
    "rows_per_clock": 20,
    "random_state": 1,
}


@pytest.mark.parametrize("name", CHANGES)
def test_parameter_changes_the_model(pairs: Pairs, name: str) -> None:
    rows, y = slice(0, 400), (pairs.label[:400] == "yes").astype(float)
    given = {"max_iter": 3, "eta0": 0.1, "rows_per_clock": 50}
    data: Any = (pairs.X[rows], y)
    if name == "consistency":  # SSP differs from BSP where there are several partitions
        data = (daskps.from_arrays(*data, n_partitions=4),)
    before, again = (fitted(*data, **given) for _ in range(2))
    changed = fitted(*data, **{**given, name: CHANGES[name]})
    np.testing.assert_array_equal(before.factors_, again.factors_)
    assert before.factors_.shape != changed.factors_.shape or np.any(
        before.factors_ != changed.factors_
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_saved_model_comes_back_and_goes_on(pairs: Pairs, loss: str, tmp_path: Path) -> None:
    y = target(pairs, loss)
    model = fitted(pairs.X, y, loss=loss, max_iter=5)
    model.save(tmp_path / "m.zarr")
    read = daskps.load(tmp_path / "m.zarr")
    assert read.get_params() == model.get_params()
    for name in ("coef_", "factors_", "intercept_"):
        np.testing.assert_array_equal(getattr(model, name), getattr(read, name))
    np.testing.assert_array_equal(read.predict(pairs.X), model.predict(pairs.X))
    before = model.score(pairs.X, y)
    for known in (model, read):
        for _ in range(10):
            known.partial_fit(pairs.X, y)
        assert known.score(pairs.X, y) > before


@pytest.mark.parametrize("loss", LOSSES)
def test_resumed_run_has_the_bits_of_an_uninterrupted_one(
    pairs: Pairs, loss: str, tmp_path: Path
) -> None:
    y = target(pairs, loss)
    calm = fitted(pairs.X, y, loss=loss, max_iter=4, rows_per_clock=100)

    class Stop(Exception):
        pass

    def stop(clock: int, loss: float) -> None:
        if clock == 9:
            raise Stop

    options = {"loss": loss, "tol": None, "max_iter": 4, "rows_per_clock": 100}
    stored = {"checkpoint": tmp_path / "c.zarr", "checkpoint_every": 2}
    model = FactorizationMachine(4, factor_alpha=1e-4, **options, **stored)
    with pytest.raises(Stop):
        model.fit(pairs.X, y, callback=stop)
    resumed = model.fit(pairs.X, y, resume=True)
    np.testing.assert_array_equal(resumed.factors_, calm.factors_)
    np.testing.assert_array_equal(resumed.coef_, calm.coef_)
    other = clone(model).set_params(n_factors=3)
    with pytest.raises(CheckpointError, match="another setting"):
        other.fit(pairs.X, y, resume=True)


def test_held_out_data_stop_training(pairs: Pairs) -> None:
    few, rest = slice(0, 500), slice(500, 4000)
    model = FactorizationMachine(loss="squared", max_iter=200, factor_alpha=0.0, alpha=0.0)
    model.fit(pairs.X[few], pairs.quantity[few], eval_set=(pairs.X[rest], pairs.quantity[rest]))
    assert model.stop_reason_ == "tol"
    residual = model.predict(pairs.X[rest]) - pairs.quantity[rest]
    last = model.history_.eval_loss.dropna("clock").values[-1]
    assert last == pytest.approx(np.mean(residual**2) / 2, rel=1e-3)


def test_it_predicts_lazily_and_works_in_a_grid_search(pairs: Pairs) -> None:
    search = GridSearchCV(FactorizationMachine(4, tol=None), {"max_iter": [1, 30]}, cv=2)
    search.fit(pairs.X[:1000], pairs.label[:1000])
    assert search.best_params_ == {"max_iter": 30}
    X = da.from_array(pairs.X[:300].toarray(), chunks=(100, -1))
    found = search.best_estimator_.predict_proba(X)
    assert isinstance(found, da.Array)
    expected = search.best_estimator_.predict_proba(pairs.X[:300])
    np.testing.assert_array_equal(found.compute(), expected)


# -- real data -----------------------------------------------------------------------------------


def ratings() -> tuple[sp.csr_array, np.ndarray]:
    """Return users, movies, genres and half-years as columns, and the ratings, shuffled."""
    folder = SHARED / "ml-latest-small"
    if not folder.exists():
        pytest.skip(f"real data are not in {folder}")
    with (folder / "ratings.csv").open() as file:
        table = np.array(list(csv.reader(file))[1:], float)
    with (folder / "movies.csv").open(encoding="utf8") as file:
        genres = {float(r["movieId"]): r["genres"].split("|") for r in csv.DictReader(file)}
    table = table[np.random.default_rng(0).permutation(len(table))]
    kinds = {name: i for i, name in enumerate(sorted({g for gs in genres.values() for g in gs}))}
    _, user = np.unique(table[:, 0], return_inverse=True)
    movies, movie = np.unique(table[:, 1], return_inverse=True)
    tags = sp.lil_array((len(movies), len(kinds)), dtype="f4")
    for i, key in enumerate(movies):
        for g in genres[key]:
            tags[i, kinds[g]] = len(genres[key]) ** -0.5
    half_year = ((table[:, 3] - table[:, 3].min()) // (182 * 86400)).astype(int)
    n = np.arange(len(table))
    hot = [sp.csr_array((np.ones(len(n), "f4"), (n, c))) for c in (user, movie, half_year)]
    return sp.hstack([*hot, tags.tocsr()[movie]]).tocsr(), table[:, 2]


def test_ratings_are_told_better_than_by_the_linear_model() -> None:
    X, y = ratings()
    cut = len(y) * 8 // 10

    def rmse(model: Any) -> float:
        residual = model.fit(X[:cut], y[:cut]).predict(X[cut:]) - y[cut:]
        return float(np.sqrt(np.mean(residual**2)))

    # one penalty of weights for both; other ones bring the linear model no nearer
    options = {"max_iter": 15, "tol": None, "alpha": 3e-5}
    linear = rmse(LinearRegression(**options))
    factors = rmse(FactorizationMachine(loss="squared", factor_alpha=3e-4, **options))
    assert factors < linear - 0.01
    assert factors < 0.871  # what matrix factorisation without side features reaches


def test_census_is_told_at_least_as_well_as_by_the_linear_model() -> None:
    folder = SHARED / "census"
    if not folder.exists():
        pytest.skip(f"real data are not in {folder}")
    train = daskps.read_svmlight(folder / "census_148d_train.libsvm", n_features=148)
    lines = [line.split() for line in (folder / "census_148d_test.dummy").read_text().splitlines()]
    X = sp.lil_array((len(lines), 148), dtype="f4")
    for i, (_, *ids) in enumerate(lines):
        X[i, [int(j) for j in ids]] = 1  # counted from 0, where the training file counts from 1
    y = np.array([float(line[0]) for line in lines])
    clf, linear = (
        make(alpha=1e-5, max_iter=30, tol=None).fit(train)
        for make in (FactorizationMachine, LogisticRegression)
    )
    found = clf.log_loss(X.tocsr(), y)
    assert found < 0.3019  # of scikit-learn's logistic regression, without an intercept
    assert found < linear.log_loss(X.tocsr(), y)
