"""Evaluation by how rare features are, and what rates for each coordinate do for the rare ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster
from scipy import sparse as sp
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
    alone: dict[str, Any] = {"processes": False, "dashboard_address": None}
    with LocalCluster(n_workers=1, threads_per_worker=1, **alone) as cluster, Client(cluster):
        assert clf.evaluate(tmp_path / "d.zarr", by="feature_frequency").identical(expected)
