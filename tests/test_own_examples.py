"""The examples of own models learn what they should, on threads and on a cluster that loses one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster_tools import Farm, Recorder, assert_clean, at_clock, own_scratch
from own_models import digits, example
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression

import daskps
from daskps.errors import RunFailed
from daskps.models import own_fit
from daskps.run import events as ev

ROOT = Path(__file__).resolve().parent.parent

__all__ = ["own_scratch"]


def digits_in(n_partitions: int) -> daskps.Dataset:
    return daskps.from_arrays(*digits(), n_partitions=n_partitions)


def kmeans(data: daskps.Dataset, **options: Any) -> tuple[daskps.Trained, np.ndarray]:
    module = example("kmeans")
    return module.fit(module.KMeans(10, 64), data, **{"max_iter": 15, **options})


def inertia(X: np.ndarray, centres: np.ndarray) -> float:
    return float(((X[:, None] - centres) ** 2).sum(axis=2).min(axis=1).sum())


def test_kmeans_goes_the_way_of_scikit_learns() -> None:
    data, X = digits_in(4), digits()[0]
    trained, centres = kmeans(data)
    first = data.partition(0).rows(0, 10).to_scipy().toarray()
    same = KMeans(10, init=first, n_init=1, max_iter=15, tol=0, algorithm="lloyd").fit(X)
    np.testing.assert_allclose(centres, same.cluster_centers_, atol=1e-4)
    assert trained["total"][:, -1].sum() == pytest.approx(len(X), abs=1e-3)


@pytest.mark.parametrize("consistency", ["ssp", "asp"])
def test_kmeans_without_a_barrier_is_as_good(consistency: str) -> None:
    data, X = digits_in(4), digits()[0]
    _, calm = kmeans(data, max_iter=25)
    trained, centres = kmeans(data, max_iter=25, consistency=consistency, rows_per_clock=150)
    assert inertia(X, centres) < 1.05 * inertia(X, calm)
    assert trained["total"][:, -1].sum() == pytest.approx(len(X), abs=1e-3)


def softmax(data: daskps.Dataset, **options: Any) -> daskps.Trained:
    module = example("softmax")
    return daskps.train(module.Softmax(64, 10), data, **{"rows_per_clock": 100, **options})


@pytest.mark.parametrize("consistency", ["bsp", "asp"])
def test_softmax_is_as_good_as_scikit_learns(consistency: str) -> None:
    train, test = digits_in(4).split(0.8)
    trained = softmax(train, eval_set=test, max_iter=20, consistency=consistency)
    X, y = rows(train)
    reference = LogisticRegression(fit_intercept=False, max_iter=500).fit(X, y)
    X, y = rows(test)
    right = ((X @ trained["coef"]).argmax(axis=1) == y).mean()
    assert right > reference.score(X, y) - 0.02  # 7 of 359 rows
    P = reference.predict_proba(X)
    assert trained.history.eval_loss[-1] < -np.log(P[np.arange(len(y)), y.astype(int)]).mean()


def rows(data: daskps.Dataset) -> tuple[np.ndarray, np.ndarray]:
    parts = [data.partition(p) for p in range(data.n_partitions)]
    labels = np.concatenate([p.label for p in parts if p.label is not None])
    return np.concatenate([p.to_scipy().toarray() for p in parts]), labels


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kmeans", "softmax"])
def test_script_runs(name: str) -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / f"{name}.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=55)
    assert done.returncode == 0, done.stderr
    assert "passes" in done.stdout


@pytest.mark.slow
@pytest.mark.faults
def test_examples_survive_a_kill_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = digits_in(4)
    calm = kmeans(data)[0]["total"], softmax(data, max_iter=6)["coef"]
    seen = Recorder()
    with Farm(2, tmp_path) as farm:
        with pytest.raises(RunFailed, match="have no module 'kmeans', in which KMeans is"):
            kmeans(data)
        for name in ("kmeans", "softmax"):
            farm.client.upload_file(str(ROOT / "examples" / f"{name}.py"))
        listeners: list[Any] = []
        monkeypatch.setattr(own_fit, "progress_listeners", lambda *_: listeners)
        listeners[:] = [seen, at_clock(6, lambda: farm.kill(farm.holders()[0]))]
        cut = {"checkpoint": str(tmp_path / "kmeans.zarr"), "checkpoint_every": 2}
        after = [kmeans(data, **cut)[0]["total"]]
        listeners[:] = [seen, at_clock(6, lambda: farm.kill(farm.holders()[0]))]
        cut = {"checkpoint": str(tmp_path / "softmax.zarr"), "checkpoint_every": 2}
        after.append(softmax(data, max_iter=6, **cut)["coef"])
        assert_clean(farm.scheduler)
    assert len(seen.of(ev.Recovered)) == 2
    for one, other in zip(calm, after, strict=True):
        assert one.tobytes() == other.tobytes()
