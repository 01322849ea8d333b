"""Support vector machines reach the optimum of their objective, on small and on real data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse as sp
from scipy.optimize import minimize
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression as LogisticReference
from sklearn.metrics import log_loss
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC
from sklearn.svm import LinearSVC as Reference
from small import Data, make

import daskps
from daskps import LinearSVC, LogisticRegression

DATA = Path(__file__).parents[3] / "shared" / "data"
TO_THE_OPTIMUM = {"max_iter": 100, "rows_per_clock": 50, "tol": None}
LOSSES, SOLVERS = ("squared_hinge", "hinge"), ("adagrad", "ftrl")


def signs(y: Any, classes: Any) -> np.ndarray:
    """Return 1 or -1 for each row and margin."""
    hits = np.asarray(y)[:, None] == np.asarray(classes)
    return np.where(hits[:, 1:] if len(classes) == 2 else hits, 1.0, -1.0)


def mean_loss(loss: str, margins: Any, sign: np.ndarray) -> float:
    slack = np.maximum(0, 1 - sign * np.reshape(margins, sign.shape))
    return float((slack if loss == "hinge" else slack**2).sum(1).mean())


def objective(clf: Any, X: Any, y: Any, alpha: float, loss: str) -> float:
    w = np.asarray(clf.coef_, np.float64)
    margins = X @ w.T + np.asarray(clf.intercept_)
    return mean_loss(loss, margins, signs(y, clf.classes_)) + alpha / 2 * float(np.sum(w**2))


def optimum(data: Data, alpha: float, loss: str) -> float:
    """Return the least objective, each class's apart, with an intercept that is free."""
    classes = np.unique(data.y)
    X, n = data.X.astype(np.float64), len(data.y)
    if loss == "hinge":
        machine = SVC(kernel="linear", C=1 / (alpha * n), tol=1e-6)
        best = machine if len(classes) == 2 else OneVsRestClassifier(machine)
        fitted = best.fit(X, data.y)
        parts = [fitted] if len(classes) == 2 else fitted.estimators_
        found = [np.r_[m.coef_[0], m.intercept_] for m in parts]
    else:

        def value(v: np.ndarray, sign: np.ndarray) -> float:
            return mean_loss(loss, X @ v[:-1] + v[-1], sign) + alpha / 2 * float(v[:-1] @ v[:-1])

        found = [
            minimize(value, np.zeros(X.shape[1] + 1), sign[:, None]).x
            for sign in signs(data.y, classes).T
        ]
    W = np.array(found)
    margins = X @ W[:, :-1].T + W[:, -1]
    penalty = alpha / 2 * float(np.sum(W[:, :-1] ** 2))
    return mean_loss(loss, margins, signs(data.y, classes)) + penalty


@pytest.mark.parametrize(
    ("k", "loss", "solver"),
    [
        (2, "hinge", "ftrl"),
        (2, "squared_hinge", "adagrad"),
        (3, "hinge", "adagrad"),
        (3, "squared_hinge", "ftrl"),
    ],
)
def test_objective_is_the_least_there_is(k: int, loss: str, solver: str) -> None:
    data, alpha = make(k), 0.01
    clf = LinearSVC(alpha, loss=loss, solver=solver, **TO_THE_OPTIMUM).fit(data.X, data.y)
    assert clf.coef_.shape == (1 if k == 2 else 3, 8)
    best = optimum(data, alpha, loss)
    assert best * (1 - 1e-6) < objective(clf, data.X, data.y, alpha, loss) < best * 1.01


def zipf(n_rows: int, fields: int = 10, per_field: int = 500) -> tuple[Any, np.ndarray]:
    """Draw one-hot fields with a long tail, and labels of a planted model."""
    rng = np.random.default_rng(0)
    share = np.arange(1, per_field + 1) ** -1.1
    ids = rng.choice(per_field, (n_rows, fields), p=share / share.sum())
    ids += np.arange(fields) * per_field
    w = rng.normal(0, 0.75, fields * per_field)
    y = (rng.random(n_rows) < 1 / (1 + np.exp(-w[ids].sum(1)))).astype(int)
    edges = np.arange(0, ids.size + 1, fields)
    shape = (n_rows, fields * per_field)
    return sp.csr_array((np.ones(ids.size, np.float32), ids.ravel(), edges), shape=shape), y


@pytest.mark.parametrize("consistency", ["bsp", "asp"])
@pytest.mark.parametrize("loss", LOSSES)
def test_quality_does_not_depend_on_how_many_partitions_work_at_once(
    loss: str, consistency: str
) -> None:
    X, y = zipf(20_000)
    found = []
    for n in (1, 2, 8, 32):
        dataset = daskps.from_arrays(X[:15_000], y[:15_000], n_partitions=n)
        clf = LinearSVC(loss=loss, consistency=consistency, max_iter=3).fit(dataset)
        margins = clf.decision_function(X[15_000:])
        found.append(mean_loss(loss, margins, signs(y[15_000:], clf.classes_)))
    assert max(found) < min(found) * 1.03


def test_parameters_of_the_loss_change_the_model(binary: Data) -> None:
    one, other = (LinearSVC(loss=loss).fit(binary.X, binary.y) for loss in LOSSES)
    assert np.any(one.coef_ != other.coef_)
    with pytest.raises(ValueError, match=r"'log'\); expected 'squared_hinge' or 'hinge'"):
        LinearSVC(loss="log").fit(binary.X, binary.y)


