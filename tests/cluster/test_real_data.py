"""Real data on two worker processes with staleness: as good as scikit-learn, every time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from scipy import sparse as sp
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.metrics import log_loss

import daskps

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

A9A = Path(__file__).parents[3] / "shared" / "data" / "a9a"
RUNS = 10


@pytest.fixture
def two_workers(tmp_path: Path) -> Iterator[None]:
    with daskps.local_cluster(2, local_directory=str(tmp_path)) as cluster, Client(cluster):
        yield


def whole(dataset: daskps.Dataset) -> tuple[sp.csr_array, np.ndarray]:
    parts = [dataset.partition(i) for i in range(dataset.n_partitions)]
    return sp.vstack([p.to_scipy() for p in parts]), np.concatenate([p.label for p in parts])


@pytest.mark.skipif(not A9A.exists(), reason=f"real data are not in {A9A}")
@pytest.mark.usefixtures("two_workers")
def test_a9a_with_staleness_is_as_good_as_scikit_learn_every_time() -> None:
    train = daskps.read_svmlight(A9A / "a9a")
    test = daskps.read_svmlight(A9A / "a9a.t", n_features=train.n_features)
    (X, y), (X_test, y_test) = whole(train), whole(test)
    best = min(
        log_loss(y_test, Reference(C=C, max_iter=300).fit(X, y).predict_proba(X_test))
        for C in (0.03, 0.1, 0.3, 1.0)
    )
    options = {"alpha": 3e-4, "consistency": "ssp", "max_iter": 20, "tol": None}
    losses, scores = [], []
    for _ in range(RUNS):
        clf = daskps.LogisticRegression(**options, progress=False).fit(train)
        losses.append(clf.log_loss(test))
        scores.append(clf.score(test))
    print(f"\nlog-loss {min(losses):.5f} to {max(losses):.5f}, scikit-learn's best {best:.5f}")
    assert min(scores) >= 0.848
    assert max(losses) <= 1.005 * best
