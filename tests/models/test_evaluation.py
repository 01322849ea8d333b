"""Evaluation by how rare features are, and what rates for each coordinate do for the rare ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client
from scipy import sparse as sp
from sklearn.base import clone
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from small import Data, fitted

import daskps
from daskps import LogisticRegression


def zipf(n: int, seed: int) -> tuple[sp.csr_array, np.ndarray]:
    """Draw rows of eight fields with Zipf frequencies, where every feature has a weight."""
    fields, per_field = 8, 500
    w = np.random.default_rng(7).normal(0, 1, fields * per_field)
    rng, share = np.random.default_rng(seed), np.arange(1, per_field + 1) ** -1.1
    ids = rng.choice(per_field, (n, fields), p=share / share.sum()) + np.arange(fields) * per_field
    y = (rng.random(n) < 1 / (1 + np.exp(-w[ids].sum(1)))).astype(int)
    ids, edges = ids.astype(np.int32), np.arange(n + 1, dtype=np.int32) * fields
    return sp.csr_array((np.ones(ids.size, "f4"), ids.ravel(), edges), (n, len(w))), y


def by_hand(X: Any, y: np.ndarray, proba: np.ndarray, counted: Any) -> dict[int, tuple[int, float]]:
    counts = np.asarray((counted != 0).sum(axis=0)).ravel()
    rarest = [counts[X.indices[a:b]].min() for a, b in zip(X.indptr, X.indptr[1:], strict=False)]
    digits = np.array([0 if c == 0 else len(str(c)) for c in rarest])
    found = {}
    for d in np.unique(digits):
        at = digits == d
        low = 0 if d == 0 else 10 ** (d - 1)
        found[int(low)] = (int(at.sum()), log_loss(y[at], proba[at], labels=[0, 1]))
    return found


def test_bins_hold_the_rows_by_their_rarest_feature() -> None:
    (X, y), (X_test, y_test) = zipf(3000, 0), zipf(1000, 1)
    clf = fitted(X, y)
    for counted, reference in ((None, X_test), (X, X)):
        table = clf.evaluate(X_test, y_test, by="feature_frequency", counted=counted)
        expected = by_hand(X_test, y_test, clf.predict_proba(X_test), reference)
        assert table["at_least"].values.tolist() == list(expected)
        assert table["samples"].values.tolist() == [n for n, _ in expected.values()]
        np.testing.assert_allclose(table["log_loss"], [v for _, v in expected.values()], rtol=1e-4)
    whole = clf.evaluate(X_test, y_test)
    assert float(whole["log_loss"]) == pytest.approx(clf.log_loss(X_test, y_test), rel=1e-4)
    assert float(whole["accuracy"]) == pytest.approx(clf.score(X_test, y_test))
    assert int(whole["samples"]) == 1000


def test_classes_and_weights_count(multinomial: Data) -> None:
    clf = fitted(multinomial.X, multinomial.y)
    weight = np.arange(len(multinomial.y)) % 3
    found = clf.evaluate(multinomial.X, multinomial.y, weight)
    expected = clf.log_loss(multinomial.X, multinomial.y, weight)
    assert float(found["log_loss"]) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="expected 'feature_frequency'"):
        clf.evaluate(multinomial.X, multinomial.y, by="size")


FIGURES: dict[str, tuple[Any, dict[str, Any]]] = {
    "hinge": (
        daskps.LinearSVC(loss="hinge"),
        {
            "loss": lambda m, y: np.maximum(0, 1 - (2 * y - 1) * m),
            "accuracy": lambda m, y: (m > 0) == y,
        },
    ),
    "squared hinge": (
        daskps.LinearSVC(),
        {
            "loss": lambda m, y: np.maximum(0, 1 - (2 * y - 1) * m) ** 2,
            "accuracy": lambda m, y: (m > 0) == y,
        },
    ),
    "huber": (
        daskps.LinearRegression(loss="huber"),
        {
            "squared_error": lambda m, y: (m - y) ** 2,
            "absolute_error": lambda m, y: abs(m - y),
        },
    ),
    "logistic factors": (
        daskps.FactorizationMachine(2),
        {
            "log_loss": lambda m, y: np.logaddexp(0, -(2 * y - 1) * m),
            "accuracy": lambda m, y: (m > 0) == y,
        },
    ),
    "squared factors": (
        daskps.FactorizationMachine(2, loss="squared"),
        {
            "squared_error": lambda m, y: (m - y) ** 2,
            "absolute_error": lambda m, y: abs(m - y),
        },
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_estimator_tells_its_figures_by_rarity(name: str) -> None:
    (X, y), (X_test, y_test) = zipf(1500, 0), zipf(500, 1)
    model, figures = FIGURES[name]
    model = clone(model).set_params(max_iter=3, tol=None).fit(X, y)
    told = getattr(model, "decision_function", model.predict)(X_test)
    table = model.evaluate(X_test, y_test, by="feature_frequency", counted=X)
    assert list(table) == ["samples", *figures]
    counts = np.asarray((X != 0).sum(axis=0)).ravel()
    rarest = counts[X_test.indices.reshape(-1, 8)].min(axis=1)
    for figure, of in figures.items():
        each = of(told, y_test)
        for low, high, mean in zip(
            table.at_least.values, table.at_most.values, table[figure].values, strict=True
        ):
            at = (low <= rarest) & (rarest <= high)
            assert mean == pytest.approx(np.mean(each[at]), rel=1e-4)
        whole = model.evaluate(X_test, y_test)
        assert float(whole[figure]) == pytest.approx(np.mean(each), rel=1e-4)


def test_hinges_of_several_classes_add_up(multinomial: Data) -> None:
    X, y = multinomial
    model = daskps.LinearSVC(max_iter=3, tol=None).fit(X, y)
    sign = np.where(np.arange(3) == y[:, None], 1, -1)
    each = (np.maximum(0, 1 - sign * model.decision_function(X)) ** 2).sum(axis=1)
    found = model.evaluate(X, y)
    assert float(found["loss"]) == pytest.approx(each.mean(), rel=1e-5)
    assert float(found["accuracy"]) == pytest.approx(model.score(X, y))


def test_ids_of_64_bits_are_counted(tmp_path: Path) -> None:
    (X, y), (X_test, y_test) = zipf(1500, 0), zipf(500, 1)
    narrow = fitted(X, y, keys="hash")
    expected = narrow.evaluate(X_test, y_test, by="feature_frequency", counted=X)
    files = []
    for name, rows, labels in (("train", X, y), ("test", X_test, y_test)):
        ids = rows.indices.astype(np.int64).reshape(-1, 8) * 2**50
        lines = (
            f"{t} " + " ".join(f"{k}:1" for k in row) for t, row in zip(labels, ids, strict=True)
        )
        (tmp_path / name).write_text("\n".join(lines))
        files.append(daskps.read_svmlight(tmp_path / name))
    train, test = files
    assert test.n_features > 2**60
    wide = fitted(train, keys="hash")
    found = wide.evaluate(test, by="feature_frequency", counted=train)
    np.testing.assert_array_equal(found["samples"], expected["samples"])
    np.testing.assert_array_equal(found["at_least"], expected["at_least"])
    # features have the weights of other rows' order
    np.testing.assert_allclose(found["log_loss"], expected["log_loss"], rtol=0.1)


def test_rates_for_each_coordinate_serve_rare_features() -> None:
    (X, y), (X_test, y_test) = zipf(20_000, 0), zipf(10_000, 1)
    clf = LogisticRegression(alpha=1e-5, max_iter=3, tol=None).fit(X, y)
    ours = clf.evaluate(X_test, y_test, by="feature_frequency", counted=X)
    best = []
    for eta0 in (0.003, 0.01, 0.03, 0.1):  # one rate for all coordinates, the best of four
        rate = {"learning_rate": "constant", "eta0": eta0}
        sgd = SGDClassifier(
            loss="log_loss", alpha=1e-5, max_iter=3, tol=None, random_state=0, **rate
        )
        proba = sgd.fit(X, y).predict_proba(X_test)
        best.append([v for _, v in by_hand(X_test, y_test, proba, X).values()])
    plain = np.array(best)[np.argmin([log_loss_of(row, ours) for row in best])]
    rare = ours["at_least"].values < 100
    assert rare.sum() >= 2
    assert np.all(ours["log_loss"].values[rare] < plain[rare])


def log_loss_of(bins: list[float], table: Any) -> float:
    return float(np.average(bins, weights=table["samples"].values))


@pytest.mark.cluster
def test_workers_evaluate_stored_data(tmp_path: Path) -> None:
    X, y = zipf(2000, 0)
    dataset = daskps.from_arrays(X, y, tmp_path / "d.zarr", n_partitions=10)
    clf = fitted(X, y)
    expected = clf.evaluate(dataset, by="feature_frequency")
    with daskps.local_cluster(1, processes=False) as cluster, Client(cluster):
        assert clf.evaluate(tmp_path / "d.zarr", by="feature_frequency").identical(expected)