def test_class_weights_weigh_rows() -> None:
    data = make(2)
    options = {"alpha": 0.01, **TO_THE_OPTIMUM}
    weighted = LinearSVC(class_weight={1: 3.0}, **options).fit(data.X, data.y)
    rows = LinearSVC(**options).fit(data.X, data.y, np.where(data.y == 1, 3.0, 1.0))
    np.testing.assert_allclose(weighted.coef_, rows.coef_, rtol=1e-4, atol=1e-5)


def test_l1_gives_the_zeros_of_scikit_learn() -> None:
    data, alpha = make(2, n_rows=1000), 0.05
    noise = np.random.default_rng(1).normal(size=(1000, 8)).astype(np.float32)
    X = np.hstack([data.X, noise])
    clf = LinearSVC(alpha, l1_ratio=1.0, solver="ftrl", **TO_THE_OPTIMUM).fit(X, data.y)
    options = {"penalty": "l1", "dual": False, "intercept_scaling": 100.0, "tol": 1e-6}
    best = Reference(C=1 / (alpha * 1000), max_iter=10_000, **options).fit(X, data.y)
    np.testing.assert_allclose(clf.coef_, best.coef_, atol=0.02)
    zero = best.coef_ == 0
    assert np.count_nonzero(zero) >= 4
    assert np.count_nonzero(clf.coef_[zero]) <= 1


@pytest.mark.parametrize("loss", LOSSES)
def test_model_is_saved_and_goes_on(multinomial: Data, loss: str, tmp_path: Path) -> None:
    clf = LinearSVC(loss=loss, max_iter=5).fit(multinomial.X, multinomial.y)
    clf.save(tmp_path / "m.zarr")
    read = daskps.load(tmp_path / "m.zarr")
    assert isinstance(read, LinearSVC)
    assert read.get_params() == clf.get_params()
    np.testing.assert_array_equal(
        read.decision_function(multinomial.X), clf.decision_function(multinomial.X)
    )
    before = clf.score(multinomial.X, multinomial.y)
    read.partial_fit(multinomial.X, multinomial.y)
    assert read.score(multinomial.X, multinomial.y) > before - 0.03


# -- real data -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def a9a() -> tuple[daskps.Dataset, daskps.Dataset]:
    if not (DATA / "a9a").exists():
        pytest.skip(f"real data are not in {DATA}")
    train = daskps.read_svmlight(DATA / "a9a" / "a9a")
    return train, daskps.read_svmlight(DATA / "a9a" / "a9a.t", n_features=train.n_features)


def rows_of(dataset: daskps.Dataset) -> tuple[Any, np.ndarray]:
    parts = [dataset.partition(i) for i in range(dataset.n_partitions)]
    y = np.concatenate([part.label for part in parts])
    return sp.vstack([part.to_scipy() for part in parts]).tocsr(), y


@pytest.mark.parametrize("loss", LOSSES)
def test_a9a_is_learnt_as_well_as_by_scikit_learn(
    a9a: tuple[daskps.Dataset, daskps.Dataset], loss: str
) -> None:
    (train, test), alpha = a9a, 1e-4
    X, y = rows_of(train)
    # a large scaling leaves the intercept, which liblinear penalises, nearly free
    best = Reference(C=1 / (alpha * len(y)), loss=loss, intercept_scaling=10, dual="auto")
    if loss == "squared_hinge":
        best.fit(X, y)
    else:
        best.set_params(max_iter=20_000, tol=0.01).fit(X, y)
    for solver in SOLVERS:
        clf = LinearSVC(alpha, loss=loss, solver=solver, max_iter=20, tol=None).fit(train)
        ratio = objective(clf, X, y, alpha, loss) / objective(best, X, y, alpha, loss)
        assert ratio < 1.005
        assert clf.score(test) > best.score(*rows_of(test)) - 0.002


def texts(name: str) -> tuple[list[str], list[str]]:
    lines = (DATA / "r8" / name).read_text(encoding="utf-8").splitlines()
    labels, documents = zip(*(line.split("\t", 1) for line in lines), strict=True)
    return list(documents), list(labels)


def test_documents_of_eight_classes_are_told_apart_as_well_as_by_scikit_learn() -> None:
    if not (DATA / "r8").exists():
        pytest.skip(f"real data are not in {DATA}")
    (train, y), (test, y_test) = texts("r8_train.txt"), texts("r8_test.txt")
    vectorizer = TfidfVectorizer()
    X, X_test = vectorizer.fit_transform(train), vectorizer.transform(test)
    options = {"alpha": 1 / len(y), "max_iter": 10}  # C = 1
    svm = Reference().fit(X, y).score(X_test, y_test)
    for loss in LOSSES:
        assert LinearSVC(loss=loss, **options).fit(X, y).score(X_test, y_test) > svm - 0.003
    softmax = LogisticReference().fit(X, y)
    clf = LogisticRegression(**options).fit(X, y)
    # the standard error of an accuracy on 2,189 documents; their log-loss tells more
    assert clf.score(X_test, y_test) > softmax.score(X_test, y_test) - 0.005
    expected = log_loss(y_test, softmax.predict_proba(X_test))
    assert clf.log_loss(X_test, y_test) < 1.005 * expected
